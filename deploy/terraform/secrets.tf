# Secrets are made here and filled elsewhere: no key and no password stands in Terraform's state. fill-secrets.sh makes an
# authority, certificates and the first password and puts them in; instances wait for them.

resource "aws_secretsmanager_secret" "tls" {
  for_each                = { ca = "who signs", broker = "key and certificates of brokers", etcd = "key and certificates of etcd" }
  name                    = "${var.name}/tls/${each.key}"
  description             = "PEM: ${each.value}"
  kms_key_id              = local.key_arn
  recovery_window_in_days = var.deletion_protection ? 30 : 0
  tags                    = local.tags
}

resource "aws_secretsmanager_secret" "setting" {
  for_each                = var.secret_settings
  name                    = "${var.name}/settings/${each.key}"
  description             = "Value of the setting ${each.key}"
  kms_key_id              = local.key_arn
  recovery_window_in_days = var.deletion_protection ? 30 : 0
  tags                    = local.tags
}

resource "aws_secretsmanager_secret" "admin" {
  name                    = "${var.name}/admin-password"
  description             = "First password of the user admin (SCRAM)"
  kms_key_id              = local.key_arn
  recovery_window_in_days = var.deletion_protection ? 30 : 0
  tags                    = local.tags
}
