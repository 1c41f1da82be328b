# Everything that may be chosen. What is wrong is refused by `terraform plan`, with the reason.

variable "name" {
  description = "The cluster's name: first part of every resource's name, and the cluster's key in etcd."
  type        = string
  default     = "varve"

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{1,14}[a-z0-9]$", var.name))
    error_message = "name has 3 to 16 lower-case letters, digits and hyphens, begins with a letter and ends without a hyphen: load balancers take no longer names."
  }
}

variable "tags" {
  description = "Tags of every resource, besides varve:cluster."
  type        = map(string)
  default     = {}
}

# The network

variable "zones" {
  description = "Three availability zones for a network of the module's own, such as [\"eu-central-1a\", \"eu-central-1b\", \"eu-central-1c\"]: named, because a zone that came and went by itself would take its volumes along. With `network` the subnets say it."
  type        = list(string)
  default     = null

  validation {
    condition     = var.zones == null ? true : length(distinct(var.zones)) == 3
    error_message = "zones names three different availability zones: two of three replicas, and two of three members of etcd, must outlive any one."
  }
  validation {
    condition     = (var.zones == null) != (var.network == null)
    error_message = "zones is for a network of the module's own, and network for one that is there: one of the two must be set."
  }
}

variable "vpc_cidr" {
  description = "Addresses of a network of the module's own."
  type        = string
  default     = "10.42.0.0/16"

  validation {
    condition     = can(cidrnetmask(var.vpc_cidr)) && can(regex("/(1[6-9]|2[0-4])$", var.vpc_cidr))
    error_message = "vpc_cidr is an IPv4 range such as 10.42.0.0/16: no larger, and with room for six subnets (/24 at the least)."
  }
}

variable "network" {
  description = "An existing network: its id, one private subnet in each of three zones, and, for a load balancer on the internet, one public subnet in each. null makes one. Instances must reach Debian's packages, the binary and AWS's APIs from the private subnets."
  type = object({
    vpc_id             = string
    private_subnet_ids = list(string)
    public_subnet_ids  = optional(list(string), [])
  })
  default = null

  validation {
    condition     = var.network == null ? true : length(distinct(var.network.private_subnet_ids)) == 3
    error_message = "network.private_subnet_ids names three subnets, one in each zone."
  }
  validation {
    condition     = var.network == null ? true : contains([0, 3], length(distinct(var.network.public_subnet_ids)))
    error_message = "network.public_subnet_ids names three subnets, one in each zone, or none."
  }
}

variable "nat" {
  description = "How a network of the module's own reaches the internet, for packages and AWS's APIs: per_zone, one (cheaper; while its zone is down no instance can be replaced), or none (the image has everything and the network has endpoints). S3 has an endpoint in any case."
  type        = string
  default     = "per_zone"

  validation {
    condition     = contains(["per_zone", "one", "none"], var.nat)
    error_message = "nat is per_zone, one or none."
  }
}

variable "private_domain" {
  description = "Domain of the private DNS zone in which broker-1, broker-2, etcd-1, … stand; null is NAME.internal."
  type        = string
  default     = null

  validation {
    condition     = var.private_domain == null ? true : can(regex("^([a-z0-9]([a-z0-9-]*[a-z0-9])?\\.)+[a-z]([a-z0-9-]*[a-z0-9])?$", var.private_domain))
    error_message = "private_domain is a domain of two parts or more, in lower case, such as varve.internal."
  }
}

# Who may connect

variable "client_cidrs" {
  description = "Where clients inside may be; null is the whole network."
  type        = list(string)
  default     = null

  validation {
    condition     = var.client_cidrs == null ? true : alltrue([for cidr in var.client_cidrs : can(cidrnetmask(cidr))])
    error_message = "client_cidrs are IPv4 ranges such as 10.0.0.0/8."
  }
  validation {
    condition     = var.client_cidrs == null ? true : alltrue([for cidr in var.client_cidrs : !endswith(cidr, "/0")])
    error_message = "client_cidrs are clients inside: give those on the internet external_access instead."
  }
}

variable "monitoring_cidrs" {
  description = "Where /metrics, /healthz and /readyz may be asked from, besides the load balancer: they have no login."
  type        = list(string)
  default     = []

  validation {
    condition     = alltrue([for cidr in var.monitoring_cidrs : can(cidrnetmask(cidr)) && !endswith(cidr, "/0")])
    error_message = "monitoring_cidrs are IPv4 ranges, and not the whole internet: the pages have no login."
  }
}

