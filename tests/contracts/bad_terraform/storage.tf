# Wrong on purpose: `bare` has nothing that a bucket must have, `half` has everything a little wrong.

resource "aws_s3_bucket" "bare" {
  bucket = "bare"
}

resource "aws_s3_bucket" "half" {
  bucket = "half"

  lifecycle {
    prevent_destroy = false
  }
}

resource "aws_s3_bucket_versioning" "half" {
  bucket = aws_s3_bucket.half.id

  versioning_configuration {
    status = "Suspended"
  }
}

resource "aws_s3_bucket_server_side_encryption_configuration" "half" {
  bucket = aws_s3_bucket.half.id

  rule {
    apply_server_side_encryption_by_default {
      sse_algorithm = "AES256"
    }
  }
}

resource "aws_s3_bucket_public_access_block" "half" {
  bucket                  = aws_s3_bucket.half.id
  block_public_acls       = true
  block_public_policy     = true
  ignore_public_acls      = true
  restrict_public_buckets = false
}

resource "aws_s3_bucket_ownership_controls" "half" {
  bucket = aws_s3_bucket.half.id

  rule {
    object_ownership = "ObjectWriter"
  }
}

resource "aws_s3_bucket_lifecycle_configuration" "half" {
  bucket = aws_s3_bucket.half.id

  rule {
    id     = "old"
    status = "Enabled"

    expiration {
      days = 30
    }
  }
}

# Leaves out the objects, and lets instead of refusing.
data "aws_iam_policy_document" "half" {
  statement {
    effect    = "Allow"
    actions   = ["s3:*"]
    resources = [aws_s3_bucket.half.arn]

    principals {
      type        = "AWS"
      identifiers = ["*"]
    }

    condition {
      test     = "Bool"
      variable = "aws:SecureTransport"
      values   = ["false"]
    }
  }
}

resource "aws_s3_bucket_policy" "half" {
  bucket = aws_s3_bucket.half.id
  policy = data.aws_iam_policy_document.half.json
}

resource "aws_kms_key" "still" {
  description = "Never rotates, and anyone may say who uses it"
}

locals {
  buckets = {
    releases = {
      keeps       = "releases"
      locked_days = null
    }
  }
}
