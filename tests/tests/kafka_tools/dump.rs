//! `kafka-dump-log.sh` on the files that a node leaves behind.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};
use serde_json::json;
use varve_tests::{
    client::Client,
    kafka_tools::{KafkaTools, dump_log},
    node::Node,
    records::{self, TestRecord, base64},
    tools,
};

const CODECS: [&str; 5] = ["none", "gzip", "snappy", "lz4", "zstd"];
/// Records of each of two producers, in a batch or a few.
const SHARE: usize = 200;
const RECORDS: usize = 2 * SHARE;
const FIRST_TIME: i64 = 1_790_000_000_000;

/// The one file with that ending in a partition's folder.
fn file(folder: &Path, partition: &str, ending: &str) -> Result<PathBuf> {
    let folder = folder.join("varve-data/log").join(partition);
    let mut found = fs::read_dir(&folder)?.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    found.retain(|path| path.extension().is_some_and(|kind| kind == ending));
    ensure!(found.len() == 1, "{}: {} files .{ending}", folder.display(), found.len());
    found.pop().context("one file")
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
    let mut read = KafkaTools::of(&node).command(
        "kafka-console-consumer.sh --topic orders --group new --command-property group.protocol=consumer --timeout-ms 3000",
    )?;
    read.output()?;
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
