//! Ten thousand partitions on one node.

use std::{collections::BTreeSet, fs, path::Path};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use varve_log::format::{BatchBuilder, RecordContent};
use varve_metadata::model::{Offset, Timestamp};
use varve_tests::{
    client::{Client, FetchSpec, after_last_batch, produce_frame},
    node::Node,
};

const TOPICS: usize = 10;
const PARTITIONS: i32 = 1_000;
/// Of the topic whose segments are rolled.
const ROLLED: &str = "topic-7";
/// Partitions that one request writes to.
const AT_ONCE: i32 = 100;
/// Segments that are as far apart as two batches.
const CONFIGS: &[(&str, &str)] = &[("segment.ms", "10000")];

/// Some partitions of each topic: first, last, and between.
fn sample() -> impl Iterator<Item = (String, i32)> {
    let topics = (0..TOPICS).map(|number| format!("topic-{number}"));
    topics.flat_map(|topic| [0, 1, 499, 998, 999].map(|partition| (topic.clone(), partition)))
}

/// A record of that many milliseconds ago. Of today: older ones would fall to retention in the middle of the test.
fn batch(ago: i64) -> Result<Bytes> {
    let mut batch = BatchBuilder::new(Offset::ZERO);
    let now = std::time::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_millis() as i64);
    let timestamp = Timestamp::from_wire(now - ago);
    batch.push(RecordContent { timestamp, key: None, value: Some(b"value"), headers: &[] });
    Ok(batch.build()?.into())
}

fn everything_is_there(node: &Node, end: i64) -> Result<()> {
    let mut client = Client::connect(node.address)?;
    for (topic, partition) in sample() {
        ensure!(client.list_offset(&topic, partition, -1)? == end, "{topic}-{partition} ends at {end}");
        let fetch = FetchSpec { topic: &topic, partition, max_bytes: 1 << 20, max_wait_ms: 100 };
        let mut next = 0;
        while next < end {
            let (after, _) = after_last_batch(&client.fetch(&fetch, next)?, next);
            ensure!(after > next, "{topic}-{partition} gives its record {next}");
            next = after;
        }
    }
    Ok(())
}

/// One batch to every partition of the topic that is rolled.
fn write_to_all(client: &mut Client, ago: i64) -> Result<()> {
    for first in (0..PARTITIONS).step_by(AT_ONCE as usize) {
        let batches = (first..first + AT_ONCE).map(|partition| Ok((partition, batch(ago)?)));
        client.send_frame(&produce_frame(ROLLED, &batches.collect::<Result<Vec<_>>>()?)?)?;
        client.receive_produced()?;
    }
    Ok(())
}

/// Where the segments of a partition begin.
fn segments(folder: &Path, partition: i32) -> Result<BTreeSet<u64>> {
    let mut bases = BTreeSet::new();
    for entry in fs::read_dir(folder.join(format!("varve-data/log/{ROLLED}-{partition}")))? {
        let name = entry?.file_name();
        if let Some(base) = name.to_str().and_then(|name| name.strip_suffix(".log")) {
            bases.insert(base.parse().with_context(|| name.to_string_lossy().into_owned())?);
        }
    }
    Ok(bases)
}

/// Every answer has its own limit of three minutes, and every start one of five (`varve_tests::client`, `varve_tests::node`):
/// a node whose work grows faster than its partitions does not keep them.
#[test]
fn ten_thousand_partitions_are_created_written_rolled_read_and_opened_again() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let node = Node::start(folder.path(), &[])?;
    let mut client = Client::connect(node.address)?;
    for number in 0..TOPICS {
        client.create_topic(&format!("topic-{number}"), PARTITIONS, CONFIGS)?;
    }
    ensure!(node.http_get("/metrics")?.contains("varve_partitions 10000\n"), "all are open");
    write_to_all(&mut client, 60_000)?;
    for (topic, partition) in sample().filter(|(topic, _)| topic != ROLLED) {
        ensure!(client.produce(&topic, partition, batch(0)?)? == 0, "the first record of {topic}-{partition}");
    }
    everything_is_there(&node, 1)?;
    // A second record, so much later by its time that it begins a segment.
    write_to_all(&mut client, 0)?;
    for partition in 0..PARTITIONS {
        let bases = segments(folder.path(), partition)?;
        ensure!(bases.contains(&1), "{ROLLED}-{partition} has the segments {bases:?}");
    }
    for (topic, partition) in sample().filter(|(topic, _)| topic != ROLLED) {
        ensure!(client.produce(&topic, partition, batch(0)?)? == 1, "the second record of {topic}-{partition}");
    }
    everything_is_there(&node, 2)?;
    node.stop()?;

    let node = Node::start(folder.path(), &[])?;
    everything_is_there(&node, 2)?;
    node.kill();
    let node = Node::start(folder.path(), &[])?;
    let mut client = Client::connect(node.address)?;
    for (topic, partition) in sample() {
        ensure!(client.produce(&topic, partition, batch(0)?)? == 2, "the third record of {topic}-{partition}");
    }
    everything_is_there(&node, 3)?;
    node.stop()
}
