//! CreateTopics.

use std::collections::{BTreeMap, BTreeSet};

use kafka_protocol::{
    error::ResponseError,
    messages::{
        CreateTopicsRequest, CreateTopicsResponse, TopicName as WireTopicName,
        create_topics_request::CreatableTopic,
        create_topics_response::{CreatableTopicConfigs, CreatableTopicResult},
    },
    protocol::StrBytes,
};
use tokio::time::Instant;
use varve_metadata::{
    controller::{CreationDefaults, ManualPartition, NewTopic, Placement, PlacementError},
    image::TopicImage,
};

use super::{
    admin_errors::{create_topic_error, deadline, metadata_error, until_visible},
    cluster_view::text,
    config_view::ConfigView,
    mutation_quota::Mutations,
};
use crate::server::{
    Broker, RequestContext,
    authorizer::{Operation, Resource},
};

/// The topic of KRaft's own log, which Varve does not have, but whose name nobody may take either.
const CLUSTER_METADATA_TOPIC: &str = "__cluster_metadata";

/// First version whose clients know THROTTLING_QUOTA_EXCEEDED.
const STRICT_SINCE: i16 = 6;

pub(crate) async fn handle(
    broker: &Broker,
    context: &RequestContext,
    request: CreateTopicsRequest,
) -> CreateTopicsResponse {
    let access = broker.access(context);
    let creates_any = access.shows(Operation::Create, Resource::Cluster);
    let may_create = |name: &str| creates_any || access.allows(Operation::Create, Resource::Topic(name));
    let (mut results, mut wanted) = sort(&request, &may_create);
    let deadline = deadline(context, request.timeout_ms);
    let defaults = creation_defaults(broker);
    let mut mutations = Mutations::of(broker, context, STRICT_SINCE);
    if mutations.are_counted() {
        results.extend(hold_back(broker, &mut wanted, deadline, &mut mutations).await);
    }
    let topics: Vec<NewTopic> = wanted.iter().map(|topic| parse(topic)).collect();
    let created = broker.metadata.create_topics(&topics, defaults, request.validate_only, deadline).await;
    match created {
        Ok(created) => {
            if !request.validate_only {
                until_visible(broker, deadline).await;
            }
            let configs = ConfigView::of(broker);
            results.extend(wanted.iter().zip(created).map(|(topic, created)| match created {
                Ok(created) if access.shows(Operation::DescribeConfigs, Resource::Topic(created.name.as_str())) => {
                    success(&configs, &created)
                }
                Ok(created) => unseen(&created),
                Err(error) => refused(&topic.name, create_topic_error(&error)),
            }));
        }
        Err(error) => {
            let error = metadata_error(&error);
            results.extend(wanted.iter().map(|topic| refused(&topic.name, error.clone())));
        }
    }
    CreateTopicsResponse::default().with_throttle_time_ms(mutations.throttle_time_ms()).with_topics(results)
}

/// Takes the topics out of `wanted` that the client's quota does not allow, and answers for them. Only what could be made
/// counts, so the others are told what is wrong with them first.
async fn hold_back(
    broker: &Broker,
    wanted: &mut Vec<&CreatableTopic>,
    deadline: Option<Instant>,
    mutations: &mut Mutations<'_>,
) -> Vec<CreatableTopicResult> {
    let topics: Vec<NewTopic> = wanted.iter().map(|topic| parse(topic)).collect();
    let Ok(tried) = broker.metadata.create_topics(&topics, creation_defaults(broker), true, deadline).await else {
        return Vec::new();
    };
    let mut tried = tried.into_iter();
    let mut held = Vec::new();
    wanted.retain(|topic| {
        let Some(Ok(possible)) = tried.next() else { return true };
        match mutations.allow(possible.partitions.len()) {
            Ok(()) => true,
            Err(refusal) => {
                held.push(refused(&topic.name, refusal));
                false
            }
        }
    });
    held
}

/// What a topic gets whose request does not say.
pub(in crate::server) fn creation_defaults(broker: &Broker) -> CreationDefaults {
    let topics = &broker.config.topics;
    CreationDefaults {
        partitions: topics.partitions,
        replication_factor: u16::try_from(topics.replication_factor).unwrap_or(u16::MAX),
    }
}

