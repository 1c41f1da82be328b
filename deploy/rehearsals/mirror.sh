#!/usr/bin/env bash
# docs/operations/mirror.md: a topic that is written all the time, and a group that reads it, are mirrored from one cluster to
# another. The first one is lost and both go on in the second; then it comes back, and so do they. Needs MirrorMaker 2.
source "$(dirname "$0")/lib.sh"

# West is the cluster of lib.sh. East has three brokers, too, a bucket of its own, and an etcd of one member.
west=$bootstrap east=$(kafka_at 3),$(kafka_at 4),$(kafka_at 5)
east_etcd=127.0.0.1:${ports[6]}
east_answers() { ETCDCTL_API=3 etcdctl --endpoints "http://$east_etcd" endpoint health; }

start_east() {
    local number peer=http://127.0.0.1:${ports[7]}
    mkdir "$WORK/bucket-east"
    begin etcd-east etcd --name east --data-dir "$WORK/etcd-east" --initial-cluster "east=$peer" \
        --initial-advertise-peer-urls "$peer" --listen-peer-urls "$peer" --listen-client-urls "http://$east_etcd" \
        --advertise-client-urls "http://$east_etcd"
    until_so "east's etcd answers" east_answers
    for number in 3 4 5; do
        start_broker "$number" "varve.metadata.url=etcd://$east_etcd/varve" "varve.object.store.url=file://$WORK/bucket-east"
    done
    for number in 3 4 5; do ready "$number"; done
    all_in_sync 3 4 5
}

# begin_mirror [SETTING...]: as the page says, with those settings instead of its own.
begin_mirror() {
    {
        block mirror text 1 | sed "s/broker-1.west:9092/$west/; s/broker-1.east:9092/$east/"
        # So that minutes of waiting are seconds here.
        printf '%s.interval.seconds = 1\n' emit.checkpoints sync.group.offsets refresh.topics refresh.groups sync.topic.configs
        printf '%s\n' "$@"
    } >"$WORK/mm2.properties"
    begin mirror connect-mirror-maker.sh "$WORK/mm2.properties"
}
# It says by 143 that it was asked to.
end_mirror() { finish mirror || [ $? = 143 ]; }

# begin_billing NAME WHERE TOPICS: the group reads what there is of those topics, and goes on.
begin_billing() {
    begin "billing-$1" kafka-console-consumer.sh --bootstrap-server "$2" --group billing --include "$3" --from-beginning \
        --command-property auto.commit.interval.ms=500 --command-property metadata.max.age.ms=2000
}
billed() { cat "$WORK"/billing-*.log | grep --line-regexp '[0-9]*' | sort --unique; }

# numbers WHERE TOPIC...: what stands in those topics, each number once.
numbers() {
    local where=$1 topic
    shift
    for topic in "$@"; do timeout 120 kcat -C -E -m 60 -b "$where" -t "$topic" -o beginning -e -q; done | sort --unique
}
# all_billed WHERE TOPIC...: whether the group has read each number that stands there.
all_billed() { numbers "$@" >"$WORK/written" && billed | comm -23 "$WORK/written" - | cmp - /dev/null; }
# is_copied WHERE TOPIC OTHER COPY: whether nothing is left to copy.
is_copied() { numbers "$1" "$2" >"$WORK/original" && numbers "$3" "$4" | cmp "$WORK/original" -; }

# is_placed WHERE TOPIC: whether the group has an offset there for every partition, and none of them is the beginning.
is_placed() {
    kafka-consumer-groups.sh --bootstrap-server "$1" --describe --group billing 2>/dev/null |
        awk -v topic="$2" '$2 == topic && $4 ~ /^[0-9]+$/ && $4 > 0 { placed++ } END { exit placed != 6 }'
}
# place WHERE TOPIC: the sum of its offsets there.
place() {
    kafka-consumer-groups.sh --bootstrap-server "$1" --describe --group billing 2>/dev/null |
        awk -v topic="$2" '$2 == topic { sum += $4 } END { print sum + 0 }'
}

end_writer() {
    touch "$WORK/ledger.stop"
    wait "$(pid_of ledger)"
    last=$(cat "$WORK/ledger.last")
}

say "active and passive: west is written and read, east gets a copy"
start_cluster
start_east
make_topic orders
begin_ledger orders
begin_billing west "$west" '(east\.)?orders'
begin_mirror
until_so "the group's place is copied" is_placed "$east" west.orders
# What is written while the mirror does nothing is in west alone.
kill -STOP "$(pid_of mirror)"
goes_on
acknowledged=$(count)

say "failing over, 1: west is lost, all of it, and whoever was connected to it ends"
for number in 0 1 2; do fell "broker-$number" && fell "etcd-$number"; done
writer=$(pid_of ledger)
{ kill -KILL -- "-$writer" && wait "$writer" || true; } 2>/dev/null
last=$(cat "$WORK/ledger.last")
fell billing-west
kill -CONT "$(pid_of mirror)"
end_mirror
numbers "$east" west.orders >"$WORK/mirrored"

say "2: the group has its place in every partition"
is_placed "$east" west.orders
placed=$(place "$east" west.orders)

say "3: clients go to east"
bootstrap=$east
make_topic orders
begin_billing east "$east" '(west\.)?orders'
begin_ledger orders "$last"
goes_on
until_so "the group reads what was mirrored, and what is written here" all_billed "$east" west.orders orders
if grep --quiet --line-regexp 1 "$WORK/billing-east.log"; then
    echo "the group began anew" >&2
    exit 1
fi
numbers "$east" west.orders | cmp - "$WORK/mirrored"
say "$(wc -l <"$WORK/mirrored") records had been mirrored; each is there, and was read"

say "4: west is there again; what it had alone comes over, and east is mirrored to it"
for number in 0 1 2; do start_etcd "$number"; done
until_so "etcd answers" etcd_lives
for number in 0 1 2; do start_broker "$number"; done
for number in 0 1 2; do ready "$number"; done
all_in_sync 0 1 2
[ "$(numbers "$west" orders | wc -l)" -ge "$acknowledged" ]
[ "$(wc -l <"$WORK/mirrored")" -lt "$acknowledged" ] || { echo "west had nothing alone" >&2; exit 1; }
[ "$placed" -le "$(place "$west" orders)" ] || { echo "the group was sent ahead" >&2; exit 1; }
begin_mirror "$(block mirror text 2)"
until_so "what west had alone is in east" is_copied "$west" orders "$east" west.orders
until_so "the group has read it" all_billed "$east" west.orders
until_so "the group's place is copied to west" is_placed "$west" east.orders

say "then the same again: the writer stops, nothing is left to copy, the mirror stops, clients go to west"
end_writer
until_so "everything is copied" is_copied "$east" orders "$west" east.orders
until_so "the group has read everything" all_billed "$east" west.orders orders
end_mirror
finish billing-east || [ $? = 143 ]
is_placed "$west" east.orders
bootstrap=$west
begin_billing west "$west" '(east\.)?orders'
begin_ledger orders "$last"
goes_on

say "and east gets a copy again"
begin_mirror
end_writer
until_so "everything is copied" is_copied "$west" orders "$east" west.orders
until_so "the group has read everything" all_billed "$west" orders east.orders
cmp "$WORK/written" <(billed)
say "$(wc -l <"$WORK/written") records were written here or there; the group read each of them"
