#!/usr/bin/env bash
# docs/operations/replace-a-dead-broker.md, "When only a disk is gone": one of a broker's two disks fails; the broker goes on with the
# other one, and gets an empty disk in its place.
source "$(dirname "$0")/lib.sh"

disk() { echo "$WORK/disks/$1-$2"; }

# start_on_disks NUMBER: a broker whose logs lie on two disks, beside what is its own.
start_on_disks() {
    mkdir -p "$(disk "$1" a)" "$(disk "$1" b)"
    start_broker "$1" "log.dirs=$(disk "$1" a),$(disk "$1" b)"
}

for number in 0 1 2; do start_etcd "$number"; done
until_so "etcd answers" etcd_lives
for number in 0 1 2; do start_on_disks "$number"; done
for number in 0 1 2; do ready "$number"; done
make_topic ledger 12
all_in_sync 0 1 2
begin_ledger ledger
goes_on

say "a disk of broker 1 is gone: what is in its place is no directory"
mv "$(disk 1 a)" "$WORK/lost"
touch "$(disk 1 a)"
is_degraded() { curl --silent --fail "http://$(http_at 1)/healthz" | grep "^degraded: .*$(disk 1 a)"; }
until_so "the broker names it" is_degraded
equals 1 varve_offline_log_directories 1
goes_on

say "every partition has a leader"
has_leaders() { [ -z "$(kafka-topics.sh --bootstrap-server "$bootstrap" --describe --unavailable-partitions)" ]; }
until_so "no partition is without a leader" has_leaders

say "an empty disk, and the broker with it"
finish broker-1
rm "$(disk 1 a)"
start_on_disks 1
ready 1
until_so "no directory is offline" equals 1 varve_offline_log_directories 0
all_in_sync 0 1 2
compgen -G "$(disk 1 a)/ledger-*" >/dev/null || { echo "nothing was copied to the empty disk" >&2; exit 1; }

say "what it copied counts: the two others go, one after the other"
for number in 0 2; do
    finish "broker-$number"
    start_on_disks "$number"
    ready "$number"
    all_in_sync 0 1 2
done
end_ledger
