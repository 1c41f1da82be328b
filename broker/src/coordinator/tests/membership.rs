//! Dynamic members: join, sync, heartbeat, leave, time-outs.

use std::time::Duration;

use crate::coordinator::{testing::*, *};

#[test]
fn a_first_join_is_sent_back_with_a_member_id() {
    let mut groups = Harness::new();
    let first = groups.join(join_request("g"));
    let Some(Answer::Join(answer)) = groups.answers.get(&first) else { panic!("answered at once") };
    assert_eq!(answer.outcome, Err(GroupError::MemberIdRequired));
    assert!(answer.member_id.starts_with("client-"));
}

#[test]
fn an_old_client_joins_in_one_step() {
    let mut groups = Harness::new();
    let join = groups.join(JoinRequest { requires_known_member_id: false, ..join_request("g") });
    groups.pass(SECOND * 3);
    assert_eq!(groups.joined(join).generation, Generation(1));
}

#[test]
fn the_first_rebalance_waits_for_more_members_but_not_for_ever() {
    let mut groups = Harness::new();
    let (_, first) = groups.join_dynamic("g");
    groups.pass(SECOND * 2);
    let (_, second) = groups.join_dynamic("g");
    groups.pass(SECOND * 2);
    assert!(groups.is_waiting(first), "the second member extends the delay");
    groups.pass(SECOND * 2);
    assert_eq!(groups.joined(first).generation, Generation(1));
    assert_eq!(groups.joined(second).generation, Generation(1));
}

#[test]
fn the_initial_delay_never_exceeds_the_rebalance_timeout() {
    let mut groups = Harness::new();
    let request = JoinRequest {
        requires_known_member_id: false,
        rebalance_timeout: SECOND * 5,
        fresh_id: uuid::Uuid::from_u128(1),
        ..join_request("g")
    };
    let first = groups.join(request.clone());
    groups.pass(SECOND * 2);
    groups.join(JoinRequest { fresh_id: uuid::Uuid::from_u128(2), ..request.clone() });
    groups.pass(SECOND * 2);
    groups.join(JoinRequest { fresh_id: uuid::Uuid::from_u128(3), ..request });
    groups.pass(SECOND);
    assert_eq!(groups.joined(first).generation, Generation(1));
}

#[test]
fn the_leader_learns_all_members_and_followers_none() {
    let mut groups = Harness::new();
    let joins = [groups.join_dynamic("g"), groups.join_dynamic("g")];
    groups.pass(SECOND * 12);
    for (member, request) in joins {
        let joined = groups.joined(request);
        assert_eq!(joined.members.len(), if joined.leader == member { 2 } else { 0 });
        assert_eq!(joined.protocol_name.as_deref(), Some("range"));
    }
}

#[test]
fn followers_wait_for_the_leaders_assignment() {
    let mut groups = Harness::new();
    let joins = [groups.join_dynamic("g"), groups.join_dynamic("g")];
    groups.pass(SECOND * 12);
    let leader = groups.joined(joins[0].1).leader;
    let follower = joins.iter().map(|(member, _)| member).find(|member| **member != leader).unwrap();
    let waiting = groups.sync("g", follower, 1, &[]);
    assert!(groups.is_waiting(waiting));
    let own = groups.sync("g", &leader, 1, &[(&leader, "a"), (follower, "b")]);
    assert_eq!(groups.synced(own), Ok("a".into()));
    assert_eq!(groups.synced(waiting), Ok("b".into()));
    assert_eq!(groups.state("g"), Some(GroupState::Stable));
}

#[test]
fn assignments_are_answered_only_after_the_log_has_them() {
    let mut groups = Harness::new();
    let (leader, join) = groups.join_dynamic("g");
    groups.pass(SECOND * 3);
    groups.joined(join);
    groups.holds_appends = true;
    let sync = groups.sync("g", &leader, 1, &[(&leader, "all")]);
    assert!(groups.is_waiting(sync));
    groups.release_one(None);
    assert_eq!(groups.synced(sync), Ok("all".into()));
}

#[test]
fn an_assignment_that_the_log_refuses_starts_another_rebalance() {
    let mut groups = Harness::new();
    let (leader, join) = groups.join_dynamic("g");
    groups.pass(SECOND * 3);
    groups.joined(join);
    groups.fails_appends = Some(AppendFailure::Unavailable);
    let sync = groups.sync("g", &leader, 1, &[(&leader, "all")]);
    assert_eq!(groups.synced(sync), Err(GroupError::CoordinatorNotAvailable));
    assert_eq!(groups.state("g"), Some(GroupState::PreparingRebalance));
}

