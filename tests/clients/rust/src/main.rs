//! What rskafka, a small client in Rust that speaks old versions, does with a broker, checked by itself: HOST:PORT PREFIX;
//! see ../README.md.

use std::{collections::BTreeMap, sync::Arc};

use anyhow::{Context, Result, ensure};
use rskafka::{
    chrono::{DateTime, Utc},
    client::{
        ClientBuilder,
        error::{Error, ProtocolError},
        partition::{Compression, OffsetAt, PartitionClient, UnknownTopicHandling},
    },
    record::{Record, RecordAndOffset},
};

fn record(start: i64, number: i64, value: Option<&str>) -> Result<Record> {
    Ok(Record {
        key: (number % 3 > 0).then(|| format!("key-{number}").into_bytes()),
        value: value.map(|value| value.as_bytes().to_vec()),
        headers: BTreeMap::from([("host".to_owned(), b"web-1".to_vec()), ("empty".to_owned(), Vec::new())]),
        timestamp: DateTime::<Utc>::from_timestamp_millis(start + number).context("a time")?,
    })
}

async fn read_all(partition: &PartitionClient, from: i64, end: i64) -> Result<Vec<RecordAndOffset>> {
    let mut found: Vec<RecordAndOffset> = Vec::new();
    let mut next = from;
    while next < end {
        let (records, high_watermark) = partition.fetch_records(next, 1..1 << 20, 1_000).await?;
        ensure!(high_watermark == end, "the high watermark is {high_watermark}");
        found.extend(records);
        next = found.last().context("records come")?.offset + 1;
    }
    Ok(found)
}

fn is_refused<T>(answer: Result<T, Error>, wanted: ProtocolError) -> bool {
    matches!(answer, Err(Error::ServerError { protocol_error, .. }) if protocol_error == wanted)
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let bootstrap = arguments.next().context("HOST:PORT PREFIX")?;
    let topic = format!("{}-main", arguments.next().context("HOST:PORT PREFIX")?);
    let client = ClientBuilder::new(vec![bootstrap]).client_id("rskafka").build().await?;
    let controller = client.controller_client()?;
    controller.create_topic(&topic, 2, 1, 10_000).await?;
    let again = controller.create_topic(&topic, 2, 1, 10_000).await;
    ensure!(is_refused(again, ProtocolError::TopicAlreadyExists), "a topic is not made twice");
    let replicated = controller.create_topic(format!("{topic}-replicated"), 1, 9, 10_000).await;
    ensure!(is_refused(replicated, ProtocolError::InvalidReplicationFactor), "nor with replicas that cannot be");

    let partition = Arc::new(client.partition_client(&topic, 1, UnknownTopicHandling::Retry).await?);
    let topics = client.list_topics().await?;
    let listed = topics.iter().find(|found| found.name == topic).context("the topic is listed")?;
    ensure!(listed.partitions.iter().copied().eq([0, 1]), "{listed:?}");
    let start = std::time::UNIX_EPOCH.elapsed()?.as_millis() as i64 - 3_600_000;
    let mut written = Vec::new();
    for compression in
        [Compression::NoCompression, Compression::Gzip, Compression::Lz4, Compression::Snappy, Compression::Zstd]
    {
        let first = written.len() as i64;
        let batch = (first..first + 40).map(|number| {
            let value = format!("{compression:?} {number} {}", "x".repeat(number as usize));
            record(start, number, (number % 7 > 0).then_some(value.as_str()))
        });
        let batch: Vec<Record> = batch.collect::<Result<_>>()?;
        let offsets = partition.produce(batch.clone(), compression).await?;
        ensure!(offsets.iter().copied().eq(first..first + 40), "{compression:?}: {offsets:?}");
        written.extend(batch);
    }
    let end = written.len() as i64;
    ensure!(partition.get_offset(OffsetAt::Earliest).await? == 0, "the start is found");
    ensure!(partition.get_offset(OffsetAt::Latest).await? == end, "the end is found");
    let time = written[73].timestamp;
    ensure!(partition.get_offset(OffsetAt::Timestamp(time)).await? == 73, "the time of a record is found");
    let found = read_all(&partition, 0, end).await?;
    ensure!(found.len() == written.len(), "{} records of {end}", found.len());
    for (number, (theirs, ours)) in found.iter().zip(&written).enumerate() {
        ensure!(theirs.offset == number as i64 && theirs.record == *ours, "record {number}: {theirs:?}, not {ours:?}");
    }
    ensure!(read_all(&partition, 150, end).await?[0].offset == 150, "reading starts where it is told to");
    let beyond = partition.fetch_records(end + 1, 1..1 << 20, 100).await;
    ensure!(is_refused(beyond, ProtocolError::OffsetOutOfRange), "there is nothing beyond the end");

    partition.delete_records(120, 10_000).await?;
    ensure!(partition.get_offset(OffsetAt::Earliest).await? == 120, "records are deleted");
    let gone = partition.fetch_records(119, 1..1 << 20, 100).await;
    ensure!(is_refused(gone, ProtocolError::OffsetOutOfRange), "and not read any more");
    controller.delete_topic(&topic, 10_000).await?;
    Ok(())
}
