//! Groups of the consumer protocol (KIP-848) with real clients: they share, resume, are fenced, subscribe by pattern, and
//! change their protocol one by one while they read. No record is left out.

use std::{collections::BTreeSet, path::Path};

use anyhow::{Context, Result, ensure};
use varve_log::format::{BatchBuilder, RecordContent};
use varve_metadata::model::{Offset, Timestamp};
use varve_tests::{
    client::Client,
    kafka_tools::KafkaTools,
    member::{Member, Membership, Place},
    node::{Node, eventually},
};

/// Members are heard of often, so that a test need not wait for them.
const QUICK: [&str; 6] = [
    "group.initial.rebalance.delay.ms=0",
    "offsets.topic.num.partitions=3",
    "group.consumer.min.heartbeat.interval.ms=100",
    "group.consumer.heartbeat.interval.ms=200",
    "group.consumer.min.session.timeout.ms=3000",
    "group.consumer.session.timeout.ms=12000",
];
/// Longest session that brokers allow: a client that is to come back within it has to be started first.
const LONG_SESSION: &str = "group.consumer.session.timeout.ms=60000";
const PARTITIONS: i32 = 6;
const CONSUMER: [&str; 2] = ["--protocol", "consumer"];
/// Libraries that speak the protocol. franz-go (`go`), which does if it is asked to, is tried where groups share and resume.
const LIBRARIES: [&str; 2] = ["java", "librdkafka"];

/// The one group of these tests.
fn desk(node: &Node) -> Membership<'static> {
    Membership { bootstrap: node.address, topic: "orders", group: "desk" }
}

fn node(folder: &Path) -> Result<Node> {
    let node = Node::start(folder, &QUICK)?;
    Client::connect(node.address)?.create_topic("orders", PARTITIONS, &[])?;
    Ok(node)
}

/// Writes `count` records to every partition.
fn produce(node: &Node, topic: &str, count: usize) -> Result<()> {
    let mut client = Client::connect(node.address)?;
    for partition in 0..PARTITIONS {
        let mut batch = BatchBuilder::new(Offset::ZERO);
        for _ in 0..count {
            let today = std::time::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_millis() as i64);
            let timestamp = Timestamp::from_wire(today);
            batch.push(RecordContent { timestamp, key: None, value: Some(b"value"), headers: &[] });
        }
        client.produce(topic, partition, batch.build()?.into())?;
    }
    Ok(())
}

/// Waits until the members have read every record up to `end` of every partition.
fn all_read(members: &[&Member], end: i64) -> Result<()> {
    let wanted: BTreeSet<Place> =
        (0..i64::from(PARTITIONS)).flat_map(|partition| (0..end).map(move |offset| (partition, offset))).collect();
    eventually(&format!("everything below offset {end} was read"), || {
        let mut found = BTreeSet::new();
        for member in members {
            found.extend(member.read()?);
        }
        Ok((found == wanted).then_some(()))
    })
}

/// The rows of a tool's table that begin with the group's name.
fn rows(printed: &str) -> Vec<Vec<&str>> {
    let of_group = printed.lines().filter(|line| line.starts_with("desk"));
    of_group.map(|line| line.split_whitespace().collect()).collect()
}

/// Waits until the tool describes the group in that state with so many members.
///
/// # Errors
/// It has not come to that in time: with how the group and its members look then, and with what the node printed.
fn await_state(node: &Node, state: &str, members: &str) -> Result<String> {
    let kafka = KafkaTools::of(node);
    let there = eventually(&format!("{members} members, {state}"), || {
        let printed = kafka.run("kafka-consumer-groups.sh --describe --group desk --state")?;
        let is_there = rows(&printed).first().is_some_and(|row| row.ends_with(&[state, members]));
        Ok(is_there.then_some(printed))
    });
    there.or_else(|error| {
        let group = kafka.run("kafka-consumer-groups.sh --describe --group desk --state")?;
        let members = kafka.run("kafka-consumer-groups.sh --describe --group desk --members --verbose")?;
        Err(error.context(format!("{group}\n{members}\nThe node printed:\n{}", node.printed())))
    })
}

