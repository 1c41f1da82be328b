//! OffsetFetch: where consumers have come to (KIP-709, KIP-447, KIP-848).

use std::collections::BTreeSet;

use kafka_protocol::{
    error::ResponseError,
    messages::{
        OffsetFetchRequest, OffsetFetchResponse, TopicName as WireTopicName,
        offset_fetch_request::{OffsetFetchRequestGroup, OffsetFetchRequestTopics},
        offset_fetch_response::{
            OffsetFetchResponseGroup, OffsetFetchResponsePartition, OffsetFetchResponsePartitions,
            OffsetFetchResponseTopic, OffsetFetchResponseTopics,
        },
    },
    protocol::StrBytes,
};
use uuid::Uuid;
use varve_metadata::{
    image::ClusterImage,
    model::{LeaderEpoch, PartitionIndex, TopicId},
};

use super::group_support::{group_error, text};
use crate::{
    coordinator::{CommittedOffset, GroupError, TopicOffsets},
    server::{
        Broker, RequestContext,
        authorizer::{Access, Operation, Resource},
    },
};

/// First version that asks for several groups.
const BATCHES_SINCE: i16 = 8;
/// First version with an error for the group as a whole.
const GROUP_ERROR_SINCE: i16 = 2;
/// First version that names topics by id (KIP-848).
const TOPIC_IDS_SINCE: i16 = 10;

pub(crate) async fn handle(
    broker: &Broker,
    context: &RequestContext,
    request: OffsetFetchRequest,
) -> OffsetFetchResponse {
    let (version, access) = (context.api_version, broker.access(context));
    if version >= BATCHES_SINCE {
        let mut groups = Vec::with_capacity(request.groups.len());
        for group in request.groups {
            groups.push(fetch_group(broker, &access, version, group, request.require_stable).await);
        }
        return OffsetFetchResponse::default().with_groups(groups);
    }
    let topics = request.topics.map(|topics| {
        let newer = topics.into_iter().map(|topic| {
            OffsetFetchRequestTopics::default().with_name(topic.name).with_partition_indexes(topic.partition_indexes)
        });
        newer.collect()
    });
    let group = OffsetFetchRequestGroup::default().with_group_id(request.group_id).with_topics(topics);
    single(fetch_group(broker, &access, version, group, request.require_stable).await)
}

/// The answer for one group, as versions before [`BATCHES_SINCE`] have it.
fn single(group: OffsetFetchResponseGroup) -> OffsetFetchResponse {
    let topics = group.topics.into_iter().map(|topic| {
        let partitions = topic.partitions.into_iter().map(|partition| {
            OffsetFetchResponsePartition::default()
                .with_partition_index(partition.partition_index)
                .with_committed_offset(partition.committed_offset)
                .with_committed_leader_epoch(partition.committed_leader_epoch)
                .with_metadata(partition.metadata)
                .with_error_code(partition.error_code)
        });
        OffsetFetchResponseTopic::default().with_name(topic.name).with_partitions(partitions.collect())
    });
    OffsetFetchResponse::default().with_error_code(group.error_code).with_topics(topics.collect())
}

async fn fetch_group(
    broker: &Broker,
    access: &Access<'_>,
    version: i16,
    group: OffsetFetchRequestGroup,
    require_stable: bool,
) -> OffsetFetchResponseGroup {
    let answer = OffsetFetchResponseGroup::default().with_group_id(group.group_id.clone());
    let committed = match access.require(Operation::Describe, Resource::Group(&group.group_id)) {
        Ok(()) => committed(broker, &group, require_stable).await.map_err(group_error),
        Err(refused) => Err(refused),
    };
    match committed {
        Err(error) => {
            if version >= GROUP_ERROR_SINCE {
                return answer.with_error_code(error.code());
            }
            let topics = group.topics.unwrap_or_default();
            answer.with_topics(topics.into_iter().map(|topic| refuse(topic, error)).collect())
        }
        Ok(Committed { offsets, unstable }) => {
            let image = broker.metadata.image();
            let topics = match group.topics {
                None => offsets
                    .into_iter()
                    .filter(|(name, _)| access.shows(Operation::Describe, Resource::Topic(name)))
                    .filter_map(|(name, of)| whole_topic(&image, version, name, of, &unstable))
                    .collect(),
                Some(topics) => {
                    let one = |topic| one_topic(&image, access, version, topic, &offsets, &unstable);
                    topics.into_iter().map(one).collect()
                }
            };
            answer.with_topics(topics)
        }
    }
}

/// What is known of a group's offsets.
struct Committed {
    offsets: TopicOffsets,
    /// Those that an open transaction may still change, if the client wants to hear of it (KIP-447).
    unstable: Unstable,
}

type Unstable = BTreeSet<(String, PartitionIndex)>;

