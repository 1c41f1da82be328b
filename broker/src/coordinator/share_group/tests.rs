//! Members come and go, keepers begin and forget, on a log that acknowledges at once or not at all.

use std::collections::BTreeSet;

use uuid::Uuid;
use varve_metadata::model::{PartitionIndex, TopicId};

use super::*;
use crate::coordinator::{
    Answer, AppendFailure, Effect, GroupError, GroupFilter, GroupType, HeartbeatAnswer, MemberEpoch, ModernGroupError,
    Now, RequestId, Shard,
    assignor::PartitionSet,
    share_state::StateEpoch,
    testing::{Harness, SECOND, TestCluster},
};

fn topic(number: u128) -> TopicId {
    TopicId::from_wire(Uuid::from_u128(number)).unwrap()
}

fn harness() -> Harness {
    let mut cluster = TestCluster::default();
    cluster.put("t", topic(7), 2);
    Harness::on(Default::default(), cluster)
}

fn set(number: u128, partitions: &[u32]) -> PartitionSet {
    [(topic(number), partitions.iter().copied().map(PartitionIndex).collect())].into()
}

impl Harness {
    fn share_beat(
        &mut self,
        member: &str,
        epoch: i32,
        topics: Option<&[&str]>,
    ) -> Result<HeartbeatAnswer, ModernGroupError> {
        let request = ShareHeartbeat {
            group_id: "g".to_owned(),
            member_id: member.to_owned(),
            epoch: MemberEpoch(epoch),
            rack_id: None,
            topics: topics.map(|topics| topics.iter().map(|&topic| topic.to_owned()).collect()),
            client_id: "c".to_owned(),
            client_host: "/h".to_owned(),
        };
        match self.share_ask(|shard, now, id, effects| shard.share_heartbeat(now, id, request, effects)) {
            Some(Answer::Heartbeat(answer)) => answer,
            other => panic!("{other:?}"),
        }
    }

    fn share_ask(&mut self, ask: impl FnOnce(&mut Shard, Now, RequestId, &mut Vec<Effect>)) -> Option<Answer> {
        let id = self.request();
        self.with_effects(|shard, now, effects| ask(shard, now, id, effects));
        self.answers.remove(&id)
    }

    /// The keepers that were asked last have begun, or not.
    fn begin(&mut self, all: bool) -> BeginShares {
        let job = self.to_begin.pop().unwrap();
        let begun = job.set();
        self.with_effects(|shard, now, effects| shard.shares_begun(now, None, "g", begun, all, effects));
        job
    }
}

#[test]
fn members_are_given_partitions_once_their_keepers_have_begun() {
    let mut harness = harness();
    let joined = harness.share_beat("a", 0, Some(&["t"])).unwrap();
    assert_eq!((joined.epoch, joined.assignment), (MemberEpoch(2), Some(PartitionSet::new())));
    let job = harness.begin(true);
    assert_eq!((job.set(), job.state_epoch), (set(7, &[0, 1]), StateEpoch(2)));
    harness.now += SECOND;
    let told = harness.share_beat("a", 2, None).unwrap();
    assert_eq!((told.epoch, told.assignment), (MemberEpoch(3), Some(set(7, &[0, 1]))));
    // Nothing new: nothing is told. The answer before may have been lost.
    assert_eq!(harness.share_beat("a", 3, None).unwrap().assignment, None);
    assert_eq!(harness.share_beat("a", 2, None).unwrap().epoch, MemberEpoch(3));
    assert!(harness.to_begin.is_empty());
    // Three members for two partitions: one is two members'.
    harness.now += SECOND;
    for member in ["b", "c"] {
        harness.share_beat(member, 0, Some(&["t"])).unwrap();
        harness.now += SECOND;
    }
    let described = harness.shard.describe_share("g").unwrap();
    assert_eq!((described.state, described.members.len()), ("Stable", 3));
    let listed = harness.shard.list(&GroupFilter::default());
    assert_eq!(listed[0].group_type, GroupType::Share);
    assert_eq!(harness.restarted().shard.describe_share("g").unwrap(), described);
}

#[test]
fn who_is_unknown_or_of_another_epoch_starts_over() {
    let mut harness = harness();
    assert_eq!(harness.share_beat("a", 1, None), Err(ModernGroupError::NotMade(GroupType::Share, "g".to_owned())));
    assert_eq!(harness.share_beat("a", -1, None), Err(ModernGroupError::NoGroup("g".to_owned())));
    let invalid = harness.share_beat("a", 0, None);
    assert_eq!(invalid, Err(ModernGroupError::invalid("SubscribedTopicNames must be set in first request.")));
    harness.share_beat("a", 0, Some(&["t"])).unwrap();
    assert_eq!(harness.share_beat("a", 9, None).unwrap_err().kind(), GroupError::FencedMemberEpoch);
    assert_eq!(harness.share_beat("b", 1, None).unwrap_err().kind(), GroupError::UnknownMemberId);
    let left = harness.share_beat("a", -1, None).unwrap();
    assert_eq!((left.epoch, left.assignment), (MemberEpoch(-1), None));
    assert_eq!(harness.shard.describe_share("g").unwrap().state, "Empty");
}

