//! `kafka-dump-log.sh` on the files that a node leaves behind.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Stdio,
};

use anyhow::{Context, Result, ensure};
use serde_json::json;
use varve_log::format::{BatchBuilder, RecordContent};
use varve_metadata::{
    config::Codec,
    model::{Offset, Timestamp},
};
use varve_tests::{
    client::Client,
    kafka_tools::{KafkaTools, dump_cleaned_log, dump_log},
    node::{Node, eventually},
    records::{self, TestRecord, base64},
    tools, transactions,
};

use crate::groups::Live;

const CODECS: [&str; 5] = ["none", "gzip", "snappy", "lz4", "zstd"];
/// Records of each of two producers, in a batch or a few.
const SHARE: usize = 200;
const RECORDS: usize = 2 * SHARE;
const FIRST_TIME: i64 = 1_790_000_000_000;

/// The one file with that ending in a partition's folder.
fn file(folder: &Path, partition: &str, ending: &str) -> Result<PathBuf> {
    let mut found = files(folder, partition, ending)?;
    ensure!(found.len() == 1, "{partition}: {} files .{ending}", found.len());
    found.pop().context("one file")
}

/// All files with that ending there, by their offsets.
fn files(folder: &Path, partition: &str, ending: &str) -> Result<Vec<PathBuf>> {
    let folder = folder.join("varve-data/log").join(partition);
    let mut found = fs::read_dir(&folder)?.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    found.retain(|path| path.extension().is_some_and(|kind| kind == ending));
    found.sort();
    Ok(found)
}

fn records() -> Vec<TestRecord> {
    let record = |number: usize| TestRecord {
        key: json!(base64(format!("key-{}", number % 7).as_bytes())),
        value: json!(base64(format!("value {number}").as_bytes())),
        headers: json!([["host", base64(b"web-1")]]),
        timestamp: FIRST_TIME + number as i64,
    };
    (0..RECORDS).map(record).collect()
}

#[test]
fn kafka_reads_segments_of_every_codec_their_indexes_and_producer_snapshots() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let node = Node::start(folder.path(), &[])?;
    let input = folder.path().join("input.jsonl");
    // An index entry for each batch after the first.
    let configs = [("index.interval.bytes", "1"), ("remote.storage.enable", "false"), ("retention.ms", "-1")];
    for codec in CODECS {
        Client::connect(node.address)?.create_topic(codec, 1, &configs)?;
        for share in records().chunks(SHARE) {
            records::write(&input, share)?;
            let mut produce = tools::python("tests/clients/python/client.py")?;
            produce.args(["librdkafka", "produce", "--bootstrap", &node.address.to_string(), "--topic", codec]);
            tools::output_of(produce.args(["--codec", codec, "--input"]).arg(&input))?;
        }
    }
    node.stop()?;

    let files = |ending: &str| -> Result<Vec<PathBuf>> {
        CODECS.into_iter().map(|codec| file(folder.path(), &format!("{codec}-0"), ending)).collect()
    };
    let logs = dump_log(&files("log")?, &["--deep-iteration", "--print-data-log"])?;
    for (codec, printed) in CODECS.into_iter().zip(logs) {
        for batch in printed.lines().filter(|line| line.starts_with("baseOffset: ")) {
            ensure!(batch.contains(&format!("compresscodec: {codec} ")), "{codec}: {batch}");
            ensure!(batch.contains("partitionLeaderEpoch: 0 ") && batch.contains("isvalid: true"), "{codec}: {batch}");
            ensure!(!batch.contains("producerId: -1"), "{codec} is idempotent: {batch}");
        }
        let lines: Vec<&str> = printed.lines().filter(|line| line.starts_with("| offset: ")).collect();
        ensure!(lines.len() == RECORDS, "{codec}: {} records:\n{printed}", lines.len());
        for (number, line) in lines.iter().enumerate() {
            let start = format!("| offset: {number} CreateTime: {} keySize: 5 ", FIRST_TIME + number as i64);
            let sequence = number % SHARE;
            let end =
                format!("sequence: {sequence} headerKeys: [host] key: key-{} payload: value {number}", number % 7);
            ensure!(line.starts_with(&start) && line.ends_with(&end), "{codec}: {line}");
        }
        let epochs = folder.path().join(format!("varve-data/log/{codec}-0/leader-epoch-checkpoint"));
        ensure!(fs::read_to_string(epochs)? == "0\n1\n0 0\n", "{codec}: version, entries, epoch 0 from offset 0");
    }
    for printed in dump_log(&files("index")?, &["--index-sanity-check"])? {
        ensure!(printed.contains("passed sanity check."), "{printed}");
    }
    // Without a flag each entry is looked up in the log.
    for printed in dump_log(&files("index")?, &[])? {
        ensure!(printed.lines().any(|line| line.starts_with("offset: ")), "{printed}");
    }
    for printed in dump_log(&files("timeindex")?, &[])? {
        let newest = format!("timestamp: {} offset: {}", FIRST_TIME + RECORDS as i64 - 1, RECORDS - 1);
        ensure!(printed.contains(&newest), "{printed}");
    }
    for printed in dump_log(&files("snapshot")?, &[])? {
        let producers: Vec<&str> = printed.lines().filter(|line| line.starts_with("producerId: ")).collect();
        ensure!(producers.len() == 2, "{printed}");
        for producer in producers {
            ensure!(producer.contains("producerEpoch: 0 ") && producer.contains("lastSequence: 199"), "{producer}");
        }
    }
    Ok(())
}

