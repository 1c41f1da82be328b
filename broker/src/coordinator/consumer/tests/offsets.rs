//! Offsets of consumer groups: member epochs, deletion, expiry.

use varve_metadata::model::{ProducerEpoch, ProducerId};

use super::*;
use crate::coordinator::{Answer, CommitRequest, EndOfTransaction, GroupError, TransactionalCommit};

fn commit_as(member: &str, epoch: i32, partition: u32) -> CommitRequest {
    let mut request = member_commit(GROUP, member, 0, 5);
    request.generation = crate::coordinator::Generation::from_wire(epoch);
    request.topics[0].id = Some(topic_id(ORDERS));
    request.topics[0].partitions[0].partition = PartitionIndex(partition);
    request
}

fn outcome(groups: &mut Harness, request: CommitRequest) -> Result<(), GroupError> {
    let request = groups.commit(request);
    groups.committed(request).map(drop)
}

impl Harness {
    /// Commits offset 9 of partition 0 of `topic` in a transaction that stays open.
    fn commit_open(&mut self, topic: &str) {
        let id = self.request();
        let commit = simple_commit(GROUP, topic, 9);
        let (producer, epoch) = producer();
        let request = TransactionalCommit { commit, producer, epoch, guard: None };
        self.with_effects(|shard, now, effects| shard.commit_in_transaction(now, id, request, effects));
        self.committed(id).unwrap();
    }

    /// Ends that transaction.
    fn end_open(&mut self, committed: bool) {
        let id = self.request();
        let (producer, epoch) = producer();
        let end = EndOfTransaction { producer, epoch, coordinator_epoch: 0, committed, raises_epoch: false };
        self.with_effects(|shard, now, effects| shard.end_transaction(now, id, end, effects));
        assert_eq!(self.answers.remove(&id), Some(Answer::TransactionEnded(Ok(()))));
    }
}

fn producer() -> (ProducerId, ProducerEpoch) {
    (ProducerId::from_wire(1).unwrap(), ProducerEpoch::from_wire(0).unwrap())
}

#[test]
fn a_member_commits_in_its_epoch_and_for_what_it_had_before() {
    let mut groups = cluster_of(2);
    groups.told(first("a"));
    groups.told(first("b"));
    groups.told(next("a", 2));
    groups.told(owning("a", 2, &[0]));
    groups.told(next("b", 3));
    assert_eq!(outcome(&mut groups, commit_as("a", 3, 0)), Ok(()));
    // In an older epoch: what it was given then, and still has.
    assert_eq!(outcome(&mut groups, commit_as("a", 2, 0)), Ok(()));
    assert_eq!(outcome(&mut groups, commit_as("a", 2, 1)), Err(GroupError::StaleMemberEpoch));
    assert_eq!(outcome(&mut groups, commit_as("b", 2, 1)), Err(GroupError::StaleMemberEpoch));
    assert_eq!(outcome(&mut groups, commit_as("a", 4, 0)), Err(GroupError::StaleMemberEpoch));
    assert_eq!(outcome(&mut groups, commit_as("x", 3, 0)), Err(GroupError::UnknownMemberId));
    assert_eq!(outcome(&mut groups, simple_commit(GROUP, "orders", 1)), Err(GroupError::UnknownMemberId));
    let old = CommitRequest { knows_group_id_not_found: false, ..commit_as("a", 3, 0) };
    assert_eq!(outcome(&mut groups, old), Err(GroupError::UnsupportedVersion));
}

#[test]
fn a_transaction_commits_by_the_same_rules_in_words_that_its_request_has() {
    let mut groups = cluster_of(2);
    groups.told(first("a"));
    groups.told(first("b"));
    let outcome = |commit: CommitRequest| groups.shard.check_transactional_commit(&commit);
    assert_eq!(outcome(commit_as("a", 2, 0)), Ok(()));
    assert_eq!(outcome(commit_as("a", 4, 0)), Err(GroupError::IllegalGeneration));
    assert_eq!(outcome(commit_as("a", 1, 0)), Err(GroupError::IllegalGeneration));
    assert_eq!(outcome(commit_as("x", 2, 0)), Err(GroupError::UnknownMemberId));
    // Producers from before KIP-447 say nothing of themselves.
    assert_eq!(outcome(simple_commit(GROUP, "orders", 1)), Ok(()));
}

