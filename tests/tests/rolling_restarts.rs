//! Whether a broker may be stopped, and whether one that was started again stands in for the next: `varve broker check` and
//! `/insyncz`, which whoever restarts a cluster one by one waits for.

use std::fs;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use serde_json::{Value, json};
use varve_log::format::{BatchBuilder, RecordContent};
use varve_metadata::model::{Offset, Timestamp};
use varve_tests::{
    client::Client,
    cluster::{
        Cluster,
        broker_command::{is_there, told, varve_broker},
    },
    kafka_tools::KafkaTools,
    node::{eventually, until, varve},
    running::Running,
    tools,
};

const TOPIC: &str = "ledger";
const SETTINGS: [&str; 4] = [
    "broker.session.timeout.ms=3600000",
    "replica.lag.time.max.ms=300000",
    "remote.log.storage.system.enable=false",
    "min.insync.replicas=2",
];
/// Bytes per second with which what a broker has missed would take hours.
const SLOW: u64 = 1_000;
const RECORD_BYTES: usize = 400_000;
const RECORDS: usize = 40;

fn reasons(lines: &[Value]) -> Vec<String> {
    let reason =
        |line: &Value| Some(format!("{}-{} {}", line["topic"].as_str()?, line["partition"], line["reason"].as_str()?));
    lines.iter().filter_map(reason).collect()
}

/// Waits for an answer of `varve broker check`: whichever broker is asked may hear of a change after another one.
fn await_answer(cluster: &Cluster, arguments: &[&str], is_yes: bool, state: &str) -> Result<Vec<Value>> {
    let arguments = [&["check"], arguments, &["--json"]].concat();
    until(&format!("{arguments:?} says: {state}"), || {
        let (said, lines) = told(cluster, &arguments)?;
        ensure!(said == is_yes && is_there(&lines, state), "{lines:?}");
        Ok(lines)
    })
}

/// What `varve health --in-sync` says of a broker.
fn in_sync(cluster: &Cluster, at: usize, seconds: &str) -> Result<(bool, String)> {
    let mut health = varve()?;
    health.args(["health", "--in-sync", "--wait-seconds", seconds, "--address", &cluster.node(at).http.to_string()]);
    let output = health.output()?;
    Ok((output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned()))
}

/// Several fetches' worth of records, into the topic's one partition.
fn write(cluster: &Cluster) -> Result<()> {
    let leader = cluster.describe(TOPIC)?[0].leader.context("somebody leads")?;
    let mut client = Client::connect(cluster.addresses()[leader])?;
    for _ in 0..RECORDS {
        let timestamp = Timestamp::from_wire(std::time::UNIX_EPOCH.elapsed()?.as_millis() as i64);
        let (value, mut batch) = (vec![7; RECORD_BYTES], BatchBuilder::new(Offset::ZERO));
        batch.push(RecordContent { timestamp, key: None, value: Some(&value), headers: &[] });
        client.produce(TOPIC, 0, Bytes::from(batch.build()?))?;
    }
    Ok(())
}

