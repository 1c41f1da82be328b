//! A share group, as its records describe it.

use std::collections::{BTreeMap, BTreeSet};

use varve_metadata::model::{PartitionIndex, Timestamp, TopicId};

use crate::coordinator::{
    MemberEpoch,
    assignor::PartitionSet,
    cluster::ClusterView,
    records::{KeptPartitions, ShareCurrentRecord, ShareGroupRecord, ShareMemberRecord},
};

/// A member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ShareMember {
    pub(super) id: String,
    pub(super) epoch: MemberEpoch,
    pub(super) previous_epoch: MemberEpoch,
    pub(super) about: ShareMemberRecord,
    pub(super) assigned: PartitionSet,
}

impl ShareMember {
    /// A member that nothing is known of yet.
    pub(super) fn new(id: String) -> ShareMember {
        ShareMember {
            id,
            epoch: MemberEpoch::JOINING,
            previous_epoch: MemberEpoch::LEAVING,
            about: ShareMemberRecord::default(),
            assigned: PartitionSet::new(),
        }
    }

    pub(super) fn to_current(&self) -> ShareCurrentRecord {
        ShareCurrentRecord { epoch: self.epoch, previous_epoch: self.previous_epoch, assigned: self.assigned.clone() }
    }
}

/// A group.
#[derive(Clone, Debug)]
pub(in crate::coordinator) struct ShareGroup {
    pub(super) id: String,
    pub(super) epoch: i32,
    pub(super) metadata_hash: i64,
    pub(super) members: BTreeMap<String, ShareMember>,
    /// What every member shall have.
    pub(super) targets: BTreeMap<String, PartitionSet>,
    /// The group epoch for which that was decided; -1 if it never was.
    pub(super) assignment_epoch: i32,
    pub(super) assigned_at: Option<Timestamp>,
    pub(super) partitions: KeptPartitions,
    /// When keepers were last asked to begin, by topic. Not kept in the log: after a load they are asked again.
    pub(super) begun_at: BTreeMap<TopicId, Timestamp>,
    /// Topics may have changed since the group last looked; true after a load. Not kept in the log.
    pub(in crate::coordinator) must_look_at_topics: bool,
}

impl ShareGroup {
    pub(in crate::coordinator) fn new(id: String) -> ShareGroup {
        ShareGroup {
            id,
            epoch: 1,
            metadata_hash: 0,
            members: BTreeMap::new(),
            targets: BTreeMap::new(),
            assignment_epoch: -1,
            assigned_at: None,
            partitions: KeptPartitions::default(),
            begun_at: BTreeMap::new(),
            must_look_at_topics: true,
        }
    }

    pub(in crate::coordinator) fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    pub(in crate::coordinator) fn member_count(&self) -> usize {
        self.members.len()
    }

    /// Kafka's name of its state.
    pub(in crate::coordinator) fn state(&self) -> &'static str {
        if self.is_empty() { "Empty" } else { "Stable" }
    }

    pub(in crate::coordinator) fn is_subscribed(&self, topic: &str) -> bool {
        self.members.values().any(|member| member.about.topics.contains(topic))
    }

    pub(super) fn target_of(&self, member_id: &str) -> PartitionSet {
        self.targets.get(member_id).cloned().unwrap_or_default()
    }

    /// The members as they will be once `updated` is among them.
    pub(super) fn with_member<'a>(&'a self, updated: &'a ShareMember) -> impl Iterator<Item = &'a ShareMember> {
        self.members.values().filter(|member| member.id != updated.id).chain([updated])
    }

    /// How many partitions of each topic may be given to members: from the first on, those whose keepers have begun.
    pub(super) fn assignable(&self) -> BTreeMap<TopicId, u32> {
        let from_first = |partitions: &BTreeSet<PartitionIndex>| {
            (0..).zip(partitions).take_while(|(expected, index)| PartitionIndex(*expected) == **index).count() as u32
        };
        self.partitions.kept.iter().map(|(topic, share)| (*topic, from_first(&share.partitions))).collect()
    }

    /// Whether partitions that could be given to members are not.
    pub(super) fn has_unassigned(&self, cluster: &dyn ClusterView) -> bool {
        let mut assigned: BTreeMap<TopicId, BTreeSet<PartitionIndex>> = BTreeMap::new();
        for (topic, partitions) in self.targets.values().flatten() {
            assigned.entry(*topic).or_default().extend(partitions);
        }
        let is_read = |topic: TopicId| cluster.topic_name(topic).is_some_and(|name| self.is_subscribed(name));
        self.assignable().into_iter().filter(|(topic, _)| is_read(*topic)).any(|(topic, count)| {
            let given = assigned.get(&topic);
            given.map_or(0, BTreeSet::len) != count as usize
        })
    }

    /// The records that end the group, which has no members.
    pub(in crate::coordinator) fn end_records(&self) -> Vec<ShareGroupRecord> {
        vec![
            ShareGroupRecord::Target(self.id.clone(), None),
            ShareGroupRecord::Partitions(self.id.clone(), None),
            ShareGroupRecord::Group(self.id.clone(), None),
        ]
    }
}

/// The topics that a member subscribes to and that exist.
pub(super) fn topic_ids(member: &ShareMember, cluster: &dyn ClusterView) -> BTreeSet<TopicId> {
    member.about.topics.iter().filter_map(|name| Some(cluster.topic(name)?.id)).collect()
}
