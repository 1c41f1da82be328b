//! The partitions of which a share group has the state of deliveries kept: keepers begin when members want to read, begin
//! anew when an administrator says where (AlterShareGroupOffsets), and forget when one says so (DeleteShareGroupOffsets,
//! DeleteGroups). Each happens in two steps: what is meant is written down, keepers are asked, and what came of it is written
//! down. Whoever asks the keepers reports with [`Shard::shares_begun`] or [`Shard::shares_ended`].

use std::collections::{BTreeMap, BTreeSet};

use varve_metadata::model::{Offset, PartitionIndex, Timestamp, TopicId};

use super::{
    group::{ShareGroup, ShareMember},
    plan::{Outcome, Plan},
};
use crate::coordinator::{
    Answer, Effect, ModernGroupError, Now, RequestId, Shard,
    assignor::PartitionSet,
    locks::{Need, Task},
    records::{CoordinatorRecord, KeptPartitions, ShareGroupRecord, TopicShare},
    shard::{Completion, Step},
    share_state::StateEpoch,
};

/// Keepers that are to begin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BeginShares {
    /// The group.
    pub group_id: String,
    /// The state epoch in which they begin.
    pub state_epoch: StateEpoch,
    /// The partitions, each with the first record that is to be delivered; without one, by the group's setting.
    pub partitions: BTreeMap<TopicId, BTreeMap<PartitionIndex, Option<Offset>>>,
}

impl BeginShares {
    /// The partitions alone.
    pub fn set(&self) -> PartitionSet {
        self.partitions.iter().map(|(topic, partitions)| (*topic, partitions.keys().copied().collect())).collect()
    }
}

/// Where an administrator wants a group to go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SharePlace {
    /// The topic's name.
    pub topic: String,
    /// Its partitions, as numbers that may be none, and offsets; `None`: by the group's setting.
    pub partitions: Vec<(i32, Option<Offset>)>,
}

/// Keepers that are to forget.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SharesToEnd {
    /// The partitions.
    pub partitions: PartitionSet,
    /// Topics, by name, of which the group has nothing.
    pub without: Vec<String>,
}

impl Shard {
    /// Has keepers begin for what members subscribe to and nobody keeps yet, or nobody has answered for in time.
    pub(super) fn plan_begin(&self, now: Now, group: &ShareGroup, epoch: i32, updated: &ShareMember, plan: &mut Plan) {
        let topics: BTreeSet<&String> =
            group.with_member(updated).flat_map(|member| member.about.topics.iter()).collect();
        let begun = topics.into_iter().filter_map(|name| self.to_begin(now.wall, group, name));
        let begun: BTreeMap<TopicId, TopicShare> = begun.collect();
        if begun.is_empty() {
            return;
        }
        let partitions = begun.iter().map(|(topic, share)| {
            (*topic, share.partitions.iter().map(|partition| (*partition, None)).collect::<BTreeMap<_, _>>())
        });
        let state_epoch = StateEpoch(epoch.unsigned_abs());
        plan.outcome.soft.begin =
            Some(BeginShares { group_id: group.id.clone(), state_epoch, partitions: partitions.collect() });
        plan.records.push(with_begun(group, begun).into());
    }

    /// The partitions of a topic for which keepers are to begin.
    fn to_begin(&self, now: Timestamp, group: &ShareGroup, name: &str) -> Option<(TopicId, TopicShare)> {
        let topic = self.cluster.topic(name)?;
        let retry = self.config.share_begin_retry.as_millis();
        let is_recent = group.begun_at.get(&topic.id).is_some_and(|at| {
            let passed = now.to_wire().saturating_sub(at.to_wire());
            u128::try_from(passed).is_ok_and(|passed| passed < retry)
        });
        let of = |shares: &BTreeMap<TopicId, TopicShare>| {
            shares.get(&topic.id).map(|share| share.partitions.clone()).unwrap_or_default()
        };
        let mut known = of(&group.partitions.kept);
        if is_recent {
            known.extend(of(&group.partitions.begun));
        }
        let missing: BTreeSet<_> = (0..topic.partitions).map(PartitionIndex).filter(|at| !known.contains(at)).collect();
        (!missing.is_empty()).then(|| (topic.id, TopicShare { name: name.to_owned(), partitions: missing }))
    }

    /// An administrator says where the group, which has no members, goes on. Answered with [`Answer::BeginShares`].
    pub fn alter_share_offsets(
        &mut self,
        now: Now,
        id: RequestId,
        group_id: &str,
        places: Vec<SharePlace>,
        effects: &mut Vec<Effect>,
    ) {
        let mut step = Step { now, effects };
        self.run_or_wait(group_id, Need::Alone, Task::AlterShares(id, group_id.to_owned(), places), &mut step);
    }

