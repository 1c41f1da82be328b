# Three zones, each with a private subnet for instances and a public one for the load balancer and the way out.

data "aws_vpc" "given" {
  count = var.network == null ? 0 : 1
  id    = var.network.vpc_id

  lifecycle {
    precondition {
      condition     = length(distinct(values(local.zone_names))) == 3
      error_message = "network.private_subnet_ids are subnets in three different availability zones: two of three replicas, and two of three members of etcd, must outlive any one. They are in ${join(", ", values(local.zone_names))}."
    }
  }
}

data "aws_subnet" "given" {
  for_each = var.network == null ? toset([]) : local.zones
  id       = var.network.private_subnet_ids[tonumber(each.key)]

  lifecycle {
    postcondition {
      condition     = self.vpc_id == var.network.vpc_id
      error_message = "${self.id} is not a subnet of ${var.network.vpc_id}."
    }
  }
}

locals {
  own_network = var.network == null ? local.zones : toset([])
  zone_names = {
    for zone in local.zones : zone => var.network != null ? data.aws_subnet.given[zone].availability_zone :
    var.zones[tonumber(zone)]
  }
  vpc_id          = var.network == null ? aws_vpc.this[0].id : var.network.vpc_id
  vpc_cidrs       = var.network == null ? [var.vpc_cidr] : [for one in data.aws_vpc.given[0].cidr_block_associations : one.cidr_block]
  private_subnets = { for zone in local.zones : zone => var.network == null ? aws_subnet.private[zone].id : var.network.private_subnet_ids[tonumber(zone)] }
  public_subnets  = var.network == null ? [for zone in local.zones : aws_subnet.public[zone].id] : var.network.public_subnet_ids
  nat_zones       = var.network == null ? { per_zone = local.zones, one = toset(["0"]), none = toset([]) }[var.nat] : toset([])
}

resource "aws_vpc" "this" {
  count                = var.network == null ? 1 : 0
  cidr_block           = var.vpc_cidr
  enable_dns_support   = true
  enable_dns_hostnames = true
  tags                 = merge(local.tags, { Name = var.name })
}

# Nothing uses the group that every network comes with; without rules nothing can.
resource "aws_default_security_group" "this" {
  count  = var.network == null ? 1 : 0
  vpc_id = aws_vpc.this[0].id
  tags   = merge(local.tags, { Name = "${var.name}-unused" })
}

resource "aws_internet_gateway" "this" {
  count  = var.network == null ? 1 : 0
  vpc_id = aws_vpc.this[0].id
  tags   = merge(local.tags, { Name = var.name })
}

resource "aws_subnet" "private" {
  for_each          = local.own_network
  vpc_id            = aws_vpc.this[0].id
  availability_zone = local.zone_names[each.key]
  cidr_block        = cidrsubnet(var.vpc_cidr, 4, tonumber(each.key))
  tags              = merge(local.tags, { Name = "${var.name}-private-${each.key}" })
}

resource "aws_subnet" "public" {
  for_each          = local.own_network
  vpc_id            = aws_vpc.this[0].id
  availability_zone = local.zone_names[each.key]
  cidr_block        = cidrsubnet(var.vpc_cidr, 4, tonumber(each.key) + 3)
  tags              = merge(local.tags, { Name = "${var.name}-public-${each.key}" })
}

resource "aws_route_table" "public" {
  count  = var.network == null ? 1 : 0
  vpc_id = aws_vpc.this[0].id
  tags   = merge(local.tags, { Name = "${var.name}-public" })
}

resource "aws_route" "public" {
  count                  = var.network == null ? 1 : 0
  route_table_id         = aws_route_table.public[0].id
  destination_cidr_block = "0.0.0.0/0"
  gateway_id             = aws_internet_gateway.this[0].id
}

resource "aws_route_table_association" "public" {
  for_each       = local.own_network
  subnet_id      = aws_subnet.public[each.key].id
  route_table_id = aws_route_table.public[0].id
}

resource "aws_eip" "nat" {
  for_each = local.nat_zones
  domain   = "vpc"
  tags     = merge(local.tags, { Name = "${var.name}-nat-${each.key}" })
}

resource "aws_nat_gateway" "this" {
  for_each      = local.nat_zones
  allocation_id = aws_eip.nat[each.key].id
  subnet_id     = aws_subnet.public[each.key].id
  tags          = merge(local.tags, { Name = "${var.name}-${each.key}" })
  depends_on    = [aws_route.public]
}

resource "aws_route_table" "private" {
  for_each = local.own_network
  vpc_id   = aws_vpc.this[0].id
  tags     = merge(local.tags, { Name = "${var.name}-private-${each.key}" })
}

resource "aws_route" "private" {
  for_each               = length(local.nat_zones) == 0 ? toset([]) : local.own_network
  route_table_id         = aws_route_table.private[each.key].id
  destination_cidr_block = "0.0.0.0/0"
  nat_gateway_id         = aws_nat_gateway.this[contains(local.nat_zones, each.key) ? each.key : "0"].id
}

resource "aws_route_table_association" "private" {
  for_each       = local.own_network
  subnet_id      = aws_subnet.private[each.key].id
  route_table_id = aws_route_table.private[each.key].id
}

# The archive's traffic stays inside, costs nothing per byte, and goes on when a way out does not.
resource "aws_vpc_endpoint" "s3" {
  count             = var.network == null ? 1 : 0
  vpc_id            = aws_vpc.this[0].id
  service_name      = "com.amazonaws.${local.region}.s3"
  vpc_endpoint_type = "Gateway"
  route_table_ids   = [for zone in local.zones : aws_route_table.private[zone].id]
  tags              = merge(local.tags, { Name = "${var.name}-s3" })
}
