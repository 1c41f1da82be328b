# Clients outside ask for a broker by the load balancer's port of its id. TLS goes through to the broker.

resource "aws_lb" "external" {
  count                            = var.external_access == null ? 0 : 1
  name                             = "${var.name}-external"
  load_balancer_type               = "network"
  internal                         = !var.external_access.internet_facing
  subnets                          = var.external_access.internet_facing ? local.public_subnets : values(local.private_subnets)
  security_groups                  = aws_security_group.load_balancer[*].id
  enable_cross_zone_load_balancing = true
  enable_deletion_protection       = var.deletion_protection
  tags                             = local.tags
}

# Any broker that is ready: the first address that a client has.
resource "aws_lb_target_group" "bootstrap" {
  count                = var.external_access == null ? 0 : 1
  name                 = "${var.name}-bootstrap"
  vpc_id               = local.vpc_id
  protocol             = "TCP"
  port                 = local.ports.external
  deregistration_delay = 30
  tags                 = local.tags

  health_check {
    protocol            = "HTTP"
    port                = tostring(local.ports.http)
    path                = "/readyz"
    interval            = 10
    healthy_threshold   = 2
    unhealthy_threshold = 2
  }
}

# One broker. Its instance registers itself, once it holds the broker's volume.
resource "aws_lb_target_group" "broker" {
  for_each             = { for id, zone in local.brokers : id => zone if var.external_access != null }
  name                 = "${var.name}-broker-${each.key}"
  vpc_id               = local.vpc_id
  protocol             = "TCP"
  port                 = local.ports.external
  deregistration_delay = 30
  tags                 = local.tags

  health_check {
    protocol            = "HTTP"
    port                = tostring(local.ports.http)
    path                = "/readyz"
    interval            = 10
    healthy_threshold   = 2
    unhealthy_threshold = 2
  }
}

resource "aws_lb_listener" "bootstrap" {
  count             = var.external_access == null ? 0 : 1
  load_balancer_arn = aws_lb.external[0].arn
  protocol          = "TCP"
  port              = local.external_ports
  tags              = local.tags

  default_action {
    type             = "forward"
    target_group_arn = aws_lb_target_group.bootstrap[0].arn
  }
}

resource "aws_lb_listener" "broker" {
  for_each          = aws_lb_target_group.broker
  load_balancer_arn = aws_lb.external[0].arn
  protocol          = "TCP"
  port              = local.external_ports + tonumber(each.key)
  tags              = local.tags

  default_action {
    type             = "forward"
    target_group_arn = each.value.arn
  }
}