    pub(in crate::coordinator) fn alter_shares(
        &mut self,
        id: RequestId,
        group_id: &str,
        places: &[SharePlace],
        step: &mut Step<'_>,
    ) {
        match self.plan_alter(id, group_id, places) {
            Ok(plan) => self.carry_out(plan, Completion::Share, step),
            Err(error) => step.answer(id, Answer::BeginShares(Err(error))),
        }
    }

    fn plan_alter(&self, id: RequestId, group_id: &str, places: &[SharePlace]) -> Result<Plan, ModernGroupError> {
        let group = self.share_to_join(group_id, true)?;
        if !group.is_empty() {
            return Err(ModernGroupError::NotEmpty);
        }
        let mut begun: BTreeMap<TopicId, TopicShare> = BTreeMap::new();
        let mut partitions: BTreeMap<TopicId, BTreeMap<PartitionIndex, Option<Offset>>> = BTreeMap::new();
        for place in places {
            let Some(topic) = self.cluster.topic(&place.topic) else { continue };
            let known = place.partitions.iter().filter_map(|(index, offset)| {
                Some((PartitionIndex::from_wire(*index).filter(|index| index.0 < topic.partitions)?, *offset))
            });
            let known: BTreeMap<_, _> = known.collect();
            if known.is_empty() {
                continue;
            }
            let share = begun.entry(topic.id).or_default();
            share.name.clone_from(&place.topic);
            share.partitions.extend(known.keys());
            partitions.entry(topic.id).or_default().extend(known);
        }
        let state_epoch = StateEpoch(group.epoch.unsigned_abs());
        let job = BeginShares { group_id: group_id.to_owned(), state_epoch, partitions };
        let records = if begun.is_empty() { Vec::new() } else { vec![with_begun(&group, begun).into()] };
        let answer = Some((id, Answer::BeginShares(Ok(job))));
        Ok(Plan { records, outcome: Outcome { answer, ..Outcome::of(group_id) } })
    }

    /// Keepers were asked to begin: all of them have, or not all. Answered with [`Answer::SharesSettled`] if somebody waits.
    pub fn shares_begun(
        &mut self,
        now: Now,
        id: Option<RequestId>,
        group_id: &str,
        partitions: PartitionSet,
        all: bool,
        effects: &mut Vec<Effect>,
    ) {
        let mut step = Step { now, effects };
        let task = Task::SharesBegun(id, group_id.to_owned(), partitions, all);
        self.run_or_wait(group_id, Need::Alone, task, &mut step);
    }

    pub(in crate::coordinator) fn take_begun(
        &mut self,
        id: Option<RequestId>,
        group_id: &str,
        partitions: &PartitionSet,
        all: bool,
        step: &mut Step<'_>,
    ) {
        let Some(group) = self.shares.get(group_id) else {
            // It was deleted meanwhile: its keepers forget with its topics, or begin anew.
            if let Some(id) = id {
                step.answer(id, Answer::SharesSettled(Err(ModernGroupError::NoGroup(group_id.to_owned()))));
            }
            return;
        };
        let mut next = group.partitions.clone();
        for (topic, partitions) in partitions {
            if let Some(begun) = next.begun.get_mut(topic) {
                begun.partitions.retain(|partition| !partitions.contains(partition));
                if begun.partitions.is_empty() {
                    next.begun.remove(topic);
                }
            }
            let name = self.cluster.topic_name(*topic);
            if let Some(name) = name.filter(|_| all) {
                let kept = next.kept.entry(*topic).or_default();
                kept.name = name.to_owned();
                kept.partitions.extend(partitions);
            }
        }
        let records = self.if_changed(group, next);
        let answer = id.map(|id| (id, Answer::SharesSettled(Ok(()))));
        self.carry_out(Plan { records, outcome: Outcome { answer, ..Outcome::of(group_id) } }, Completion::Share, step);
    }

    fn if_changed(&self, group: &ShareGroup, next: KeptPartitions) -> Vec<CoordinatorRecord> {
        if next == group.partitions {
            return Vec::new();
        }
        vec![ShareGroupRecord::Partitions(group.id.clone(), Some(next)).into()]
    }

    /// An administrator wants a group, which has no members, to forget topics; with `None` all that it has, as the group is
    /// to be deleted. Answered with [`Answer::EndShares`].
    pub fn end_shares(
        &mut self,
        now: Now,
        id: RequestId,
        group_id: &str,
        topics: Option<Vec<String>>,
        effects: &mut Vec<Effect>,
    ) {
        let mut step = Step { now, effects };
        self.run_or_wait(group_id, Need::Alone, Task::EndShares(id, group_id.to_owned(), topics), &mut step);
    }

    pub(in crate::coordinator) fn begin_end(
        &mut self,
        id: RequestId,
        group_id: &str,
        topics: Option<Vec<String>>,
        step: &mut Step<'_>,
    ) {
        let group = match self.existing_share(group_id) {
            Ok(group) if group.is_empty() => group,
            Ok(_) => return step.answer(id, Answer::EndShares(Err(ModernGroupError::NotEmpty))),
            Err(error) => return step.answer(id, Answer::EndShares(Err(error))),
        };
        let (next, to_end) = match topics {
            Some(topics) => self.without_topics(group, topics),
            None => self.without_all(group),
        };
        let records = self.if_changed(group, next);
        let answer = Some((id, Answer::EndShares(Ok(to_end))));
        self.carry_out(Plan { records, outcome: Outcome { answer, ..Outcome::of(group_id) } }, Completion::Share, step);
    }

