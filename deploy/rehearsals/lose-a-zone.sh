#!/usr/bin/env bash
# docs/operations/lose-a-zone.md: a broker and a member of etcd go at the same moment, and come back later.
source "$(dirname "$0")/lib.sh"

start_cluster
make_topic ledger
begin_ledger ledger
goes_on

say "zone b is gone"
fell etcd-1
fell broker-1
led_elsewhere() { [ "$(value 0 varve_leaderless_partitions)" = 0 ] && [ "$(value 0 varve_under_replicated_partitions)" -gt 0 ]; }
until_so "others lead" led_elsewhere
goes_on
say "topics are made and groups commit meanwhile"
make_topic meanwhile 3
varve canary --bootstrap-server "$(kafka_at 0),$(kafka_at 2)" --config "$WORK/broker-0.properties" \
    --timeout-seconds 300 --archive-timeout-seconds 300

say "zone b is back"
start_etcd 1
start_broker 1
ready 1
all_in_sync 0 1 2
end_ledger
