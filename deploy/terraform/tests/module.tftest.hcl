# The module against a provider that answers with made-up values: what is made, and what is refused with which words.

mock_provider "aws" {
  mock_data "aws_caller_identity" {
    defaults = { account_id = "123456789012" }
  }
  mock_data "aws_partition" {
    defaults = { partition = "aws", dns_suffix = "amazonaws.com" }
  }
  mock_data "aws_region" {
    defaults = { name = "xx-test-1" }
  }
  mock_data "aws_ami" {
    defaults = { id = "ami-0123456789abcdef0" }
  }
  mock_data "aws_iam_policy_document" {
    defaults = { json = "{\"Version\": \"2012-10-17\", \"Statement\": []}" }
  }
  mock_data "aws_vpc" {
    defaults = { cidr_block_associations = [{ association_id = "a", cidr_block = "10.9.0.0/16", state = "associated" }] }
  }
  mock_data "aws_subnet" {
    defaults = { vpc_id = "vpc-0123456789abcdef0" }
  }
  mock_resource "aws_iam_role" {
    defaults = { arn = "arn:aws:iam::123456789012:role/varve" }
  }
  mock_resource "aws_iam_instance_profile" {
    defaults = { arn = "arn:aws:iam::123456789012:instance-profile/varve" }
  }
  mock_resource "aws_iam_policy" {
    defaults = { arn = "arn:aws:iam::123456789012:policy/varve" }
  }
  mock_resource "aws_kms_key" {
    defaults = { arn = "arn:aws:kms:xx-test-1:123456789012:key/varve" }
  }
  mock_resource "aws_lb" {
    defaults = { arn = "arn:aws:elasticloadbalancing:xx-test-1:123456789012:loadbalancer/net/varve/1", dns_name = "varve-1.elb.example" }
  }
  mock_resource "aws_lb_target_group" {
    defaults = { arn = "arn:aws:elasticloadbalancing:xx-test-1:123456789012:targetgroup/varve/1" }
  }
  mock_resource "aws_lb_listener" {
    defaults = { arn = "arn:aws:elasticloadbalancing:xx-test-1:123456789012:listener/net/varve/1/1" }
  }
  mock_resource "aws_launch_template" {
    defaults = { id = "lt-0123456789abcdef0", latest_version = 1 }
  }
  mock_resource "aws_s3_bucket" {
    defaults = { arn = "arn:aws:s3:::varve-archive", id = "varve-archive" }
  }
  mock_resource "aws_secretsmanager_secret" {
    defaults = { arn = "arn:aws:secretsmanager:xx-test-1:123456789012:secret:varve" }
  }
}

variables {
  zones = ["xx-test-1a", "xx-test-1b", "xx-test-1c"]
  varve_binary = {
    url    = "s3://releases/varve"
    sha256 = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
  }
}

run "the_defaults_are_a_cluster_in_three_zones" {
  assert {
    condition     = output.bootstrap_servers == "broker-1.varve.internal:9092,broker-2.varve.internal:9092,broker-3.varve.internal:9092"
    error_message = "bootstrap_servers: ${output.bootstrap_servers}"
  }
  assert {
    condition     = output.bootstrap_servers_external == null && length(aws_lb.external) == 0
    error_message = "there is no load balancer unless asked for"
  }
  assert {
    condition     = [for id in ["1", "2", "3"] : aws_ebs_volume.broker[id].availability_zone] == ["xx-test-1a", "xx-test-1b", "xx-test-1c"]
    error_message = "each zone has a broker's volume"
  }
  assert {
    condition     = alltrue([for volume in concat(values(aws_ebs_volume.broker), values(aws_ebs_volume.etcd)) : volume.encrypted && volume.final_snapshot])
    error_message = "volumes are encrypted, and leave a snapshot"
  }
  assert {
    condition     = [for key, group in aws_autoscaling_group.instance : "${key} ${group.desired_capacity}"] == ["broker-zone-0 1", "broker-zone-1 1", "broker-zone-2 1", "etcd-1 1", "etcd-2 1", "etcd-3 1"]
    error_message = "each zone has a group of brokers and one of etcd"
  }
  assert {
    condition     = alltrue([for role in ["broker", "etcd"] : aws_launch_template.instance[role].metadata_options[0].http_tokens == "required"])
    error_message = "instances ask for their role with a token"
  }
  assert {
    condition     = alltrue([for block in [aws_s3_bucket_public_access_block.archive] : block.block_public_acls && block.block_public_policy && block.ignore_public_acls && block.restrict_public_buckets])
    error_message = "the bucket is nobody's but ours"
  }
  assert {
    condition     = !aws_s3_bucket.archive.force_destroy
    error_message = "a bucket with an archive does not go with the cluster"
  }
  assert {
    condition     = strcontains(output.server_properties, "varve.object.store.url=s3://varve-archive/varve\n") && strcontains(output.server_properties, "min.insync.replicas=2\n")
    error_message = output.server_properties
  }
  assert {
    condition     = strcontains(output.server_properties, "INTERNAL:SSL") && strcontains(output.server_properties, "listener.name.internal.ssl.client.auth=required\n")
    error_message = "brokers know each other by certificates"
  }
  assert {
    condition     = strcontains(output.server_properties, "ssl.allow.san.changes=true\n")
    error_message = "a renewed certificate may name fewer brokers"
  }
  assert {
    condition     = !strcontains(output.server_properties, "EXTERNAL")
    error_message = "no listener for clients outside"
  }
}