/// Topics that are asked for once, and answers for the rest.
fn sort<'a>(
    request: &'a CreateTopicsRequest,
    may_create: &dyn Fn(&str) -> bool,
) -> (Vec<CreatableTopicResult>, Vec<&'a CreatableTopic>) {
    let (mut once, mut repeated) = (BTreeSet::new(), BTreeSet::new());
    for topic in &request.topics {
        if !once.insert(&topic.name) {
            repeated.insert(&topic.name);
        }
    }
    let duplicate = || (ResponseError::InvalidRequest, "Duplicate topic name.".to_owned());
    let mut results: Vec<CreatableTopicResult> = repeated.iter().map(|name| refused(name, duplicate())).collect();
    let mut wanted = Vec::new();
    for topic in request.topics.iter().filter(|topic| !repeated.contains(&topic.name)) {
        if topic.name.as_str() == CLUSTER_METADATA_TOPIC {
            let message = format!("Creation of internal topic {CLUSTER_METADATA_TOPIC} is prohibited.");
            results.push(refused(&topic.name, (ResponseError::InvalidRequest, message)));
        } else if !may_create(&topic.name) {
            let denied = (ResponseError::TopicAuthorizationFailed, "Authorization failed.".to_owned());
            results.push(refused(&topic.name, denied));
        } else {
            wanted.push(topic);
        }
    }
    (results, wanted)
}

fn parse(topic: &CreatableTopic) -> NewTopic {
    let overrides: BTreeMap<String, Option<String>> = topic
        .configs
        .iter()
        .map(|config| (config.name.to_string(), config.value.as_ref().map(ToString::to_string)))
        .collect();
    NewTopic { name: topic.name.to_string(), placement: parse_placement(topic), overrides }
}

fn parse_placement(topic: &CreatableTopic) -> Result<Placement, PlacementError> {
    if !topic.assignments.is_empty() {
        if topic.replication_factor != -1 {
            return Err(PlacementError::ManualWithReplicationFactor);
        }
        if topic.num_partitions != -1 {
            return Err(PlacementError::ManualWithPartitions);
        }
        let manual = topic.assignments.iter().map(|assigned| ManualPartition {
            index: assigned.partition_index,
            replicas: assigned.broker_ids.iter().map(|id| id.0).collect(),
        });
        return Ok(Placement::Manual(manual.collect()));
    }
    let replication_factor = match topic.replication_factor {
        -1 => None,
        given => Some(u16::try_from(given).ok().filter(|&factor| factor > 0).ok_or(PlacementError::ReplicationFactor)?),
    };
    let partitions = match topic.num_partitions {
        -1 => None,
        given => Some(u32::try_from(given).ok().filter(|&count| count > 0).ok_or(PlacementError::Partitions)?),
    };
    Ok(Placement::Spread { partitions, replication_factor })
}

fn success(configs: &ConfigView<'_>, topic: &TopicImage) -> CreatableTopicResult {
    let settings = configs.topic(topic).into_iter().map(|setting| {
        // What was asked for is repeated as it was written; DescribeConfigs shows what it was read as.
        let given = topic.overrides.get(setting.name.as_str()).filter(|_| !setting.sensitive);
        CreatableTopicConfigs::default()
            .with_name(setting.name)
            .with_value(given.map(|value| text(value)).or(setting.value))
            .with_read_only(false)
            .with_config_source(setting.source.id())
            .with_is_sensitive(setting.sensitive)
    });
    CreatableTopicResult::default()
        .with_name(WireTopicName(text(topic.name.as_str())))
        // Kafka gives an id even if the topic was only validated.
        .with_topic_id(topic.id.to_wire())
        .with_error_message(None)
        .with_num_partitions(topic.partitions.len() as i32)
        .with_replication_factor(topic.replication_factor() as i16)
        .with_configs(Some(settings.collect()))
}

/// A topic that was made by somebody who may not see its settings.
fn unseen(topic: &TopicImage) -> CreatableTopicResult {
    CreatableTopicResult::default()
        .with_name(WireTopicName(text(topic.name.as_str())))
        .with_topic_id(topic.id.to_wire())
        .with_error_message(None)
        .with_topic_config_error_code(ResponseError::TopicAuthorizationFailed.code())
        .with_num_partitions(-1)
        .with_replication_factor(-1)
        .with_configs(Some(Vec::new()))
}

fn refused(name: &WireTopicName, (error, message): (ResponseError, String)) -> CreatableTopicResult {
    // Kafka leaves a timeout without words.
    let message = Some(message).filter(|_| error != ResponseError::RequestTimedOut);
    CreatableTopicResult::default()
        .with_name(name.clone())
        .with_error_code(error.code())
        .with_error_message(message.map(StrBytes::from_string))
        .with_configs(Some(Vec::new()))
}
