//! Replication throttles (KIP-73) as `kafka-reassign-partitions.sh --throttle` sets and removes them.

use std::fs;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use varve_log::format::{BatchBuilder, RecordContent};
use varve_metadata::model::{Offset, Timestamp};
use varve_tests::{
    client::Client,
    cluster::Cluster,
    kafka_tools::KafkaTools,
    node::{eventually, until},
};

const BROKERS: usize = 3;
const TOPIC: &str = "ledger";
const SETTINGS: [&str; 3] =
    ["broker.session.timeout.ms=3600000", "replica.lag.time.max.ms=300000", "remote.log.storage.system.enable=false"];
/// Bytes per second with which what is copied would take an hour.
const SLOW: u64 = 1_000;
const RECORD_BYTES: usize = 400_000;
const RECORDS: usize = 40;

/// Not so old that retention would take it.
fn now() -> Result<Option<Timestamp>> {
    Ok(Timestamp::from_wire(std::time::UNIX_EPOCH.elapsed()?.as_millis() as i64))
}

fn metric(cluster: &Cluster, at: usize, name: &str) -> Result<f64> {
    let page = cluster.node(at).http_get("/metrics")?;
    let line = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.with_context(|| format!("{name} is not in\n{page}"))?.parse().context("a number")
}

#[test]
fn kafkas_tool_sets_a_throttle_that_holds_and_takes_it_away_again() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let cluster = Cluster::start(folder.path(), BROKERS, &SETTINGS)?;
    let tools = KafkaTools::at(cluster.addresses()[0]);
    tools.run(&format!("kafka-topics.sh --create --topic {TOPIC} --replica-assignment 0:1"))?;
    cluster.await_isr(TOPIC, 2)?;
    let leader = cluster.describe(TOPIC)?[0].leader.context("somebody leads")?;
    let mut client = Client::connect(cluster.addresses()[leader])?;
    for _ in 0..RECORDS {
        let (value, timestamp) = (vec![7; RECORD_BYTES], now()?);
        let mut batch = BatchBuilder::new(Offset::ZERO);
        batch.push(RecordContent { timestamp, key: None, value: Some(&value), headers: &[] });
        client.produce(TOPIC, 0, Bytes::from(batch.build()?))?;
    }
    let plan = folder.path().join("plan.json");
    fs::write(
        &plan,
        format!(r#"{{"version":1,"partitions":[{{"topic":"{TOPIC}","partition":0,"replicas":[0,1,2]}}]}}"#),
    )?;
    let reassign = |what: &str| {
        tools.run(&format!("kafka-reassign-partitions.sh --reassignment-json-file {} {what}", plan.display()))
    };
    reassign(&format!("--execute --throttle {SLOW}"))?;
    let of_brokers = || tools.run("kafka-configs.sh --describe --entity-type brokers --entity-name 2");
    let of_topic = || tools.run(&format!("kafka-configs.sh --describe --entity-type topics --entity-name {TOPIC}"));
    // A broker may hear of what another one has noted only after the tool.
    let say = |ask: &dyn Fn() -> Result<String>, words: &str, is_so: bool| {
        let not = if is_so { "" } else { "not " };
        until(&format!("a broker does {not}say {words}"), || {
            let said = ask()?;
            ensure!(said.contains(words) == is_so, "{said}");
            Ok(())
        })
    };
    say(&of_brokers, &format!("follower.replication.throttled.rate={SLOW}"), true)?;
    say(&of_topic, "follower.replication.throttled.replicas=0:2", true)?;

    // The new replica has had what one fetch gives, and then waits; one side is enough to hold it back.
    eventually("the new replica is held back", || {
        let held = metric(&cluster, 2, "varve_replication_held_back_total{side=\"follower\"}")?
            + metric(&cluster, leader, "varve_replication_held_back_total{side=\"leader\"}")?;
        Ok((held > 0.0).then_some(()))
    })?;
    let sent = metric(&cluster, leader, "varve_replication_throttled_bytes_total{side=\"leader\"}")?;
    ensure!(sent < (RECORDS * RECORD_BYTES) as f64, "{sent} bytes were sent at once");
    let rate = || metric(&cluster, 2, "varve_replication_throttle_rate_bytes{side=\"follower\"}");
    eventually("the rate is shown", || Ok((rate()? == SLOW as f64).then_some(())))?;
    say(&|| reassign("--verify --preserve-throttles"), "is still in progress", true)?;
    // Replicas in sync are not held back, throttled or not: they are what producers wait for.
    let (value, timestamp) = (b"now", now()?);
    let mut batch = BatchBuilder::new(Offset::ZERO);
    batch.push(RecordContent { timestamp, key: None, value: Some(value), headers: &[] });
    client.produce(TOPIC, 0, Bytes::from(batch.build()?))?;
    ensure!(cluster.describe(TOPIC)?[0].isr.len() == 2, "{:?}", cluster.describe(TOPIC)?);

    // A larger rate holds at once.
    reassign("--execute --additional --throttle 100000000")?;
    cluster.await_isr(TOPIC, BROKERS)?;
    eventually("the reassignment is over", || {
        Ok(reassign("--verify --preserve-throttles")?.contains("is completed").then_some(()))
    })?;
    let printed = reassign("--verify")?;
    ensure!(
        printed.contains("Clearing broker-level throttles") && printed.contains("Clearing topic-level"),
        "{printed}"
    );
    say(&of_brokers, "throttled.rate=1", false)?;
    say(&of_topic, "throttled.replicas=0", false)?;
    eventually("there is no rate any more", || Ok((rate()? == -1.0).then_some(())))?;

    // All replicas of a topic at once.
    tools.run(&format!(
        "kafka-configs.sh --alter --entity-type topics --entity-name {TOPIC} \
         --add-config leader.replication.throttled.replicas=*,follower.replication.throttled.replicas=*"
    ))?;
    say(&of_topic, "leader.replication.throttled.replicas=*", true)
}
