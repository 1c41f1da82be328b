//! Static membership (KIP-345, KIP-814).

use crate::coordinator::{testing::*, *};

/// A stable group of one static member; its id.
fn stable_static(groups: &mut Harness) -> String {
    let join = groups.join(static_join("g", "one", 1));
    groups.pass(SECOND * 3);
    let joined = groups.joined(join);
    let sync = groups.sync("g", &joined.leader, 1, &[(&joined.leader, "all")]);
    assert_eq!(groups.synced(sync), Ok("all".into()));
    joined.leader
}

#[test]
fn a_static_member_joins_in_one_step() {
    let mut groups = Harness::new();
    assert!(stable_static(&mut groups).starts_with("one-"));
}

#[test]
fn a_static_member_that_restarts_keeps_generation_and_assignment() {
    let mut groups = Harness::new();
    let before = stable_static(&mut groups);
    let again = groups.join(static_join("g", "one", 2));
    let joined = groups.joined(again);
    assert_eq!(joined.generation, Generation(1));
    assert!(joined.skip_assignment, "it leads, and finds its assignment made");
    assert_eq!(joined.members.len(), 1);
    assert_ne!(joined.leader, before);
    let sync = groups.sync("g", &joined.leader, 1, &[]);
    assert_eq!(groups.synced(sync), Ok("all".into()));
    assert_eq!(groups.state("g"), Some(GroupState::Stable));
}

#[test]
fn a_client_that_cannot_skip_the_assignment_is_told_the_leader_of_before() {
    let mut groups = Harness::new();
    let before = stable_static(&mut groups);
    let again = groups.join(JoinRequest { supports_skip_assignment: false, ..static_join("g", "one", 2) });
    let joined = groups.joined(again);
    assert_eq!(joined.leader, before);
    assert!(joined.members.is_empty() && !joined.skip_assignment);
}

#[test]
fn the_member_of_before_is_fenced() {
    let mut groups = Harness::new();
    let before = stable_static(&mut groups);
    groups.join(static_join("g", "one", 2));
    let old = MemberIdentity { member_id: before, instance_id: Some("one".to_owned()) };
    let now = groups.moment();
    let heartbeat = groups.shard.heartbeat(now, "g", &old, Some(Generation(1)));
    assert_eq!(heartbeat, Err(GroupError::FencedInstanceId));
}

#[test]
fn a_replacement_that_the_log_refuses_leaves_the_member_of_before() {
    let mut groups = Harness::new();
    let before = stable_static(&mut groups);
    groups.fails_appends = Some(AppendFailure::Unavailable);
    let again = groups.join(static_join("g", "one", 2));
    assert_eq!(groups.join_error(again), GroupError::CoordinatorNotAvailable);
    assert_eq!(groups.heartbeat("g", &before, 1), Ok(()));
}

#[test]
fn a_duplicate_is_fenced_while_it_waits_to_join() {
    let mut groups = Harness::new();
    let first = groups.join(static_join("g", "one", 1));
    let second = groups.join(static_join("g", "one", 2));
    assert_eq!(groups.join_error(first), GroupError::FencedInstanceId);
    groups.pass(SECOND * 12);
    assert_eq!(groups.joined(second).members.len(), 1);
}

#[test]
fn a_static_member_that_changes_the_chosen_protocol_starts_a_rebalance() {
    let mut groups = Harness::new();
    let both = || vec![protocol("range", &["orders"]), protocol("sticky", &["orders"])];
    let first = groups.join(JoinRequest { protocols: both(), ..static_join("g", "one", 1) });
    groups.pass(SECOND * 3);
    let leader = groups.joined(first).leader;
    groups.sync("g", &leader, 1, &[]);
    let swapped = both().into_iter().rev().collect();
    let again = groups.join(JoinRequest { protocols: swapped, ..static_join("g", "one", 2) });
    let joined = groups.joined(again);
    assert_eq!(joined.generation, Generation(2));
    assert_eq!(joined.protocol_name.as_deref(), Some("sticky"));
}

#[test]
fn a_static_member_that_returns_during_sync_starts_a_rebalance() {
    let mut groups = Harness::new();
    let join = groups.join(static_join("g", "one", 1));
    groups.pass(SECOND * 3);
    assert_eq!(groups.joined(join).generation, Generation(1));
    let again = groups.join(static_join("g", "one", 2));
    assert_eq!(groups.joined(again).generation, Generation(2));
}

#[test]
fn an_absent_static_member_stays_through_a_rebalance_until_its_session_ends() {
    let mut groups = Harness::new();
    let absent = stable_static(&mut groups);
    let (_, newcomer) = groups.join_dynamic("g");
    for _ in 0..8 {
        groups.pass(SECOND * 8);
        let _ = groups.heartbeat("g", &absent, 1);
    }
    let joined = groups.joined(newcomer);
    assert_eq!(joined.members.len(), 2, "the static member is counted on");
    groups.pass(SECOND * 11);
    assert_eq!(groups.heartbeat("g", &absent, 2), Err(GroupError::UnknownMemberId));
}

#[test]
fn an_administrator_removes_a_static_member_by_its_instance_id() {
    let mut groups = Harness::new();
    stable_static(&mut groups);
    let answer = groups.leave("g", &[instance("one"), instance("two")]);
    assert_eq!(answer, LeaveAnswer(Ok(vec![Ok(()), Err(GroupError::UnknownMemberId)])));
    assert_eq!(groups.state("g"), Some(GroupState::Empty));
}

#[test]
fn static_members_keep_their_instance_id_through_a_restart() {
    let mut groups = Harness::new();
    stable_static(&mut groups);
    let mut restarted = groups.restarted();
    let again = restarted.join(static_join("g", "one", 3));
    assert_eq!(restarted.joined(again).generation, Generation(1));
}
