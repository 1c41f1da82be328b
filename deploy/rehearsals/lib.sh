# What the rehearsals share: a cluster of three zones on loopback, a writer that counts what was acknowledged, and waiting.
# Sourced by them. Needs varve, etcd, etcdctl, kcat, curl, jq and Kafka's shell tools in PATH.
#
# PORTS names the ports to use, one after the other; without it they are taken from 21000 on. All of it lies in WORK, which is
# made if it is not given, and goes at the end.

set -euo pipefail

# Settings of the shell are no settings of the nodes.
for name in $(compgen -e VARVE_ || true); do unset "$name"; done

: "${WORK:=$(mktemp --directory)}"
mkdir -p "$WORK/bucket"
read -r -a ports <<<"${PORTS:-$(seq -s ' ' 21000 21039)}"

# Nothing outlives a rehearsal.
cleanup() {
    local ended=$? pid log
    if [ "$ended" -ne 0 ]; then
        # A word of etcd's many.
        for log in "$WORK"/*.log; do
            case $log in */etcd-*) tail -n 2 "$log" ;; *) printf '%s\n' "-- $log" && tail -n 20 "$log" ;; esac
        done >&2 || true
    fi
    # Children that were not waited for, and so no other processes of the same number. Each is the head of a group, with all that
    # it started.
    for pid in $(jobs -p); do kill -KILL -- "-$pid" "$pid" 2>/dev/null || true; done
    wait 2>/dev/null || true
    rm -rf "$WORK"
    exit "$ended"
}
trap cleanup EXIT

say() { echo "== $*"; }

# until_so WHAT COMMAND...: runs the command again and again until it succeeds, five minutes at most.
until_so() {
    local what=$1 deadline=$((SECONDS + 300))
    shift
    until "$@" >"$WORK/last" 2>&1; do
        [ "$SECONDS" -lt "$deadline" ] || { echo "not within five minutes: $what"; cat "$WORK/last"; exit 1; } >&2
        sleep 0.2
    done
}

# begin NAME COMMAND...: starts it in the background; its pid is in WORK/NAME.pid and its output in WORK/NAME.log.
begin() {
    local name=$1
    shift
    setsid "$@" >>"$WORK/$name.log" 2>&1 </dev/null &
    echo $! >"$WORK/$name.pid"
}

pid_of() { cat "$WORK/$1.pid"; }

# finish NAME: asks it to end, and waits until it has, with success.
finish() {
    local pid
    pid=$(pid_of "$1")
    kill -TERM "$pid"
    wait "$pid"
}

# fell NAME: ends it as a power switch would.
fell() {
    local pid
    pid=$(pid_of "$1")
    kill -KILL "$pid"
    wait "$pid" 2>/dev/null || true
}

# block PAGE LANGUAGE NUMBER: what stands in the block of that number, of that language, on a page of docs/operations.
block() {
    awk -v fence="\`\`\`$2" -v number="$3" '/^ *```/ { inside = $1 == fence && ++blocks == number; next } inside' \
        "$(dirname "${BASH_SOURCE[0]}")/../../docs/operations/$1.md"
}

# --- certificates; needs openssl -------------------------------------------------------------------------------------------

# authority NAME: whoever signs; its certificate is in NAME.pem.
authority() {
    openssl req -x509 -newkey rsa:2048 -nodes -days 30 -keyout "$WORK/$1.key" -out "$WORK/$1.pem" -subj "/CN=$1" 2>/dev/null
}

# sign AUTHORITY SERIAL SUBJECT FILE: a key and a certificate of that serial number for localhost, in one file.
sign() {
    openssl req -new -newkey rsa:2048 -nodes -keyout "$WORK/key.pem" -subj "/CN=$3" -out "$WORK/request.pem" 2>/dev/null
    openssl x509 -req -in "$WORK/request.pem" -CA "$WORK/$1.pem" -CAkey "$WORK/$1.key" -set_serial "$2" -days 30 \
        -extfile <(echo subjectAltName=DNS:localhost,IP:127.0.0.1) -out "$WORK/certificate.pem" 2>/dev/null
    cat "$WORK/key.pem" "$WORK/certificate.pem" >"$4"
}

# --- etcd: one member in each zone ---------------------------------------------------------------------------------------

etcd_clients=("http://127.0.0.1:${ports[0]}" "http://127.0.0.1:${ports[1]}" "http://127.0.0.1:${ports[2]}")
etcd_peers=("http://127.0.0.1:${ports[3]}" "http://127.0.0.1:${ports[4]}" "http://127.0.0.1:${ports[5]}")
members="m0=${etcd_peers[0]},m1=${etcd_peers[1]},m2=${etcd_peers[2]}"

# start_etcd NUMBER [ARGUMENT...]
start_etcd() {
    local number=$1
    shift
    begin "etcd-$number" etcd --name "m$number" --data-dir "$WORK/etcd-$number" --initial-cluster "$members" \
        --initial-cluster-token rehearsal --initial-advertise-peer-urls "${etcd_peers[$number]}" \
        --listen-peer-urls "${etcd_peers[$number]}" --listen-client-urls "${etcd_clients[$number]}" \
        --advertise-client-urls "${etcd_clients[$number]}" --auto-compaction-retention 1h "$@"
}

all_etcd=$(IFS=,; echo "${etcd_clients[*]}")
etcd_lives() { ETCDCTL_API=3 etcdctl --endpoints "$all_etcd" endpoint health; }
etcd_answers() { ETCDCTL_API=3 etcdctl --endpoints "$all_etcd" --command-timeout 2s get nothing; }

# --- brokers -------------------------------------------------------------------------------------------------------------

