//! What can be read about groups without changing them.

use super::{
    DescribedGroup, DescribedMember, GroupFilter, GroupState, ListedGroup, Shard, ShardStats,
    group::{Group, Member},
};

impl Shard {
    /// The group in full; `None` if there is none.
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

    /// The groups that pass `filter`, by id.
    pub fn list(&self, filter: &GroupFilter) -> Vec<ListedGroup> {
        let is_wanted = |names: &[String], name: &str| {
            names.is_empty() || names.iter().any(|wanted| wanted.trim().eq_ignore_ascii_case(name))
        };
        let is_listed = |group: &&Group| {
            group.state != GroupState::Dead
                && is_wanted(&filter.states, group.state.name())
                && is_wanted(&filter.types, "classic")
        };
        let listed = |group: &Group| ListedGroup {
            group_id: group.id.clone(),
            protocol_type: group.protocol_type.clone().unwrap_or_default(),
            state: group.state,
        };
        self.groups.values().filter(is_listed).map(listed).collect()
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
        let per_group = self.offsets.values().flat_map(|topics| topics.values());
        stats.offsets = per_group.map(|partitions| partitions.len() as u64).sum();
        stats
    }
}
