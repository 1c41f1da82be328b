//! Coming, going, being fenced.

use super::*;
use crate::coordinator::{AppendFailure, GroupError};

#[test]
fn the_first_member_is_told_everything_there_is() {
    let mut groups = cluster_of(3);
    let answer = groups.beat(first("a")).unwrap();
    assert_eq!((answer.epoch.0, answer.assignment), (2, Some(orders(&[0, 1, 2]))));
    assert_eq!(answer.heartbeat_interval, SECOND * 5);
    let described = groups.described();
    assert_eq!((described.state, described.epoch, described.assignment_epoch), (ConsumerGroupState::Stable, 2, 2));
    assert_eq!(described.assignor, "uniform");
    // A heartbeat without news is neither written nor answered with an assignment.
    let written = groups.log.len();
    assert_eq!(groups.told(next("a", 2)), (2, None));
    assert_eq!(groups.log.len(), written);
}

#[test]
fn a_restart_finds_the_group_as_it_was() {
    let mut groups = cluster_of(4);
    groups.told(first("a"));
    groups.told(ConsumerHeartbeat { instance_id: Some("i".to_owned()), rack_id: Some("r".to_owned()), ..first("b") });
    let restarted = groups.restarted();
    assert_eq!(restarted.described(), groups.described());
}

#[test]
fn requests_that_contradict_themselves_are_refused() {
    let mut groups = cluster_of(1);
    let invalid: [(ConsumerHeartbeat, &str); 8] = [
        (ConsumerHeartbeat { group_id: " ".to_owned(), ..first("a") }, "GroupId can't be empty."),
        (first(""), "MemberId can't be empty."),
        (ConsumerHeartbeat { instance_id: Some(String::new()), ..first("a") }, "InstanceId can't be empty."),
        (ConsumerHeartbeat { rack_id: Some(" ".to_owned()), ..first("a") }, "RackId can't be empty."),
        (
            ConsumerHeartbeat { rebalance_timeout_ms: None, ..first("a") },
            "RebalanceTimeoutMs must be provided in first request.",
        ),
        (ConsumerHeartbeat { owned: None, ..first("a") }, "TopicPartitions must be empty when (re-)joining."),
        (
            ConsumerHeartbeat { topics: None, ..first("a") },
            "Either SubscribedTopicNames or SubscribedTopicRegex must be non-null when (re-)joining.",
        ),
        (next("a", -3), "MemberEpoch is invalid."),
    ];
    for (request, message) in invalid {
        assert_eq!(groups.beat(request).unwrap_err().to_string(), message);
    }
    let asked = ConsumerHeartbeat { assignor: Some("best".to_owned()), ..first("a") };
    let error = groups.beat(asked).unwrap_err();
    assert_eq!(error.to_string(), "ServerAssignor best is not supported. Supported assignors: uniform, range.");
    assert_eq!(
        groups.beat(next("a", 1)).unwrap_err(),
        ModernGroupError::NotMade(GroupType::Consumer, GROUP.to_owned())
    );
    assert_eq!(groups.beat(leaving("a")).unwrap_err(), ModernGroupError::NoGroup(GROUP.to_owned()));
}

#[test]
fn members_of_version_0_are_given_an_id() {
    let mut groups = cluster_of(1);
    let request = ConsumerHeartbeat { requires_member_id: false, fresh_id: Uuid::from_u128(7), ..first("") };
    assert_eq!(groups.beat(request).unwrap().member_id, Uuid::from_u128(7).to_string());
}

#[test]
fn a_member_of_another_epoch_is_fenced_unless_it_missed_an_answer() {
    let mut groups = cluster_of(2);
    groups.told(first("a"));
    groups.told(first("b"));
    assert_eq!(groups.told(owning("a", 2, &[0, 1])), (2, Some(orders(&[0]))));
    assert_eq!(groups.told(owning("a", 2, &[0])).0, 3);
    // It did not hear of epoch 3, and has no more than it may.
    assert_eq!(groups.told(owning("a", 2, &[0])).0, 3);
    assert!(matches!(
        groups.beat(owning("a", 2, &[0, 1])),
        Err(ModernGroupError::EpochBehind { kind: GroupType::Consumer, received: 2, known: 3 })
    ));
    assert!(matches!(groups.beat(next("a", 2)), Err(ModernGroupError::EpochBehind { .. })));
    assert!(matches!(
        groups.beat(next("a", 9)),
        Err(ModernGroupError::EpochAhead { kind: GroupType::Consumer, received: 9, known: 3 })
    ));
    assert!(matches!(groups.beat(next("x", 3)), Err(ModernGroupError::UnknownMember { .. })));
    // Whoever was fenced starts over.
    assert_eq!(groups.told(first("a")).0, 3);
}

