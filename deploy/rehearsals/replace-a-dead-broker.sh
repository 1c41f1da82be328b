#!/usr/bin/env bash
# docs/operations/replace-a-dead-broker.md: a machine is gone, with its disk. Another one takes its place, with its number.
source "$(dirname "$0")/lib.sh"

start_cluster
make_topic ledger
begin_ledger ledger
goes_on

say "broker 1 is gone, and its disk"
fell broker-1
rm -rf "$WORK/broker-1"
goes_on

say "an empty machine with the same node.id"
start_broker 1
ready 1
all_in_sync 0 1 2
[ "$(value 1 varve_partitions)" -gt 0 ]

say "what it copied counts: the two others go, one after the other"
finish broker-0
start_broker 0
ready 0
all_in_sync 0 1 2
finish broker-2
start_broker 2
ready 2
all_in_sync 0 1 2
end_ledger
