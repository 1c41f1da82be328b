//! Committed offsets: commit, expiry, deletion.

use uuid::Uuid;
use varve_metadata::model::{PartitionIndex, TopicId};

use crate::coordinator::{testing::*, *};

const WEEK: std::time::Duration = std::time::Duration::from_secs(7 * 24 * 3600);

#[test]
fn a_commit_without_membership_makes_a_simple_group() {
    let mut groups = Harness::new();
    let commit = groups.commit(simple_commit("g", "orders", 42));
    assert_eq!(groups.committed(commit), Ok(vec![("orders".to_owned(), vec![(PartitionIndex(0), Ok(()))])]));
    assert_eq!(groups.offset("g", "orders"), Some(42));
    assert_eq!(groups.shard.describe("g").unwrap().protocol_type, "");
}

#[test]
fn a_commit_is_neither_answered_nor_visible_before_the_log_has_it() {
    let mut groups = Harness::new();
    groups.holds_appends = true;
    let commit = groups.commit(simple_commit("g", "orders", 42));
    let settled = groups.settle();
    assert!(groups.is_waiting(commit) && groups.is_waiting(settled));
    assert_eq!(groups.offset("g", "orders"), None);
    groups.release_one(None);
    assert!(groups.committed(commit).is_ok() && !groups.is_waiting(settled));
    assert_eq!(groups.offset("g", "orders"), Some(42));
}

#[test]
fn a_commit_that_the_log_refuses_leaves_no_trace() {
    let mut groups = Harness::new();
    groups.fails_appends = Some(AppendFailure::NotLeader);
    let commit = groups.commit(simple_commit("g", "orders", 42));
    assert_eq!(groups.committed(commit), Err(GroupError::NotCoordinator));
    assert_eq!(groups.state("g"), None);
}

#[test]
fn members_commit_for_their_own_generation_only() {
    let mut groups = Harness::new();
    let members = groups.stable_group("g", 1);
    let mut outcome = |request| {
        let commit = groups.commit(request);
        groups.committed(commit).map(|_| ())
    };
    assert_eq!(outcome(member_commit("g", &members[0], 1, 5)), Ok(()));
    assert_eq!(outcome(member_commit("g", &members[0], 0, 5)), Err(GroupError::IllegalGeneration));
    assert_eq!(outcome(member_commit("g", "stranger", 1, 5)), Err(GroupError::UnknownMemberId));
    assert_eq!(outcome(simple_commit("g", "orders", 5)), Err(GroupError::UnknownMemberId));
}

#[test]
fn an_unknown_group_is_told_apart_only_to_clients_that_know_the_error() {
    let mut groups = Harness::new();
    let request = member_commit("g", "m", 1, 5);
    let old = groups.commit(CommitRequest { knows_group_id_not_found: false, ..request.clone() });
    assert_eq!(groups.committed(old), Err(GroupError::IllegalGeneration));
    let new = groups.commit(request);
    assert_eq!(groups.committed(new), Err(GroupError::GroupIdNotFound));
}

#[test]
fn a_commit_between_join_and_sync_is_sent_back() {
    let mut groups = Harness::new();
    let (member, join) = groups.join_dynamic("g");
    groups.pass(SECOND * 3);
    groups.joined(join);
    let commit = groups.commit(member_commit("g", &member, 1, 5));
    assert_eq!(groups.committed(commit), Err(GroupError::RebalanceInProgress));
}

#[test]
fn a_commit_keeps_the_session_alive() {
    let mut groups = Harness::new();
    let members = groups.stable_group("g", 1);
    groups.pass(SECOND * 9);
    groups.commit(member_commit("g", &members[0], 1, 5));
    groups.pass(SECOND * 9);
    assert_eq!(groups.heartbeat("g", &members[0], 1), Ok(()));
}

