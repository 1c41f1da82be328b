# What wakes somebody. Instances send these numbers each minute (instance/instance.sh); docs/operations/alerts.md says what to
# do. Where silence is the fault, or hides it, missing numbers count as breaching: then an alarm goes off also if whoever would
# report is dead. Where another alarm tells of that already they do not, so that one fault does not ring five times.

locals {
  per_broker = {
    not-ready = {
      metric  = "Ready", statistic = "Maximum", comparison = "LessThanThreshold", threshold = 1, minutes = 5, missing = "breaching"
      meaning = "The broker answers no clients, or its instance sends nothing."
    }
    under-replicated = {
      metric  = "UnderReplicatedPartitions", statistic = "Minimum", comparison = "GreaterThanThreshold", threshold = 0, minutes = 15, missing = "notBreaching"
      meaning = "Partitions that the broker leads have had too few replicas in sync for a quarter of an hour."
    }
    offline = {
      metric  = "OfflinePartitions", statistic = "Minimum", comparison = "GreaterThanThreshold", threshold = 0, minutes = 3, missing = "notBreaching"
      meaning = "Partitions take no writes because of their disk: their directory failed, or what is in it cannot be opened."
    }
    archive-lag = {
      metric  = "ArchiveLagSeconds", statistic = "Minimum", comparison = "GreaterThanThreshold", threshold = 3600, minutes = 10, missing = "notBreaching"
      meaning = "Records have waited an hour for the bucket: is it reachable, and may the broker's role write to it?"
    }
    # Of varve.local.max.bytes. From 70 on what is archived leaves the disk, so that above it is what is not; from 80 on producers
    # are slowed down, and at 100 refused. A volume that is written to as fast as it goes has two or three minutes from here.
    hot = {
      metric  = "HotUsedPercent", statistic = "Minimum", comparison = "GreaterThanThreshold", threshold = 75, minutes = 2, missing = "notBreaching"
      meaning = "The archive does not keep up with what is produced: from 80 % of varve.local.max.bytes on producers are slowed down, and at 100 % refused."
    }
    disk = {
      metric  = "DataVolumeUsedPercent", statistic = "Maximum", comparison = "GreaterThanThreshold", threshold = 85, minutes = 5, missing = "notBreaching"
      meaning = "The broker's volume fills beyond varve.local.max.bytes, with what that does not count or because it was raised: see what is on it, or raise data_volume.gib."
    }
    etcd-silent = {
      metric  = "EtcdSilenceSeconds", statistic = "Minimum", comparison = "GreaterThanThreshold", threshold = 30, minutes = 2, missing = "notBreaching"
      meaning = "The broker has heard nothing from etcd for more than half a minute: of one broker its network or certificate, of all of them etcd."
    }
    certificate = {
      metric  = "CertificateDays", statistic = "Minimum", comparison = "LessThanThreshold", threshold = 21, minutes = 5, missing = "notBreaching"
      meaning = "A certificate that the broker shows to clients, to others or to etcd ends within three weeks: run fill-secrets.sh. If that was done, the renewed one was refused, or its instance was not replaced since."
    }
  }
  per_member = {
    not-ready = {
      metric  = "Ready", statistic = "Maximum", comparison = "LessThanThreshold", threshold = 1, minutes = 5, missing = "breaching"
      meaning = "The member of etcd is not healthy, or its instance sends nothing."
    }
    # Its quota is a tenth of its volume (varve-etcd.service), so it is the quota that runs out.
    database = {
      metric  = "DatabaseUsedPercent", statistic = "Minimum", comparison = "GreaterThanThreshold", threshold = 75, minutes = 5, missing = "notBreaching"
      meaning = "The member's database comes near its quota, at which etcd takes no more writes until somebody makes room and disarms its alarm; or it has come there (100 %)."
    }
    backup = {
      metric  = "BackupAgeSeconds", statistic = "Minimum", comparison = "GreaterThanThreshold", threshold = 10800, minutes = 10, missing = "breaching"
      meaning = "Three hours without a backup of etcd in the bucket."
    }
    certificate = {
      metric  = "CertificateDays", statistic = "Minimum", comparison = "LessThanThreshold", threshold = 21, minutes = 5, missing = "notBreaching"
      meaning = "The member's certificate ends within three weeks: run fill-secrets.sh. If that was done, the instance does not fetch it."
    }
  }
  # Each node says what it sees, and one is enough to see it: that there is one, or that something is missing. The former two are
  # missing too if nobody says anything.
  per_cluster = {
    no-controller = {
      metric  = "Controllers", statistic = "Maximum", comparison = "LessThanThreshold", threshold = 1, minutes = 3, missing = "breaching"
      meaning = "No broker is the controller, or none sends anything: nobody is elected, and no topic is made."
    }
    etcd-majority = {
      metric  = "EtcdMajority", statistic = "Maximum", comparison = "LessThanThreshold", threshold = 1, minutes = 2, missing = "breaching"
      meaning = "No member of etcd answers with a majority behind it, or none sends anything. What is in sync goes on: restart no broker."
    }
    leaderless = {
      metric  = "LeaderlessPartitions", statistic = "Maximum", comparison = "GreaterThanThreshold", threshold = 0, minutes = 2, missing = "notBreaching"
      meaning = "Partitions have no leader: nobody can write or read them."
    }
    under-min-isr = {
      metric  = "UnderMinIsrPartitions", statistic = "Maximum", comparison = "GreaterThanThreshold", threshold = 0, minutes = 2, missing = "notBreaching"
      meaning = "Partitions have fewer replicas in sync than min.insync.replicas: acks=all is refused."
    }
  }
  alarms = merge(
    { for what, alarm in local.per_cluster : what => merge(alarm, { node = null }) },
    merge([for id, _ in local.brokers : { for what, alarm in local.per_broker : "broker-${id}-${what}" => merge(alarm, { node = "broker-${id}" }) }]...),
    merge([for member, _ in local.etcd_members : { for what, alarm in local.per_member : "etcd-${member}-${what}" => merge(alarm, { node = "etcd-${member}" }) }]...),
  )
}

