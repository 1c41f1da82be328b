//! The same scripted requests to Apache Kafka 4.3 and to Varve: valid ones, boundaries, and nonsense, in every version.
//! The answers must agree in every field, but for what [`differences::MEANT`] names.

mod acls;
mod administration;
mod configs;
mod consumers;
mod credentials;
mod data;
mod differences;
mod fetch;
mod frames;
mod groups;
mod listeners;
mod malformed;
mod members;
mod newest;
mod page;
mod request;
mod shares;
mod streams;
mod topics;
mod transactions;

use anyhow::{Result, ensure};
use differences::{listed, take_meant};
use kafka_protocol::messages::ApiVersionsRequest;
use varve_tests::{
    differential::{Difference, Pair, Side},
    kafka::Kafka,
    node::Node,
};

/// What both brokers are told.
const BOTH: [&str; 19] = [
    // The scripts' records are of a fixed day.
    "log.retention.ms=-1",
    "group.initial.rebalance.delay.ms=0",
    "group.consumer.assignment.interval.ms=0",
    "group.share.assignment.interval.ms=0",
    "group.streams.initial.rebalance.delay.ms=0",
    "group.streams.assignment.interval.ms=0",
    "offsets.topic.num.partitions=1",
    "offsets.topic.replication.factor=1",
    "share.coordinator.state.topic.num.partitions=1",
    "share.coordinator.state.topic.replication.factor=1",
    "share.coordinator.state.topic.min.isr=1",
    "transaction.state.log.num.partitions=1",
    "transaction.state.log.replication.factor=1",
    "transaction.state.log.min.isr=1",
    // Settings that DescribeConfigs shows in ways of their own; nobody reads them here.
    "super.users=User:root",
    "allow.everyone.if.no.acl.found=true",
    "listener.name.plaintext.ssl.client.auth=requested",
    "listener.name.plaintext.plain.sasl.jaas.config=x.PlainLoginModule required user_a=\"b\";",
    "listener.name.plaintext.plain.connections.max.reauth.ms=5",
];

type Script<'a> = &'a dyn Fn(&mut Pair) -> Result<()>;
/// Only the first listener is: others may go.
const ADVERTISED: &str = "advertised.listeners=PLAINTEXT://127.0.0.1:0";

#[test]
fn varve_answers_as_apache_kafka_does() -> Result<()> {
    let (kafkas, varves) = (tempfile::tempdir()?, tempfile::tempdir()?);
    let kafka = Kafka::start(kafkas.path(), &BOTH)?;
    let varve = Node::start(varves.path(), &[&BOTH[..], &["node.id=1", ADVERTISED]].concat())?;
    let mut pair = Pair::new(kafka.address, varve.address);
    let only = std::env::var("VARVE_CONFORMANCE_ONLY").unwrap_or_default();
    let of_kafka = format!("PLAINTEXT://{},CONTROLLER://{}", kafka.address, kafka.controller);
    let listeners = |pair: &mut Pair| listeners::script(pair, &of_kafka);
    let scripts: [(&str, Script<'_>); 16] = [
        ("frames", &frames::script),
        ("topics", &topics::script),
        ("data", &data::script),
        ("configs", &configs::script),
        ("listeners", &listeners),
        ("groups", &groups::script),
        ("members", &members::script),
        ("acls", &acls::script),
        ("consumers", &consumers::script),
        ("streams", &streams::script),
        ("newest", &newest::script),
        ("transactions", &transactions::script),
        ("shares", &shares::script),
        ("administration", &administration::script),
        ("credentials", &credentials::script),
        // The last one: it cuts what the others have sent.
        ("malformed", &malformed::script),
    ];
    for (name, script) in scripts {
        if name.contains(&only) {
            let asked = pair.asked;
            if let Err(error) = script(&mut pair) {
                let lines = vec![format!("the script ended after {} requests: {error:?}", pair.asked - asked)];
                pair.differences.push(Difference { name: name.to_owned(), version: None, lines });
            }
        }
    }
    let mut found = std::mem::take(&mut pair.differences);
    let idle = take_meant(&mut found);
    eprintln!("{} requests", pair.asked);
    ensure!(found.is_empty(), "{} answers differ\n{}", found.len(), listed(&found));
    if only.is_empty() {
        ensure!(idle.is_empty(), "differences that are meant, but are none: {idle:#?}");
        let asked = |_: i16, _: &Side| ApiVersionsRequest::default();
        let [kafkas, varves] = pair.ask("api-versions", &[0], asked)?;
        page::check(&pair, &page::advertised(&kafkas)?, &page::advertised(&varves)?)?;
    }
    Ok(())
}
