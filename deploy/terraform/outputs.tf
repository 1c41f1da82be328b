output "bootstrap_servers" {
  description = "For clients inside the network: bootstrap.servers."
  value       = join(",", [for id, _ in local.brokers : "broker-${id}.${local.domain}:${local.ports.client}"])
}

output "bootstrap_servers_external" {
  description = "For clients outside: bootstrap.servers, or null without external_access."
  value       = local.external_host == null ? null : "${local.external_host}:${local.external_ports}"
}

output "client_properties" {
  description = "What a Java client needs besides bootstrap.servers; the password is in admin_secret, the authority's certificate in tls_secrets."
  value = var.client_authentication == "scram" ? join("\n", [
    "security.protocol=SASL_SSL",
    "sasl.mechanism=SCRAM-SHA-512",
    "sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required username=\"admin\" password=\"PASSWORD\";",
    "ssl.truststore.type=PEM",
    "ssl.truststore.location=ca.pem",
    "",
    ]) : join("\n", [
    "security.protocol=SSL",
    "ssl.keystore.type=PEM",
    "ssl.keystore.location=admin.pem",
    "ssl.truststore.type=PEM",
    "ssl.truststore.location=ca.pem",
    "",
  ])
}

output "tls_secrets" {
  description = "Where fill-secrets.sh puts certificates: names of secrets for ca, broker and etcd."
  value       = { for role, secret in aws_secretsmanager_secret.tls : role => secret.name }
}

output "tls_names" {
  description = "Names that the certificates must have: for fill-secrets.sh."
  value = {
    broker = compact(concat([for id, _ in local.brokers : "broker-${id}.${local.domain}"], [local.external_host]))
    etcd   = [for member, _ in local.etcd_members : "etcd-${member}.${local.domain}"]
  }
}

output "admin_secret" {
  description = "Name of the secret with the first password of the user admin."
  value       = aws_secretsmanager_secret.admin.name
}

output "setting_secrets" {
  description = "Where the values of secret_settings are put: names of secrets, by setting."
  value       = { for setting, secret in aws_secretsmanager_secret.setting : setting => secret.name }
}

output "bucket" {
  description = "The archive's bucket."
  value       = aws_s3_bucket.archive.id
}

output "archive_url" {
  description = "varve.object.store.url of the brokers, also for varve restore."
  value       = local.topology["varve.object.store.url"]
}

output "broker_role_arn" {
  description = "The brokers' role."
  value       = aws_iam_role.broker.arn
}

output "etcd_role_arn" {
  description = "The role of etcd's members."
  value       = aws_iam_role.etcd.arn
}

output "reader_policy_arn" {
  description = "A policy for those who query the tables in the bucket."
  value       = aws_iam_policy.reader.arn
}

output "server_properties" {
  description = "The brokers' settings, with @NODE_ID@, @RACK@ and @EXTERNAL_PORT@ where brokers differ."
  value       = local.properties
}

output "user_data" {
  description = "What instances are told at their first start, by role: cloud-init's YAML."
  value       = { for role, config in local.cloud_init : role => "#cloud-config\n${yamlencode(config)}" }
}

output "auto_scaling_groups" {
  description = "Names of the groups, by role and in order, for replacing instances one by one."
  value = {
    broker = [for zone in sort(tolist(local.zones)) : aws_autoscaling_group.instance["broker-zone-${zone}"].name]
    etcd   = [for member in sort(keys(local.etcd_members)) : aws_autoscaling_group.instance["etcd-${member}"].name]
  }
}

output "dashboard" {
  description = "Name of the dashboard in CloudWatch."
  value       = aws_cloudwatch_dashboard.this.dashboard_name
}

output "vpc_id" {
  description = "The network."
  value       = local.vpc_id
}

output "private_zone_id" {
  description = "The private DNS zone: associate other networks with it, so that their clients find the brokers."
  value       = aws_route53_zone.private.zone_id
}

output "broker_security_group_id" {
  description = "The brokers' security group, for further rules."
  value       = aws_security_group.broker.id
}
