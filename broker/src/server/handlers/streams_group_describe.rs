//! StreamsGroupDescribe (KIP-1071): streams groups in full.

use kafka_protocol::{error::ResponseError, protocol::StrBytes};

use super::{
    group_support::{group_error, text},
    streams_group_heartbeat::{is_served, task_ids},
};
use crate::{
    coordinator::{
        DescribedStreams, DescribedStreamsGroup, DescribedSubtopology, DescribedTopic, GroupError, StreamsError, Tasks,
    },
    server::{
        Broker, RequestContext,
        authorizer::{Access, Operation, Resource},
    },
    wire::later::{
        streams_group_describe::{
            Assignment, DescribedGroup, Member, StreamsGroupDescribeRequest, StreamsGroupDescribeResponse, Subtopology,
            Topology,
        },
        streams_group_heartbeat::{Endpoint, TopicInfo},
    },
};

pub(crate) async fn handle(
    broker: &Broker,
    context: &RequestContext,
    request: StreamsGroupDescribeRequest,
) -> StreamsGroupDescribeResponse {
    let access = broker.access(context);
    let is_enabled = is_served(broker);
    let groups = request.group_ids.into_iter().map(|group_id| {
        let refused = |error: ResponseError, message: Option<String>| DescribedGroup {
            error_code: error.code(),
            error_message: message.map(text),
            group_id: group_id.clone(),
            ..DescribedGroup::default()
        };
        if !is_enabled {
            return refused(ResponseError::UnsupportedVersion, None);
        }
        let resource = Resource::Group(&group_id);
        if let Err(error) = access.require(Operation::Describe, resource) {
            return refused(error, None);
        }
        match describe(broker, &group_id) {
            Ok(group) if hides_topics(&group, &access) => refused(
                ResponseError::TopicAuthorizationFailed,
                Some("The described group uses topics that the client is not authorized to describe.".to_owned()),
            ),
            Ok(group) => {
                let mut answer = described(group_id.clone(), group);
                if request.include_authorized_operations {
                    answer.authorized_operations = access.authorized_operations(resource);
                }
                answer
            }
            Err(error) => {
                let message = match &error {
                    StreamsError::Group(_) => None,
                    error => Some(error.to_string()),
                };
                refused(group_error(error.kind()), message)
            }
        }
    });
    StreamsGroupDescribeResponse { throttle_time_ms: 0, groups: groups.collect() }
}

/// Whether the group has a topic which the caller may not see: it is not described at all then, as in Kafka.
fn hides_topics(group: &DescribedStreamsGroup, access: &Access<'_>) -> bool {
    let is_hidden = |topic: &str| !access.shows(Operation::Describe, Resource::Topic(topic));
    access.is_checked()
        && group.topology.subtopologies.iter().any(|subtopology| {
            let named = subtopology.source_topics.iter().chain(&subtopology.repartition_sinks);
            let made = subtopology.repartition_sources.iter().chain(&subtopology.changelogs);
            named.chain(made.map(|topic| &topic.name)).any(|topic| is_hidden(topic))
        })
}

fn describe(broker: &Broker, group_id: &str) -> Result<DescribedStreamsGroup, StreamsError> {
    if group_id.is_empty() {
        return Err(GroupError::InvalidGroupId.into());
    }
    let seat = broker.groups.seat(broker, group_id)?;
    seat.read(|shard| shard.describe_streams(group_id)).map_err(GroupError::from)?
}

fn described(group_id: StrBytes, group: DescribedStreamsGroup) -> DescribedGroup {
    let subtopologies = group.topology.subtopologies.into_iter().map(subtopology).collect();
    DescribedGroup {
        group_id,
        group_state: text(group.state.name().to_owned()),
        group_epoch: group.epoch,
        assignment_epoch: group.assignment_epoch,
        topology: Some(Topology { epoch: group.topology.epoch, subtopologies }),
        members: group.members.into_iter().map(member).collect(),
        ..DescribedGroup::default()
    }
}

fn subtopology(of: DescribedSubtopology) -> Subtopology {
    let names = |names: Vec<String>| names.into_iter().map(text).collect();
    let topics = |topics: Vec<DescribedTopic>| topics.into_iter().map(topic).collect();
    Subtopology {
        subtopology_id: text(of.id),
        source_topics: names(of.source_topics),
        repartition_sink_topics: names(of.repartition_sinks),
        state_changelog_topics: topics(of.changelogs),
        repartition_source_topics: topics(of.repartition_sources),
    }
}

fn topic(of: DescribedTopic) -> TopicInfo {
    TopicInfo {
        name: text(of.name),
        partitions: of.partitions,
        replication_factor: of.replication_factor,
        topic_configs: of.configs.into_iter().map(|(key, value)| (text(key), text(value))).collect(),
    }
}

fn member(of: DescribedStreams) -> Member {
    Member {
        member_id: text(of.member_id),
        member_epoch: of.epoch.0,
        instance_id: of.instance_id.map(text),
        rack_id: of.rack_id.map(text),
        client_id: text(of.client_id),
        client_host: text(of.client_host),
        topology_epoch: of.topology_epoch,
        process_id: text(of.process_id),
        user_endpoint: of.endpoint.map(|endpoint| Endpoint { host: text(endpoint.host), port: endpoint.port }),
        client_tags: of.tags.into_iter().map(|(key, value)| (text(key), text(value))).collect(),
        assignment: assignment(of.assignment),
        target_assignment: assignment(of.target),
    }
}

fn assignment(tasks: Tasks) -> Assignment {
    Assignment {
        active_tasks: task_ids(tasks.active),
        standby_tasks: task_ids(tasks.standby),
        warmup_tasks: task_ids(tasks.warmup),
    }
}