#[test]
fn a_new_member_calls_the_others_to_rejoin() {
    let mut groups = Harness::new();
    let members = groups.stable_group("g", 1);
    let (_, newcomer) = groups.join_dynamic("g");
    assert_eq!(groups.heartbeat("g", &members[0], 1), Err(GroupError::RebalanceInProgress));
    let again = groups.rejoin("g", &members[0]);
    assert_eq!(groups.joined(again).generation, Generation(2));
    assert_eq!(groups.joined(newcomer).generation, Generation(2));
}

#[test]
fn members_that_do_not_rejoin_in_time_are_left_out() {
    let mut groups = Harness::new();
    let members = groups.stable_group("g", 2);
    let (_, newcomer) = groups.join_dynamic("g");
    for _ in 0..7 {
        groups.pass(SECOND * 8);
        for member in &members {
            assert_eq!(groups.heartbeat("g", member, 1), Err(GroupError::RebalanceInProgress));
        }
    }
    groups.pass(SECOND * 4);
    assert_eq!(groups.joined(newcomer).members.len(), 1);
    assert_eq!(groups.heartbeat("g", &members[0], 1), Err(GroupError::UnknownMemberId));
}

#[test]
fn a_silent_member_is_removed_when_its_session_ends() {
    let mut groups = Harness::new();
    let members = groups.stable_group("g", 2);
    groups.pass(SECOND * 9);
    assert_eq!(groups.heartbeat("g", &members[0], 1), Ok(()));
    groups.pass(SECOND * 2);
    assert_eq!(groups.heartbeat("g", &members[0], 1), Err(GroupError::RebalanceInProgress));
    assert_eq!(groups.heartbeat("g", &members[1], 1), Err(GroupError::UnknownMemberId));
}

#[test]
fn members_that_wait_for_others_do_not_lose_their_session() {
    let mut groups = Harness::new();
    let members = groups.stable_group("g", 2);
    let waiting = groups.rejoin("g", &members[0]);
    for _ in 0..5 {
        groups.pass(SECOND * 8);
        let _ = groups.heartbeat("g", &members[1], 1);
    }
    assert!(groups.is_waiting(waiting));
    groups.rejoin("g", &members[1]);
    assert_eq!(groups.joined(waiting).generation, Generation(2));
}

#[test]
fn a_new_members_join_is_cut_off_when_the_rebalance_takes_too_long() {
    let mut groups = Harness::new();
    let request = JoinRequest { rebalance_timeout: SECOND * 600, ..join_request("g") };
    let slow = groups.join(JoinRequest { requires_known_member_id: false, ..request });
    groups.pass(SECOND * 12);
    let joined = groups.joined(slow);
    groups.sync("g", &joined.leader, 1, &[]);
    let (_, newcomer) = groups.join_dynamic("g");
    for _ in 0..38 {
        groups.pass(SECOND * 8);
        let _ = groups.heartbeat("g", &joined.leader, 1);
    }
    assert_eq!(groups.join_error(newcomer), GroupError::UnknownMemberId);
}

#[test]
fn an_unused_member_id_is_forgotten_after_a_session() {
    let mut groups = Harness::new();
    let first = groups.join(join_request("g"));
    let Some(Answer::Join(JoinAnswer { member_id, .. })) = groups.answers.remove(&first) else { panic!() };
    groups.pass(SECOND * 11);
    let late = groups.rejoin("g", &member_id);
    assert_eq!(groups.join_error(late), GroupError::UnknownMemberId);
}

#[test]
fn members_that_never_ask_for_their_assignment_are_removed() {
    let mut groups = Harness::new();
    let joins = [groups.join_dynamic("g"), groups.join_dynamic("g")];
    groups.pass(SECOND * 12);
    let leader = groups.joined(joins[0].1).leader;
    let silent = joins.iter().map(|(member, _)| member).find(|member| **member != leader).unwrap();
    let own = groups.sync("g", &leader, 1, &[]);
    assert_eq!(groups.synced(own), Ok("".into()));
    for _ in 0..9 {
        groups.pass(SECOND * 7);
        let _ = groups.heartbeat("g", &leader, 1);
        let _ = groups.heartbeat("g", silent, 1);
    }
    assert_eq!(groups.heartbeat("g", silent, 1), Err(GroupError::UnknownMemberId));
    assert_eq!(groups.state("g"), Some(GroupState::PreparingRebalance));
}

