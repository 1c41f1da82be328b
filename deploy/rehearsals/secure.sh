#!/usr/bin/env bash
# docs/operations/secure.md: a cluster with the page's settings, where clients log in, brokers show certificates, and etcd asks for
# both. Who may not do something is refused, and who may is served. Needs openssl.
source "$(dirname "$0")/lib.sh"

# The page's machines and folders, as they are here; those of broker NUMBER, or of the first one.
here() {
    local number=${1:-0} members=${etcd_clients[*]#https://}
    sed --expression "s,/etc/varve,$WORK,g" --expression "s,^node.id=.*,node.id=$number," \
        --expression "s|etcd-1:2379,etcd-2:2379,etcd-3:2379|${members// /,}|" \
        --expression "s,https://etcd-1:2379,${etcd_clients[0]}," \
        --expression "s,\(0.0.0.0\|broker-1.example\):9094,$(kafka_at "$number"),g" \
        --expression "s,\(0.0.0.0\|broker-1.example\):9093,$(kafka_at $((number + 3))),g"
}
# run NUMBER [TOOL]: the page's commands in that block, or those of one tool.
run() {
    local commands
    commands=$(block secure sh "$1" | here | grep "^${2:-.*}")
    (cd "$WORK" && bash -euc "$commands")
}
# start NUMBER [SETTING]: a broker with the page's settings, but for that one.
start() {
    local settings
    settings=$({ block secure properties 1; block secure properties 2; } | here "$1" | grep --invert-match "^${2:-nothing}=")
    start_broker "$1" "$settings"
}

# login NAME PASSWORD: what a client says, in NAME.properties.
login() {
    cat >"$WORK/$1.properties" <<SETTINGS
security.protocol=SASL_SSL
sasl.mechanism=SCRAM-SHA-512
sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required username="$1" password="$2";
ssl.truststore.type=PEM
ssl.truststore.location=$WORK/ca.pem
SETTINGS
}

# as NAME TOOL ARGUMENT...: one of Kafka's tools, by whom NAME.properties says.
as() {
    local name=$1 tool=$2
    shift 2
    timeout 120 "$tool" --bootstrap-server "$bootstrap" --command-config "$WORK/$name.properties" "$@"
}
# tells WHAT COMMAND...: that has to stand in what the command prints, however it ends.
tells() {
    local what=$1
    shift
    { "$@" 2>&1 || true; } >"$WORK/told"
    grep --quiet "$what" "$WORK/told" || { echo "nothing of $what: $*"; cat "$WORK/told"; exit 1; } >&2
}
# never COMMAND...: it must fail.
never() {
    ! "$@" >"$WORK/told" 2>&1 || { echo "was served: $*" >&2; exit 1; }
}

# produces NAME [OPTION...]: a hundred records; consumes NAME: the group reads so many.
produces() {
    local name=$1
    shift
    seq 100 | as "$name" kafka-console-producer.sh --topic orders "$@"
}
consumes() {
    as "$1" kafka-console-consumer.sh --topic orders --group billing --from-beginning --max-messages 100 --timeout-ms 60000
}

say "certificates: of brokers, and of etcd and those who use it"
authority ca
sign ca 1001 broker "$WORK/broker.pem"
authority etcd-ca
sign etcd-ca 1 etcd "$WORK/etcd.pem"
sign etcd-ca 2 broker "$WORK/both.pem"
mv "$WORK/key.pem" "$WORK/etcd-client.key"
mv "$WORK/certificate.pem" "$WORK/etcd-client.pem"

say "etcd has TLS, and users"
etcd_clients=("${etcd_clients[@]/http:/https:}")
for number in 0 1 2; do
    start_etcd "$number" --cert-file "$WORK/etcd.pem" --key-file "$WORK/etcd.pem" --client-cert-auth \
        --trusted-ca-file "$WORK/etcd-ca.pem"
done
of_etcd() {
    etcdctl --endpoints "$(IFS=,; echo "${etcd_clients[*]}")" --cacert "$WORK/etcd-ca.pem" --cert "$WORK/etcd-client.pem" \
        --key "$WORK/etcd-client.key" "$@"
}
until_so "etcd answers" of_etcd endpoint health
run 3
never of_etcd get /varve/nothing
never of_etcd --user varve:guess get /varve/nothing
never of_etcd --user varve:secret put /others/key value

say "brokers with the page's settings; the first user is made"
for number in 0 1 2; do VARVE_FIRST_USERS='SCRAM-SHA-512=[name=admin,password=admin-secret]' start "$number"; done
for number in 0 1 2; do ready "$number"; done
all_in_sync 0 1 2
login admin admin-secret
as admin kafka-topics.sh --create --topic orders --partitions 3

say "the variable is taken away, and the password of etcd comes from the environment"
echo "VARVE_METADATA_ETCD_PASSWORD='secret'" >"$WORK/environment"
for number in 0 1 2; do
    finish "broker-$number"
    # Read as the page says, for this one alone.
    eval "$(block secure sh 4 | here)"
    start "$number" varve.metadata.etcd.password
    unset VARVE_METADATA_ETCD_PASSWORD
    ready "$number"
    all_in_sync 0 1 2
done

say "who does not log in is refused, and so is a wrong password"
quick=(-L -m 10 -X security.protocol=ssl -X "ssl.ca.location=$WORK/ca.pem")
never kcat "${quick[@]}" -b "$(kafka_at 0)"
never kcat "${quick[@]}" -b "$(kafka_at 3)"
never kcat -L -m 10 -b "$(kafka_at 0)"
kcat "${quick[@]}" -b "$(kafka_at 3)" -X "ssl.key.location=$WORK/broker.pem" \
    -X "ssl.certificate.location=$WORK/broker.pem" >"$WORK/told"
as admin kafka-topics.sh --list | grep --quiet orders
login admin guess
tells SaslAuthenticationException as admin kafka-topics.sh --list
login admin admin-secret

say "users without rights are refused"
run 1 kafka-configs
login orders orders-secret
login billing billing-secret
tells TopicAuthorizationException produces orders --sync
tells AuthorizationException consumes billing
denied() { [ $(($(value 0 "$1") + $(value 1 "$1") + $(value 2 "$1"))) -gt 0 ]; }
denied varve_authorization_denied_total
grep --quiet varve_audit "$WORK"/broker-?.log

say "with rights they do what they may, and nothing else"
run 1 kafka-acls >"$WORK/told"
produces orders >"$WORK/told"
consumes billing 2>"$WORK/told" | sort --numeric-sort | cmp - <(seq 100)
tells AuthorizationException produces billing --sync
tells AuthorizationException consumes orders
tells AuthorizationException as orders kafka-topics.sh --create --topic others

say "Varve's own commands connect as the broker whose settings they are given"
never varve broker list --config "$WORK/broker-0.properties"
(
    eval "$(block secure sh 4 | here)"
    varve broker list --config "$WORK/broker-0.properties"
    varve broker check 1 --config "$WORK/broker-0.properties"
    varve canary --config "$WORK/broker-0.properties" --bootstrap-server "$(kafka_at 3),$(kafka_at 4),$(kafka_at 5)" \
        --timeout-seconds 300 --archive-timeout-seconds 300
)
cp "$WORK/broker-0.properties" "$WORK/server.properties"
never varve config check "$WORK/server.properties"
run 5
run 2 >"$WORK/told"
for number in 0 1 2; do finish "broker-$number"; done
