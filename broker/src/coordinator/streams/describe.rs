//! What can be read about streams groups without changing them (StreamsGroupDescribe).

use std::collections::{BTreeMap, BTreeSet};

use super::{
    configure::{Configured, InternalTopicPlan},
    group::{StreamsGroup, StreamsGroupState},
    member::{Endpoint, StreamsMember},
    tasks::Tasks,
    topology::{InternalTopic, Subtopology, Topology},
};
use crate::coordinator::{GroupError, MemberEpoch, ModernGroupError, Shard};

/// A streams group in full.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DescribedStreamsGroup {
    /// Its state.
    pub state: StreamsGroupState,
    /// Its epoch.
    pub epoch: i32,
    /// The epoch of its target assignment.
    pub assignment_epoch: i32,
    /// What its members run.
    pub topology: DescribedTopology,
    /// Its members.
    pub members: Vec<DescribedStreams>,
}

/// A topology with its topics as they are, or as far as it says itself while they are not decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DescribedTopology {
    /// Its epoch.
    pub epoch: i32,
    /// In the order of their ids.
    pub subtopologies: Vec<DescribedSubtopology>,
}

/// A subtopology; every list in the order of the names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DescribedSubtopology {
    /// Its id.
    pub id: String,
    /// Topics that it reads.
    pub source_topics: Vec<String>,
    /// Repartition topics that it writes.
    pub repartition_sinks: Vec<String>,
    /// Topics that keep its state.
    pub changelogs: Vec<DescribedTopic>,
    /// Repartition topics that it reads.
    pub repartition_sources: Vec<DescribedTopic>,
}

/// A topic of the application's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DescribedTopic {
    /// Its name.
    pub name: String,
    /// 0 if that is not decided.
    pub partitions: i32,
    /// 0 for the broker's default.
    pub replication_factor: i16,
    /// Its settings.
    pub configs: Vec<(String, String)>,
}

/// A member in full.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DescribedStreams {
    /// Its id.
    pub member_id: String,
    /// How far it has come.
    pub epoch: MemberEpoch,
    /// Its instance id, if a record has one.
    pub instance_id: Option<String>,
    /// `client.rack`.
    pub rack_id: Option<String>,
    /// From the header of its last request.
    pub client_id: String,
    /// The client's address.
    pub client_host: String,
    /// Of the topology that it runs.
    pub topology_epoch: i32,
    /// Its process.
    pub process_id: String,
    /// Where its process answers queries.
    pub endpoint: Option<Endpoint>,
    /// For assignors that know racks.
    pub tags: BTreeMap<String, String>,
    /// What it has.
    pub assignment: Tasks,
    /// What it shall have.
    pub target: Tasks,
}

impl Shard {
    /// A streams group in full.
    ///
    /// # Errors
    /// There is none of that name.
    pub fn describe_streams(&self, group_id: &str) -> Result<DescribedStreamsGroup, ModernGroupError> {
        let group = self.existing_streams(group_id)?;
        let topology = group.topology.as_deref().ok_or(GroupError::Unexpected)?;
        let configured = group.configured.as_deref().filter(|configured| configured.is_ready());
        Ok(DescribedStreamsGroup {
            state: group.state(),
            epoch: group.epoch,
            assignment_epoch: group.assignment_epoch,
            topology: DescribedTopology {
                epoch: topology.epoch,
                subtopologies: configured.map_or_else(|| as_said(topology), as_decided),
            },
            members: group.members.values().map(|member| described(group, member)).collect(),
        })
    }
}

fn as_said(topology: &Topology) -> Vec<DescribedSubtopology> {
    let sorted = |names: &[String]| {
        let mut names = names.to_vec();
        names.sort();
        names
    };
    let topics = |topics: &[InternalTopic]| {
        let mut topics: Vec<DescribedTopic> = topics
            .iter()
            .map(|topic| DescribedTopic {
                name: topic.name.clone(),
                partitions: topic.partitions,
                replication_factor: topic.replication_factor,
                configs: topic.configs.clone(),
            })
            .collect();
        topics.sort_by(|one, other| one.name.cmp(&other.name));
        topics
    };
    let of = |subtopology: &Subtopology| DescribedSubtopology {
        id: subtopology.id.clone(),
        source_topics: sorted(&subtopology.source_topics),
        repartition_sinks: sorted(&subtopology.repartition_sinks),
        changelogs: topics(&subtopology.changelogs),
        repartition_sources: topics(&subtopology.repartition_sources),
    };
    topology.by_id().into_values().map(of).collect()
}

fn as_decided(configured: &Configured) -> Vec<DescribedSubtopology> {
    let names = |names: &BTreeSet<String>| names.iter().cloned().collect();
    let topics = |topics: &BTreeMap<String, InternalTopicPlan>| {
        let of = |topic: &InternalTopicPlan| DescribedTopic {
            name: topic.name.clone(),
            partitions: i32::try_from(topic.partitions).unwrap_or(i32::MAX),
            replication_factor: topic.replication_factor.unwrap_or(0),
            configs: topic.configs.clone().into_iter().collect(),
        };
        topics.values().map(of).collect()
    };
    let of = |(id, subtopology): (&String, &super::configure::ConfiguredSubtopology)| DescribedSubtopology {
        id: id.clone(),
        source_topics: names(&subtopology.source_topics),
        repartition_sinks: names(&subtopology.repartition_sinks),
        changelogs: topics(&subtopology.changelogs),
        repartition_sources: topics(&subtopology.repartition_sources),
    };
    configured.subtopologies.iter().map(of).collect()
}

fn described(group: &StreamsGroup, member: &StreamsMember) -> DescribedStreams {
    DescribedStreams {
        member_id: member.id.clone(),
        epoch: member.epoch,
        instance_id: member.instance_id.clone(),
        rack_id: member.rack_id.clone(),
        client_id: member.client_id.clone(),
        client_host: member.client_host.clone(),
        topology_epoch: member.topology_epoch,
        process_id: member.process_id.clone(),
        endpoint: member.endpoint.clone(),
        tags: member.tags.clone(),
        assignment: member.assigned.without_epochs(),
        target: group.target_of(&member.id),
    }
}
