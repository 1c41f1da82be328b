data "aws_caller_identity" "current" {}
data "aws_partition" "current" {}
data "aws_region" "current" {}

data "aws_ami" "debian" {
  count       = var.ami_id == null ? 1 : 0
  owners      = ["136693071363"] # Debian
  most_recent = true

  filter {
    name   = "name"
    values = ["debian-12-${var.architecture == "arm64" ? "arm64" : "amd64"}-*"]
  }
}

locals {
  account   = data.aws_caller_identity.current.account_id
  partition = data.aws_partition.current.partition
  region    = data.aws_region.current.name
  tags      = merge(var.tags, { "varve:cluster" = var.name })
  domain    = coalesce(var.private_domain, "${var.name}.internal")
  ami       = coalesce(var.ami_id, one(data.aws_ami.debian[*].id))

  # Instance types by architecture: brokers need network and page cache, etcd a disk that syncs steadily.
  sizes = {
    small = {
      broker = { arm64 = "m7g.medium", x86_64 = "m7i.large" }
      etcd   = { arm64 = "t4g.small", x86_64 = "t3.small" }
      volume = { gib = 100, iops = 3000, throughput = 125 }
    }
    medium = {
      broker = { arm64 = "m7g.xlarge", x86_64 = "m7i.xlarge" }
      etcd   = { arm64 = "t4g.medium", x86_64 = "t3.medium" }
      volume = { gib = 500, iops = 3000, throughput = 250 }
    }
    large = {
      broker = { arm64 = "m7g.4xlarge", x86_64 = "m7i.4xlarge" }
      etcd   = { arm64 = "m7g.medium", x86_64 = "m7i.large" }
      volume = { gib = 2000, iops = 6000, throughput = 500 }
    }
  }
  broker_type = coalesce(var.broker_instance_type, local.sizes[var.size].broker[var.architecture])
  etcd_type   = coalesce(var.etcd_instance_type, local.sizes[var.size].etcd[var.architecture])
  data_volume = coalesce(var.data_volume, local.sizes[var.size].volume)

  # Keys of everything that is there once in each zone: known before any subnet is.
  zones = toset(["0", "1", "2"])

  # Broker ids go round the zones, so that more brokers in each zone leave the ids of those before them as they are.
  brokers = {
    for id in range(1, 3 * var.brokers_per_zone + 1) : tostring(id) => tostring((id - 1) % 3)
  }
  etcd_members = { for zone in local.zones : tostring(tonumber(zone) + 1) => zone }

  ports = {
    internal = 9091 # between brokers
    client   = 9092 # clients inside
    external = 9094 # clients behind the load balancer
    http     = 9404 # /metrics, /healthz, /readyz
    etcd     = 2379
    peers    = 2380 # between members of etcd
  }
  # A broker's port on the load balancer is this and its id.
  external_ports = 9200
}
