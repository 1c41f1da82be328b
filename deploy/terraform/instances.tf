# A volume has the data of a broker or of a member of etcd, and its number; an instance is whoever holds the volume. Each group
# of instances stays in one zone, so that what replaces an instance is where its volume is.

resource "aws_ebs_volume" "broker" {
  for_each          = local.brokers
  availability_zone = local.zone_names[each.value]
  type              = "gp3"
  size              = local.data_volume.gib
  iops              = local.data_volume.iops
  throughput        = local.data_volume.throughput
  encrypted         = true
  kms_key_id        = local.key_arn
  final_snapshot    = var.deletion_protection
  tags              = merge(local.tags, { Name = "${var.name}-broker-${each.key}", "varve:role" = "broker", "varve:number" = each.key })
}

resource "aws_ebs_volume" "etcd" {
  for_each          = local.etcd_members
  availability_zone = local.zone_names[each.value]
  type              = "gp3"
  size              = 20
  encrypted         = true
  kms_key_id        = local.key_arn
  final_snapshot    = var.deletion_protection
  tags              = merge(local.tags, { Name = "${var.name}-etcd-${each.key}", "varve:role" = "etcd", "varve:number" = each.key })
}

locals {
  instances = {
    broker = {
      type           = local.broker_type
      security_group = aws_security_group.broker.id
      profile        = aws_iam_instance_profile.broker.arn
    }
    etcd = {
      type           = local.etcd_type
      security_group = aws_security_group.etcd.id
      profile        = aws_iam_instance_profile.etcd.arn
    }
  }
  # Brokers' groups by zone; a member of etcd has one of its own.
  instance_groups = merge(
    { for zone in local.zones : "broker-zone-${zone}" => { role = "broker", zone = zone, size = var.brokers_per_zone } },
    { for member, zone in local.etcd_members : "etcd-${member}" => { role = "etcd", zone = zone, size = 1 } },
  )
}

resource "aws_launch_template" "instance" {
  for_each               = local.instances
  name                   = "${var.name}-${each.key}"
  update_default_version = true
  image_id               = local.ami
  instance_type          = each.value.type
  key_name               = var.key_name
  vpc_security_group_ids = [each.value.security_group]
  user_data              = local.user_data[each.key]

  iam_instance_profile {
    arn = each.value.profile
  }
  metadata_options {
    http_tokens                 = "required"
    http_put_response_hop_limit = 1
  }
  block_device_mappings {
    device_name = "/dev/xvda"

    ebs {
      volume_type = "gp3"
      volume_size = 10
      encrypted   = true
    }
  }
  tag_specifications {
    resource_type = "instance"
    tags          = merge(local.tags, { Name = "${var.name}-${each.key}", "varve:role" = each.key })
  }
  tag_specifications {
    resource_type = "volume"
    tags          = merge(local.tags, { Name = "${var.name}-${each.key}-root" })
  }

  lifecycle {
    precondition {
      condition     = length(local.user_data[each.key]) <= 21845
      error_message = "the instances' user data is larger than the 16 KiB that EC2 takes."
    }
  }
}

resource "aws_autoscaling_group" "instance" {
  for_each                  = local.instance_groups
  name                      = "${var.name}-${each.key}"
  vpc_zone_identifier       = [local.private_subnets[each.value.zone]]
  min_size                  = each.value.size
  max_size                  = each.value.size
  desired_capacity          = each.value.size
  health_check_type         = "EC2" # a broker that recovers is slow, not dead
  wait_for_capacity_timeout = "0"   # instances wait for their certificates
  target_group_arns         = each.value.role == "broker" ? aws_lb_target_group.bootstrap[*].arn : []
  enabled_metrics           = ["GroupInServiceInstances"]

  launch_template {
    id      = aws_launch_template.instance[each.value.role].id
    version = aws_launch_template.instance[each.value.role].latest_version
  }
  dynamic "tag" {
    for_each = merge(local.tags, { "varve:role" = each.value.role })

    content {
      key                 = tag.key
      value               = tag.value
      propagate_at_launch = true
    }
  }

  depends_on = [
    aws_ebs_volume.broker, aws_ebs_volume.etcd,
    aws_iam_role_policy.instance, aws_iam_role_policy.archive, aws_iam_role_policy.backups,
    # Instances ask for each other's names as soon as they are there.
    aws_route53_record.authority,
    # Ways out, before anybody wants to go.
    aws_route.private, aws_route_table_association.private, aws_route_table_association.public, aws_vpc_endpoint.s3,
    aws_vpc_security_group_egress_rule.instances,
  ]
}
