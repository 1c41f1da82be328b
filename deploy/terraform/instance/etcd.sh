#!/usr/bin/env bash
# An instance of etcd: volume, certificates, name and flags, in this order, before etcd starts.
# shellcheck source-path=SCRIPTDIR source=instance.sh
. "${LIB:-/usr/local/lib/varve}/instance.sh"

data=${DATA:-/var/lib/varve-etcd}
stamps=${STAMPS:-/var/lib/varve-backup}
export ETCDCTL_API=3

ctl() {
    local endpoints=$1
    shift
    etcdctl --endpoints "$endpoints" --cacert "$etc/tls/ca.pem" --cert "$etc/tls/node.pem" --key "$etc/tls/node.pem" \
        --command-timeout 10s "$@"
}

url() { echo "https://$1.$DOMAIN:$2"; }

# Clients' addresses of all members but $1.
others() {
    local member all=''
    for member in $ETCD_MEMBERS; do
        [ "$member" = "$1" ] || all+="${all:+,}$(url "$member" 2379)"
    done
    echo "$all"
}

# The line of member $1 in what the others list: id, status, name, peers, clients, …; a member that never started has no
# name. Fails if they do not answer, as for a second or two after their leader was lost.
listed() {
    local members
    members=$(ctl "$(others "$1")" member list) || return 1
    grep --fixed-strings "$(url "$1" 2380)" <<<"$members" || true
}

has_started() { [ -n "$(cut --delimiter , --fields 3 <<<"$1" | tr -d ' ')" ]; }

# Member $1 leaves and joins as somebody new. May be tried again: an answer that was lost does not say what was done.
join_as_new() {
    local line
    line=$(listed "$1") || return 1
    if [ -n "$line" ]; then
        has_started "$line" || return 0
        ctl "$(others "$1")" member remove "${line%%,*}" >&2 || return 1
    fi
    ctl "$(others "$1")" member add "$1" --peer-urls "$(url "$1" 2380)" >&2
}

# new or existing: what etcd must be told about a member without data. A member that has lost its data may not come back as
# who it was: it has promised the others things that it no longer knows. It leaves, and joins as somebody new.
cluster_state() {
    local name=$1 line tries=0
    if [ -d "$data/member" ]; then
        echo existing # etcd goes by its data
        return
    fi
    if [ ! -e "$data/joining" ]; then
        until line=$(listed "$name" 2>/dev/null); do
            tries=$((tries + 1))
            # Asked for their state, members answer without a leader too, once they have ever had one.
            if [ -z "$(ctl "$(others "$name")" endpoint status 2>/dev/null)" ]; then
                echo new # nobody is there yet: the first start of all
                return
            fi
            if [ "$tries" -ge 15 ]; then return 1; fi
            sleep 2
        done
        if [ -n "$line" ] && ! has_started "$line"; then
            echo new # the others were faster
            return
        fi
        say "$name has lost its data: it joins as a new member"
        touch "$data/joining"
    fi
    tries=0
    # Those that stay refuse a change until they have been connected with each other for some seconds, and forget what they
    # are asked while they still take a member that is gone for their leader.
    until join_as_new "$name"; do
        tries=$((tries + 1))
        if [ "$tries" -ge 15 ]; then return 1; fi
        sleep 2
    done
    echo existing
}

# The flags of member $1, as its unit reads them.
render_environment() {
    local name=$1 state=$2 member all=''
    for member in $ETCD_MEMBERS; do
        all+="${all:+,}$member=$(url "$member" 2380)"
    done
    cat <<END
ETCD_NAME=$name
ETCD_INITIAL_CLUSTER=$all
ETCD_INITIAL_CLUSTER_STATE=$state
ETCD_INITIAL_CLUSTER_TOKEN=$CLUSTER
ETCD_INITIAL_ADVERTISE_PEER_URLS=$(url "$name" 2380)
ETCD_LISTEN_PEER_URLS=https://0.0.0.0:2380
ETCD_LISTEN_CLIENT_URLS=https://0.0.0.0:2379
ETCD_ADVERTISE_CLIENT_URLS=$(url "$name" 2379)
ETCD_LISTEN_METRICS_URLS=http://127.0.0.1:2381
ETCD_CERT_FILE=$etc/tls/node.pem
ETCD_KEY_FILE=$etc/tls/node.pem
ETCD_TRUSTED_CA_FILE=$etc/tls/ca.pem
ETCD_CLIENT_CERT_AUTH=true
ETCD_PEER_CERT_FILE=$etc/tls/node.pem
ETCD_PEER_KEY_FILE=$etc/tls/node.pem
ETCD_PEER_TRUSTED_CA_FILE=$etc/tls/ca.pem
ETCD_PEER_CLIENT_CERT_AUTH=true
END
}

prepare() {
    local volume number name state
    read -r volume number < <(claim_volume)
    name=etcd-$number
    mount_data "$volume" "$data"
    chown etcd:etcd "$data"
    refresh_tls etcd
    publish_name "$name"
    state=$(cluster_state "$name")
    render_environment "$name" "$state" | replace "$etc/etcd.environment" etcd
    echo "$number" >"$etc/number"
}

secrets() { refresh_tls etcd; }

# A snapshot of this member goes to the bucket, under the time of day.
backup() {
    local name file
    name=etcd-$(cat "$etc/number")
    file=$(mktemp --directory)/snapshot.db
    ctl "$(url "$name" 2379)" snapshot save "$file" >&2
    ctl "$(url "$name" 2379)" snapshot status "$file" >&2
    aws s3 cp --only-show-errors "$file" "s3://$BUCKET/etcd-backups/$CLUSTER/$name/$(date --utc +%FT%H%M%SZ).db"
    rm -r "${file%/*}"
    mkdir -p "$stamps"
    touch "$stamps/last"
}

metrics() {
    local name ready=0 age=()
    name=etcd-$(cat "$etc/number")
    if ctl "$(url "$name" 2379)" endpoint health >&2; then ready=1; fi
    if [ -e "$stamps/last" ]; then
        age=("BackupAgeSeconds=$(($(date +%s) - $(stat --format %Y "$stamps/last")))")
    fi
    # Started: from here on it goes by its data.
    if [ -d "$data/member" ]; then rm -f "$data/joining"; fi
    send_metrics "$name" "Ready=$ready" "DataVolumeUsedPercent=$(used_percent "$data")" "${age[@]}"
}

# Sourced by tests, run by systemd.
if [ "${BASH_SOURCE[0]}" = "$0" ]; then run "$@"; fi
