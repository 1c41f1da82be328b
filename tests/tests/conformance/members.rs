//! Groups with members: who may do what in which state, and static members.

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use kafka_protocol::messages::{
    DescribeGroupsRequest, HeartbeatRequest, JoinGroupRequest, ListGroupsRequest, SyncGroupRequest,
    sync_group_request::SyncGroupRequestAssignment,
};
use serde_json::Value;
use varve_tests::differential::{Pair, Side};

use super::{
    groups::{await_coordinator, beat, commit, delete, describe, fetch, fit, forget, join, leave, sync},
    request::{text, versions},
    topics::{make, new},
};

pub(crate) fn script(pair: &mut Pair) -> Result<()> {
    await_coordinator(pair)?;
    make(pair, new("kept", 2, 1))?;
    alone(pair)?;
    together(pair)?;
    static_members(pair)?;
    other_protocols(pair)
}

/// Whoever joined in these answers is called `label` from then on.
fn keep_member(pair: &mut Pair, answers: &[Value; 2], label: &str) -> Result<()> {
    for (side, answer) in pair.sides().into_iter().zip(answers) {
        let member = answer["member_id"].as_str().filter(|id| !id.is_empty());
        let member = member.with_context(|| format!("a member id for {label} in {answer}"))?.to_owned();
        side.call(&member, label);
    }
    Ok(())
}

/// Joins without comparing, because the ids are new.
fn enter(pair: &mut Pair, label: &str, version: i16, build: impl Fn(&Side) -> JoinGroupRequest) -> Result<[Value; 2]> {
    let before = pair.differences.len();
    let answers = pair.ask("join", &[version], |v, side| fit(v, build(side)))?;
    pair.differences.truncate(before);
    keep_member(pair, &answers, label)?;
    Ok(answers)
}

fn await_state(pair: &mut Pair, name: &str, state: &str) -> Result<()> {
    pair.until::<DescribeGroupsRequest>(
        5,
        |_, _| describe(&[name]),
        |answer| answer["groups"][0]["group_state"] == state,
    )
}

fn id(side: &Side, label: &str) -> String {
    side.value(label).to_owned()
}

fn given(side: &Side, labels: &[&str]) -> Vec<SyncGroupRequestAssignment> {
    let one = |label: &&str| {
        SyncGroupRequestAssignment::default()
            .with_member_id(text(side.value(label)))
            .with_assignment(Bytes::from(format!("for {label}")))
    };
    labels.iter().map(one).collect()
}

/// From version 5 on a member says which protocol it means.
fn synced(version: i16, name: &str, generation: i32, member: &str) -> SyncGroupRequest {
    let request = sync(name, generation, member);
    match version {
        5.. => request.with_protocol_type(Some(text("consumer"))).with_protocol_name(Some(text("range"))),
        _ => request,
    }
}

