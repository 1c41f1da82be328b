//! Every library against one node: topics and settings, every codec and kind of acknowledgement, all kinds of records,
//! places by time, pauses, the size limit, compacted topics, topics made by their first record. Each suite checks itself
//! (tests/clients/README.md); what crosses libraries is in `archive_round_trip` and `groups`.

use std::{
    collections::{BTreeMap, BTreeSet},
    process::Command,
};

use anyhow::{Context, Result, ensure};
use varve_log::format::{BatchBuilder, RecordContent};
use varve_metadata::model::{Offset, Timestamp};
use varve_tests::{
    client::Client,
    node::{Node, eventually},
    tools,
};

fn suite(library: &str) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let node = Node::start(folder.path(), &["group.initial.rebalance.delay.ms=0"])?;
    let address = node.address.to_string();
    let mut command = match library {
        "java" => tools::program("java-Suite")?,
        "franz-go" | "sarama" | "kafka-go" => tools::program("go-client")?,
        "c" => tools::program("c-suite")?,
        "rust" => tools::program("rust-suite")?,
        "node" | "platformatic" => {
            let mut command = Command::new("node");
            let suite = if library == "node" { "suite.js" } else { "platformatic.js" };
            command.arg(tools::checkout().join("tests/clients/node").join(suite));
            command
        }
        library => {
            let mut command = tools::python("tests/clients/python/suite.py")?;
            command.arg(library);
            command
        }
    };
    match library {
        "franz-go" => command.args(["suite", "--bootstrap", &address, "--topic", library]),
        "sarama" => command.args(["sarama-suite", "--bootstrap", &address, "--topic", library]),
        "kafka-go" => command.args(["kafka-go-suite", "--bootstrap", &address, "--topic", library]),
        _ => command.args([&address, library]),
    };
    tools::output_of(&mut command)?;
    ensure!(!node.printed().contains("ERROR"), "the node saw nothing wrong:\n{}", node.printed());
    node.stop()
}

#[test]
fn java_passes_its_suite() -> Result<()> {
    suite("java")
}

#[test]
fn librdkafka_passes_its_suite() -> Result<()> {
    suite("librdkafka")
}

#[test]
fn franz_go_passes_its_suite() -> Result<()> {
    suite("franz-go")
}

#[test]
fn sarama_passes_its_suite() -> Result<()> {
    suite("sarama")
}

#[test]
fn kafka_go_passes_its_suite() -> Result<()> {
    suite("kafka-go")
}

#[test]
fn the_librdkafka_of_debian_passes_its_suite() -> Result<()> {
    suite("c")
}

#[test]
fn rskafka_passes_its_suite() -> Result<()> {
    suite("rust")
}

#[test]
fn kafka_python_passes_its_suite() -> Result<()> {
    suite("kafka-python")
}

#[test]
fn aiokafka_passes_its_suite() -> Result<()> {
    suite("aiokafka")
}

#[test]
fn kafkajs_passes_its_suite() -> Result<()> {
    suite("node")
}

#[test]
fn platformatics_kafka_passes_its_suite() -> Result<()> {
    suite("platformatic")
}

#[test]
fn a_compacted_topic_keeps_the_last_record_of_each_key_in_its_place() -> Result<()> {
    const KEYS: i64 = 10;
    const ROUNDS: i64 = 6;
    let folder = tempfile::tempdir()?;
    let node = Node::start(folder.path(), &["log.cleaner.backoff.ms=100"])?;
    let mut client = Client::connect(node.address)?;
    let configs = [
        ("cleanup.policy", "compact"),
        ("segment.bytes", "1048576"),
        ("min.cleanable.dirty.ratio", "0.01"),
        ("file.delete.delay.ms", "0"),
    ];
    client.create_topic("state", 1, &configs)?;
    let today = std::time::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_millis() as i64);
    for number in 0..KEYS * ROUNDS {
        let mut batch = BatchBuilder::new(Offset::ZERO);
        let key = format!("key-{}", number % KEYS);
        let value = format!("{number} {}", "x".repeat(60_000));
        let (key, value) = (Some(key.as_bytes()), Some(value.as_bytes()));
        batch.push(RecordContent { timestamp: Timestamp::from_wire(today), key, value, headers: &[] });
        client.produce("state", 0, batch.build()?.into())?;
    }
    // What lies in the active segment, about a megabyte, is not compacted: of the rest one record for each key is left.
    let read = || -> Result<BTreeMap<i64, (String, i64)>> {
        let address = node.address.to_string();
        let printed = tools::output_of(Command::new("kcat").args([
            "-b",
            &address,
            "-C",
            "-e",
            "-q",
            "-m",
            "60",
            "-t",
            "state",
            "-o",
            "beginning",
            "-X",
            "check.crcs=true",
            "-f",
            "%o %k %s\n",
        ]))?;
        let records = printed.lines().map(|line| {
            let mut words = line.split(' ');
            let mut word = || words.next().with_context(|| "a record has three words".to_owned());
            Ok((word()?.parse()?, (word()?.to_owned(), word()?.parse()?)))
        });
        records.collect()
    };
    let records = eventually("the sealed segments are compacted", || {
        let records = read()?;
        Ok(((records.len() as i64) < KEYS * ROUNDS / 2 + KEYS).then_some(records))
    })?;
    for (offset, (key, number)) in &records {
        ensure!(offset == number && *key == format!("key-{}", offset % KEYS), "{offset}: {key} {number}");
    }
    let last: BTreeSet<i64> = ((ROUNDS - 1) * KEYS..ROUNDS * KEYS).collect();
    ensure!(last.iter().all(|offset| records.contains_key(offset)), "the last of each key is there");
    ensure!(client.list_offset("state", 0, -1)? == KEYS * ROUNDS, "no offset comes back");
    node.stop()
}
