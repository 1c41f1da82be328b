terraform {
  # Validations that look at several variables need 1.9; 1.11 is what the tests run.
  required_version = ">= 1.11.0, < 2.0.0"

  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = "~> 5.100"
    }
  }
}
