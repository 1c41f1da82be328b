//! The main job: real log lines through real clients into the archive, and back out of it alone.

use std::{collections::BTreeMap, path::Path, process::Command};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use varve_tests::{
    asked::Asked,
    client::Client,
    node::Node,
    records::{self, TestRecord},
    tools,
};

const PARTITIONS: i32 = 3;
const CODECS: [&str; 5] = ["none", "gzip", "snappy", "lz4", "zstd"];
const PRODUCERS: [&str; 4] = ["java", "librdkafka", "go", "kafka-python"];
const CONSUMERS: [&str; 3] = ["java", "librdkafka", "go"];

/// Settings under which data reaches the archive as Parquet within seconds and leaves the local disk.
const EAGER: [&str; 3] =
    ["log.retention.check.interval.ms=200", "remote.log.manager.task.interval.ms=200", "varve.archive.lag.ms=500"];

/// Settings of the topics: all goes to the archive, nothing expires.
const SETTINGS: [(&str, &str); 4] =
    [("local.retention.ms", "1"), ("retention.ms", "-1"), ("segment.bytes", "1048576"), ("file.delete.delay.ms", "0")];

/// Every producer gets its own share of the lines under its own keys.
fn share(all: &[TestRecord], producer: usize) -> Vec<TestRecord> {
    let share = all.iter().skip(producer).step_by(PRODUCERS.len()).cloned();
    let renamed = share.map(|record| TestRecord {
        key: serde_json::json!(records::base64(format!("{} {}", record.key, PRODUCERS[producer]).as_bytes())),
        ..record
    });
    renamed.collect()
}

#[test]
fn real_log_lines_come_back_identical_from_the_archive_alone() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let node = Node::start(folder.path(), &EAGER)?;
    let all = records::log_records()?;
    let bootstrap = node.address.to_string();
    for codec in CODECS {
        let topic = format!("logs-{codec}");
        Client::connect(node.address)?.create_topic(&topic, PARTITIONS, &SETTINGS)?;
        for (number, producer) in PRODUCERS.into_iter().enumerate() {
            let input = folder.path().join("input.jsonl");
            records::write(&input, &share(&all, number))?;
            let mut command = tools::client(producer)?;
            command.args(["produce", "--bootstrap", &bootstrap, "--topic", &topic, "--codec", codec, "--input"]);
            tools::output_of(command.arg(&input))?;
        }
    }
    let expected: Vec<TestRecord> = (0..PRODUCERS.len()).flat_map(|number| share(&all, number)).collect();
    let expected_by_key = records::by_key(&expected);
    for codec in CODECS {
        let topic = format!("logs-{codec}");
        let total = Asked::of(folder.path()).only_parquet_is_left(&node, &topic, PARTITIONS)?;
        ensure!(total == expected.len() as u64, "{topic}: {total} offsets for {} records", expected.len());
        for consumer in CONSUMERS {
            let output = folder.path().join("output.jsonl");
            let mut command = tools::client(consumer)?;
            command.args(["consume", "--bootstrap", &bootstrap, "--topic", &topic, "--count"]);
            command.arg(expected.len().to_string()).arg("--output").arg(&output);
            tools::output_of(&mut command)?;
            let found = records::read_by_key(&output)?;
            assert_same(&format!("{topic} through {consumer}"), &found, &expected_by_key)?;
        }
        check_parquet(&node, folder.path(), &topic, &["duckdb", "pyarrow", "polars"], &expected_by_key)?;
    }
    node.stop()
}

fn assert_same(
    what: &str,
    found: &BTreeMap<String, Vec<TestRecord>>,
    expected: &BTreeMap<String, Vec<TestRecord>>,
) -> Result<()> {
    ensure!(found.keys().eq(expected.keys()), "{what}: keys differ");
    for (key, records) in expected {
        let theirs = &found[key];
        ensure!(theirs.len() == records.len(), "{what}: {} of {} records of {key}", theirs.len(), records.len());
        for (number, (theirs, ours)) in theirs.iter().zip(records).enumerate() {
            ensure!(theirs == ours, "{what}: record {number} of {key}: {theirs:?} is not {ours:?}");
        }
    }
    Ok(())
}