#[test]
fn a_join_during_sync_sends_waiting_members_back_to_join() {
    let mut groups = Harness::new();
    let joins = [groups.join_dynamic("g"), groups.join_dynamic("g")];
    groups.pass(SECOND * 12);
    let leader = groups.joined(joins[0].1).leader;
    let follower = joins.iter().map(|(member, _)| member).find(|member| **member != leader).unwrap();
    let waiting = groups.sync("g", follower, 1, &[]);
    groups.join_dynamic("g");
    assert_eq!(groups.synced(waiting), Err(GroupError::RebalanceInProgress));
}

#[test]
fn a_follower_that_joins_unchanged_finds_its_generation() {
    let mut groups = Harness::new();
    let members = groups.stable_group("g", 2);
    let again = groups.rejoin("g", &members[1]);
    assert_eq!(groups.joined(again).generation, Generation(1));
    assert_eq!(groups.state("g"), Some(GroupState::Stable));
}

#[test]
fn a_leader_that_joins_unchanged_starts_a_rebalance() {
    let mut groups = Harness::new();
    let members = groups.stable_group("g", 2);
    let again = groups.rejoin("g", &members[0]);
    assert!(groups.is_waiting(again));
    assert_eq!(groups.heartbeat("g", &members[1], 1), Err(GroupError::RebalanceInProgress));
}

#[test]
fn the_protocol_that_most_prefer_among_those_all_support_wins() {
    let mut groups = Harness::new();
    let with = |names: &[&str], fresh: u128| JoinRequest {
        requires_known_member_id: false,
        protocols: names.iter().map(|name| protocol(name, &["orders"])).collect(),
        fresh_id: uuid::Uuid::from_u128(fresh),
        ..join_request("g")
    };
    let first = groups.join(with(&["only-mine", "range", "sticky"], 1));
    groups.join(with(&["sticky", "range"], 2));
    groups.join(with(&["range", "sticky"], 3));
    groups.pass(SECOND * 12);
    assert_eq!(groups.joined(first).protocol_name.as_deref(), Some("range"));
}

#[test]
fn members_without_a_common_protocol_are_refused() {
    let mut groups = Harness::new();
    groups.stable_group("g", 1);
    let other = groups.join(JoinRequest { protocols: vec![protocol("mine", &[])], ..join_request("g") });
    assert_eq!(groups.join_error(other), GroupError::InconsistentProtocol);
    let other_type = groups.join(JoinRequest { protocol_type: "connect".to_owned(), ..join_request("g") });
    assert_eq!(groups.join_error(other_type), GroupError::InconsistentProtocol);
}

#[test]
fn a_group_without_protocols_is_not_made() {
    let mut groups = Harness::new();
    let join = groups.join(JoinRequest { protocols: Vec::new(), ..join_request("g") });
    assert_eq!(groups.join_error(join), GroupError::InconsistentProtocol);
    assert_eq!(groups.state("g"), None);
}

#[test]
fn session_timeouts_out_of_bounds_are_refused() {
    let mut groups = Harness::new();
    for seconds in [5, 1801] {
        let join = groups.join(JoinRequest { session_timeout: SECOND * seconds, ..join_request("g") });
        assert_eq!(groups.join_error(join), GroupError::InvalidSessionTimeout);
    }
}

#[test]
fn a_member_of_an_unknown_group_is_unknown() {
    let mut groups = Harness::new();
    let join = groups.rejoin("g", "client-1");
    assert_eq!(groups.join_error(join), GroupError::UnknownMemberId);
    assert_eq!(groups.heartbeat("g", "client-1", 0), Err(GroupError::UnknownMemberId));
}

#[test]
fn a_full_group_takes_no_more_members() {
    let mut groups = Harness::with(GroupConfig { max_size: 2, ..GroupConfig::default() });
    groups.stable_group("g", 2);
    let third = groups.join(join_request("g"));
    assert_eq!(groups.join_error(third), GroupError::MaxSizeReached);
}