/// A group of one, from before its first generation until it is empty again.
fn alone(pair: &mut Pair) -> Result<()> {
    let first = |side: &Side| id(side, "first");
    // From version 4 on the first answer is an id and an error.
    let answers = enter(pair, "first", 9, |_| join("live", "", &["range", "sticky"]))?;
    ensure!(answers.iter().all(|answer| answer["error_code"] == 79), "{answers:?}");
    await_state(pair, "live", "Empty")?;
    pair.ask("describe-groups-pending", &versions(0, 6), |_, _| describe(&["live"]))?;
    pair.ask("heartbeat-pending", &[4], |_, side| beat("live", 0, &first(side)))?;
    pair.ask("sync-pending", &[4], |_, side| sync("live", 0, &first(side)))?;
    pair.ask("commit-pending", &[8, 9], |_, side| commit("live", 0, &first(side), "kept", 0, 1, Some("")))?;
    pair.ask("join-pending-static", &[9], |_, side| {
        join("live", &first(side), &["range"]).with_group_instance_id(Some(text("one")))
    })?;
    pair.ask("join-first", &[9], |_, side| join("live", &first(side), &["range", "sticky"]))?;
    pair.ask("describe-groups-joined", &versions(0, 6), |_, _| describe(&["live"]))?;
    pair.ask("list-groups-joined", &versions(0, 5), |_, _| ListGroupsRequest::default())?;
    pair.ask("heartbeat-before-sync", &versions(0, 4), |_, side| beat("live", 1, &first(side)))?;
    for generation in [1, 0, -1] {
        pair.ask(&format!("commit-before-sync-{generation}"), &versions(2, 9), |_, side| {
            commit("live", generation, &first(side), "kept", 0, 1, Some(""))
        })?;
    }
    pair.ask("join-again-before-sync", &versions(0, 9), |v, side| {
        fit(v, join("live", &first(side), &["range", "sticky"]))
    })?;
    pair.ask("sync-wrong-type", &[5], |_, side| {
        sync("live", 1, &first(side)).with_protocol_type(Some(text("connect"))).with_protocol_name(Some(text("range")))
    })?;
    pair.ask("sync-wrong-protocol", &[5], |_, side| {
        sync("live", 1, &first(side)).with_protocol_type(Some(text("consumer"))).with_protocol_name(Some(text("other")))
    })?;
    pair.ask("sync-no-protocol", &[5], |_, side| sync("live", 1, &first(side)))?;
    pair.ask("sync-stranger-live", &versions(0, 5), |v, _| synced(v, "live", 1, "nobody"))?;
    pair.ask("sync-nameless-live", &versions(0, 5), |v, _| synced(v, "live", 1, ""))?;
    for generation in [0, 7, -1] {
        pair.ask(&format!("sync-generation-{generation}"), &versions(0, 5), |v, side| {
            synced(v, "live", generation, &first(side))
        })?;
    }
    pair.ask("sync-first", &versions(0, 5), |v, side| {
        synced(v, "live", 1, &first(side)).with_assignments(given(side, &["first"]))
    })?;
    stable(pair)
}

fn stable(pair: &mut Pair) -> Result<()> {
    let first = |side: &Side| id(side, "first");
    pair.ask("describe-groups-stable", &versions(0, 6), |_, _| describe(&["live"]))?;
    pair.ask("describe-groups-live-operations", &versions(3, 6), |_, _| {
        describe(&["live"]).with_include_authorized_operations(true)
    })?;
    for state in ["Stable", "stable", "PreparingRebalance", "Empty"] {
        pair.ask(&format!("list-groups-live-{state}"), &[4, 5], |_, _| {
            ListGroupsRequest::default().with_states_filter(vec![text(state)])
        })?;
    }
    for generation in [1, 0, 2, -1] {
        pair.ask(&format!("heartbeat-{generation}"), &versions(0, 4), |_, side| {
            beat("live", generation, &first(side))
        })?;
        pair.ask(&format!("commit-member-{generation}"), &versions(2, 9), |_, side| {
            commit("live", generation, &first(side), "kept", 0, 5, Some("note"))
        })?;
    }
    for member in ["nobody", ""] {
        pair.ask(&format!("heartbeat-as-{member}"), &versions(0, 4), |_, _| beat("live", 1, member))?;
        pair.ask(&format!("commit-as-{member}"), &versions(2, 9), |_, _| {
            commit("live", 1, member, "kept", 0, 5, Some(""))
        })?;
        pair.ask(&format!("leave-as-{member}"), &versions(0, 5), |v, _| leave(v, "live", &[(member, None)]))?;
    }
    pair.ask("commit-outside", &versions(2, 9), |_, _| commit("live", -1, "", "kept", 0, 5, Some("")))?;
    let large = "m".repeat(4_097);
    for (label, metadata) in [("largest", &large[1..]), ("too-large", &large)] {
        pair.ask(&format!("commit-{label}-metadata"), &versions(2, 9), |_, side| {
            commit("live", 1, &first(side), "kept", 1, 6, Some(metadata))
        })?;
    }
    pair.ask("commit-partly-too-large", &[2, 9], |_, side| {
        let mut request = commit("live", 1, &first(side), "kept", 0, 7, Some("small"));
        request.topics.extend(commit("live", 1, "", "kept", 1, 7, Some(&large)).topics);
        let more = request.topics.remove(1).partitions;
        request.topics[0].partitions.extend(more);
        request
    })?;
    pair.ask("offset-fetch-of-live", &versions(2, 9), |v, _| fetch(v, "live", None))?;
    pair.ask("offset-fetch-of-member", &[9], |v, side| {
        let mut request = fetch(v, "live", Some(&[("kept", &[0, 1])]));
        request.groups[0].member_id = Some(text(&first(side)));
        request.groups[0].member_epoch = 1;
        request
    })?;
    pair.ask("heartbeat-unknown-instance", &[3, 4], |_, side| {
        beat("live", 1, &first(side)).with_group_instance_id(Some(text("nobody")))
    })?;
    pair.ask("commit-unknown-instance", &[7, 9], |_, side| {
        commit("live", 1, &first(side), "kept", 0, 5, Some("")).with_group_instance_id(Some(text("nobody")))
    })?;
    pair.ask("leave-unknown-instance", &versions(3, 5), |v, _| leave(v, "live", &[("", Some("nobody"))]))?;
    pair.ask("leave-none", &versions(3, 5), |v, _| leave(v, "live", &[]))?;
    let joins = versions(0, 9);
    pair.ask("join-stable-unknown-member", &joins, |v, _| fit(v, join("live", "nobody", &["range"])))?;
    pair.ask("join-other-type", &joins, |v, _| {
        fit(v, join("live", "", &["range"]).with_protocol_type(text("connect")))
    })?;
    pair.ask("join-other-protocol", &joins, |v, _| fit(v, join("live", "", &["other"])))?;
    pair.ask("join-no-type", &joins, |v, _| fit(v, join("live", "", &["range"]).with_protocol_type(text(""))))?;
    for timeout in [5_999, 1_800_001] {
        pair.ask(&format!("join-member-session-{timeout}"), &joins, |v, side| {
            fit(v, join("live", &first(side), &["range", "sticky"]).with_session_timeout_ms(timeout))
        })?;
    }
    pair.ask("delete-groups-live", &versions(0, 2), |_, _| delete(&["live", "nobody", ""]))?;
    pair.ask("offset-delete-live", &[0], |_, _| forget("live", "kept", &[0, 1]))?;
    pair.ask("offset-delete-live-other", &[0], |_, _| forget("live", "nobody", &[0]))?;
    // The leader that joins again calls a rebalance; it is alone, so that it has the next generation at once.
    pair.ask("join-leader-again", &[5], |_, side| join("live", &first(side), &["range"]))?;
    pair.ask("heartbeat-generation-before", &[4], |_, side| beat("live", 1, &first(side)))?;
    pair.ask("sync-generation-before", &[5], |v, side| synced(v, "live", 1, &first(side)))?;
    pair.ask("sync-no-assignments", &[4], |_, side| sync("live", 2, &first(side)))?;
    pair.ask("describe-groups-no-assignments", &[0, 6], |_, _| describe(&["live"])).map(drop)
}

