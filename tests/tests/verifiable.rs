//! Kafka's own verifiable producer and consumer beside a node that is killed in a loop: what the one says was acknowledged
//! is there once and in order, and the other has read all of it.
//!
//! `VARVE_VERIFIABLE_RECORDS` changes how many records are sent, at a thousand a second.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use varve_tests::{
    client::Client,
    kcat,
    node::{Node, eventually, stable_address},
    running::Running,
    tools,
    workload::Random,
};

const RECORDS: u64 = 6_000;
const OVERRIDES: [&str; 4] = [
    "group.initial.rebalance.delay.ms=0",
    "group.min.session.timeout.ms=1000",
    "varve.archive.lag.ms=500",
    "log.retention.check.interval.ms=200",
];

/// The events of a kind that a tool has told.
fn told(tool: &Running, name: &str) -> Vec<Value> {
    let printed = tool.printed();
    let lines = printed.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    lines.filter(|event| event["name"] == name).collect()
}

#[test]
fn kafkas_verifiable_clients_agree_though_the_node_is_killed_in_a_loop() -> Result<()> {
    let records = match std::env::var("VARVE_VERIFIABLE_RECORDS") {
        Ok(text) => text.parse().with_context(|| format!("VARVE_VERIFIABLE_RECORDS={text}"))?,
        Err(_) => RECORDS,
    };
    let folder = tempfile::tempdir()?;
    let address = stable_address()?;
    let mut node = Node::start_at(folder.path(), address, &OVERRIDES)?;
    let configs = [("segment.bytes", "1048576"), ("local.retention.bytes", "50000"), ("retention.ms", "-1")];
    Client::connect(address)?.create_topic("checked", 2, &configs)?;
    // The tool does not retry by itself; Kafka's producer does.
    let settings = folder.path().join("producer.properties");
    let patient = "retries=2147483647\ndelivery.timeout.ms=2147483647\nenable.idempotence=true\n";
    fs::write(&settings, format!("{patient}reconnect.backoff.max.ms=200\n"))?;
    let bootstrap = address.to_string();
    let common = ["--topic", "checked", "--bootstrap-server", &bootstrap];
    let mut produce = tools::program("kafka-verifiable-producer.sh")?;
    produce.args(common).args(["--throughput", "1000", "--max-messages", &records.to_string()]);
    produce.args(["--repeating-keys", "50", "--command-config"]).arg(&settings);
    let mut producer = Running::start(produce, &folder.path().join("producer.log"))?;
    let mut consume = tools::program("kafka-verifiable-consumer.sh")?;
    consume.args(common).args(["--group-id", "checkers", "--reset-policy", "earliest", "--verbose"]);
    let settings = folder.path().join("consumer.properties");
    fs::write(&settings, "heartbeat.interval.ms=500\n")?;
    consume.args(["--session-timeout", "3000", "--group-protocol", "classic", "--command-config"]).arg(&settings);
    let mut consumer = Running::start(consume, &folder.path().join("consumer.log"))?;
    eventually("both have begun", || {
        ensure!(producer.ended()?.is_none() && consumer.ended()?.is_none(), "{}", consumer.printed());
        Ok((!told(&producer, "producer_send_success").is_empty() && !told(&consumer, "record_data").is_empty())
            .then_some(()))
    })?;
    let mut random = Random(1);
    let mut kills = 0;
    while producer.ended()?.is_none() {
        let before = told(&producer, "producer_send_success").len();
        std::thread::park_timeout(Duration::from_millis(200 + random.below(1_000)));
        // Lives that are too short for a busy machine alternate with those in which something is acknowledged.
        if kills % 2 == 0 {
            eventually("something is acknowledged", || {
                let is_over = producer.ended()?.is_some();
                Ok((is_over || told(&producer, "producer_send_success").len() > before).then_some(()))
            })?;
        }
        node.kill();
        node = Node::start_at(folder.path(), address, &OVERRIDES)?;
        kills += 1;
        ensure!(kills < records, "the producer does not end:\n{}", producer.printed());
    }
    let acknowledged = told(&producer, "producer_send_success");
    ensure!(told(&producer, "producer_send_error").is_empty(), "nothing is given up:\n{}", producer.printed());
    ensure!(acknowledged.len() as u64 == records, "{} of {records} acknowledged", acknowledged.len());

    let written = kcat::read_committed(address, "checked")?;
    ensure!(written.len() as u64 == records, "{} records are there, of {records}", written.len());
    let at: BTreeMap<(i64, i64), &str> =
        written.iter().map(|record| ((i64::from(record.partition), record.offset), record.value.as_str())).collect();
    for event in &acknowledged {
        let place = (event["partition"].as_i64().context("partition")?, event["offset"].as_i64().context("offset")?);
        let value = event["value"].as_str().context("value")?;
        ensure!(at.get(&place) == Some(&value), "{event}: {:?} is there", at.get(&place));
    }
    for partition in 0..2 {
        let values = written.iter().filter(|record| record.partition == partition);
        let values: Vec<u64> = values.map(|record| record.value.parse()).collect::<Result<_, _>>()?;
        ensure!(values.is_sorted_by(|one, next| one < next), "partition {partition} is in the order of sending");
    }
    eventually("the consumer has read all", || {
        ensure!(consumer.ended()?.is_none(), "the consumer ended");
        let read: BTreeSet<(i64, i64)> = told(&consumer, "record_data")
            .iter()
            .filter_map(|event| Some((event["partition"].as_i64()?, event["offset"].as_i64()?)))
            .collect();
        Ok(at.keys().all(|place| read.contains(place)).then_some(()))
    })
    .with_context(|| consumer.printed().lines().rev().take(20).collect::<Vec<_>>().join("\n"))?;
    for event in told(&consumer, "record_data") {
        let place = (event["partition"].as_i64().context("partition")?, event["offset"].as_i64().context("offset")?);
        ensure!(at.get(&place).is_some_and(|value| event["value"] == *value), "{event}: {:?} is there", at.get(&place));
    }
    println!("{records} records over {kills} kills");
    consumer.terminate()?;
    node.stop()
}
