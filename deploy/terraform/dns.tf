# Names that stay when instances do not. Each instance enters its own address under its own name when it starts.

resource "aws_route53_zone" "private" {
  name          = local.domain
  comment       = "Brokers and etcd of ${var.name}"
  force_destroy = true # the instances' own entries are not the module's
  tags          = local.tags

  vpc {
    vpc_id = local.vpc_id
  }

  lifecycle {
    ignore_changes = [vpc] # other networks may be associated, so that their clients find the brokers
  }
}

# Who asks for a name before its instance has entered it is told that there is none, and believes it for the lesser of this record's
# two times: a quarter of an hour, as AWS makes it. Members of etcd that come up together ask for each other at once.
resource "aws_route53_record" "authority" {
  zone_id         = aws_route53_zone.private.zone_id
  name            = local.domain
  type            = "SOA"
  ttl             = 15
  allow_overwrite = true # the zone comes with one; AWS gives it up with the zone only, and the provider leaves it at that
  records         = ["${trimsuffix(aws_route53_zone.private.primary_name_server, ".")}. awsdns-hostmaster.amazon.com. 1 7200 900 1209600 15"]
}

resource "aws_route53_record" "external" {
  count   = try(var.external_access.zone_id, null) == null ? 0 : 1
  zone_id = var.external_access.zone_id
  name    = var.external_access.hostname
  type    = "A"

  alias {
    name                   = aws_lb.external[0].dns_name
    zone_id                = aws_lb.external[0].zone_id
    evaluate_target_health = false
  }
}
