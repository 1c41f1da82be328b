#!/usr/bin/env bash
# docs/operations/rotate-certificates.md: a listener gets another certificate while a client is connected. Needs openssl.
source "$(dirname "$0")/lib.sh"

# issue SERIAL: a certificate of that serial number for localhost, signed by the authority of this rehearsal.
issue() {
    openssl req -new -newkey rsa:2048 -nodes -keyout "$WORK/key.pem" -subj /CN=broker -out "$WORK/request.pem" 2>/dev/null
    openssl x509 -req -in "$WORK/request.pem" -CA "$WORK/ca.pem" -CAkey "$WORK/ca.key" -set_serial "$1" -days 30 \
        -extfile <(echo subjectAltName=DNS:localhost,IP:127.0.0.1) -out "$WORK/certificate.pem" 2>/dev/null
    cat "$WORK/key.pem" "$WORK/certificate.pem" >"$WORK/fresh.pem"
    # In one step: nobody reads half of a file.
    mv "$WORK/fresh.pem" "$WORK/broker.pem"
}
openssl req -x509 -newkey rsa:2048 -nodes -days 30 -keyout "$WORK/ca.key" -out "$WORK/ca.pem" -subj /CN=rehearsal 2>/dev/null
issue 1001

cat >"$WORK/server.properties" <<SETTINGS
listeners=SSL://$(kafka_at 0)
varve.http.listener=$(http_at 0)
varve.data.dir=$WORK/data
ssl.keystore.type=PEM
ssl.keystore.location=$WORK/broker.pem
SETTINGS
begin node varve --config "$WORK/server.properties"
ready 0
secure=(-b "localhost:${ports[10]}" -X security.protocol=ssl -X "ssl.ca.location=$WORK/ca.pem" -t ledger)

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
issue 2002
until_so "new connections are shown the new one" shows 07D2
[ "$(value 0 varve_certificate_not_after_timestamp_seconds)" -ge "$ends" ]

say "the client that was connected goes on, and new ones connect"
echo after >&4
exec 4>&-
wait "$client"
[ "$(kcat -C "${secure[@]}" -o beginning -e -q | paste -sd ' ')" = "before after" ]

say "a certificate for somebody else is not taken"
openssl req -x509 -newkey rsa:2048 -nodes -days 30 -keyout "$WORK/key.pem" -out "$WORK/other.pem" -subj /CN=other 2>/dev/null
cat "$WORK/key.pem" "$WORK/other.pem" >"$WORK/fresh.pem"
mv "$WORK/fresh.pem" "$WORK/broker.pem"
until_so "the log says so" grep --quiet ssl.allow.dn.changes "$WORK/node.log"
shows 07D2
finish node
