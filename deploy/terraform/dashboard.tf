# How the cluster is, on one page of CloudWatch: every alarm, and below them what instances send, each number with the line at which
# its alarm goes off.

locals {
  graphs = concat(
    [for alarm in local.per_cluster : { alarm = alarm, lines = [["Varve", alarm.metric, "Cluster", var.name]] }],
    [for alarm in local.per_broker : {
      alarm = alarm
      lines = [for id in range(1, 3 * var.brokers_per_zone + 1) : ["Varve", alarm.metric, "Cluster", var.name, "Node", "broker-${id}", { label = "broker-${id}" }]]
    }],
    [for alarm in local.per_member : {
      alarm = alarm
      lines = [for member in sort(keys(local.etcd_members)) : ["Varve", alarm.metric, "Cluster", var.name, "Node", "etcd-${member}", { label = "etcd-${member}" }]]
    }],
  )
  all_alarms = concat(
    [for alarm in aws_cloudwatch_metric_alarm.node : alarm.arn],
    [for alarm in aws_cloudwatch_metric_alarm.capacity : alarm.arn],
    aws_cloudwatch_metric_alarm.load_balancer[*].arn,
  )
}

resource "aws_cloudwatch_dashboard" "this" {
  dashboard_name = var.name
  dashboard_body = jsonencode({
    start = "-PT3H"
    # Places are CloudWatch's to find, in this order: three graphs in a row.
    widgets = concat(
      # It shows a hundred at most.
      [for alarms in chunklist(local.all_alarms, 100) : {
        type   = "alarm"
        width  = 24
        height = 6
        properties = {
          title  = "Alarms"
          sortBy = "stateUpdatedTimestamp"
          alarms = alarms
        }
      }],
      [for graph in local.graphs : {
        type   = "metric"
        width  = 8
        height = 6
        properties = {
          title       = graph.alarm.metric
          region      = local.region
          view        = "timeSeries"
          stat        = graph.alarm.statistic
          period      = 60
          metrics     = graph.lines
          annotations = { horizontal = [{ label = "alarm", value = graph.alarm.threshold }] }
        }
      }],
      [{
        type   = "metric"
        width  = 8
        height = 6
        properties = {
          title   = "Instances in each group"
          region  = local.region
          view    = "timeSeries"
          stat    = "Minimum"
          period  = 60
          metrics = [for group in aws_autoscaling_group.instance : ["AWS/AutoScaling", "GroupInServiceInstances", "AutoScalingGroupName", group.name]]
        }
      }],
    )
  })
}
