//! `cargo xtask cluster`, which docs/cluster.md begins with, and Kafka's own tools.

use std::{net::SocketAddr, process::Command};

use anyhow::{Context, Result, ensure};
use varve_tests::{
    kafka_tools::KafkaTools,
    network::alone,
    node::{binary, until},
    running::Running,
};

/// Where the second of the three listens: a cluster is reached through any of them.
const SECOND: &str = "127.0.0.1:9093";

#[test]
fn the_cluster_of_the_documentation_serves_kafkas_tools_keeps_its_data_and_ends_in_order() -> Result<()> {
    alone("the_cluster_of_the_documentation_serves_kafkas_tools_keeps_its_data_and_ends_in_order", || {
        let folder = tempfile::tempdir()?;
        let varve = binary()?;
        let xtask = varve.with_file_name("xtask");
        ensure!(xtask.exists(), "{} is not there: cargo build --package varve-xtask", xtask.display());
        let start = || -> Result<Running> {
            let mut command = Command::new(&xtask);
            command.args(["cluster", "3", "--bin"]).arg(&varve).arg("--data").arg(folder.path().join("data"));
            let mut cluster = Running::start(command, &folder.path().join("cluster.log"))?;
            cluster.until_it_says("bootstrap.servers=127.0.0.1:9092,127.0.0.1:9093,127.0.0.1:9094")?;
            Ok(cluster)
        };
        let kafka = KafkaTools::at(SECOND.parse::<SocketAddr>()?);
        let cluster = start()?;
        // As many replicas as are sensible without being asked for. The broker that is asked may not know the others yet.
        let create = "kafka-topics.sh --create --if-not-exists --topic first --partitions 6";
        until("it is made", || kafka.run(create))?;
        // Another broker than the one that made it may be asked, before it knows the topic.
        let described = until("it is described", || kafka.run("kafka-topics.sh --describe --topic first"))?;
        ensure!(
            described.contains("ReplicationFactor: 3") && described.contains("min.insync.replicas=2"),
            "{described}"
        );
        let sent: String = (0..100).map(|number| format!("record {number}\n")).collect();
        kafka.run_with_input("kafka-console-producer.sh --topic first --producer-property acks=all", &sent)?;
        cluster.terminate()?;

        let cluster = start()?;
        let read = "kafka-console-consumer.sh --topic first --group readers --from-beginning --max-messages 100";
        let mut found: Vec<String> = kafka.run(read)?.lines().map(str::to_owned).collect();
        let mut wanted: Vec<&str> = sent.lines().collect();
        found.sort_unstable();
        wanted.sort_unstable();
        ensure!(found == wanted, "{found:?}");
        cluster.terminate().context("it ends in order")
    })
}
