//! Groups of real clients: members share the partitions, leave, crash and come back, and no record is left out.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, ensure};
use varve_log::format::{BatchBuilder, RecordContent};
use varve_metadata::model::{Offset, Timestamp};
use varve_tests::{
    client::Client,
    member::{Member, Membership, Place},
    node::{Node, eventually},
    tools,
};

const QUICK: [&str; 2] = ["group.initial.rebalance.delay.ms=300", "offsets.topic.num.partitions=5"];
const PARTITIONS: i32 = 8;
const LIBRARIES: [&str; 5] = ["java", "librdkafka", "go", "kafka-python", "node"];
/// Those that share an assignment strategy, and so can share a group.
const COMPATIBLE: [&str; 4] = ["java", "librdkafka", "go", "kafka-python"];

/// The group that has its topic's name.
fn of<'a>(node: &Node, topic: &'a str) -> Membership<'a> {
    Membership { bootstrap: node.address, topic, group: topic }
}

/// Writes `count` records to every partition.
fn produce(node: &Node, topic: &str, count: usize) -> Result<()> {
    let mut client = Client::connect(node.address)?;
    for partition in 0..PARTITIONS {
        let mut batch = BatchBuilder::new(Offset::ZERO);
        for _ in 0..count {
            // Of today: older records would fall to retention in the middle of the test.
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

fn count_of(node: &Node, metric: &str) -> Result<u64> {
    let page = node.http_get("/metrics")?;
    let line = page.lines().find(|line| line.starts_with(metric)).with_context(|| format!("no {metric}"))?;
    Ok(line.rsplit(' ').next().context("a metric has a value")?.parse::<f64>()? as u64)
}

fn stable_with(node: &Node, members: u64) -> Result<()> {
    eventually(&format!("a stable group of {members}"), || {
        let is_stable = count_of(node, "varve_groups{state=\"stable\"}")? == 1;
        Ok((is_stable && count_of(node, "varve_group_members")? == members).then_some(()))
    })
}

fn two_members_then_another(library: &str) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let node = Node::start(folder.path(), &QUICK)?;
    let topic = library;
    Client::connect(node.address)?.create_topic(topic, PARTITIONS, &[])?;
    produce(&node, topic, 50)?;
    let mut first = Member::start(of(&node, topic), folder.path(), library, "first", &[])?;
    all_read(&[&first], 50)?;

    let mut second = Member::start(of(&node, topic), folder.path(), library, "second", &[])?;
    stable_with(&node, 2)?;
    // The broker's group is stable before each client has taken up its share: what comes in that moment may go to either,
    // or to both. The division must settle with one of the next rounds.
    let mut end = 50;
    eventually("the partitions are divided", || {
        produce(&node, topic, 50)?;
        end += 50;
        all_read(&[&first, &second], end)?;
        let newest = |member: &Member| -> Result<BTreeSet<i64>> {
            let places = member.read()?.into_iter().filter(|(_, offset)| *offset >= end - 50);
            Ok(places.map(|(partition, _)| partition).collect())
        };
        let (of_first, of_second) = (newest(&first)?, newest(&second)?);
        let is_divided = of_first.is_disjoint(&of_second) && of_first.len() == 4 && of_second.len() == 4;
        Ok(is_divided.then_some(()))
    })?;

    first.leave()?;
    produce(&node, topic, 50)?;
    end += 50;
    all_read(&[&first, &second], end)?;
    second.leave()?;

    // What was committed outlives the node.
    node.kill();
    let node = Node::start(folder.path(), &QUICK)?;
    produce(&node, topic, 50)?;
    let mut third = Member::start(of(&node, topic), folder.path(), library, "third", &[])?;
    all_read(&[&first, &second, &third], end + 50)?;
    let earlier: Vec<Place> = third.read()?.into_iter().filter(|(_, offset)| *offset < end).collect();
    ensure!(earlier.is_empty(), "{library} read again what it had committed: {earlier:?}");
    third.leave()?;
    node.stop()
}

#[test]
fn a_group_of_every_library_shares_resumes_and_survives_a_crash_of_the_node() -> Result<()> {
    for library in LIBRARIES {
        two_members_then_another(library).with_context(|| library.to_owned())?;
    }
    Ok(())
}

#[test]
fn members_of_different_libraries_share_one_group_and_take_over_from_one_that_crashed() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let node = Node::start(folder.path(), &QUICK)?;
    let topic = "mixed";
    Client::connect(node.address)?.create_topic(topic, PARTITIONS, &[])?;
    let mut members = BTreeMap::new();
    for library in COMPATIBLE {
        members.insert(library, Member::start(of(&node, topic), folder.path(), library, library, &[])?);
    }
    stable_with(&node, COMPATIBLE.len() as u64)?;
    let of = |members: &BTreeMap<&str, Member>, end| all_read(&members.values().collect::<Vec<_>>(), end);
    // As above: a member takes up its share some time after the broker's group is stable.
    let mut end = 0;
    eventually("each member has a part of eight partitions", || {
        produce(&node, topic, 100)?;
        end += 100;
        of(&members, end)?;
        let all_read =
            members.values().try_fold(true, |all, member| -> Result<bool> { Ok(all && !member.read()?.is_empty()) })?;
        Ok(all_read.then_some(()))
    })?;

    members.get_mut("java").context("one of them")?.crash()?;
    produce(&node, topic, 100)?;
    of(&members, end + 100)?;
    stable_with(&node, COMPATIBLE.len() as u64 - 1)?;
    for library in COMPATIBLE.into_iter().filter(|library| *library != "java") {
        members.get_mut(library).context("one of them")?.leave()?;
    }

    let mut describe = tools::program("kafka-consumer-groups.sh")?;
    describe.args(["--bootstrap-server", &node.address.to_string(), "--describe", "--group", topic]);
    let described = tools::output_of(&mut describe)?;
    let lags: Vec<&str> = described
        .lines()
        .filter(|line| line.starts_with(topic))
        .filter_map(|line| line.split_whitespace().nth(5))
        .collect();
    ensure!(lags == ["0"; PARTITIONS as usize], "everything that was read is committed:\n{described}");
    node.stop()
}

#[test]
fn kafkas_formatters_read_what_groups_leave_in_the_log() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let node = Node::start(folder.path(), &QUICK)?;
    let topic = "formatted";
    Client::connect(node.address)?.create_topic(topic, PARTITIONS, &[])?;
    produce(&node, topic, 10)?;
    let mut member = Member::start(of(&node, topic), folder.path(), "librdkafka", "member", &[])?;
    all_read(&[&member], 10)?;
    member.leave()?;
    let formatted = |formatter: &str, records: usize| -> Result<String> {
        let mut read = tools::program("kafka-console-consumer.sh")?;
        read.args(["--bootstrap-server", &node.address.to_string(), "--topic", "__consumer_offsets"]);
        read.args(["--from-beginning", "--max-messages", &records.to_string(), "--timeout-ms", "300000"]);
        read.args(["--formatter", &format!("org.apache.kafka.tools.consumer.{formatter}")]);
        tools::output_of(&mut read)
    };
    // One commit for each partition at least, and three states of the group: made, assigned, empty.
    let offsets = formatted("OffsetsMessageFormatter", PARTITIONS as usize + 3)?;
    ensure!(offsets.contains(r#""topic":"formatted""#) && offsets.contains(r#""offset":10"#), "{offsets}");
    let groups = formatted("GroupMetadataMessageFormatter", PARTITIONS as usize + 3)?;
    ensure!(groups.contains(r#""group":"formatted""#) && groups.contains(r#""protocol":"range""#), "{groups}");
    node.stop()
}