#[test]
fn kafkas_decoder_reads_what_groups_leave_in_consumer_offsets() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let node = Node::start(folder.path(), &["offsets.topic.num.partitions=1"])?;
    Client::connect(node.address)?.create_topic("orders", 2, &[])?;
    let reset = "kafka-consumer-groups.sh --reset-offsets --group desk --topic orders --to-earliest --execute";
    KafkaTools::of(&node).run(reset)?;
    let kafka = KafkaTools::of(&node);
    let mut read = kafka
        .command("kafka-console-consumer.sh --topic orders --group new --command-property group.protocol=consumer")?;
    let live = Live::of(read.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()))?;
    eventually("it is a member of its group", || {
        let described = kafka.run("kafka-consumer-groups.sh --describe --group new --state")?;
        Ok(described.contains("Stable").then_some(()))
    })?;
    live.stop()?;
    node.stop()?;
    let log = file(folder.path(), "__consumer_offsets-0", "log")?;
    let printed = dump_log(&[log], &["--offsets-decoder", "--deep-iteration"])?.concat();
    for partition in 0..2 {
        let key = format!(r#""data":{{"group":"desk","topic":"orders","partition":{partition}}}"#);
        ensure!(printed.contains(&key), "{key} is missing:\n{printed}");
    }
    ensure!(printed.contains(r#""offset":0"#), "{printed}");
    // The records of a consumer group (KIP-848), by Kafka's numbers.
    for kind in [3, 5, 6, 7, 8] {
        let key = format!(r#"{{"type":"{kind}","data":{{"groupId":"new""#);
        ensure!(printed.contains(&key), "{key} is missing:\n{printed}");
    }
    ensure!(printed.contains(r#""subscribedTopicNames":["orders"]"#), "{printed}");
    Ok(())
}

/// What the topic's `compression.type` says, what the producer sends, and what must lie on the disk.
const COMPRESSION_TYPES: [(&str, Codec, &str); 7] = [
    ("gzip", Codec::None, "gzip"),
    ("snappy", Codec::None, "snappy"),
    ("lz4", Codec::None, "lz4"),
    ("zstd", Codec::None, "zstd"),
    ("gzip", Codec::Zstd, "gzip"),
    ("uncompressed", Codec::Zstd, "none"),
    ("producer", Codec::Lz4, "lz4"),
];

/// A batch of `count` records, of which number `n` has key `n % keys`, value `n` and a time of its own.
fn batch(codec: Codec, first: usize, count: usize, keys: usize) -> Result<bytes::Bytes> {
    let mut batch = BatchBuilder::new(Offset::ZERO).compression(codec, None);
    for number in first..first + count {
        let (key, value) = (format!("key-{}", number % keys), format!("value {number}"));
        let timestamp = Timestamp::from_wire(FIRST_TIME + number as i64);
        batch.push(RecordContent { timestamp, key: Some(key.as_bytes()), value: Some(value.as_bytes()), headers: &[] });
    }
    Ok(batch.build()?.into())
}

/// Values of the records that a dump shows, in its order.
fn values(printed: &str) -> Vec<&str> {
    let records = printed.lines().filter(|line| line.starts_with("| offset: "));
    records.filter_map(|line| Some(line.split_once(" payload: ")?.1)).collect()
}

#[test]
fn kafka_reads_what_topics_make_of_batches_in_one_segment_and_in_several() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let node = Node::start(folder.path(), &["remote.log.storage.system.enable=false"])?;
    let mut client = Client::connect(node.address)?;
    let forever = ("retention.ms", "-1");
    for (number, (setting, codec, _)) in COMPRESSION_TYPES.into_iter().enumerate() {
        let topic = format!("codec-{number}");
        client.create_topic(&topic, 1, &[("compression.type", setting), forever])?;
        client.produce(&topic, 0, batch(codec, 0, 50, 7)?)?;
    }
    let stamped = ("message.timestamp.type", "LogAppendTime");
    client.create_topic("stamped", 1, &[stamped, ("compression.type", "zstd"), forever])?;
    let rolled = [("internal.segment.bytes", "2000"), ("index.interval.bytes", "1"), forever];
    client.create_topic("rolled", 1, &rolled)?;
    for number in 0..20 {
        client.produce("stamped", 0, batch(Codec::None, 10 * number, 10, 7)?)?;
        client.produce("rolled", 0, batch(Codec::None, 10 * number, 10, 7)?)?;
    }
    node.stop()?;

    let logs = (0..COMPRESSION_TYPES.len()).map(|number| file(folder.path(), &format!("codec-{number}-0"), "log"));
    let deep = ["--deep-iteration", "--print-data-log"];
    let dumped = dump_log(&logs.collect::<Result<Vec<_>>>()?, &deep)?;
    let wanted: Vec<String> = (0..50).map(|number| format!("value {number}")).collect();
    for ((setting, codec, lies), printed) in COMPRESSION_TYPES.into_iter().zip(dumped) {
        ensure!(printed.contains(&format!("compresscodec: {lies} ")), "{codec:?} for {setting}:\n{printed}");
        ensure!(values(&printed) == wanted, "{codec:?} for {setting}:\n{printed}");
    }
    let printed = dump_log(&[file(folder.path(), "stamped-0", "log")?], &deep)?.concat();
    ensure!(values(&printed).len() == 200, "{printed}");
    let records = || printed.lines().filter(|line| line.starts_with("| offset: "));
    ensure!(records().all(|line| line.contains(" LogAppendTime: ") && !line.contains("CreateTime")), "{printed}");
    let rolled = files(folder.path(), "rolled-0", "log")?;
    ensure!(rolled.len() >= 3, "{rolled:?}");
    let printed = dump_log(&rolled, &deep)?.concat();
    ensure!(values(&printed).into_iter().eq((0..200).map(|number| format!("value {number}"))), "{printed}");
    for ending in ["index", "timeindex"] {
        dump_log(&files(folder.path(), "rolled-0", ending)?, &[])?;
    }
    dump_log(&files(folder.path(), "stamped-0", "timeindex")?, &[])?;
    Ok(())
}

#[test]
fn kafka_reads_cleaned_logs_and_aborted_transactions() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let settings = [
        "remote.log.storage.system.enable=false",
        "log.cleaner.backoff.ms=20",
        "log.segment.delete.delay.ms=0",
        "transaction.state.log.num.partitions=1",
    ];
    let node = Node::start(folder.path(), &settings)?;
    let mut client = Client::connect(node.address)?;
    let compacted = [
        ("cleanup.policy", "compact"),
        ("min.cleanable.dirty.ratio", "0.01"),
        ("internal.segment.bytes", "2000"),
        ("index.interval.bytes", "1"),
    ];
    client.create_topic("compacted", 1, &compacted)?;
    for number in 0..40 {
        let codec = [Codec::None, Codec::Zstd][number % 2];
        client.produce("compacted", 0, batch(codec, 10 * number, 10, 15)?)?;
    }
    client.create_topic("orders", 1, &[])?;
    client.find_coordinators("desk")?;
    let mut producer = client.init_producer("desk", 60_000)?;
    for (number, commit) in [false, true, false].into_iter().enumerate() {
        let value = format!("transaction {number}");
        let batch = transactions::batch(producer, 0, None, &value)?;
        client.produce_in_transaction("orders", 0, 12, "desk", batch)?;
        producer = client.end_transaction("desk", producer, commit)?;
    }
    // Markers are on their way when the producer is answered.
    eventually("three records have three markers", || Ok((client.list_offset("orders", 0, -1)? == 6).then_some(())))?;
    // The cleaner has come as far as it may: to the active segment.
    let checkpoint = folder.path().join("varve-data/log/cleaner-offset-checkpoint");
    eventually("the log is cleaned", || {
        let active = files(folder.path(), "compacted-0", "log")?.pop().context("a segment")?;
        let base = active.file_stem().and_then(|stem| stem.to_str()).context("an offset")?.parse::<u64>()?;
        let Ok(text) = fs::read_to_string(&checkpoint) else { return Ok(None) };
        Ok(text.lines().any(|line| line == format!("compacted 0 {base}")).then_some(()))
    })?;
    node.stop()?;

    let deep = ["--deep-iteration", "--print-data-log"];
    let printed = dump_cleaned_log(&files(folder.path(), "compacted-0", "log")?, &deep)?.concat();
    let kept: Vec<usize> = values(&printed).iter().filter_map(|value| value.split(' ').nth(1)?.parse().ok()).collect();
    ensure!(kept.len() < 200 && kept.is_sorted(), "{kept:?}");
    ensure!((385..400).all(|last| kept.contains(&last)), "the last record of each key stays: {kept:?}");
    for ending in ["index", "timeindex"] {
        dump_cleaned_log(&files(folder.path(), "compacted-0", ending)?, &[])?;
    }

    let printed = dump_log(&[file(folder.path(), "orders-0", "log")?], &deep)?.concat();
    ensure!(values(&printed) == ["transaction 0", "transaction 1", "transaction 2"], "{printed}");
    let markers: Vec<&str> =
        printed.lines().filter_map(|line| line.split_once("endTxnMarker: ")?.1.split(' ').next()).collect();
    ensure!(markers == ["ABORT", "COMMIT", "ABORT"], "{markers:?}:\n{printed}");
    let printed = dump_log(&[file(folder.path(), "orders-0", "txnindex")?], &[])?.concat();
    for wanted in
        ["firstOffset: 0 lastOffset: 1 lastStableOffset: 2", "firstOffset: 4 lastOffset: 5 lastStableOffset: 6"]
    {
        ensure!(printed.contains(wanted), "{wanted} is missing:\n{printed}");
    }
    let printed = dump_log(&[file(folder.path(), "__transaction_state-0", "log")?], &["--transaction-log-decoder"])?;
    ensure!(printed.concat().contains("desk"), "{printed:?}");
    Ok(())
}
