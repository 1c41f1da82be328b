# shellcheck shell=bash
# What brokers and members of etcd have in common. Debian's awscli asks AWS with the instance's role.
set -euo pipefail

etc=${ETC:-/etc/varve}
imds=${AWS_EC2_METADATA_SERVICE_ENDPOINT:-http://169.254.169.254}
# shellcheck source=/dev/null
. "$etc/instance.env"
export AWS_DEFAULT_REGION

say() { echo "varve-instance: $*" >&2; }

# Temporary files of this command lie in one folder, which goes with it however it ends: what is tried again every 15 seconds
# must not fill the disk.
scratch=$(mktemp --directory)
trap 'rm -rf "$scratch"' EXIT

# Debian's packages that are missing. Here and not in cloud-init, which tries once: an instance may be there before its way out is.
install_packages() {
    local package missing=()
    for package in $PACKAGES; do
        [ "$(dpkg-query --show --showformat '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || missing+=("$package")
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    say "installing ${missing[*]}"
    apt-get update --quiet >&2
    DEBIAN_FRONTEND=noninteractive apt-get install --yes --quiet --no-install-recommends "${missing[@]}" >&2
}

# What EC2 says about this instance (IMDSv2).
metadata() {
    local token
    token=$(curl --silent --show-error --fail --max-time 5 --request PUT \
        --header 'X-aws-ec2-metadata-token-ttl-seconds: 60' "${imds%/}/latest/api/token")
    curl --silent --show-error --fail --max-time 5 --header "X-aws-ec2-metadata-token: $token" \
        "${imds%/}/latest/meta-data/$1"
}

# This role's volumes that the filters let through, lowest number first: id and number, a line each.
volumes() {
    aws ec2 describe-volumes --output text \
        --filters "Name=tag:varve:cluster,Values=$CLUSTER" "Name=tag:varve:role,Values=$ROLE" "$@" \
        --query "Volumes[].[VolumeId, Tags[?Key=='varve:number'] | [0].Value]" | sort --numeric-sort --key 2
}

# The volume that this instance holds; if it holds none, one that nobody holds in its zone. EC2 attaches a volume to one
# instance only, so of two that try the same one the second goes on to the next.
claim_volume() {
    local instance zone held volume number
    instance=$(metadata instance-id)
    zone=$(metadata placement/availability-zone)
    for _ in $(seq "${CLAIM_TRIES:-120}"); do
        held=$(volumes "Name=attachment.instance-id,Values=$instance" | head -n 1)
        if [ -n "$held" ]; then
            echo "$held"
            return
        fi
        while read -r volume number; do
            say "taking volume $volume, $ROLE $number"
            if aws ec2 attach-volume --volume-id "$volume" --instance-id "$instance" --device /dev/sdf >&2; then
                continue 2
            fi
        done < <(volumes Name=status,Values=available "Name=availability-zone,Values=$zone")
        say "no volume is free in $zone: waiting for the instance before this one to let go"
        sleep 5
    done
    say "no volume of $CLUSTER for a $ROLE came free in $zone"
    return 1
}

# Mounts a volume at a directory, with a file system if it has none yet. mkfs refuses a volume that has one.
mount_data() {
    local device=/dev/disk/by-id/nvme-Amazon_Elastic_Block_Store_${1/-/} directory=$2
    for _ in $(seq 60); do
        [ -e "$device" ] && break
        sleep 1
    done
    blkid "$device" >/dev/null || mkfs.xfs -q "$device"
    mkdir -p "$directory"
    mountpoint --quiet "$directory" || mount -o noatime,nodev,nosuid,noexec "$device" "$directory"
    xfs_growfs "$directory" >/dev/null
}

# Enters this instance's address under a name in the cluster's private zone.
publish_name() {
    local address
    address=$(metadata local-ipv4)
    say "$1.$DOMAIN is $address"
    aws route53 change-resource-record-sets --hosted-zone-id "$DNS_ZONE" --change-batch "{\"Changes\": [{
        \"Action\": \"UPSERT\", \"ResourceRecordSet\": {\"Name\": \"$1.$DOMAIN\", \"Type\": \"A\", \"TTL\": 15,
        \"ResourceRecords\": [{\"Value\": \"$address\"}]}}]}" >/dev/null
}

# Prints a secret; fails while it is empty.
secret() {
    aws secretsmanager get-secret-value --secret-id "$SECRETS/$1" --query SecretString --output text
}

# Writes standard input to a file that the group may read, in one step, unless it has these contents already.
replace() {
    local path=$1 group=$2 fresh
    fresh=$(mktemp "$path.XXXXXX")
    cat >"$fresh"
    chmod 0640 "$fresh"
    chgrp "$group" "$fresh"
    if cmp --silent "$fresh" "$path"; then rm "$fresh"; else mv "$fresh" "$path"; fi
}

# Certificates, as they are now: varve and etcd read files that change without a restart.
refresh_tls() {
    local group=$1 ca node
    ca=$(secret tls/ca)
    node=$(secret "tls/$ROLE")
    mkdir -p "$etc/tls"
    replace "$etc/tls/ca.pem" "$group" <<<"$ca"
    replace "$etc/tls/node.pem" "$group" <<<"$node"
}

# Whether the certificate is good for this name. Whoever joined before it is would be refused by all clients and by the others,
# so a broker that was added waits until fill-secrets.sh has named it.
certificate_is_for() {
    if openssl x509 -noout -checkhost "$1" -in "$etc/tls/node.pem" | grep --quiet 'does match'; then return; fi
    say "the certificate does not name $1 yet: fill-secrets.sh, run again, makes one that does"
    return 1
}

# When the certificate in a file ends, in seconds since 1970.
certificate_end() {
    local end
    end=$(openssl x509 -noout -enddate -in "$1") || return 1
    date --date "${end#*=}" +%s
}

# Whole days from now until a time in seconds since 1970.
days_until() { echo $((($1 - $(date +%s)) / 86400)); }

# Sends numbers to CloudWatch: the node's name, then NAME=VALUE …; cluster:NAME=VALUE is the whole cluster's, to which each
# node says what it sees.
send_metrics() {
    local node=$1 entry dimensions data='' timestamp
    timestamp=$(date --utc +%FT%TZ)
    shift
    for entry in "$@"; do
        dimensions="{\"Name\": \"Cluster\", \"Value\": \"$CLUSTER\"}"
        if [ "$entry" = "${entry#cluster:}" ]; then dimensions+=", {\"Name\": \"Node\", \"Value\": \"$node\"}"; fi
        entry=${entry#cluster:}
        data+="${data:+, }{\"MetricName\": \"${entry%%=*}\", \"Value\": ${entry#*=}, \"Timestamp\": \"$timestamp\",
            \"Dimensions\": [$dimensions]}"
    done
    aws cloudwatch put-metric-data --namespace Varve --metric-data "[$data]"
}

# What the first number on a page of metrics is in percent of the second; nothing where either is missing, or the second is 0.
percent_of() {
    awk -v part="$1" -v whole="$2" '$1 == part { used = $2 } $1 == whole { all = $2 }
        END { if (used != "" && all > 0) printf "%.1f", 100 * used / all }'
}

used_percent() { df --output=pcent "$1" | tail -n 1 | tr -d ' %'; }

# A command of the systemd units. `boot` is `prepare` until that succeeds: certificates may come later than instances.
run() {
    case ${1:-} in
    boot)
        until "$0" prepare; do
            say "trying again in 15 seconds"
            sleep 15
        done
        ;;
    prepare | secrets | metrics | backup) "$@" ;;
    *)
        say "usage: $0 boot|prepare|secrets|metrics|backup"
        return 2
        ;;
    esac
}
