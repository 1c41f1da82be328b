//! MirrorMaker 2 copies topics, their settings and the offsets of groups: from Apache Kafka to a node, from that node to
//! another one, and from there back to Apache Kafka, in one process.

use std::{
    fs,
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use varve_log::format::{BatchBuilder, RecordContent};
use varve_metadata::{
    config::Codec,
    model::{Offset, Timestamp},
};
use varve_tests::{
    client::Client,
    kafka::Kafka,
    kafka_tools,
    kcat::{self, TextRecord},
    node::{Node, eventually},
    running::Running,
    tools,
};

const PARTITIONS: i32 = 2;
/// Records of each partition before the mirror starts, and of those that follow.
const RECORDS: i64 = 300;
/// Where the slow group stands.
const MIDDLE: i64 = 120;
/// Times that records follow, and how long each time a group in the middle may take to show up.
const FOLLOWED: i64 = 6;
const SOON: Duration = Duration::from_secs(60);

/// What one cluster gets of its own, and where it goes.
struct Hop {
    from: &'static str,
    to: &'static str,
    topic: &'static str,
}

const HOPS: [Hop; 3] = [
    Hop { from: "kafka", to: "first", topic: "orders" },
    Hop { from: "first", to: "second", topic: "payments" },
    Hop { from: "second", to: "kafka", topic: "parcels" },
];

fn write(address: SocketAddr, topic: &str, from: i64) -> Result<()> {
    let mut client = Client::connect(address)?;
    for partition in 0..PARTITIONS {
        for start in (from..from + RECORDS).step_by(50) {
            let codec = [Codec::None, Codec::Zstd, Codec::Lz4][(start / 50 % 3) as usize];
            let mut batch = BatchBuilder::new(Offset::ZERO).compression(codec, None);
            for number in start..start + 50 {
                let (key, value) = (format!("key-{number}"), format!("{topic} {partition} {number}"));
                batch.push(RecordContent {
                    timestamp: Timestamp::from_wire(1_790_000_000_000 + number),
                    key: Some(key.as_bytes()),
                    value: Some(value.as_bytes()),
                    headers: &[(b"number", Some(number.to_string().as_bytes()))],
                });
            }
            client.produce(topic, partition, batch.build()?.into())?;
        }
    }
    Ok(())
}

/// What it is told: three flows of one topic each, everything soon.
fn properties(address_of: impl Fn(&str) -> SocketAddr) -> String {
    let mut lines = vec!["clusters = kafka, first, second".to_owned()];
    for alias in ["kafka", "first", "second"] {
        lines.push(format!("{alias}.bootstrap.servers = {}", address_of(alias)));
        for other in ["kafka", "first", "second"] {
            if alias != other {
                let topic = HOPS.iter().find(|hop| hop.from == alias && hop.to == other).map(|hop| hop.topic);
                lines.push(format!("{alias}->{other}.enabled = {}", topic.is_some()));
                lines.push(match topic {
                    Some(topic) => format!("{alias}->{other}.topics = {topic}"),
                    // Else it would run connectors for a flow that there is none of.
                    None => format!("{alias}->{other}.emit.heartbeats.enabled = false"),
                });
            }
        }
    }
    for line in [
        "replication.factor = 1",
        "offset-syncs.topic.replication.factor = 1",
        "checkpoints.topic.replication.factor = 1",
        "heartbeats.topic.replication.factor = 1",
        "config.storage.replication.factor = 1",
        "offset.storage.replication.factor = 1",
        "status.storage.replication.factor = 1",
        "refresh.topics.interval.seconds = 1",
        "sync.topic.configs.interval.seconds = 1",
        "refresh.groups.interval.seconds = 1",
        "emit.checkpoints.interval.seconds = 1",
        "sync.group.offsets.enabled = true",
        "sync.group.offsets.interval.seconds = 1",
        "sync.topic.acls.enabled = false",
        "offset.lag.max = 0",
        "consumer.auto.offset.reset = earliest",
        "offset.flush.interval.ms = 500",
        "plugin.discovery = service_load",
    ] {
        lines.push(line.to_owned());
    }
    lines.join("\n")
}

/// Commits the same offset in each partition, as soon as the group has a coordinator.
fn commit(client: &mut Client, group: &str, topic: &str, offset: i64) -> Result<()> {
    (0..PARTITIONS).try_for_each(|partition| {
        eventually("a group's offset is committed", || {
            let ready = client.find_coordinator(group);
            Ok(ready.and_then(|_| client.commit(group, topic, partition, offset)).ok())
        })
    })
}

/// Whether the slow group stands between `begun` and where it stood, in each partition of `copy`. Not each offset's counterpart
/// is kept: it is sent back a little, and never ahead.
fn is_sent_back(to: SocketAddr, copy: &str, begun: i64) -> Result<bool> {
    let waited = Instant::now();
    let mut client = Client::connect(to)?;
    loop {
        let found = (0..PARTITIONS).map(|partition| client.committed("slow", copy, partition));
        let found = found.collect::<Result<Vec<_>>>()?;
        ensure!(
            found.iter().flatten().all(|offset| *offset <= begun + MIDDLE),
            "{copy}: slow is sent ahead: {found:?}"
        );
        if found.iter().all(|offset| offset.is_some_and(|offset| offset >= begun)) {
            return Ok(true);
        }
        if waited.elapsed() > SOON {
            return Ok(false);
        }
        std::thread::park_timeout(Duration::from_millis(50));
    }
}

fn values(records: &[TextRecord], partition: i32) -> Vec<&str> {
    records.iter().filter(|record| record.partition == partition).map(|record| record.value.as_str()).collect()
}

#[test]
fn topics_settings_and_group_offsets_are_mirrored_between_kafka_and_two_nodes() -> Result<()> {
    let folders = [tempfile::tempdir()?, tempfile::tempdir()?, tempfile::tempdir()?, tempfile::tempdir()?];
    let alone = ["offsets.topic.replication.factor=1", "group.initial.rebalance.delay.ms=0"];
    let kafka = Kafka::start(
        folders[0].path(),
        &[&alone[..], &["transaction.state.log.replication.factor=1", "transaction.state.log.min.isr=1"]].concat(),
    )?;
    let first = Node::start(folders[1].path(), &alone)?;
    let second = Node::start(folders[2].path(), &alone)?;
    let address_of = |alias: &str| match alias {
        "kafka" => kafka.address,
        "first" => first.address,
        _ => second.address,
    };
    for hop in &HOPS {
        let mut client = Client::connect(address_of(hop.from))?;
        client.create_topic(hop.topic, PARTITIONS, &[("retention.ms", "-1"), ("max.message.bytes", "2000000")])?;
        eventually("the topic has leaders", || {
            let are_led = (0..PARTITIONS).all(|partition| client.list_offset(hop.topic, partition, -1).is_ok());
            Ok(are_led.then_some(()))
        })?;
        write(address_of(hop.from), hop.topic, 0)?;
        commit(&mut client, "done", hop.topic, RECORDS)?;
    }
    let settings = folders[3].path().join("mm2.properties");
    fs::write(&settings, properties(address_of))?;
    let mut command = tools::program("connect-mirror-maker.sh")?;
    command.arg(&settings);
    let mut mirror = Running::start(command, &folders[3].path().join("mirror.log"))?;
    for hop in &HOPS {
        let (from, to) = (address_of(hop.from), address_of(hop.to));
        let copy = format!("{}.{}", hop.from, hop.topic);
        let mut await_records = |count: i64| {
            let mut client = Client::connect(to)?;
            eventually(&format!("{count} records in {copy}"), || {
                ensure!(mirror.ended()?.is_none(), "the mirror ended");
                let ends = (0..PARTITIONS).map(|partition| client.list_offset(&copy, partition, -1).ok());
                Ok(ends.map(|end| (end? >= count).then_some(())).collect::<Option<Vec<()>>>())
            })
            .with_context(|| mirror.printed())
        };
        let await_offset = |group: &str, is_right: &dyn Fn(i64) -> bool| {
            eventually(&format!("{group} has its offset in {copy}"), || {
                let mut client = Client::connect(to)?;
                let found = (0..PARTITIONS).map(|partition| client.committed(group, &copy, partition));
                let found = found.collect::<Result<Vec<_>>>()?;
                Ok(found.iter().all(|offset| offset.is_some_and(is_right)).then_some(()))
            })
        };
        await_records(RECORDS)?;
        // Who has read all goes on with the next one. Offsets are followed from here on: what was before has no counterpart.
        await_offset("done", &|offset| offset == RECORDS).with_context(|| mirror.printed())?;
        let mut client = Client::connect(from)?;
        // A task of the mirror that begins anew meanwhile forgets the counterparts of before: what follows then has them again.
        let mut total = RECORDS;
        loop {
            let begun = total;
            total += RECORDS;
            write(from, hop.topic, begun)?;
            commit(&mut client, "done", hop.topic, total)?;
            commit(&mut client, "slow", hop.topic, begun + MIDDLE)?;
            await_offset("done", &|offset| offset == total).with_context(|| mirror.printed())?;
            if is_sent_back(to, &copy, begun)? {
                break;
            }
            ensure!(total <= FOLLOWED * RECORDS, "{copy}: slow never has its offset\n{}", mirror.printed());
        }
        let (ours, theirs) = (kcat::read_committed(from, hop.topic)?, kcat::read_committed(to, &copy)?);
        for partition in 0..PARTITIONS {
            let written = values(&ours, partition);
            ensure!(written.len() as i64 == total && values(&theirs, partition) == written, "{copy}: {theirs:?}");
        }
        let configs = kafka_tools::KafkaTools::at(to);
        eventually(&format!("{copy} has the settings of its source"), || {
            let described = configs.run(&format!("kafka-configs.sh --describe --topic {copy}"))?;
            Ok((described.contains("retention.ms=-1") && described.contains("max.message.bytes=2000000")).then_some(()))
        })?;
    }
    mirror.terminate()?;
    for node in [&first, &second] {
        ensure!(!node.printed().contains("ERROR"), "a node saw something wrong:\n{}", node.printed());
    }
    first.stop()?;
    second.stop()
}
