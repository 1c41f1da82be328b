//! Groups of the streams protocol (KIP-1071), and what the other requests say of them.

use anyhow::Result;
use kafka_protocol::messages::{ConsumerGroupHeartbeatRequest, ListGroupsRequest};
use serde_json::Value;
use varve_tests::{
    differential::Pair,
    streams_groups::{StreamsGroupDescribeRequest, StreamsGroupHeartbeatRequest, Subtopology, TopicInfo},
};

use super::{
    groups::{await_coordinator, beat, commit, delete, describe, fetch, forget, join, leave, sync},
    request::{group, text, topic, versions},
    topics::{make, new},
};

/// An application's topic for what it counts, which its coordinator makes.
const COUNTS: &str = "app-counts-changelog";

pub(crate) fn script(pair: &mut Pair) -> Result<()> {
    await_coordinator(pair)?;
    make(pair, new("shop", 4, 1))?;
    make(pair, new("till", 2, 1))?;
    make(pair, new("stall", 4, 1))?;
    nonsense(pair)?;
    topologies(pair)?;
    alone(pair)?;
    offsets(pair)?;
    together(pair)?;
    endpoints(pair)?;
    other_types(pair)?;
    the_end(pair)
}

fn own(name: &str) -> String {
    name.to_owned()
}

fn reads(id: &str, topics: &[&str]) -> Subtopology {
    Subtopology {
        id: own(id),
        source_topics: topics.iter().map(|topic| own(topic)).collect(),
        ..Subtopology::default()
    }
}

fn internal(name: &str, partitions: i32) -> TopicInfo {
    TopicInfo { name: own(name), partitions, ..TopicInfo::default() }
}

/// Reads `shop` and keeps what it counts.
fn counting() -> Vec<Subtopology> {
    let counts = TopicInfo { configs: vec![(own("cleanup.policy"), own("compact"))], ..internal(COUNTS, 0) };
    vec![Subtopology { changelogs: vec![counts], ..reads("0", &["shop"]) }]
}

/// The first request of a member.
fn first(name: &str, member: &str, topology: Vec<Subtopology>) -> StreamsGroupHeartbeatRequest {
    StreamsGroupHeartbeatRequest {
        rebalance_timeout_ms: 300_000,
        topology: Some((0, topology)),
        tasks: [Some(vec![]), Some(vec![]), Some(vec![])],
        process_id: Some(format!("process of {member}")),
        ..later(name, member, 0)
    }
}

/// One that says nothing new.
fn later(name: &str, member: &str, epoch: i32) -> StreamsGroupHeartbeatRequest {
    StreamsGroupHeartbeatRequest {
        group_id: own(name),
        member_id: own(member),
        member_epoch: epoch,
        rebalance_timeout_ms: -1,
        ..StreamsGroupHeartbeatRequest::default()
    }
}

fn owning(name: &str, member: &str, epoch: i32, active: &[i32]) -> StreamsGroupHeartbeatRequest {
    let active = if active.is_empty() { vec![] } else { vec![(own("0"), active.to_vec())] };
    StreamsGroupHeartbeatRequest { tasks: [Some(active), Some(vec![]), Some(vec![])], ..later(name, member, epoch) }
}

fn described(names: &[&str]) -> StreamsGroupDescribeRequest {
    StreamsGroupDescribeRequest {
        group_ids: names.iter().map(|name| own(name)).collect(),
        include_authorized_operations: false,
    }
}

/// The group as every request shows it.
fn look(pair: &mut Pair, when: &str, name: &str) -> Result<()> {
    pair.ask(&format!("describe-streams-{when}"), &[0], |_, _| StreamsGroupDescribeRequest {
        include_authorized_operations: true,
        ..described(&[name])
    })?;
    pair.ask(&format!("describe-groups-streams-{when}"), &[5, 6], |_, _| describe(&[name]))?;
    pair.ask(&format!("list-groups-streams-{when}"), &[4, 5], |_, _| ListGroupsRequest::default())?;
    Ok(())
}

fn says(pair: &mut Pair, name: &str, request: &StreamsGroupHeartbeatRequest) -> Result<[Value; 2]> {
    pair.ask(&format!("streams-heartbeat-{name}"), &[0], |_, _| request.clone())
}

