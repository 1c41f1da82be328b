//! StreamsGroupDescribe (KIP-1071): streams groups in full.

use kafka_protocol::protocol::StrBytes;

use super::{
    group_support::text,
    modern_groups::{Refused, check_shown, describe},
    streams_group_heartbeat::{is_served, task_ids},
};
use crate::{
    coordinator::{DescribedStreams, DescribedStreamsGroup, DescribedSubtopology, DescribedTopic, Tasks},
    server::{Broker, RequestContext, authorizer::Resource},
    wire::later::{
        streams_group_describe::{
            Assignment, DescribedGroup, Member, StreamsGroupDescribeRequest, StreamsGroupDescribeResponse, Subtopology,
            Topology,
        },
        streams_group_heartbeat::{Endpoint, TopicInfo},
    },
};

/// What is said of a group that is hidden.
const HIDDEN_TOPICS: &str = "The described group uses topics that the client is not authorized to describe.";

pub(crate) async fn handle(
    broker: &Broker,
    context: &RequestContext,
    request: StreamsGroupDescribeRequest,
) -> StreamsGroupDescribeResponse {
    let access = broker.access(context);
    let is_enabled = is_served(broker);
    let groups = request.group_ids.into_iter().map(|group_id| {
        let group = describe(broker, &access, is_enabled, &group_id, |shard| shard.describe_streams(&group_id));
        let told = group.and_then(|group| {
            check_shown(&access, topics_of(&group), HIDDEN_TOPICS)?;
            let mut answer = described(group_id.clone(), group);
            if request.include_authorized_operations {
                answer.authorized_operations = access.authorized_operations(Resource::Group(&group_id));
            }
            Ok(answer)
        });
        told.unwrap_or_else(|Refused { error, message }| DescribedGroup {
            error_code: error.code(),
            error_message: message,
            group_id,
            ..DescribedGroup::default()
        })
    });
    StreamsGroupDescribeResponse { throttle_time_ms: 0, groups: groups.collect() }
}

fn topics_of(group: &DescribedStreamsGroup) -> impl Iterator<Item = &str> {
    group.topology.subtopologies.iter().flat_map(|subtopology| {
        let named = subtopology.source_topics.iter().chain(&subtopology.repartition_sinks);
        let made = subtopology.repartition_sources.iter().chain(&subtopology.changelogs);
        named.chain(made.map(|topic| &topic.name)).map(String::as_str)
    })
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
