//! Share groups (KIP-932) with Kafka's own share consumer, while brokers are killed: every record is delivered and accepted,
//! and none is delivered again once its acceptance was answered.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use varve_tests::{
    client::Client,
    cluster::Cluster,
    kafka_tools::KafkaTools,
    node::{Node, eventually, stable_address, until},
    running::Running,
    tools,
    workload::Random,
};

const TOPIC: &str = "jobs";
const GROUP: &str = "workers";
const RECORDS: i64 = 2_000;
const PARTITIONS: i32 = 2;
const MEMBERS: usize = 3;
/// Few partitions of internal topics, so that they load fast.
const SETTINGS: [&str; 3] = [
    "offsets.topic.num.partitions=3",
    "share.coordinator.state.topic.num.partitions=3",
    "group.share.assignment.interval.ms=0",
];

/// Place of a record: partition and offset.
type At = (i64, i64);

/// Members of the group at work; each prints what it was given and what was answered to it.
struct Members(Vec<Running>);

impl Members {
    fn start(folder: &Path, bootstrap: &str, mode: &str) -> Result<Members> {
        let settings = folder.join("share.properties");
        std::fs::write(&settings, "reconnect.backoff.max.ms=200\nretry.backoff.max.ms=200\n")?;
        let members = (0..MEMBERS).map(|number| {
            let mut command = tools::program("kafka-verifiable-share-consumer.sh")?;
            command.args(["--bootstrap-server", bootstrap, "--topic", TOPIC, "--group-id", GROUP, "--verbose"]);
            command.args(["--acknowledgement-mode", mode, "--offset-reset-strategy", "earliest", "--command-config"]);
            command.arg(&settings);
            Running::start(command, &folder.join(format!("member-{number}.log")))
        });
        Ok(Members(members.collect::<Result<_>>()?))
    }

    /// All events, in the order of their time.
    fn events(&self) -> Vec<Value> {
        let printed: Vec<String> = self.0.iter().map(Running::printed).collect();
        let lines = printed.iter().flat_map(|printed| printed.lines());
        let mut events: Vec<Value> = lines.filter_map(|line| serde_json::from_str(line).ok()).collect();
        events.sort_by_key(|event| event["timestamp"].as_i64());
        events
    }

    fn stop(self) -> Result<()> {
        for mut member in self.0 {
            ensure!(member.ended()?.is_none(), "a member ended:\n{}", member.printed());
            member.terminate()?;
        }
        Ok(())
    }
}

/// The records that an event is about.
fn places(event: &Value) -> Vec<At> {
    let partitions = event["partitions"].as_array().into_iter().flatten();
    let places = partitions.flat_map(|partition| {
        let offsets = partition["offsets"].as_array().into_iter().flatten();
        offsets.filter_map(|offset| Some((partition["partition"].as_i64()?, offset.as_i64()?)))
    });
    places.collect()
}

/// Records whose acceptance was answered, so far.
fn accepted(events: &[Value]) -> BTreeSet<At> {
    let is_success = |event: &&Value| event["name"] == "offsets_acknowledged" && event["success"] == true;
    events.iter().filter(is_success).flat_map(places).collect()
}

/// No record may be given out again once its acceptance was answered. Times are those of one machine; what comes within the
/// same moment is in no order.
fn check(events: &[Value]) -> Result<()> {
    let mut done: BTreeMap<At, i64> = BTreeMap::new();
    for event in events {
        let at = event["timestamp"].as_i64().context("a time")?;
        if event["name"] == "records_consumed" {
            for place in places(event) {
                let before = done.get(&place).filter(|before| **before + 1_000 < at);
                ensure!(before.is_none(), "{place:?} was accepted at {before:?} and is given out again at {at}");
            }
        }
        if event["name"] == "offsets_acknowledged" && event["success"] == true {
            places(event).into_iter().for_each(|place| {
                done.entry(place).or_insert(at);
            });
        }
    }
    Ok(())
}

