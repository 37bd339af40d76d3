variable "name" {
  description = "What the names of everything here begin with."
  type        = string
}

variable "vpc_id" {
  description = "Network that the server stands in."
  type        = string
}

variable "subnet_ids" {
  description = "Private subnets, in two zones at least."
  type        = list(string)

  validation {
    condition     = length(var.subnet_ids) >= 2
    error_message = "RDS needs subnets in two zones at least."
  }
}

variable "client_group_ids" {
  description = "Security groups whose members may connect, by a name for each."
  type        = map(string)
}

variable "key_arn" {
  description = "KMS key of storage, secret and statistics."
  type        = string
}

variable "instance_class" {
  description = "Size of the server."
  type        = string
}

variable "max_gigabytes" {
  description = "How far storage may grow by itself."
  type        = number
  default     = 200
}

variable "two_zones" {
  description = "Keep a standby in a second zone."
  type        = bool
}

variable "backup_days" {
  description = "Days that any moment can be restored."
  type        = number

  validation {
    condition     = var.backup_days >= 7 && var.backup_days <= 35
    error_message = "backup_days is from 7 to 35: a week to notice a mistake, and RDS keeps no more than 35."
  }
}