resource "aws_cloudwatch_metric_alarm" "node" {
  for_each            = local.alarms
  alarm_name          = "${var.name}-${each.key}"
  alarm_description   = each.value.meaning
  namespace           = "Varve"
  metric_name         = each.value.metric
  dimensions          = merge({ Cluster = var.name }, each.value.node == null ? {} : { Node = each.value.node })
  statistic           = each.value.statistic
  comparison_operator = each.value.comparison
  threshold           = each.value.threshold
  period              = 60
  evaluation_periods  = each.value.minutes
  treat_missing_data  = each.value.missing
  alarm_actions       = var.alarm_actions
  ok_actions          = var.alarm_actions
  tags                = local.tags
}

# An instance that was lost and not replaced: no volume was free, or the zone has no capacity.
resource "aws_cloudwatch_metric_alarm" "capacity" {
  for_each            = local.instance_groups
  alarm_name          = "${var.name}-${each.key}-capacity"
  alarm_description   = "The auto-scaling group has fewer instances than it should."
  namespace           = "AWS/AutoScaling"
  metric_name         = "GroupInServiceInstances"
  dimensions          = { AutoScalingGroupName = aws_autoscaling_group.instance[each.key].name }
  statistic           = "Minimum"
  comparison_operator = "LessThanThreshold"
  threshold           = each.value.size
  period              = 60
  evaluation_periods  = 10
  treat_missing_data  = "breaching"
  alarm_actions       = var.alarm_actions
  ok_actions          = var.alarm_actions
  tags                = local.tags
}

resource "aws_cloudwatch_metric_alarm" "load_balancer" {
  count               = var.external_access == null ? 0 : 1
  alarm_name          = "${var.name}-external-unhealthy"
  alarm_description   = "The load balancer reaches no broker that is ready."
  namespace           = "AWS/NetworkELB"
  metric_name         = "HealthyHostCount"
  dimensions          = { LoadBalancer = aws_lb.external[0].arn_suffix, TargetGroup = aws_lb_target_group.bootstrap[0].arn_suffix }
  statistic           = "Maximum"
  comparison_operator = "LessThanThreshold"
  threshold           = 1
  period              = 60
  evaluation_periods  = 3
  treat_missing_data  = "breaching"
  alarm_actions       = var.alarm_actions
  ok_actions          = var.alarm_actions
  tags                = local.tags
}