#[test]
fn an_administrator_commits_for_a_group_without_members() {
    let mut groups = cluster_of(1);
    groups.told(first("a"));
    groups.told(leaving("a"));
    assert_eq!(outcome(&mut groups, simple_commit(GROUP, "orders", 9)), Ok(()));
    assert_eq!(groups.offset(GROUP, "orders"), Some(9));
    assert_eq!(groups.restarted().offset(GROUP, "orders"), Some(9));
}

#[test]
fn offsets_are_read_by_anybody_or_in_the_right_epoch() {
    let mut groups = cluster_of(1);
    groups.told(first("a"));
    let check = |member, epoch| groups.shard.check_fetch(GROUP, member, epoch);
    assert_eq!(check(None, -1), Ok(()));
    assert_eq!(check(Some("a"), 2), Ok(()));
    assert_eq!(check(Some("a"), 1), Err(GroupError::StaleMemberEpoch));
    assert_eq!(check(Some("x"), 2), Err(GroupError::UnknownMemberId));
    assert_eq!(groups.shard.check_fetch("other", Some("x"), 2), Ok(()), "there is no such group");
}

#[test]
fn offsets_of_topics_in_use_are_not_deleted() {
    let mut groups = cluster_of(1);
    groups.told(first("a"));
    outcome(&mut groups, commit_as("a", 2, 0)).unwrap();
    let kept = groups.delete_offset(GROUP, "orders").unwrap();
    assert_eq!(kept[0].1, [(PartitionIndex(0), Err(GroupError::SubscribedToTopic))]);
    groups.told(leaving("a"));
    let gone = groups.delete_offset(GROUP, "orders").unwrap();
    assert_eq!(gone[0].1, [(PartitionIndex(0), Ok(()))]);
    assert_eq!(groups.offset(GROUP, "orders"), None);
}

#[test]
fn an_empty_group_expires_with_its_offsets_and_one_with_members_keeps_them() {
    let mut groups = cluster_of(1);
    groups.told(first("a"));
    outcome(&mut groups, commit_as("a", 2, 0)).unwrap();
    for _ in 0..8 * 24 * 120 {
        groups.pass(SECOND * 30);
        groups.told(next("a", 2));
    }
    assert_eq!(groups.offset(GROUP, "orders"), Some(5), "it is subscribed to");
    groups.told(leaving("a"));
    groups.pass(SECOND * 700);
    assert_eq!(groups.shard.list(&Default::default()), [], "the offset was older than a week");
    assert_eq!(groups.restarted().shard.list(&Default::default()), []);
}

#[test]
fn an_empty_group_stays_while_a_transaction_may_still_commit_offsets_for_it() {
    let mut groups = cluster_of(1);
    groups.told(first("a"));
    groups.told(leaving("a"));
    groups.commit_open("orders");
    groups.pass(SECOND * 700);
    groups.end_open(true);
    assert_eq!(groups.offset(GROUP, "orders"), Some(9));
    assert_eq!(groups.restarted().offset(GROUP, "orders"), Some(9));
}

#[test]
fn an_offset_that_expired_stays_while_a_transaction_may_still_say_that_it_is_used() {
    for committed in [true, false] {
        let config = GroupConfig { offsets_retention: SECOND * 300, ..GroupConfig::default() };
        let mut groups = harness(config, 1);
        groups.told(first("a"));
        let mut other = commit_as("a", 2, 0);
        other.topics[0].name = "dropped".to_owned();
        outcome(&mut groups, other).unwrap();
        groups.commit_open("dropped");
        for _ in 0..70 {
            groups.pass(SECOND * 10);
            groups.told(next("a", 2));
        }
        assert_eq!(groups.offset(GROUP, "dropped"), Some(5));
        groups.end_open(committed);
        let left = if committed { 9 } else { 5 };
        assert_eq!(groups.offset(GROUP, "dropped"), Some(left));
        assert_eq!(groups.restarted().offset(GROUP, "dropped"), Some(left));
    }
}
