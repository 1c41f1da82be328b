//! What a group subscribes to, as it is or as it will be.

use std::collections::BTreeSet;

use varve_metadata::model::TopicId;

use super::{group::ConsumerGroup, member::ConsumerMember};
use crate::coordinator::cluster::ClusterView;

impl ConsumerGroup {
    /// The names that all of `members` subscribe to, patterns included; `dropped` names patterns that no longer count.
    pub(super) fn topics_of<'a>(
        &self,
        members: impl Iterator<Item = &'a ConsumerMember>,
        dropped: &BTreeSet<String>,
    ) -> BTreeSet<String> {
        let mut topics: BTreeSet<String> = members.flat_map(|member| member.topics.iter().cloned()).collect();
        let resolved = self.regexes.iter().filter(|(regex, _)| !dropped.contains(*regex));
        topics.extend(resolved.flat_map(|(_, regex)| regex.topics.iter().cloned()));
        topics
    }

    /// The members as they will be once `updated` is among them, in the place of whoever holds its instance id.
    pub(super) fn with_member<'a>(&'a self, updated: &'a ConsumerMember) -> impl Iterator<Item = &'a ConsumerMember> {
        let replaced = updated.instance_id.as_ref().and_then(|instance| self.static_members.get(instance));
        let others =
            self.members.values().filter(move |member| member.id != updated.id && Some(&member.id) != replaced);
        others.chain([updated])
    }

    /// The topics that the member subscribes to and that exist. A pattern that is not resolved yet matches none.
    pub(super) fn topic_ids(&self, member: &ConsumerMember, cluster: &dyn ClusterView) -> BTreeSet<TopicId> {
        let resolved = member.pattern().and_then(|pattern| self.regexes.get(pattern));
        let by_pattern = resolved.into_iter().flat_map(|regex| &regex.topics);
        let ids = member.topics.iter().chain(by_pattern).filter_map(|name| cluster.topic(name));
        ids.map(|topic| topic.id).collect()
    }
}