variable "external_access" {
  description = "A network load balancer for clients outside, with one port for each broker: who may connect, whether it is on the internet, the host name that clients use (null: the load balancer's own) and the Route 53 zone to enter it in (null: done elsewhere)."
  type = object({
    cidrs           = list(string)
    internet_facing = optional(bool, true)
    hostname        = optional(string)
    zone_id         = optional(string)
  })
  default = null

  validation {
    condition     = var.external_access == null ? true : length(var.external_access.cidrs) > 0 && alltrue([for cidr in var.external_access.cidrs : can(cidrnetmask(cidr))])
    error_message = "external_access.cidrs are the IPv4 ranges that may connect, one at least."
  }
  validation {
    condition     = var.external_access == null ? true : var.external_access.zone_id == null || var.external_access.hostname != null
    error_message = "external_access.zone_id needs a hostname to enter there."
  }
  validation {
    condition     = var.external_access == null || var.network == null ? true : !var.external_access.internet_facing || length(var.network.public_subnet_ids) == 3
    error_message = "a load balancer on the internet needs network.public_subnet_ids."
  }
}

variable "client_authentication" {
  description = "How clients say who they are, over TLS in any case: scram (SCRAM-SHA-512, users managed by kafka-configs.sh, the first one is admin) or mtls (certificates of the cluster's authority)."
  type        = string
  default     = "scram"

  validation {
    condition     = contains(["scram", "mtls"], var.client_authentication)
    error_message = "client_authentication is scram or mtls."
  }
}

variable "super_users" {
  description = "Principals that may do everything besides the brokers and User:admin (mtls: User:CN=admin)."
  type        = list(string)
  default     = []

  validation {
    condition     = alltrue([for user in var.super_users : startswith(user, "User:") && !strcontains(user, ";")])
    error_message = "super_users are principals such as User:alice."
  }
}

variable "key_name" {
  description = "An EC2 key pair for SSH; null has none."
  type        = string
  default     = null
}

variable "admin_cidrs" {
  description = "Where SSH may come from; needs key_name."
  type        = list(string)
  default     = []

  validation {
    condition     = alltrue([for cidr in var.admin_cidrs : can(cidrnetmask(cidr)) && !endswith(cidr, "/0")])
    error_message = "admin_cidrs are IPv4 ranges, and not the whole internet."
  }
  validation {
    condition     = length(var.admin_cidrs) == 0 || var.key_name != null
    error_message = "admin_cidrs without key_name open a port that nobody can use."
  }
}

# How large it is

variable "size" {
  description = "small, medium or large: instance types and volumes (README.md lists them with what they cost). Each part may be set on its own below."
  type        = string
  default     = "small"

  validation {
    condition     = contains(["small", "medium", "large"], var.size)
    error_message = "size is small, medium or large."
  }
}

variable "brokers_per_zone" {
  description = "Brokers in each of the three zones. More may be added later; fewer only after those with the highest numbers were drained and their instances ended (README.md)."
  type        = number
  default     = 1

  validation {
    condition     = var.brokers_per_zone >= 1 && var.brokers_per_zone <= 15 && floor(var.brokers_per_zone) == var.brokers_per_zone
    error_message = "brokers_per_zone is between 1 and 15: a load balancer has 50 listeners."
  }
}

variable "architecture" {
  description = "arm64 (Graviton) or x86_64: of the instances, of the image and of varve_binary."
  type        = string
  default     = "arm64"

  validation {
    condition     = contains(["arm64", "x86_64"], var.architecture)
    error_message = "architecture is arm64 or x86_64."
  }
}

variable "broker_instance_type" {
  description = "Another instance type than the size has, of the same architecture."
  type        = string
  default     = null
}

variable "etcd_instance_type" {
  description = "Another instance type than the size has, of the same architecture."
  type        = string
  default     = null
}