fn nonsense(pair: &mut Pair) -> Result<()> {
    let first = || first("n", "m", counting());
    let some = || Some(vec![(own("0"), vec![0])]);
    let with = |change: &dyn Fn(&mut StreamsGroupHeartbeatRequest), mut request: StreamsGroupHeartbeatRequest| {
        change(&mut request);
        request
    };
    let wrong: Vec<(&str, StreamsGroupHeartbeatRequest)> = vec![
        ("no-group", with(&|request| request.group_id.clear(), first())),
        ("blank-group", with(&|request| request.group_id = own(" "), first())),
        ("no-member", with(&|request| request.member_id.clear(), first())),
        ("blank-rack", with(&|request| request.rack_id = Some(own(" ")), first())),
        ("instance", with(&|request| request.instance_id = Some(own("i")), first())),
        ("offsets", with(&|request| request.offsets = [true, false], first())),
        ("end-offsets", with(&|request| request.offsets = [false, true], first())),
        ("warmup", with(&|request| request.tasks[2] = some(), first())),
        ("no-timeout", with(&|request| request.rebalance_timeout_ms = -1, first())),
        ("active", with(&|request| request.tasks[0] = some(), first())),
        ("standby", with(&|request| request.tasks[1] = some(), first())),
        ("no-topology", with(&|request| request.topology = None, first())),
        ("some-tasks", with(&|request| request.tasks[0] = some(), later("n", "m", 1))),
        ("topology-later", with(&|request| request.topology = Some((0, counting())), later("n", "m", 1))),
        ("epoch", later("n", "m", -3)),
        ("leaves-for-a-while", later("n", "m", -2)),
        ("leaves", later("n", "m", -1)),
        ("unknown-group", later("n", "m", 1)),
    ];
    for (name, request) in &wrong {
        says(pair, name, request)?;
    }
    pair.ask("describe-streams-nobody", &[0], |_, _| described(&["", "nobody", "n"]))?;
    pair.ask("describe-streams-none", &[0], |_, _| described(&[]))?;
    // A simple group, which a commit made.
    pair.ask("commit-simple-streams", &[9], |_, _| commit("simple-s", -1, "", "shop", 0, 3, Some("")))?;
    pair.ask("describe-streams-simple", &[0], |_, _| described(&["simple-s"]))?;
    says(pair, "simple", &later("simple-s", "m", 1))?;
    says(pair, "simple-leaves", &later("simple-s", "m", -1))?;
    Ok(())
}

/// Topologies that cannot work, and what is said of those that may.
fn topologies(pair: &mut Pair) -> Result<()> {
    let sinks = |id: &str, topics: &[&str], sinks: &[&str]| Subtopology {
        repartition_sinks: sinks.iter().map(|sink| own(sink)).collect(),
        ..reads(id, topics)
    };
    let rereads = |id: &str, topics: &[(&str, i32)]| Subtopology {
        repartition_sources: topics.iter().map(|(name, partitions)| internal(name, *partitions)).collect(),
        ..reads(id, &[])
    };
    let together = |subtopology: Subtopology, source_topics: &[i16], repartition_sources: &[i16]| Subtopology {
        copartition_groups: vec![(source_topics.to_vec(), repartition_sources.to_vec())],
        ..subtopology
    };
    let changelog = |subtopology: Subtopology, name: &str, partitions: i32| Subtopology {
        changelogs: vec![internal(name, partitions)],
        ..subtopology
    };
    let turning = Subtopology { repartition_sinks: vec![own("r")], ..rereads("0", &[("r", 0)]) };
    let pattern = Subtopology { source_topic_regex: vec![own("s.*")], ..reads("0", &["shop"]) };
    let cases: Vec<(&str, Vec<Subtopology>)> = vec![
        ("kafkas-own", vec![reads("0", &["__consumer_offsets"])]),
        ("no-name", vec![reads("0", &["a b"])]),
        ("pattern", vec![pattern]),
        ("sized-changelog", vec![changelog(reads("0", &["shop"]), "c", 3)]),
        ("no-sources", vec![reads("0", &[])]),
        ("loop", vec![turning]),
        ("never-written", vec![rereads("0", &[("r", 0)])]),
        ("missing-source", vec![reads("0", &["not-there"])]),
        ("missing-sources", vec![reads("0", &["not-there", "nor-that"])]),
        ("unequal", vec![together(reads("0", &["shop", "till"]), &[0, 1], &[])]),
        ("equal", vec![together(reads("0", &["shop", "stall"]), &[0, 1], &[])]),
        ("same-twice", vec![together(reads("0", &["shop", "shop"]), &[0, 1], &[])]),
        ("group-of-none", vec![together(reads("0", &["shop"]), &[], &[])]),
        ("existing", vec![changelog(reads("0", &["shop"]), "till", 0)]),
        (
            "fixed-otherwise",
            vec![
                sinks("0", &["shop"], &["r"]),
                together(Subtopology { source_topics: vec![own("till")], ..rereads("1", &[("r", 3)]) }, &[0], &[0]),
            ],
        ),
        ("nothing", vec![]),
    ];
    for (name, topology) in &cases {
        let group = format!("t-{name}");
        says(pair, &format!("topology-{name}"), &first(&group, "m", topology.clone()))?;
        pair.ask(&format!("describe-streams-topology-{name}"), &[0], |_, _| described(&[&group]))?;
        // Left alone it would go when its session ends, and not at the same moment with both.
        says(pair, &format!("topology-{name}-leaves"), &later(&group, "m", -1))?;
    }
    let groups: Vec<String> = cases.iter().map(|(name, _)| format!("t-{name}")).collect();
    let groups: Vec<&str> = groups.iter().map(String::as_str).collect();
    pair.ask("delete-groups-streams-topologies", &[2], |_, _| delete(&groups))?;
    // What cannot be told apart, or points to nothing.
    for (name, epoch, topology) in [
        ("negative", -1, counting()),
        ("twice", 0, vec![reads("0", &["shop"]), reads("0", &["till"])]),
        ("points-nowhere", 0, vec![together(reads("0", &["shop"]), &[7], &[])]),
    ] {
        let request = first(&format!("t-{name}"), "m", vec![]);
        says(
            pair,
            &format!("topology-{name}"),
            &StreamsGroupHeartbeatRequest { topology: Some((epoch, topology)), ..request },
        )?;
    }
    Ok(())
}

