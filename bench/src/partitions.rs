//! What ten thousand partitions cost on one node.

use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result};
use bytes::Bytes;
use varve_log::format::{BatchBuilder, RecordContent};
use varve_metadata::model::{Offset, Timestamp};
use varve_tests::client::{Client, FetchSpec, produce_frame};

use crate::{
    Settings,
    load::produce,
    servers::{Kind, Server},
};

const TOPICS: i32 = 10;
const PARTITIONS_EACH: i32 = 1_000;
/// Partitions that one produce request writes to.
const AT_ONCE: i32 = 100;
/// How long the idle node is watched.
const IDLE: Duration = Duration::from_secs(20);
/// Far enough apart in record time that each batch goes to a segment of its own.
const CONFIGS: [(&str, &str); 1] = [("segment.ms", "1000")];

/// Creates, writes, rolls, reads, idles and restarts.
pub(crate) fn measure(settings: &Settings, note: &mut impl FnMut(&'static str, f64)) -> Result<()> {
    if settings.only.as_ref().is_some_and(|only| !"partitions".contains(only.as_str())) {
        return Ok(());
    }
    let server = Server::start(settings, Kind::Varve, &[], &[])?;
    let mut client = Client::connect(server.address)?;
    let started = Instant::now();
    for topic in 0..TOPICS {
        client.create_topic(&name(topic), PARTITIONS_EACH, &CONFIGS)?;
    }
    note("10,000 partitions: create, s", started.elapsed().as_secs_f64());
    note("10,000 partitions: resident when created, MB", server.process.resident_megabytes()?);

    // Before anything is sealed: archiving ten thousand segments is work, not idleness.
    let before = server.process.cpu()?;
    std::thread::sleep(IDLE);
    let idle = (server.process.cpu()? - before).as_secs_f64() / IDLE.as_secs_f64();
    note("10,000 partitions: idle CPU, % of a core", idle * 100.0);

    let now = SystemTime::UNIX_EPOCH.elapsed()?.as_millis() as i64;
    for (label, timestamp) in
        [("10,000 partitions: a batch to each, s", now - 20_000), ("10,000 partitions: roll each by time, s", now)]
    {
        let mut frames = frames(timestamp)?;
        let total = frames.iter().map(|frame| frame.len() as u64).sum();
        note(label, produce(Client::connect(server.address)?, &mut frames, total, None)?.elapsed.as_secs_f64());
    }
    let started = Instant::now();
    for partition in 0..PARTITIONS_EACH {
        let spec = FetchSpec { topic: "many-0", partition, max_bytes: 1 << 20, max_wait_ms: 0 };
        anyhow::ensure!(!client.fetch(&spec, 0)?.is_empty(), "many-0-{partition} has no records");
    }
    note("10,000 partitions: fetch from 1,000 of them, one by one, s", started.elapsed().as_secs_f64());
    note("10,000 partitions: resident after two segments in each, MB", server.process.resident_megabytes()?);

    let asked = Instant::now();
    let server = server.restart(settings, Kind::Varve, &[])?;
    note("10,000 partitions: start to first answer, ms", server.time_to_first_answer.as_secs_f64() * 1e3);
    note("10,000 partitions: stop and start, s", asked.elapsed().as_secs_f64());
    note("10,000 partitions: resident after the start, MB", server.process.resident_megabytes()?);
    Ok(())
}

fn name(topic: i32) -> String {
    format!("many-{topic}")
}

/// One small batch of that time for every partition.
fn frames(timestamp: i64) -> Result<Vec<Vec<u8>>> {
    let mut batch = BatchBuilder::new(Offset::ZERO);
    let timestamp = Some(Timestamp::from_wire(timestamp).context("a time after 1970")?);
    batch.push(RecordContent { timestamp, key: Some(b"key"), value: Some(&[b'v'; 100]), headers: &[] });
    let batch = Bytes::from(batch.build()?);
    let all = (0..TOPICS).flat_map(|topic| (0..PARTITIONS_EACH / AT_ONCE).map(move |part| (topic, part * AT_ONCE)));
    all.map(|(topic, first)| {
        let batches: Vec<_> = (first..first + AT_ONCE).map(|partition| (partition, batch.clone())).collect();
        produce_frame(&name(topic), &batches)
    })
    .collect()
}
