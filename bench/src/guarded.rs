//! The hot path with guards: rules and quotas in force, or TLS on the wire. Both brokers are told the same.

use anyhow::{Context, Result, ensure};
use kafka_protocol::{
    messages::{
        AlterClientQuotasRequest, CreateAclsRequest,
        alter_client_quotas_request::{EntityData, EntryData, OpData},
        create_acls_request::AclCreation,
    },
    protocol::StrBytes,
};
use varve_metadata::config::Codec;
use varve_tests::{certificates::Authority, client::Client, lines::Lines};

use crate::{
    Settings,
    load::frames,
    servers::{Kind, LOCAL_ONLY, Server},
    tunnel::Tunnel,
    workloads::{BATCH_BYTES, DISTINCT_BYTES, Labels, PARTITIONS, TOPIC, create_topic, produce_and_consume, wanted},
};

/// Rules of other principals and topics, which a broker has to see past.
const OTHER_RULES: usize = 1_000;

const WITH_RULES: Labels = Labels {
    produce_cpu: "with ACLs and quotas: produce, CPU-s per GB",
    produce_rate: "with ACLs and quotas: produce, MB/s",
    produce_load: "with ACLs and quotas: produce, the load generator's CPU-s per GB",
    consume_cpu: "with ACLs and quotas: consume, CPU-s per GB",
    consume_rate: "with ACLs and quotas: consume, MB/s",
    consume_load: "with ACLs and quotas: consume, the load generator's CPU-s per GB",
    resident: "with ACLs and quotas: resident under load, MB",
};

const WITH_TLS: Labels = Labels {
    produce_cpu: "over TLS: produce, CPU-s per GB",
    produce_rate: "over TLS: produce, MB/s",
    produce_load: "over TLS: produce, the load generator's CPU-s per GB",
    consume_cpu: "over TLS: consume, CPU-s per GB",
    consume_rate: "over TLS: consume, MB/s",
    consume_load: "over TLS: consume, the load generator's CPU-s per GB",
    resident: "over TLS: resident under load, MB",
};

/// Produces and consumes while each request is looked up in the rules and counted against quotas that nobody reaches.
pub(crate) fn rules(
    settings: &Settings,
    kind: Kind,
    lines: &Lines,
    note: &mut impl FnMut(&'static str, f64),
) -> Result<()> {
    if !wanted(settings, "rules") {
        return Ok(());
    }
    // Whatever has no rule may be done by all, so that there is somebody to make the first rule. The topic has rules.
    let guards = [
        "authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "allow.everyone.if.no.acl.found=true",
    ];
    let server = Server::start(settings, kind, &[LOCAL_ONLY], &guards)?;
    let mut admin = Client::connect(server.address)?;
    create_topic(&mut admin, TOPIC, PARTITIONS)?;
    make_rules(&mut admin)?;
    make_quotas(&mut admin)?;
    measure(settings, &server, &mut || Client::connect(server.address), lines, &WITH_RULES, note)
}

/// Produces and consumes over TLS; the load generator's end of it is in this process.
pub(crate) fn tls(
    settings: &Settings,
    kind: Kind,
    lines: &Lines,
    note: &mut impl FnMut(&'static str, f64),
) -> Result<()> {
    if !wanted(settings, "tls") {
        return Ok(());
    }
    let folder = tempfile::tempdir()?;
    let authority = Authority::new(folder.path(), "authority")?;
    let broker = authority.issue("broker", &["127.0.0.1", "localhost"], false)?;
    let key_store = format!("ssl.keystore.location={}", broker.both.display());
    let server = Server::start_with_tls(settings, kind, &[LOCAL_ONLY], &["ssl.keystore.type=PEM", &key_store])?;
    create_topic(&mut Client::connect(server.address)?, TOPIC, PARTITIONS)?;
    let tunnel = Tunnel::to(server.tls.context("a listener for TLS")?, &authority.certificate)?;
    measure(settings, &server, &mut || Client::connect(tunnel.address), lines, &WITH_TLS, note)
}

fn measure(
    settings: &Settings,
    server: &Server,
    connect: &mut impl FnMut() -> Result<Client>,
    lines: &Lines,
    labels: &Labels,
    note: &mut impl FnMut(&'static str, f64),
) -> Result<()> {
    let batches = lines.batches(Codec::None, BATCH_BYTES, DISTINCT_BYTES)?;
    let mut all_frames = frames(TOPIC, PARTITIONS, &batches)?;
    drop(batches);
    produce_and_consume(settings, server, connect, &mut all_frames, labels, note)
}

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

fn make_rules(admin: &mut Client) -> Result<()> {
    const TOPICS: i8 = 2;
    const LITERAL: i8 = 3;
    const PREFIXED: i8 = 4;
    const READ: i8 = 3;
    const WRITE: i8 = 4;
    let rule = |name: &str, pattern: i8, principal: &str, operation: i8| {
        AclCreation::default()
            .with_resource_type(TOPICS)
            .with_resource_name(text(name))
            .with_resource_pattern_type(pattern)
            .with_principal(text(principal))
            .with_host(text("*"))
            .with_operation(operation)
            .with_permission_type(3)
    };
    let mut rules: Vec<AclCreation> = [READ, WRITE]
        .into_iter()
        .flat_map(|operation| [(TOPIC, LITERAL), ("ben", PREFIXED)].map(|(name, pattern)| (name, pattern, operation)))
        .map(|(name, pattern, operation)| rule(name, pattern, "User:ANONYMOUS", operation))
        .collect();
    rules.extend((0..OTHER_RULES).map(|number| {
        let pattern = [LITERAL, PREFIXED][number % 2];
        rule(&format!("other-{}", number % 100), pattern, &format!("User:somebody-{number}"), READ)
    }));
    let answer = admin.ask(3, &CreateAclsRequest::default().with_creations(rules))?;
    for result in answer.results {
        ensure!(result.error_code == 0, "CreateAcls: {} {:?}", result.error_code, result.error_message);
    }
    Ok(())
}

/// For whoever has none of their own, so far up that nobody is told to wait.
fn make_quotas(admin: &mut Client) -> Result<()> {
    let entry = |kind: &str| {
        let entity = EntityData::default().with_entity_type(text(kind)).with_entity_name(None);
        let rates = ["producer_byte_rate", "consumer_byte_rate", "request_percentage"];
        let ops = rates.map(|rate| OpData::default().with_key(text(rate)).with_value(1e12));
        EntryData::default().with_entity(vec![entity]).with_ops(ops.to_vec())
    };
    let request = AlterClientQuotasRequest::default().with_entries(vec![entry("client-id"), entry("user")]);
    for result in admin.ask(1, &request)?.entries {
        ensure!(result.error_code == 0, "AlterClientQuotas: {} {:?}", result.error_code, result.error_message);
    }
    Ok(())
}
