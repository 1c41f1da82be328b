#!/usr/bin/env bash
# An instance of etcd: volume, certificates, name and flags, in this order, before etcd starts.
# shellcheck source-path=SCRIPTDIR source=instance.sh
. "${LIB:-/usr/local/lib/varve}/instance.sh"

data=${DATA:-/var/lib/varve-etcd}
stamps=${STAMPS:-/var/lib/varve-backup}
http=${HTTP:-http://127.0.0.1:2381}
# What `marks` said before this start decided anything.
found=''
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

# The line of member $1 in what the others list: id, status, name, peers, clients, …. Fails if they do not answer, as for a
# second or two after their leader was lost, and as long as they are too few.
listed() {
    local members
    members=$(ctl "$(others "$1")" member list) || return 1
    grep --fixed-strings "$(url "$1" 2380)" <<<"$members" || true
}

field() { cut --delimiter , --fields "$1" <<<"$2" | tr -d ' '; }

# What on the volume says how etcd is to start: data, or that a first start is meant. Whoever restores etcd or starts it anew
# puts it there by hand (docs/operations/lose-etcd.md), maybe while this member still waits for the others.
marks() {
    local mark
    for mark in member first-start; do
        [ ! -e "$data/$mark" ] || echo "$mark"
    done
}

# Whether the volume still says what this start went by. Once this member was restored the others are those of the backup, to
# whom it belongs: it would leave them, join as somebody new, and then start on the data of who has left.
is_as_found() { [ "$(marks)" = "$found" ]; }

# A change that the others make for member $1, unless it was restored since they were asked who is there.
change() {
    local name=$1
    shift
    is_as_found || return 1
    ctl "$(others "$name")" member "$@" >&2
}

# Tries a step until it is done, 15 times unless told otherwise, and no longer once this member was restored. Members refuse a
# change until they have been connected with each other for some seconds, and forget what they are asked while they still take
# one that is gone for their leader.
insist() {
    local tries=0
    while is_as_found; do
        if "$@"; then return 0; fi
        tries=$((tries + 1))
        if [ "$tries" -ge "${JOIN_TRIES:-15}" ]; then
            say "the others do not agree to a change: it takes two of them, and their leader (docs/operations/lose-etcd.md)"
            return 1
        fi
        sleep 2
    done
    say "$data is not as it was: nobody is asked for a change, and this begins anew"
    return 1
}

# Whoever member $1 was leaves.
leave() {
    local line
    line=$(listed "$1") || return 1
    [ -z "$line" ] || change "$1" remove "${line%%,*}"
}

# Member $1 joins as somebody new. May be tried again: an answer that was lost does not say what was done. Who was only added
# has no name yet.
join() {
    local line
    line=$(listed "$1") || return 1
    if [ -n "$line" ]; then
        [ -n "$(field 3 "$line")" ] || return 0
        change "$1" remove "${line%%,*}" || return 1
    fi
    change "$1" add "$1" --peer-urls "$(url "$1" 2380)"
}

# Notes in the bucket that member $1 has a volume to run on, which outlives the volume. This role cannot take it back.
note_first_start() {
    aws s3api put-object --bucket "$BUCKET" --key "etcd-members/$CLUSTER/$1/first-start" >/dev/null
}

# Whether member $1 has ever run, by what the bucket has of it: that note or, in a cluster older than the note, backups.
has_run() {
    local prefix count
    for prefix in "etcd-members/$CLUSTER/$1/" "etcd-backups/$CLUSTER/$1/"; do
        count=$(aws s3api list-objects-v2 --bucket "$BUCKET" --prefix "$prefix" --no-paginate --max-keys 1 \
            --query KeyCount --output text) || return 1
        if [ "$count" != 0 ]; then
            echo yes
            return
        fi
    done
    echo no
}

# first or lost: why member $1 has no data. What the others are up to cannot tell: two that have just restarted serve nobody
# until they have a leader, as before the first start of all. So what says "first" outlives every volume and every member.
why_empty() {
    local line ran
    # Members have told each other where clients find them, once they have run.
    if line=$(listed "$1" 2>/dev/null) && [ -n "$(field 5 "$line")" ]; then
        echo lost
        return
    fi
    ran=$(has_run "$1") || {
        say "the bucket does not say whether $1 has run before"
        return 1
    }
    # This volume was about to be the first one when its instance ended.
    if [ "$ran" = no ] || [ -e "$data/first-start" ]; then echo first; else echo lost; fi
}

# new or existing: what etcd must be told about a member without data. A member that has lost its data may not come back as
# who it was: it has promised the others things that it no longer knows, and with one of them it would be a majority that
# does not know them either. It leaves, and joins as somebody new, which takes the other two.
cluster_state() {
    local name=$1 why
    found=$(marks)
    if [ -d "$data/member" ]; then
        # A cluster may be older than the note; that the bucket is away is no reason to stay away.
        note_first_start "$name" || say "the bucket does not take the note that $name runs"
        echo existing # etcd goes by its data
        return
    fi
    if [ ! -e "$data/joining" ]; then
        why=$(why_empty "$name") || return 1
        if [ "$why" = first ]; then
            touch "$data/first-start"
            sync "$data/first-start" "$data"
            note_first_start "$name" || return 1
            echo new
            return
        fi
        say "$name has lost its data: it joins as a new member"
        insist leave "$name" || return 1
        touch "$data/joining"
    fi
    insist join "$name" || return 1
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
    install_packages
    read -r volume number < <(claim_volume)
    name=etcd-$number
    mount_data "$volume" "$data"
    chown etcd:etcd "$data"
    refresh_tls etcd
    certificate_is_for "$name.$DOMAIN"
    publish_name "$name"
    state=$(cluster_state "$name")
    render_environment "$name" "$state" | replace "$etc/etcd.environment" etcd
    echo "$number" >"$etc/number"
}

secrets() { refresh_tls etcd; }

# A snapshot of this member goes to the bucket, under the time of day.
backup() {
    local name file=$scratch/snapshot.db
    name=etcd-$(cat "$etc/number")
    ctl "$(url "$name" 2379)" snapshot save "$file" >&2
    ctl "$(url "$name" 2379)" snapshot status "$file" >&2
    aws s3 cp --only-show-errors "$file" "s3://$BUCKET/etcd-backups/$CLUSTER/$name/$(date --utc +%FT%H%M%SZ).db"
    mkdir -p "$stamps"
    touch "$stamps/last"
}

metrics() {
    local name end page used alarms ready=0 age=()
    name=etcd-$(cat "$etc/number")
    end=$(certificate_end "$etc/tls/node.pem")
    # Healthy is who reads what a majority agrees on: a single one that is says that there is a majority.
    if ctl "$(url "$name" 2379)" endpoint health >&2; then ready=1; fi
    if [ -e "$stamps/last" ]; then
        age=("BackupAgeSeconds=$(($(date +%s) - $(stat --format %Y "$stamps/last")))")
    fi
    page=$(curl --silent --fail --max-time 5 "$http/metrics" || true)
    used=$(percent_of etcd_mvcc_db_total_size_in_bytes etcd_server_quota_backend_bytes <<<"$page")
    # However small it was made meanwhile: until somebody disarms the alarm etcd takes no writes.
    alarms=$(ctl "$(url "$name" 2379)" alarm list || true)
    case $alarms in *NOSPACE*) used=100 ;; esac
    # Started: from here on it goes by its data.
    if [ -d "$data/member" ]; then rm -f "$data/joining" "$data/first-start"; fi
    send_metrics "$name" "Ready=$ready" "cluster:EtcdMajority=$ready" "CertificateDays=$(days_until "$end")" \
        ${used:+"DatabaseUsedPercent=$used"} "${age[@]}"
}

# Sourced by tests, run by systemd.
if [ "${BASH_SOURCE[0]}" = "$0" ]; then run "$@"; fi