run "an_alarm_goes_off_also_when_whoever_would_report_is_dead" {
  command = plan

  assert {
    condition     = length(aws_cloudwatch_metric_alarm.node) == 3 * 8 + 3 * 4 + 4
    error_message = "eight alarms for each broker, four for each member of etcd, four for the cluster"
  }
  assert {
    condition = toset([for what, alarm in aws_cloudwatch_metric_alarm.node : what if alarm.treat_missing_data == "breaching"]) == toset([
      "broker-1-not-ready", "broker-2-not-ready", "broker-3-not-ready",
      "etcd-1-not-ready", "etcd-2-not-ready", "etcd-3-not-ready", "etcd-1-backup", "etcd-2-backup", "etcd-3-backup",
      "etcd-majority", "no-controller",
    ])
    error_message = "an instance that sends nothing, a cluster without a controller and an etcd without a majority are never silent"
  }
  assert {
    condition = alltrue([for alarm in [aws_cloudwatch_metric_alarm.node["no-controller"], aws_cloudwatch_metric_alarm.node["etcd-majority"]] :
      alarm.dimensions == tomap({ Cluster = "varve" }) && alarm.statistic == "Maximum" && alarm.threshold == 1 && alarm.comparison_operator == "LessThanThreshold"
    ])
    error_message = "one node that sees it is enough, whichever it is"
  }
  assert {
    condition = alltrue([for alarm in [aws_cloudwatch_metric_alarm.node["leaderless"], aws_cloudwatch_metric_alarm.node["under-min-isr"]] :
      alarm.dimensions == tomap({ Cluster = "varve" }) && alarm.statistic == "Maximum" && alarm.threshold == 0 && alarm.comparison_operator == "GreaterThanThreshold"
    ])
    error_message = "one broker that misses something is enough, whichever it is"
  }
  assert {
    condition     = alltrue([for alarm in aws_cloudwatch_metric_alarm.capacity : alarm.treat_missing_data == "breaching"])
    error_message = "a group that nobody counts has too few instances"
  }
}

run "an_alarm_goes_off_before_writes_are_refused" {
  command = plan

  assert {
    condition = alltrue([for id in ["1", "2", "3"] :
      aws_cloudwatch_metric_alarm.node["broker-${id}-hot"].metric_name == "HotUsedPercent" && aws_cloudwatch_metric_alarm.node["broker-${id}-hot"].threshold < 80
    ])
    error_message = "producers are slowed down from 80 % of varve.local.max.bytes on"
  }
  assert {
    condition = alltrue([for member in ["1", "2", "3"] :
      aws_cloudwatch_metric_alarm.node["etcd-${member}-database"].metric_name == "DatabaseUsedPercent" && aws_cloudwatch_metric_alarm.node["etcd-${member}-database"].threshold < 100
    ])
    error_message = "etcd takes no writes when its quota is used up, whatever room its volume has"
  }
}

