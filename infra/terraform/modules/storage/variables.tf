variable "name" {
  description = "What the names of buckets and key begin with; the buckets' must be unique in the world."
  type        = string
}

variable "keep_replaced_days" {
  description = "Days that a replaced or deleted object can still be got back."
  type        = number
  default     = 90
}

variable "staging_days" {
  description = "Days after which what jobs handed to each other is removed; the registrar has it in the store by then."
  type        = number
  default     = 30
}

variable "log_days" {
  description = "Days that access logs are kept."
  type        = number
  default     = 180
}

variable "release_locked_days" {
  description = "Days in which Object Lock keeps a release as it is."
  type        = number
}

variable "release_lock_mode" {
  description = "COMPLIANCE or GOVERNANCE, see the module bucket."
  type        = string
}
