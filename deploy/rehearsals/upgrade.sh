#!/usr/bin/env bash
# docs/operations/upgrade.md: a rolling upgrade, while somebody writes. NEW is the new binary; without it the same one again.
source "$(dirname "$0")/lib.sh"

cp "$(command -v varve)" "$WORK/varve"
VARVE=$WORK/varve
start_cluster
make_topic ledger
begin_ledger ledger

for number in 0 1 2; do
    say "broker $number: every partition has enough replicas without it, so it may go"
    may_stop "$number"
    finish "broker-$number"
    install "${NEW:-$(command -v varve)}" "$WORK/varve"
    start_broker "$number"
    ready "$number"
    caught_up "$number"
    goes_on
done
all_in_sync 0 1 2
end_ledger
