//! `kafka-features.sh`, `kafka-metadata-quorum.sh`, `kafka-cluster.sh`.

use anyhow::{Result, ensure};
use varve_tests::{kafka_tools::KafkaTools, node::Node};

#[test]
fn features_are_described_and_kept_at_levels_that_are_served() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let node = Node::start(folder.path(), &[])?;
    let kafka = KafkaTools::of(&node);
    let described = kafka.run("kafka-features.sh --bootstrap-server NODE describe")?;
    let words: Vec<&str> = described.split_whitespace().collect();
    let metadata = "Feature: metadata.version SupportedMinVersion: 3.3-IV3 SupportedMaxVersion: 4.3-IV0 \
                    FinalizedVersionLevel: 4.3-IV0";
    ensure!(words.join(" ").contains(metadata), "{described}");
    let same = kafka.run("kafka-features.sh --bootstrap-server NODE upgrade --feature metadata.version=30")?;
    ensure!(same.contains("metadata.version was upgraded to 30."), "{same}");
    let refused = kafka.refused("kafka-features.sh --bootstrap-server NODE downgrade --feature metadata.version=20")?;
    ensure!(refused.contains("might delete metadata information"), "{refused}");
    let unknown = kafka.refused("kafka-features.sh --bootstrap-server NODE upgrade --feature nothing.version=1")?;
    ensure!(unknown.contains("nothing.version"), "{unknown}");
    node.stop()
}

#[test]
fn who_decides_on_cluster_state_is_shown_as_its_quorum() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let node = Node::start(folder.path(), &[])?;
    let kafka = KafkaTools::of(&node);
    let status = kafka.run("kafka-metadata-quorum.sh --bootstrap-server NODE describe --status")?;
    for wanted in ["LeaderId:               1", "MaxFollowerLag:         0", "\"id\": 1", "CurrentObservers:       []"]
    {
        ensure!(status.contains(wanted), "{wanted} is missing:\n{status}");
    }
    let replication = kafka.run("kafka-metadata-quorum.sh --bootstrap-server NODE describe --replication")?;
    ensure!(replication.lines().any(|line| line.starts_with('1') && line.contains("Leader")), "{replication}");
    node.stop()
}

#[test]
fn brokers_are_listed_and_a_running_one_is_not_forgotten() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let node = Node::start(folder.path(), &[])?;
    let kafka = KafkaTools::of(&node);
    let listed = kafka.run("kafka-cluster.sh list-endpoints")?;
    ensure!(listed.lines().any(|line| line.starts_with('1') && line.contains("127.0.0.1")), "{listed}");
    let refused = kafka.refused("kafka-cluster.sh unregister --id 1")?;
    ensure!(refused.contains("stop it before it is unregistered"), "{refused}");
    let unknown = kafka.refused("kafka-cluster.sh unregister --id 9")?;
    ensure!(unknown.contains("Broker ID 9 is not currently registered"), "{unknown}");
    node.stop()
}
