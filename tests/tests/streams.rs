//! A Kafka Streams application (tests/clients/java/Streams.java) on one node: its windowed counts of joined events are
//! what a plain program computes, though the application and the node are killed in the middle of the work, again and
//! again, and its state is rebuilt from changelogs that are in the archive by then.
//!
//! `VARVE_STREAMS_ROUNDS` changes the number of kills.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    net::SocketAddr,
    path::Path,
};

use anyhow::{Context, Result, ensure};
use varve_log::format::{BatchBuilder, RecordContent};
use varve_metadata::model::{Offset, Timestamp};
use varve_tests::{
    client::Client,
    kafka_tools::KafkaTools,
    kcat,
    node::{Node, eventually, stable_address},
    running::Running,
    tools,
};

/// Data leaves the local disk within a second, so that state is restored from the archive.
const EAGER: [&str; 13] = [
    "log.retention.check.interval.ms=200",
    "remote.log.manager.task.interval.ms=200",
    "log.cleaner.backoff.ms=200",
    "varve.archive.lag.ms=500",
    "varve.compactor.interval.ms=500",
    "log.local.retention.ms=1",
    "group.initial.rebalance.delay.ms=0",
    "group.min.session.timeout.ms=1000",
    "group.streams.initial.rebalance.delay.ms=0",
    "group.streams.min.session.timeout.ms=1000",
    "group.streams.session.timeout.ms=3000",
    "group.streams.min.heartbeat.interval.ms=100",
    "group.streams.heartbeat.interval.ms=300",
];

const PARTITIONS: i32 = 4;
const HOSTS: usize = 40;
const REGIONS: [&str; 3] = ["eu", "us", "ap"];
const LEVELS: [&str; 3] = ["INFO", "WARN", "ERROR"];
const MINUTE: i64 = 60_000;
/// Events of one round.
const ROUND: usize = 600;
/// Time from event to event: a window holds some hundred of them.
const STEP_MS: i64 = 150;

/// The input, and what must become of it.
struct Events {
    base: i64,
    sent: usize,
}

impl Events {
    /// Writes the hosts, to which all events belong.
    fn begin(address: SocketAddr) -> Result<Events> {
        let now = std::time::UNIX_EPOCH.elapsed()?.as_millis() as i64;
        let events = Events { base: (now - 120 * MINUTE) / MINUTE * MINUTE, sent: 0 };
        events.write_hosts(address)?;
        Ok(events)
    }

    fn host(number: usize) -> usize {
        number * 7919 % HOSTS
    }

    fn level(number: usize) -> &'static str {
        LEVELS[number / 7 % LEVELS.len()]
    }

    fn time(&self, number: usize) -> i64 {
        self.base + number as i64 * STEP_MS
    }

    /// Writes the table of hosts, older than every event.
    fn write_hosts(&self, address: SocketAddr) -> Result<()> {
        let rows = (0..HOSTS).map(|host| (host, self.base - MINUTE, REGIONS[host % REGIONS.len()].to_owned()));
        write(address, "shop-hosts", rows)
    }

    /// Writes the next `count` events. All are acknowledged when this returns.
    fn write(&mut self, address: SocketAddr, count: usize) -> Result<()> {
        let numbers = self.sent..self.sent + count;
        let rows =
            numbers.map(|number| (Self::host(number), self.time(number), format!("{} {number}", Self::level(number))));
        write(address, "shop-events", rows)?;
        self.sent += count;
        Ok(())
    }

    /// The numbers of the events of each region, level and minute, as the application labels them.
    fn expected(&self) -> BTreeMap<String, BTreeSet<usize>> {
        let mut windows: BTreeMap<String, BTreeSet<usize>> = BTreeMap::new();
        for number in 0..self.sent {
            let region = REGIONS[Self::host(number) % REGIONS.len()];
            let start = self.time(number) / MINUTE * MINUTE;
            windows.entry(format!("{region}|{}@{start}", Self::level(number))).or_default().insert(number);
        }
        windows
    }
}

