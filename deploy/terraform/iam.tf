# What an instance may do: its own part of the bucket, its volumes, its name, its secrets, its metrics, and nothing else.

data "aws_iam_policy_document" "instances" {
  statement {
    actions = ["sts:AssumeRole"]

    principals {
      type        = "Service"
      identifiers = ["ec2.amazonaws.com"]
    }
  }
}

resource "aws_iam_role" "broker" {
  name                 = "${var.name}-broker"
  description          = "Brokers of Varve ${var.name}"
  assume_role_policy   = data.aws_iam_policy_document.instances.json
  permissions_boundary = var.permissions_boundary
  tags                 = local.tags
}

resource "aws_iam_role" "etcd" {
  name                 = "${var.name}-etcd"
  description          = "Members of etcd of Varve ${var.name}"
  assume_role_policy   = data.aws_iam_policy_document.instances.json
  permissions_boundary = var.permissions_boundary
  tags                 = local.tags
}

resource "aws_iam_instance_profile" "broker" {
  name = aws_iam_role.broker.name
  role = aws_iam_role.broker.name
  tags = local.tags
}

resource "aws_iam_instance_profile" "etcd" {
  name = aws_iam_role.etcd.name
  role = aws_iam_role.etcd.name
  tags = local.tags
}

resource "aws_iam_role_policy" "archive" {
  name   = "archive"
  role   = aws_iam_role.broker.id
  policy = data.aws_iam_policy_document.archive.json
}

# Everything that a node asks of its bucket. Deleting leaves a version behind, which it may not delete.
data "aws_iam_policy_document" "archive" {
  statement {
    sid       = "Objects"
    actions   = ["s3:GetObject", "s3:PutObject", "s3:DeleteObject", "s3:AbortMultipartUpload", "s3:ListMultipartUploadParts"]
    resources = ["${aws_s3_bucket.archive.arn}/${var.archive_prefix}/*"]
  }
  # Without a condition: who may not list a whole bucket is told 403 of an object that is not there, where varve goes by 404.
  statement {
    sid       = "Lists"
    actions   = ["s3:ListBucket", "s3:ListBucketMultipartUploads", "s3:GetBucketLocation"]
    resources = [aws_s3_bucket.archive.arn]
  }
}

resource "aws_iam_role_policy" "backups" {
  name   = "backups"
  role   = aws_iam_role.etcd.id
  policy = data.aws_iam_policy_document.backups.json
}

data "aws_iam_policy_document" "backups" {
  statement {
    sid       = "Backups"
    actions   = ["s3:GetObject", "s3:PutObject", "s3:AbortMultipartUpload"]
    resources = ["${aws_s3_bucket.archive.arn}/etcd-backups/${var.name}/*"]
  }
  statement {
    sid       = "FirstStarts"
    actions   = ["s3:PutObject"]
    resources = ["${aws_s3_bucket.archive.arn}/etcd-members/${var.name}/*"]
  }
  statement {
    sid       = "Lists"
    actions   = ["s3:ListBucket"]
    resources = [aws_s3_bucket.archive.arn]

    condition {
      test     = "StringLike"
      variable = "s3:prefix"
      values   = ["etcd-backups/${var.name}/*", "etcd-members/${var.name}/*"]
    }
  }
}

locals {
  roles = {
    broker = {
      role    = aws_iam_role.broker.id
      volumes = [for volume in aws_ebs_volume.broker : volume.arn]
      names   = [for id, _ in local.brokers : "broker-${id}.${local.domain}"]
      secrets = concat(
        [aws_secretsmanager_secret.tls["broker"].arn, aws_secretsmanager_secret.tls["ca"].arn],
        var.client_authentication == "scram" ? [aws_secretsmanager_secret.admin.arn] : [],
        [for secret in aws_secretsmanager_secret.setting : secret.arn],
      )
    }
    etcd = {
      role    = aws_iam_role.etcd.id
      volumes = [for volume in aws_ebs_volume.etcd : volume.arn]
      names   = [for member, _ in local.etcd_members : "etcd-${member}.${local.domain}"]
      secrets = [aws_secretsmanager_secret.tls["etcd"].arn, aws_secretsmanager_secret.tls["ca"].arn]
    }
  }
  # Nobody uses the key by itself.
  via = { for service in ["ec2", "s3", "secretsmanager"] : service => "${service}.${local.region}.${data.aws_partition.current.dns_suffix}" }
  # s3://bucket/key
  binary_object = startswith(var.varve_binary.url, "s3://") ? [trimprefix(var.varve_binary.url, "s3://")] : []
}

