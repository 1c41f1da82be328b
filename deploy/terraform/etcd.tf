# Three members, one in each zone. A member's volume has its data and its number; an instance is whoever holds the volume.

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

resource "aws_launch_template" "etcd" {
  name                   = "${var.name}-etcd"
  update_default_version = true
  image_id               = local.ami
  instance_type          = local.etcd_type
  key_name               = var.key_name
  vpc_security_group_ids = [aws_security_group.etcd.id]
  user_data              = local.user_data.etcd

  iam_instance_profile {
    arn = aws_iam_instance_profile.etcd.arn
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
    tags          = merge(local.tags, { Name = "${var.name}-etcd", "varve:role" = "etcd" })
  }
  tag_specifications {
    resource_type = "volume"
    tags          = merge(local.tags, { Name = "${var.name}-etcd-root" })
  }

  lifecycle {
    precondition {
      condition     = length(local.user_data.etcd) <= 21845
      error_message = "the instances' user data is larger than the 16 KiB that EC2 takes."
    }
  }
}

resource "aws_autoscaling_group" "etcd" {
  for_each                  = local.etcd_members
  name                      = "${var.name}-etcd-${each.key}"
  vpc_zone_identifier       = [local.private_subnets[each.value]]
  min_size                  = 1
  max_size                  = 1
  desired_capacity          = 1
  health_check_type         = "EC2"
  wait_for_capacity_timeout = "0" # instances wait for their certificates
  enabled_metrics           = ["GroupInServiceInstances"]

  launch_template {
    id      = aws_launch_template.etcd.id
    version = aws_launch_template.etcd.latest_version
  }
  dynamic "tag" {
    for_each = merge(local.tags, { "varve:role" = "etcd" })

    content {
      key                 = tag.key
      value               = tag.value
      propagate_at_launch = true
    }
  }

  depends_on = [aws_ebs_volume.etcd, aws_iam_role_policy.instance, aws_iam_role_policy.backups]
}
