variable "bucket_names" {
  description = "Names of the buckets of the module storage."
  type = object({
    dvc      = string
    mlflow   = string
    releases = string
  })
}

variable "database_host" {
  description = "Host name of the server."
  type        = string
}

variable "database_port" {
  description = "Port of the server."
  type        = number
}
