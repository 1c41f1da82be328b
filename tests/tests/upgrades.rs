//! Brokers of several versions in one cluster: who may join, what keeps a level of a feature from being raised, and a rolling
//! upgrade under load.
//!
//! `VARVE_OTHER_BINARY` names a `varve` of another version, which `cargo xtask mixed COMMIT` builds. Without it the upgrade is one
//! from a version to itself.

use std::path::PathBuf;

use anyhow::{Result, ensure};
use varve_tests::{
    client::Client,
    cluster::{
        Cluster,
        load::{Load, SETTINGS, TOPIC, UNHURRIED, judged_from, setting},
    },
    kafka_tools::KafkaTools,
    node::{binary, eventually, until},
};

#[test]
fn brokers_are_upgraded_one_by_one_and_those_of_two_versions_serve_together() -> Result<()> {
    let load = Load { brokers: 3, replicas: 3, replicas_after: 3, settings: &UNHURRIED };
    let old = std::env::var_os("VARVE_OTHER_BINARY").map_or_else(binary, |path| Ok(PathBuf::from(path)))?;
    println!("from {}", old.display());
    judged_from(Some(&old), load, setting("VARVE_CLUSTER_SEED", 6)?, &|cluster, _, faults| {
        for at in 0..3 {
            if faults.recv_timeout(std::time::Duration::from_millis(1_000)).is_ok() {
                break;
            }
            cluster.stop(at)?;
            cluster.upgrade(at);
            cluster.start_all(&[at])?;
            cluster.await_isr(TOPIC, 3)?;
        }
        // All serve what the new ones do: levels can be raised to what those would give a new cluster.
        let tools = KafkaTools::at(cluster.addresses()[0]);
        let described = tools.run("kafka-features.sh --bootstrap-server NODE describe")?;
        let levels = described.lines().filter_map(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            let after = |name: &str| words.iter().position(|word| *word == name).and_then(|at| words.get(at + 1));
            Some((*after("Feature:")?, *after("SupportedMaxVersion:")?))
        });
        for (feature, max) in levels.filter(|(feature, _)| *feature != "metadata.version") {
            // Whoever is asked may not have heard of the last broker's new version.
            let line = format!("kafka-features.sh --bootstrap-server NODE upgrade --feature {feature}={max}");
            until("a level is raised", || tools.run(&line))?;
        }
        Ok(())
    })
}

#[test]
fn a_broker_that_lacks_what_the_cluster_agreed_on_does_not_join_and_says_why() -> Result<()> {
    const WHY: &str = "does not support finalized version 1 of of.tomorrow";
    let folder = tempfile::tempdir()?;
    let mut cluster = Cluster::start(folder.path(), 1, &SETTINGS)?;
    // As brokers of tomorrow would, that all serve it.
    cluster.etcd[0].ctl(&["put", "/varve/features/of.tomorrow", r#"{"v":1,"level":1}"#])?;
    eventually("the broker that is there ends", || Ok(cluster.printed(0)?.contains(WHY).then_some(())))?;
    cluster.kill(0);
    let before = cluster.printed(0)?.len();
    let refused = cluster.start_all(&[0]).expect_err("it is too old");
    ensure!(format!("{refused:#}").contains("varve ended with"), "{refused:#}");
    ensure!(cluster.printed(0)?[before..].contains(WHY), "{}", cluster.printed(0)?);
    // Off is a level that everybody serves.
    cluster.etcd[0].ctl(&["put", "/varve/features/of.tomorrow", r#"{"v":1,"level":0}"#])?;
    cluster.start_all(&[0])
}

#[test]
fn kafkas_tool_raises_a_level_once_every_broker_serves_it() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let cluster = Cluster::start(folder.path(), 2, &[&SETTINGS[..], &UNHURRIED].concat())?;
    let tools = KafkaTools::at(cluster.addresses()[1]);
    let features = "kafka-features.sh --bootstrap-server NODE";
    tools.run(&format!("{features} downgrade --feature transaction.version=1"))?;
    // What an older version would register, and is down at the moment: it could not come back.
    let older = r#"{"v":1,"incarnation":"00000000-0000-0000-0000-000000000001","endpoints":{},"rack":null,"fenced":true,
        "version":"0.0.1","features":{"transaction.version":{"min":0,"max":1},"metadata.version":{"min":7,"max":29}}}"#;
    cluster.etcd[0].ctl(&["put", "/varve/brokers/9", older])?;
    eventually("the older one keeps them from it", || {
        let line = format!("{features} upgrade --feature transaction.version=2");
        match tools.refused(&line) {
            Ok(said) => {
                ensure!(said.contains("Broker 9 only supports versions 0-1"), "{said}");
                Ok(Some(()))
            }
            // The brokers had not seen it yet.
            Err(_) => {
                tools.run(&format!("{features} downgrade --feature transaction.version=1"))?;
                Ok(None)
            }
        }
    })?;
    tools.run("kafka-cluster.sh unregister --id 9 --bootstrap-server NODE")?;
    until("the level is raised without the older one", || {
        tools.run(&format!("{features} upgrade --feature transaction.version=2"))
    })?;
    for address in cluster.addresses() {
        Client::connect(address)?.api_versions()?;
        until(&format!("the broker at {address} knows the level"), || {
            let described = KafkaTools::at(address).run("kafka-features.sh --bootstrap-server NODE describe")?;
            let line = described.lines().find(|line| line.contains("transaction.version")).unwrap_or_default();
            ensure!(line.contains("FinalizedVersionLevel: 2"), "{described}");
            Ok(())
        })?;
    }
    Ok(())
}
