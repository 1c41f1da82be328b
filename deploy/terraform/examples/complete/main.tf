# A cluster of three brokers in a network of its own, with clients outside, alarms by mail, and people who query the tables.

terraform {
  required_version = ">= 1.11.0, < 2.0.0"

  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = "5.100.0"
    }
  }
}

provider "aws" {
  region = var.region
}

variable "region" {
  description = "Where the cluster is."
  type        = string
  default     = "eu-central-1"
}

variable "varve_binary" {
  description = "URL (https:// or s3://) and SHA-256 of the binary."
  type = object({
    url    = string
    sha256 = string
  })
}

variable "alarm_mail" {
  description = "Who is woken."
  type        = string
}

variable "client_cidrs_outside" {
  description = "Where clients on the internet may be."
  type        = list(string)
}

# Alarms reach a topic that is encrypted only by a key which says that they may use it; SNS' own key does not.
resource "aws_sns_topic" "alarms" {
  name              = "varve-alarms"
  kms_master_key_id = aws_kms_key.alarms.arn
}

resource "aws_kms_key" "alarms" {
  description         = "What alarms of Varve say"
  enable_key_rotation = true
  policy              = data.aws_iam_policy_document.alarms.json
}

data "aws_caller_identity" "current" {}

data "aws_iam_policy_document" "alarms" {
  statement {
    sid       = "AccountDecides"
    actions   = ["kms:*"]
    resources = ["*"]

    principals {
      type        = "AWS"
      identifiers = ["arn:aws:iam::${data.aws_caller_identity.current.account_id}:root"]
    }
  }
  statement {
    sid       = "OwnAlarms"
    actions   = ["kms:Decrypt", "kms:GenerateDataKey*"]
    resources = ["*"]

    principals {
      type        = "Service"
      identifiers = ["cloudwatch.amazonaws.com"]
    }
    condition {
      test     = "StringEquals"
      variable = "aws:SourceAccount"
      values   = [data.aws_caller_identity.current.account_id]
    }
  }
}

resource "aws_sns_topic_subscription" "alarms" {
  topic_arn = aws_sns_topic.alarms.arn
  protocol  = "email"
  endpoint  = var.alarm_mail
}

module "varve" {
  source = "../.."

  name            = "varve"
  zones           = ["${var.region}a", "${var.region}b", "${var.region}c"]
  size            = "medium"
  varve_binary    = var.varve_binary
  external_access = { cidrs = var.client_cidrs_outside }
  alarm_actions   = [aws_sns_topic.alarms.arn]

  settings = {
    "num.partitions"         = "6"
    "log.local.retention.ms" = "86400000" # a day on the brokers' volumes; everything is in the bucket
  }
  tags = { team = "streaming" }
}

output "bootstrap_servers" {
  description = "For clients inside."
  value       = module.varve.bootstrap_servers
}

output "bootstrap_servers_external" {
  description = "For clients outside."
  value       = module.varve.bootstrap_servers_external
}

output "tls_secrets" {
  description = "For fill-secrets.sh."
  value       = module.varve.tls_secrets
}

output "tls_names" {
  description = "For fill-secrets.sh."
  value       = module.varve.tls_names
}

output "client_properties" {
  description = "For clients."
  value       = module.varve.client_properties
}

output "admin_secret" {
  description = "Where the password of admin is."
  value       = module.varve.admin_secret
}
