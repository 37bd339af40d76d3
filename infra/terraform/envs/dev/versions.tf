terraform {
  required_version = ">= 1.11"
  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = "~> 5.100"
    }
  }

  # The bucket of the state comes with `-backend-config=backend.hcl`: it must exist before anything here does.
  backend "s3" {
    key          = "gme-foundry/dev/records.tfstate"
    encrypt      = true
    use_lockfile = true
  }
}

provider "aws" {
  region = var.region

  default_tags {
    tags = {
      Project     = "gme-foundry"
      Environment = "dev"
    }
  }
}
