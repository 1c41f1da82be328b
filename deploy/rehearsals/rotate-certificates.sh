#!/usr/bin/env bash
# docs/operations/rotate-certificates.md: a listener gets another certificate while a client is connected, and then the authority
# changes that signs them and those of clients. Needs openssl.
source "$(dirname "$0")/lib.sh"

# replace FILE: by what comes in, in one step: nobody reads half of a file.
replace() {
    cat >"$WORK/fresh.pem"
    mv "$WORK/fresh.pem" "$WORK/$1"
}

# issue AUTHORITY SERIAL: the listener's own.
issue() {
    sign "$1" "$2" broker "$WORK/next.pem"
    replace broker.pem <"$WORK/next.pem"
}

authority ca
issue ca 1001
sign ca 5001 client "$WORK/client.pem"
replace trusted.pem <"$WORK/ca.pem"

cat >"$WORK/server.properties" <<SETTINGS
listeners=SSL://$(kafka_at 0)
varve.http.listener=$(http_at 0)
varve.data.dir=$WORK/data
ssl.keystore.type=PEM
ssl.keystore.location=$WORK/broker.pem
ssl.truststore.type=PEM
ssl.truststore.location=$WORK/trusted.pem
ssl.client.auth=requested
SETTINGS
begin node varve --config "$WORK/server.properties"
ready 0
at=(-b "localhost:${ports[10]}" -X security.protocol=ssl)
secure=("${at[@]}" -X "ssl.ca.location=$WORK/ca.pem" -t ledger)

# A client that is connected all the time.
mkfifo "$WORK/lines"
kcat -P "${secure[@]}" -X acks=all -X linger.ms=5 <"$WORK/lines" >"$WORK/client.log" 2>&1 &
client=$!
exec 4>"$WORK/lines"
echo before >&4

serial() { openssl s_client -connect "$(kafka_at 0)" </dev/null 2>/dev/null | openssl x509 -noout -serial; }
shows() { [ "$(serial)" = "serial=$1" ]; }
until_so "the first certificate is shown" shows 03E9
ends=$(value 0 varve_certificate_not_after_timestamp_seconds)

say "a renewed certificate"
issue ca 2002
until_so "new connections are shown the new one" shows 07D2
[ "$(value 0 varve_certificate_not_after_timestamp_seconds)" -ge "$ends" ]

say "the client that was connected goes on, and new ones connect"
echo after >&4
exec 4>&-
wait "$client"
[ "$(kcat -C "${secure[@]}" -o beginning -e -q | paste -sd ' ')" = "before after" ]

say "a certificate for somebody else is not taken"
authority other
cat "$WORK/other.key" "$WORK/other.pem" | replace broker.pem
until_so "the log says so" grep --quiet ssl.allow.dn.changes "$WORK/node.log"
shows 07D2
issue ca 2003
until_so "the next good one is" shows 07D3

# trusts FILE: a client that trusts those, and shows no certificate, is served; shows FILE: one with that certificate is.
trusts() { kcat -L -m 10 "${at[@]}" -X "ssl.ca.location=$WORK/$1"; }
logs_in() {
    kcat -L -m 10 "${at[@]}" -X "ssl.ca.location=$WORK/both.pem" -X "ssl.key.location=$1" -X "ssl.certificate.location=$1"
}
is_refused() { ! logs_in "$1"; }

say "the authority changes: first everybody trusts both"
authority new-ca
sign new-ca 6001 client "$WORK/new-client.pem"
cat "$WORK/ca.pem" "$WORK/new-ca.pem" >"$WORK/both.pem"
until_so "the broker knows no client of the new one yet" is_refused "$WORK/new-client.pem"
replace trusted.pem <"$WORK/both.pem"
until_so "it takes certificates of clients that the new one has signed" logs_in "$WORK/new-client.pem"
logs_in "$WORK/client.pem" >"$WORK/last"

say "then certificates change"
issue new-ca 3003
until_so "the one of the new authority is shown" shows 0BBB
trusts both.pem >"$WORK/last"
if trusts ca.pem >"$WORK/last" 2>&1; then
    echo "a client that trusts the old authority alone was served" >&2
    exit 1
fi

say "then the old authority goes"
replace trusted.pem <"$WORK/new-ca.pem"
until_so "its clients are refused" is_refused "$WORK/client.pem"
logs_in "$WORK/new-client.pem" >"$WORK/last"
trusts new-ca.pem >"$WORK/last"
finish node
