# Wrong on purpose: rights without borders, in each of the three ways to write them, and a role for everybody.

data "aws_iam_policy_document" "everything" {
  statement {
    actions   = ["s3:Put*"]
    resources = ["arn:aws:s3:::dvc/store/*"]
  }
}

data "aws_iam_policy_document" "everywhere" {
  statement {
    actions   = ["s3:GetObject"]
    resources = ["*"]
  }
}

resource "aws_iam_role_policy" "written" {
  name = "written"
  role = "train"

  policy = jsonencode({
    Version   = "2012-10-17"
    Statement = [{ Effect = "Allow", Action = ["s3:*"], Resource = ["arn:aws:s3:::dvc/store/*"] }]
  })
}

locals {
  computed = [for bucket in ["dvc"] : { Effect = "Allow", Action = ["s3:GetObject"], Resource = "*" }]
}

data "aws_iam_policy_document" "anybody" {
  statement {
    actions = ["sts:AssumeRole"]

    principals {
      type        = "AWS"
      identifiers = ["*"]
    }
  }
}
