# `terraform test` with a mocked cloud: who may take on the role of a job.

mock_provider "aws" {}

variables {
  name              = "test"
  bucket_arns       = { dvc = "arn:aws:s3:::dvc", mlflow = "arn:aws:s3:::mlflow", releases = "arn:aws:s3:::releases" }
  key_arn           = "arn:aws:kms:eu-central-1:123456789012:key/key"
  database_user_arn = "arn:aws:rds-db:eu-central-1:123456789012:dbuser:db-ABC/mlflow"
  region            = "eu-central-1"
}

run "an_account_as_a_whole_is_no_worker" {
  command = plan

  variables {
    workers = { synthesize = [], train = [], evaluate = [], registrar = ["arn:aws:iam::123456789012:root"] }
  }

  expect_failures = [var.workers]
}

run "no_job_is_left_out" {
  command = plan

  variables {
    workers = { registrar = ["arn:aws:iam::123456789012:role/workers-registrar"] }
  }

  expect_failures = [var.workers]
}
