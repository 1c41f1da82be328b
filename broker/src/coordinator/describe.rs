//! What can be read about groups without changing them.

use super::{
    ConsumerGroupState, DescribedGroup, DescribedMember, GroupFilter, GroupState, GroupType, ListedGroup, Shard,
    ShardStats, StreamsGroupState, TopicOffsets, group::Member, subscription::CONSUMER,
};

/// The protocol type of Kafka Streams applications.
const STREAMS: &str = "streams";

impl Shard {
    /// The classic group in full; `None` if there is none.
    pub fn describe(&self, group_id: &str) -> Option<DescribedGroup> {
        let group = self.groups.get(group_id).filter(|group| group.state != GroupState::Dead)?;
        // What members sent means something only under a protocol that is in force.
        let protocol = group.protocol_name.as_deref().filter(|_| group.state == GroupState::Stable);
        let described = |member: &Member| DescribedMember {
            member_id: member.id.clone(),
            instance_id: member.instance_id.clone(),
            client_id: member.client_id.clone(),
            client_host: member.client_host.clone(),
            metadata: protocol.map(|name| member.metadata(name)).unwrap_or_default(),
            assignment: member.assignment.clone(),
        };
        Some(DescribedGroup {
            state: group.state,
            protocol_type: group.protocol_type.clone().unwrap_or_default(),
            protocol_name: protocol.unwrap_or_default().to_owned(),
            members: group.members.values().map(described).collect(),
        })
    }

    /// Whether there is a group of another type than DescribeGroups is about.
    pub fn is_not_classic(&self, group_id: &str) -> bool {
        self.consumers.contains_key(group_id)
            || self.shares.contains_key(group_id)
            || self.streams.contains_key(group_id)
    }

    /// Whether there is a group of that name, of whatever type.
    pub(super) fn has_group(&self, group_id: &str) -> bool {
        self.groups.contains_key(group_id) || self.is_not_classic(group_id)
    }

    /// The groups that pass `filter`, classic ones first and share groups last, by id.
    pub fn list(&self, filter: &GroupFilter) -> Vec<ListedGroup> {
        let is_wanted = |names: &[String], name: &str| {
            names.is_empty() || names.iter().any(|wanted| wanted.trim().eq_ignore_ascii_case(name))
        };
        let is_listed = |group: &ListedGroup| {
            is_wanted(&filter.states, group.state) && is_wanted(&filter.types, group.group_type.name())
        };
        let alive = self.groups.values().filter(|group| group.state != GroupState::Dead);
        let classic = alive.map(|group| ListedGroup {
            group_id: group.id.clone(),
            protocol_type: group.protocol_type.clone().unwrap_or_default(),
            state: group.state.name(),
            group_type: GroupType::Classic,
        });
        let consumer = self.consumers.iter().map(|(id, group)| ListedGroup {
            group_id: id.clone(),
            protocol_type: CONSUMER.to_owned(),
            state: group.state().name(),
            group_type: GroupType::Consumer,
        });
        let streams = self.streams.iter().map(|(id, group)| ListedGroup {
            group_id: id.clone(),
            protocol_type: STREAMS.to_owned(),
            state: group.state().name(),
            group_type: GroupType::Streams,
        });
        let share = self.shares.iter().map(|(id, group)| ListedGroup {
            group_id: id.clone(),
            protocol_type: GroupType::Share.name().to_owned(),
            state: group.state(),
            group_type: GroupType::Share,
        });
        classic.chain(consumer).chain(streams).chain(share).filter(is_listed).collect()
    }

    /// The committed offsets of every group.
    pub fn all_committed(&self) -> impl Iterator<Item = (&String, &TopicOffsets)> {
        self.offsets.iter()
    }

    /// Numbers for metrics; costs a walk over all groups.
    pub fn stats(&self) -> ShardStats {
        let mut stats = ShardStats { completed_rebalances: self.completed_rebalances, ..ShardStats::default() };
        for group in self.groups.values() {
            stats.groups += 1;
            stats.members += group.members.len() as u64;
            match group.state {
                GroupState::Stable => stats.stable_groups += 1,
                GroupState::PreparingRebalance | GroupState::CompletingRebalance => stats.rebalancing_groups += 1,
                GroupState::Empty => stats.empty_groups += 1,
                GroupState::Dead => {}
            }
        }
        for group in self.consumers.values() {
            stats.groups += 1;
            stats.members += group.member_count() as u64;
            match group.state() {
                ConsumerGroupState::Stable => stats.stable_groups += 1,
                ConsumerGroupState::Empty => stats.empty_groups += 1,
                ConsumerGroupState::Assigning | ConsumerGroupState::Reconciling => stats.rebalancing_groups += 1,
            }
        }
        for group in self.shares.values() {
            stats.groups += 1;
            stats.members += group.member_count() as u64;
            match group.is_empty() {
                true => stats.empty_groups += 1,
                false => stats.stable_groups += 1,
            }
        }
        for group in self.streams.values() {
            stats.groups += 1;
            stats.members += group.member_count() as u64;
            match group.state() {
                StreamsGroupState::Stable => stats.stable_groups += 1,
                StreamsGroupState::Empty => stats.empty_groups += 1,
                StreamsGroupState::NotReady | StreamsGroupState::Assigning | StreamsGroupState::Reconciling => {
                    stats.rebalancing_groups += 1;
                }
            }
        }
        let per_group = self.offsets.values().flat_map(|topics| topics.values());
        stats.offsets = per_group.map(|partitions| partitions.len() as u64).sum();
        stats
    }
}
