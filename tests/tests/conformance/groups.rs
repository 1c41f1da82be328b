//! FindCoordinator and the classic group requests, in every state of a group; offsets.

use anyhow::Result;
use bytes::Bytes;
use kafka_protocol::messages::{
    DeleteGroupsRequest, DescribeGroupsRequest, FindCoordinatorRequest, HeartbeatRequest, JoinGroupRequest,
    LeaveGroupRequest, ListGroupsRequest, OffsetCommitRequest, OffsetDeleteRequest, OffsetFetchRequest,
    SyncGroupRequest,
    join_group_request::JoinGroupRequestProtocol,
    leave_group_request::MemberIdentity,
    offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic},
    offset_delete_request::{OffsetDeleteRequestPartition, OffsetDeleteRequestTopic},
    offset_fetch_request::{OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics},
};
use varve_tests::differential::Pair;

use super::{
    request::{group, text, topic, versions},
    topics::{make, new},
};

pub(crate) fn script(pair: &mut Pair) -> Result<()> {
    make(pair, new("read", 2, 1))?;
    coordinators(pair)?;
    strangers(pair)?;
    offsets(pair)?;
    lists(pair)
}

/// Waits until both brokers serve groups.
pub(crate) fn await_coordinator(pair: &mut Pair) -> Result<()> {
    pair.until_no_error(3, |_, _| FindCoordinatorRequest::default().with_key(text("g")))?;
    // Kafka says where the coordinator is before it has loaded its groups.
    pair.until_no_error(4, |_, _| ListGroupsRequest::default())
}

fn coordinators(pair: &mut Pair) -> Result<()> {
    let one = |key: &str, kind: i8| FindCoordinatorRequest::default().with_key(text(key)).with_key_type(kind);
    let several = |keys: &[&str], kind: i8| {
        FindCoordinatorRequest::default()
            .with_coordinator_keys(keys.iter().map(|key| text(key)).collect())
            .with_key_type(kind)
    };
    pair.ask("find-coordinator-first", &[3], |_, _| one("g", 0))?;
    await_coordinator(pair)?;
    for key in ["g", ""] {
        pair.ask(&format!("find-coordinator-{key}"), &versions(0, 3), |_, _| one(key, 0))?;
    }
    pair.ask("find-coordinators", &versions(4, 6), |_, _| several(&["g", "h", "g", ""], 0))?;
    pair.ask("find-coordinators-none", &versions(4, 6), |_, _| several(&[], 0))?;
    for kind in [3, -1, 99] {
        pair.ask(&format!("find-coordinator-kind-{kind}"), &versions(1, 3), |_, _| one("g", kind))?;
        pair.ask(&format!("find-coordinators-kind-{kind}"), &versions(4, 6), |_, _| several(&["g"], kind))?;
    }
    Ok(())
}

pub(crate) fn join(name: &str, member: &str, protocols: &[&str]) -> JoinGroupRequest {
    // Kafka reads what consumers subscribe to, and never answers if it cannot.
    let kept = Bytes::from_static(b"\x00\x00\x00\x00\x00\x01\x00\x04kept\xff\xff\xff\xff");
    let protocols = protocols
        .iter()
        .map(|name| JoinGroupRequestProtocol::default().with_name(text(name)).with_metadata(kept.clone()));
    JoinGroupRequest::default()
        .with_group_id(group(name))
        .with_session_timeout_ms(30_000)
        .with_rebalance_timeout_ms(30_000)
        .with_member_id(text(member))
        .with_protocol_type(text("consumer"))
        .with_protocols(protocols.collect())
}

/// Before version 1 there is one timeout only.
pub(crate) fn fit(version: i16, mut request: JoinGroupRequest) -> JoinGroupRequest {
    if version < 1 {
        request.rebalance_timeout_ms = JoinGroupRequest::default().rebalance_timeout_ms;
    }
    request
}

pub(crate) fn sync(name: &str, generation: i32, member: &str) -> SyncGroupRequest {
    SyncGroupRequest::default().with_group_id(group(name)).with_generation_id(generation).with_member_id(text(member))
}

pub(crate) fn beat(name: &str, generation: i32, member: &str) -> HeartbeatRequest {
    HeartbeatRequest::default().with_group_id(group(name)).with_generation_id(generation).with_member_id(text(member))
}

pub(crate) fn leave(version: i16, name: &str, members: &[(&str, Option<&str>)]) -> LeaveGroupRequest {
    let request = LeaveGroupRequest::default().with_group_id(group(name));
    if version < 3 {
        return request.with_member_id(text(members.first().map_or("", |(member, _)| member)));
    }
    let members = members.iter().map(|(member, instance)| {
        MemberIdentity::default().with_member_id(text(member)).with_group_instance_id(instance.map(text))
    });
    request.with_members(members.collect())
}

