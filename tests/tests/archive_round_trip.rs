//! The main job: real log lines through real clients into the archive, and back out of it alone.

use std::{collections::BTreeMap, path::Path, process::Command};

use anyhow::{Result, ensure};
use varve_tests::{
    client::Client,
    node::{Node, eventually, varve},
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

fn client(name: &str) -> Result<Command> {
    match name {
        "java" => tools::program("java-Client"),
        "go" => tools::program("go-client"),
        library => {
            let mut command = tools::python("tests/clients/python/client.py")?;
            command.arg(library);
            Ok(command)
        }
    }
}

/// Every producer gets its own share of the lines under its own keys.
fn share(all: &[TestRecord], producer: usize) -> Vec<TestRecord> {
    let share = all.iter().skip(producer).step_by(PRODUCERS.len()).cloned();
    let renamed = share.map(|record| TestRecord {
        key: serde_json::json!(records::base64(format!("{} {}", record.key, PRODUCERS[producer]).as_bytes())),
        ..record
    });
    renamed.collect()
}

fn wait_until_only_parquet_is_left(node: &Node, folder: &Path, topic: &str) -> Result<u64> {
    let mut client = Client::connect(node.address)?;
    let mut total = 0;
    for partition in 0..PARTITIONS {
        let end = client.list_offset(topic, partition, -1)?;
        total += end as u64;
        eventually(&format!("{topic}-{partition} has left the local disk"), || {
            let local_start = client.list_offset(topic, partition, -4)?;
            let last_tiered = client.list_offset(topic, partition, -5)?;
            Ok((local_start == end && last_tiered + 1 == end).then_some(()))
        })?;
    }
    eventually(&format!("{topic} is Parquet alone"), || {
        let described = tools::output_of(varve()?.current_dir(folder).args(["tier", "describe", topic, "--json"]))?;
        let only_parquet = described.lines().all(|line| line.contains("\"raw_objects\":0"));
        Ok((only_parquet && !described.is_empty()).then_some(()))
    })?;
    Ok(total)
}

#[test]
fn real_log_lines_come_back_identical_from_the_archive_alone() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let node = Node::start(folder.path(), &EAGER)?;
    let all = records::log_records()?;
    let bootstrap = node.address.to_string();
    for codec in CODECS {
        let topic = format!("logs-{codec}");
        let configs = [
            ("local.retention.ms", "1"),
            ("retention.ms", "-1"),
            ("segment.bytes", "1048576"),
            ("file.delete.delay.ms", "0"),
        ];
        Client::connect(node.address)?.create_topic(&topic, PARTITIONS, &configs)?;
        for (number, producer) in PRODUCERS.into_iter().enumerate() {
            let input = folder.path().join("input.jsonl");
            records::write(&input, &share(&all, number))?;
            let mut command = client(producer)?;
            command.args(["produce", "--bootstrap", &bootstrap, "--topic", &topic, "--codec", codec, "--input"]);
            tools::output_of(command.arg(&input))?;
        }
    }
    let expected: Vec<TestRecord> = (0..PRODUCERS.len()).flat_map(|number| share(&all, number)).collect();
    let expected_by_key = records::by_key(&expected);
    for codec in CODECS {
        let topic = format!("logs-{codec}");
        let total = wait_until_only_parquet_is_left(&node, folder.path(), &topic)?;
        ensure!(total == expected.len() as u64, "{topic}: {total} offsets for {} records", expected.len());
        for consumer in CONSUMERS {
            let output = folder.path().join("output.jsonl");
            let mut command = client(consumer)?;
            command.args(["consume", "--bootstrap", &bootstrap, "--topic", &topic, "--count"]);
            command.arg(expected.len().to_string()).arg("--output").arg(&output);
            tools::output_of(&mut command)?;
            let found = records::read_by_key(&output)?;
            assert_same(&format!("{topic} through {consumer}"), &found, &expected_by_key)?;
        }
        check_parquet(folder.path(), &topic, &expected_by_key)?;
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

/// DuckDB and pyarrow count the same rows, offsets and groups in the same files.
fn check_parquet(folder: &Path, topic: &str, expected: &BTreeMap<String, Vec<TestRecord>>) -> Result<()> {
    // Files that were replaced stay for the grace period: the list of those in force is the manifest's.
    let described =
        tools::output_of(varve()?.current_dir(folder).args(["tier", "describe", topic, "--objects", "--json"]))?;
    let lines = described.lines().map(serde_json::from_str).collect::<Result<Vec<serde_json::Value>, _>>()?;
    let files: Vec<&str> = lines.iter().filter_map(|line| line["key"].as_str()).collect();
    for engine in ["duckdb", "pyarrow"] {
        let mut command = tools::python("tests/clients/python/query.py")?;
        let printed = tools::output_of(command.arg(engine).arg(folder.join("varve-data/archive")).args(&files))?;
        let answer: serde_json::Value = serde_json::from_str(&printed)?;
        let rows: usize = expected.values().map(Vec::len).sum();
        ensure!(answer["rows"] == rows, "{engine} on {topic}: {} rows, {rows} records", answer["rows"]);
        let offsets: i64 = answer["partitions"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|one| one["max_offset"].as_i64().unwrap_or(-1) - one["min_offset"].as_i64().unwrap_or(-1) + 1)
            .sum();
        ensure!(offsets == rows as i64, "{engine} on {topic}: offsets cover {offsets} of {rows}");
        for (key, records) in expected {
            let key = key.trim_matches('"');
            ensure!(answer["by_key"][key] == records.len(), "{engine} on {topic}: group {key}");
        }
    }
    Ok(())
}
