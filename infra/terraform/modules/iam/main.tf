# One role per job. Who may take it on is told by the environment; what it may do is told by the module grants.

module "grants" {
  source = "../grants"

  bucket_arns       = var.bucket_arns
  key_arn           = var.key_arn
  database_user_arn = var.database_user_arn
  region            = var.region
}

data "aws_iam_policy_document" "trust" {
  for_each = var.workers

  statement {
    sid     = "WorkerOfThisJob"
    actions = ["sts:AssumeRole"]

    principals {
      type        = "AWS"
      identifiers = each.value
    }
  }
}

resource "aws_iam_role" "job" {
  for_each = var.workers

  name                 = "${var.name}-${each.key}"
  description          = "GME Foundry: ${each.key}"
  assume_role_policy   = data.aws_iam_policy_document.trust[each.key].json
  max_session_duration = 3600
}

resource "aws_iam_role_policy" "job" {
  for_each = var.workers

  name   = each.key
  role   = aws_iam_role.job[each.key].id
  policy = module.grants.policies[each.key]
}