/// Writes rows of host, time and value, by host into partitions.
fn write(address: SocketAddr, topic: &str, rows: impl Iterator<Item = (usize, i64, String)>) -> Result<()> {
    let mut batches: BTreeMap<i32, BatchBuilder> = BTreeMap::new();
    for (host, time, value) in rows {
        let batch = batches.entry(host as i32 % PARTITIONS).or_insert_with(|| BatchBuilder::new(Offset::ZERO));
        let key = format!("host-{host}");
        let (key, value) = (Some(key.as_bytes()), Some(value.as_bytes()));
        batch.push(RecordContent { timestamp: Timestamp::from_wire(time), key, value, headers: &[] });
    }
    let mut client = Client::connect(address)?;
    for (partition, batch) in batches {
        client.produce(topic, partition, batch.build()?.into())?;
    }
    Ok(())
}

fn application(folder: &Path, address: SocketAddr, guarantee: &str, protocol: &str) -> Result<Running> {
    let mut command = tools::program("java-Streams")?;
    command.args(["--bootstrap", &address.to_string(), "--application", "shop-app", "--topic", "shop"]);
    command.args(["--guarantee", guarantee, "--protocol", protocol, "--state"]).arg(folder.join("state"));
    Running::start(command, &folder.join("streams.log"))
}

/// Records of all partitions, by their offsets.
fn written(address: SocketAddr, topic: &str, which: i64) -> Result<i64> {
    let mut client = Client::connect(address)?;
    (0..PARTITIONS).map(|partition| client.list_offset(topic, partition, which)).sum()
}

/// The last list of numbers of each window.
fn numbers(address: SocketAddr) -> Result<BTreeMap<String, BTreeSet<usize>>> {
    let mut windows = BTreeMap::new();
    for record in kcat::read_committed(address, "shop-numbers")? {
        let numbers = record.value.split(',').map(str::parse).collect::<Result<_, _>>();
        windows.insert(record.key, numbers.with_context(|| record.value)?);
    }
    Ok(windows)
}

fn make_topics(address: SocketAddr) -> Result<()> {
    let mut client = Client::connect(address)?;
    for (topic, configs) in [
        ("shop-events", &[][..]),
        ("shop-hosts", &[("cleanup.policy", "compact")]),
        ("shop-counts", &[]),
        ("shop-numbers", &[]),
    ] {
        client.create_topic(topic, PARTITIONS, configs)?;
    }
    Ok(())
}

/// Waits until every window has its events, and the application goes on meanwhile.
fn until_counted(
    address: SocketAddr,
    expected: &BTreeMap<String, BTreeSet<usize>>,
    application: &mut Running,
) -> Result<()> {
    eventually("every event is counted", || {
        ensure!(application.ended()?.is_none(), "it ended:\n{}", application.printed());
        Ok((numbers(address)? == *expected).then_some(()))
    })
    .with_context(|| application.printed())
}

