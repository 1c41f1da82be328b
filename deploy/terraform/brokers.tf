# One auto-scaling group in each zone, so that what replaces an instance is where its volume is. A volume has a broker's data
# and its node.id; an instance is whoever holds the volume.

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

resource "aws_launch_template" "broker" {
  name                   = "${var.name}-broker"
  update_default_version = true
  image_id               = local.ami
  instance_type          = local.broker_type
  key_name               = var.key_name
  vpc_security_group_ids = [aws_security_group.broker.id]
  user_data              = local.user_data.broker

  iam_instance_profile {
    arn = aws_iam_instance_profile.broker.arn
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
    tags          = merge(local.tags, { Name = "${var.name}-broker", "varve:role" = "broker" })
  }
  tag_specifications {
    resource_type = "volume"
    tags          = merge(local.tags, { Name = "${var.name}-broker-root" })
  }

  lifecycle {
    precondition {
      condition     = length(local.user_data.broker) <= 21845
      error_message = "the instances' user data is larger than the 16 KiB that EC2 takes."
    }
  }
}

resource "aws_autoscaling_group" "broker" {
  for_each                  = local.zones
  name                      = "${var.name}-broker-${each.key}"
  vpc_zone_identifier       = [local.private_subnets[each.key]]
  min_size                  = var.brokers_per_zone
  max_size                  = var.brokers_per_zone
  desired_capacity          = var.brokers_per_zone
  health_check_type         = "EC2" # a broker that recovers is slow, not dead
  wait_for_capacity_timeout = "0"   # instances wait for their certificates
  target_group_arns         = aws_lb_target_group.bootstrap[*].arn
  enabled_metrics           = ["GroupInServiceInstances"]

  launch_template {
    id      = aws_launch_template.broker.id
    version = aws_launch_template.broker.latest_version
  }
  dynamic "tag" {
    for_each = merge(local.tags, { "varve:role" = "broker" })

    content {
      key                 = tag.key
      value               = tag.value
      propagate_at_launch = true
    }
  }

  depends_on = [aws_ebs_volume.broker, aws_iam_role_policy.instance, aws_iam_role_policy.archive]
}
