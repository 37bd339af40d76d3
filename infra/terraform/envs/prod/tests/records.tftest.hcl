# `terraform test` with a mocked cloud: what prod promises, without an account.

mock_provider "aws" {
  override_during = plan

  mock_data "aws_iam_policy_document" {
    defaults = { json = "{}" }
  }

  mock_data "aws_caller_identity" {
    defaults = { account_id = "123456789012" }
  }

  mock_resource "aws_kms_key" {
    defaults = { arn = "arn:aws:kms:eu-central-1:123456789012:key/00000000-0000-0000-0000-000000000000" }
  }

  mock_resource "aws_iam_role" {
    defaults = { arn = "arn:aws:iam::123456789012:role/mocked" }
  }

  mock_resource "aws_s3_bucket" {
    defaults = { arn = "arn:aws:s3:::mocked" }
  }

  mock_resource "aws_db_instance" {
    defaults = {
      address            = "records.example"
      resource_id        = "db-ABC"
      master_user_secret = [{ secret_arn = "arn:aws:secretsmanager:eu-central-1:123456789012:secret:mocked" }]
    }
  }
}

run "what_counts_is_kept" {
  command = plan

  assert {
    condition     = output.settings.GME_MLFLOW_URI == "postgresql+psycopg://mlflow@records.example:5432/mlflow?sslmode=verify-full"
    error_message = "GME_MLFLOW_URI"
  }

  assert {
    condition     = keys(output.role_arns) == ["evaluate", "registrar", "synthesize", "train"]
    error_message = "one role a job"
  }
}