/// A group of one, whose changelog is made on the way.
fn alone(pair: &mut Pair) -> Result<()> {
    says(pair, "first", &first("live-s", "m1", counting()))?;
    for side in pair.sides() {
        side.wait_for_topic(COUNTS)?;
    }
    // Kafka's coordinator learns of topics a moment later.
    pair.until(0, |_, _| later("live-s", "m1", 2), |answer| answer["member_epoch"] == 3)?;
    look(pair, "first", "live-s")?;
    says(pair, "next", &later("live-s", "m1", 3))?;
    says(pair, "again", &first("live-s", "m1", counting()))?;
    for epoch in [1, 2, 4, 0x7fff_ffff] {
        says(pair, &format!("epoch-{epoch}"), &later("live-s", "m1", epoch))?;
    }
    says(pair, "owns", &owning("live-s", "m1", 3, &[0, 1, 2, 3]))?;
    says(pair, "owns-less", &owning("live-s", "m1", 3, &[0]))?;
    says(pair, "owns-too-much", &owning("live-s", "m1", 3, &[4]))?;
    says(pair, "owns-nonsense", &owning("live-s", "m1", 3, &[-1]))?;
    let elsewhere = StreamsGroupHeartbeatRequest {
        tasks: [Some(vec![(own("7"), vec![0])]), Some(vec![]), Some(vec![])],
        ..later("live-s", "m1", 3)
    };
    says(pair, "owns-elsewhere", &elsewhere)?;
    says(pair, "stranger", &later("live-s", "m9", 3))?;
    says(pair, "stranger-leaves", &later("live-s", "m9", -1))?;
    says(pair, "other-topology", &first("live-s", "m2", vec![reads("0", &["shop"])]))?;
    let rack = StreamsGroupHeartbeatRequest {
        rack_id: Some(own("r")),
        client_tags: Some(vec![(own("zone"), own("a"))]),
        ..later("live-s", "m1", 3)
    };
    says(pair, "rack", &rack)?;
    look(pair, "rack", "live-s")
}

fn offsets(pair: &mut Pair) -> Result<()> {
    pair.ask("commit-streams", &[8, 9], |_, _| commit("live-s", 4, "m1", "shop", 0, 5, Some("")))?;
    for (name, epoch, member) in [("older", 3, "m1"), ("oldest", 1, "m1"), ("newer", 5, "m1"), ("stranger", 4, "m9")] {
        pair.ask(&format!("commit-streams-{name}"), &[9], |_, _| {
            commit("live-s", epoch, member, "shop", 0, 5, Some(""))
        })?;
    }
    pair.ask("commit-streams-older-elsewhere", &[9], |_, _| commit("live-s", 3, "m1", "till", 0, 5, Some("")))?;
    pair.ask("commit-streams-admin", &[9], |_, _| commit("live-s", -1, "", "shop", 0, 5, Some("")))?;
    pair.ask("offset-fetch-streams", &[8, 9], |v, _| fetch(v, "live-s", Some(&[("shop", &[0, 1])])))?;
    pair.ask("offset-delete-streams", &[0], |_, _| forget("live-s", "shop", &[0]))?;
    pair.ask("offset-delete-streams-unread", &[0], |_, _| forget("live-s", "till", &[0]))?;
    Ok(())
}

