//! Which partitions are behind which endpoint, for interactive queries.

use std::collections::BTreeSet;

use varve_metadata::model::PartitionIndex;

use super::{
    configure::Configured,
    group::StreamsGroup,
    member::{Endpoint, StreamsMember},
    tasks::{TaskSet, keys},
};
use crate::coordinator::{TopicPartitions, cluster::ClusterView};

/// What a member has behind its endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointPartitions {
    /// Where it answers.
    pub endpoint: Endpoint,
    /// What it processes.
    pub active: Vec<TopicPartitions>,
    /// What it keeps copies of.
    pub standby: Vec<TopicPartitions>,
}

/// The endpoints of all members, as they are once `updated` is among them; it comes last.
pub(super) fn endpoints(
    group: &StreamsGroup,
    updated: &StreamsMember,
    configured: &Configured,
    cluster: &dyn ClusterView,
) -> Vec<EndpointPartitions> {
    let others = group.members.values().filter(|member| member.id != updated.id);
    let of_member = |member: &StreamsMember| {
        Some(EndpointPartitions {
            endpoint: member.endpoint.clone()?,
            active: partitions(&keys(&member.assigned.active), configured, cluster),
            standby: partitions(&member.assigned.standby, configured, cluster),
        })
    };
    others.chain([updated]).filter_map(of_member).collect()
}

/// The partitions that tasks read. A topic that has fewer than the subtopology has tasks is not read by all of them.
fn partitions(tasks: &TaskSet, configured: &Configured, cluster: &dyn ClusterView) -> Vec<TopicPartitions> {
    let mut read = Vec::new();
    for (subtopology, tasks) in tasks {
        let Some(subtopology) = configured.subtopologies.get(subtopology) else { continue };
        for topic in subtopology.sources() {
            let count = cluster.topic(topic).map_or(0, |facts| facts.partitions);
            let partitions: BTreeSet<PartitionIndex> = tasks.iter().copied().filter(|task| task.0 < count).collect();
            read.push(TopicPartitions { topic: topic.to_owned(), partitions: partitions.into_iter().collect() });
        }
    }
    read
}
