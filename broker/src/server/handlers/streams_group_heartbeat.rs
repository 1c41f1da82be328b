//! StreamsGroupHeartbeat (KIP-1071): a member of a streams group joins with its topology, says what it has, and leaves.

use std::{collections::BTreeSet, time::Duration};

use kafka_protocol::{error::ResponseError, protocol::StrBytes};
use varve_metadata::{
    image::is_internal,
    model::{Feature, PartitionIndex, TopicName},
};

use super::{
    group_support::{mismatched, own, text},
    modern_groups::{Refused, interval_ms},
};
use crate::{
    coordinator::{
        self, Answer, EndpointPartitions, GroupError, InternalTopic, InternalTopicPlan, MemberEpoch, ModernGroupError,
        OwnedKind, StreamsAnswer, StreamsHeartbeat, StreamsStatus, TaskSet, TopicPartitions,
    },
    server::{
        Broker, RequestContext,
        authorizer::{Access, Operation, Resource},
        streams_topics,
    },
    wire::later::streams_group_heartbeat::{
        Endpoint, EndpointToPartitions, StreamsGroupHeartbeatRequest, StreamsGroupHeartbeatResponse, TaskIds,
        TopicInfo, TopicPartition, Topology,
    },
};

/// How many failures a status tells.
const FAILURES_SHOWN: usize = 3;

pub(crate) async fn handle(
    broker: &Broker,
    context: &RequestContext,
    request: StreamsGroupHeartbeatRequest,
) -> StreamsGroupHeartbeatResponse {
    let access = broker.access(context);
    if let Err(refused) = check(broker, &access, &request) {
        return answer_refused(refused);
    }
    match heartbeat(broker, context, request).await {
        Ok(told) => answered(broker, context, &access, told),
        Err(error) => answer_refused(error.into()),
    }
}

fn answer_refused(Refused { error, message }: Refused) -> StreamsGroupHeartbeatResponse {
    StreamsGroupHeartbeatResponse {
        error_code: error.code(),
        error_message: message,
        ..StreamsGroupHeartbeatResponse::default()
    }
}

/// Whether there are groups of the streams protocol: the configuration names it, and the cluster has agreed on it.
pub(super) fn is_served(broker: &Broker) -> bool {
    broker.config.groups.streams.enabled && broker.metadata.image().feature_level(Feature::STREAMS_VERSION.name) > 0
}

/// The group has to be readable, and the topics of a topology to be topics, nobody else's, and visible.
fn check(broker: &Broker, access: &Access<'_>, request: &StreamsGroupHeartbeatRequest) -> Result<(), Refused> {
    if !is_served(broker) {
        return Err(ResponseError::UnsupportedVersion.into());
    }
    access.require(Operation::Read, Resource::Group(&request.group_id))?;
    let Some(topology) = &request.topology else { return Ok(()) };
    let topics = topics_of(topology);
    let invalid =
        |message: String| Err(Refused { error: ResponseError::StreamsInvalidTopology, message: Some(text(message)) });
    let prohibited: Vec<&str> = topics.iter().copied().filter(|topic| is_internal(topic)).collect();
    if !prohibited.is_empty() {
        let names = prohibited.join(",");
        return invalid(format!("Use of Kafka internal topics {names} in a Kafka Streams topology is prohibited."));
    }
    let impossible: Vec<&str> = topics.iter().copied().filter(|topic| TopicName::parse(topic).is_err()).collect();
    if !impossible.is_empty() {
        return invalid(format!("Topic names {} are not valid topic names.", impossible.join(",")));
    }
    for topic in topics {
        access.require(Operation::Describe, Resource::Topic(topic))?;
    }
    Ok(())
}

/// Every topic of the topology once, in its order.
fn topics_of(topology: &Topology) -> Vec<&str> {
    let mut seen = BTreeSet::new();
    let all = topology.subtopologies.iter().flat_map(|subtopology| {
        let named = subtopology.source_topics.iter().chain(&subtopology.repartition_sink_topics).map(StrBytes::as_str);
        let made = subtopology.repartition_source_topics.iter().chain(&subtopology.state_changelog_topics);
        named.chain(made.map(|topic| topic.name.as_str()))
    });
    all.filter(|topic| seen.insert(*topic)).collect()
}