fn produce(kafka: &KafkaTools) -> Result<()> {
    let input: String = (0..RECORDS).map(|number| format!("job {number}\n")).collect();
    // A batch for every few records, so that there are many.
    let line = format!("kafka-console-producer.sh --topic {TOPIC} --batch-size 300 --command-property linger.ms=0");
    kafka.run_with_input(&line, &input).map(drop)
}

/// Records that a member was given, so far.
fn delivered(events: &[Value]) -> BTreeSet<At> {
    events.iter().filter(|event| event["name"] == "records_consumed").flat_map(places).collect()
}

/// Whether the group is done with all records, as it says itself: where a node was killed with an answer on its way, the record
/// is accepted and no member knows of it.
fn is_done(kafka: &KafkaTools) -> Result<bool> {
    let described = kafka.run(&format!("kafka-share-groups.sh --describe --group {GROUP}"))?;
    let rows = described.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    // GROUP TOPIC PARTITION START-OFFSET LAG
    let rows: Vec<Vec<&str>> = rows.filter(|row| row.len() == 5 && row[1] == TOPIC).collect();
    Ok(rows.len() == PARTITIONS as usize && rows.iter().all(|row| row[4] == "0"))
}

/// Waits until everything was delivered and the group is done with it, and judges.
fn judge(members: Members, kafka: &KafkaTools) -> Result<()> {
    let done = eventually("everything is delivered", || {
        Ok((delivered(&members.events()).len() as i64 >= RECORDS).then_some(()))
    });
    done.with_context(|| format!("{} of {RECORDS} are delivered", delivered(&members.events()).len()))?;
    // The tool may be told no while a broker takes over.
    until("everything is accepted", || {
        ensure!(is_done(kafka)?, "some records are not");
        Ok(())
    })?;
    check(&members.events())?;
    members.stop()
}

fn on_one_node(mode: &str) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let address = stable_address()?;
    let mut node = Node::start_at(folder.path(), address, &SETTINGS)?;
    Client::connect(address)?.create_topic(TOPIC, PARTITIONS, &[])?;
    let members = Members::start(folder.path(), &address.to_string(), mode)?;
    produce(&KafkaTools::at(address))?;
    let mut random = Random(1);
    for _ in 0..3 {
        std::thread::park_timeout(Duration::from_millis(500 + random.below(1_500)));
        node.kill();
        node = Node::start_at(folder.path(), address, &SETTINGS)?;
    }
    judge(members, &KafkaTools::at(address))?;
    node.stop()
}

#[test]
fn what_is_accepted_is_never_given_out_again_though_the_node_is_killed_in_a_loop() -> Result<()> {
    on_one_node("sync")
}

#[test]
fn members_that_accept_with_their_next_request_lose_nothing_either() -> Result<()> {
    on_one_node("auto")
}

#[test]
fn leaders_keepers_and_coordinators_may_be_different_brokers_and_each_may_end() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let own = [
        "broker.session.timeout.ms=2000",
        "replica.lag.time.max.ms=3000",
        "offsets.topic.replication.factor=3",
        "share.coordinator.state.topic.replication.factor=3",
        "share.coordinator.state.topic.min.isr=2",
    ];
    let mut cluster = Cluster::start(folder.path(), 3, &[&own[..], &SETTINGS].concat())?;
    let addresses = cluster.addresses();
    cluster.create(TOPIC, PARTITIONS, 3, &[("min.insync.replicas", "2")])?;
    let bootstrap = addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    let members = Members::start(folder.path(), &bootstrap, "sync")?;
    produce(&KafkaTools::at(addresses[0]))?;
    for at in 0..3 {
        eventually("some more are accepted", || {
            let accepted = accepted(&members.events()).len() as i64;
            Ok((accepted >= (at + 1) * RECORDS / 10).then_some(()))
        })?;
        let at = at as usize;
        cluster.kill(at);
        std::thread::park_timeout(Duration::from_secs(3));
        cluster.start_all(&[at])?;
        cluster.await_isr(TOPIC, 3)?;
    }
    judge(members, &KafkaTools::at(addresses[0]))?;
    for at in 0..3 {
        cluster.stop(at)?;
    }
    Ok(())
}
