# Each variable refuses what would go wrong later.

mock_provider "aws" {
  mock_data "aws_iam_policy_document" {
    defaults = { json = "{\"Version\": \"2012-10-17\", \"Statement\": []}" }
  }
  mock_data "aws_subnet" {
    defaults = { vpc_id = "vpc-1" }
  }
}

variables {
  zones = ["xx-test-1a", "xx-test-1b", "xx-test-1c"]
  varve_binary = {
    url    = "s3://releases/varve"
    sha256 = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
  }
}

run "a_name_that_load_balancers_do_not_take" {
  command = plan

  variables {
    name = "much-too-long-for-a-load-balancer"
  }
  expect_failures = [var.name]
}

run "two_zones" {
  command = plan

  variables {
    zones = ["a", "b", "b"]
  }
  expect_failures = [var.zones]
}

run "a_network_in_zones_that_nobody_named" {
  command = plan

  variables {
    zones = null
  }
  expect_failures = [var.zones]
}

run "a_range_without_room" {
  command = plan

  variables {
    vpc_cidr = "10.0.0.0/30"
  }
  expect_failures = [var.vpc_cidr]
}

run "a_range_that_no_vpc_takes" {
  command = plan

  variables {
    vpc_cidr = "10.0.0.0/8"
  }
  expect_failures = [var.vpc_cidr]
}

run "the_internet_by_another_name" {
  command = plan

  variables {
    key_name         = "admin"
    admin_cidrs      = ["8.8.8.8/0"]
    monitoring_cidrs = ["8.8.8.8/0"]
    client_cidrs     = ["8.8.8.8/0"]
  }
  expect_failures = [var.admin_cidrs, var.monitoring_cidrs, var.client_cidrs]
}

run "ranges_that_rules_of_ipv4_do_not_take" {
  command = plan

  variables {
    client_cidrs    = ["2001:db8::/32"]
    external_access = { cidrs = ["2001:db8::/32"] }
  }
  expect_failures = [var.client_cidrs, var.external_access]
}

run "a_network_in_two_zones" {
  command = plan

  variables {
    zones   = null
    network = { vpc_id = "vpc-1", private_subnet_ids = ["subnet-1", "subnet-2"] }
  }
  expect_failures = [var.network]
}

run "three_subnets_in_two_zones" {
  command = plan

  variables {
    zones   = null
    network = { vpc_id = "vpc-1", private_subnet_ids = ["subnet-1", "subnet-2", "subnet-3"] }
  }
  override_data {
    target = data.aws_subnet.given["0"]
    values = { vpc_id = "vpc-1", availability_zone = "xx-test-1a" }
  }
  override_data {
    target = data.aws_subnet.given["1"]
    values = { vpc_id = "vpc-1", availability_zone = "xx-test-1b" }
  }
  override_data {
    target = data.aws_subnet.given["2"]
    values = { vpc_id = "vpc-1", availability_zone = "xx-test-1b" }
  }
  expect_failures = [data.aws_vpc.given]
}

run "a_network_and_zones_for_another" {
  command = plan

  variables {
    network = { vpc_id = "vpc-1", private_subnet_ids = ["subnet-1", "subnet-2", "subnet-3"] }
  }
  expect_failures = [var.zones]
}

run "a_way_in_through_one_zone" {
  command = plan

  variables {
    zones   = null
    network = { vpc_id = "vpc-1", private_subnet_ids = ["subnet-1", "subnet-2", "subnet-3"], public_subnet_ids = ["subnet-4"] }
  }
  expect_failures = [var.network]
}

run "a_subnet_of_another_network" {
  command = plan

  variables {
    zones   = null
    network = { vpc_id = "vpc-1", private_subnet_ids = ["subnet-1", "subnet-2", "subnet-3"] }
  }
  override_data {
    target = data.aws_subnet.given["0"]
    values = { vpc_id = "vpc-1", availability_zone = "xx-test-1a" }
  }
  override_data {
    target = data.aws_subnet.given["1"]
    values = { vpc_id = "vpc-1", availability_zone = "xx-test-1b" }
  }
  override_data {
    target = data.aws_subnet.given["2"]
    values = { vpc_id = "vpc-2", availability_zone = "xx-test-1c" }
  }
  expect_failures = [data.aws_subnet.given["2"]]
}

run "some_other_way_out" {
  command = plan

  variables {
    nat = "two"
  }
  expect_failures = [var.nat]
}

run "a_domain_of_one_part" {
  command = plan

  variables {
    private_domain = "internal"
  }
  expect_failures = [var.private_domain]
}

run "the_internet_as_inside" {
  command = plan

  variables {
    client_cidrs = ["0.0.0.0/0"]
  }
  expect_failures = [var.client_cidrs]
}

run "metrics_for_everybody" {
  command = plan

  variables {
    monitoring_cidrs = ["0.0.0.0/0"]
  }
  expect_failures = [var.monitoring_cidrs]
}

run "clients_outside_who_are_nowhere" {
  command = plan

  variables {
    external_access = { cidrs = [] }
  }
  expect_failures = [var.external_access]
}

run "an_entry_without_a_name" {
  command = plan

  variables {
    external_access = { cidrs = ["10.0.0.0/8"], zone_id = "Z1" }
  }
  expect_failures = [var.external_access]
}

run "the_internet_without_a_subnet_on_it" {
  command = plan

  variables {
    zones           = null
    network         = { vpc_id = "vpc-1", private_subnet_ids = ["subnet-1", "subnet-2", "subnet-3"] }
    external_access = { cidrs = ["198.51.100.0/24"] }
  }
  expect_failures = [var.external_access]
}

run "clients_without_a_login" {
  command = plan

  variables {
    client_authentication = "none"
  }
  expect_failures = [var.client_authentication]
}