/// A second member comes: the first has to join again, and both wait for each other.
fn together(pair: &mut Pair) -> Result<()> {
    let (first, second) = (|side: &Side| id(side, "first"), |side: &Side| id(side, "second"));
    pair.send(1, 3, |_, _| join("live", "", &["sticky", "range"]))?;
    pair.until_error::<HeartbeatRequest>(4, |_, side| beat("live", 2, &first(side)))?;
    pair.ask("heartbeat-rebalancing", &versions(0, 4), |_, side| beat("live", 2, &first(side)))?;
    pair.ask("sync-rebalancing", &versions(0, 5), |v, side| synced(v, "live", 2, &first(side)))?;
    for generation in [2, 1, 3] {
        pair.ask(&format!("commit-rebalancing-{generation}"), &versions(2, 9), |_, side| {
            commit("live", generation, &first(side), "kept", 0, 6, Some(""))
        })?;
    }
    pair.ask("delete-groups-rebalancing", &[2], |_, _| delete(&["live"]))?;
    pair.ask("offset-delete-rebalancing", &[0], |_, _| forget("live", "kept", &[0]))?;
    pair.ask("list-groups-rebalancing", &[4], |_, _| ListGroupsRequest::default())?;
    // Ids first: an answer names all members.
    pair.send(0, 9, |_, side| join("live", &first(side), &["range"]))?;
    let before = pair.differences.len();
    let answers = pair.finish::<JoinGroupRequest>("join-second", 1, 3)?;
    pair.differences.truncate(before);
    keep_member(pair, &answers, "second")?;
    pair.finish::<JoinGroupRequest>("join-first-again", 0, 9)?;
    pair.ask("join-second-again", &versions(0, 9), |v, side| {
        fit(v, join("live", &second(side), &["sticky", "range"]))
    })?;
    pair.send(1, 5, |v, side| synced(v, "live", 3, &second(side)))?;
    pair.ask("describe-groups-two-joined", &versions(0, 6), |_, _| describe(&["live"]))?;
    pair.ask("heartbeat-second", &[4], |_, side| beat("live", 3, &second(side)))?;
    pair.ask("commit-second", &[9], |_, side| commit("live", 3, &second(side), "kept", 0, 8, Some("")))?;
    pair.ask("sync-leader", &[5], |v, side| {
        synced(v, "live", 3, &first(side)).with_assignments(given(side, &["first", "second"]))
    })?;
    pair.finish::<SyncGroupRequest>("sync-follower", 1, 5)?;
    pair.ask("sync-follower-again", &versions(0, 5), |v, side| synced(v, "live", 3, &second(side)))?;
    pair.ask("join-follower-unchanged", &versions(0, 9), |v, side| {
        fit(v, join("live", &second(side), &["sticky", "range"]))
    })?;
    pair.ask("describe-groups-two", &versions(0, 6), |_, _| describe(&["live"]))?;
    pair.ask("commit-second-stable", &[9], |_, side| commit("live", 3, &second(side), "kept", 0, 8, Some("")))?;
    pair.ask("leave-twice", &[5], |v, side| {
        leave(v, "live", &[(&second(side), None), (&second(side), None), ("nobody", None)])
    })?;
    pair.ask("heartbeat-left", &[4], |_, side| beat("live", 3, &second(side)))?;
    pair.ask("heartbeat-left-behind", &[4], |_, side| beat("live", 3, &first(side)))?;
    pair.ask("leave-last", &[2], |v, side| leave(v, "live", &[(&first(side), None)]))?;
    await_state(pair, "live", "Empty")?;
    pair.ask("describe-groups-empty", &versions(0, 6), |_, _| describe(&["live"]))?;
    pair.ask("list-groups-left", &[5], |_, _| ListGroupsRequest::default())?;
    pair.ask("heartbeat-empty", &[4], |_, side| beat("live", 4, &first(side)))?;
    pair.ask("sync-empty", &[5], |v, side| synced(v, "live", 4, &first(side)))?;
    pair.ask("commit-empty", &versions(2, 9), |_, _| commit("live", -1, "", "kept", 0, 9, Some("")))?;
    pair.ask("commit-empty-generation", &versions(2, 9), |_, side| {
        commit("live", 4, &first(side), "kept", 0, 9, Some(""))
    })?;
    pair.ask("join-empty-unknown-member", &versions(0, 9), |v, _| fit(v, join("live", "nobody", &["range"])))?;
    pair.ask("offset-delete-empty", &[0], |_, _| forget("live", "kept", &[0]))?;
    pair.ask("delete-groups-empty", &[2], |_, _| delete(&["live"])).map(drop)
}

