//! The tools that write, read, delete and count records.

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use varve_metadata::config::Codec;
use varve_tests::{
    client::Client,
    kafka_tools::KafkaTools,
    node::{Node, eventually},
};

use crate::{now, produce};

#[test]
fn the_console_tools_write_and_read_keys_headers_times_and_places() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let node = Node::start(folder.path(), &["num.partitions=2"])?;
    let kafka = KafkaTools::of(&node);
    // The topic does not exist: the first record makes it, with the broker's number of partitions.
    let before = now();
    kafka.run_with_input(
        "kafka-console-producer.sh --topic desk --compression-codec zstd --reader-property parse.key=true \
         --reader-property key.separator=; --reader-property null.marker=NIL",
        "one;first\none;second\none;NIL\n",
    )?;
    kafka.run_with_input(
        "kafka-console-producer.sh --topic desk --compression-codec lz4 --reader-property parse.key=true \
         --reader-property parse.headers=true",
        "host:web-1,level:WARN\tone\tthird\n",
    )?;
    let show = "--formatter-property print.key=true --formatter-property print.headers=true --formatter-property \
                print.offset=true --formatter-property print.timestamp=true --formatter-property print.partition=true";
    let read = kafka.run(&format!(
        "kafka-console-consumer.sh --topic desk --from-beginning --max-messages 4 --timeout-ms 300000 {show}"
    ))?;
    let partition = read.lines().next().and_then(|line| line.split('\t').nth(1)).context("a line")?;
    let mut lines = Vec::new();
    for line in read.lines() {
        let (time, rest) = line.split_once('\t').context("a time")?;
        let time: i64 = time.strip_prefix("CreateTime:").context("a time")?.parse()?;
        ensure!((before..=now()).contains(&time), "{line}");
        lines.push(rest.to_owned());
    }
    let wanted = [
        "Offset:0\tNO_HEADERS\tone\tfirst",
        "Offset:1\tNO_HEADERS\tone\tsecond",
        "Offset:2\tNO_HEADERS\tone\tnull",
        "Offset:3\thost:web-1,level:WARN\tone\tthird",
    ];
    ensure!(lines == wanted.map(|line| format!("{partition}\t{line}")), "{read}");
    let index = partition.trim_start_matches("Partition:");
    let from = kafka.run(&format!(
        "kafka-console-consumer.sh --topic desk --partition {index} --offset 1 --max-messages 1 --timeout-ms 300000"
    ))?;
    ensure!(from == "second\n", "{from}");
    let described = kafka.run("kafka-topics.sh --describe --topic desk")?;
    ensure!(described.contains("PartitionCount: 2"), "{described}");
    node.stop()
}

