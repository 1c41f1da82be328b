//! ListOffsets: offsets by time and by place, in any tier.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use futures::future::join_all;
use kafka_protocol::{
    error::ResponseError,
    messages::{
        ListOffsetsRequest, ListOffsetsResponse,
        list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic},
        list_offsets_response::{ListOffsetsPartitionResponse, ListOffsetsTopicResponse},
    },
};
use tokio::time::timeout;
use tracing::debug;
use varve_log::local::ReadError;
use varve_metadata::model::{LogEndOffset, Offset, Timestamp};

use crate::{
    partition::{Isolation, OffsetAnswer, OffsetError, OffsetQuestion, Partition, RemoteError, StaleEpoch},
    server::{
        Broker, RequestContext,
        authorizer::{Operation, Resource},
        lookup::{self, FoundTopic, TopicRef},
    },
};

const CONSUMER: i32 = -1;
/// First version whose clients know OFFSET_NOT_AVAILABLE.
const NOT_AVAILABLE_SINCE: i16 = 5;

pub(crate) async fn handle(
    broker: &Broker,
    context: &RequestContext,
    request: ListOffsetsRequest,
) -> ListOffsetsResponse {
    let topics = by_topic(request.topics);
    let twice = duplicates(&topics);
    let asker = Asker {
        version: context.api_version,
        is_client: request.replica_id.0 == CONSUMER,
        isolation: match request.isolation_level {
            0 => Some(Isolation::Uncommitted),
            1 => Some(Isolation::Committed),
            _ => None,
        },
        limit: match request.timeout_ms {
            millis @ 1.. => Duration::from_millis(millis as u64),
            _ => broker.live.config().archive.list_offsets_timeout,
        },
    };
    let access = broker.access(context);
    // Whoever may copy every record may know where they begin: brokers need no right beside CLUSTER_ACTION.
    let is_broker = !asker.is_client && access.shows(Operation::ClusterAction, Resource::Cluster);
    let topics = topics.into_iter().map(|topic| {
        let (asker, twice, access) = (&asker, &twice, &access);
        async move {
            let found = lookup::topic(broker, TopicRef::Named(&topic.name.0));
            if !is_broker && let Err(refused) = found.require(access, Operation::Describe) {
                let answers = topic.partitions.iter().map(|asked| none(asked).with_error_code(refused.code()));
                let answers = answers.collect();
                return ListOffsetsTopicResponse::default().with_name(topic.name.clone()).with_partitions(answers);
            }
            let mut seen = HashSet::new();
            let once = topic.partitions.iter().filter(|partition| seen.insert(partition.partition_index));
            let answers = once.map(|partition| {
                let is_twice = twice.contains(&(topic.name.0.to_string(), partition.partition_index));
                answer(&found, partition, asker, is_twice)
            });
            let answers = join_all(answers).await;
            ListOffsetsTopicResponse::default().with_name(topic.name.clone()).with_partitions(answers)
        }
    });
    ListOffsetsResponse::default().with_topics(join_all(topics).await)
}

struct Asker {
    version: i16,
    is_client: bool,
    /// `None`: one that does not exist.
    isolation: Option<Isolation>,
    limit: Duration,
}

/// Each topic once, with all of its partitions, in the order of their first mention.
fn by_topic(topics: Vec<ListOffsetsTopic>) -> Vec<ListOffsetsTopic> {
    let mut places = HashMap::new();
    let mut merged: Vec<ListOffsetsTopic> = Vec::with_capacity(topics.len());
    for topic in topics {
        let place = *places.entry(topic.name.clone()).or_insert(merged.len());
        match merged.get_mut(place) {
            Some(known) => known.partitions.extend(topic.partitions),
            None => merged.push(topic),
        }
    }
    merged
}

/// Partitions named more than once.
fn duplicates(topics: &[ListOffsetsTopic]) -> HashSet<(String, i32)> {
    let mut seen = HashSet::new();
    let all = topics.iter().flat_map(|topic| {
        topic.partitions.iter().map(|partition| (topic.name.0.to_string(), partition.partition_index))
    });
    all.filter(|partition| !seen.insert(partition.clone())).collect()
}

