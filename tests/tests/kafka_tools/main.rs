//! An administrator's day with Kafka's own shell tools against one node. What the tools print here is what they print
//! against Apache Kafka 4.3, unless a comment says why not.

mod administration;
mod cluster;
mod configs;
mod data;
mod dump;
mod groups;
mod listeners;
mod partitions;
mod quotas;
mod share_groups;
mod topics;
mod transactions;
mod unserved;

use anyhow::{Context, Result, ensure};
use varve_log::format::{BatchBuilder, RecordContent};
use varve_metadata::{
    config::Codec,
    model::{Offset, Timestamp},
};
use varve_tests::{client::Client, node::Node};

/// Milliseconds since the epoch.
fn now() -> i64 {
    std::time::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_millis() as i64)
}

/// Writes one batch of `values` with their timestamps (milliseconds since the epoch) to a partition.
fn produce(node: &Node, topic: &str, partition: i32, codec: Codec, records: &[(i64, &str)]) -> Result<i64> {
    let mut batch = BatchBuilder::new(Offset::ZERO).compression(codec, None);
    for (timestamp, value) in records {
        let timestamp = Some(Timestamp::from_wire(*timestamp).context("a time")?);
        batch.push(RecordContent { timestamp, key: None, value: Some(value.as_bytes()), headers: &[] });
    }
    Client::connect(node.address)?.produce(topic, partition, batch.build()?.into())
}

/// The table in what a tool printed: the words of each line from the one that starts with `first_column` on.
fn table<'a>(printed: &'a str, first_column: &str) -> Result<Vec<Vec<&'a str>>> {
    let lines = printed.lines().skip_while(|line| !line.starts_with(first_column)).skip(1);
    let rows: Vec<Vec<&str>> = lines.map(|line| line.split_whitespace().collect()).collect();
    ensure!(printed.contains(first_column), "no column {first_column}:\n{printed}");
    Ok(rows)
}
