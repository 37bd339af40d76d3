# The key of everything that is kept here. Roles use it only through the service that asks for it.

data "aws_caller_identity" "here" {}

data "aws_iam_policy_document" "key" {
  #checkov:skip=CKV_AWS_109: In a key's policy "*" is this key, and without its account as administrator nobody could ever change it.
  #checkov:skip=CKV_AWS_111: See CKV_AWS_109.
  #checkov:skip=CKV_AWS_356: See CKV_AWS_109.
  statement {
    sid       = "AccountAdministers"
    actions   = ["kms:*"]
    resources = ["*"]

    principals {
      type        = "AWS"
      identifiers = ["arn:aws:iam::${data.aws_caller_identity.here.account_id}:root"]
    }
  }
}

resource "aws_kms_key" "records" {
  description             = "Records of GME Foundry (${var.name})"
  enable_key_rotation     = true
  deletion_window_in_days = 30
  policy                  = data.aws_iam_policy_document.key.json

  lifecycle {
    prevent_destroy = true
  }
}

resource "aws_kms_alias" "records" {
  name          = "alias/${var.name}-records"
  target_key_id = aws_kms_key.records.key_id
}
