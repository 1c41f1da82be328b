#!/usr/bin/env bash
# docs/operations/expand.md: a fourth broker joins, and takes its part of the partitions; then it is emptied and leaves again
# (docs/operations/drain.md).
source "$(dirname "$0")/lib.sh"

start_cluster
make_topic ledger
begin_ledger ledger

say "a fourth broker joins"
start_broker 3
ready 3
[ "$(value 3 varve_partitions)" = 0 ] || { echo "it has partitions nobody gave it" >&2; exit 1; }

# reassign BROKERS: spreads the ledger over them.
reassign() {
    echo '{"version":1,"topics":[{"topic":"ledger"}]}' >"$WORK/topics.json"
    kafka-reassign-partitions.sh --bootstrap-server "$bootstrap" --generate --broker-list "$1" \
        --topics-to-move-json-file "$WORK/topics.json" | tail -n 1 >"$WORK/plan.json"
    jq --exit-status '.partitions | length > 0' "$WORK/plan.json" >/dev/null
    kafka-reassign-partitions.sh --bootstrap-server "$bootstrap" --execute --reassignment-json-file "$WORK/plan.json" >/dev/null
    until_so "the moves are complete" moved
}
moved() {
    local said
    said=$(kafka-reassign-partitions.sh --bootstrap-server "$bootstrap" --verify --reassignment-json-file "$WORK/plan.json")
    ! grep -q 'still in progress' <<<"$said" && grep -q 'is complete' <<<"$said"
}

reassign 0,1,2,3
until_so "the fourth broker has partitions" at_least 3 varve_partitions 1
all_in_sync 0 1 2 3
goes_on

say "it is emptied, and may be filled again"
of_broker() { "$VARVE" broker "$@" --bootstrap-server "$bootstrap"; }
of_broker drain 3 --dry-run
of_broker drain 3 --timeout 120
until_so "the fourth broker holds nothing" equals 3 varve_partitions 0
of_broker undrain 3
reassign 0,1,2,3
until_so "the fourth broker has partitions again" at_least 3 varve_partitions 1
all_in_sync 0 1 2 3
goes_on

say "and leaves for good"
begin decommission "$VARVE" broker decommission 3 --json --timeout 240 --bootstrap-server "$bootstrap"
until_so "it may be stopped" grep -q 'stop the process now' "$WORK/decommission.log"
equals 3 varve_partitions 0
finish broker-3
wait "$(pid_of decommission)"
until_so "it is forgotten" equals 0 varve_brokers 3
goes_on
end_ledger

say "no other one can go: three replicas need three brokers"
if of_broker drain 2 >"$WORK/refused"; then
    echo "it was drained all the same" >&2
    exit 1
fi
grep 'refused' "$WORK/refused"