variable "data_volume" {
  description = "Another gp3 volume for each broker than the size has, in GiB, operations and MiB per second. It holds what is not archived yet and what local.retention keeps: volumes grow at any time, and never shrink."
  type = object({
    gib        = number
    iops       = optional(number, 3000)
    throughput = optional(number, 125)
  })
  default = null

  validation {
    condition     = var.data_volume == null ? true : var.data_volume.gib >= 10 && var.data_volume.gib <= 16384
    error_message = "data_volume.gib is between 10 and 16384."
  }
  validation {
    condition     = var.data_volume == null ? true : var.data_volume.iops >= 3000 && var.data_volume.iops <= 16000 && var.data_volume.throughput >= 125 && var.data_volume.throughput <= 1000
    error_message = "data_volume.iops is between 3000 and 16000 and throughput between 125 and 1000: what gp3 has."
  }
  validation {
    condition     = var.data_volume == null ? true : var.data_volume.throughput * 4 <= var.data_volume.iops
    error_message = "gp3 moves at most a quarter MiB/s for each operation per second: raise data_volume.iops or lower throughput."
  }
}

# What runs on it

variable "varve_binary" {
  description = "The varve binary for Linux and this architecture: https:// or s3:// URL, and SHA-256 in hexadecimal. Instances install it when they start, and refuse another one."
  type = object({
    url    = string
    sha256 = string
  })

  validation {
    condition     = can(regex("^(https|s3)://[^/]+/.+$", var.varve_binary.url))
    error_message = "varve_binary.url is an https:// or s3:// URL."
  }
  validation {
    condition     = can(regex("^[0-9a-f]{64}$", var.varve_binary.sha256))
    error_message = "varve_binary.sha256 is 64 lower-case hexadecimal digits, as sha256sum prints them."
  }
}

variable "ami_id" {
  description = "An image with Debian 12 or later for this architecture; null is Debian's newest. Pin it in production, so that all instances are alike."
  type        = string
  default     = null

  validation {
    condition     = var.ami_id == null ? true : can(regex("^ami-[0-9a-f]{8,17}$", var.ami_id))
    error_message = "ami_id looks like ami-0123456789abcdef0."
  }
}

variable "settings" {
  description = "Further settings of the brokers, by their names in docs/configuration.md. What the module itself sets for the topology is refused."
  type        = map(string)
  default     = {}

  validation {
    condition = alltrue([for setting, _ in var.settings : !anytrue([
      contains(["node.id", "broker.id", "broker.rack", "listeners", "advertised.listeners", "listener.security.protocol.map",
        "inter.broker.listener.name", "security.inter.broker.protocol", "log.dir", "log.dirs", "varve.data.dir", "varve.http.listener",
      "authorizer.class.name", "super.users", "varve.first.users", "varve.roles"], setting),
      startswith(setting, "varve.metadata."),
      setting == "varve.object.store.url",
      startswith(setting, "ssl.keystore."), startswith(setting, "ssl.truststore."), startswith(setting, "listener.name.internal."),
      setting == "ssl.allow.san.changes",
    ])])
    error_message = "settings may not change what the module decides: ids, racks, listeners, directories, etcd, bucket, key stores, authorizer. There are variables for those that can be chosen."
  }
  validation {
    condition = !contains(keys(var.settings), "sasl.enabled.mechanisms") ? true : (
      var.client_authentication == "scram" && contains(split(",", replace(var.settings["sasl.enabled.mechanisms"], " ", "")), "SCRAM-SHA-512")
    )
    error_message = "settings: sasl.enabled.mechanisms has SCRAM-SHA-512 among others, by which the first user logs in; with client_authentication = mtls nobody logs in by any."
  }
  validation {
    condition     = var.client_authentication != "mtls" || alltrue([for setting, _ in var.settings : !can(regex("^listener\\.name\\.(client|external)\\.ssl\\.client\\.auth$", setting))])
    error_message = "settings: with client_authentication = mtls the listeners of clients ask for certificates; ssl.client.auth of one may not be changed."
  }
  validation {
    condition     = alltrue([for setting, value in var.settings : can(regex("^[a-z0-9._-]+$", setting)) && !can(regex("[\\r\\n@]", value))])
    error_message = "settings are name = value, each on one line and without @."
  }
  validation {
    condition     = alltrue([for setting, _ in var.settings : !can(regex("(password|secret|secret\\.key|master\\.key|jaas\\.config|keystore\\.key)$", setting))])
    error_message = "settings stand in the clear in user data and in Terraform's state: name those that are passwords and keys in secret_settings."
  }
}