#[test]
fn offsets_are_found_for_every_special_time_and_records_deleted_in_both_tiers() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let eager =
        ["log.retention.check.interval.ms=200", "remote.log.manager.task.interval.ms=200", "varve.archive.lag.ms=300"];
    let node = Node::start(folder.path(), &eager)?;
    let kafka = KafkaTools::of(&node);
    let mut client = Client::connect(node.address)?;
    client.create_topic("cold", 1, &[("local.retention.ms", "1"), ("file.delete.delay.ms", "0")])?;
    let newest = now();
    produce(&node, "cold", 0, Codec::Zstd, &[(newest - 2000, "first"), (newest, "second"), (newest - 1000, "third")])?;
    eventually("all is in the archive alone", || {
        let tiered = client.list_offset("cold", 0, -5)? == 2 && client.list_offset("cold", 0, -4)? == 3;
        Ok(tiered.then_some(()))
    })?;
    // One that stays: its topic is not archived.
    client.create_topic("warm", 1, &[("remote.storage.enable", "false")])?;
    produce(&node, "warm", 0, Codec::None, &[(newest, "only")])?;

    let found = |time: &str| kafka.run(&format!("kafka-get-offsets.sh --topic-partitions cold:0,warm:0 --time {time}"));
    for (time, wanted) in [
        ("latest", "cold:0:3\nwarm:0:1\n"),
        ("earliest", "cold:0:0\nwarm:0:0\n"),
        ("max-timestamp", "cold:0:1\nwarm:0:0\n"),
        ("earliest-local", "cold:0:3\nwarm:0:0\n"),
        ("latest-tiered", "cold:0:2\n"),
        (&(newest - 1500).to_string(), "cold:0:1\nwarm:0:0\n"),
        (&(newest + 1).to_string(), ""),
    ] {
        let printed = found(time)?;
        ensure!(printed == wanted, "{time}: {printed}");
    }

    let described = kafka.run("kafka-log-dirs.sh --describe --topic-list cold,warm")?;
    let json = described.lines().find(|line| line.starts_with('{')).with_context(|| described.clone())?;
    let json: Value = serde_json::from_str(json)?;
    let folders = json["brokers"][0]["logDirs"].as_array().with_context(|| described.clone())?;
    let size_of = |name: &str| -> i64 {
        let all = folders.iter().flat_map(|folder| folder["partitions"].as_array().into_iter().flatten());
        all.filter(|partition| partition["partition"] == name).filter_map(|partition| partition["size"].as_i64()).sum()
    };
    ensure!(size_of("cold-0") > 0 && size_of("warm-0") > 0, "sizes of both tiers:\n{described}");

    let list = folder.path().join("delete.json");
    std::fs::write(
        &list,
        r#"{"version": 1, "partitions": [
            {"topic": "cold", "partition": 0, "offset": 2}, {"topic": "warm", "partition": 0, "offset": -1}]}"#,
    )?;
    let deleted = kafka.run(&format!("kafka-delete-records.sh --offset-json-file {}", list.display()))?;
    for wanted in ["partition: cold-0\tlow_watermark: 2", "partition: warm-0\tlow_watermark: 1"] {
        ensure!(deleted.contains(wanted), "{deleted}");
    }
    ensure!(found("earliest")? == "cold:0:2\nwarm:0:1\n", "{}", found("earliest")?);
    let left =
        kafka.run("kafka-console-consumer.sh --topic cold --from-beginning --max-messages 1 --timeout-ms 300000")?;
    ensure!(left == "third\n", "{left}");
    node.stop()
}

#[test]
fn the_measuring_and_verifying_tools_run() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let node = Node::start(folder.path(), &["group.initial.rebalance.delay.ms=0"])?;
    let kafka = KafkaTools::of(&node);
    Client::connect(node.address)?.create_topic("load", 1, &[])?;
    let produced = kafka.run(
        "kafka-producer-perf-test.sh --topic load --num-records 2000 --record-size 100 --throughput -1 \
         --command-property acks=all --bootstrap-server NODE",
    )?;
    ensure!(produced.contains("2000 records sent"), "{produced}");
    let consumed = kafka.run("kafka-consumer-perf-test.sh --topic load --num-records 2000 --timeout 60000")?;
    ensure!(consumed.lines().nth(1).is_some_and(|line| line.contains(", 2000, ")), "{consumed}");
    let latency = kafka.run("kafka-e2e-latency.sh NODE trips 20 all 100")?;
    ensure!(latency.contains("Avg latency:") && latency.contains("Percentiles: 50th = "), "{latency}");
    let verified = kafka.run("kafka-verifiable-producer.sh --topic load --max-messages 3 --throughput -1 --acks -1")?;
    ensure!(verified.contains(r#""sent":3,"acked":3"#), "{verified}");
    ensure!(verified.contains(r#""value":"2","offset":2002"#), "{verified}");
    let verified = kafka.run(
        "kafka-verifiable-consumer.sh --topic load --group-id verifier --max-messages 2003 --reset-policy earliest \
         --group-protocol classic",
    )?;
    ensure!(verified.contains(r#""maxOffset":2002"#), "{verified}");
    ensure!(
        verified.contains(r#""offsets":[{"topic":"load","partition":0,"offset":2003}],"success":true"#),
        "{verified}"
    );
    node.stop()
}