#[test]
fn a_member_that_is_silent_leaves_its_partitions_to_the_others() {
    let mut groups = cluster_of(2);
    groups.told(first("a"));
    groups.told(first("b"));
    groups.settle_members(&["a", "b"]);
    groups.pass(SECOND * 30);
    let epoch = groups.described().epoch;
    groups.told(next("b", epoch));
    groups.pass(SECOND * 20);
    let described = groups.described();
    assert_eq!(described.members.len(), 1, "the session of a ran out");
    assert_eq!(groups.told(next("b", epoch)), (epoch + 1, Some(orders(&[0, 1]))));
    assert!(matches!(groups.beat(next("a", epoch)), Err(ModernGroupError::UnknownMember { .. })));
}

#[test]
fn sessions_start_over_after_a_restart() {
    let mut groups = cluster_of(1);
    groups.told(first("a"));
    let mut restarted = groups.restarted();
    restarted.pass(SECOND * 44);
    assert_eq!(restarted.described().members.len(), 1);
    restarted.pass(SECOND * 2);
    assert_eq!(restarted.group_state(), ConsumerGroupState::Empty);
}

#[test]
fn who_leaves_is_told_so_and_is_gone() {
    let mut groups = cluster_of(2);
    groups.told(first("a"));
    groups.told(first("b"));
    let answer = groups.beat(leaving("a")).unwrap();
    assert_eq!((answer.epoch, answer.assignment), (MemberEpoch::LEAVING, None));
    assert_eq!(groups.described().members.len(), 1);
    assert_eq!(groups.restarted().described(), groups.described());
}

#[test]
fn a_static_member_that_leaves_for_a_while_finds_its_partitions_again() {
    let mut groups = cluster_of(4);
    let as_static =
        |member: &str, instance: &str| ConsumerHeartbeat { instance_id: Some(instance.to_owned()), ..first(member) };
    groups.told(as_static("a", "one"));
    groups.told(as_static("b", "two"));
    let again = |request: ConsumerHeartbeat, instance: &str| ConsumerHeartbeat {
        instance_id: Some(instance.to_owned()),
        ..request
    };
    groups.told(again(owning("a", 2, &[0, 1, 2, 3]), "one"));
    groups.told(again(owning("a", 2, &[0, 1]), "one"));
    assert_eq!(groups.told(again(next("b", 3), "two")), (3, Some(orders(&[2, 3]))));
    // Nobody takes the instance over while its holder is there.
    assert!(matches!(groups.beat(as_static("c", "two")), Err(ModernGroupError::UnreleasedInstance { .. })));
    let away = again(next("b", MemberEpoch::LEAVING_FOR_A_WHILE.0), "two");
    assert_eq!(groups.beat(away).unwrap().epoch, MemberEpoch::LEAVING_FOR_A_WHILE);
    let epoch = groups.described().epoch;
    assert_eq!(groups.told(as_static("c", "two")), (epoch, Some(orders(&[2, 3]))));
    assert_eq!(groups.described().epoch, epoch, "nobody else was disturbed");
    let fenced = groups.beat(again(next("b", 3), "two")).unwrap_err();
    assert_eq!(fenced.kind(), GroupError::FencedInstanceId);
    assert!(matches!(groups.beat(again(next("x", 3), "nobody")), Err(ModernGroupError::UnknownInstance(_))));
    assert_eq!(groups.restarted().described(), groups.described());
}

#[test]
fn a_static_member_that_does_not_come_back_is_removed_with_its_session() {
    let mut groups = cluster_of(1);
    let request = ConsumerHeartbeat { instance_id: Some("i".to_owned()), ..first("a") };
    groups.told(request.clone());
    let away = ConsumerHeartbeat { epoch: MemberEpoch::LEAVING_FOR_A_WHILE, owned: None, ..request };
    groups.beat(away).unwrap();
    groups.pass(SECOND * 44);
    assert_eq!(groups.described().members.len(), 1);
    groups.pass(SECOND * 2);
    assert_eq!(groups.described().members, []);
}

