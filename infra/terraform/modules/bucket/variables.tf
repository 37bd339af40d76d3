variable "name" {
  description = "Name of the bucket, unique in the world."
  type        = string
}

variable "keeps" {
  description = "What is kept in it, for the tag of the same name."
  type        = string
}

variable "key_arn" {
  description = "KMS key that encrypts it."
  type        = string
}

variable "log_bucket" {
  description = "Bucket that receives the access log, under the name of this bucket."
  type        = string
}

variable "keep_replaced_days" {
  description = "Days that a replaced or deleted version can still be got back."
  type        = number
}

variable "expire_days" {
  description = "Prefixes whose objects are only of passing use, with the days after which they go."
  type        = map(number)
  default     = {}
}

variable "locked_days" {
  description = "Days in which Object Lock keeps every new object as it is; null for a bucket without a lock."
  type        = number
  default     = null
}

variable "lock_mode" {
  description = "COMPLIANCE (nobody at all can shorten it) or GOVERNANCE (an administrator can, after changing the bucket's policy)."
  type        = string
  default     = "GOVERNANCE"

  validation {
    condition     = contains(["COMPLIANCE", "GOVERNANCE"], var.lock_mode)
    error_message = "lock_mode is COMPLIANCE or GOVERNANCE."
  }
}