fn static_members(pair: &mut Pair) -> Result<()> {
    let of =
        |member: &str, instance: &str| join("fixed", member, &["range"]).with_group_instance_id(Some(text(instance)));
    let (old, new) = (|side: &Side| id(side, "old"), |side: &Side| id(side, "new"));
    let one = || Some(text("one"));
    enter(pair, "old", 9, |_| of("", "one"))?;
    pair.ask("static-describe-joined", &versions(0, 6), |_, _| describe(&["fixed"]))?;
    pair.ask("static-heartbeat-before-sync", &[3, 4], |_, side| {
        beat("fixed", 1, &old(side)).with_group_instance_id(one())
    })?;
    pair.ask("static-sync", &[3, 5], |v, side| {
        synced(v, "fixed", 1, &old(side)).with_group_instance_id(one()).with_assignments(given(side, &["old"]))
    })?;
    pair.ask("static-heartbeat-without-instance", &[0, 4], |_, side| beat("fixed", 1, &old(side)))?;
    pair.ask("static-heartbeat-other-instance", &[3, 4], |_, side| {
        beat("fixed", 1, &old(side)).with_group_instance_id(Some(text("two")))
    })?;
    // Its place is taken over, without a rebalance.
    let answers = enter(pair, "new", 9, |_| of("", "one"))?;
    ensure!(answers.iter().all(|answer| answer["error_code"] == 0 && answer["generation_id"] == 1), "{answers:?}");
    let [kafka, varve] = &answers;
    let skips = [kafka, varve].map(|answer| answer["skip_assignment"].clone());
    ensure!(skips[0] == skips[1], "{answers:?}");
    pair.ask("static-heartbeat-fenced", &[3, 4], |_, side| beat("fixed", 1, &old(side)).with_group_instance_id(one()))?;
    pair.ask("static-sync-fenced", &[3, 5], |v, side| synced(v, "fixed", 1, &old(side)).with_group_instance_id(one()))?;
    pair.ask("static-join-fenced", &versions(5, 9), |_, side| of(&old(side), "one"))?;
    pair.ask("static-commit-fenced", &versions(7, 9), |_, side| {
        commit("fixed", 1, &old(side), "kept", 0, 1, Some("")).with_group_instance_id(one())
    })?;
    pair.ask("static-leave-fenced", &versions(3, 5), |v, side| leave(v, "fixed", &[(&old(side), Some("one"))]))?;
    pair.ask("static-heartbeat-old-alone", &[4], |_, side| beat("fixed", 1, &old(side)))?;
    pair.ask("static-describe", &versions(0, 6), |_, _| describe(&["fixed"]))?;
    pair.ask("static-heartbeat", &[3, 4], |_, side| beat("fixed", 1, &new(side)).with_group_instance_id(one()))?;
    pair.ask("static-sync-new", &[3, 5], |v, side| synced(v, "fixed", 1, &new(side)).with_group_instance_id(one()))?;
    pair.ask("static-commit", &versions(7, 9), |_, side| {
        commit("fixed", 1, &new(side), "kept", 0, 1, Some("")).with_group_instance_id(one())
    })?;
    pair.ask("static-join-unknown-id", &versions(5, 9), |_, _| of("nobody", "one"))?;
    pair.ask("static-join-unknown-instance", &versions(5, 9), |_, side| of(&new(side), "two"))?;
    pair.ask("static-join-other-protocol", &versions(5, 9), |_, _| {
        join("fixed", "", &["other"]).with_group_instance_id(Some(text("one")))
    })?;
    pair.ask("static-leave-unknown-instance", &versions(3, 5), |v, _| leave(v, "fixed", &[("", Some("two"))]))?;
    pair.ask("static-leave", &[5], |v, _| leave(v, "fixed", &[("", Some("one")), ("", Some("two"))]))?;
    pair.ask("static-leave-again", &[3, 5], |v, _| leave(v, "fixed", &[("", Some("one"))]))?;
    await_state(pair, "fixed", "Empty")?;
    pair.ask("static-describe-empty", &[0, 6], |_, _| describe(&["fixed"]))?;
    pair.ask("static-delete", &[2], |_, _| delete(&["fixed", "fixed"])).map(drop)
}