#[test]
fn a_silent_member_is_removed_also_if_the_log_refuses_that_at_first() {
    let mut harness = harness();
    harness.share_beat("a", 0, Some(&["t"])).unwrap();
    harness.fails_appends = Some(AppendFailure::Unavailable);
    harness.pass(45 * SECOND);
    assert_eq!(harness.shard.describe_share("g").unwrap().members.len(), 1);
    harness.fails_appends = None;
    harness.pass(SECOND);
    assert_eq!(harness.shard.describe_share("g").unwrap().members.len(), 0);
}

#[test]
fn keepers_that_do_not_begin_are_asked_again_and_those_of_new_partitions_too() {
    let mut harness = harness();
    harness.share_beat("a", 0, Some(&["t"])).unwrap();
    harness.begin(false);
    harness.share_beat("a", 2, None).unwrap();
    assert_eq!(harness.begin(true).set(), set(7, &[0, 1]));
    harness.put_topic("t", topic(7), 3);
    harness.now += SECOND;
    let epoch = harness.share_beat("a", 2, None).unwrap().epoch;
    assert_eq!(harness.begin(true).set(), set(7, &[2]));
    harness.now += SECOND;
    assert_eq!(harness.share_beat("a", epoch.0, None).unwrap().assignment, Some(set(7, &[0, 1, 2])));
    // Nobody reports: they are asked once more when enough time has passed.
    harness.put_topic("t", topic(7), 4);
    harness.share_beat("a", 0, Some(&["t"])).unwrap();
    harness.to_begin.clear();
    harness.share_beat("a", 0, Some(&["t"])).unwrap();
    assert!(harness.to_begin.is_empty());
    harness.now += 30 * SECOND;
    harness.share_beat("a", 0, Some(&["t"])).unwrap();
    assert_eq!(harness.begin(true).set(), set(7, &[3]));
}

#[test]
fn an_administrator_moves_and_ends_what_an_empty_group_has() {
    let mut harness = harness();
    harness.share_beat("a", 0, Some(&["t"])).unwrap();
    harness.begin(true);
    let place = |index| SharePlace { topic: "t".to_owned(), partitions: vec![(index, None)] };
    let alter = |harness: &mut Harness, places: Vec<SharePlace>| match harness
        .share_ask(|shard, now, id, effects| shard.alter_share_offsets(now, id, "g", places, effects))
    {
        Some(Answer::BeginShares(answer)) => answer,
        other => panic!("{other:?}"),
    };
    assert_eq!(alter(&mut harness, vec![place(0)]), Err(ModernGroupError::NotEmpty));
    harness.share_beat("a", -1, None).unwrap();
    let job = alter(&mut harness, vec![place(0), place(5)]).unwrap();
    assert_eq!((job.set(), job.state_epoch), (set(7, &[0]), StateEpoch(3)));
    let end = |harness: &mut Harness, topics: Option<Vec<String>>| match harness
        .share_ask(|shard, now, id, effects| shard.end_shares(now, id, "g", topics, effects))
    {
        Some(Answer::EndShares(answer)) => answer,
        other => panic!("{other:?}"),
    };
    let ended = end(&mut harness, Some(vec!["t".to_owned(), "u".to_owned()])).unwrap();
    assert_eq!(ended, SharesToEnd { partitions: set(7, &[0, 1]), without: vec!["u".to_owned()] });
    assert_eq!(harness.shard.kept_shares("g"), PartitionSet::new());
    // It did not come to its end: the next try is about the whole topic.
    assert_eq!(end(&mut harness, None).unwrap().partitions, set(7, &[0, 1]));
    let topics: BTreeSet<TopicId> = [topic(7)].into();
    harness.share_ask(|shard, now, id, effects| shard.shares_ended(now, id, "g", topics, effects));
    assert_eq!(end(&mut harness, None).unwrap(), SharesToEnd::default());
    let gone = harness.share_ask(|shard, now, id, effects| shard.delete_group(now, id, "g".to_owned(), effects));
    assert_eq!(gone, Some(Answer::DeleteGroup(Ok(()))));
    assert_eq!(harness.shard.describe_share("g"), Err(ModernGroupError::NoGroup("g".to_owned())));
}

#[test]
fn topics_that_are_gone_are_forgotten() {
    let mut harness = harness();
    harness.share_beat("a", 0, Some(&["t"])).unwrap();
    harness.begin(true);
    assert_eq!(harness.shard.kept_shares("g"), set(7, &[0, 1]));
    harness.remove_topic("t");
    assert_eq!(harness.shard.kept_shares("g"), PartitionSet::new());
}
