# The environment that points the pipeline here. No secret: the password or token comes in PGPASSWORD.

output "settings" {
  description = "Environment variables of the pipeline."
  value = {
    GME_MLFLOW_URI                      = "postgresql+psycopg://mlflow@${var.database_host}:${var.database_port}/mlflow?sslmode=verify-full"
    GME_ARTIFACT_ROOT                   = "s3://${var.bucket_names.mlflow}/artifacts"
    GME_DVC_REMOTE                      = "s3://${var.bucket_names.dvc}/store"
    PREFECT_API_DATABASE_CONNECTION_URL = "postgresql+asyncpg://prefect@${var.database_host}:${var.database_port}/prefect?ssl=verify-full"
  }
}
