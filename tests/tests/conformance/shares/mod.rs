//! Share groups (KIP-932): members, records, offsets, and what brokers ask of those who keep the state.

mod keepers;
mod offsets;
mod records;

use anyhow::{Context, Result};
use kafka_protocol::{
    messages::{
        ConsumerGroupDescribeRequest, DescribeConfigsRequest, DescribeGroupsRequest, FindCoordinatorRequest,
        IncrementalAlterConfigsRequest, ListGroupsRequest, ShareGroupDescribeRequest, ShareGroupHeartbeatRequest,
        describe_configs_request::DescribeConfigsResource,
        incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig},
    },
    protocol::Request,
};
use varve_tests::differential::{Pair, Side, frame, raw_frame};

use super::{
    data::{WHEN, batch, write},
    groups::await_coordinator,
    request::{group, id_of, text, topic, versions},
    topics::{make, new},
};

/// Members, as people write UUIDs down.
const FIRST: &str = "AAAAAAAAAAAAAAAAAAAAAQ";
const SECOND: &str = "AAAAAAAAAAAAAAAAAAAAAg";
/// The group with members, and what it reads.
const GROUP: &str = "sharing";
const TOPIC: &str = "shared";

pub(crate) fn script(pair: &mut Pair) -> Result<()> {
    await_coordinator(pair)?;
    make(pair, new(TOPIC, 2, 1))?;
    let three = batch(&[(WHEN, Some("a"), "1"), (WHEN + 1, Some("b"), "2"), (WHEN + 2, None, "3")])?;
    let one = batch(&[(WHEN + 3, Some("c"), "4")])?;
    for (index, records) in [(0, &three), (0, &one), (1, &three)] {
        let build = |v: i16, side: &Side| write(v, side, &[(TOPIC, index, Some(records))], -1);
        // Kafka may know the leader before that knows of it.
        pair.until(12, build, |answer| answer["responses"][0]["partition_responses"][0]["error_code"] == 0)?;
    }
    coordinators(pair)?;
    keepers::script(pair)?;
    nonsense(pair)?;
    set(pair, GROUP, "share.auto.offset.reset", "earliest")?;
    members(pair)?;
    records::script(pair)?;
    offsets::script(pair)
}

/// The request as version `version`: as version 1 or 0, which `kafka-protocol` knows, with `more` at `at` of its body.
fn newer<Q: Request>(request: &Q, version: i16, at: usize, more: &[u8]) -> Result<Vec<u8>> {
    let head = raw_frame(Q::KEY, version - 1, &[])?.len();
    let mut body = frame(version - 1, request)?.split_off(head);
    body.splice(at..at, more.iter().copied());
    raw_frame(Q::KEY, version, &body)
}

fn coordinators(pair: &mut Pair) -> Result<()> {
    let find = |keys: &[&str]| {
        FindCoordinatorRequest::default()
            .with_coordinator_keys(keys.iter().map(|key| text(key)).collect())
            .with_key_type(2)
    };
    let known = "g:AAAAAAAAAAAAAAAAAAAAAQ:0";
    // The first one makes the topic.
    pair.until_no_error(6, |_, _| find(&[known]))?;
    pair.ask("share-find-coordinators", &versions(4, 6), |_, _| find(&[known, "h:AAAAAAAAAAAAAAAAAAAAAQ:7"]))?;
    for key in ["", "g", "g:0", ":AAAAAAAAAAAAAAAAAAAAAQ:0", "g:AAAAAAAAAAAAAAAAAAAAAQ:x", "g:x:0", "g::0", "g:h:i:0"] {
        pair.ask(&format!("share-find-coordinators-{key}"), &[6], |_, _| find(&[key]))?;
    }
    let one = FindCoordinatorRequest::default().with_key(text(known)).with_key_type(2);
    pair.ask("share-find-coordinator", &versions(1, 3), |_, _| one.clone())?;
    Ok(())
}

/// Gives a group a setting of its own, and waits until the broker goes by it.
fn set(pair: &mut Pair, name: &str, setting: &str, value: &str) -> Result<()> {
    let config = AlterableConfig::default().with_name(text(setting)).with_value(Some(text(value)));
    let resource = AlterConfigsResource::default()
        .with_resource_type(32)
        .with_resource_name(text(name))
        .with_configs(vec![config]);
    pair.ask("share-settings", &[1], |_, _| {
        IncrementalAlterConfigsRequest::default().with_resources(vec![resource.clone()])
    })?;
    let asked = DescribeConfigsResource::default()
        .with_resource_type(32)
        .with_resource_name(text(name))
        .with_configuration_keys(Some(vec![text(setting)]));
    let asked = DescribeConfigsRequest::default().with_resources(vec![asked]);
    pair.until(4, |_, _| asked.clone(), |answer| answer["results"][0]["configs"][0]["value"] == value)
}

/// The first request of a member.
fn first(name: &str, member: &str) -> ShareGroupHeartbeatRequest {
    later(name, member, 0).with_subscribed_topic_names(Some(vec![topic(TOPIC)]))
}

/// One that says nothing new.
fn later(name: &str, member: &str, epoch: i32) -> ShareGroupHeartbeatRequest {
    ShareGroupHeartbeatRequest::default()
        .with_group_id(group(name))
        .with_member_id(text(member))
        .with_member_epoch(epoch)
        .with_subscribed_topic_names(None)
}

fn described(names: &[&str]) -> ShareGroupDescribeRequest {
    ShareGroupDescribeRequest::default().with_group_ids(names.iter().map(|name| group(name)).collect())
}

