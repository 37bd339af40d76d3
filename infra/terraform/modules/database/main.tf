# One PostgreSQL server with the databases `mlflow` and `prefect`: encrypted, inside the network only, TLS only, kept for good.
# Who the two users are and what they own is told by bootstrap.sql, which an administrator runs once.

resource "aws_db_subnet_group" "this" {
  name       = "${var.name}-records"
  subnet_ids = var.subnet_ids
}

resource "aws_db_parameter_group" "this" {
  name   = "${var.name}-records"
  family = "postgres17"

  parameter {
    name  = "rds.force_ssl"
    value = "1"
  }

  parameter {
    name  = "log_connections"
    value = "1"
  }

  # Statements that change the schema or take a second; not each of the many small ones of two servers.
  parameter {
    name  = "log_statement"
    value = "ddl"
  }

  parameter {
    name  = "log_min_duration_statement"
    value = "1000"
  }
}

resource "aws_db_instance" "this" {
  #checkov:skip=CKV_AWS_157: Trials do without a standby; prod says two_zones = true.
  identifier     = "${var.name}-records"
  engine         = "postgres"
  engine_version = "17"
  instance_class = var.instance_class
  db_name        = "mlflow"
  port           = 5432

  allocated_storage     = 20
  max_allocated_storage = var.max_gigabytes
  storage_type          = "gp3"
  storage_encrypted     = true
  kms_key_id            = var.key_arn

  username                            = "administrator"
  manage_master_user_password         = true
  master_user_secret_kms_key_id       = var.key_arn
  iam_database_authentication_enabled = true

  publicly_accessible    = false
  multi_az               = var.two_zones
  db_subnet_group_name   = aws_db_subnet_group.this.name
  vpc_security_group_ids = [aws_security_group.this.id]
  parameter_group_name   = aws_db_parameter_group.this.name
  ca_cert_identifier     = "rds-ca-rsa2048-g1"

  backup_retention_period    = var.backup_days
  copy_tags_to_snapshot      = true
  deletion_protection        = true
  delete_automated_backups   = false
  skip_final_snapshot        = false
  final_snapshot_identifier  = "${var.name}-records-last"
  auto_minor_version_upgrade = true

  enabled_cloudwatch_logs_exports       = ["postgresql", "upgrade"]
  performance_insights_enabled          = true
  performance_insights_kms_key_id       = var.key_arn
  performance_insights_retention_period = 7
  monitoring_interval                   = 60
  monitoring_role_arn                   = aws_iam_role.monitoring.arn

  lifecycle {
    prevent_destroy = true
  }
}
