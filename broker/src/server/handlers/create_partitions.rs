//! CreatePartitions: a topic grows.

use std::collections::BTreeSet;

use kafka_protocol::{
    error::ResponseError,
    messages::{
        CreatePartitionsRequest, CreatePartitionsResponse, TopicName as WireTopicName,
        create_partitions_response::CreatePartitionsTopicResult,
    },
    protocol::StrBytes,
};
use varve_metadata::controller::GrowTopic;

use super::admin_errors::{deadline, grow_error, metadata_error, until_visible};
use crate::server::{Broker, RequestContext};

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
    let wanted: Vec<_> = request.topics.iter().filter(|topic| !repeated.contains(&topic.name)).collect();
    let topics: Vec<GrowTopic> = wanted
        .iter()
        .map(|topic| GrowTopic {
            name: topic.name.to_string(),
            count: topic.count,
            assignments: topic.assignments.as_ref().map(|assignments| {
                assignments.iter().map(|assigned| assigned.broker_ids.iter().map(|id| id.0).collect()).collect()
            }),
        })
        .collect();
    let deadline = deadline(context, request.timeout_ms);
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
    CreatePartitionsResponse::default().with_results(results)
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