/// The group's offsets; none if there is no such group.
async fn committed(
    broker: &Broker,
    group: &OffsetFetchRequestGroup,
    require_stable: bool,
) -> Result<Committed, GroupError> {
    let group_id = group.group_id.as_str();
    let seat = broker.groups.seat(broker, group_id)?;
    if require_stable {
        seat.ask(|shard, _, id, effects| shard.settle(id, effects)).await?;
    }
    seat.read(|shard| {
        shard.check_fetch(group_id, group.member_id.as_deref(), group.member_epoch)?;
        Ok(Committed {
            offsets: shard.committed(group_id).cloned().unwrap_or_default(),
            unstable: if require_stable { shard.unstable_offsets(group_id) } else { Unstable::new() },
        })
    })?
}

type Partitions = std::collections::BTreeMap<PartitionIndex, CommittedOffset>;

/// Every offset of a topic. With ids, a topic that is gone cannot be named and is left out.
fn whole_topic(
    image: &ClusterImage,
    version: i16,
    name: String,
    offsets: Partitions,
    unstable: &Unstable,
) -> Option<OffsetFetchResponseTopics> {
    let id = image.topic(&name).map_or(Uuid::nil(), |topic| topic.id.to_wire());
    if version >= TOPIC_IDS_SINCE && id.is_nil() {
        return None;
    }
    let partitions = offsets.iter().map(|(index, offset)| match unstable.contains(&(name.clone(), *index)) {
        true => is_unstable(index.to_wire()),
        false => found(index.to_wire(), Some(offset)),
    });
    let partitions = partitions.collect();
    Some(named(WireTopicName(text(name)), id, version).with_partitions(partitions))
}

fn one_topic(
    image: &ClusterImage,
    access: &Access<'_>,
    version: i16,
    topic: OffsetFetchRequestTopics,
    offsets: &TopicOffsets,
    unstable: &Unstable,
) -> OffsetFetchResponseTopics {
    let asked = TopicId::from_wire(topic.topic_id);
    let name = if version >= TOPIC_IDS_SINCE {
        match asked.and_then(|id| image.topic_by_id(id)) {
            Some(known) => known.name.to_string(),
            None => return refuse(topic, ResponseError::UnknownTopicId),
        }
    } else {
        topic.name.to_string()
    };
    if let Err(refused) = access.require(Operation::Describe, Resource::Topic(&name)) {
        return refuse(topic, refused);
    }
    let of_topic = offsets.get(&name);
    // What was committed for another topic of the same name says nothing about this one.
    let is_same = |offset: &&CommittedOffset| match (offset.topic_id, asked) {
        (Some(committed), Some(asked)) => committed == asked,
        _ => true,
    };
    let partitions = topic.partition_indexes.iter().map(|&index| {
        let partition = PartitionIndex::from_wire(index);
        if partition.is_some_and(|partition| unstable.contains(&(name.clone(), partition))) {
            return is_unstable(index);
        }
        found(index, partition.and_then(|partition| of_topic?.get(&partition)).filter(is_same))
    });
    let partitions = partitions.collect();
    named(topic.name, topic.topic_id, version).with_partitions(partitions)
}

fn named(name: WireTopicName, id: Uuid, version: i16) -> OffsetFetchResponseTopics {
    let topic = OffsetFetchResponseTopics::default();
    if version >= TOPIC_IDS_SINCE { topic.with_topic_id(id) } else { topic.with_name(name) }
}

fn found(index: i32, offset: Option<&CommittedOffset>) -> OffsetFetchResponsePartitions {
    let answer = OffsetFetchResponsePartitions::default().with_partition_index(index);
    match offset {
        Some(offset) => answer
            .with_committed_offset(offset.offset)
            .with_committed_leader_epoch(offset.leader_epoch.map_or(-1, LeaderEpoch::to_wire))
            .with_metadata(Some(text(offset.metadata.as_str()))),
        None => nothing(answer),
    }
}

/// The client asks again once the transaction has ended.
fn is_unstable(index: i32) -> OffsetFetchResponsePartitions {
    let answer = OffsetFetchResponsePartitions::default().with_partition_index(index);
    nothing(answer).with_error_code(ResponseError::UnstableOffsetCommit.code())
}

fn nothing(answer: OffsetFetchResponsePartitions) -> OffsetFetchResponsePartitions {
    answer.with_committed_offset(-1).with_committed_leader_epoch(-1).with_metadata(Some(StrBytes::default()))
}

fn refuse(topic: OffsetFetchRequestTopics, error: ResponseError) -> OffsetFetchResponseTopics {
    let partitions = topic.partition_indexes.iter().map(|&index| {
        let answer = OffsetFetchResponsePartitions::default().with_partition_index(index);
        nothing(answer).with_error_code(error.code())
    });
    let partitions = partitions.collect();
    OffsetFetchResponseTopics::default().with_name(topic.name).with_topic_id(topic.topic_id).with_partitions(partitions)
}