/// Groups and members that do not exist.
fn strangers(pair: &mut Pair) -> Result<()> {
    let joins = versions(0, 9);
    let wrong: Vec<(&str, JoinGroupRequest)> = vec![
        ("no-group", join("", "", &["range"])),
        ("short-session", join("g", "", &["range"]).with_session_timeout_ms(5_999)),
        ("long-session", join("g", "", &["range"]).with_session_timeout_ms(1_800_001)),
        ("zero-session", join("g", "", &["range"]).with_session_timeout_ms(0)),
        ("negative-session", join("g", "", &["range"]).with_session_timeout_ms(-1)),
        ("unknown-member", join("g", "nobody", &["range"])),
        ("no-protocols", join("g", "", &[])),
    ];
    for (name, request) in &wrong {
        pair.ask(&format!("join-{name}"), &joins, |v, _| fit(v, request.clone()))?;
    }
    for (name, member) in [("", "m"), ("g", "m"), ("g", "")] {
        pair.ask(&format!("sync-stranger-{name}-{member}"), &versions(0, 5), |_, _| sync(name, 1, member))?;
        pair.ask(&format!("heartbeat-stranger-{name}-{member}"), &versions(0, 4), |_, _| beat(name, 1, member))?;
        pair.ask(&format!("leave-stranger-{name}-{member}"), &versions(0, 5), |v, _| {
            leave(v, name, &[(member, None)])
        })?;
    }
    pair.ask("leave-nobody", &versions(3, 5), |v, _| leave(v, "g", &[]))?;
    pair.ask("leave-several", &versions(3, 5), |v, _| {
        leave(v, "g", &[("a", None), ("b", Some("i")), ("", Some("j"))])
    })?;
    Ok(())
}

pub(crate) fn commit(
    name: &str,
    generation: i32,
    member: &str,
    to: &str,
    index: i32,
    offset: i64,
    metadata: Option<&str>,
) -> OffsetCommitRequest {
    let partition = OffsetCommitRequestPartition::default()
        .with_partition_index(index)
        .with_committed_offset(offset)
        .with_committed_metadata(metadata.map(text));
    let topic = OffsetCommitRequestTopic::default().with_name(topic(to)).with_partitions(vec![partition]);
    OffsetCommitRequest::default()
        .with_group_id(group(name))
        .with_generation_id_or_member_epoch(generation)
        .with_member_id(text(member))
        .with_topics(vec![topic])
}

pub(crate) fn fetch(version: i16, name: &str, topics: Option<&[(&str, &[i32])]>) -> OffsetFetchRequest {
    let topics = topics.map(|topics| topics.iter());
    if version >= 8 {
        let topics = topics.map(|topics| {
            let each = topics.map(|(name, indexes)| {
                OffsetFetchRequestTopics::default().with_name(topic(name)).with_partition_indexes(indexes.to_vec())
            });
            each.collect()
        });
        let group = OffsetFetchRequestGroup::default().with_group_id(group(name)).with_topics(topics);
        return OffsetFetchRequest::default().with_groups(vec![group]);
    }
    let topics = topics.map(|topics| {
        let each = topics.map(|(name, indexes)| {
            OffsetFetchRequestTopic::default().with_name(topic(name)).with_partition_indexes(indexes.to_vec())
        });
        each.collect()
    });
    OffsetFetchRequest::default().with_group_id(group(name)).with_topics(topics)
}

pub(crate) fn forget(name: &str, from: &str, indexes: &[i32]) -> OffsetDeleteRequest {
    let partitions = indexes.iter().map(|index| OffsetDeleteRequestPartition::default().with_partition_index(*index));
    let topic = OffsetDeleteRequestTopic::default().with_name(topic(from)).with_partitions(partitions.collect());
    OffsetDeleteRequest::default().with_group_id(group(name)).with_topics(vec![topic])
}

