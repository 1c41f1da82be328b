//! Kafka's own producer and consumer at work, and whether they saw a single error.
//!
//! Both retry by themselves what a client may retry: an error is what an application would hear of.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Result, ensure};
use serde_json::Value;

use crate::{cluster::Cluster, kcat, node::eventually, running::Running, tools};

/// Where the producer writes.
pub const WATCHED: &str = "watched";
/// Records per second.
const RATE: &str = "100";
/// What the producer says of a record that it was about to send when it was asked to end.
const CLOSED: &str = "after producer has been closed";

/// A producer (acks=all, idempotent) and a consumer of what it writes; killed when dropped.
pub struct Pair {
    producer: Running,
    consumer: Running,
    /// What the producer prints.
    log: PathBuf,
}

impl Pair {
    /// Makes [`WATCHED`], which is on three brokers and written with two of them, and waits until both have begun. `folder` is for
    /// what they print.
    ///
    /// # Errors
    /// One of them does not begin.
    pub fn start(cluster: &Cluster, folder: &Path) -> Result<Pair> {
        cluster.create(WATCHED, 6, 3, &[("min.insync.replicas", "2")])?;
        let addresses: Vec<String> = cluster.addresses().iter().map(ToString::to_string).collect();
        let common = ["--topic", WATCHED, "--bootstrap-server", &addresses.join(",")];
        let settings = folder.join("producer.properties");
        // The tool does not retry by itself; Kafka's producer does.
        fs::write(&settings, "retries=2147483647\nenable.idempotence=true\n")?;
        let mut produce = tools::program("kafka-verifiable-producer.sh")?;
        produce.args(common).args(["--throughput", RATE, "--acks", "-1", "--command-config"]).arg(&settings);
        let log = folder.join("producer.log");
        let mut producer = Running::start(produce, &log)?;
        let mut consume = tools::program("kafka-verifiable-consumer.sh")?;
        // A machine with much else to do takes it for dead no sooner.
        consume.args(common).args(["--group-id", "watchers", "--reset-policy", "earliest", "--verbose"]);
        consume.args(["--session-timeout", "300000"]);
        let mut consumer = Running::start(consume, &folder.join("consumer.log"))?;
        eventually("both have begun", || {
            ensure!(producer.ended()?.is_none() && consumer.ended()?.is_none(), "{}", consumer.printed());
            let is_so = !events(&producer.printed(), "producer_send_success").is_empty();
            Ok((is_so && !events(&consumer.printed(), "record_data").is_empty()).then_some(()))
        })?;
        Ok(Pair { producer, consumer, log })
    }

    /// Ends both: neither may have seen an error, and what was acknowledged is there, once each, and was read.
    ///
    /// # Errors
    /// It is not so.
    pub fn judge(self, cluster: &Cluster) -> Result<()> {
        let Pair { mut producer, mut consumer, log } = self;
        ensure!(producer.ended()?.is_none(), "the producer ended:\n{}", producer.printed());
        producer.terminate()?;
        let printed = fs::read_to_string(&log)?;
        let mut refused = events(&printed, "producer_send_error");
        refused.retain(|event| !event.to_string().contains(CLOSED));
        ensure!(refused.is_empty(), "the producer saw {} errors: {:?}", refused.len(), refused.first());
        let acknowledged = places(&events(&printed, "producer_send_success"));
        let written = kcat::read_committed(cluster.addresses()[0], WATCHED)?;
        let found: BTreeSet<(i64, i64)> =
            written.iter().map(|record| (i64::from(record.partition), record.offset)).collect();
        ensure!(found == acknowledged, "{} records are acknowledged, {} are there", acknowledged.len(), found.len());
        eventually("the consumer has read all", || {
            let printed = consumer.printed();
            ensure!(consumer.ended()?.is_none(), "the consumer ended:\n{printed}");
            Ok(found.is_subset(&places(&events(&printed, "record_data"))).then_some(()))
        })?;
        let mut committed = events(&consumer.printed(), "offsets_committed");
        committed.retain(|event| event["success"] != true);
        ensure!(committed.is_empty(), "the consumer saw {} errors: {:?}", committed.len(), committed.first());
        consumer.terminate()
    }
}

fn events(printed: &str, name: &str) -> Vec<Value> {
    let lines = printed.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    lines.filter(|event| event["name"] == name).collect()
}

/// Partition and offset of each record that is told of.
fn places(events: &[Value]) -> BTreeSet<(i64, i64)> {
    events.iter().filter_map(|event| Some((event["partition"].as_i64()?, event["offset"].as_i64()?))).collect()
}