/// The group as every request shows it.
fn look(pair: &mut Pair, when: &str) -> Result<()> {
    pair.ask(&format!("describe-shares-{when}"), &[1], |_, _| {
        described(&[GROUP]).with_include_authorized_operations(true)
    })?;
    pair.ask(&format!("describe-groups-shares-{when}"), &[5, 6], |_, _| {
        DescribeGroupsRequest::default().with_groups(vec![group(GROUP)])
    })?;
    pair.ask(&format!("describe-consumers-shares-{when}"), &[1], |_, _| {
        ConsumerGroupDescribeRequest::default().with_group_ids(vec![group(GROUP)])
    })?;
    for kinds in [&["share"][..], &["Share", "classic"]] {
        pair.ask(&format!("list-groups-shares-{when}-{kinds:?}"), &[5], |_, _| {
            ListGroupsRequest::default().with_types_filter(kinds.iter().map(|kind| text(kind)).collect())
        })?;
    }
    Ok(())
}

fn nonsense(pair: &mut Pair) -> Result<()> {
    let long = "m".repeat(37);
    let wrong: Vec<(&str, ShareGroupHeartbeatRequest)> = vec![
        ("no-group", first("", FIRST)),
        ("blank-group", first(" ", FIRST)),
        ("no-member", first("k", "")),
        ("long-member", first("k", &long)),
        ("no-topics", first("k", FIRST).with_subscribed_topic_names(None)),
        ("empty-topics", first("k", FIRST).with_subscribed_topic_names(Some(Vec::new()))),
        ("blank-rack", first("k", FIRST).with_rack_id(Some(text("")))),
        ("epoch", later("k", FIRST, -3)),
        ("epoch-2", later("k", FIRST, -2)),
        ("unknown-group", later("k", FIRST, 1)),
        ("unknown-group-leaves", later("k", FIRST, -1)),
    ];
    for (name, request) in &wrong {
        pair.ask(&format!("share-heartbeat-{name}"), &[1], |_, _| request.clone())?;
    }
    // A classic group, which another script made.
    pair.ask("commit-simple-share", &[9], |_, _| {
        super::groups::commit("classic-and-share", -1, "", TOPIC, 0, 3, Some(""))
    })?;
    pair.ask("share-heartbeat-classic", &[1], |_, _| first("classic-and-share", FIRST))?;
    pair.ask("describe-shares-nobody", &[1], |_, _| described(&["", "nobody", "classic-and-share"]))?;
    pair.ask("describe-shares-none", &[1], |_, _| described(&[]))?;
    Ok(())
}

/// Sends a member's heartbeats until it has this many partitions; what the last answer said of the epoch is kept.
fn await_assignment(pair: &mut Pair, member: &str, partitions: usize) -> Result<()> {
    let build = |_: i16, _: &Side| first(GROUP, member);
    pair.until(1, build, |answer| {
        let topics = answer["assignment"]["topic_partitions"].as_array();
        topics.into_iter().flatten().filter_map(|topic| Some(topic["partitions"].as_array()?.len())).sum::<usize>()
            == partitions
    })?;
    let before = pair.differences.len();
    let answers = pair.ask(&format!("share-heartbeat-assigned-{partitions}"), &[1], build)?;
    if partitions == 1 {
        // Which of the two it has is left to the order of hash maps in Kafka.
        pair.differences.truncate(before);
    }
    for (side, answer) in pair.sides().into_iter().zip(answers) {
        let epoch = answer["member_epoch"].as_i64().context("an epoch")?;
        side.remember(member, &epoch.to_string());
    }
    Ok(())
}

fn epoch_of(side: &Side, member: &str) -> i32 {
    side.value(member).parse().unwrap_or(0)
}

fn members(pair: &mut Pair) -> Result<()> {
    await_assignment(pair, FIRST, 2)?;
    look(pair, "one")?;
    pair.ask("share-heartbeat-next", &[1], |_, side| later(GROUP, FIRST, epoch_of(side, FIRST)))?;
    pair.ask("share-heartbeat-ahead", &[1], |_, side| later(GROUP, FIRST, epoch_of(side, FIRST) + 1))?;
    pair.ask("share-heartbeat-behind", &[1], |_, side| later(GROUP, FIRST, epoch_of(side, FIRST) - 1))?;
    pair.ask("share-heartbeat-far-behind", &[1], |_, side| later(GROUP, FIRST, epoch_of(side, FIRST) - 2))?;
    pair.ask("share-heartbeat-stranger", &[1], |_, _| later(GROUP, SECOND, 1))?;
    pair.ask("share-heartbeat-stranger-leaves", &[1], |_, _| later(GROUP, SECOND, -1))?;
    await_assignment(pair, SECOND, 1)?;
    await_assignment(pair, FIRST, 1)?;
    pair.ask("share-heartbeat-second-leaves", &[1], |_, _| later(GROUP, SECOND, -1))?;
    pair.ask("share-heartbeat-second-left", &[1], |_, _| later(GROUP, SECOND, -1))?;
    await_assignment(pair, FIRST, 2)?;
    look(pair, "one-again")?;
    pair.ask("share-heartbeat-unknown-topic", &[1], |_, side| {
        let topics = vec![topic(TOPIC), topic("not-there")];
        later(GROUP, FIRST, epoch_of(side, FIRST)).with_subscribed_topic_names(Some(topics))
    })?;
    await_assignment(pair, FIRST, 2)
}

/// The id that this broker gave to the topic that is read.
fn shared(side: &Side) -> uuid::Uuid {
    id_of(side, TOPIC)
}
