# The archive and the backups of etcd.

resource "aws_s3_bucket" "archive" {
  bucket        = coalesce(var.bucket_name, "${var.name}-archive-${local.account}-${local.region}")
  force_destroy = !var.deletion_protection
  tags          = local.tags
}

resource "aws_s3_bucket_public_access_block" "archive" {
  bucket                  = aws_s3_bucket.archive.id
  block_public_acls       = true
  block_public_policy     = true
  ignore_public_acls      = true
  restrict_public_buckets = true
}

resource "aws_s3_bucket_ownership_controls" "archive" {
  bucket = aws_s3_bucket.archive.id

  rule {
    object_ownership = "BucketOwnerEnforced"
  }
}

# Retention deletes; so may a mistake. For noncurrent_days either can be undone.
resource "aws_s3_bucket_versioning" "archive" {
  bucket = aws_s3_bucket.archive.id

  versioning_configuration {
    status = "Enabled"
  }
}

resource "aws_s3_bucket_server_side_encryption_configuration" "archive" {
  bucket = aws_s3_bucket.archive.id

  rule {
    bucket_key_enabled = true

    apply_server_side_encryption_by_default {
      sse_algorithm     = "aws:kms"
      kms_master_key_id = local.key_arn
    }
  }
}

resource "aws_s3_bucket_lifecycle_configuration" "archive" {
  bucket = aws_s3_bucket.archive.id

  # Varve expires its own objects by retention; the bucket only clears away what nobody refers to any more.
  rule {
    id     = "what-was-deleted"
    status = "Enabled"
    filter {}

    noncurrent_version_expiration {
      noncurrent_days = var.noncurrent_days
    }
    expiration {
      expired_object_delete_marker = true
    }
  }

  rule {
    id     = "uploads-that-ended-early"
    status = "Enabled"
    filter {}

    abort_incomplete_multipart_upload {
      days_after_initiation = 7
    }
  }

  rule {
    id     = "backups-of-etcd"
    status = "Enabled"

    filter {
      prefix = "etcd-backups/"
    }
    expiration {
      days = var.etcd_backup_days
    }
  }

  dynamic "rule" {
    for_each = var.intelligent_tiering_days == null ? [] : [var.intelligent_tiering_days]

    content {
      id     = "archive-by-use"
      status = "Enabled"

      filter {
        prefix = "${var.archive_prefix}/"
      }
      transition {
        days          = rule.value
        storage_class = "INTELLIGENT_TIERING"
      }
    }
  }

  depends_on = [aws_s3_bucket_versioning.archive]
}

resource "aws_s3_bucket_policy" "archive" {
  bucket     = aws_s3_bucket.archive.id
  policy     = data.aws_iam_policy_document.bucket.json
  depends_on = [aws_s3_bucket_public_access_block.archive]
}

data "aws_iam_policy_document" "bucket" {
  dynamic "statement" {
    for_each = var.bucket_requires_tls ? [true] : []

    content {
      sid       = "OnlyWithTls"
      effect    = "Deny"
      actions   = ["s3:*"]
      resources = [aws_s3_bucket.archive.arn, "${aws_s3_bucket.archive.arn}/*"]

      principals {
        type        = "*"
        identifiers = ["*"]
      }
      condition {
        test     = "Bool"
        variable = "aws:SecureTransport"
        values   = ["false"]
      }
    }
  }

  # Whatever a role is granted elsewhere: who breaks into an instance cannot destroy what was deleted, nor the bucket.
  statement {
    sid    = "InstancesDestroyNothing"
    effect = "Deny"
    actions = [
      "s3:DeleteObjectVersion", "s3:DeleteBucket", "s3:DeleteBucketPolicy", "s3:PutBucketPolicy", "s3:PutBucketVersioning",
      "s3:PutLifecycleConfiguration", "s3:PutEncryptionConfiguration", "s3:PutBucketPublicAccessBlock", "s3:PutBucketAcl",
    ]
    resources = [aws_s3_bucket.archive.arn, "${aws_s3_bucket.archive.arn}/*"]

    principals {
      type        = "AWS"
      identifiers = [aws_iam_role.broker.arn, aws_iam_role.etcd.arn]
    }
  }
}
