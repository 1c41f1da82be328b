//! A consumer group, as its records describe it.

use std::collections::{BTreeMap, HashMap};

use varve_metadata::model::{PartitionIndex, Timestamp, TopicId};

use super::member::{ConsumerMember, MemberState, OwnedPartitions};
use crate::coordinator::{
    assignor::{Assignor, PartitionSet},
    records::ResolvedRegex,
};

/// Where a consumer group is in its life; drawn in the module above.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ConsumerGroupState {
    /// No members; perhaps offsets.
    Empty,
    /// The target assignment is older than the group.
    Assigning,
    /// Some members are not at their target yet.
    Reconciling,
    /// Every member has what it shall have.
    Stable,
}

impl ConsumerGroupState {
    /// Kafka's name for it, as requests and tools show it.
    pub const fn name(self) -> &'static str {
        match self {
            ConsumerGroupState::Empty => "Empty",
            ConsumerGroupState::Assigning => "Assigning",
            ConsumerGroupState::Reconciling => "Reconciling",
            ConsumerGroupState::Stable => "Stable",
        }
    }
}

/// A group.
#[derive(Clone, Debug)]
pub(in crate::coordinator) struct ConsumerGroup {
    pub(super) id: String,
    pub(super) epoch: i32,
    pub(super) metadata_hash: i64,
    pub(super) members: BTreeMap<String, ConsumerMember>,
    /// Instance id to member id (KIP-345).
    pub(super) static_members: HashMap<String, String>,
    /// What every member shall have.
    pub(super) targets: BTreeMap<String, PartitionSet>,
    /// The group epoch for which that was decided; -1 if it never was.
    pub(super) assignment_epoch: i32,
    pub(super) assigned_at: Option<Timestamp>,
    pub(super) regexes: BTreeMap<String, ResolvedRegex>,
    /// Partitions that a member holds, with the epoch of that member.
    holders: HashMap<(TopicId, PartitionIndex), i32>,
    /// How many members subscribe by each pattern.
    patterns: BTreeMap<String, usize>,
    /// The log still has a record of Kafka before 4.1, which is to be taken back.
    pub(super) has_topics_metadata: bool,
    /// Topics may have changed since the group last looked; true after a load. Not kept in the log.
    pub(in crate::coordinator) must_look_at_topics: bool,
    /// Patterns are being resolved right now. Not kept in the log.
    pub(super) resolves_regexes: bool,
}

impl ConsumerGroup {
    pub(in crate::coordinator) fn new(id: String) -> ConsumerGroup {
        ConsumerGroup {
            id,
            epoch: 1,
            metadata_hash: 0,
            members: BTreeMap::new(),
            static_members: HashMap::new(),
            targets: BTreeMap::new(),
            assignment_epoch: -1,
            assigned_at: None,
            regexes: BTreeMap::new(),
            holders: HashMap::new(),
            patterns: BTreeMap::new(),
            has_topics_metadata: false,
            must_look_at_topics: true,
            resolves_regexes: false,
        }
    }

    pub(in crate::coordinator) fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    pub(in crate::coordinator) fn member_count(&self) -> usize {
        self.members.len()
    }

    /// Costs a walk over the members.
    pub(in crate::coordinator) fn state(&self) -> ConsumerGroupState {
        if self.members.is_empty() {
            ConsumerGroupState::Empty
        } else if self.epoch > self.assignment_epoch {
            ConsumerGroupState::Assigning
        } else if self.members.values().all(|member| member.is_reconciled_to(self.assignment_epoch)) {
            ConsumerGroupState::Stable
        } else {
            ConsumerGroupState::Reconciling
        }
    }

    /// The member that holds an instance id.
    pub(super) fn static_member(&self, instance_id: &str) -> Option<&ConsumerMember> {
        self.members.get(self.static_members.get(instance_id)?)
    }

    pub(super) fn target_of(&self, member_id: &str) -> &PartitionSet {
        const NONE: &PartitionSet = &PartitionSet::new();
        self.targets.get(member_id).unwrap_or(NONE)
    }

