//! Groups of the consumer protocol (KIP-848), and what the classic requests say of them.

use anyhow::Result;
use kafka_protocol::{
    messages::{
        ConsumerGroupDescribeRequest, ConsumerGroupHeartbeatRequest, DescribeGroupsRequest, ListGroupsRequest,
        OffsetFetchRequest,
        consumer_group_heartbeat_request::TopicPartitions,
        offset_fetch_request::{OffsetFetchRequestGroup, OffsetFetchRequestTopics},
    },
    protocol::StrBytes,
};
use uuid::Uuid;
use varve_tests::differential::{Pair, Side};

use super::{
    groups::{await_coordinator, beat, commit, delete, describe, fit, forget, join, leave, sync},
    request::{NOBODYS_ID, group, id_of, text, topic, versions},
    topics::{make, new},
};

pub(crate) fn script(pair: &mut Pair) -> Result<()> {
    await_coordinator(pair)?;
    make(pair, new("kept", 2, 1))?;
    make(pair, new("read-1", 4, 1))?;
    nonsense(pair)?;
    alone(pair)?;
    offsets(pair)?;
    together(pair)?;
    static_members(pair)?;
    with_classic_members(pair)?;
    the_end(pair)
}

/// The first request of a member.
fn first(name: &str, member: &str) -> ConsumerGroupHeartbeatRequest {
    ConsumerGroupHeartbeatRequest::default()
        .with_group_id(group(name))
        .with_member_id(text(member))
        .with_member_epoch(0)
        .with_rebalance_timeout_ms(300_000)
        .with_subscribed_topic_names(Some(vec![topic("read-1")]))
        .with_topic_partitions(Some(Vec::new()))
        .with_server_assignor(Some(text("range")))
}

/// One that says nothing new.
fn later(name: &str, member: &str, epoch: i32) -> ConsumerGroupHeartbeatRequest {
    ConsumerGroupHeartbeatRequest::default()
        .with_group_id(group(name))
        .with_member_id(text(member))
        .with_member_epoch(epoch)
        .with_rebalance_timeout_ms(-1)
        .with_subscribed_topic_names(None)
        .with_topic_partitions(None)
}

fn owning(side: &Side, name: &str, member: &str, epoch: i32, partitions: &[i32]) -> ConsumerGroupHeartbeatRequest {
    let owned = TopicPartitions::default().with_topic_id(id_of(side, "read-1")).with_partitions(partitions.to_vec());
    later(name, member, epoch).with_topic_partitions(Some(vec![owned]))
}

fn described(names: &[&str]) -> ConsumerGroupDescribeRequest {
    ConsumerGroupDescribeRequest::default().with_group_ids(names.iter().map(|name| group(name)).collect())
}

/// The group as every request shows it.
fn look(pair: &mut Pair, when: &str, name: &str) -> Result<()> {
    pair.ask(&format!("describe-consumers-{when}"), &[0, 1], |_, _| {
        described(&[name]).with_include_authorized_operations(true)
    })?;
    pair.ask(&format!("describe-groups-consumers-{when}"), &[5, 6], |_, _| describe(&[name]))?;
    pair.ask(&format!("list-groups-consumers-{when}"), &[3, 4, 5], |_, _| ListGroupsRequest::default())?;
    Ok(())
}