run "the_dashboard_shows_every_alarm_and_every_number_that_one_looks_at" {
  variables {
    brokers_per_zone = 5 # more alarms than CloudWatch shows in one place
    external_access  = { cidrs = ["198.51.100.0/24"] }
  }
  assert {
    condition = toset(flatten([for widget in jsondecode(aws_cloudwatch_dashboard.this.dashboard_body).widgets : widget.properties.alarms if widget.type == "alarm"])) == toset(concat(
      [for alarm in aws_cloudwatch_metric_alarm.node : alarm.arn], [for alarm in aws_cloudwatch_metric_alarm.capacity : alarm.arn], aws_cloudwatch_metric_alarm.load_balancer[*].arn,
    ))
    error_message = "every alarm is shown"
  }
  assert {
    condition     = alltrue([for widget in jsondecode(aws_cloudwatch_dashboard.this.dashboard_body).widgets : length(widget.properties.alarms) <= 100 if widget.type == "alarm"])
    error_message = "CloudWatch takes a hundred alarms in one place"
  }
  assert {
    condition = toset(flatten([for widget in jsondecode(aws_cloudwatch_dashboard.this.dashboard_body).widgets :
      [for line in widget.properties.metrics : join(" ", slice(line, 0, length(line) - length(line) % 2)) if line[0] == "Varve"] if widget.type == "metric"
      ])) == toset([for alarm in aws_cloudwatch_metric_alarm.node :
      join(" ", concat(["Varve", alarm.metric_name, "Cluster", "varve"], [for node in compact([lookup(alarm.dimensions, "Node", "")]) : "Node ${node}"]))
    ])
    error_message = "every number that an alarm looks at is shown"
  }
  assert {
    condition     = output.dashboard == "varve"
    error_message = "it has the cluster's name"
  }
}

run "a_name_that_is_not_there_yet_is_asked_for_again_soon" {
  assert {
    condition     = aws_route53_record.authority.name == "varve.internal" && aws_route53_record.authority.ttl == 15 && endswith(one(aws_route53_record.authority.records), " 15")
    error_message = "whoever is told that there is no such name believes it for the lesser of the two"
  }
}

run "instances_install_what_the_image_lacks_for_as_long_as_it_takes" {
  command = apply

  assert {
    condition     = strcontains(output.user_data.etcd, "PACKAGES='awscli ca-certificates curl xfsprogs etcd-server etcd-client'") && strcontains(output.user_data.broker, "PACKAGES='awscli ca-certificates curl xfsprogs'")
    error_message = "the scripts install packages, again and again"
  }
  assert {
    condition     = alltrue([for told in values(output.user_data) : !strcontains(told, "\"packages\"") && !strcontains(told, "\"package_update\"")])
    error_message = "cloud-init tries once, and an instance may be there before its way out is"
  }
}

run "settings_that_are_secrets_stand_nowhere_in_the_clear" {
  variables {
    secret_settings = ["delegation.token.secret.key"]
  }
  assert {
    condition     = length(output.setting_secrets) == 1 && alltrue([for setting, name in output.setting_secrets : name == "varve/settings/${setting}"])
    error_message = "each has a secret"
  }
  assert {
    condition     = strcontains(output.user_data.broker, "SECRET_SETTINGS='${one(keys(output.setting_secrets))}'") && strcontains(output.user_data.etcd, "SECRET_SETTINGS=''")
    error_message = "brokers fetch them"
  }
  assert {
    condition     = !strcontains(output.server_properties, "delegation.token.secret.key")
    error_message = output.server_properties
  }
}

run "only_brokers_reach_the_port_of_brokers" {
  command = plan

  assert {
    condition = alltrue([
      for what, rule in aws_vpc_security_group_ingress_rule.between : rule.from_port != 9091 || what == "brokers to each other"
    ])
    error_message = "9091 is for brokers"
  }
  assert {
    condition     = alltrue([for rule in aws_vpc_security_group_ingress_rule.ranges : rule.to_port < 9091 || rule.from_port > 9091])
    error_message = "9091 is for no address"
  }
  assert {
    condition     = alltrue([for rule in aws_vpc_security_group_ingress_rule.ranges : rule.cidr_ipv4 == "10.42.0.0/16"])
    error_message = "clients are inside unless said otherwise"
  }
}

run "more_brokers_leave_those_before_them_where_they_are" {
  command = plan

  variables {
    brokers_per_zone = 3
  }
  assert {
    condition     = [for id in ["1", "2", "3", "4", "9"] : aws_ebs_volume.broker[id].availability_zone] == ["xx-test-1a", "xx-test-1b", "xx-test-1c", "xx-test-1a", "xx-test-1c"]
    error_message = "ids go round the zones"
  }
  assert {
    condition     = aws_autoscaling_group.instance["broker-zone-0"].desired_capacity == 3
    error_message = "each group has its share"
  }
}