#[test]
fn too_much_metadata_refuses_its_partition_and_not_the_others() {
    let mut groups = Harness::new();
    let mut request = simple_commit("g", "orders", 1);
    let mut large = request.topics[0].partitions[0].clone();
    large.partition = PartitionIndex(1);
    large.metadata = "x".repeat(4097);
    request.topics[0].partitions.push(large);
    let commit = groups.commit(request);
    let outcomes = groups.committed(commit).unwrap();
    assert_eq!(
        outcomes[0].1,
        [(PartitionIndex(0), Ok(())), (PartitionIndex(1), Err(GroupError::OffsetMetadataTooLarge))]
    );
}

#[test]
fn metadata_is_measured_in_utf_16_as_kafka_does() {
    let mut groups = Harness::new();
    let mut request = simple_commit("g", "orders", 1);
    request.topics[0].partitions[0].metadata = "ü".repeat(4096);
    let commit = groups.commit(request);
    assert_eq!(groups.committed(commit).unwrap()[0].1[0].1, Ok(()));
}

#[test]
fn offsets_of_a_simple_group_expire_after_their_last_commit() {
    let mut groups = Harness::new();
    groups.commit(simple_commit("g", "old", 1));
    groups.pass(WEEK / 2);
    groups.commit(simple_commit("g", "fresh", 2));
    groups.pass(WEEK / 2 + SECOND * 600);
    assert_eq!((groups.offset("g", "old"), groups.offset("g", "fresh")), (None, Some(2)));
    groups.pass(WEEK / 2);
    assert_eq!(groups.state("g"), None, "nothing is left of the group");
    assert_eq!(groups.restarted().state("g"), None);
}

#[test]
fn offsets_of_an_empty_group_expire_when_it_has_been_empty_for_long() {
    let mut groups = Harness::new();
    let members = groups.stable_group("g", 1);
    groups.commit(member_commit("g", &members[0], 1, 5));
    groups.pass(SECOND * 61);
    groups.leave("g", &[identity(&members[0])]);
    assert_eq!(groups.state("g"), Some(GroupState::Empty));
    groups.pass(WEEK - SECOND * 60);
    assert_eq!(groups.offset("g", "orders"), Some(5));
    groups.pass(SECOND * 1260);
    assert_eq!(groups.state("g"), None);
}

#[test]
fn offsets_with_very_long_names_expire_in_batches_that_the_log_takes() {
    let mut groups = Harness::with(GroupConfig { offsets_retention: SECOND * 300, ..GroupConfig::default() });
    let group = "g".repeat(30_000);
    for topic in 0..50 {
        groups.commit(simple_commit(&group, &format!("topic-{topic}"), 1));
    }
    groups.holds_appends = true;
    groups.pass(SECOND * 700);
    assert!(groups.held.len() > 1);
    for (_, batch) in &groups.held {
        let Batch::Records(records) = batch else { panic!("only plain records are written") };
        let bytes: usize = records.iter().map(|record| record.encode().unwrap().key.len()).sum();
        assert!(bytes < 1_000_000, "{bytes}");
    }
    while !groups.held.is_empty() {
        groups.release_one(None);
    }
    groups.holds_appends = false;
    groups.pass(SECOND * 700);
    assert_eq!(groups.state(&group), None);
}

#[test]
fn an_offset_that_expired_stays_while_a_newer_one_is_on_its_way() {
    let config = GroupConfig { offsets_retention: SECOND * 300, ..GroupConfig::default() };
    let mut groups = Harness::with(config);
    groups.commit(simple_commit("g", "orders", 1));
    groups.pass(SECOND * 599);
    groups.holds_appends = true;
    groups.commit(simple_commit("g", "orders", 2));
    groups.pass(SECOND * 2);
    while !groups.held.is_empty() {
        groups.release_one(None);
    }
    assert_eq!(groups.offset("g", "orders"), Some(2));
    assert_eq!(groups.restarted().offset("g", "orders"), Some(2));
}

