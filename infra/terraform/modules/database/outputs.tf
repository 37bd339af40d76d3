output "host" {
  description = "Host name of the server."
  value       = aws_db_instance.this.address
}

output "port" {
  description = "Port of the server."
  value       = aws_db_instance.this.port
}

output "resource_id" {
  description = "Identifier that rights to connect are written with."
  value       = aws_db_instance.this.resource_id
}

output "secret_arn" {
  description = "Secret that holds the administrator's password, which AWS makes and rotates."
  value       = aws_db_instance.this.master_user_secret[0].secret_arn
}
