//! AlterPartitionReassignments (KIP-455, KIP-860): other brokers for a partition.

use kafka_protocol::{
    error::ResponseError,
    messages::{
        AlterPartitionReassignmentsRequest, AlterPartitionReassignmentsResponse,
        alter_partition_reassignments_response::{ReassignablePartitionResponse, ReassignableTopicResponse},
    },
    protocol::StrBytes,
};
use varve_metadata::controller::{ReassignError, Reassignment};

use super::admin_errors::{deadline, metadata_error, plain};
use crate::server::{
    Broker, RequestContext,
    authorizer::{Operation, Resource},
};

pub(crate) async fn handle(
    broker: &Broker,
    context: &RequestContext,
    request: AlterPartitionReassignmentsRequest,
) -> AlterPartitionReassignmentsResponse {
    let asked: Vec<Reassignment> = request
        .topics
        .iter()
        .flat_map(|topic| {
            topic.partitions.iter().map(|partition| Reassignment {
                topic: topic.name.to_string(),
                index: partition.partition_index,
                replicas: partition.replicas.as_ref().map(|replicas| replicas.iter().map(|id| id.0).collect()),
            })
        })
        .collect();
    let answer = AlterPartitionReassignmentsResponse::default()
        .with_error_message(None)
        .with_allow_replication_factor_change(request.allow_replication_factor_change);
    if let Err(error) = broker.access(context).require(Operation::Alter, Resource::Cluster) {
        let (error, message) = plain(error);
        let message = Some(StrBytes::from_string(message));
        let refused = request.topics.iter().map(|topic| {
            let partitions = topic.partitions.iter().map(|partition| {
                ReassignablePartitionResponse::default()
                    .with_partition_index(partition.partition_index)
                    .with_error_code(error.code())
                    .with_error_message(message.clone())
            });
            ReassignableTopicResponse::default().with_name(topic.name.clone()).with_partitions(partitions.collect())
        });
        let refused: Vec<_> = refused.collect();
        return answer.with_error_code(error.code()).with_error_message(message).with_responses(refused);
    }
    let keep_factor = !request.allow_replication_factor_change;
    let deadline = deadline(context, request.timeout_ms);
    let results = match broker.metadata.reassign_partitions(&asked, keep_factor, deadline).await {
        Ok(results) => results,
        Err(error) => {
            let (error, message) = metadata_error(&error);
            return answer.with_error_code(error.code()).with_error_message(Some(StrBytes::from_string(message)));
        }
    };
    let mut results = results.into_iter();
    let responses = request.topics.iter().map(|topic| {
        let partitions = topic.partitions.iter().zip(&mut results).map(|(partition, result)| {
            let response = ReassignablePartitionResponse::default()
                .with_partition_index(partition.partition_index)
                .with_error_message(None);
            match result {
                Ok(()) => response,
                // Kafka gives it no message.
                Err(error @ ReassignError::NothingInProgress) => response.with_error_code(code(&error).code()),
                Err(error) => response
                    .with_error_code(code(&error).code())
                    .with_error_message(Some(StrBytes::from_string(error.to_string()))),
            }
        });
        ReassignableTopicResponse::default().with_name(topic.name.clone()).with_partitions(partitions.collect())
    });
    answer.with_responses(responses.collect())
}

fn code(error: &ReassignError) -> ResponseError {
    match error {
        ReassignError::UnknownTopic(_) | ReassignError::UnknownPartition { .. } => {
            ResponseError::UnknownTopicOrPartition
        }
        ReassignError::NothingInProgress => ResponseError::NoReassignmentInProgress,
        ReassignError::Assignment(_) | ReassignError::Unclean { .. } | ReassignError::TooFewInSync { .. } => {
            ResponseError::InvalidReplicaAssignment
        }
        ReassignError::ReplicationFactor { .. } => ResponseError::InvalidReplicationFactor,
    }
}
