# The smallest cluster, in a network that is there already; clients inside only, who log in by certificate.

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
  description = "Where the network is."
  type        = string
}

variable "vpc_id" {
  description = "The network."
  type        = string
}

variable "private_subnet_ids" {
  description = "One subnet in each of three zones."
  type        = list(string)
}

variable "varve_binary" {
  description = "URL (https:// or s3://) and SHA-256 of the binary."
  type = object({
    url    = string
    sha256 = string
  })
}

module "varve" {
  source = "../.."

  name                  = "logs"
  varve_binary          = var.varve_binary
  client_authentication = "mtls"

  network = {
    vpc_id             = var.vpc_id
    private_subnet_ids = var.private_subnet_ids
  }
}

output "bootstrap_servers" {
  description = "For clients."
  value       = module.varve.bootstrap_servers
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
  description = "For fill-secrets.sh."
  value       = module.varve.admin_secret
}