zones=(a b c)
: "${VARVE:=varve}"

kafka_at() { echo "127.0.0.1:${ports[$((10 + $1))]}"; }
http_at() { echo "127.0.0.1:${ports[$((20 + $1))]}"; }
bootstrap=$(kafka_at 0),$(kafka_at 1),$(kafka_at 2)

# broker_settings NUMBER: the properties of a broker.
broker_settings() {
    local without=${etcd_clients[*]#http://}
    cat <<SETTINGS
node.id=$1
broker.rack=${zones[$(($1 % 3))]}
listeners=PLAINTEXT://$(kafka_at "$1")
varve.http.listener=$(http_at "$1")
varve.data.dir=$WORK/broker-$1
varve.metadata.url=etcd://${without// /,}/varve
varve.object.store.url=file://$WORK/bucket
broker.session.timeout.ms=3000
default.replication.factor=3
min.insync.replicas=2
offsets.topic.num.partitions=3
transaction.state.log.num.partitions=3
varve.archive.lag.ms=1000
varve.compactor.interval.ms=500
log.retention.check.interval.ms=500
SETTINGS
}

# start_broker NUMBER [SETTING...]: starts it and does not wait.
start_broker() {
    local number=$1
    shift
    { broker_settings "$number"; printf '%s\n' "$@"; } >"$WORK/broker-$number.properties"
    begin "broker-$number" "$VARVE" --config "$WORK/broker-$number.properties"
}

ready() { varve health --ready --wait-seconds 300 --address "$(http_at "$1")" >/dev/null; }

# may_stop NUMBER...: waits until those brokers may be stopped at the same time.
may_stop() { varve broker check "$@" --bootstrap-server "$bootstrap" --wait-seconds 300; }

# caught_up NUMBER: waits until all its replicas were in sync since its start.
caught_up() { varve health --in-sync --wait-seconds 300 --address "$(http_at "$1")" >/dev/null; }

# value NUMBER METRIC: the sum of a metric's values on a broker.
value() {
    curl --silent --fail "http://$(http_at "$1")/metrics" |
        awk -v name="$2" '{ split($1, parts, "{") } parts[1] == name { sum += $NF } END { printf "%.0f\n", sum }'
}
# Whether it is that, or at least that.
equals() { [ "$(value "$1" "$2")" = "$3" ]; }
at_least() { [ "$(value "$1" "$2")" -ge "$3" ]; }

in_sync() {
    local number
    for number in "$@"; do
        [ "$(value "$number" varve_under_replicated_partitions)" = 0 ] &&
            [ "$(value "$number" 'varve_brokers')" -ge "$#" ] || return 1
    done
}

# all_in_sync NUMBER...: what has to hold before a broker may be taken away.
all_in_sync() { until_so "every partition of brokers $* is in sync" in_sync "$@"; }

start_cluster() {
    local number
    for number in 0 1 2; do start_etcd "$number"; done
    until_so "etcd answers" etcd_lives
    for number in 0 1 2; do start_broker "$number" "$@"; done
    for number in 0 1 2; do ready "$number"; done
    all_in_sync 0 1 2
}

# make_topic NAME [PARTITIONS]: as soon as there are enough brokers for it. One that nobody told of is not made twice.
make_topic() { until_so "the topic $1 is made" try_topic "$@"; }
try_topic() {
    kafka-topics.sh --bootstrap-server "$bootstrap" --create --if-not-exists --topic "$1" --partitions "${2:-6}"
}

# --- the ledger: a writer that goes on through everything, and the count afterwards ---------------------------------------

# begin_ledger TOPIC [LAST]: writes a number after the other, from LAST + 1 on, with acks=all, until end_ledger. What cannot be written yet is kept and
# tried again, for five minutes (kcat -E: that every broker was gone for a moment is no reason to end).
begin_ledger() {
    ledger=$1
    rm -f "$WORK/ledger.stop" "$WORK/ledger.last"
    # shellcheck disable=SC2016 # expanded by the inner shell
    begin ledger bash -c '
        number=$4
        while [ ! -e "$1/ledger.stop" ]; do number=$((number + 1)); echo "$number"; echo "$number" >"$1/ledger.last"; sleep 0.005; done |
            kcat -P -E -b "$2" -t "$3" -X acks=all -X enable.idempotence=true -X message.timeout.ms=300000 -X linger.ms=5' \
        ledger "$WORK" "$bootstrap" "$1" "${2:-0}"
    until_so "the ledger is begun" test -s "$WORK/ledger.last"
}

# goes_on: the writer gets on, which it does only while records are acknowledged. Its own queue holds what a moment holds up.
goes_on() {
    until_so "records are counted" note_count
    until_so "more records are committed" more_than "$(cat "$WORK/count")"
}

read_ledger() { timeout 120 kcat -C -E -m 60 -b "$bootstrap" -t "$ledger" -o beginning -e -q; }
count() { read_ledger | wc -l; }
note_count() { count >"$WORK/count"; }
more_than() { [ "$(count)" -gt "$(($1 + 20))" ]; }

# end_ledger: every number that was written is there, once. A leader may give out its last records some moments after it took over.
end_ledger() {
    touch "$WORK/ledger.stop"
    wait "$(pid_of ledger)"
    until_so "each of them is there, once" compare_ledger
    say "$(cat "$WORK/ledger.last") records were acknowledged; each of them is there, once"
}

compare_ledger() {
    read_ledger | sort --numeric-sort >"$WORK/ledger.read"
    seq 1 "$(cat "$WORK/ledger.last")" | cmp - "$WORK/ledger.read"
}
