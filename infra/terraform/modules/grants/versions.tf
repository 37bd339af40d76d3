# No provider: this module only computes, so its results are tested without a cloud.
terraform {
  required_version = ">= 1.11"
}
