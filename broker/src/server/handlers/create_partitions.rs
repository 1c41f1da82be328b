//! CreatePartitions: a topic grows.

use std::collections::BTreeSet;

use kafka_protocol::{
    error::ResponseError,
    messages::{
        CreatePartitionsRequest, CreatePartitionsResponse, TopicName as WireTopicName,
        create_partitions_request::CreatePartitionsTopic, create_partitions_response::CreatePartitionsTopicResult,
    },
    protocol::StrBytes,
};
use tokio::time::Instant;
use varve_metadata::controller::GrowTopic;

use super::{
    admin_errors::{deadline, grow_error, metadata_error, until_visible},
    mutation_quota::Mutations,
};
use crate::server::{
    Broker, RequestContext,
    authorizer::{Operation, Resource},
};

/// First version whose clients know THROTTLING_QUOTA_EXCEEDED.
const STRICT_SINCE: i16 = 3;

pub(crate) async fn handle(
    broker: &Broker,
    context: &RequestContext,
    request: CreatePartitionsRequest,
) -> CreatePartitionsResponse {
    let (mut once, mut repeated) = (BTreeSet::new(), BTreeSet::new());
    for topic in &request.topics {
        if !once.insert(&topic.name) {
            repeated.insert(&topic.name);
        }
    }
    let duplicate = |name: &&WireTopicName| {
        result(name, Some((ResponseError::InvalidRequest, Some("Duplicate topic name.".to_owned()))))
    };
    let mut results: Vec<_> = repeated.iter().map(duplicate).collect();
    let access = broker.access(context);
    let (mut wanted, denied): (Vec<_>, Vec<_>) = request
        .topics
        .iter()
        .filter(|topic| !repeated.contains(&topic.name))
        .partition(|topic| access.allows(Operation::Alter, Resource::Topic(&topic.name)));
    let no_access = (ResponseError::TopicAuthorizationFailed, None);
    results.extend(denied.into_iter().map(|topic| result(&topic.name, Some(no_access.clone()))));
    let deadline = deadline(context, request.timeout_ms);
    let mut mutations = Mutations::of(broker, context, STRICT_SINCE);
    if mutations.are_counted() {
        results.extend(hold_back(broker, &mut wanted, deadline, &mut mutations).await);
    }
    let topics: Vec<GrowTopic> = wanted.iter().map(|topic| parse(topic)).collect();
    match broker.metadata.create_partitions(&topics, request.validate_only, deadline).await {
        Ok(grown) => {
            if !request.validate_only {
                until_visible(broker, deadline).await;
            }
            let answers = wanted
                .iter()
                .zip(grown)
                .map(|(topic, grown)| result(&topic.name, grown.err().map(|error| grow_error(&error))));
            results.extend(answers);
        }
        Err(error) => {
            let (code, message) = metadata_error(&error);
            results.extend(wanted.iter().map(|topic| result(&topic.name, Some((code, Some(message.clone()))))));
        }
    }
    CreatePartitionsResponse::default().with_throttle_time_ms(mutations.throttle_time_ms()).with_results(results)
}

fn parse(topic: &CreatePartitionsTopic) -> GrowTopic {
    GrowTopic {
        name: topic.name.to_string(),
        count: topic.count,
        assignments: topic.assignments.as_ref().map(|assignments| {
            assignments.iter().map(|assigned| assigned.broker_ids.iter().map(|id| id.0).collect()).collect()
        }),
    }
}

/// Takes the topics out of `wanted` that the client's quota does not allow to grow, and answers for them. Only what could grow
/// counts.
async fn hold_back(
    broker: &Broker,
    wanted: &mut Vec<&CreatePartitionsTopic>,
    deadline: Option<Instant>,
    mutations: &mut Mutations<'_>,
) -> Vec<CreatePartitionsTopicResult> {
    let image = broker.metadata.image();
    let topics: Vec<GrowTopic> = wanted.iter().map(|topic| parse(topic)).collect();
    let Ok(tried) = broker.metadata.create_partitions(&topics, true, deadline).await else { return Vec::new() };
    let mut tried = tried.into_iter();
    let mut held = Vec::new();
    wanted.retain(|topic| {
        let Some(Ok(())) = tried.next() else { return true };
        let now = image.topic(topic.name.as_str()).map_or(0, |topic| topic.partitions.len());
        match mutations.allow(usize::try_from(topic.count).unwrap_or(0).saturating_sub(now)) {
            Ok(()) => true,
            Err((error, message)) => {
                held.push(result(&topic.name, Some((error, Some(message)))));
                false
            }
        }
    });
    held
}

fn result(name: &WireTopicName, error: Option<(ResponseError, Option<String>)>) -> CreatePartitionsTopicResult {
    let result = CreatePartitionsTopicResult::default().with_name(name.clone());
    match error {
        None => result,
        Some((error, message)) => {
            result.with_error_code(error.code()).with_error_message(message.map(StrBytes::from_string))
        }
    }
}