#[test]
fn a_broker_that_serves_and_still_catches_up_keeps_the_others_from_being_stopped() -> Result<()> {
    const BEHIND: usize = 2;
    let folder = tempfile::tempdir()?;
    let mut cluster = Cluster::start(folder.path(), 3, &SETTINGS)?;
    let kafka = KafkaTools::at(cluster.addresses()[0]);
    cluster.create(TOPIC, 1, 3, &[("follower.replication.throttled.replicas", "*")])?;
    cluster.await_isr(TOPIC, 3)?;
    let of_behind = |change: &str| {
        kafka.run(&format!("kafka-configs.sh --alter --entity-type brokers --entity-name {BEHIND} {change}"))
    };
    of_behind(&format!("--add-config follower.replication.throttled.rate={SLOW}"))?;
    await_answer(&cluster, &["0"], true, "may be stopped")?;
    for at in 0..3 {
        ensure!(in_sync(&cluster, at, "60")? == (true, "ready\n".to_owned()), "broker {at}, from the start on");
    }

    cluster.stop(BEHIND)?;
    write(&cluster)?;
    cluster.start_all(&[BEHIND])?;
    eventually("it serves", || Ok(cluster.node(BEHIND).http_get("/readyz").is_ok().then_some(())))?;
    let said = in_sync(&cluster, BEHIND, "0")?;
    ensure!(said == (false, "ready, and waiting for replicas to be in sync: ledger-0\n".to_owned()), "{said:?}");
    let lines = await_answer(&cluster, &["0"], false, "is needed")?;
    ensure!(reasons(&lines) == ["ledger-0 would have 1 in sync, and min.insync.replicas is 2"], "{lines:?}");
    ensure!(lines[0]["not_in_sync"] == json!([BEHIND]) && lines[0]["unavoidable"] == false, "{lines:?}");
    // Nobody misses the one that is behind.
    await_answer(&cluster, &["2"], true, "may be stopped")?;
    await_answer(&cluster, &["1", "--wait-seconds", "1"], false, "is needed")?;

    // Who waits is let on as soon as it has caught up.
    let command = varve_broker(&cluster, &["check", "1", "--json", "--wait-seconds", "600", "--for-seconds", "1"])?;
    let mut waiting = Running::start(command, &folder.path().join("check.log"))?;
    waiting.until_it_says("waiting")?;
    of_behind("--delete-config follower.replication.throttled.rate")?;
    let ended = eventually("it ends", || waiting.ended())?;
    ensure!(ended.success() && waiting.printed().contains("may be stopped"), "{}", waiting.printed());
    ensure!(cluster.describe(TOPIC)?[0].isr.len() == 3, "{:?}", cluster.describe(TOPIC)?);
    ensure!(in_sync(&cluster, BEHIND, "60")?.0, "its restart is over");

    // It dies. The others are needed, and ready all the same: they had caught up, and this is not their fault.
    cluster.kill(BEHIND);
    let lines = await_answer(&cluster, &["0"], false, "is needed")?;
    ensure!(lines[0]["not_in_sync"] == json!([BEHIND]), "{lines:?}");
    for at in [0, 1] {
        ensure!(in_sync(&cluster, at, "0")? == (true, "ready\n".to_owned()), "broker {at}");
    }
    Ok(())
}

#[test]
fn what_no_wait_helps_is_said_at_once_and_can_be_left_out_of_account() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let cluster = Cluster::start(folder.path(), 3, &SETTINGS)?;
    cluster.create("wide", 25, 3, &[])?;
    cluster.await_isr("wide", 3)?;
    await_answer(&cluster, &["0"], true, "may be stopped")?;
    // The hour is not waited for.
    let (is_yes, lines) = told(&cluster, &["check", "0", "1", "--json", "--wait-seconds", "3600"])?;
    let told_of = reasons(&lines);
    ensure!(!is_yes && told_of.len() == 20, "{lines:?}");
    ensure!(told_of[0] == "wide-0 would have 1 in sync, and min.insync.replicas is 2", "{told_of:?}");
    let last = lines.last().context("a line")?;
    ensure!((last["partitions"].as_u64(), last["not_listed"].as_u64()) == (Some(25), Some(5)), "{last}");

    cluster.create("alone", 1, 1, &[("min.insync.replicas", "1")])?;
    let holder = cluster.describe("alone")?[0].leader.context("somebody leads")?.to_string();
    let lines = await_answer(&cluster, &[&holder], false, "is needed")?;
    ensure!(reasons(&lines) == ["alone-0 would have no leader"] && lines[0]["unavoidable"] == true, "{lines:?}");
    let lines = await_answer(&cluster, &[&holder, "--allow-unavoidable"], true, "may be stopped")?;
    ensure!(lines[0]["without_a_spare"] == 1, "{lines:?}");

    let refused = |arguments: &[&str]| -> Result<String> {
        let output = varve_broker(&cluster, arguments)?.output()?;
        ensure!(!output.status.success(), "{arguments:?}");
        Ok(String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let said = refused(&["check", "7"])?;
    ensure!(said.contains("there is no broker 7"), "{said}");
    let said = refused(&["check"])?;
    ensure!(said.contains("which broker?"), "{said}");

    // The broker of a file, at the address that the file tells others.
    let file = folder.path().join("own.properties");
    let own = format!(
        "node.id={holder}\nlisteners=PLAINTEXT://0.0.0.0:9092\nadvertised.listeners=PLAINTEXT://{}\n",
        cluster.addresses()[0]
    );
    fs::write(&file, own)?;
    let mut check = varve()?;
    check.args(["broker", "check", "--allow-unavoidable", "--config"]).arg(&file);
    let said = tools::output_of(&mut check)?;
    ensure!(said == format!("broker: {holder}  state: may be stopped  without_a_spare: 1\n"), "{said}");
    Ok(())
}