fn nonsense(pair: &mut Pair) -> Result<()> {
    let none = || -> Option<StrBytes> { None };
    let wrong: Vec<(&str, ConsumerGroupHeartbeatRequest)> = vec![
        ("no-group", first("", "m")),
        ("blank-group", first(" ", "m")),
        ("no-member", first("k", "").with_member_epoch(1)),
        ("no-member-leaves", first("k", "").with_member_epoch(-1)),
        ("blank-instance", first("k", "m").with_instance_id(Some(text("")))),
        ("blank-rack", first("k", "m").with_rack_id(Some(text(" ")))),
        ("no-timeout", first("k", "m").with_rebalance_timeout_ms(-1)),
        ("no-partitions", first("k", "m").with_topic_partitions(None)),
        ("partitions", first("k", "m").with_topic_partitions(Some(vec![TopicPartitions::default()]))),
        ("no-topics", first("k", "m").with_subscribed_topic_names(None)),
        ("epoch", later("k", "m", -3)),
        ("leaves-for-a-while", later("k", "m", -2)),
        ("leaves-for-a-while-static", later("k", "m", -2).with_instance_id(Some(text("i")))),
        ("leaves", later("k", "m", -1)),
        ("unknown-group", later("k", "m", 1)),
        ("assignor", first("k", "m").with_server_assignor(Some(text("best")))),
        ("nothing", ConsumerGroupHeartbeatRequest::default().with_server_assignor(none())),
    ];
    for (name, request) in &wrong {
        pair.ask(&format!("consumer-heartbeat-{name}"), &[0, 1], |_, _| request.clone())?;
    }
    let pattern = |pattern: &str| first("k", "m").with_subscribed_topic_regex(Some(text(pattern)));
    pair.ask("consumer-heartbeat-pattern", &[1], |_, _| pattern("("))?;
    pair.ask("describe-consumers-nobody", &[0, 1], |_, _| described(&["", "nobody", "k"]))?;
    pair.ask("describe-consumers-none", &[0, 1], |_, _| described(&[]))?;
    // A simple group, which a commit made.
    pair.ask("commit-simple-consumer", &[9], |_, _| commit("simple", -1, "", "kept", 0, 3, Some("")))?;
    pair.ask("describe-consumers-simple", &[0, 1], |_, _| described(&["simple"]))?;
    pair.ask("consumer-heartbeat-simple", &[1], |_, _| later("simple", "m", 1))?;
    pair.ask("consumer-heartbeat-simple-leaves", &[1], |_, _| later("simple", "m", -1))?;
    Ok(())
}

/// A group of one.
fn alone(pair: &mut Pair) -> Result<()> {
    pair.ask("consumer-heartbeat-first", &[1], |_, _| first("live-c", "m1"))?;
    look(pair, "first", "live-c")?;
    pair.ask("consumer-heartbeat-again", &[0, 1], |_, _| first("live-c", "m1"))?;
    pair.ask("consumer-heartbeat-next", &[0, 1], |_, _| later("live-c", "m1", 2))?;
    for epoch in [1, 3, 0x7fff_ffff] {
        pair.ask(&format!("consumer-heartbeat-epoch-{epoch}"), &[1], |_, _| later("live-c", "m1", epoch))?;
        pair.ask(&format!("consumer-heartbeat-owning-{epoch}"), &[1], |_, side| {
            owning(side, "live-c", "m1", epoch, &[0, 1])
        })?;
    }
    pair.ask("consumer-heartbeat-owns-nobodys", &[1], |_, _| {
        let owned = TopicPartitions::default().with_topic_id(NOBODYS_ID).with_partitions(vec![0]);
        later("live-c", "m1", 2).with_topic_partitions(Some(vec![owned]))
    })?;
    pair.ask("consumer-heartbeat-owns-nil", &[1], |_, _| {
        let owned = TopicPartitions::default().with_topic_id(Uuid::nil()).with_partitions(vec![-1]);
        later("live-c", "m1", 2).with_topic_partitions(Some(vec![owned]))
    })?;
    pair.ask("consumer-heartbeat-stranger", &[1], |_, _| later("live-c", "m9", 2))?;
    pair.ask("consumer-heartbeat-static-stranger", &[1], |_, _| {
        later("live-c", "m9", 2).with_instance_id(Some(text("i")))
    })?;
    pair.ask("consumer-heartbeat-stranger-leaves", &[1], |_, _| later("live-c", "m9", -1))?;
    let topics = |names: &[&str]| Some(names.iter().map(|name| topic(name)).collect());
    pair.ask("consumer-heartbeat-more-topics", &[1], |_, _| {
        later("live-c", "m1", 2).with_subscribed_topic_names(topics(&["read-1", "kept", "not-there"]))
    })?;
    look(pair, "more", "live-c")?;
    pair.ask("consumer-heartbeat-fewer-topics", &[1], |_, _| {
        later("live-c", "m1", 3).with_subscribed_topic_names(topics(&["read-1"]))
    })?;
    look(pair, "revoking", "live-c")?;
    pair.ask("consumer-heartbeat-not-yet", &[1], |_, _| later("live-c", "m1", 3))?;
    pair.ask("consumer-heartbeat-gave-up", &[1], |_, side| owning(side, "live-c", "m1", 3, &[0, 1, 2, 3]))?;
    pair.ask("consumer-heartbeat-no-topics", &[1], |_, _| {
        later("live-c", "m1", 4).with_subscribed_topic_names(topics(&[]))
    })?;
    pair.ask("consumer-heartbeat-no-topics-gave-up", &[1], |_, _| {
        later("live-c", "m1", 4).with_topic_partitions(Some(Vec::new()))
    })?;
    pair.ask("consumer-heartbeat-topics-again", &[1], |_, _| {
        later("live-c", "m1", 5).with_subscribed_topic_names(topics(&["read-1"]))
    })?;
    look(pair, "again", "live-c")
}

