//! OffsetDelete: forgets where a group was in topics that it no longer reads (KIP-496).

use std::collections::HashMap;

use kafka_protocol::{
    error::ResponseError,
    messages::{
        OffsetDeleteRequest, OffsetDeleteResponse,
        offset_delete_response::{OffsetDeleteResponsePartition, OffsetDeleteResponseTopic},
    },
};
use varve_metadata::{image::ClusterImage, model::PartitionIndex};

use super::group_support::{group_error, member_seat, mismatched};
use crate::{
    coordinator::{Answer, CommitAnswer, GroupError, PartitionOutcomes, TopicPartitions},
    server::{
        Broker, RequestContext,
        authorizer::{Operation, Resource},
    },
};

pub(crate) async fn handle(
    broker: &Broker,
    context: &RequestContext,
    request: OffsetDeleteRequest,
) -> OffsetDeleteResponse {
    let access = broker.access(context);
    if let Err(refused) = access.require(Operation::Delete, Resource::Group(&request.group_id)) {
        return OffsetDeleteResponse::default().with_error_code(refused.code());
    }
    let image = broker.metadata.image();
    let readable = |name: &str| access.require(Operation::Read, Resource::Topic(name));
    let allowed: Vec<Result<(), ResponseError>> = request.topics.iter().map(|topic| readable(&topic.name)).collect();
    let known = request.topics.iter().zip(&allowed).filter(|(_, allowed)| allowed.is_ok()).filter_map(|(topic, _)| {
        let existing = |index| existing(&image, &topic.name, index);
        let partitions: Vec<PartitionIndex> =
            topic.partitions.iter().filter_map(|partition| existing(partition.partition_index)).collect();
        (!partitions.is_empty()).then(|| TopicPartitions { topic: topic.name.to_string(), partitions })
    });
    let outcomes: HashMap<(String, PartitionIndex), Result<(), GroupError>> =
        match delete(broker, &request.group_id, known.collect()).await {
            Err(error) => return OffsetDeleteResponse::default().with_error_code(group_error(error).code()),
            Ok(outcomes) => outcomes
                .into_iter()
                .flat_map(|(topic, parts)| parts.into_iter().map(move |(part, o)| ((topic.clone(), part), o)))
                .collect(),
        };
    let asked = request.topics.into_iter().zip(allowed).filter(|(topic, _)| !topic.partitions.is_empty());
    let topics = asked.map(|(topic, allowed)| {
        let partitions = topic.partitions.iter().map(|partition| {
            let index = partition.partition_index;
            let outcome = match allowed.map(|()| existing(&image, &topic.name, index)) {
                Err(refused) => Err(refused),
                Ok(None) => Err(ResponseError::UnknownTopicOrPartition),
                Ok(Some(known)) => {
                    let outcome = outcomes.get(&(topic.name.to_string(), known)).copied();
                    outcome.unwrap_or(Err(mismatched())).map_err(group_error)
                }
            };
            OffsetDeleteResponsePartition::default()
                .with_partition_index(index)
                .with_error_code(outcome.map_or_else(|error| error.code(), |()| 0))
        });
        let partitions = partitions.collect();
        OffsetDeleteResponseTopic::default().with_name(topic.name).with_partitions(partitions)
    });
    OffsetDeleteResponse::default().with_topics(topics.collect())
}

fn existing(image: &ClusterImage, topic: &str, index: i32) -> Option<PartitionIndex> {
    let index = PartitionIndex::from_wire(index)?;
    image.topic(topic)?.partition(index).map(|_| index)
}

async fn delete(
    broker: &Broker,
    group_id: &str,
    topics: Vec<TopicPartitions>,
) -> Result<PartitionOutcomes, GroupError> {
    let seat = member_seat(broker, group_id)?;
    match seat.ask(|shard, now, id, effects| shard.delete_offsets(now, id, group_id, topics, effects)).await? {
        Answer::DeleteOffsets(CommitAnswer(outcome)) => outcome,
        _ => Err(mismatched()),
    }
}