    fn without_topics(&self, group: &ShareGroup, topics: Vec<String>) -> (KeptPartitions, SharesToEnd) {
        let (mut next, mut to_end) = (group.partitions.clone(), SharesToEnd::default());
        for name in topics {
            let Some(topic) = self.cluster.topic(&name) else {
                to_end.without.push(name);
                continue;
            };
            if let Some(share) = next.kept.remove(&topic.id) {
                to_end.partitions.insert(topic.id, share.partitions);
                next.ending.insert(topic.id, name);
            } else if next.ending.contains_key(&topic.id) {
                // Somebody tried before.
                to_end.partitions.insert(topic.id, (0..topic.partitions).map(PartitionIndex).collect());
            } else {
                to_end.without.push(name);
            }
        }
        (next, to_end)
    }

    fn without_all(&self, group: &ShareGroup) -> (KeptPartitions, SharesToEnd) {
        let mut to_end = SharesToEnd::default();
        let mut ending = BTreeMap::new();
        let all = &group.partitions;
        for (topic, share) in all.kept.iter().chain(&all.begun) {
            to_end.partitions.entry(*topic).or_default().extend(&share.partitions);
            ending.insert(*topic, share.name.clone());
        }
        for (topic, name) in &all.ending {
            if let Some(facts) = self.cluster.topic(name).filter(|facts| facts.id == *topic) {
                to_end.partitions.entry(*topic).or_default().extend((0..facts.partitions).map(PartitionIndex));
                ending.insert(*topic, name.clone());
            }
        }
        (KeptPartitions { ending, ..KeptPartitions::default() }, to_end)
    }

    /// Keepers have forgotten these topics. Answered with [`Answer::SharesSettled`].
    pub fn shares_ended(
        &mut self,
        now: Now,
        id: RequestId,
        group_id: &str,
        topics: BTreeSet<TopicId>,
        effects: &mut Vec<Effect>,
    ) {
        let mut step = Step { now, effects };
        self.run_or_wait(group_id, Need::Alone, Task::SharesEnded(Some(id), group_id.to_owned(), topics), &mut step);
    }

    /// Topics are gone, and what their keepers have of them.
    pub(in crate::coordinator) fn forget_share_topics(&mut self, deleted: &BTreeSet<TopicId>, step: &mut Step<'_>) {
        let has = |group: &ShareGroup| {
            let all = &group.partitions;
            all.begun.keys().chain(all.kept.keys()).chain(all.ending.keys()).any(|topic| deleted.contains(topic))
        };
        let groups: Vec<String> =
            self.shares.values().filter(|group| has(group)).map(|group| group.id.clone()).collect();
        for group in groups {
            self.run_or_wait(&group, Need::Alone, Task::SharesEnded(None, group.clone(), deleted.clone()), step);
        }
    }

    pub(in crate::coordinator) fn take_ended(
        &mut self,
        id: Option<RequestId>,
        group_id: &str,
        topics: &BTreeSet<TopicId>,
        step: &mut Step<'_>,
    ) {
        let answer = id.map(|id| (id, Answer::SharesSettled(Ok(()))));
        let mut plan = Plan { records: Vec::new(), outcome: Outcome { answer, ..Outcome::of(group_id) } };
        if let Some(group) = self.shares.get(group_id) {
            let mut next = group.partitions.clone();
            next.ending.retain(|topic, _| !topics.contains(topic));
            if id.is_none() {
                // The topics themselves are gone.
                next.begun.retain(|topic, _| !topics.contains(topic));
                next.kept.retain(|topic, _| !topics.contains(topic));
            }
            plan.records = self.if_changed(group, next);
        }
        self.carry_out(plan, Completion::Share, step);
    }

    /// The partitions of a group whose keepers have begun; none if there is no such group.
    pub fn kept_shares(&self, group_id: &str) -> PartitionSet {
        let kept = self.shares.get(group_id).into_iter().flat_map(|group| &group.partitions.kept);
        kept.map(|(topic, share)| (*topic, share.partitions.clone())).collect()
    }
}

/// The record of a group that has keepers begin.
fn with_begun(group: &ShareGroup, begun: BTreeMap<TopicId, TopicShare>) -> ShareGroupRecord {
    let mut next = group.partitions.clone();
    for (topic, share) in begun {
        next.ending.remove(&topic);
        let known = next.begun.entry(topic).or_default();
        known.name = share.name;
        known.partitions.extend(share.partitions);
    }
    ShareGroupRecord::Partitions(group.id.clone(), Some(next))
}