/// Another member joins, and half of the tasks go to it. Which half is not compared: Kafka's choice depends on the order of
/// its hash maps.
fn together(pair: &mut Pair) -> Result<()> {
    let ask = |pair: &mut Pair, name: &str, request: &StreamsGroupHeartbeatRequest| says(pair, name, request);
    ask(pair, "second", &first("live-s", "m2", counting()))?;
    let told = ask(pair, "gives-up", &later("live-s", "m1", 4))?;
    let kept = told.map(|answer| {
        let partitions = answer["active_tasks"][0]["partitions"].as_array().cloned().unwrap_or_default();
        partitions.iter().filter_map(|partition| partition.as_i64()?.try_into().ok()).collect::<Vec<i32>>()
    });
    ask(pair, "does-not-give-up", &owning("live-s", "m1", 4, &[0, 1, 2, 3]))?;
    pair.ask("streams-heartbeat-gave-up", &[0], |_, side| {
        owning("live-s", "m1", 4, if side.is_kafka() { &kept[0] } else { &kept[1] })
    })?;
    ask(pair, "takes", &later("live-s", "m2", 5))?;
    ask(pair, "shutdown", &StreamsGroupHeartbeatRequest { shutdown_application: true, ..later("live-s", "m2", 5) })?;
    ask(pair, "hears-of-shutdown", &later("live-s", "m1", 5))?;
    ask(pair, "second-leaves", &later("live-s", "m2", -1))?;
    ask(pair, "takes-back", &later("live-s", "m1", 5))?;
    look(pair, "together", "live-s")
}

fn endpoints(pair: &mut Pair) -> Result<()> {
    let at = |member: &str, request: StreamsGroupHeartbeatRequest| StreamsGroupHeartbeatRequest {
        user_endpoint: Some((format!("host-of-{member}"), 80)),
        ..request
    };
    let reading = || vec![reads("0", &["till"])];
    says(pair, "endpoint-first", &at("m1", first("asked", "m1", reading())))?;
    says(pair, "endpoint-again", &later("asked", "m1", 2))?;
    says(pair, "endpoint-known", &StreamsGroupHeartbeatRequest { endpoint_epoch: 1, ..later("asked", "m1", 2) })?;
    pair.ask("describe-streams-endpoint", &[0], |_, _| described(&["asked"]))?;
    says(pair, "endpoint-leaves", &later("asked", "m1", -1))?;
    Ok(())
}

fn other_types(pair: &mut Pair) -> Result<()> {
    pair.ask("consumer-heartbeat-streams", &[1], |_, _| {
        ConsumerGroupHeartbeatRequest::default()
            .with_group_id(group("live-s"))
            .with_member_id(text("c"))
            .with_member_epoch(0)
            .with_rebalance_timeout_ms(300_000)
            .with_subscribed_topic_names(Some(vec![topic("shop")]))
            .with_topic_partitions(Some(Vec::new()))
    })?;
    pair.ask("join-streams", &[9], |_, _| join("live-s", "", &["range"]))?;
    pair.ask("sync-streams", &[5], |_, _| sync("live-s", 1, "m1"))?;
    pair.ask("heartbeat-streams", &[4], |_, _| beat("live-s", 1, "m1"))?;
    pair.ask("leave-streams", &versions(3, 5), |v, _| leave(v, "live-s", &[("m1", None)]))?;
    pair.ask("delete-groups-streams-in-use", &[2], |_, _| delete(&["live-s"]))?;
    pair.ask("list-groups-streams-only", &[5], |_, _| {
        ListGroupsRequest::default().with_types_filter(vec![text("Streams")])
    })?;
    Ok(())
}

fn the_end(pair: &mut Pair) -> Result<()> {
    says(pair, "last-leaves", &later("live-s", "m1", -1))?;
    look(pair, "empty", "live-s")?;
    pair.ask("commit-streams-empty-admin", &[9], |_, _| commit("live-s", -1, "", "shop", 1, 4, Some("")))?;
    pair.ask("offset-delete-streams-empty", &[0], |_, _| forget("live-s", "shop", &[0]))?;
    says(pair, "of-the-left", &later("live-s", "m1", 6))?;
    pair.ask("delete-groups-streams", &[2], |_, _| delete(&["live-s", "asked", "simple-s"]))?;
    look(pair, "gone", "live-s")
}