#[test]
fn a_full_group_takes_nobody_new() {
    let mut groups = harness(GroupConfig { consumer_max_size: 1, ..GroupConfig::default() }, 1);
    groups.told(first("a"));
    assert_eq!(groups.beat(first("b")).unwrap_err(), ModernGroupError::Full(GroupType::Consumer, 1));
    groups.told(first("a"));
}

#[test]
fn what_the_log_refuses_never_happened() {
    let mut groups = cluster_of(2);
    groups.told(first("a"));
    let before = groups.described();
    groups.fails_appends = Some(AppendFailure::Unavailable);
    assert_eq!(groups.beat(first("b")).unwrap_err(), ModernGroupError::Group(GroupError::CoordinatorNotAvailable));
    assert_eq!(groups.described(), before);
    groups.fails_appends = None;
    assert_eq!(groups.told(first("b")).0, 3);
}

#[test]
fn a_member_whose_removal_the_log_refused_is_removed_a_little_later() {
    let mut groups = cluster_of(1);
    groups.told(first("a"));
    groups.fails_appends = Some(AppendFailure::Unavailable);
    groups.pass(SECOND * 50);
    assert_eq!(groups.described().members.len(), 1);
    groups.fails_appends = None;
    groups.pass(SECOND);
    assert_eq!(groups.described().members, []);
}

#[test]
fn requests_wait_for_the_appends_of_their_group_in_order() {
    let mut groups = cluster_of(2);
    groups.holds_appends = true;
    let one = groups.heartbeat_consumer(first("a"));
    let two = groups.heartbeat_consumer(first("b"));
    assert_eq!(groups.held.len(), 1, "the second is not even planned before the first is kept");
    assert!(groups.is_waiting(one) && groups.is_waiting(two));
    groups.release_one(None);
    assert_eq!(groups.heard(one).unwrap().epoch.0, 2);
    groups.release_one(Some(AppendFailure::NotLeader));
    assert_eq!(groups.heard(two).unwrap_err().kind(), GroupError::NotCoordinator);
    assert_eq!(groups.described().members.len(), 1);
}

#[test]
fn an_empty_group_is_deleted_with_its_offsets_and_one_with_members_is_not() {
    let mut groups = cluster_of(1);
    groups.told(first("a"));
    let busy = groups.delete_group(GROUP);
    assert_eq!(groups.answers.remove(&busy), Some(deleted(Err(GroupError::NonEmptyGroup))));
    groups.told(leaving("a"));
    let commit = groups.commit(simple_commit(GROUP, "orders", 5));
    groups.committed(commit).unwrap();
    let done = groups.delete_group(GROUP);
    assert_eq!(groups.answers.remove(&done), Some(deleted(Ok(()))));
    assert_eq!(groups.shard.describe_consumer(GROUP), Err(ModernGroupError::NoGroup(GROUP.to_owned())));
    assert_eq!(groups.restarted().shard.list(&Default::default()), []);
}

fn deleted(outcome: Result<(), GroupError>) -> crate::coordinator::Answer {
    crate::coordinator::Answer::DeleteGroup(outcome)
}

#[test]
fn groups_are_listed_by_state_and_type() {
    let mut groups = cluster_of(1);
    groups.told(first("a"));
    let filter = |states: &[&str], types: &[&str]| crate::coordinator::GroupFilter {
        states: states.iter().map(|state| (*state).to_owned()).collect(),
        types: types.iter().map(|group_type| (*group_type).to_owned()).collect(),
    };
    let listed = groups.shard.list(&filter(&["stable"], &["Consumer"]));
    assert_eq!(
        (listed[0].group_id.as_str(), listed[0].state, listed[0].protocol_type.as_str()),
        (GROUP, "Stable", "consumer")
    );
    assert_eq!(groups.shard.list(&filter(&[], &["classic"])), []);
    assert_eq!(groups.shard.list(&filter(&["empty"], &[])), []);
    assert_eq!(groups.shard.describe(GROUP), None, "it is no classic group");
    assert!(groups.shard.is_not_classic(GROUP));
}
