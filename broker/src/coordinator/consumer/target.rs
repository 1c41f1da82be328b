//! The two decisions that a change of members leads to: whether the group enters a new epoch, and who shall have what.

use std::collections::{BTreeMap, BTreeSet};

use super::{group::ConsumerGroup, member::ConsumerMember};
use crate::coordinator::{
    Now, Shard,
    assignor::{Assignor, Candidate, Division, PartitionSet},
    cluster::metadata_hash,
    modern::is_due_for_assignment,
    records::{ConsumerRecord, CoordinatorRecord, GroupEpochRecord, TargetRecord},
};

/// What a member shall have, and of which epoch that is.
pub(super) struct MemberTarget {
    pub(super) epoch: i32,
    pub(super) partitions: PartitionSet,
}

impl Shard {
    /// Raises the group's epoch if it must be, or if its topics changed. Returns the epoch.
    pub(super) fn plan_epoch<'a>(
        &self,
        group: &ConsumerGroup,
        members: impl Iterator<Item = &'a ConsumerMember>,
        dropped: &BTreeSet<String>,
        must_rise: bool,
        records: &mut Vec<CoordinatorRecord>,
    ) -> i32 {
        let hash = metadata_hash(self.cluster.as_ref(), &group.topics_of(members, dropped));
        let mut epoch = group.epoch;
        if must_rise || hash != group.metadata_hash {
            epoch += 1;
            tracing::info!(group = group.id, epoch, "the group enters a new epoch");
            let record = GroupEpochRecord { epoch, metadata_hash: hash };
            records.push(CoordinatorRecord::Consumer(ConsumerRecord::Group(group.id.clone(), Some(record))));
        }
        if group.has_topics_metadata {
            records.push(CoordinatorRecord::Consumer(ConsumerRecord::TopicsMetadata(group.id.clone(), false)));
        }
        epoch
    }

    /// Assigns anew if the group is in a newer epoch than its target, and the last time is long enough ago. Returns what
    /// `updated` shall have.
    pub(super) fn plan_target(
        &self,
        now: Now,
        group: &ConsumerGroup,
        epoch: i32,
        updated: &ConsumerMember,
        records: &mut Vec<CoordinatorRecord>,
    ) -> MemberTarget {
        let own = group.inherited_target(updated);
        let interval = self.cluster.consumer_times(&group.id).assignment_interval;
        if group.assignment_epoch >= epoch || !is_due_for_assignment(group.assigned_at, interval, now) {
            return MemberTarget { epoch: group.assignment_epoch, partitions: own.clone() };
        }
        let asked = ConsumerGroup::preferred_assignor(group.with_member(updated));
        let assignor = asked.filter(|asked| self.config.consumer_assignors.contains(asked));
        let assignor = assignor.unwrap_or_else(|| self.default_assignor());
        let mut targets = assignor.assign(&self.division(group, updated));
        tracing::info!(group = group.id, epoch, assignor = assignor.name(), "assigned partitions");
        for (member, target) in &targets {
            if group.targets.get(member) != Some(target) {
                let record = ConsumerRecord::MemberTarget(group.id.clone(), member.clone(), Some(target.clone()));
                records.push(CoordinatorRecord::Consumer(record));
            }
        }
        let record = TargetRecord { epoch, assigned_at: Some(now.wall) };
        records.push(CoordinatorRecord::Consumer(ConsumerRecord::Target(group.id.clone(), Some(record))));
        MemberTarget { epoch, partitions: targets.remove(&updated.id).unwrap_or_default() }
    }

    /// The first that is configured.
    pub(super) fn default_assignor(&self) -> Assignor {
        self.config.consumer_assignors.first().copied().unwrap_or(Assignor::Uniform)
    }

    fn division(&self, group: &ConsumerGroup, updated: &ConsumerMember) -> Division {
        let members = group.with_member(updated).map(|member| {
            let candidate = Candidate {
                instance_id: member.instance_id.clone(),
                topics: group.topic_ids(member, self.cluster.as_ref()),
                target: if member.id == updated.id {
                    group.inherited_target(updated).clone()
                } else {
                    group.target_of(&member.id).clone()
                },
            };
            (member.id.clone(), candidate)
        });
        let members: BTreeMap<String, Candidate> = members.collect();
        let ids: BTreeSet<_> = members.values().flat_map(|member| member.topics.iter().copied()).collect();
        let topics = ids.into_iter().filter_map(|id| {
            let name = self.cluster.topic_name(id)?;
            Some((id, self.cluster.topic(name)?.partitions))
        });
        Division { topics: topics.collect(), members }
    }
}

impl ConsumerGroup {
    /// What the member shall have until now: a static one that comes back under another id, what its predecessor had.
    pub(super) fn inherited_target(&self, member: &ConsumerMember) -> &PartitionSet {
        let holder = member.instance_id.as_ref().and_then(|instance| self.static_members.get(instance));
        self.target_of(holder.unwrap_or(&member.id))
    }
}