fn fetch_as(name: &str, member: Option<&str>, epoch: i32) -> OffsetFetchRequest {
    let topics = OffsetFetchRequestTopics::default().with_name(topic("read-1")).with_partition_indexes(vec![0, 1]);
    let of_group = OffsetFetchRequestGroup::default()
        .with_group_id(group(name))
        .with_member_id(member.map(text))
        .with_member_epoch(epoch)
        .with_topics(Some(vec![topics]));
    OffsetFetchRequest::default().with_groups(vec![of_group])
}

fn offsets(pair: &mut Pair) -> Result<()> {
    for (member, epoch) in [("m1", 6), ("m1", 5), ("m1", 7), ("m1", -1), ("m9", 6), ("", -1), ("", 6)] {
        pair.ask(&format!("commit-consumer-{member}-{epoch}"), &versions(2, 9), |_, _| {
            commit("live-c", epoch, member, "read-1", 0, 7, Some(""))
        })?;
        pair.ask(&format!("offset-fetch-consumer-{member}-{epoch}"), &[9], |_, _| {
            fetch_as("live-c", Some(member), epoch)
        })?;
    }
    pair.ask("offset-fetch-consumer-nobody", &[8, 9], |_, _| fetch_as("live-c", None, -1))?;
    pair.ask("offset-delete-consumer", &[0], |_, _| forget("live-c", "read-1", &[0, 9]))?;
    pair.ask("delete-groups-consumer", &versions(0, 2), |_, _| delete(&["live-c"]))?;
    Ok(())
}

/// Two members that hand partitions over.
fn together(pair: &mut Pair) -> Result<()> {
    pair.ask("consumer-heartbeat-second", &[1], |_, _| first("live-c", "m2"))?;
    look(pair, "second", "live-c")?;
    pair.ask("consumer-heartbeat-revoke", &[1], |_, side| owning(side, "live-c", "m1", 6, &[0, 1, 2, 3]))?;
    look(pair, "handing-over", "live-c")?;
    pair.ask("consumer-heartbeat-second-waits", &[1], |_, _| later("live-c", "m2", 7))?;
    pair.ask("consumer-heartbeat-revoked", &[1], |_, side| owning(side, "live-c", "m1", 6, &[0, 1]))?;
    pair.ask("consumer-heartbeat-second-gets", &[1], |_, _| later("live-c", "m2", 7))?;
    look(pair, "two", "live-c")?;
    for (epoch, partition) in [(6, 0), (6, 2), (7, 0), (7, 2)] {
        pair.ask(&format!("commit-consumer-older-{epoch}-{partition}"), &[9], |_, _| {
            commit("live-c", epoch, "m1", "read-1", partition, 8, Some(""))
        })?;
    }
    pair.ask("consumer-heartbeat-second-leaves", &[1], |_, _| later("live-c", "m2", -1))?;
    look(pair, "left", "live-c")?;
    pair.ask("consumer-heartbeat-takes-over", &[1], |_, side| owning(side, "live-c", "m1", 7, &[0, 1]))?;
    look(pair, "alone-again", "live-c")
}

