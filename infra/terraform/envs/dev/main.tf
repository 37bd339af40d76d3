# The records of trials: small, in one zone, releases kept for a day.

locals {
  name = "gme-${var.owner}-dev"
}

data "aws_caller_identity" "here" {}

module "storage" {
  source = "../../modules/storage"

  name                = local.name
  release_locked_days = 1
  release_lock_mode   = "GOVERNANCE"
}

module "database" {
  source = "../../modules/database"

  name             = local.name
  vpc_id           = var.vpc_id
  subnet_ids       = var.subnet_ids
  client_group_ids = var.client_group_ids
  key_arn          = module.storage.key_arn
  instance_class   = "db.t4g.small"
  two_zones        = false
  backup_days      = 7
}

module "iam" {
  source = "../../modules/iam"

  name              = local.name
  workers           = var.workers
  bucket_arns       = module.storage.arns
  key_arn           = module.storage.key_arn
  database_user_arn = "arn:aws:rds-db:${var.region}:${data.aws_caller_identity.here.account_id}:dbuser:${module.database.resource_id}/mlflow"
  region            = var.region
}

module "settings" {
  source = "../../modules/settings"

  bucket_names  = module.storage.names
  database_host = module.database.host
  database_port = module.database.port
}
