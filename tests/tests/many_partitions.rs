//! Ten thousand partitions on one node.

use anyhow::{Result, ensure};
use bytes::Bytes;
use varve_log::format::{BatchBuilder, RecordContent};
use varve_metadata::model::{Offset, Timestamp};
use varve_tests::{
    client::{Client, FetchSpec, after_last_batch},
    node::Node,
};

const TOPICS: usize = 10;
const PARTITIONS: i32 = 1_000;

/// Some partitions of each topic: first, last, and between.
fn sample() -> impl Iterator<Item = (String, i32)> {
    let topics = (0..TOPICS).map(|number| format!("topic-{number}"));
    topics.flat_map(|topic| [0, 1, 499, 998, 999].map(|partition| (topic.clone(), partition)))
}

fn batch() -> Result<Bytes> {
    let mut batch = BatchBuilder::new(Offset::ZERO);
    // Of today: older records would fall to retention in the middle of the test.
    let today = std::time::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_millis() as i64);
    let timestamp = Timestamp::from_wire(today);
    batch.push(RecordContent { timestamp, key: None, value: Some(b"value"), headers: &[] });
    Ok(batch.build()?.into())
}

fn everything_is_there(node: &Node, end: i64) -> Result<()> {
    let mut client = Client::connect(node.address)?;
    for (topic, partition) in sample() {
        ensure!(client.list_offset(&topic, partition, -1)? == end, "{topic}-{partition} ends at {end}");
        let fetch = FetchSpec { topic: &topic, partition, max_bytes: 1 << 20, max_wait_ms: 100 };
        let records = client.fetch(&fetch, 0)?;
        ensure!(after_last_batch(&records, 0).0 == end, "{topic}-{partition} gives its records");
    }
    Ok(())
}

/// Every answer has its own limit of a minute, and every start one of two (`varve_tests::client`, `varve_tests::node`):
/// a node whose work grows faster than its partitions does not keep them.
#[test]
fn ten_thousand_partitions_are_created_written_read_and_opened_again() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let node = Node::start(folder.path(), &[])?;
    let mut client = Client::connect(node.address)?;
    for number in 0..TOPICS {
        client.create_topic(&format!("topic-{number}"), PARTITIONS, &[])?;
    }
    ensure!(node.http_get("/metrics")?.contains("varve_partitions 10000\n"), "all are open");
    for (topic, partition) in sample() {
        ensure!(client.produce(&topic, partition, batch()?)? == 0, "the first record of {topic}-{partition}");
    }
    everything_is_there(&node, 1)?;
    node.stop()?;

    let node = Node::start(folder.path(), &[])?;
    everything_is_there(&node, 1)?;
    node.kill();
    let node = Node::start(folder.path(), &[])?;
    let mut client = Client::connect(node.address)?;
    for (topic, partition) in sample() {
        ensure!(client.produce(&topic, partition, batch()?)? == 1, "the second record of {topic}-{partition}");
    }
    everything_is_there(&node, 2)?;
    node.stop()
}