run "a_user_that_is_no_principal" {
  command = plan

  variables {
    super_users = ["alice"]
  }
  expect_failures = [var.super_users]
}

run "a_port_for_ssh_without_a_key" {
  command = plan

  variables {
    admin_cidrs = ["10.0.0.0/8"]
  }
  expect_failures = [var.admin_cidrs]
}

run "an_unknown_size" {
  command = plan

  variables {
    size = "huge"
  }
  expect_failures = [var.size]
}

run "no_broker" {
  command = plan

  variables {
    brokers_per_zone = 0
  }
  expect_failures = [var.brokers_per_zone]
}

run "an_unknown_architecture" {
  command = plan

  variables {
    architecture = "riscv"
  }
  expect_failures = [var.architecture]
}

run "a_volume_too_small_for_a_log" {
  command = plan

  variables {
    data_volume = { gib = 9 }
  }
  expect_failures = [var.data_volume]
}

run "a_volume_larger_than_there_are" {
  command = plan

  variables {
    data_volume = { gib = 16385 }
  }
  expect_failures = [var.data_volume]
}

run "fewer_operations_than_gp3_has_anyway" {
  command = plan

  variables {
    data_volume = { gib = 100, iops = 2999 }
  }
  expect_failures = [var.data_volume]
}

run "more_operations_than_gp3_has" {
  command = plan

  variables {
    data_volume = { gib = 100, iops = 16001 }
  }
  expect_failures = [var.data_volume]
}

run "less_throughput_than_gp3_has_anyway" {
  command = plan

  variables {
    data_volume = { gib = 100, throughput = 124 }
  }
  expect_failures = [var.data_volume]
}

run "more_throughput_than_gp3_has" {
  command = plan

  variables {
    data_volume = { gib = 100, iops = 16000, throughput = 1001 }
  }
  expect_failures = [var.data_volume]
}

run "a_volume_faster_than_its_operations" {
  command = plan

  variables {
    data_volume = { gib = 100, iops = 3000, throughput = 800 }
  }
  expect_failures = [var.data_volume]
}

run "a_binary_that_anybody_may_change" {
  command = plan

  variables {
    varve_binary = { url = "http://releases.example/varve", sha256 = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855" }
  }
  expect_failures = [var.varve_binary]
}

run "a_binary_without_a_checksum" {
  command = plan

  variables {
    varve_binary = { url = "https://releases.example/varve", sha256 = "" }
  }
  expect_failures = [var.varve_binary]
}

run "an_image_by_name" {
  command = plan

  variables {
    ami_id = "debian"
  }
  expect_failures = [var.ami_id]
}

run "settings_that_the_module_decides" {
  command = plan

  variables {
    settings = { "varve.metadata.url" = "embedded:x" }
  }
  expect_failures = [var.settings]
}

run "names_of_certificates_that_may_not_change" {
  command = plan

  variables {
    settings = { "ssl.allow.san.changes" = "false" }
  }
  expect_failures = [var.settings]
}

run "mechanisms_without_that_of_the_first_user" {
  command = plan

  variables {
    settings = { "sasl.enabled.mechanisms" = "PLAIN" }
  }
  expect_failures = [var.settings]
}

run "logins_where_nobody_logs_in" {
  command = plan

  variables {
    client_authentication = "mtls"
    settings              = { "sasl.enabled.mechanisms" = "SCRAM-SHA-512" }
  }
  expect_failures = [var.settings]
}

run "clients_whose_certificates_nobody_asks_for" {
  command = plan

  variables {
    client_authentication = "mtls"
    settings              = { "listener.name.external.ssl.client.auth" = "none" }
  }
  expect_failures = [var.settings]
}

run "settings_of_two_lines" {
  command = plan

  variables {
    settings = { "log.retention.ms" = "1\nnode.id=7" }
  }
  expect_failures = [var.settings]
}

run "a_password_in_the_clear" {
  command = plan

  variables {
    settings = { "listener.name.client.plain.sasl.jaas.config" = "password" }
  }
  expect_failures = [var.settings]
}

run "a_secret_that_is_none" {
  command = plan

  variables {
    secret_settings = ["log.retention.ms"]
  }
  expect_failures = [var.secret_settings]
}

run "a_secret_that_the_module_decides" {
  command = plan

  variables {
    secret_settings = ["ssl.keystore.password"]
  }
  expect_failures = [var.secret_settings]
}

run "a_bucket_with_dots" {
  command = plan

  variables {
    bucket_name = "a.b.c"
  }
  expect_failures = [var.bucket_name]
}

run "an_archive_among_backups" {
  command = plan

  variables {
    archive_prefix = "etcd-backups/varve"
  }
  expect_failures = [var.archive_prefix]
}

run "an_archive_among_the_notes_of_members" {
  command = plan

  variables {
    archive_prefix = "etcd-members"
  }
  expect_failures = [var.archive_prefix]
}

run "versions_that_are_not_kept" {
  command = plan

  variables {
    noncurrent_days = 0
  }
  expect_failures = [var.noncurrent_days]
}

run "days_before_the_first" {
  command = plan

  variables {
    intelligent_tiering_days = -1
  }
  expect_failures = [var.intelligent_tiering_days]
}

run "backups_that_are_not_kept" {
  command = plan

  variables {
    etcd_backup_days = 0.5
  }
  expect_failures = [var.etcd_backup_days]
}

run "a_key_by_its_alias" {
  command = plan

  variables {
    kms_key_arn = "arn:aws:kms:eu-central-1:123456789012:alias/varve"
  }
  expect_failures = [var.kms_key_arn]
}

run "an_alarm_for_a_mail_address" {
  command = plan

  variables {
    alarm_actions = ["ops@example.com"]
  }
  expect_failures = [var.alarm_actions]
}
