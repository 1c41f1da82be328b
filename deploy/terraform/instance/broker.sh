#!/usr/bin/env bash
# A broker's instance: binary, volume, certificates, settings and name, in this order, before varve starts.
# shellcheck source-path=SCRIPTDIR source=instance.sh
. "${LIB:-/usr/local/lib/varve}/instance.sh"

data=${DATA:-/var/lib/varve}
binary=${BINARY:-/usr/bin/varve}

# Installs the binary that the cluster is to run; whatever else is at its URL is refused.
install_binary() {
    local fresh=$scratch/varve
    if echo "$VARVE_SHA256  $binary" | sha256sum --check --status 2>/dev/null; then return; fi
    case $VARVE_URL in
    s3://*) aws s3 cp --only-show-errors "$VARVE_URL" "$fresh" ;;
    *) curl --silent --show-error --fail --location --output "$fresh" "$VARVE_URL" ;;
    esac
    if ! echo "$VARVE_SHA256  $fresh" | sha256sum --check --status; then
        say "$VARVE_URL does not have the SHA-256 $VARVE_SHA256"
        return 1
    fi
    install --mode 0755 "$fresh" "$binary"
}

# The settings of broker $1 in zone $2.
render_properties() {
    sed --expression "s/@NODE_ID@/$1/g" --expression "s/@RACK@/$2/g" \
        --expression "s/@EXTERNAL_PORT@/$((${EXTERNAL_PORTS:-0} + $1))/g" "$etc/server.properties.in"
}

# Settings whose values are secrets, a line each.
secret_settings() {
    local setting value
    for setting in $SECRET_SETTINGS; do
        value=$(secret "settings/$setting") || return 1
        if [ "$(wc --lines <<<"$value")" != 1 ]; then
            say "the secret of $setting has more than one line"
            return 1
        fi
        echo "$setting=$value"
    done
}

# The first user's password, for varve alone.
write_environment() {
    local password
    [ -n "$WITH_SCRAM" ] || return 0
    password=$(secret admin-password)
    (umask 077 && echo "VARVE_FIRST_USERS=SCRAM-SHA-512=[name=admin,password=$password]" >"$etc/environment")
}

# The load balancer's port of this broker leads here from now on.
register_target() {
    local target id
    id=$(metadata instance-id)
    for target in $EXTERNAL_TARGETS; do
        if [ "${target%%=*}" = "$1" ]; then
            aws elbv2 register-targets --target-group-arn "${target#*=}" --targets "Id=$id"
        fi
    done
}

prepare() {
    local volume number zone secrets
    install_packages
    install_binary
    read -r volume number < <(claim_volume)
    zone=$(metadata placement/availability-zone)
    mount_data "$volume" "$data"
    chown varve:varve "$data"
    refresh_tls varve
    certificate_is_for "broker-$number.$DOMAIN"
    write_environment
    secrets=$(secret_settings)
    { render_properties "$number" "$zone" && echo "$secrets"; } | replace "$etc/server.properties" varve
    "$binary" config check "$etc/server.properties"
    publish_name "broker-$number"
    register_target "$number"
    echo "$number" >"$etc/number"
}

secrets() { refresh_tls varve; }

# The sum of a metric over all its labels.
sum_of() { awk -v name="$1" '$1 == name || index($1, name "{") == 1 { sum += $NF } END { print sum + 0 }'; }

# Days until the first of the certificates ends that the broker has: those that its listeners show, as its page $1 says, since a
# renewed file may have been refused, and the one that it shows to etcd.
certificate_days() {
    local started least
    started=$(certificate_end "$etc/tls/started.pem") || return 1
    least=$(awk -v name=varve_certificate_not_after_timestamp_seconds -v least="$started" \
        'index($1, name "{") == 1 && $NF < least { least = $NF } END { printf "%.0f", least }' <<<"$1")
    days_until "$least"
}

metrics() {
    local page node days hot ready=0 http=${HTTP:-http://127.0.0.1:9404}
    node=broker-$(cat "$etc/number")
    curl --silent --fail --max-time 5 --output /dev/null "$http/readyz" && ready=1
    page=$(curl --silent --fail --max-time 5 "$http/metrics" || true)
    if [ -z "$page" ]; then
        send_metrics "$node" "Ready=$ready" "DataVolumeUsedPercent=$(used_percent "$data")"
        return
    fi
    days=$(certificate_days "$page")
    # Nothing where varve.local.max.bytes is not set.
    hot=$(percent_of varve_hot_bytes varve_hot_limit_bytes <<<"$page")
    send_metrics "$node" "Ready=$ready" "DataVolumeUsedPercent=$(used_percent "$data")" "CertificateDays=$days" \
        ${hot:+"HotUsedPercent=$hot"} \
        "UnderReplicatedPartitions=$(sum_of varve_under_replicated_partitions <<<"$page")" \
        "OfflinePartitions=$(sum_of varve_offline_partitions <<<"$page")" \
        "ArchiveLagSeconds=$(sum_of varve_archive_lag_seconds <<<"$page")" \
        "EtcdSilenceSeconds=$(sum_of varve_metadata_silence_seconds <<<"$page")" \
        "cluster:Controllers=$(sum_of varve_controller <<<"$page")" \
        "cluster:LeaderlessPartitions=$(sum_of varve_leaderless_partitions <<<"$page")" \
        "cluster:UnderMinIsrPartitions=$(sum_of varve_under_min_isr_partitions <<<"$page")"
}

# Sourced by tests, run by systemd.
if [ "${BASH_SOURCE[0]}" = "$0" ]; then run "$@"; fi