fn static_members(pair: &mut Pair) -> Result<()> {
    let as_one = |request: ConsumerGroupHeartbeatRequest| request.with_instance_id(Some(text("one")));
    pair.ask("consumer-heartbeat-static", &[1], |_, _| as_one(first("static-c", "s1")).with_rack_id(Some(text("r"))))?;
    pair.ask("consumer-heartbeat-static-taken", &[1], |_, _| as_one(first("static-c", "s2")))?;
    pair.ask("consumer-heartbeat-static-fenced", &[1], |_, _| as_one(later("static-c", "s2", 2)))?;
    pair.ask("consumer-heartbeat-static-away", &[1], |_, _| as_one(later("static-c", "s1", -2)))?;
    look(pair, "away", "static-c")?;
    pair.ask("consumer-heartbeat-static-back", &[1], |_, _| as_one(first("static-c", "s2")))?;
    look(pair, "back", "static-c")?;
    pair.ask("consumer-heartbeat-static-late", &[1], |_, _| as_one(later("static-c", "s1", 2)))?;
    pair.ask("leave-consumers", &versions(3, 5), |v, _| {
        leave(v, "static-c", &[("", Some("two")), ("s1", Some("one")), ("s9", None)])
    })?;
    pair.ask("leave-consumers-all", &[5], |v, _| leave(v, "static-c", &[("", Some("one"))]))?;
    look(pair, "all-left", "static-c")
}

/// What classic members are told in a consumer group.
fn with_classic_members(pair: &mut Pair) -> Result<()> {
    pair.ask("join-consumers-other-type", &[9], |_, _| {
        join("live-c", "", &["range"]).with_protocol_type(text("connect"))
    })?;
    pair.ask("join-consumers-no-protocols", &[9], |_, _| join("live-c", "", &[]))?;
    // With a member id of its own choice, so that both know it by the same.
    pair.ask("join-consumers", &[3], |v, _| fit(v, join("live-c", "old", &["range", "sticky"])))?;
    look(pair, "classic", "live-c")?;
    pair.ask("heartbeat-consumers", &versions(0, 4), |_, _| beat("live-c", 9, "old"))?;
    for generation in [8, 10, -1] {
        pair.ask(&format!("heartbeat-consumers-{generation}"), &[4], |_, _| beat("live-c", generation, "old"))?;
        pair.ask(&format!("sync-consumers-{generation}"), &[4], |_, _| sync("live-c", generation, "old"))?;
    }
    pair.ask("heartbeat-consumers-new", &[4], |_, _| beat("live-c", 8, "m1"))?;
    pair.ask("sync-consumers-new", &[4], |_, _| sync("live-c", 8, "m1"))?;
    pair.ask("sync-consumers-type", &[5], |_, _| {
        sync("live-c", 9, "old").with_protocol_type(Some(text("connect"))).with_protocol_name(Some(text("range")))
    })?;
    pair.ask("sync-consumers-name", &[5], |_, _| {
        sync("live-c", 9, "old").with_protocol_type(Some(text("consumer"))).with_protocol_name(Some(text("sticky")))
    })?;
    pair.ask("sync-consumers", &versions(3, 4), |_, _| sync("live-c", 9, "old"))?;
    pair.ask("commit-consumers-classic", &[8, 9], |_, _| commit("live-c", 9, "old", "kept", 0, 5, Some("")))?;
    pair.ask("commit-consumers-classic-stale", &[8, 9], |_, _| commit("live-c", 8, "old", "kept", 0, 5, Some("")))?;
    pair.ask("leave-consumers-classic", &[5], |v, _| leave(v, "live-c", &[("old", None)]))?;
    look(pair, "classic-left", "live-c")
}

fn the_end(pair: &mut Pair) -> Result<()> {
    pair.ask("consumer-heartbeat-last-leaves", &[1], |_, _| later("live-c", "m1", -1))?;
    look(pair, "empty", "live-c")?;
    pair.ask("commit-consumer-admin", &[9], |_, _| commit("live-c", -1, "", "read-1", 1, 4, Some("")))?;
    pair.ask("offset-delete-consumer-empty", &[0], |_, _| forget("live-c", "read-1", &[0]))?;
    pair.ask("consumer-heartbeat-of-the-left", &[1], |_, _| later("live-c", "m1", 8))?;
    pair.ask("delete-groups-consumers", &[2], |_, _| delete(&["live-c", "static-c", "simple"]))?;
    pair.ask("describe-groups-consumers-gone", &[6], |_, _| {
        DescribeGroupsRequest::default().with_groups(vec![group("live-c")])
    })?;
    look(pair, "gone", "live-c")
}
