output "policies" {
  description = "Policy document of each job as JSON."
  value = {
    for job, statements in local.statements : job => jsonencode({
      Version   = "2012-10-17"
      Statement = [for statement in statements : { for key, value in statement : key => value if value != null }]
    })
  }
}
