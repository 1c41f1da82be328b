//! `kafka-console-share-consumer.sh`, `kafka-share-groups.sh` and `kafka-groups.sh` with share groups (KIP-932).

use std::process::Stdio;

use anyhow::{Result, ensure};
use varve_metadata::config::Codec;
use varve_tests::{
    client::Client,
    kafka_tools::KafkaTools,
    node::{Node, eventually},
};

use crate::{groups::Live, now, produce, table};

const QUICK: [&str; 3] = [
    "offsets.topic.num.partitions=3",
    "share.coordinator.state.topic.num.partitions=3",
    "group.share.assignment.interval.ms=0",
];

/// A node with a topic of two partitions, three records in each, and a share group that is to read all of them.
fn node_and_group(folder: &std::path::Path) -> Result<(Node, KafkaTools)> {
    let node = Node::start(folder, &QUICK)?;
    let kafka = KafkaTools::of(&node);
    Client::connect(node.address)?.create_topic("orders", 2, &[])?;
    for partition in 0..2 {
        let records = [(now(), "first"), (now(), "second"), (now(), "third")];
        produce(&node, "orders", partition, Codec::None, &records)?;
    }
    let altered = kafka.run(
        "kafka-configs.sh --alter --entity-type groups --entity-name desk --add-config share.auto.offset.reset=earliest",
    )?;
    ensure!(altered.contains("Completed updating config for group desk."), "{altered}");
    Ok((node, kafka))
}

#[test]
fn a_share_group_reads_everything_once_is_described_reset_and_deleted() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (node, kafka) = node_and_group(folder.path())?;
    let read = kafka
        .run("kafka-console-share-consumer.sh --topic orders --group desk --max-messages 6 --timeout-ms 300000")?;
    let mut read: Vec<&str> = read.lines().collect();
    read.sort_unstable();
    ensure!(read == ["first", "first", "second", "second", "third", "third"], "{read:?}");
    eventually("the consumer has left", || {
        let listed = kafka.run("kafka-share-groups.sh --list --state")?;
        Ok((table(&listed, "GROUP")? == [["desk", "Empty"]]).then_some(()))
    })?;
    let listed = kafka.run("kafka-groups.sh --list")?;
    ensure!(table(&listed, "GROUP")? == [["desk", "Share", "share"]], "{listed}");
    let listed = kafka.run("kafka-groups.sh --list --share")?;
    ensure!(table(&listed, "GROUP")? == [["desk", "Share", "share"]], "{listed}");

    // As in Kafka the start moves with the next record that is settled; how many are left is known at once. A partition
    // that nobody was given anything of has no start yet.
    let left = || -> Result<u64> {
        let described = kafka.run("kafka-share-groups.sh --describe --group desk")?;
        let rows = table(&described, "GROUP")?;
        let lags = rows.iter().filter(|row| !row.is_empty()).map(|row| -> Result<u64> {
            match row[..] {
                ["desk", "orders", _, _, "-"] => Ok(0),
                ["desk", "orders", _, _, lag] => Ok(lag.parse()?),
                _ => anyhow::bail!("{described}"),
            }
        });
        lags.sum()
    };
    eventually("everything was read", || Ok((left()? == 0).then_some(())))?;
    let reset =
        kafka.run("kafka-share-groups.sh --reset-offsets --group desk --topic orders --to-earliest --execute")?;
    ensure!(reset.contains("orders"), "{reset}");
    ensure!(left()? == 6, "nothing was read");
    // What is given back is given out again.
    let released = kafka.run(
        "kafka-console-share-consumer.sh --topic orders --group desk --max-messages 6 --timeout-ms 300000 --release",
    )?;
    ensure!(released.lines().count() == 6, "{released}");
    let read = kafka
        .run("kafka-console-share-consumer.sh --topic orders --group desk --max-messages 6 --timeout-ms 300000")?;
    ensure!(read.lines().count() == 6, "{read}");
    eventually("the consumer has left", || {
        let listed = kafka.run("kafka-share-groups.sh --list --state")?;
        Ok((table(&listed, "GROUP")? == [["desk", "Empty"]]).then_some(()))
    })?;
    let deleted = kafka.run("kafka-share-groups.sh --delete-offsets --group desk --topic orders")?;
    ensure!(table(&deleted, "TOPIC")?.contains(&vec!["orders", "Successful"]), "{deleted}");
    let deleted = kafka.run("kafka-share-groups.sh --delete --group desk")?;
    ensure!(deleted.contains("Deletion of requested share groups ('desk') was successful."), "{deleted}");
    ensure!(kafka.run("kafka-share-groups.sh --list")?.trim().is_empty(), "no group is left");
    node.stop()
}

#[test]
fn a_share_group_at_work_shows_its_member_and_is_protected() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (node, kafka) = node_and_group(folder.path())?;
    let mut consumer = kafka.command("kafka-console-share-consumer.sh --topic orders --group desk")?;
    let live = Live::of(consumer.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()))?;
    let described = eventually("the member has heard of its partitions", || {
        let described = kafka.run("kafka-share-groups.sh --describe --group desk --members")?;
        Ok(described.contains("orders").then_some(described))
    })?;
    let rows = table(&described, "GROUP")?;
    ensure!(rows.len() == 1 && rows[0][0] == "desk", "{described}");
    ensure!(rows[0][2..] == ["/127.0.0.1", "console-share-consumer", "2", "orders:0,1"], "{described}");
    let described = kafka.run("kafka-share-groups.sh --describe --group desk --state")?;
    let address = node.address.to_string();
    ensure!(table(&described, "GROUP")? == [["desk", &address, "(1)", "Stable", "1"]], "{described}");
    let reset = kafka.run("kafka-share-groups.sh --reset-offsets --group desk --topic orders --to-earliest --execute");
    let reset = reset.unwrap_or_else(|error| error.to_string());
    ensure!(reset.contains("desk") && !reset.contains("NEW-OFFSET"), "{reset}");
    let deleted = kafka.run("kafka-share-groups.sh --delete --group desk");
    let deleted = deleted.unwrap_or_else(|error| error.to_string());
    ensure!(deleted.contains("not EMPTY") || deleted.contains("not empty"), "{deleted}");
    live.stop()?;
    node.stop()
}