#[test]
fn a_live_group_keeps_the_offsets_of_topics_it_subscribes_to() {
    let config = GroupConfig {
        offsets_retention: SECOND * 5,
        offsets_retention_check_interval: SECOND,
        ..GroupConfig::default()
    };
    let mut groups = Harness::with(config);
    let members = groups.stable_group("g", 1);
    let commit = |topic: &str| {
        let mut request = member_commit("g", &members[0], 1, 5);
        request.topics[0].name = topic.to_owned();
        request
    };
    groups.commit(commit("orders"));
    groups.commit(commit("dropped"));
    groups.pass(SECOND * 7);
    assert_eq!((groups.offset("g", "orders"), groups.offset("g", "dropped")), (Some(5), None));
}

#[test]
fn an_old_client_may_ask_for_a_retention_of_its_own() {
    let mut groups = Harness::new();
    groups.commit(CommitRequest { retention: Some(SECOND * 60), ..simple_commit("g", "orders", 1) });
    groups.pass(SECOND * 601);
    assert_eq!(groups.offset("g", "orders"), None);
}

#[test]
fn only_empty_groups_are_deleted() {
    let mut groups = Harness::new();
    groups.stable_group("busy", 1);
    groups.commit(simple_commit("idle", "orders", 1));
    for (group, outcome) in
        [("busy", Err(GroupError::NonEmptyGroup)), ("idle", Ok(())), ("none", Err(GroupError::GroupIdNotFound))]
    {
        let request = groups.delete_group(group);
        assert_eq!(groups.answers.remove(&request), Some(Answer::DeleteGroup(outcome)), "{group}");
    }
    assert_eq!(groups.state("idle"), None);
    assert_eq!(groups.restarted().offset("idle", "orders"), None);
}

#[test]
fn a_group_being_deleted_takes_no_requests_until_the_log_decides() {
    let mut groups = Harness::new();
    groups.commit(simple_commit("g", "orders", 1));
    groups.holds_appends = true;
    groups.delete_group("g");
    let commit = groups.commit(simple_commit("g", "orders", 2));
    assert_eq!(groups.committed(commit), Err(GroupError::CoordinatorNotAvailable));
    let join = groups.join(join_request("g"));
    assert_eq!(groups.join_error(join), GroupError::CoordinatorNotAvailable);
    groups.release_one(Some(AppendFailure::Unavailable));
    assert_eq!(groups.offset("g", "orders"), Some(1));
}

#[test]
fn a_commit_on_its_way_is_deleted_with_its_group() {
    let mut groups = Harness::new();
    groups.commit(simple_commit("g", "orders", 1));
    groups.holds_appends = true;
    groups.commit(simple_commit("g", "payments", 2));
    groups.delete_group("g");
    groups.release_one(None);
    groups.release_one(None);
    assert_eq!(groups.state("g"), None);
    assert_eq!(groups.restarted().state("g"), None);
}

#[test]
fn offsets_of_subscribed_topics_cannot_be_deleted() {
    let mut groups = Harness::new();
    let members = groups.stable_group("g", 1);
    groups.commit(member_commit("g", &members[0], 1, 5));
    let mut other = member_commit("g", &members[0], 1, 6);
    other.topics[0].name = "dropped".to_owned();
    groups.commit(other);
    assert_eq!(groups.delete_offset("g", "orders").unwrap()[0].1[0].1, Err(GroupError::SubscribedToTopic));
    assert_eq!(groups.delete_offset("g", "dropped").unwrap()[0].1[0].1, Ok(()));
    assert_eq!(groups.offset("g", "dropped"), None);
    assert_eq!(groups.delete_offset("none", "orders"), Err(GroupError::GroupIdNotFound));
}

#[test]
fn offsets_of_a_deleted_topic_go_but_not_those_of_its_namesake() {
    let mut groups = Harness::new();
    groups.commit(simple_commit("g", "orders", 1));
    groups.topic_deleted("orders", TopicId::from_wire(Uuid::from_u128(8)).unwrap());
    assert_eq!(groups.offset("g", "orders"), Some(1));
    groups.topic_deleted("orders", TopicId::from_wire(Uuid::from_u128(7)).unwrap());
    assert_eq!(groups.offset("g", "orders"), None);
}