/// Every engine counts the same rows, groups, headers, nulls and times in the same files, and finds the first and the last
/// offset of each partition where the node has them.
fn check_parquet(
    node: &Node,
    folder: &Path,
    topic: &str,
    engines: &[&str],
    expected: &BTreeMap<String, Vec<TestRecord>>,
) -> Result<()> {
    // Files that were replaced stay for the grace period: the list of those in force is the manifest's.
    let lines = Asked::of(folder).ask(&["tier", "describe", topic, "--objects"])?;
    let files: Vec<&str> = lines.iter().filter_map(|line| line["key"].as_str()).collect();
    let all = || expected.values().flatten();
    let mut levels: BTreeMap<String, usize> = BTreeMap::new();
    for record in all() {
        for header in record.headers.as_array().into_iter().flatten().filter(|header| header[0] == "level") {
            *levels.entry(header[1].as_str().unwrap_or_default().to_owned()).or_default() += 1;
        }
    }
    let keys: BTreeMap<&str, usize> =
        expected.iter().map(|(key, found)| (key.trim_matches('"'), found.len())).collect();
    let wanted = json!({
        "rows": all().count(),
        "by_key": keys,
        "by_level": levels,
        "null_values": all().filter(|record| record.value.is_null()).count(),
        "first": all().map(|record| record.timestamp).min(),
        "last": all().map(|record| record.timestamp).max(),
    });
    let mut client = Client::connect(node.address)?;
    let offsets = (0..PARTITIONS).map(|partition| {
        let (first, end) = (client.list_offset(topic, partition, -2)?, client.list_offset(topic, partition, -1)?);
        Ok(json!({ "partition": partition, "min_offset": first, "max_offset": end - 1 }))
    });
    let offsets = Value::Array(offsets.collect::<Result<_>>()?);
    for engine in engines {
        let mut command = analyst(engine)?;
        let printed = tools::output_of(command.arg(engine).arg(folder.join("varve-data/archive")).args(&files))?;
        let mut answer: Value = serde_json::from_str(printed.lines().last().context("an answer")?)?;
        let partitions = answer.as_object_mut().and_then(|fields| fields.remove("partitions")).unwrap_or_default();
        ensure!(answer == wanted, "{engine} on {topic}: {answer}, not {wanted}");
        ensure!(partitions == offsets, "{engine} on {topic}: offsets {partitions}, not {offsets}");
    }
    Ok(())
}

/// An engine with its questions; Spark's Python is not among the tools, since it is larger than all of them.
fn analyst(engine: &str) -> Result<Command> {
    const QUESTIONS: &str = "tests/clients/python/query.py";
    if engine != "spark" {
        return tools::python(QUESTIONS);
    }
    let python = std::env::var_os("VARVE_SPARK_PYTHON")
        .context("VARVE_SPARK_PYTHON is not set: name a Python with pyspark, see ARCHITECTURE.md")?;
    let mut command = Command::new(python);
    command.arg(tools::checkout().join(QUESTIONS));
    Ok(command)
}

#[test]
#[ignore = "wants pyspark, which is half a gigabyte: ARCHITECTURE.md has the commands"]
fn spark_reads_the_archive_as_the_others_do() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let node = Node::start(folder.path(), &EAGER)?;
    let all = records::log_records()?;
    let bootstrap = node.address.to_string();
    Client::connect(node.address)?.create_topic("logs", PARTITIONS, &SETTINGS)?;
    let input = folder.path().join("input.jsonl");
    records::write(&input, &all)?;
    let mut command = tools::client("librdkafka")?;
    command.args(["produce", "--bootstrap", &bootstrap, "--topic", "logs", "--codec", "zstd", "--input"]);
    tools::output_of(command.arg(&input))?;
    Asked::of(folder.path()).only_parquet_is_left(&node, "logs", PARTITIONS)?;
    let engines = ["duckdb", "pyarrow", "polars", "spark"];
    check_parquet(&node, folder.path(), "logs", &engines, &records::by_key(&all))?;
    node.stop()
}
