# The module of deploy/terraform, applied to emulators of AWS on this machine. Nothing here reaches AWS: every service that the
# module uses has the address of an emulator.

terraform {
  required_version = ">= 1.11.0, < 2.0.0"

  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = "5.100.0"
    }
  }
}

variable "aws" {
  description = "URL of the emulator of bucket, roles, keys, secrets and alarms."
  type        = string
}

variable "compute" {
  description = "URL of the emulator of networks, names, instances and load balancers; one may serve all."
  type        = string
}

variable "varve_binary" {
  description = "As the module has it."
  type = object({
    url    = string
    sha256 = string
  })
  default = {
    url    = "https://releases.example/varve"
    sha256 = "0000000000000000000000000000000000000000000000000000000000000000"
  }
}

variable "settings" {
  description = "As the module has it."
  type        = map(string)
  default     = {}
}

provider "aws" {
  region                      = "us-east-1"
  access_key                  = "test"
  secret_key                  = "test"
  s3_use_path_style           = true
  skip_credentials_validation = true
  skip_metadata_api_check     = true

  endpoints {
    cloudwatch     = var.aws
    iam            = var.aws
    kms            = var.aws
    s3             = var.aws
    secretsmanager = var.aws
    sts            = var.aws
    autoscaling    = var.compute
    ec2            = var.compute
    elbv2          = var.compute
    route53        = var.compute
  }
}

module "varve" {
  source = "../../deploy/terraform"

  name                = "rig"
  zones               = ["us-east-1a", "us-east-1b", "us-east-1c"]
  ami_id              = "ami-12c6146b"
  varve_binary        = var.varve_binary
  external_access     = { cidrs = ["127.0.0.0/8"] }
  deletion_protection = false
  bucket_requires_tls = false # emulators speak plain HTTP

  settings = merge({ "varve.object.store.endpoint" = var.aws }, var.settings)
}

output "varve" {
  description = "Everything that the module tells."
  value       = module.varve
}

output "tls_secrets" {
  description = "For fill-secrets.sh."
  value       = module.varve.tls_secrets
}

output "tls_names" {
  description = "For fill-secrets.sh."
  value       = module.varve.tls_names
}

output "admin_secret" {
  description = "For fill-secrets.sh."
  value       = module.varve.admin_secret
}
