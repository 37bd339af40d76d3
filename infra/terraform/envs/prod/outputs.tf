output "settings" {
  description = "Environment variables that point the pipeline here."
  value       = module.settings.settings
}

output "role_arns" {
  description = "Role of each job."
  value       = module.iam.role_arns
}

output "release_bucket" {
  description = "Bucket that keeps releases."
  value       = module.storage.names.releases
}

output "database_secret_arn" {
  description = "Secret that holds the administrator's password."
  value       = module.database.secret_arn
}
