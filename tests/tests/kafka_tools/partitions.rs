//! `kafka-reassign-partitions.sh`, `kafka-leader-election.sh`, `kafka-log-dirs.sh`.

use std::fs;

use anyhow::{Context, Result, ensure};
use varve_metadata::config::Codec;
use varve_tests::{
    client::Client,
    kafka_tools::KafkaTools,
    node::{Node, eventually},
};

use super::{now, produce};

#[test]
fn a_partition_moves_to_another_log_directory_and_is_shown_on_its_way() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let dirs = ["a", "b"].map(|name| folder.path().join(name));
    let setting = format!("log.dirs={},{}", dirs[0].display(), dirs[1].display());
    let node = Node::start(folder.path(), &[&setting])?;
    let kafka = KafkaTools::of(&node);
    Client::connect(node.address)?.create_topic("orders", 1, &[])?;
    for number in 0..50 {
        produce(&node, "orders", 0, Codec::None, &[(now(), &format!("order {number}"))])?;
    }
    let described = kafka.run("kafka-log-dirs.sh --describe --topic-list orders")?;
    let at = dirs.iter().position(|dir| dir.join("orders-0").is_dir()).context("a directory has it")?;
    ensure!(described.contains("\"isFuture\":false") && described.contains("\"offsetLag\":0"), "{described}");

    let file = folder.path().join("moves.json");
    let target = dirs[1 - at].display();
    fs::write(
        &file,
        format!(
            "{{\"version\":1,\"partitions\":[{{\"topic\":\"orders\",\"partition\":0,\"replicas\":[1],\
             \"log_dirs\":[\"{target}\"]}}]}}"
        ),
    )?;
    let tool = format!("kafka-reassign-partitions.sh --reassignment-json-file {}", file.display());
    let executed = kafka.run(&format!("{tool} --execute"))?;
    ensure!(executed.contains("Successfully started partition reassignment for orders-0"), "{executed}");
    let started = format!("Successfully started moving log directory to {target} for replica orders-0 with broker 1");
    ensure!(executed.contains(&started), "{executed}");
    eventually("the log is where it was sent", || {
        Ok((dirs[1 - at].join("orders-0").is_dir() && !dirs[at].join("orders-0").exists()).then_some(()))
    })?;
    let verified = kafka.run(&format!("{tool} --verify"))?;
    ensure!(verified.contains("Reassignment of partition orders-0 is completed."), "{verified}");
    ensure!(verified.contains("Reassignment of replica orders-0-1 completed successfully."), "{verified}");
    ensure!(kafka.run("kafka-reassign-partitions.sh --list")?.trim() == "No partition reassignments found.");

    // Nothing is lost, and a restart finds it there.
    let offsets = kafka.run("kafka-get-offsets.sh --topic orders")?;
    ensure!(offsets == "orders:0:50\n", "{offsets}");
    produce(&node, "orders", 0, Codec::None, &[(now(), "one more")])?;
    node.stop()?;
    let node = Node::start(folder.path(), &[&setting])?;
    let offsets = KafkaTools::of(&node).run("kafka-get-offsets.sh --topic orders")?;
    ensure!(offsets == "orders:0:51\n", "{offsets}");
    node.stop()
}

#[test]
fn reassignments_that_cannot_be_are_refused() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let node = Node::start(folder.path(), &[])?;
    let kafka = KafkaTools::of(&node);
    Client::connect(node.address)?.create_topic("orders", 2, &[])?;
    let file = folder.path().join("moves.json");
    fs::write(&file, r#"{"version":1,"partitions":[{"topic":"orders","partition":0,"replicas":[1,7]}]}"#)?;
    let refused = kafka
        .refused(&format!("kafka-reassign-partitions.sh --execute --reassignment-json-file {}", file.display()))?;
    ensure!(refused.contains("Unknown broker id 7"), "{refused}");
    let topics = folder.path().join("topics.json");
    fs::write(&topics, r#"{"version":1,"topics":[{"topic":"orders"}]}"#)?;
    let proposed = kafka.run(&format!(
        "kafka-reassign-partitions.sh --generate --broker-list 1 --topics-to-move-json-file {}",
        topics.display()
    ))?;
    ensure!(proposed.contains("Proposed partition reassignment configuration"), "{proposed}");
    node.stop()
}

#[test]
fn leaders_are_elected_where_there_is_need() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let node = Node::start(folder.path(), &[])?;
    let kafka = KafkaTools::of(&node);
    Client::connect(node.address)?.create_topic("orders", 2, &[])?;
    let all = kafka.run("kafka-leader-election.sh --election-type preferred --all-topic-partitions")?;
    ensure!(all.trim().is_empty(), "every preferred replica leads: {all}");
    let one = kafka.run("kafka-leader-election.sh --election-type preferred --topic orders --partition 1")?;
    ensure!(one.contains("Valid replica already elected for partitions orders-1"), "{one}");
    let unknown = kafka.refused("kafka-leader-election.sh --election-type unclean --topic orders --partition 5")?;
    ensure!(unknown.contains("No such partition as orders-5"), "{unknown}");
    node.stop()
}