resource "aws_iam_role_policy" "instance" {
  for_each = local.roles
  name     = "instance"
  role     = each.value.role
  policy   = data.aws_iam_policy_document.instance[each.key].json
}

data "aws_iam_policy_document" "instance" {
  for_each = local.roles

  statement {
    sid       = "FindVolumes"
    actions   = ["ec2:DescribeVolumes"]
    resources = ["*"] # takes no other
  }
  statement {
    sid       = "AttachVolumes"
    actions   = ["ec2:AttachVolume"]
    resources = each.value.volumes
  }
  statement {
    sid       = "AttachToInstances"
    actions   = ["ec2:AttachVolume"]
    resources = ["arn:${local.partition}:ec2:${local.region}:${local.account}:instance/*"]

    condition {
      test     = "StringEquals"
      variable = "aws:ResourceTag/varve:cluster"
      values   = [var.name]
    }
    condition {
      test     = "StringEquals"
      variable = "aws:ResourceTag/varve:role"
      values   = [each.key]
    }
  }
  statement {
    sid       = "OwnNames"
    actions   = ["route53:ChangeResourceRecordSets"]
    resources = [aws_route53_zone.private.arn]

    condition {
      test     = "ForAllValues:StringEquals"
      variable = "route53:ChangeResourceRecordSetsNormalizedRecordNames"
      values   = each.value.names
    }
    condition {
      test     = "ForAllValues:StringEquals"
      variable = "route53:ChangeResourceRecordSetsRecordTypes"
      values   = ["A"]
    }
    condition {
      test     = "ForAllValues:StringEquals"
      variable = "route53:ChangeResourceRecordSetsActions"
      values   = ["UPSERT"]
    }
  }
  statement {
    sid       = "Secrets"
    actions   = ["secretsmanager:GetSecretValue"]
    resources = each.value.secrets
  }
  statement {
    sid       = "Metrics"
    actions   = ["cloudwatch:PutMetricData"]
    resources = ["*"] # takes no other

    condition {
      test     = "StringEquals"
      variable = "cloudwatch:namespace"
      values   = ["Varve"]
    }
  }
  statement {
    sid       = "Key"
    actions   = ["kms:Decrypt", "kms:DescribeKey", "kms:GenerateDataKey", "kms:GenerateDataKeyWithoutPlaintext"]
    resources = [local.key_arn]

    condition {
      test     = "StringEquals"
      variable = "kms:ViaService"
      values   = values(local.via)
    }
  }
  statement {
    sid       = "KeyForVolumes"
    actions   = ["kms:CreateGrant"]
    resources = [local.key_arn]

    condition {
      test     = "Bool"
      variable = "kms:GrantIsForAWSResource"
      values   = ["true"]
    }
    condition {
      test     = "StringEquals"
      variable = "kms:ViaService"
      values   = [local.via.ec2]
    }
  }

  dynamic "statement" {
    for_each = each.key == "broker" ? local.binary_object : []

    content {
      sid       = "Binary"
      actions   = ["s3:GetObject"]
      resources = ["arn:${local.partition}:s3:::${statement.value}"]
    }
  }
  dynamic "statement" {
    for_each = each.key == "broker" && var.external_access != null ? [true] : []

    content {
      sid       = "OwnPortOutside"
      actions   = ["elasticloadbalancing:RegisterTargets", "elasticloadbalancing:DeregisterTargets"]
      resources = [for group in aws_lb_target_group.broker : group.arn]
    }
  }
}

# For people and engines that query the tables.
resource "aws_iam_policy" "reader" {
  name        = "${var.name}-reader"
  description = "Reads the tables of Varve ${var.name}"
  policy      = data.aws_iam_policy_document.reader.json
  tags        = local.tags
}

data "aws_iam_policy_document" "reader" {
  statement {
    sid       = "Tables"
    actions   = ["s3:GetObject"]
    resources = ["${aws_s3_bucket.archive.arn}/${var.archive_prefix}/tables/*"]
  }
  statement {
    sid       = "Lists"
    actions   = ["s3:ListBucket"]
    resources = [aws_s3_bucket.archive.arn]

    condition {
      test     = "StringLike"
      variable = "s3:prefix"
      values   = ["${var.archive_prefix}/tables/*"]
    }
  }
  statement {
    sid       = "Key"
    actions   = ["kms:Decrypt"]
    resources = [local.key_arn]

    condition {
      test     = "StringEquals"
      variable = "kms:ViaService"
      values   = [local.via.s3]
    }
  }
}
