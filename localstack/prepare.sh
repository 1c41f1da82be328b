#!/usr/bin/env bash
# In the rig of containers (compose.yaml): fills the module's secrets and writes what each broker finds in /etc/varve.
#
#   prepare.sh all | password
set -euo pipefail

# The user of varve's image.
varve=${OWNER:-65532}
# Where volumes are mounted.
root=${ROOT:-}
outputs=$root/state/outputs.json

if [ "${1:-}" = password ]; then
    aws secretsmanager get-secret-value --secret-id rig/admin-password --query SecretString --output text
    exit
fi
"$root/checkout/deploy/terraform/fill-secrets.sh" "$root/authority" localhost 127.0.0.1 <"$outputs"
# etcd's image runs as root, and reads its certificate here.
for broker in 1 2 3; do
    export ETC=$root/etc-$broker
    jq --raw-output .varve.value.server_properties "$outputs" >"$ETC/server.properties.in"
    cat >"$ETC/instance.env" <<END
AWS_DEFAULT_REGION='us-east-1'
CLUSTER='rig'
ROLE='broker'
SECRETS='rig'
WITH_SCRAM='1'
EXTERNAL_PORTS='9200'
EXTERNAL_TARGETS=''
VARVE_URL=''
VARVE_SHA256=''
END
    # shellcheck source-path=SCRIPTDIR source=../deploy/terraform/instance/broker.sh
    (
        . "$LIB/broker.sh"
        refresh_tls "$varve"
        write_environment
        {
            render_properties "$broker" "us-east-1$(cut --characters "$broker" <<<abc)"
            # The image has no shell that would read an environment file.
            sed 's/^VARVE_FIRST_USERS=/varve.first.users=/' "$ETC/environment"
        } | replace "$ETC/server.properties" "$varve"
    )
    cat >"$ETC/aws" <<END
[default]
role_arn = $(jq --raw-output .varve.value.broker_role_arn "$outputs")
source_profile = owner
region = us-east-1
[profile owner]
aws_access_key_id = test
aws_secret_access_key = test
END
    chown -R "$varve" "$ETC"
done
