//! One step of a member on its way to its target: what it has to give up, what it gets, what it waits for.

use std::collections::{BTreeMap, BTreeSet};

use varve_metadata::model::{PartitionIndex, TopicId};

use super::{
    heartbeat::Owned,
    member::{ConsumerMember, MemberState, OwnedPartitions},
};
use crate::coordinator::{GroupType, MemberEpoch, ModernGroupError, assignor::PartitionSet};

/// What a step depends on besides the member.
pub(super) struct Situation<'a> {
    /// The epoch of the target assignment.
    pub(super) epoch: i32,
    /// What the member shall have.
    pub(super) target: &'a PartitionSet,
    /// The topics it subscribes to and that exist. It keeps no others, whatever the target says.
    pub(super) subscribed: BTreeSet<TopicId>,
    /// Whether that changed with this very request.
    pub(super) subscription_changed: bool,
    /// What the member says it has; `None` if it did not say.
    pub(super) owned: Option<&'a Owned>,
    /// Whether anybody holds a partition.
    pub(super) is_held: &'a dyn Fn(TopicId, PartitionIndex) -> bool,
}

impl Situation<'_> {
    /// The member after the step; the same if there is none to take.
    ///
    /// # Errors
    /// The member was written by a later version and has to start over.
    pub(super) fn step(&self, member: &ConsumerMember) -> Result<ConsumerMember, ModernGroupError> {
        Ok(match member.state {
            MemberState::Stable if member.epoch.0 != self.epoch => self.toward_target(member, member.epoch),
            MemberState::Stable if self.subscription_changed => self.within_subscription(member),
            MemberState::Stable => member.clone(),
            // It cannot go on before it gave up what it must; its subscription may ask for more meanwhile.
            MemberState::UnrevokedPartitions if self.still_owns(&member.pending_revocation) => {
                if self.subscription_changed { self.within_subscription(member) } else { member.clone() }
            }
            MemberState::UnrevokedPartitions | MemberState::UnreleasedPartitions => {
                self.toward_target(member, member.epoch)
            }
            MemberState::Unknown if self.owned.is_none_or(|owned| !owned.is_empty()) => {
                return Err(ModernGroupError::UnknownState(GroupType::Consumer));
            }
            MemberState::Unknown => self.toward_target(member, MemberEpoch(self.epoch)),
        })
    }

    /// Whether the member may still read some of `partitions`. If it does not say what it has, it may.
    fn still_owns(&self, partitions: &OwnedPartitions) -> bool {
        let Some(owned) = self.owned else { return true };
        owned.partitions.iter().any(|(topic, owned)| {
            let of_topic = partitions.get(topic);
            owned.iter().any(|partition| of_topic.is_some_and(|of_topic| of_topic.contains_key(partition)))
        })
    }

    /// Takes from the member what it no longer subscribes to, and nothing else.
    fn within_subscription(&self, member: &ConsumerMember) -> ConsumerMember {
        let mut next = member.clone();
        let (kept, dropped): (OwnedPartitions, OwnedPartitions) =
            std::mem::take(&mut next.assigned).into_iter().partition(|(topic, _)| self.subscribed.contains(topic));
        next.assigned = kept;
        if dropped.is_empty() {
            return next;
        }
        let mut pending = member.pending_revocation.clone();
        for (topic, partitions) in dropped {
            pending.entry(topic).or_default().extend(partitions);
        }
        if self.still_owns(&pending) {
            next.state = MemberState::UnrevokedPartitions;
            next.pending_revocation = pending;
        }
        // Else it gave them up already, and stays where it is with less.
        next.move_to(member.epoch);
        next
    }

    fn toward_target(&self, member: &ConsumerMember, from: MemberEpoch) -> ConsumerMember {
        let parts = self.compare(member);
        let mut next = member.clone();
        next.assigned = parts.kept;
        if !parts.to_revoke.is_empty() && self.still_owns(&parts.to_revoke) {
            // In its epoch until it says that it gave them up.
            next.state = MemberState::UnrevokedPartitions;
            next.move_to(from);
            next.pending_revocation = parts.to_revoke;
            return next;
        }
        for (topic, partitions) in parts.free {
            next.assigned.entry(topic).or_default().extend(partitions);
        }
        next.state = if parts.waits { MemberState::UnreleasedPartitions } else { MemberState::Stable };
        next.move_to(MemberEpoch(self.epoch));
        next.pending_revocation = OwnedPartitions::new();
        next
    }

    fn compare(&self, member: &ConsumerMember) -> Parts {
        let mut parts = Parts::default();
        let topics: BTreeSet<&TopicId> = self.target.keys().chain(member.assigned.keys()).collect();
        for topic in topics {
            const NOTHING: &BTreeSet<PartitionIndex> = &BTreeSet::new();
            let is_subscribed = self.subscribed.contains(topic);
            let target = self.target.get(topic).filter(|_| is_subscribed).unwrap_or(NOTHING);
            let none = BTreeMap::new();
            let assigned = member.assigned.get(topic).unwrap_or(&none);
            let (kept, to_revoke): (BTreeMap<_, _>, BTreeMap<_, _>) =
                assigned.iter().map(|(partition, epoch)| (*partition, *epoch)).partition(|(p, _)| target.contains(p));
            let own_revocations = member.pending_revocation.get(topic);
            let is_own = |partition: &PartitionIndex| own_revocations.is_some_and(|own| own.contains_key(partition));
            let (held, free): (Vec<PartitionIndex>, Vec<PartitionIndex>) = target
                .iter()
                .filter(|partition| !kept.contains_key(partition))
                // What the member itself was about to give up waits for nobody else.
                .partition(|partition| (self.is_held)(*topic, **partition) && !is_own(partition));
            parts.waits |= !held.is_empty();
            if !kept.is_empty() {
                parts.kept.insert(*topic, kept);
            }
            if !to_revoke.is_empty() {
                parts.to_revoke.insert(*topic, to_revoke);
            }
            if !free.is_empty() {
                parts.free.insert(*topic, free.into_iter().map(|partition| (partition, self.epoch)).collect());
            }
        }
        parts
    }
}

/// A member's partitions beside its target.
#[derive(Default)]
struct Parts {
    /// It has them and shall have them.
    kept: OwnedPartitions,
    /// It has them and shall not.
    to_revoke: OwnedPartitions,
    /// It shall have them, and nobody has.
    free: OwnedPartitions,
    /// It shall have some that others have.
    waits: bool,
}