    /// Whether some member holds the partition, or has not given it up yet.
    pub(super) fn is_held(&self, topic: TopicId, partition: PartitionIndex) -> bool {
        self.holders.contains_key(&(topic, partition))
    }

    /// Whether a part of the member's target is still held by somebody else.
    pub(super) fn waits_for_release(&self, member: &ConsumerMember) -> bool {
        let is_missing = |topic: &TopicId, partition: &PartitionIndex| {
            !member.assigned.get(topic).is_some_and(|assigned| assigned.contains_key(partition))
        };
        member.state == MemberState::UnreleasedPartitions
            && self.target_of(&member.id).iter().any(|(topic, partitions)| {
                partitions.iter().any(|partition| is_missing(topic, partition) && self.is_held(*topic, *partition))
            })
    }

    /// Puts a member in the place of itself, or of nobody.
    pub(super) fn put_member(&mut self, member: ConsumerMember) {
        if let Some(old) = self.members.remove(&member.id) {
            self.release(&old);
        }
        for (topic, partitions) in member.assigned.iter().chain(&member.pending_revocation) {
            for partition in partitions.keys() {
                let holder = self.holders.entry((*topic, *partition)).or_insert(member.epoch.0);
                *holder = (*holder).max(member.epoch.0);
            }
        }
        if let Some(instance) = &member.instance_id {
            self.static_members.insert(instance.clone(), member.id.clone());
        }
        if let Some(pattern) = member.pattern() {
            *self.patterns.entry(pattern.to_owned()).or_default() += 1;
        }
        self.members.insert(member.id.clone(), member);
    }

    pub(super) fn remove_member(&mut self, member_id: &str) {
        let Some(old) = self.members.remove(member_id) else { return };
        self.release(&old);
        if let Some(instance) = &old.instance_id
            && self.static_members.get(instance).is_some_and(|holder| holder == member_id)
        {
            self.static_members.remove(instance);
        }
    }

    /// What the member held is free, unless another holds it in a newer epoch already.
    fn release(&mut self, member: &ConsumerMember) {
        if let Some(pattern) = member.pattern()
            && let Some(count) = self.patterns.get_mut(pattern)
        {
            *count -= 1;
            if *count == 0 {
                self.patterns.remove(pattern);
            }
        }
        let held = |owned: &OwnedPartitions| -> Vec<(TopicId, PartitionIndex)> {
            owned
                .iter()
                .flat_map(|(topic, partitions)| partitions.keys().map(|partition| (*topic, *partition)))
                .collect()
        };
        for partition in held(&member.assigned).into_iter().chain(held(&member.pending_revocation)) {
            if self.holders.get(&partition) == Some(&member.epoch.0) {
                self.holders.remove(&partition);
            }
        }
    }

    /// The assignor that most members ask for; the first by name where they are equal. `None` if nobody asks.
    pub(super) fn preferred_assignor<'a>(members: impl Iterator<Item = &'a ConsumerMember>) -> Option<Assignor> {
        let mut votes: BTreeMap<&str, usize> = BTreeMap::new();
        for name in members.filter_map(|member| member.assignor.as_deref()) {
            *votes.entry(name).or_default() += 1;
        }
        let most = *votes.values().max()?;
        votes.into_iter().find(|(_, count)| *count == most).and_then(|(name, _)| Assignor::from_name(name))
    }

    /// Whether a member subscribes to the topic, by name or by a pattern.
    pub(in crate::coordinator) fn is_subscribed(&self, topic: &str) -> bool {
        self.members.values().any(|member| member.topics.contains(topic))
            || self.regexes.values().any(|regex| regex.topics.contains(topic))
    }

    /// How many members subscribe by this pattern.
    pub(super) fn subscribers_of(&self, pattern: &str) -> usize {
        self.patterns.get(pattern).copied().unwrap_or(0)
    }

    /// Every pattern that a member subscribes by.
    pub(super) fn patterns(&self) -> impl Iterator<Item = &str> {
        self.patterns.keys().map(String::as_str)
    }

    pub(super) fn classic_members(&self) -> impl Iterator<Item = &ConsumerMember> {
        self.members.values().filter(|member| member.classic.is_some())
    }
}
