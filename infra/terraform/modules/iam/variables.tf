variable "name" {
  description = "What the names of roles begin with."
  type        = string
}

variable "workers" {
  description = "For each job the ARNs of the roles its workers run under, which alone may take on the job's role."
  type        = map(list(string))

  validation {
    condition     = toset(keys(var.workers)) == toset(["synthesize", "train", "evaluate", "registrar"])
    error_message = "workers names synthesize, train, evaluate and registrar, each with the ARNs of its workers."
  }

  validation {
    condition     = alltrue([for arn in flatten(values(var.workers)) : can(regex("^arn:aws[a-z-]*:iam::[0-9]{12}:role/[^*]+$", arn))])
    error_message = "A worker is the full ARN of one role: no account as a whole and no wildcard."
  }
}

variable "bucket_arns" {
  description = "ARNs of the buckets of the module storage."
  type = object({
    dvc      = string
    mlflow   = string
    releases = string
  })
}

variable "key_arn" {
  description = "Key that the buckets are encrypted with."
  type        = string
}

variable "database_user_arn" {
  description = "ARN (rds-db) of the database user that keeps runs and the registry."
  type        = string
}

variable "region" {
  description = "Region of buckets and key."
  type        = string
}