async fn heartbeat(
    broker: &Broker,
    context: &RequestContext,
    request: StreamsGroupHeartbeatRequest,
) -> Result<StreamsAnswer, ModernGroupError> {
    let request = heard(context, request);
    let seat = broker.groups.seat(broker, &request.group_id)?;
    match seat
        .ask(|shard, now, id, effects| shard.streams_heartbeat(now, id, request, effects))
        .await
        .map_err(GroupError::from)?
    {
        Answer::StreamsHeartbeat(outcome) => outcome,
        _ => Err(mismatched().into()),
    }
}

fn heard(context: &RequestContext, request: StreamsGroupHeartbeatRequest) -> StreamsHeartbeat {
    let kind = |tasks: Option<Vec<TaskIds>>| tasks.map(owned);
    StreamsHeartbeat {
        group_id: request.group_id.to_string(),
        member_id: request.member_id.to_string(),
        epoch: MemberEpoch(request.member_epoch),
        endpoint_epoch: request.endpoint_information_epoch,
        instance_id: own(&request.instance_id),
        rack_id: own(&request.rack_id),
        // -1 leaves it as it is.
        rebalance_timeout_ms: Some(request.rebalance_timeout_ms).filter(|timeout| *timeout != -1),
        topology: request.topology.map(topology),
        active: kind(request.active_tasks),
        standby: kind(request.standby_tasks),
        warmup: kind(request.warmup_tasks),
        process_id: own(&request.process_id),
        endpoint: request
            .user_endpoint
            .map(|endpoint| coordinator::Endpoint { host: endpoint.host.to_string(), port: endpoint.port }),
        tags: request.client_tags.map(pairs),
        has_task_offsets: request.has_task_offsets,
        has_task_end_offsets: request.has_task_end_offsets,
        shuts_down: request.shutdown_application,
        client_id: context.client_id().to_owned(),
        client_host: format!("/{}", context.peer.ip()),
    }
}

fn owned(tasks: Vec<TaskIds>) -> OwnedKind {
    let mut owned = OwnedKind::default();
    for ids in tasks {
        let subtopology = ids.subtopology_id.to_string();
        // A subtopology without tasks still says something in the first request, where there may be none.
        let of_subtopology = owned.tasks.entry(subtopology.clone()).or_default();
        for task in ids.partitions {
            match PartitionIndex::from_wire(task) {
                Some(task) => drop(of_subtopology.insert(task)),
                None => drop(owned.impossible.get_or_insert_with(|| (subtopology.clone(), task))),
            }
        }
    }
    owned
}

fn pairs(pairs: Vec<(StrBytes, StrBytes)>) -> Vec<(String, String)> {
    pairs.into_iter().map(|(key, value)| (key.to_string(), value.to_string())).collect()
}

fn topology(given: Topology) -> coordinator::Topology {
    let names = |names: Vec<StrBytes>| names.iter().map(ToString::to_string).collect();
    let topics = |topics: Vec<TopicInfo>| {
        let topic = |topic: TopicInfo| InternalTopic {
            name: topic.name.to_string(),
            partitions: topic.partitions,
            replication_factor: topic.replication_factor,
            configs: pairs(topic.topic_configs),
        };
        topics.into_iter().map(topic).collect()
    };
    let subtopologies = given.subtopologies.into_iter().map(|subtopology| coordinator::Subtopology {
        id: subtopology.subtopology_id.to_string(),
        source_topics: names(subtopology.source_topics),
        source_topic_regexes: names(subtopology.source_topic_regex),
        changelogs: topics(subtopology.state_changelog_topics),
        repartition_sinks: names(subtopology.repartition_sink_topics),
        repartition_sources: topics(subtopology.repartition_source_topics),
        copartition_groups: subtopology
            .copartition_groups
            .into_iter()
            .map(|group| coordinator::CopartitionGroup {
                source_topics: group.source_topics,
                source_topic_regexes: group.source_topic_regex,
                repartition_sources: group.repartition_source_topics,
            })
            .collect(),
    });
    coordinator::Topology { epoch: given.epoch, subtopologies: subtopologies.collect() }
}

