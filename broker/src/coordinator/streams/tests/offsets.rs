//! Offsets of streams groups: who may commit and read them, when they go.

use super::*;
use crate::coordinator::{CommitAnswer, CommitRequest, TopicPartitions};

fn commit(groups: &mut Harness, request: CommitRequest) -> Result<(), GroupError> {
    let id = groups.commit(request);
    match groups.answers.remove(&id) {
        Some(Answer::Commit(CommitAnswer(outcome))) => outcome.map(drop),
        other => panic!("{other:?}"),
    }
}

/// A commit for partition 1 of `orders`.
fn of_orders(member: &str, epoch: u32, offset: i64) -> CommitRequest {
    let mut request = member_commit(GROUP, member, epoch, offset);
    request.topics[0].name = "orders".to_owned();
    request.topics[0].partitions[0].partition = PartitionIndex(1);
    request.knows_group_id_not_found = true;
    request
}

#[test]
fn a_member_commits_in_its_epoch_and_in_older_ones_for_tasks_that_it_had_then() {
    let mut groups = cluster_of(2);
    groups.beat_streams(first("m1")).unwrap();
    assert_eq!(commit(&mut groups, of_orders("m1", 2, 7)), Ok(()));
    assert_eq!(commit(&mut groups, of_orders("m1", 3, 7)), Err(GroupError::StaleMemberEpoch));
    assert_eq!(commit(&mut groups, of_orders("m2", 2, 7)), Err(GroupError::UnknownMemberId));
    let old = CommitRequest { knows_group_id_not_found: false, ..of_orders("m1", 2, 7) };
    assert_eq!(commit(&mut groups, old), Err(GroupError::UnsupportedVersion));

    groups.beat_streams(first("m2")).unwrap();
    groups.settle_streams_members(&["m1", "m2"]);
    let epoch = groups.streams_group().epoch;
    assert!(epoch > 2);
    // Task 1 went to the other: it was the first one's in epoch 2, and is no more.
    assert_eq!(commit(&mut groups, of_orders("m1", 2, 8)), Err(GroupError::StaleMemberEpoch));
    let mut own = of_orders("m1", 2, 8);
    own.topics[0].partitions[0].partition = PartitionIndex(0);
    assert_eq!(commit(&mut groups, own), Ok(()));
    let mut unread = of_orders("m1", 2, 8);
    unread.topics[0].name = "elsewhere".to_owned();
    assert_eq!(commit(&mut groups, unread), Err(GroupError::StaleMemberEpoch));
}

#[test]
fn offsets_are_read_in_the_members_epoch() {
    let mut groups = cluster_of(2);
    groups.beat_streams(first("m1")).unwrap();
    let check = |groups: &Harness, member: Option<&str>, epoch| groups.shard.check_fetch(GROUP, member, epoch);
    assert_eq!(check(&groups, None, -1), Ok(()));
    assert_eq!(check(&groups, Some("m1"), 2), Ok(()));
    assert_eq!(check(&groups, Some("m1"), 1), Err(GroupError::StaleMemberEpoch));
    assert_eq!(check(&groups, Some("m2"), 1), Err(GroupError::UnknownMemberId));
}

#[test]
fn offsets_of_topics_that_members_read_stay_and_others_can_be_deleted() {
    let mut groups = cluster_of(2);
    groups.beat_streams(first("m1")).unwrap();
    commit(&mut groups, of_orders("m1", 2, 7)).unwrap();
    let delete = |groups: &mut Harness, topic: &str| {
        let id = groups.request();
        let topics = vec![TopicPartitions { topic: topic.to_owned(), partitions: vec![PartitionIndex(1)] }];
        groups.with_effects(|shard, now, effects| shard.delete_offsets(now, id, GROUP, topics, effects));
        match groups.answers.remove(&id) {
            Some(Answer::DeleteOffsets(CommitAnswer(Ok(outcome)))) => outcome[0].1[0].1,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(delete(&mut groups, "orders"), Err(GroupError::SubscribedToTopic));
    assert_eq!(delete(&mut groups, "others"), Ok(()));
    groups.beat_streams(next("m1", -1)).unwrap();
    assert_eq!(delete(&mut groups, "orders"), Ok(()));
    assert!(groups.shard.committed(GROUP).unwrap().is_empty());
}

#[test]
fn an_empty_group_ends_with_its_last_offset() {
    let config = GroupConfig {
        offsets_retention: 600 * SECOND,
        offsets_retention_check_interval: 60 * SECOND,
        ..GroupConfig::default()
    };
    let cluster = cluster_of(2).cluster;
    let mut groups = Harness::on(config, cluster);
    groups.beat_streams(first("m1")).unwrap();
    commit(&mut groups, of_orders("m1", 2, 7)).unwrap();
    // What is read does not expire, however old it is.
    for _ in 0..50 {
        groups.pass(40 * SECOND);
        groups.beat_streams(next("m1", 2)).unwrap();
    }
    assert_eq!(groups.shard.committed(GROUP).unwrap().len(), 1);
    groups.pass(200 * SECOND);
    assert!(groups.shard.describe_streams(GROUP).is_err(), "its member was silent, and then its offset was old");
    assert!(groups.restarted().shard.describe_streams(GROUP).is_err());
}
