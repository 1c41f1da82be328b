# Who may open a connection to whom. Only brokers reach the port on which they speak with each other.

resource "aws_security_group" "broker" {
  name        = "${var.name}-broker"
  description = "Varve brokers"
  vpc_id      = local.vpc_id
  tags        = merge(local.tags, { Name = "${var.name}-broker" })
}

resource "aws_security_group" "etcd" {
  name        = "${var.name}-etcd"
  description = "Members of etcd"
  vpc_id      = local.vpc_id
  tags        = merge(local.tags, { Name = "${var.name}-etcd" })
}

resource "aws_security_group" "load_balancer" {
  count       = var.external_access == null ? 0 : 1
  name        = "${var.name}-external"
  description = "Load balancer of clients outside"
  vpc_id      = local.vpc_id
  tags        = merge(local.tags, { Name = "${var.name}-external" })
}

locals {
  groups = {
    broker        = aws_security_group.broker.id
    etcd          = aws_security_group.etcd.id
    load_balancer = one(aws_security_group.load_balancer[*].id)
  }
  external_range = var.external_access == null ? {} : {
    "clients outside" = { to = "load_balancer", from_port = local.external_ports, to_port = local.external_ports + length(local.brokers), cidrs = var.external_access.cidrs }
  }
  # From group to group.
  between = merge({
    "brokers to each other"         = { from = "broker", to = "broker", port = local.ports.internal }
    "brokers to etcd"               = { from = "broker", to = "etcd", port = local.ports.etcd }
    "members of etcd as clients"    = { from = "etcd", to = "etcd", port = local.ports.etcd }
    "members of etcd to each other" = { from = "etcd", to = "etcd", port = local.ports.peers }
    }, var.external_access == null ? {} : {
    "load balancer to brokers"             = { from = "load_balancer", to = "broker", port = local.ports.external }
    "load balancer to the pages of health" = { from = "load_balancer", to = "broker", port = local.ports.http }
  })
  # From addresses, a rule for each range.
  from_outside = merge(local.external_range, {
    "clients inside" = { to = "broker", from_port = local.ports.client, to_port = local.ports.client, cidrs = coalesce(var.client_cidrs, local.vpc_cidrs) }
    "monitoring"     = { to = "broker", from_port = local.ports.http, to_port = local.ports.http, cidrs = var.monitoring_cidrs }
    "SSH to brokers" = { to = "broker", from_port = 22, to_port = 22, cidrs = var.admin_cidrs }
    "SSH to etcd"    = { to = "etcd", from_port = 22, to_port = 22, cidrs = var.admin_cidrs }
  })
  ranges = merge([
    for what, rule in local.from_outside : {
      for at, cidr in rule.cidrs : "${what} ${at}" => merge(rule, { cidr = cidr, what = what })
    }
  ]...)
}

resource "aws_vpc_security_group_ingress_rule" "between" {
  for_each                     = local.between
  description                  = each.key
  security_group_id            = local.groups[each.value.to]
  referenced_security_group_id = local.groups[each.value.from]
  ip_protocol                  = "tcp"
  from_port                    = each.value.port
  to_port                      = each.value.port
  tags                         = local.tags
}

resource "aws_vpc_security_group_ingress_rule" "ranges" {
  for_each          = local.ranges
  description       = each.value.what
  security_group_id = local.groups[each.value.to]
  cidr_ipv4         = each.value.cidr
  ip_protocol       = "tcp"
  from_port         = each.value.from_port
  to_port           = each.value.to_port
  tags              = local.tags
}

resource "aws_vpc_security_group_egress_rule" "instances" {
  for_each          = toset(["broker", "etcd"])
  description       = "Packages, AWS, etcd and each other"
  security_group_id = local.groups[each.key]
  cidr_ipv4         = "0.0.0.0/0"
  ip_protocol       = "-1"
  tags              = local.tags
}

resource "aws_vpc_security_group_egress_rule" "load_balancer" {
  for_each                     = { for what, rule in local.between : what => rule if rule.from == "load_balancer" }
  description                  = each.key
  security_group_id            = local.groups.load_balancer
  referenced_security_group_id = local.groups[each.value.to]
  ip_protocol                  = "tcp"
  from_port                    = each.value.port
  to_port                      = each.value.port
  tags                         = local.tags
}