/// Runs the application through `rounds` kills.
fn counts_survive(guarantee: &str, protocol: &str, default_rounds: usize) -> Result<()> {
    let rounds = match std::env::var("VARVE_STREAMS_ROUNDS") {
        Ok(text) => text.parse().with_context(|| format!("VARVE_STREAMS_ROUNDS={text}"))?,
        Err(_) => default_rounds,
    };
    let folder = tempfile::tempdir()?;
    let address = stable_address()?;
    let mut node = Node::start_at(folder.path(), address, &EAGER)?;
    make_topics(address)?;
    let mut events = Events::begin(address)?;
    let mut application_runs = application(folder.path(), address, guarantee, protocol)?;
    application_runs.until_it_says("RUNNING")?;
    for round in 0..rounds {
        let before = written(address, "shop-counts", -1)?;
        events.write(address, ROUND / 2)?;
        eventually("the application counts", || {
            ensure!(application_runs.ended()?.is_none(), "it ended:\n{}", application_runs.printed());
            Ok((written(address, "shop-counts", -1)? > before).then_some(()))
        })
        .with_context(|| application_runs.printed())?;
        events.write(address, ROUND / 2)?;
        // Now it is in the middle of these.
        match round % 3 {
            1 => {
                node.kill();
                node = Node::start_at(folder.path(), address, &EAGER)?;
            }
            kind => {
                application_runs.kill();
                if kind == 2 {
                    fs::remove_dir_all(folder.path().join("state"))?;
                }
                application_runs = application(folder.path(), address, guarantee, protocol)?;
            }
        }
    }
    let expected = events.expected();
    until_counted(address, &expected, &mut application_runs)?;
    let mut counts: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    for record in kcat::read_committed(address, "shop-counts")? {
        counts.entry(record.key).or_default().push(record.value.parse()?);
    }
    ensure!(counts.keys().eq(expected.keys()), "the same windows");
    for (window, numbers) in &expected {
        let counts = &counts[window];
        if guarantee == "exactly_once_v2" {
            ensure!(counts.iter().copied().eq(1..=numbers.len()), "{window}: {counts:?}, not 1 to {}", numbers.len());
        } else {
            let last = counts.last().context("a count")?;
            ensure!(*last >= numbers.len(), "{window}: {last} of {} events", numbers.len());
        }
    }
    eventually("what was repartitioned and counted is deleted", || {
        let start = written(address, "shop-app-by-region-repartition", -2)?;
        let end = written(address, "shop-app-by-region-repartition", -1)?;
        Ok((start > 0 && start * 10 >= end * 9).then_some(()))
    })?;
    if protocol == "streams" {
        shown(address)?;
    }
    application_runs.end_input()?;
    match protocol {
        "streams" => forget(address)?,
        _ => reset(address)?,
    }
    ensure!(!node.printed().contains("ERROR"), "the node saw nothing wrong:\n{}", node.printed());
    node.stop()
}

/// Kafka's own tool forgets what the application had done: its offsets are at the start again, its topics gone.
fn reset(address: SocketAddr) -> Result<()> {
    let kafka = KafkaTools::at(address);
    let printed = kafka.run(
        "kafka-streams-application-reset.sh --application-id shop-app --input-topics shop-events,shop-hosts --force",
    )?;
    ensure!(printed.contains("Done."), "{printed}");
    let listed = kafka.run("kafka-topics.sh --list")?;
    ensure!(listed.contains("shop-events") && !listed.contains("shop-app"), "{listed}");
    let mut client = Client::connect(address)?;
    for partition in 0..PARTITIONS {
        let committed = client.committed("shop-app", "shop-events", partition)?;
        ensure!(committed == Some(0), "partition {partition} is at {committed:?}");
    }
    Ok(())
}

/// Kafka's own tool shows the group of the running application.
fn shown(address: SocketAddr) -> Result<()> {
    let kafka = KafkaTools::at(address);
    let listed = kafka.run("kafka-streams-groups.sh --list")?;
    ensure!(listed.trim() == "shop-app", "{listed}");
    let listed = kafka.run("kafka-groups.sh --list --streams")?;
    ensure!(listed.contains("shop-app") && listed.contains("Streams"), "{listed}");
    // What was killed is a member until its session ends.
    eventually("the group has settled", || {
        let state = kafka.run("kafka-streams-groups.sh --describe --group shop-app --state --verbose")?;
        Ok(state.contains("Stable").then_some(()))
    })?;
    eventually("two threads of one process share the tasks", || {
        let members = kafka.run("kafka-streams-groups.sh --describe --group shop-app --members --verbose")?;
        let rows = members.lines().filter(|line| line.starts_with("shop-app"));
        Ok((rows.count() == 2 && members.contains("ACTIVE")).then_some(()))
    })?;
    let offsets = kafka.run("kafka-streams-groups.sh --describe --group shop-app --offsets")?;
    for topic in ["shop-events", "shop-hosts", "shop-app-by-region-repartition"] {
        ensure!(offsets.contains(topic), "{topic} is not among\n{offsets}");
    }
    let described = kafka.run("kafka-topics.sh --describe --topic shop-app-counts-changelog")?;
    ensure!(described.contains("PartitionCount: 4") && described.contains("cleanup.policy="), "{described}");
    Ok(())
}

