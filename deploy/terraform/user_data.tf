# What instances are told: the project's own systemd units, the scripts in instance/, and the settings.

locals {
  external_host = var.external_access == null ? null : coalesce(var.external_access.hostname, aws_lb.external[0].dns_name)
  listeners     = concat(["INTERNAL", "CLIENT"], var.external_access == null ? [] : ["EXTERNAL"])
  listener_ports = {
    INTERNAL = local.ports.internal
    CLIENT   = local.ports.client
    EXTERNAL = local.ports.external
  }
  client_protocol = { scram = "SASL_SSL", mtls = "SSL" }[var.client_authentication]
  admin           = { scram = "User:admin", mtls = "User:CN=admin" }[var.client_authentication]
  etcd_addresses  = [for member in sort(keys(local.etcd_members)) : "etcd-${member}.${local.domain}:${local.ports.etcd}"]

  # Of every broker. instance/broker.sh puts its id, zone and port in place of what stands between @.
  topology = merge({
    "node.id"     = "@NODE_ID@"
    "broker.rack" = "@RACK@"
    "listeners"   = join(",", [for name in local.listeners : "${name}://0.0.0.0:${local.listener_ports[name]}"])
    "advertised.listeners" = join(",", concat(
      ["INTERNAL://broker-@NODE_ID@.${local.domain}:${local.ports.internal}", "CLIENT://broker-@NODE_ID@.${local.domain}:${local.ports.client}"],
      [for host in compact([local.external_host]) : "EXTERNAL://${host}:@EXTERNAL_PORT@"],
    ))
    "listener.security.protocol.map" = join(",", concat(["INTERNAL:SSL", "CLIENT:${local.client_protocol}"], var.external_access == null ? [] : ["EXTERNAL:${local.client_protocol}"]))
    # Brokers know each other by their certificate, CN=broker; nobody else reaches the port (security_groups.tf).
    "inter.broker.listener.name"             = "INTERNAL"
    "listener.name.internal.ssl.client.auth" = "required"
    "varve.http.listener"                    = "0.0.0.0:${local.ports.http}"
    "authorizer.class.name"                  = "org.apache.kafka.metadata.authorizer.StandardAuthorizer"
    "super.users"                            = join(";", concat(["User:CN=broker", local.admin], var.super_users))

    "ssl.keystore.type"       = "PEM"
    "ssl.keystore.location"   = "/etc/varve/tls/node.pem"
    "ssl.truststore.type"     = "PEM"
    "ssl.truststore.location" = "/etc/varve/tls/ca.pem"
    # One certificate names all brokers and the host outside. With fewer brokers, or another host, the renewed one lacks names that
    # the old one had; its subject must be the same, and others look at who signed it.
    "ssl.allow.san.changes" = "true"

    "varve.data.dir"                       = "/var/lib/varve"
    "varve.metadata.url"                   = "etcd://${join(",", local.etcd_addresses)}/${var.name}"
    "varve.metadata.etcd.tls"              = "true"
    "varve.metadata.etcd.ca.file"          = "/etc/varve/tls/ca.pem"
    "varve.metadata.etcd.certificate.file" = "/etc/varve/tls/node.pem"
    "varve.metadata.etcd.key.file"         = "/etc/varve/tls/node.pem"
    "varve.object.store.url"               = "s3://${aws_s3_bucket.archive.id}/${var.archive_prefix}"
    }, var.client_authentication == "mtls" ? {
    "listener.name.client.ssl.client.auth" = "required"
    } : {}, var.client_authentication == "mtls" && var.external_access != null ? {
    "listener.name.external.ssl.client.auth" = "required"
  } : {})

  # What var.settings may change.
  defaults = merge({
    "varve.log.format"           = "json"
    "varve.object.store.region"  = local.region
    "default.replication.factor" = "3"
    "min.insync.replicas"        = "2"
    "auto.create.topics.enable"  = "false"
    # Four fifths of the volume: beyond, producers wait for the archive instead of finding the disk full. An alarm goes off before
    # (hot, in alarms.tf).
    "varve.local.max.bytes" = tostring(floor(local.data_volume.gib * 1073741824 * 0.8))
    }, var.client_authentication == "scram" ? {
    "sasl.enabled.mechanisms" = "SCRAM-SHA-512"
  } : {})
  properties = join("", [for setting, value in merge(local.defaults, var.settings, local.topology) : "${setting}=${value}\n"])

  # Read by the scripts as a shell does.
  environment = {
    for role in ["broker", "etcd"] : role => join("", [for name, value in {
      AWS_DEFAULT_REGION = local.region
      CLUSTER            = var.name
      ROLE               = role
      DOMAIN             = local.domain
      DNS_ZONE           = aws_route53_zone.private.zone_id
      BUCKET             = aws_s3_bucket.archive.id
      SECRETS            = var.name
      VARVE_URL          = role == "broker" ? var.varve_binary.url : ""
      VARVE_SHA256       = role == "broker" ? var.varve_binary.sha256 : ""
      SECRET_SETTINGS    = role == "broker" ? join(" ", sort(tolist(var.secret_settings))) : ""
      WITH_SCRAM         = role == "broker" && var.client_authentication == "scram" ? "1" : ""
      EXTERNAL_PORTS     = role == "broker" && var.external_access != null ? tostring(local.external_ports) : ""
      EXTERNAL_TARGETS   = role == "broker" ? join(" ", [for id, group in aws_lb_target_group.broker : "${id}=${group.arn}"]) : ""
      PACKAGES           = join(" ", concat(["awscli", "ca-certificates", "curl", "xfsprogs"], role == "etcd" ? ["etcd-server", "etcd-client"] : []))
      ETCD_MEMBERS       = join(" ", [for member in sort(keys(local.etcd_members)) : "etcd-${member}"])
    } : "${name}='${value}'\n"])
  }

  systemd = "${path.module}/../systemd"
  # Path on the instance, mode, text.
  files = {
    broker = {
      "/etc/varve/instance.env"                        = ["0644", local.environment.broker]
      "/etc/varve/server.properties.in"                = ["0644", local.properties]
      "/etc/systemd/system/varve.service"              = ["0644", file("${local.systemd}/varve.service")]
      "/etc/systemd/system/varve.service.d/boot.conf"  = ["0644", file("${path.module}/instance/after-boot.conf")]
      "/etc/systemd/system/varve.service.d/start.conf" = ["0644", file("${path.module}/instance/certificate-at-start.conf")]
      "/usr/lib/sysusers.d/varve.conf"                 = ["0644", file("${local.systemd}/varve.sysusers")]
      "/etc/systemd/system/varve-metrics.service"      = ["0644", file("${path.module}/instance/varve-metrics.service")]
      "/etc/systemd/system/varve-metrics.timer"        = ["0644", file("${path.module}/instance/varve-metrics.timer")]
    }
    etcd = {
      "/etc/varve/instance.env"                            = ["0644", local.environment.etcd]
      "/etc/systemd/system/varve-etcd.service"             = ["0644", file("${local.systemd}/varve-etcd.service")]
      "/etc/systemd/system/varve-etcd.service.d/boot.conf" = ["0644", file("${path.module}/instance/after-boot.conf")]
      "/etc/systemd/system/varve-backup.service"           = ["0644", file("${path.module}/instance/varve-backup.service")]
      "/etc/systemd/system/varve-backup.timer"             = ["0644", file("${path.module}/instance/varve-backup.timer")]
      "/etc/systemd/system/varve-metrics.service"          = ["0644", file("${path.module}/instance/varve-metrics.service")]
      "/etc/systemd/system/varve-metrics.timer"            = ["0644", file("${path.module}/instance/varve-metrics.timer")]
    }
  }
  both = {
    "/usr/local/lib/varve/instance.sh"          = ["0644", file("${path.module}/instance/instance.sh")]
    "/etc/systemd/system/varve-boot.service"    = ["0644", file("${path.module}/instance/varve-boot.service")]
    "/etc/systemd/system/varve-secrets.service" = ["0644", file("${path.module}/instance/varve-secrets.service")]
    "/etc/systemd/system/varve-secrets.timer"   = ["0644", file("${path.module}/instance/varve-secrets.timer")]
  }
  service = { broker = "varve", etcd = "varve-etcd" }
  timers = {
    broker = ["varve-secrets.timer", "varve-metrics.timer"]
    etcd   = ["varve-secrets.timer", "varve-metrics.timer", "varve-backup.timer"]
  }

  cloud_init = {
    for role in ["broker", "etcd"] : role => {
      # Debian's package would start an etcd of its own.
      bootcmd = role == "etcd" ? [["systemctl", "mask", "etcd.service"]] : []
      write_files = concat(
        [for path, file in merge(local.files[role], local.both) : { path = path, permissions = file[0], content = file[1] }],
        [{ path = "/usr/local/sbin/varve-instance", permissions = "0755", content = file("${path.module}/instance/${role}.sh") }],
      )
      runcmd = concat(
        [["systemctl", "daemon-reload"]],
        role == "broker" ? [["systemd-sysusers"]] : [],
        [concat(["systemctl", "enable", "--now", "varve-boot.service", "${local.service[role]}.service"], local.timers[role])],
      )
    }
  }
  user_data = { for role, config in local.cloud_init : role => base64gzip("#cloud-config\n${yamlencode(config)}") }
}