fn none(asked: &ListOffsetsPartition) -> ListOffsetsPartitionResponse {
    let answer = ListOffsetsPartitionResponse::default().with_partition_index(asked.partition_index);
    answer.with_timestamp(-1).with_offset(-1)
}

async fn answer(
    found: &FoundTopic<'_>,
    asked: &ListOffsetsPartition,
    asker: &Asker,
    is_twice: bool,
) -> ListOffsetsPartitionResponse {
    let none = none(asked);
    let outcome = if is_twice { Err(ResponseError::InvalidRequest) } else { find(found, asked, asker).await };
    match outcome {
        Err(error) => none.with_error_code(error.code()),
        Ok(None) => none,
        Ok(Some(answer)) => {
            let none = none
                .with_offset(answer.offset.to_wire())
                .with_timestamp(answer.timestamp.map_or(-1, Timestamp::to_wire));
            match answer.leader_epoch {
                Some(epoch) if asker.version >= 4 => none.with_leader_epoch(epoch.to_wire()),
                _ => none,
            }
        }
    }
}

async fn find(
    found: &FoundTopic<'_>,
    asked: &ListOffsetsPartition,
    asker: &Asker,
) -> Result<Option<OffsetAnswer>, ResponseError> {
    let isolation = asker.isolation.ok_or(ResponseError::UnknownServerError)?;
    let question =
        OffsetQuestion::from_wire(asked.timestamp, asker.version).ok_or(ResponseError::UnsupportedVersion)?;
    let partition = found.partition(asked.partition_index)?;
    if partition.log_dir().is_failed() {
        return Err(ResponseError::KafkaStorageError);
    }
    partition.check_wire_epoch(asked.current_leader_epoch).map_err(|stale| match stale {
        StaleEpoch::Fenced(_) => ResponseError::FencedLeaderEpoch,
        StaleEpoch::Unknown(_) => ResponseError::UnknownLeaderEpoch,
    })?;
    // Nobody is told less than an earlier leader has told (KIP-207).
    let asks_for_end = !matches!(question, OffsetQuestion::Earliest | OffsetQuestion::EarliestLocal);
    if asker.is_client && asks_for_end && !partition.knows_what_is_committed() {
        return Err(match asker.version {
            NOT_AVAILABLE_SINCE.. => ResponseError::OffsetNotAvailable,
            _ => ResponseError::LeaderNotAvailable,
        });
    }
    let answer = partition.find_offset(question, readable_end(&partition, asker, isolation));
    let answer = timeout(asker.limit, answer).await.map_err(|_| ResponseError::RequestTimedOut)?;
    answer.map_err(|error| {
        debug!(topic = %partition.topic(), partition = %partition.id().index, %error, "offset not found");
        error_code(&error)
    })
}

fn readable_end(partition: &Partition, asker: &Asker, isolation: Isolation) -> Offset {
    let LogEndOffset(end) = partition.log().end();
    match (asker.is_client, isolation) {
        (true, Isolation::Committed) => partition.last_stable_offset().0,
        (true, Isolation::Uncommitted) => partition.high_watermark().0,
        (false, _) => end,
    }
}

/// The only place where an [`OffsetError`] becomes Kafka's.
fn error_code(error: &OffsetError) -> ResponseError {
    match error {
        OffsetError::Local(ReadError::OutOfRange { .. }) | OffsetError::Remote(RemoteError::OutOfRange) => {
            ResponseError::OffsetOutOfRange
        }
        OffsetError::Local(ReadError::Storage(_))
        | OffsetError::Remote(RemoteError::Unavailable(_) | RemoteError::Busy) => ResponseError::KafkaStorageError,
        OffsetError::Local(ReadError::Corrupt(_)) | OffsetError::Remote(RemoteError::Corrupt(_)) => {
            ResponseError::CorruptMessage
        }
    }
}
