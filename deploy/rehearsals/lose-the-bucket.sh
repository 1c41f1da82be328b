#!/usr/bin/env bash
# docs/operations/lose-the-bucket.md: the bucket does not answer for a while, as if for an hour. MOTO is a server that speaks S3
# (moto_server of PyPI's moto[server]).
source "$(dirname "$0")/lib.sh"

begin s3 "${MOTO:-moto_server}" -H 127.0.0.1 -p "${ports[30]}"
store=http://127.0.0.1:${ports[30]}
until_so "the store answers" curl --silent --fail --request PUT "$store/varve"
export AWS_ACCESS_KEY_ID=rehearsal AWS_SECRET_ACCESS_KEY=rehearsal
# So that minutes of waiting are seconds here.
settings=("varve.object.store.url=s3://varve/cluster" "varve.object.store.endpoint=$store" varve.object.store.region=us-east-1
    varve.object.store.path.style=true varve.object.store.request.timeout.ms=1000 varve.object.store.request.attempts=2)
start_cluster "${settings[@]}"
make_topic ledger
begin_ledger ledger
until_so "something is archived" at_least 0 varve_archive_uploaded_segments_total 1

say "the bucket does not answer"
kill -STOP "$(pid_of s3)"
failing() { [ "$(value 0 varve_archive_failures_total)" -gt "$1" ] && [ "$(value 0 varve_archive_lag_seconds)" -gt 3 ]; }
until_so "the archive is behind, and says so" failing "$(value 0 varve_archive_failures_total)"
goes_on
say "brokers restart all the same"
all_in_sync 0 1 2
finish broker-2
start_broker 2 "${settings[@]}"
ready 2
all_in_sync 0 1 2
goes_on

say "the bucket is back"
kill -CONT "$(pid_of s3)"
caught_up() { [ "$(value 0 varve_archive_lag_seconds)" -le 2 ] && [ "$(value 1 varve_archive_lag_seconds)" -le 2 ] && [ "$(value 2 varve_archive_lag_seconds)" -le 2 ]; }
end_ledger
until_so "nothing waits for the archive" caught_up
varve canary --bootstrap-server "$bootstrap" --config "$WORK/broker-0.properties" \
    --timeout-seconds 300 --archive-timeout-seconds 300
until_so "the archive is whole" varve tier verify --config "$WORK/broker-0.properties"
