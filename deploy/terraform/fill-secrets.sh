#!/usr/bin/env bash
# Fills the module's secrets: makes an authority, certificates and the first password with openssl, and puts them in.
#
#   terraform -chdir=ROOT output -json | deploy/terraform/fill-secrets.sh FOLDER [ADDITIONAL-NAME …]
#
# The outputs tls_secrets, tls_names and admin_secret of the module must be among them. FOLDER keeps the authority's key: it
# belongs on the machine of whoever runs the cluster, and nowhere else. An authority that is there already is used again, so
# the same command renews all certificates (for $DAYS days, 397 if unset), and makes them for the brokers that there are now;
# instances fetch them within an hour. A password that is there stays. Who has an authority of their own puts its ca.pem and ca.key into FOLDER, or fills the secrets without this.
set -euo pipefail

say() { echo "fill-secrets: $*" >&2; }

if [ $# -lt 1 ]; then
    say "usage: terraform -chdir=ROOT output -json | $0 FOLDER [ADDITIONAL-NAME …]"
    exit 2
fi
for program in openssl aws jq; do
    if ! command -v "$program" >/dev/null; then
        say "$program is not installed"
        exit 1
    fi
done
folder=$1
shift
days=${DAYS:-397}
outputs=$(cat)
umask 077
mkdir -p "$folder"
cd "$folder"

# What the module says under a name.
output() { jq --raw-output --exit-status "$1" <<<"$outputs"; }

# A certificate for the subject $1, with the other arguments as names, in $1.pem: key first, then certificate.
issue() {
    local subject=$1 name names=''
    shift
    for name in "$@"; do
        if [[ $name =~ ^[0-9.]+$ ]]; then names+="${names:+,}IP:$name"; else names+="${names:+,}DNS:$name"; fi
    done
    openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout "$subject.key" -out "$subject.csr" \
        -subj "/CN=$subject" 2>/dev/null
    {
        echo 'basicConstraints=critical,CA:false'
        echo 'keyUsage=critical,digitalSignature'
        # Brokers are clients of etcd, and its members of each other.
        echo 'extendedKeyUsage=serverAuth,clientAuth'
        if [ -n "$names" ]; then echo "subjectAltName=$names"; fi
    } >"$subject.ext"
    openssl x509 -req -in "$subject.csr" -CA ca.pem -CAkey ca.key -set_serial "0x$(openssl rand -hex 16)" -days "$days" \
        -extfile "$subject.ext" -out "$subject.crt" 2>/dev/null
    cat "$subject.key" "$subject.crt" >"$subject.pem"
    rm "$subject.key" "$subject.csr" "$subject.ext" "$subject.crt"
}

put() {
    aws secretsmanager put-secret-value --secret-id "$1" --secret-string "file://$2" >/dev/null
    say "$1 is filled from $2"
}

if [ ! -e ca.key ]; then
    say "a new authority in $PWD"
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout ca.key -out ca.pem -days 3650 -subj '/CN=Varve' \
        -addext 'basicConstraints=critical,CA:true' -addext 'keyUsage=critical,keyCertSign,cRLSign' 2>/dev/null
fi
for role in broker etcd; do
    mapfile -t names < <(output ".tls_names.value[\"$role\"][]")
    issue "$role" "${names[@]}" "$@"
    put "$(output ".tls_secrets.value[\"$role\"]")" "$role.pem"
done
put "$(output '.tls_secrets.value.ca')" ca.pem
# For clients that log in by certificate (client_authentication = "mtls").
issue admin

admin=$(output '.admin_secret.value')
if ! aws secretsmanager get-secret-value --secret-id "$admin" >/dev/null 2>&1; then
    openssl rand -hex 24 | tr -d '\n' >admin-password
    put "$admin" admin-password
    rm admin-password
fi
