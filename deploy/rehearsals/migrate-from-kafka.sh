#!/usr/bin/env bash
# docs/operations/migrate-from-kafka.md: a topic that is written all the time, and a group that reads it, move from Apache Kafka to a
# cluster. Needs Apache Kafka itself, and MirrorMaker 2.
source "$(dirname "$0")/lib.sh"

kafka=127.0.0.1:${ports[30]} controller=127.0.0.1:${ports[31]} varve=$bootstrap
cat >"$WORK/kafka.properties" <<SETTINGS
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@$controller
listeners=PLAINTEXT://$kafka,CONTROLLER://$controller
advertised.listeners=PLAINTEXT://$kafka
controller.listener.names=CONTROLLER
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT
log.dirs=$WORK/kafka
offsets.topic.replication.factor=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
SETTINGS
kafka-storage.sh format --config "$WORK/kafka.properties" --cluster-id "$(kafka-storage.sh random-uuid)" >"$WORK/format.log"
begin kafka kafka-server-start.sh "$WORK/kafka.properties"
until_so "Kafka answers" kafka-topics.sh --bootstrap-server "$kafka" --list
kafka-topics.sh --bootstrap-server "$kafka" --create --topic ledger --partitions 6 --config retention.ms=-1 >/dev/null
bootstrap=$kafka
begin_ledger ledger

# billing WHERE FILE COUNT: the group reads so many records, commits, and stops.
billing() {
    kafka-console-consumer.sh --bootstrap-server "$1" --group billing --topic ledger --from-beginning --max-messages "$3" \
        --timeout-ms 60000 >"$WORK/$2" 2>/dev/null
    [ "$(wc -l <"$WORK/$2")" = "$3" ]
}

say "1. look: Kafka's own settings, as a broker here takes them"
varve config check "$WORK/kafka.properties" >"$WORK/check.log" 2>&1 || { cat "$WORK/check.log" >&2; exit 1; }

say "2. build"
start_cluster

say "3. mirror"
until_so "there is something to bill" more_than 600
billing "$kafka" billed.before 500
cat >"$WORK/mm2.properties" <<SETTINGS
clusters = kafka, varve
kafka.bootstrap.servers = $kafka
varve.bootstrap.servers = $varve
kafka->varve.enabled = true
kafka->varve.topics = ledger
kafka->varve.groups = .*
varve->kafka.enabled = false
varve->kafka.emit.heartbeats.enabled = false
replication.policy.class = org.apache.kafka.connect.mirror.IdentityReplicationPolicy
replication.factor = 3
offset-syncs.topic.replication.factor = 1
checkpoints.topic.replication.factor = 3
heartbeats.topic.replication.factor = 3
config.storage.replication.factor = 3
offset.storage.replication.factor = 3
status.storage.replication.factor = 3
sync.topic.configs.enabled = true
sync.group.offsets.enabled = true
consumer.auto.offset.reset = earliest
# So that minutes of waiting are seconds here.
emit.checkpoints.interval.seconds = 1
sync.group.offsets.interval.seconds = 1
refresh.topics.interval.seconds = 1
refresh.groups.interval.seconds = 1
sync.topic.configs.interval.seconds = 1
offset.flush.interval.ms = 500
SETTINGS
begin mirror connect-mirror-maker.sh "$WORK/mm2.properties"
end_of() { kafka-get-offsets.sh --bootstrap-server "$1" --topic ledger --time -1 | awk -F: '{ sum += $3 } END { print sum + 0 }'; }
copied() { [ "$(end_of "$varve")" -ge "$1" ]; }
until_so "what Kafka had is copied" copied "$(end_of "$kafka")"
settings() { kafka-configs.sh --bootstrap-server "$varve" --describe --entity-type topics --entity-name ledger; }
settings_came() { settings | grep --quiet 'retention.ms=-1 '; }
until_so "the topic has its settings" settings_came

say "4. dual run: both have the same"
summed() { kcat -C -b "$1" -t ledger -p 0 -o beginning -e -q -c 50 -f '%k %s\n' | sha256sum; }
[ "$(summed "$kafka")" = "$(summed "$varve")" ]

say "5.1 consumers: the group goes on here at or a little before where it stopped"
placed() {
    kafka-consumer-groups.sh --bootstrap-server "$varve" --describe --group billing |
        awk '$2 == "ledger" && $4 ~ /^[0-9]+$/ { sum += $4 } END { exit !(sum > 0 && sum <= 500) }'
}
until_so "the group's place is copied" placed
billing "$varve" billed.after 200

say "5.2 producers: stop, wait until nothing is left to copy, and start here"
touch "$WORK/ledger.stop"
wait "$(pid_of ledger)"
last=$(cat "$WORK/ledger.last")
# all_here LAST: each number is there. A mirror that begins anew copies some twice.
all_here() { kcat -C -b "$varve" -t ledger -o beginning -e -q | sort --numeric-sort --unique | cmp - <(seq 1 "$1"); }
until_so "everything is copied" all_here "$last"
# It says by 143 that it was asked to.
finish mirror || [ $? = 143 ]
bootstrap=$varve
begin_ledger ledger "$last"
goes_on
touch "$WORK/ledger.stop"
wait "$(pid_of ledger)"
last=$(cat "$WORK/ledger.last")

say "6. put the old one away"
fell kafka
all_here "$last"
kafka-console-consumer.sh --bootstrap-server "$varve" --group billing --topic ledger --from-beginning --timeout-ms 15000 \
    >"$WORK/billed.rest" 2>/dev/null || true
sort --numeric-sort --unique "$WORK"/billed.* | cmp - <(seq 1 "$last")
say "$last records moved or were written here; the group read each of them"