fn offsets(pair: &mut Pair) -> Result<()> {
    let commits = versions(2, 9);
    let large = "m".repeat(4_097);
    for (label, request) in [
        ("simple", commit("solo", -1, "", "read", 0, 42, Some("note"))),
        ("null-metadata", commit("solo", -1, "", "read", 1, 43, None)),
        ("large-metadata", commit("solo", -1, "", "read", 0, 44, Some(&large))),
        ("negative", commit("solo", -1, "", "read", 1, -1, Some(""))),
        ("unknown-partition", commit("solo", -1, "", "read", 9, 1, Some(""))),
        ("negative-partition", commit("solo", -1, "", "read", -1, 1, Some(""))),
        ("unknown-topic", commit("solo", -1, "", "nobody", 0, 1, Some(""))),
        ("invalid-topic", commit("solo", -1, "", "a b", 0, 1, Some(""))),
        ("no-group", commit("", -1, "", "read", 0, 1, Some(""))),
        ("unknown-member", commit("solo", -1, "nobody", "read", 0, 1, Some(""))),
        ("generation-of-none", commit("solo", 3, "", "read", 0, 1, Some(""))),
        ("generation-of-nobody", commit("fresh", 3, "nobody", "read", 0, 1, Some(""))),
        ("nothing", OffsetCommitRequest::default().with_group_id(group("solo"))),
    ] {
        pair.ask(&format!("commit-{label}"), &commits, |_, _| request.clone())?;
    }
    let fetches = versions(1, 9);
    for (label, name, topics) in [
        ("some", "solo", Some(&[("read", &[0, 1][..])][..])),
        ("unknown-partition", "solo", Some(&[("read", &[7, -1]), ("nobody", &[0]), ("a b", &[0])])),
        ("unknown-group", "nobody", Some(&[("read", &[0])])),
        ("no-group", "", Some(&[("read", &[0])])),
        ("nothing", "solo", Some(&[])),
        ("no-partitions", "solo", Some(&[("read", &[])])),
        ("twice", "solo", Some(&[("read", &[0, 0])])),
        ("all", "solo", None),
        ("all-of-nobody", "nobody", None),
        ("live", "live", None),
    ] {
        pair.ask(&format!("offset-fetch-{label}"), &fetches, |v, _| fetch(v, name, topics))?;
    }
    pair.ask("offset-fetch-groups", &[8, 9], |v, _| {
        let mut request = fetch(v, "solo", None);
        request.groups.extend(fetch(v, "nobody", Some(&[("read", &[0])])).groups);
        request
    })?;
    pair.ask("offset-fetch-member", &[9], |v, _| {
        let mut request = fetch(v, "solo", None);
        for group in &mut request.groups {
            group.member_id = Some(text("nobody"));
            group.member_epoch = 3;
        }
        request
    })?;
    pair.ask("offset-fetch-stable", &versions(7, 9), |v, _| fetch(v, "solo", None).with_require_stable(true))?;
    for (label, name, from, indexes) in [
        ("unknown-group", "nobody", "read", &[0][..]),
        ("no-group", "", "read", &[0]),
        ("unknown-topic", "solo", "nobody", &[0]),
        ("unknown-partition", "solo", "read", &[9, -1]),
        ("some", "solo", "read", &[0]),
        ("again", "solo", "read", &[0]),
        ("none", "solo", "read", &[]),
    ] {
        pair.ask(&format!("offset-delete-{label}"), &[0], |_, _| forget(name, from, indexes))?;
    }
    pair.ask("offset-fetch-after-delete", &fetches, |v, _| fetch(v, "solo", None))?;
    Ok(())
}

pub(crate) fn describe(names: &[&str]) -> DescribeGroupsRequest {
    DescribeGroupsRequest::default().with_groups(names.iter().map(|name| group(name)).collect())
}

pub(crate) fn delete(names: &[&str]) -> DeleteGroupsRequest {
    DeleteGroupsRequest::default().with_groups_names(names.iter().map(|name| group(name)).collect())
}

fn lists(pair: &mut Pair) -> Result<()> {
    pair.ask("describe-groups-dead", &versions(0, 6), |_, _| describe(&["nobody", "", "solo"]))?;
    pair.ask("describe-groups-none", &versions(0, 6), |_, _| describe(&[]))?;
    pair.ask("describe-groups-operations", &versions(3, 6), |_, _| {
        describe(&["solo", "nobody"]).with_include_authorized_operations(true)
    })?;
    pair.ask("list-groups", &versions(0, 5), |_, _| ListGroupsRequest::default())?;
    for states in [&["Empty"][..], &["empty"], &["Stable", "Dead"], &["Nonsense"], &[""]] {
        pair.ask(&format!("list-groups-states-{states:?}"), &[4, 5], |_, _| {
            ListGroupsRequest::default().with_states_filter(states.iter().map(|state| text(state)).collect())
        })?;
    }
    for types in [&["classic"][..], &["Classic"], &["consumer"], &["nonsense"]] {
        pair.ask(&format!("list-groups-types-{types:?}"), &[5], |_, _| {
            ListGroupsRequest::default().with_types_filter(types.iter().map(|kind| text(kind)).collect())
        })?;
    }
    pair.ask("delete-groups-none", &versions(0, 2), |_, _| delete(&[]))?;
    pair.ask("delete-groups-twice", &[2], |_, _| delete(&["fixed", "fixed"]))?;
    pair.ask("delete-groups", &versions(0, 2), |_, _| delete(&["solo", "nobody"]))?;
    pair.ask("describe-groups-deleted", &versions(0, 6), |_, _| describe(&["solo"]))?;
    Ok(())
}
