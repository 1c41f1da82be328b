//! OffsetCommit: where a consumer has come to.

use std::{collections::HashMap, time::Duration};

use kafka_protocol::{
    error::ResponseError,
    messages::{
        OffsetCommitRequest, OffsetCommitResponse,
        offset_commit_request::OffsetCommitRequestTopic,
        offset_commit_response::{OffsetCommitResponsePartition, OffsetCommitResponseTopic},
    },
};
use varve_metadata::{
    image::{ClusterImage, TopicImage},
    model::{LeaderEpoch, PartitionIndex, TopicId},
};

use super::group_support::{group_error, identity, mismatched};
use crate::{
    coordinator::{
        Answer, CommitAnswer, CommitPartition, CommitRequest, CommitTopic, Generation, GroupError, PartitionOutcomes,
    },
    server::{
        Broker, RequestContext,
        authorizer::{Access, Operation, Resource},
    },
};

/// First version that names topics by id (KIP-848).
const TOPIC_IDS_SINCE: i16 = 10;
/// First version whose clients know GROUP_ID_NOT_FOUND.
const GROUP_ID_NOT_FOUND_SINCE: i16 = 9;

pub(crate) async fn handle(
    broker: &Broker,
    context: &RequestContext,
    request: OffsetCommitRequest,
) -> OffsetCommitResponse {
    let access = broker.access(context);
    if let Err(refused) = access.require(Operation::Read, Resource::Group(&request.group_id)) {
        return refuse_all(request, refused);
    }
    let image = broker.metadata.image();
    let has_ids = context.api_version >= TOPIC_IDS_SINCE;
    let allowed: Vec<Result<Option<&TopicImage>, ResponseError>> =
        request.topics.iter().map(|topic| readable(&image, &access, topic, has_ids)).collect();
    let topics: Vec<CommitTopic> = request
        .topics
        .iter()
        .zip(&allowed)
        .filter_map(|(topic, allowed)| known_part((*allowed).ok()??, topic))
        .collect();
    // With nothing to commit nobody is asked, as in Kafka.
    let outcome = if topics.is_empty() { Ok(Vec::new()) } else { commit(broker, context, &request, topics).await };
    let outcomes = outcome.map(|outcomes| -> HashMap<(String, PartitionIndex), Result<(), GroupError>> {
        let by_topic = outcomes.into_iter();
        by_topic.flat_map(|(name, parts)| parts.into_iter().map(move |(part, o)| ((name.clone(), part), o))).collect()
    });
    let topics = request.topics.into_iter().zip(allowed).map(|(topic, allowed)| {
        let partitions = topic.partitions.iter().map(|partition| {
            let index = partition.partition_index;
            let outcome = match allowed.map(|known| (known, existing(known, index))) {
                Err(refused) => Err(refused),
                Ok((None, _)) if has_ids => Err(ResponseError::UnknownTopicId),
                Ok((_, None)) => Err(ResponseError::UnknownTopicOrPartition),
                Ok((_, Some((topic, index)))) => match &outcomes {
                    Ok(outcomes) => {
                        let outcome = outcomes.get(&(topic.name.to_string(), index));
                        outcome.copied().unwrap_or(Err(mismatched())).map_err(group_error)
                    }
                    Err(error) => Err(group_error(*error)),
                },
            };
            OffsetCommitResponsePartition::default()
                .with_partition_index(index)
                .with_error_code(outcome.map_or_else(|error| error.code(), |()| 0))
        });
        let partitions = partitions.collect();
        OffsetCommitResponseTopic::default()
            .with_name(topic.name)
            .with_topic_id(topic.topic_id)
            .with_partitions(partitions)
    });
    OffsetCommitResponse::default().with_topics(topics.collect())
}

async fn commit(
    broker: &Broker,
    context: &RequestContext,
    request: &OffsetCommitRequest,
    topics: Vec<CommitTopic>,
) -> Result<PartitionOutcomes, GroupError> {
    let seat = broker.groups.seat(broker, &request.group_id)?;
    let request = CommitRequest {
        group_id: request.group_id.to_string(),
        member: identity(&request.member_id, &request.group_instance_id),
        generation: Generation::from_wire(request.generation_id_or_member_epoch),
        // -1 leaves it to the broker.
        retention: u64::try_from(request.retention_time_ms).ok().map(Duration::from_millis),
        knows_group_id_not_found: context.api_version >= GROUP_ID_NOT_FOUND_SINCE,
        topics,
    };
    match seat.ask(|shard, now, id, effects| shard.commit(now, id, request, effects)).await? {
        Answer::Commit(CommitAnswer(outcome)) => outcome,
        _ => Err(mismatched()),
    }
}

/// The same answer for everything.
fn refuse_all(request: OffsetCommitRequest, error: ResponseError) -> OffsetCommitResponse {
    let topics = request.topics.into_iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|partition| {
            OffsetCommitResponsePartition::default()
                .with_partition_index(partition.partition_index)
                .with_error_code(error.code())
        });
        let partitions = partitions.collect();
        OffsetCommitResponseTopic::default()
            .with_name(topic.name)
            .with_topic_id(topic.topic_id)
            .with_partitions(partitions)
    });
    OffsetCommitResponse::default().with_topics(topics.collect())
}

/// The topic, if there is one and the caller may read it. That comes before the question whether there is one, unless it
/// is named by its id.
fn readable<'a>(
    image: &'a ClusterImage,
    access: &Access<'_>,
    topic: &OffsetCommitRequestTopic,
    has_ids: bool,
) -> Result<Option<&'a TopicImage>, ResponseError> {
    let found = if has_ids {
        let Some(found) = TopicId::from_wire(topic.topic_id).and_then(|id| image.topic_by_id(id)) else {
            return Ok(None);
        };
        Some(found)
    } else {
        image.topic(&topic.name)
    };
    let name = found.map_or(topic.name.as_str(), |found| found.name.as_str());
    access.require(Operation::Read, Resource::Topic(name))?;
    Ok(found.map(AsRef::as_ref))
}

fn existing(topic: Option<&TopicImage>, index: i32) -> Option<(&TopicImage, PartitionIndex)> {
    let (topic, index) = (topic?, PartitionIndex::from_wire(index)?);
    topic.partition(index).map(|_| (topic, index))
}

/// What of the request is about partitions that exist.
fn known_part(known: &TopicImage, topic: &OffsetCommitRequestTopic) -> Option<CommitTopic> {
    let partitions: Vec<CommitPartition> = topic
        .partitions
        .iter()
        .filter_map(|partition| {
            let (_, index) = existing(Some(known), partition.partition_index)?;
            Some(CommitPartition {
                partition: index,
                offset: partition.committed_offset,
                leader_epoch: LeaderEpoch::from_wire(partition.committed_leader_epoch),
                metadata: partition.committed_metadata.as_deref().unwrap_or_default().to_owned(),
            })
        })
        .collect();
    (!partitions.is_empty()).then(|| CommitTopic { name: known.name.to_string(), id: Some(known.id), partitions })
}