fn answered(
    broker: &Broker,
    context: &RequestContext,
    access: &Access<'_>,
    told: StreamsAnswer,
) -> StreamsGroupHeartbeatResponse {
    let hint = make_topics(broker, context, access, told.missing_topics, told.heartbeat_interval);
    let status = told.status.iter().map(|status| {
        let (code, detail) = status.to_wire();
        match (status, &hint) {
            (StreamsStatus::MissingInternalTopics(_), Some(hint)) => (code, text(format!("{detail}; {hint}."))),
            _ => (code, text(detail.to_owned())),
        }
    });
    let (active, standby, warmup) = match told.tasks {
        Some(tasks) => (Some(tasks.active), Some(tasks.standby), Some(tasks.warmup)),
        None => (None, None, None),
    };
    StreamsGroupHeartbeatResponse {
        throttle_time_ms: 0,
        error_code: 0,
        error_message: None,
        member_id: text(told.member_id),
        member_epoch: told.epoch.0,
        heartbeat_interval_ms: interval_ms(told.heartbeat_interval),
        status: status.collect(),
        active_tasks: active.map(task_ids),
        standby_tasks: standby.map(task_ids),
        warmup_tasks: warmup.map(task_ids),
        endpoint_information_epoch: told.endpoint_epoch,
        partitions_by_user_endpoint: told.endpoints.map(|endpoints| endpoints.into_iter().map(endpoint).collect()),
    }
}

/// Has topics made, if the client may; else says what stands against it.
fn make_topics(
    broker: &Broker,
    context: &RequestContext,
    access: &Access<'_>,
    missing: Vec<InternalTopicPlan>,
    heartbeat_interval: Duration,
) -> Option<String> {
    if missing.is_empty() {
        return None;
    }
    let names: Vec<String> = missing.iter().map(|topic| topic.name.clone()).collect();
    if !access.shows(Operation::Create, Resource::Cluster) {
        let may_make = |topic: &str| access.allows(Operation::Create, Resource::Topic(topic));
        let denied: Vec<&str> = names.iter().map(String::as_str).filter(|topic| !may_make(topic)).collect();
        if !denied.is_empty() {
            return Some(format!("Unauthorized to CREATE on topics {}", denied.join(", ")));
        }
    }
    streams_topics::begin_to_make(broker, context, missing, heartbeat_interval * 2);
    let failures = broker.streams_topics.failures(names.iter().map(String::as_str));
    if failures.is_empty() {
        return None;
    }
    let shown: Vec<String> =
        failures.iter().take(FAILURES_SHOWN).map(|(topic, why)| format!("{topic} ({why})")).collect();
    let more = failures.len() - shown.len();
    let rest = if more > 0 { format!(" and {more} more") } else { String::new() };
    Some(format!("Creation failed: {}{rest}", shown.join(", ")))
}

pub(super) fn task_ids(tasks: TaskSet) -> Vec<TaskIds> {
    let of = |(subtopology, tasks): (String, BTreeSet<PartitionIndex>)| TaskIds {
        subtopology_id: text(subtopology),
        partitions: tasks.into_iter().map(PartitionIndex::to_wire).collect(),
    };
    tasks.into_iter().map(of).collect()
}

fn endpoint(behind: EndpointPartitions) -> EndpointToPartitions {
    let partitions = |topics: Vec<TopicPartitions>| {
        let of = |topic: TopicPartitions| TopicPartition {
            topic: text(topic.topic),
            partitions: topic.partitions.into_iter().map(PartitionIndex::to_wire).collect(),
        };
        topics.into_iter().map(of).collect()
    };
    EndpointToPartitions {
        user_endpoint: Endpoint { host: text(behind.endpoint.host), port: behind.endpoint.port },
        active_partitions: partitions(behind.active),
        standby_partitions: partitions(behind.standby),
    }
}
