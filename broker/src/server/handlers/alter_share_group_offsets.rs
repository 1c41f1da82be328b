//! AlterShareGroupOffsets (KIP-932): an administrator says where a share group, which has no members, goes on.

use std::collections::BTreeMap;

use kafka_protocol::{
    error::ResponseError,
    messages::{
        AlterShareGroupOffsetsRequest, AlterShareGroupOffsetsResponse,
        alter_share_group_offsets_request::AlterShareGroupOffsetsRequestTopic,
        alter_share_group_offsets_response::{
            AlterShareGroupOffsetsResponsePartition, AlterShareGroupOffsetsResponseTopic,
        },
    },
};
use varve_metadata::model::{Offset, PartitionIndex, TopicId};

use super::{
    group_support::mismatched,
    modern_groups::Refused,
    share_support::{is_served, message, state_error},
};
use crate::{
    coordinator::{
        Answer, BeginShares, GroupError, ModernGroupError, SharePlace,
        share_state::{ShareKey, StateRequest},
    },
    server::{
        Broker, RequestContext,
        authorizer::{Operation, Resource},
    },
};

/// A topic that may be altered, and how many partitions it has.
type Known = Result<(TopicId, usize), ResponseError>;

pub(crate) async fn handle(
    broker: &Broker,
    context: &RequestContext,
    request: AlterShareGroupOffsetsRequest,
) -> AlterShareGroupOffsetsResponse {
    let refuse = |Refused { error, message: words }: Refused| {
        let words = words.or_else(|| message(error));
        AlterShareGroupOffsetsResponse::default().with_error_code(error.code()).with_error_message(words)
    };
    if !is_served(broker) {
        return refuse(ResponseError::UnsupportedVersion.into());
    }
    let access = broker.access(context);
    if let Err(error) = access.require(Operation::Read, Resource::Group(&request.group_id)) {
        return refuse(error.into());
    }
    let image = broker.metadata.image();
    let may_alter = |topic: &AlterShareGroupOffsetsRequestTopic| {
        access.require(Operation::Read, Resource::Topic(&topic.topic_name))?;
        let known = image.topic(&topic.topic_name).ok_or(ResponseError::UnknownTopicOrPartition)?;
        Ok((known.id, known.partitions.len()))
    };
    let topics: Vec<(AlterShareGroupOffsetsRequestTopic, Known)> =
        request.topics.into_iter().map(|topic| (topic.clone(), may_alter(&topic))).collect();
    let places = topics.iter().filter(|(_, allowed)| allowed.is_ok()).map(|(topic, _)| SharePlace {
        topic: topic.topic_name.to_string(),
        partitions: topic
            .partitions
            .iter()
            .map(|partition| (partition.partition_index, Offset::from_wire(partition.start_offset)))
            .collect(),
    });
    let failed = match alter(broker, &request.group_id, places.collect()).await {
        Ok(failed) => failed,
        Err(error) => return refuse(error.into()),
    };
    let told = topics.into_iter().map(|(topic, allowed)| {
        let partitions = topic.partitions.iter().map(|partition| {
            let index = partition.partition_index;
            let outcome = allowed.and_then(|(id, count)| {
                let known = PartitionIndex::from_wire(index).filter(|index| (index.0 as usize) < count);
                let known = known.ok_or(ResponseError::UnknownTopicOrPartition)?;
                failed.get(&(id, known)).map_or(Ok(()), |error| Err(*error))
            });
            let told = AlterShareGroupOffsetsResponsePartition::default().with_partition_index(index);
            match outcome {
                Ok(()) => told,
                Err(error) => told.with_error_code(error.code()).with_error_message(message(error)),
            }
        });
        let id = image.topic(&topic.topic_name).map(|topic| topic.id.to_wire()).unwrap_or_default();
        let partitions = partitions.collect();
        let told = AlterShareGroupOffsetsResponseTopic::default().with_topic_name(topic.topic_name.clone());
        told.with_topic_id(id).with_partitions(partitions)
    });
    AlterShareGroupOffsetsResponse::default().with_responses(told.collect())
}

/// Has keepers begin where the places say. Returns what those say that did not.
async fn alter(
    broker: &Broker,
    group: &str,
    places: Vec<SharePlace>,
) -> Result<BTreeMap<(TopicId, PartitionIndex), ResponseError>, ModernGroupError> {
    if group.is_empty() {
        return Err(GroupError::InvalidGroupId.into());
    }
    let seat = broker.groups.seat(broker, group)?;
    let asked = seat.ask(|shard, now, id, effects| shard.alter_share_offsets(now, id, group, places, effects)).await;
    let job = match asked.map_err(GroupError::from)? {
        Answer::BeginShares(job) => job?,
        _ => return Err(mismatched().into()),
    };
    let partitions = job.set();
    let failed = begin(broker, job).await;
    if !partitions.is_empty() {
        let all = failed.is_empty();
        let settled = seat
            .ask(|shard, now, id, effects| shard.shares_begun(now, Some(id), group, partitions, all, effects))
            .await;
        match settled.map_err(GroupError::from)? {
            Answer::SharesSettled(settled) => settled?,
            _ => return Err(mismatched().into()),
        }
    }
    Ok(failed)
}

async fn begin(broker: &Broker, job: BeginShares) -> BTreeMap<(TopicId, PartitionIndex), ResponseError> {
    let BeginShares { group_id, state_epoch, partitions } = job;
    let places = partitions.into_iter().flat_map(|(topic, partitions)| {
        partitions.into_iter().map(move |(partition, start)| (topic, partition, start))
    });
    let places: Vec<_> = places.collect();
    let questions = places.iter().map(|(topic, partition, start)| {
        let key = ShareKey { group: group_id.clone(), topic: *topic, partition: *partition };
        (key, StateRequest::Initialize { state_epoch, start: *start })
    });
    let outcomes = broker.share_states.ask_each(broker, questions.collect()).await;
    let failed = places
        .iter()
        .zip(outcomes)
        .filter_map(|((topic, partition, _), outcome)| Some(((*topic, *partition), state_error(outcome.err()?))));
    failed.collect()
}