variable "secret_settings" {
  description = "Names of settings whose values are secrets, such as delegation.token.secret.key. Each has a secret, NAME/settings/SETTING, whose value is put there by whoever runs the cluster; brokers wait for it."
  type        = set(string)
  default     = []

  validation {
    condition = alltrue([for setting in var.secret_settings :
      can(regex("^[a-z0-9._-]*(password|secret|secret\\.key|master\\.key|jaas\\.config|keystore\\.key)$", setting)) &&
      !can(regex("^(varve\\.metadata|ssl\\.keystore|ssl\\.truststore|listener\\.name\\.internal)\\.", setting))
    ])
    error_message = "secret_settings are names of settings that are passwords and keys, but for those of etcd, key stores and the listener between brokers, which the module decides. Others are settings."
  }
}

# The bucket

variable "bucket_name" {
  description = "The bucket's name; null is NAME-archive-ACCOUNT-REGION."
  type        = string
  default     = null

  validation {
    condition     = var.bucket_name == null ? true : can(regex("^[a-z0-9][a-z0-9-]{1,61}[a-z0-9]$", var.bucket_name))
    error_message = "bucket_name has 3 to 63 lower-case letters, digits and hyphens; dots do not go with TLS."
  }
}

variable "archive_prefix" {
  description = "Where in the bucket the archive is."
  type        = string
  default     = "varve"

  validation {
    condition     = can(regex("^[A-Za-z0-9][A-Za-z0-9_-]*(/[A-Za-z0-9][A-Za-z0-9_-]*)*$", var.archive_prefix)) && !can(regex("^etcd-(backups|members)(/|$)", var.archive_prefix))
    error_message = "archive_prefix is a path of letters, digits, - and _, without a slash at its ends, and not in etcd-backups or etcd-members."
  }
}

variable "noncurrent_days" {
  description = "Days for which what was deleted in the bucket can be brought back. Retention deletes for good only after them."
  type        = number
  default     = 7

  validation {
    condition     = var.noncurrent_days >= 1 && floor(var.noncurrent_days) == var.noncurrent_days
    error_message = "noncurrent_days is a whole number of at least 1."
  }
}

variable "intelligent_tiering_days" {
  description = "Days after which objects of the archive move to S3 Intelligent-Tiering; null leaves them in S3 Standard."
  type        = number
  default     = null

  validation {
    condition     = var.intelligent_tiering_days == null ? true : var.intelligent_tiering_days >= 0
    error_message = "intelligent_tiering_days is at least 0."
  }
}

variable "etcd_backup_days" {
  description = "Days for which hourly backups of etcd are kept."
  type        = number
  default     = 14

  validation {
    condition     = var.etcd_backup_days >= 1 && floor(var.etcd_backup_days) == var.etcd_backup_days
    error_message = "etcd_backup_days is a whole number of at least 1."
  }
}

variable "bucket_requires_tls" {
  description = "Whether the bucket refuses requests without TLS. Only for emulators, which speak plain HTTP, is it false."
  type        = bool
  default     = true
}

variable "kms_key_arn" {
  description = "A KMS key for bucket, volumes and secrets; null makes one. Its policy must let the account's IAM policies grant its use."
  type        = string
  default     = null

  validation {
    condition     = var.kms_key_arn == null ? true : can(regex("^arn:[a-z-]+:kms:[a-z0-9-]+:[0-9]{12}:key/.+$", var.kms_key_arn))
    error_message = "kms_key_arn is the ARN of a key, not of an alias."
  }
}

# Care

variable "deletion_protection" {
  description = "While true, `terraform destroy` refuses a bucket with objects and the load balancer, takes a last snapshot of each volume, and keeps key and secrets for 30 days."
  type        = bool
  default     = true
}

variable "alarm_actions" {
  description = "ARNs that are told when an alarm goes off and when it is over, such as an SNS topic. One that is encrypted needs a key of its own whose policy lets cloudwatch.amazonaws.com use it: alarms do not reach a topic with alias/aws/sns."
  type        = list(string)
  default     = []

  validation {
    condition     = alltrue([for action in var.alarm_actions : startswith(action, "arn:")])
    error_message = "alarm_actions are ARNs."
  }
}

variable "permissions_boundary" {
  description = "ARN of a permissions boundary for the roles, where the account asks for one."
  type        = string
  default     = null
}
