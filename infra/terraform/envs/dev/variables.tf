variable "region" {
  description = "AWS region of everything."
  type        = string
}

variable "owner" {
  description = "What makes the names of the buckets unique in the world, such as the name of the company."
  type        = string

  validation {
    condition     = can(regex("^[a-z0-9][a-z0-9-]{1,24}$", var.owner))
    error_message = "owner becomes a part of bucket names: 2 to 25 small letters, digits and hyphens."
  }
}

variable "vpc_id" {
  description = "Network of the database."
  type        = string
}

variable "subnet_ids" {
  description = "Private subnets of the database, in two zones at least."
  type        = list(string)
}

variable "client_group_ids" {
  description = "Security groups that may connect to the database, by a name for each."
  type        = map(string)
}

variable "workers" {
  description = "For each job (synthesize, train, evaluate, registrar) the ARNs of the roles that its workers run under."
  type        = map(list(string))
}
