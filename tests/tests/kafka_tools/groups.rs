//! `kafka-consumer-groups.sh` and `kafka-groups.sh`.

use std::process::{Child, Command, Stdio};

use anyhow::{Result, ensure};
use varve_metadata::config::Codec;
use varve_tests::{
    client::Client,
    kafka_tools::KafkaTools,
    node::{Node, eventually},
};

use crate::{now, produce, table};

const QUICK: [&str; 2] = ["group.initial.rebalance.delay.ms=0", "offsets.topic.num.partitions=3"];
const HOUR: i64 = 3_600_000;

/// A node with a topic of two partitions with three records each, one, two and three hours old, all read by group `desk`.
fn node_and_group(folder: &std::path::Path) -> Result<(Node, KafkaTools)> {
    let node = Node::start(folder, &QUICK)?;
    let kafka = KafkaTools::of(&node);
    Client::connect(node.address)?.create_topic("orders", 2, &[])?;
    for partition in 0..2 {
        let records = [(now() - 3 * HOUR, "first"), (now() - 2 * HOUR, "second"), (now() - HOUR, "third")];
        produce(&node, "orders", partition, Codec::None, &records)?;
    }
    let read = kafka.run(
        "kafka-console-consumer.sh --topic orders --group desk --from-beginning --max-messages 6 --timeout-ms 300000",
    )?;
    let mut read: Vec<&str> = read.lines().collect();
    read.sort_unstable();
    ensure!(read == ["first", "first", "second", "second", "third", "third"], "{read:?}");
    Ok((node, kafka))
}

/// A console consumer that runs until it is told to stop.
pub(crate) struct Live(Child);

impl Live {
    pub(crate) fn of(command: &mut Command) -> Result<Live> {
        Ok(Live(command.spawn()?))
    }

    pub(crate) fn stop(mut self) -> Result<()> {
        Command::new("kill").args(["-TERM", &self.0.id().to_string()]).status()?;
        self.0.wait()?;
        Ok(())
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_group_at_rest_is_described_and_its_offsets_reset_in_every_way() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (node, kafka) = node_and_group(folder.path())?;
    let listed = kafka.run("kafka-consumer-groups.sh --list --state")?;
    ensure!(table(&listed, "GROUP")? == [["desk", "Empty"]], "{listed}");
    let listed = kafka.run("kafka-groups.sh --list")?;
    ensure!(table(&listed, "GROUP")? == [["desk", "Classic", "consumer"]], "{listed}");
    let described = kafka.run("kafka-consumer-groups.sh --describe --group desk")?;
    let wanted = ["0", "1"].map(|partition| ["desk", "orders", partition, "3", "3", "0", "-", "-", "-"]);
    ensure!(table(&described, "GROUP")? == wanted, "{described}");
    let described = kafka.run("kafka-consumer-groups.sh --describe --group desk --state")?;
    let address = node.address.to_string();
    ensure!(table(&described, "GROUP")? == [["desk", &address, "(1)", "-", "Empty", "0"]], "{described}");
    let gone = kafka.run("kafka-consumer-groups.sh --describe --group nobody")?;
    ensure!(gone.contains("GroupIdNotFoundException: Group nobody not found."), "{gone}");

    for (how, wanted) in [
        ("--to-earliest", "0"),
        ("--to-latest", "3"),
        ("--to-current", "3"),
        ("--to-datetime 2020-01-01T00:00:00.000", "0"),
        ("--to-datetime 2999-01-01T00:00:00.000", "3"),
        ("--by-duration PT90M", "2"),
        ("--shift-by -2", "1"),
        ("--to-offset 2", "2"),
    ] {
        let reset = format!("kafka-consumer-groups.sh --reset-offsets --group desk --topic orders {how} --dry-run");
        let printed = kafka.run(&reset)?;
        let mut rows = table(&printed, "GROUP")?;
        rows.sort();
        ensure!(rows == ["0", "1"].map(|partition| ["desk", "orders", partition, wanted]), "{how}:\n{printed}");
    }
    kafka.run("kafka-consumer-groups.sh --reset-offsets --group desk --topic orders:0 --shift-by -2 --execute")?;
    let described = kafka.run("kafka-consumer-groups.sh --describe --group desk --offsets")?;
    let wanted = [("0", "1", "2"), ("1", "3", "0")]
        .map(|(partition, at, lag)| ["desk", "orders", partition, at, "3", lag, "-", "-", "-"]);
    ensure!(table(&described, "GROUP")? == wanted, "only what was executed has moved:\n{described}");

    let deleted = kafka.run("kafka-consumer-groups.sh --delete-offsets --group desk --topic orders:0")?;
    ensure!(table(&deleted, "TOPIC")? == [["orders", "0", "Successful"]], "{deleted}");
    let deleted = kafka.run("kafka-consumer-groups.sh --delete --group desk")?;
    ensure!(deleted == "Deletion of requested consumer groups ('desk') was successful.\n", "{deleted}");
    let again = kafka.run("kafka-consumer-groups.sh --delete --group desk")?;
    ensure!(again.contains("GroupIdNotFoundException: The group id does not exist."), "{again}");
    ensure!(kafka.run("kafka-consumer-groups.sh --list")?.trim().is_empty(), "no group is left");
    node.stop()
}

#[test]
fn a_group_at_work_shows_its_member_and_is_protected() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (node, kafka) = node_and_group(folder.path())?;
    let mut consumer = kafka.command("kafka-console-consumer.sh --topic orders --group desk")?;
    let live = Live::of(consumer.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()))?;
    let stable = "varve_groups{state=\"stable\"} 1";
    eventually("the group is stable", || Ok(node.http_get("/metrics")?.contains(stable).then_some(())))?;

    let described = kafka.run("kafka-consumer-groups.sh --describe --group desk --state")?;
    let address = node.address.to_string();
    ensure!(table(&described, "GROUP")? == [["desk", &address, "(1)", "range", "Stable", "1"]], "{described}");
    let described = kafka.run("kafka-consumer-groups.sh --describe --group desk --members --verbose")?;
    let rows = table(&described, "GROUP")?;
    ensure!(rows.len() == 1 && rows[0][1].starts_with("console-consumer-"), "{described}");
    ensure!(rows[0][2..] == ["/127.0.0.1", "console-consumer", "2", "-", "orders:0,1", "-", "-"], "{described}");
    let described = kafka.run("kafka-consumer-groups.sh --describe --group desk")?;
    let rows = table(&described, "GROUP")?;
    ensure!(rows.iter().all(|row| row[7..] == ["/127.0.0.1", "console-consumer"]) && rows.len() == 2, "{described}");

    let reset =
        kafka.run("kafka-consumer-groups.sh --reset-offsets --group desk --topic orders --to-earliest --execute")?;
    ensure!(
        reset.contains("can only be reset if the group 'desk' is inactive, but the current state is Stable."),
        "{reset}"
    );
    let deleted = kafka.run("kafka-consumer-groups.sh --delete --group desk")?;
    ensure!(deleted.contains("GroupNotEmptyException: The group is not empty."), "{deleted}");
    let deleted = kafka.run("kafka-consumer-groups.sh --delete-offsets --group desk --topic orders")?;
    ensure!(deleted.matches("GroupSubscribedToTopicException").count() == 2, "{deleted}");

    live.stop()?;
    let empty = "varve_groups{state=\"empty\"} 1";
    eventually("the group is empty", || Ok(node.http_get("/metrics")?.contains(empty).then_some(())))?;
    node.stop()
}
