# Where bytes are kept: the DVC store, MLflow's artifacts, releases. Three buckets, one key, one log.

locals {
  buckets = {
    dvc = {
      keeps       = "datasets and checkpoints by content, and what jobs hand to each other"
      expire_days = { "staging/" = var.staging_days }
      locked_days = null
    }
    mlflow = {
      keeps       = "artifacts of runs and registered models"
      expire_days = {}
      locked_days = null
    }
    releases = {
      keeps       = "signed releases"
      expire_days = {}
      locked_days = var.release_locked_days
    }
  }
}

module "bucket" {
  source   = "../bucket"
  for_each = local.buckets

  name               = "${var.name}-${each.key}"
  keeps              = each.value.keeps
  key_arn            = aws_kms_key.records.arn
  log_bucket         = aws_s3_bucket_policy.log.id
  keep_replaced_days = var.keep_replaced_days
  expire_days        = each.value.expire_days
  locked_days        = each.value.locked_days
  lock_mode          = var.release_lock_mode
}
