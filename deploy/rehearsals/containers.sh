#!/usr/bin/env bash
# docs/operations/install.md, "Containers without Kubernetes": the image by itself, then the cluster of deploy/compose, which loses
# a broker while somebody writes. Builds the image, unless BUILT says that `varve` is the one to take, and uses the ports of those
# files. ENGINE is the container engine, docker unless set; it needs `compose`. No test run plays it: it wants that engine, and
# images from elsewhere.
source "$(dirname "$0")/lib.sh"

: "${ENGINE:=docker}"
checkout=$(cd "$(dirname "$0")/../.." && pwd)
name=varve-rehearsal

# compose FILE ARGUMENT...: in a project of its own, beside whatever else was made from the file.
compose() {
    local file=$1
    shift
    "$ENGINE" compose --project-name "$name-$file" --file "$checkout/deploy/compose/$file.yaml" "$@"
}

# Containers outlive who started them.
away() {
    local ended=$?
    trap - EXIT
    set +e
    if [ "$ended" -ne 0 ]; then
        "$ENGINE" logs --tail 20 "$name"
        for file in single cluster; do compose "$file" logs --tail 20; done
    fi >&2
    {
        "$ENGINE" rm --force "$name"
        "$ENGINE" volume rm "$name"
        for file in single cluster; do compose "$file" down --volumes; done
    } >/dev/null 2>&1
    (exit "$ended")
    cleanup
}
trap away EXIT

# same_thousand ADDRESS: that the thousand records are there, once.
same_thousand() { timeout 60 kcat -C -b "$1" -t app-logs -o beginning -e -q | sort --numeric-sort | cmp - <(seq 1000); }
write_thousand() { seq 1000 | kcat -P -b "$1" -t app-logs -X acks=all; }

say "the image by itself: what it is told by its first lines"
[ -n "${BUILT:-}" ] || "$ENGINE" build --file "$checkout/deploy/container/Dockerfile" --tag varve "$checkout"
"$ENGINE" run --detach --name "$name" --publish 127.0.0.1:9092:9092 --env VARVE_ADVERTISED_LISTENERS=PLAINTEXT://localhost:9092 \
    --volume "$name:/var/lib/varve" varve
"$ENGINE" exec "$name" /usr/bin/varve health --ready --wait-seconds 300
write_thousand localhost:9092
"$ENGINE" stop -t 45 "$name"
[ "$("$ENGINE" inspect --format '{{.State.ExitCode}}' "$name")" = 0 ]
"$ENGINE" start "$name"
"$ENGINE" exec "$name" /usr/bin/varve health --ready --wait-seconds 300
until_so "what was written before is there" same_thousand localhost:9092
"$ENGINE" rm --force "$name"

say "one node of the compose file: hardened, and its volume outlives its container"
compose single up --detach --wait
write_thousand localhost:9092
compose single down
compose single up --detach --wait
until_so "what was written before is there" same_thousand localhost:9092
compose single down --volumes

say "the cluster of the compose file"
bootstrap=localhost:19092,localhost:29092,localhost:39092
http_at() { echo "127.0.0.1:$((10000 * ($1 + 1) + 9404))"; }
compose cluster up --detach --wait
compose cluster run --rm canary
make_topic ledger
kafka-configs.sh --bootstrap-server "$bootstrap" --entity-type topics --entity-name ledger --alter \
    --add-config varve.archive.lag.ms=1000
all_in_sync 0 1 2
begin_ledger ledger
goes_on
say "a broker is gone"
compose cluster kill broker-2
goes_on
say "and back"
compose cluster up --detach --wait
all_in_sync 0 1 2
end_ledger
say "what was written is Parquet in the bucket"
is_parquet() {
    compose cluster exec -T broker-1 /usr/bin/varve tier describe ledger --objects --json |
        jq --exit-status --slurp 'any(.kind == "parquet")'
}
until_so "there is Parquet" is_parquet
compose cluster down --volumes