run "clients_outside_have_a_port_for_each_broker" {
  variables {
    external_access = { cidrs = ["198.51.100.0/24"], hostname = "kafka.example.com" }
  }
  assert {
    condition     = output.bootstrap_servers_external == "kafka.example.com:9200"
    error_message = "bootstrap_servers_external: ${output.bootstrap_servers_external}"
  }
  assert {
    condition     = { for id, listener in aws_lb_listener.broker : id => listener.port } == { "1" = 9201, "2" = 9202, "3" = 9203 }
    error_message = "one port for each broker"
  }
  assert {
    condition     = strcontains(output.server_properties, ",EXTERNAL://kafka.example.com:@EXTERNAL_PORT@\n")
    error_message = output.server_properties
  }
  assert {
    condition     = contains(output.tls_names.broker, "kafka.example.com")
    error_message = "certificates have the name that clients outside use"
  }
}

run "clients_with_certificates_need_one_on_each_listener" {
  variables {
    client_authentication = "mtls"
    external_access       = { cidrs = ["198.51.100.0/24"] }
  }
  assert {
    condition     = strcontains(output.server_properties, "listener.name.client.ssl.client.auth=required\n") && strcontains(output.server_properties, "listener.name.external.ssl.client.auth=required\n")
    error_message = output.server_properties
  }
  assert {
    condition     = !strcontains(output.server_properties, "SASL") && strcontains(output.server_properties, "super.users=User:CN=broker;User:CN=admin\n")
    error_message = output.server_properties
  }
}

run "clients_may_log_in_by_other_mechanisms_too" {
  variables {
    settings = { "sasl.enabled.mechanisms" = "OAUTHBEARER, SCRAM-SHA-512", "listener.name.client.ssl.client.auth" = "required" }
  }
  assert {
    condition     = strcontains(output.server_properties, "sasl.enabled.mechanisms=OAUTHBEARER, SCRAM-SHA-512\n") && strcontains(output.server_properties, "listener.name.client.ssl.client.auth=required\n")
    error_message = output.server_properties
  }
}

run "a_network_that_is_there_already_is_left_alone" {
  variables {
    zones   = null
    network = { vpc_id = "vpc-0123456789abcdef0", private_subnet_ids = ["subnet-1", "subnet-2", "subnet-3"] }
  }
  override_data {
    target = data.aws_subnet.given["0"]
    values = { vpc_id = "vpc-0123456789abcdef0", availability_zone = "xx-test-1a" }
  }
  override_data {
    target = data.aws_subnet.given["1"]
    values = { vpc_id = "vpc-0123456789abcdef0", availability_zone = "xx-test-1b" }
  }
  override_data {
    target = data.aws_subnet.given["2"]
    values = { vpc_id = "vpc-0123456789abcdef0", availability_zone = "xx-test-1c" }
  }
  assert {
    condition     = aws_ebs_volume.broker["2"].availability_zone == "xx-test-1b"
    error_message = "volumes are where the subnets are"
  }
  assert {
    condition     = length(aws_vpc.this) + length(aws_subnet.private) + length(aws_nat_gateway.this) + length(aws_vpc_endpoint.s3) == 0
    error_message = "nothing of the network is the module's"
  }
  assert {
    condition     = aws_vpc_security_group_ingress_rule.ranges["clients inside 0"].cidr_ipv4 == "10.9.0.0/16"
    error_message = "clients inside are those in the network"
  }
}

run "an_emulator_without_tls_is_the_only_reason_for_a_bucket_without" {
  command = plan

  variables {
    deletion_protection = false
    bucket_requires_tls = false
  }
  assert {
    condition     = aws_s3_bucket.archive.force_destroy && !aws_ebs_volume.broker["1"].final_snapshot
    error_message = "what is for a test goes with it"
  }
}

run "user_data_that_ec2_does_not_take" {
  command = plan

  variables {
    settings = { "sasl.oauthbearer.jwks.endpoint.url" = join("", [for part in range(400) : sha256(tostring(part))]) }
  }
  expect_failures = [aws_launch_template.instance]
}