fn share_and_resume(library: &str) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let node = node(folder.path())?;
    produce(&node, "orders", 50)?;
    let mut first = Member::start(desk(&node), folder.path(), library, "first", &CONSUMER)?;
    all_read(&[&first], 50)?;
    let mut second = Member::start(desk(&node), folder.path(), library, "second", &CONSUMER)?;
    let described = await_state(&node, "Stable", "2")?;
    ensure!(rows(&described)[0].contains(&"uniform"), "{described}");
    produce(&node, "orders", 50)?;
    all_read(&[&first, &second], 100)?;
    let listed = KafkaTools::of(&node).run("kafka-groups.sh --list")?;
    ensure!(rows(&listed) == [["desk", "Consumer", "consumer"]], "{listed}");
    let members = KafkaTools::of(&node).run("kafka-consumer-groups.sh --describe --group desk --members --verbose")?;
    ensure!(rows(&members).len() == 2 && members.contains("orders:"), "{members}");

    second.crash()?;
    produce(&node, "orders", 50)?;
    all_read(&[&first, &second], 150)?;
    first.leave()?;
    await_state(&node, "Empty", "0")?;

    // What was committed outlives the node.
    node.kill();
    let node = Node::start(folder.path(), &QUICK)?;
    produce(&node, "orders", 50)?;
    let mut third = Member::start(desk(&node), folder.path(), library, "third", &CONSUMER)?;
    all_read(&[&first, &second, &third], 200)?;
    let earlier: Vec<Place> = third.read()?.into_iter().filter(|(_, offset)| *offset < 150).collect();
    ensure!(earlier.is_empty(), "{library} read again what it had committed: {earlier:?}");
    third.leave()?;
    ensure!(!node.printed().contains("ERROR"), "the node saw nothing wrong:\n{}", node.printed());
    node.stop()
}

#[test]
fn members_of_the_consumer_protocol_share_resume_and_survive_crashes() -> Result<()> {
    for library in LIBRARIES.into_iter().chain(["go"]) {
        share_and_resume(library).with_context(|| library.to_owned())?;
    }
    Ok(())
}

#[test]
fn a_group_changes_its_protocol_member_by_member_and_back_while_it_reads() -> Result<()> {
    for library in LIBRARIES {
        let folder = tempfile::tempdir()?;
        let node = node(folder.path())?;
        let mut end = 0;
        let mut more = |members: &[&Member]| -> Result<()> {
            produce(&node, "orders", 20)?;
            end += 20;
            all_read(members, end)
        };
        let start = |name: &str, options: &[&str]| Member::start(desk(&node), folder.path(), library, name, options);
        let mut a = start("a", &[])?;
        let mut b = start("b", &[])?;
        more(&[&a, &b])?;
        // Up, one after the other.
        let mut new_a = start("new-a", &CONSUMER)?;
        await_state(&node, "Stable", "3")?;
        a.leave()?;
        more(&[&a, &b, &new_a])?;
        let mut new_b = start("new-b", &CONSUMER)?;
        b.leave()?;
        await_state(&node, "Stable", "2")?;
        more(&[&a, &b, &new_a, &new_b])?;
        // And down again.
        let mut old = start("old", &[])?;
        await_state(&node, "Stable", "3")?;
        new_a.leave()?;
        more(&[&a, &b, &new_a, &new_b, &old])?;
        new_b.leave()?;
        more(&[&a, &b, &new_a, &new_b, &old])?;
        let listed = KafkaTools::of(&node).run("kafka-groups.sh --list")?;
        ensure!(rows(&listed) == [["desk", "Classic", "consumer"]], "{library}: {listed}");
        old.leave()?;
        node.stop()?;
    }
    Ok(())
}

#[test]
fn members_that_subscribe_by_pattern_find_topics_that_are_made_later() -> Result<()> {
    for library in LIBRARIES {
        let folder = tempfile::tempdir()?;
        let node = Node::start(folder.path(), &QUICK)?;
        let options = [&CONSUMER[..], &["--pattern", "or.*s"]].concat();
        let mut member = Member::start(desk(&node), folder.path(), library, "member", &options)?;
        await_state(&node, "Stable", "1")?;
        Client::connect(node.address)?.create_topic("others", 1, &[])?;
        Client::connect(node.address)?.create_topic("orders", PARTITIONS, &[])?;
        produce(&node, "orders", 20)?;
        all_read(&[&member], 20)?;
        member.leave()?;
        node.stop()?;
    }
    Ok(())
}

