output "names" {
  description = "Names of the buckets: dvc, mlflow, releases."
  value       = { for key, bucket in module.bucket : key => bucket.name }
}

output "arns" {
  description = "ARNs of the buckets: dvc, mlflow, releases."
  value       = { for key, bucket in module.bucket : key => bucket.arn }
}

output "key_arn" {
  description = "ARN of the key of everything that is kept."
  value       = aws_kms_key.records.arn
}