/// A group whose members are no consumers.
fn other_protocols(pair: &mut Pair) -> Result<()> {
    let worker = |member: &str| join("workers", member, &["range"]).with_protocol_type(text("connect"));
    enter(pair, "worker", 3, |_| worker(""))?;
    pair.ask("worker-sync", &[3], |_, side| {
        sync("workers", 1, side.value("worker")).with_assignments(given(side, &["worker"]))
    })?;
    pair.ask("worker-sync-type", &[5], |v, side| synced(v, "workers", 1, side.value("worker")))?;
    pair.ask("worker-describe", &versions(0, 6), |_, _| describe(&["workers"]))?;
    pair.ask("worker-offset-delete", &[0], |_, _| forget("workers", "kept", &[0]))?;
    pair.ask("list-groups-workers", &[5], |_, _| ListGroupsRequest::default())?;
    pair.ask("worker-join-as-consumer", &[3, 9], |v, side| fit(v, join("workers", side.value("worker"), &["range"])))?;
    pair.ask("worker-leave", &[0], |v, side| leave(v, "workers", &[(side.value("worker"), None)]))?;
    await_state(pair, "workers", "Empty")?;
    pair.ask("worker-describe-empty", &[6], |_, _| describe(&["workers"]))?;
    pair.ask("join-consumer-after-workers", &[9], |_, _| join("workers", "nobody", &["range"]))?;
    pair.ask("worker-delete", &[2], |_, _| delete(&["workers"])).map(drop)
}
