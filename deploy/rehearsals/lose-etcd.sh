#!/usr/bin/env bash
# docs/operations/lose-etcd.md: one member loses its data and joins as somebody new; all of etcd goes and comes back; then it is
# lost for good, and made anew from a backup.
source "$(dirname "$0")/lib.sh"

# archived TOPIC: whether its archive is in force, whatever the cluster knows of it.
archived() {
    local told
    told=$(varve tier describe "$1" --config "$WORK/broker-0.properties" --json) || return 1
    jq --exit-status --slurp 'any(.objects > 0) and all(.deleted_at == null)' <<<"$told"
}

start_cluster
make_topic ledger
begin_ledger ledger
goes_on

say "one member loses its data: it leaves, and joins as somebody new"
others=${etcd_clients[0]},${etcd_clients[1]}
change_members() { ETCDCTL_API=3 etcdctl --endpoints "$others" member "$@"; }
fell etcd-2
rm -rf "$WORK/etcd-2"
# While the others still take the one that is gone for their leader nobody tells, and an answer may be lost on its way.
leaves() {
    local members
    members=$(change_members list) || return 1
    grep --quiet ', m2, ' <<<"$members" || return 0
    change_members remove "$(grep ', m2, ' <<<"$members" | cut --delimiter , --fields 1)"
}
joins() {
    local members
    members=$(change_members list) || return 1
    grep --quiet --fixed-strings "${etcd_peers[2]}" <<<"$members" || change_members add m2 --peer-urls "${etcd_peers[2]}"
}
until_so "it leaves" leaves
until_so "it joins" joins
start_etcd 2 --initial-cluster-state existing
until_so "etcd is whole" etcd_lives
goes_on

say "a backup"
ETCDCTL_API=3 etcdctl --endpoints "${etcd_clients[0]}" --dial-timeout 60s snapshot save "$WORK/backup.db" >/dev/null

say "etcd is gone: who is in sync goes on"
for number in 0 1 2; do fell "etcd-$number"; done
goes_on
sleep 5
goes_on

say "etcd is back: nothing is restarted"
for number in 0 1 2; do start_etcd "$number"; done
until_so "etcd answers" etcd_answers
make_topic afterwards 3
seq 1000 | kcat -P -b "$bootstrap" -t afterwards -X acks=all
until_so "its archive is in the bucket" archived afterwards
goes_on
all_in_sync 0 1 2

say "what the backup says of leaders and replicas in sync is not so any more"
finish broker-0
goes_on
start_broker 0
ready 0
all_in_sync 0 1 2
finish broker-1
goes_on

say "the disks of etcd are lost: the brokers stop, etcd is made anew from the backup, the brokers start"
end_ledger
for number in 0 2; do finish "broker-$number"; done
for number in 0 1 2; do
    fell "etcd-$number"
    # One has kept its disk, and is put back with the others.
    case $number in
    2) mv "$WORK/etcd-2/member" "$WORK/etcd-2/member.before" ;;
    *) rm -rf "$WORK/etcd-$number/member" ;;
    esac
    ETCDCTL_API=3 etcdctl snapshot restore "$WORK/backup.db" --name "m$number" --initial-cluster "$members" \
        --initial-cluster-token restored --initial-advertise-peer-urls "${etcd_peers[$number]}" \
        --data-dir "$WORK/etcd-$number/restored" >/dev/null
    mv --no-target-directory "$WORK/etcd-$number/restored/member" "$WORK/etcd-$number/member"
    start_etcd "$number" --initial-cluster-token restored
done
until_so "etcd answers" etcd_answers
# What is buried goes as soon as can be. Who lacks records that the others have starts first, and leads on no word of the backup.
start_broker 1 varve.archive.grace.ms=10000
ready 1
for number in 0 2; do start_broker "$number" varve.archive.grace.ms=10000; done
for number in 0 1 2; do ready "$number"; done
all_in_sync 0 1 2
say "a topic that was made after the backup is missing, and its archive is kept"
until_so "somebody tells of it" grep --quiet --no-messages "archive of a topic that the cluster does not know" "$WORK"/broker-*.log
archived afterwards >/dev/null
kcat -C -b "$bootstrap" -t ledger -o beginning -e -q | sort --numeric-sort | cmp - "$WORK/ledger.read"
varve canary --bootstrap-server "$bootstrap" --no-archive --timeout-seconds 300
