//! `kafka-topics.sh` and `kafka-cluster.sh`.

use anyhow::{Context, Result, ensure};
use varve_tests::{kafka_tools::KafkaTools, node::Node};

#[test]
fn topics_are_created_listed_described_grown_and_deleted() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let node = Node::start(folder.path(), &[])?;
    let kafka = KafkaTools::of(&node);
    let cluster_id = kafka.run("kafka-cluster.sh cluster-id")?;
    ensure!(cluster_id.starts_with("Cluster ID: ") && cluster_id.trim_end().len() == 34, "{cluster_id}");

    let created = kafka.run(
        "kafka-topics.sh --create --topic orders --partitions 3 --replication-factor 1 \
         --config retention.ms=86400000 --config segment.bytes=1048576",
    )?;
    ensure!(created == "Created topic orders.\n", "{created}");
    let again = kafka.run("kafka-topics.sh --create --topic orders --if-not-exists")?;
    ensure!(again.is_empty(), "{again}");
    let placed = kafka.run("kafka-topics.sh --create --topic placed --replica-assignment 1,1")?;
    ensure!(placed == "Created topic placed.\n", "{placed}");
    kafka.run("kafka-topics.sh --create --topic with.dot")?;

    let list = kafka.run("kafka-topics.sh --list")?;
    ensure!(list == "orders\nplaced\nwith.dot\n", "{list}");

    let described = kafka.run("kafka-topics.sh --describe --topic orders")?;
    let mut lines = described.lines();
    let head: Vec<&str> = lines.next().context("a line for the topic")?.split('\t').collect();
    let [topic, id, partitions, replication, configs] = head[..] else { anyhow::bail!("{described}") };
    ensure!([topic, partitions, replication] == ["Topic: orders", "PartitionCount: 3", "ReplicationFactor: 1"]);
    ensure!(id.strip_prefix("TopicId: ").is_some_and(|id| id.len() == 22), "{described}");
    let configs = configs.strip_prefix("Configs: ").with_context(|| described.clone())?;
    ensure!(configs.contains("retention.ms=86400000") && configs.contains("segment.bytes=1048576"), "{configs}");
    for (index, line) in lines.enumerate() {
        let wanted =
            format!("\tTopic: orders\tPartition: {index}\tLeader: 1\tReplicas: 1\tIsr: 1\tElr: \tLastKnownElr: ");
        ensure!(line == wanted, "{line:?}");
    }
    ensure!(described.lines().count() == 4, "{described}");
    let overridden = kafka.run("kafka-topics.sh --describe --topics-with-overrides")?;
    ensure!(overridden.lines().count() == 1 && overridden.starts_with("Topic: orders\t"), "{overridden}");
    let behind = kafka.run("kafka-topics.sh --describe --under-replicated-partitions")?;
    ensure!(behind.is_empty(), "{behind}");

    kafka.run("kafka-topics.sh --alter --topic orders --partitions 5")?;
    let described = kafka.run("kafka-topics.sh --describe --topic orders")?;
    ensure!(described.contains("PartitionCount: 5") && described.contains("\tPartition: 4\t"), "{described}");

    kafka.run("kafka-topics.sh --delete --topic orders")?;
    kafka.run("kafka-topics.sh --delete --topic gone --if-exists")?;
    let list = kafka.run("kafka-topics.sh --list --exclude-internal")?;
    ensure!(list == "placed\nwith.dot\n", "{list}");
    node.stop()
}

#[test]
fn what_kafka_refuses_of_topics_is_refused_in_its_words() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let node = Node::start(folder.path(), &[])?;
    let kafka = KafkaTools::of(&node);
    kafka.run("kafka-topics.sh --create --topic with.dot --partitions 3")?;
    let cases = [
        ("--create --topic with.dot", "TopicExistsException: Topic 'with.dot' already exists."),
        ("--create --topic with_dot", "InvalidTopicException: Topic 'with_dot' collides with existing topic: with.dot"),
        (
            "--create --topic a/b",
            "InvalidTopicException: Topic name is invalid: 'a/b' contains one or more characters other than ASCII \
             alphanumerics, '.', '_' and '-'",
        ),
        (
            "--create --topic two --replication-factor 2",
            "InvalidReplicationFactorException: Unable to replicate the partition 2 time(s): The target replication \
             factor of 2 cannot be reached because only 1 broker(s) are registered",
        ),
        (
            "--create --topic placed --replica-assignment 9",
            "InvalidReplicaAssignmentException: The manual partition assignment includes broker 9, but no such broker \
             is registered.",
        ),
        (
            "--create --topic typo --config retention.millis=5",
            "InvalidConfigurationException: Unknown topic config name: retention.millis",
        ),
        (
            "--alter --topic with.dot --partitions 2",
            "InvalidPartitionsException: The topic with.dot currently has 3 partition(s); 2 would not be an increase.",
        ),
        ("--describe --topic gone", "Topic 'gone' does not exist as expected"),
        ("--delete --topic gone", "Topic 'gone' does not exist as expected"),
    ];
    for (arguments, wanted) in cases {
        let printed = kafka.refused(&format!("kafka-topics.sh {arguments}"))?;
        ensure!(printed.contains(wanted), "{arguments}: wanted {wanted:?}, found\n{printed}");
    }
    let list = kafka.run("kafka-topics.sh --list")?;
    ensure!(list == "with.dot\n", "nothing of it was done: {list}");
    node.stop()
}