#[test]
fn leaving_members_free_their_place_and_the_rest_rebalance() {
    let mut groups = Harness::new();
    let members = groups.stable_group("g", 2);
    let answer = groups.leave("g", &[identity(&members[1]), identity("stranger")]);
    assert_eq!(answer, LeaveAnswer(Ok(vec![Ok(()), Err(GroupError::UnknownMemberId)])));
    assert_eq!(groups.heartbeat("g", &members[0], 1), Err(GroupError::RebalanceInProgress));
}

#[test]
fn the_last_member_to_leave_leaves_an_empty_group() {
    let mut groups = Harness::new();
    let members = groups.stable_group("g", 1);
    groups.leave("g", &[identity(&members[0])]);
    assert_eq!(groups.state("g"), Some(GroupState::Empty));
    assert_eq!(groups.restarted().state("g"), Some(GroupState::Empty));
}

#[test]
fn a_member_that_leaves_while_it_waits_is_answered() {
    let mut groups = Harness::new();
    let (member, join) = groups.join_dynamic("g");
    groups.leave("g", &[identity(&member)]);
    assert_eq!(groups.join_error(join), GroupError::UnknownMemberId);
}

#[test]
fn a_join_repeated_on_another_connection_answers_the_older_one() {
    let mut groups = Harness::new();
    let (member, older) = groups.join_dynamic("g");
    let newer = groups.rejoin("g", &member);
    assert_eq!(groups.join_error(older), GroupError::RebalanceInProgress);
    groups.pass(SECOND * 3);
    assert_eq!(groups.joined(newer).generation, Generation(1));
}

#[test]
fn requests_of_an_earlier_generation_are_refused() {
    let mut groups = Harness::new();
    let members = groups.stable_group("g", 1);
    assert_eq!(groups.heartbeat("g", &members[0], 0), Err(GroupError::IllegalGeneration));
    let sync = groups.sync("g", &members[0], 0, &[]);
    assert_eq!(groups.synced(sync), Err(GroupError::IllegalGeneration));
}

#[test]
fn a_restarted_coordinator_keeps_generation_members_and_assignments() {
    let mut groups = Harness::new();
    let members = groups.stable_group("g", 2);
    let mut restarted = groups.restarted();
    assert_eq!(restarted.heartbeat("g", &members[0], 1), Ok(()));
    let sync = restarted.sync("g", &members[1], 1, &[]);
    assert_eq!(restarted.synced(sync), Ok("part-1".into()));
    restarted.pass(SECOND * 11);
    assert_eq!(restarted.heartbeat("g", &members[0], 1), Err(GroupError::UnknownMemberId));
}

#[test]
fn a_group_loaded_above_its_limit_rebalances_down_to_it() {
    let mut groups = Harness::new();
    let members = groups.stable_group("g", 3);
    groups.shard.config = GroupConfig { max_size: 2, ..GroupConfig::default() }.into();
    let mut restarted = groups.restarted();
    let joins: Vec<RequestId> = members.iter().map(|member| restarted.rejoin("g", member)).collect();
    assert_eq!(restarted.join_error(joins[2]), GroupError::MaxSizeReached);
    assert_eq!(restarted.joined(joins[0]).generation, Generation(2));
}

#[test]
fn groups_are_listed_by_state_and_type_in_any_case() {
    let mut groups = Harness::new();
    groups.stable_group("busy", 1);
    groups.commit(simple_commit("simple", "orders", 1));
    let ids = |states: &[&str], types: &[&str]| -> Vec<String> {
        let own = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let filter = GroupFilter { states: own(states), types: own(types) };
        groups.shard.list(&filter).into_iter().map(|group| group.group_id).collect()
    };
    assert_eq!(ids(&[], &[]), ["busy", "simple"]);
    assert_eq!(ids(&["stable"], &["Classic"]), ["busy"]);
    assert_eq!(ids(&["EMPTY", "Dead"], &[]), ["simple"]);
    assert!(ids(&[], &["consumer"]).is_empty());
}

#[test]
fn a_first_record_that_the_log_refuses_turns_waiting_members_away() {
    let mut groups = Harness::new();
    groups.fails_appends = Some(AppendFailure::NotLeader);
    let join = groups.join(JoinRequest { requires_known_member_id: false, ..join_request("g") });
    assert_eq!(groups.join_error(join), GroupError::NotCoordinator);
    assert_eq!(groups.state("g"), None);
}

#[test]
fn nothing_is_due_in_a_shard_without_groups_but_the_expiry() {
    let groups = Harness::new();
    assert_eq!(groups.shard.next_deadline(), Some(Duration::from_secs(600)));
}