/// Kafka's own tool sets the offsets of the ended application back, and then forgets it.
fn forget(address: SocketAddr) -> Result<()> {
    let kafka = KafkaTools::at(address);
    eventually("nobody is in the group", || {
        let state = kafka.run("kafka-streams-groups.sh --describe --group shop-app --state")?;
        Ok(state.contains("Empty").then_some(()))
    })?;
    kafka.run(
        "kafka-streams-groups.sh --reset-offsets --group shop-app --input-topic shop-events --to-earliest --execute",
    )?;
    let mut client = Client::connect(address)?;
    for partition in 0..PARTITIONS {
        let committed = client.committed("shop-app", "shop-events", partition)?;
        ensure!(committed == Some(0), "partition {partition} is at {committed:?}");
    }
    let deleted = kafka.run("kafka-streams-groups.sh --delete --group shop-app --delete-all-internal-topics")?;
    ensure!(deleted.contains("successful"), "{deleted}");
    let listed = kafka.run("kafka-streams-groups.sh --list")?;
    ensure!(listed.trim().is_empty(), "{listed}");
    let listed = kafka.run("kafka-topics.sh --list")?;
    ensure!(listed.contains("shop-events") && !listed.contains("shop-app"), "{listed}");
    Ok(())
}

#[test]
fn at_least_once_every_event_is_counted_whoever_is_killed() -> Result<()> {
    counts_survive("at_least_once", "classic", 3)
}

#[test]
fn exactly_once_every_event_is_counted_once_whoever_is_killed() -> Result<()> {
    counts_survive("exactly_once_v2", "classic", 3)
}

#[test]
fn with_tasks_from_the_broker_every_event_is_counted_whoever_is_killed() -> Result<()> {
    counts_survive("at_least_once", "streams", 3)
}

#[test]
fn with_tasks_from_the_broker_every_event_is_counted_once_whoever_is_killed() -> Result<()> {
    counts_survive("exactly_once_v2", "streams", 3)
}

#[test]
fn a_process_that_keeps_copies_of_the_state_goes_on_when_the_other_is_killed() -> Result<()> {
    let folders = [tempfile::tempdir()?, tempfile::tempdir()?];
    let address = stable_address()?;
    let node = Node::start_at(folders[0].path(), address, &EAGER)?;
    make_topics(address)?;
    let kafka = KafkaTools::at(address);
    let told = "--entity-type groups --entity-name shop-app --add-config streams.num.standby.replicas=1";
    kafka.run(&format!("kafka-configs.sh --alter {told}"))?;
    let mut events = Events::begin(address)?;
    let start = |folder: &tempfile::TempDir| application(folder.path(), address, "at_least_once", "streams");
    let (mut stays, mut goes) = (start(&folders[0])?, start(&folders[1])?);
    stays.until_it_says("RUNNING")?;
    goes.until_it_says("RUNNING")?;
    let members = || kafka.run("kafka-streams-groups.sh --describe --group shop-app --members");
    eventually("each of two processes has two members, and some of them have copies", || {
        let printed = members()?;
        let rows: Vec<&str> = printed.lines().filter(|line| line.starts_with("shop-app")).collect();
        let copies = rows.iter().filter(|row| row.contains("STANDBY:")).count();
        Ok((rows.len() == 4 && copies >= 2).then_some(()))
    })
    .with_context(|| members().unwrap_or_default())?;
    events.write(address, ROUND)?;
    until_counted(address, &events.expected(), &mut stays)?;
    goes.kill();
    events.write(address, ROUND)?;
    until_counted(address, &events.expected(), &mut stays)?;
    eventually("those of the other are gone, and there is nowhere left for copies", || {
        let printed = members()?;
        let rows = printed.lines().filter(|line| line.starts_with("shop-app")).count();
        Ok((rows == 2 && !printed.contains("STANDBY:")).then_some(()))
    })
    .with_context(|| members().unwrap_or_default())?;
    stays.end_input()?;
    ensure!(!node.printed().contains("ERROR"), "the node saw nothing wrong:\n{}", node.printed());
    node.stop()
}
