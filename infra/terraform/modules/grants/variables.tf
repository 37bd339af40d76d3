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