/// Java asks the broker about a pattern; librdkafka looks at it first, and refuses by itself.
#[test]
fn a_pattern_that_is_none_is_refused_by_the_broker() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let node = node(folder.path())?;
    let options = [&CONSUMER[..], &["--pattern", "("]].concat();
    let told = Member::start(desk(&node), folder.path(), "java", "wrong", &options)?.failure()?;
    ensure!(told.contains("org.apache.kafka.common.errors.InvalidRegularExpression"), "{told}");
    node.stop()
}

#[test]
fn a_static_member_that_restarts_keeps_its_place_and_fences_nobody() -> Result<()> {
    for library in LIBRARIES {
        let folder = tempfile::tempdir()?;
        let node = Node::start(folder.path(), &[&QUICK[..], &[LONG_SESSION]].concat())?;
        Client::connect(node.address)?.create_topic("orders", PARTITIONS, &[])?;
        let as_static = |name: &str, instance: &str| {
            let options = [&CONSUMER[..], &["--instance", instance, "--assignor", "range"]].concat();
            Member::start(desk(&node), folder.path(), library, name, &options)
        };
        let mut one = as_static("one", "i-1")?;
        let mut two = as_static("two", "i-2")?;
        let described = await_state(&node, "Stable", "2")?;
        ensure!(rows(&described)[0].contains(&"range"), "{described}");
        produce(&node, "orders", 20)?;
        all_read(&[&one, &two], 20)?;
        // Static members leave for a while, and come back before their session ends.
        one.leave()?;
        let mut again = as_static("again", "i-1")?;
        await_state(&node, "Stable", "2")?;
        produce(&node, "orders", 20)?;
        all_read(&[&one, &two, &again], 40)?;
        let partitions = |member: &Member| -> Result<BTreeSet<i64>> {
            Ok(member.read()?.into_iter().map(|(partition, _)| partition).collect())
        };
        ensure!(partitions(&one)? == partitions(&again)?, "{library}: it has what it had");
        ensure!(partitions(&again)?.is_disjoint(&partitions(&two)?), "{library}: nobody else does");
        again.leave()?;
        two.leave()?;
        node.stop()?;
    }
    Ok(())
}

#[test]
fn a_consumer_group_is_administered_with_kafkas_tools() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let node = node(folder.path())?;
    let kafka = KafkaTools::of(&node);
    produce(&node, "orders", 10)?;
    let mut member = Member::start(desk(&node), folder.path(), "java", "member", &CONSUMER)?;
    all_read(&[&member], 10)?;
    let alter = "kafka-configs.sh --alter --entity-type groups --entity-name desk --add-config";
    kafka.run(&format!("{alter} consumer.session.timeout.ms=30000,consumer.heartbeat.interval.ms=300"))?;
    let described = kafka.run("kafka-configs.sh --describe --entity-type groups --entity-name desk")?;
    ensure!(described.contains("consumer.session.timeout.ms=30000"), "{described}");
    let refused = kafka.refused(&format!("{alter} consumer.session.timeout.ms=1"))?;
    ensure!(refused.contains("must be greater than or equal to group.consumer.min.session.timeout.ms"), "{refused}");
    let busy = kafka.run("kafka-consumer-groups.sh --delete --group desk")?;
    ensure!(busy.contains("GroupNotEmptyException"), "{busy}");
    let protected = kafka.run("kafka-consumer-groups.sh --delete-offsets --group desk --topic orders")?;
    ensure!(protected.contains("GroupSubscribedToTopicException"), "{protected}");
    member.leave()?;
    let reset = "kafka-consumer-groups.sh --reset-offsets --group desk --topic orders --to-earliest --execute";
    ensure!(rows(&kafka.run(reset)?).len() == PARTITIONS as usize, "an empty group is reset");
    let deleted = kafka.run("kafka-consumer-groups.sh --delete --group desk")?;
    ensure!(deleted.contains("was successful"), "{deleted}");
    node.stop()
}
