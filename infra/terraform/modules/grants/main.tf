# What each job may do, to the action and the prefix. Jobs read the store and hand their results over in `staging/<what>/`;
# the registrar alone writes the store, MLflow and releases, and even it deletes nothing there.

locals {
  store   = "${var.bucket_arns.dvc}/store/*"
  staging = "${var.bucket_arns.dvc}/staging"

  jobs = {
    synthesize = {
      read   = [local.store]
      change = ["${local.staging}/data/*"]
      add    = []
    }
    train = {
      read   = [local.store, "${local.staging}/data/*"]
      change = ["${local.staging}/checkpoints/*"]
      add    = []
    }
    evaluate = {
      read   = [local.store, "${local.staging}/data/*", "${local.staging}/checkpoints/*"]
      change = ["${local.staging}/evaluation/*"]
      add    = []
    }
    registrar = {
      read   = [local.store, "${local.staging}/*", "${var.bucket_arns.mlflow}/artifacts/*", "${var.bucket_arns.releases}/releases/*"]
      change = []
      add    = [local.store, "${var.bucket_arns.mlflow}/artifacts/*", "${var.bucket_arns.releases}/releases/*"]
    }
  }

  all = { for job, grant in local.jobs : job => concat(grant.read, grant.change, grant.add) }

  # The buckets a job sees at all, and what of them it may list.
  buckets  = { for job, arns in local.all : job => distinct([for arn in arns : split("/", arn)[0]]) }
  prefixes = { for job, arns in local.all : job => distinct([for arn in arns : join("/", slice(split("/", arn), 1, length(split("/", arn))))]) }

  statements = {
    for job, grant in local.jobs : job => concat(
      [{
        Sid       = "Find"
        Effect    = "Allow"
        Action    = ["s3:GetBucketLocation"]
        Resource  = local.buckets[job]
        Condition = null
      }],
      [{
        Sid      = "List"
        Effect   = "Allow"
        Action   = ["s3:ListBucket"]
        Resource = local.buckets[job]
        Condition = {
          StringLike = { "s3:prefix" = local.prefixes[job] }
        }
      }],
      [{
        Sid       = "Read"
        Effect    = "Allow"
        Action    = ["s3:GetObject"]
        Resource  = concat(grant.read, grant.change)
        Condition = null
      }],
      [for arns in [grant.change] : {
        Sid       = "ChangeItsOwn"
        Effect    = "Allow"
        Action    = ["s3:AbortMultipartUpload", "s3:DeleteObject", "s3:ListMultipartUploadParts", "s3:PutObject"]
        Resource  = arns
        Condition = null
      } if length(arns) > 0],
      [for arns in [grant.add] : {
        Sid       = "AddAndNeverDelete"
        Effect    = "Allow"
        Action    = ["s3:AbortMultipartUpload", "s3:ListMultipartUploadParts", "s3:PutObject"]
        Resource  = arns
        Condition = null
      } if length(arns) > 0],
      [{
        Sid      = "KeyThroughS3"
        Effect   = "Allow"
        Action   = ["kms:Decrypt", "kms:GenerateDataKey"]
        Resource = [var.key_arn]
        Condition = {
          StringEquals = { "kms:ViaService" = ["s3.${var.region}.amazonaws.com"] }
        }
      }],
      [for arn in [var.database_user_arn] : {
        Sid       = "EnterAsMlflow"
        Effect    = "Allow"
        Action    = ["rds-db:connect"]
        Resource  = [arn]
        Condition = null
      } if job == "registrar"],
    )
  }
}
