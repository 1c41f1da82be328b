//! ElectLeaders (KIP-183, KIP-460): the preferred replica leads again, or any that lives.

use kafka_protocol::{
    error::ResponseError,
    messages::{
        ElectLeadersRequest, ElectLeadersResponse,
        elect_leaders_response::{PartitionResult, ReplicaElectionResult},
    },
    protocol::StrBytes,
};
use varve_metadata::{
    controller::{ElectError, Election},
    image::ClusterImage,
};

use super::{
    admin_errors::{deadline, metadata_error, plain},
    cluster_view::topic_name,
};
use crate::server::{
    Broker, RequestContext,
    authorizer::{Operation, Resource},
};

/// First version that knows kinds of elections and answers with an error for the whole.
const KINDS_SINCE: i16 = 1;

pub(crate) async fn handle(
    broker: &Broker,
    context: &RequestContext,
    request: ElectLeadersRequest,
) -> ElectLeadersResponse {
    // The same for each partition, and for the whole: version 0 has no place for the latter.
    let refused_each = |error: ResponseError, message: &str| {
        let results = request.topic_partitions.iter().flatten().map(|topic| {
            let partitions = topic.partitions.iter().map(|index| {
                PartitionResult::default()
                    .with_partition_id(*index)
                    .with_error_code(error.code())
                    .with_error_message(Some(StrBytes::from_string(message.to_owned())))
            });
            ReplicaElectionResult::default().with_topic(topic.topic.clone()).with_partition_result(partitions.collect())
        });
        let whole = if context.api_version < KINDS_SINCE { 0 } else { error.code() };
        ElectLeadersResponse::default().with_error_code(whole).with_replica_election_results(results.collect())
    };
    if let Err(error) = broker.access(context).require(Operation::Alter, Resource::Cluster) {
        let (error, message) = plain(error);
        return refused_each(error, &message);
    }
    let election = match request.election_type {
        _ if context.api_version < KINDS_SINCE => Election::Preferred,
        0 => Election::Preferred,
        1 => Election::Unclean,
        unknown => return refused_each(ResponseError::InvalidRequest, &format!("Unknown election type {unknown}")),
    };
    let (named, is_all) = match &request.topic_partitions {
        Some(named) => {
            (named.iter().map(|topic| (topic.topic.to_string(), topic.partitions.clone())).collect::<Vec<_>>(), false)
        }
        None => (everything(&broker.metadata.image()), true),
    };
    let asked: Vec<(String, i32)> =
        named.iter().flat_map(|(topic, partitions)| partitions.iter().map(|index| (topic.clone(), *index))).collect();
    let elected = match broker.metadata.elect_leaders(election, &asked, deadline(context, request.timeout_ms)).await {
        Ok(elected) => elected,
        Err(error) => {
            let (error, message) = metadata_error(&error);
            return refused_each(error, &message);
        }
    };
    let mut elected = elected.into_iter();
    let results = named.into_iter().map(|(topic, partitions)| {
        let results = partitions.into_iter().zip(&mut elected);
        // Who asks for all of them wants to hear only of those that changed or could not.
        let told = results.filter(|(_, result)| !is_all || *result != Err(ElectError::NotNeeded));
        ReplicaElectionResult::default()
            .with_topic(topic_name(&topic))
            .with_partition_result(told.map(|(index, result)| answer(index, result)).collect())
    });
    ElectLeadersResponse::default().with_replica_election_results(results.collect())
}

fn everything(image: &ClusterImage) -> Vec<(String, Vec<i32>)> {
    let all = |count: usize| (0..count as i32).collect();
    image.topics().values().map(|topic| (topic.name.to_string(), all(topic.partitions.len()))).collect()
}

fn answer(index: i32, result: Result<(), ElectError>) -> PartitionResult {
    let answer = PartitionResult::default().with_partition_id(index).with_error_message(None);
    match result {
        Ok(()) => answer,
        Err(error) => answer
            .with_error_code(code(&error).code())
            .with_error_message(Some(StrBytes::from_string(error.to_string()))),
    }
}

fn code(error: &ElectError) -> ResponseError {
    match error {
        ElectError::UnknownTopic(_) | ElectError::UnknownPartition { .. } => ResponseError::UnknownTopicOrPartition,
        ElectError::NotNeeded => ResponseError::ElectionNotNeeded,
        ElectError::PreferredNotAvailable => ResponseError::PreferredLeaderNotAvailable,
        ElectError::NoneEligible => ResponseError::EligibleLeadersNotAvailable,
    }
}
