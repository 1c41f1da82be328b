//! ListOffsets: offsets by time and by place, in any tier.

use std::{collections::HashSet, time::Duration};

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
use varve_metadata::model::{LeaderEpoch, LogEndOffset, Offset, Timestamp};

use crate::{
    partition::{OffsetAnswer, OffsetError, OffsetQuestion, Partition, RemoteError, StaleEpoch},
    server::{
        Broker, RequestContext,
        lookup::{self, FoundTopic, TopicRef},
    },
};

const CONSUMER: i32 = -1;

pub(crate) async fn handle(
    broker: &Broker,
    context: &RequestContext,
    request: ListOffsetsRequest,
) -> ListOffsetsResponse {
    let twice = duplicates(&request.topics);
    let asker = Asker {
        version: context.api_version,
        is_client: request.replica_id.0 == CONSUMER,
        committed_only: request.isolation_level == 1,
        limit: match request.timeout_ms {
            millis @ 1.. => Duration::from_millis(millis as u64),
            _ => broker.config.archive.list_offsets_timeout,
        },
    };
    let topics = request.topics.into_iter().map(|topic| {
        let (asker, twice) = (&asker, &twice);
        async move {
            let found = lookup::topic(broker, TopicRef::Named(&topic.name.0));
            let answers = topic.partitions.iter().map(|partition| {
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
    committed_only: bool,
    limit: Duration,
}

/// Partitions named more than once.
fn duplicates(topics: &[ListOffsetsTopic]) -> HashSet<(String, i32)> {
    let mut seen = HashSet::new();
    let all = topics.iter().flat_map(|topic| {
        topic.partitions.iter().map(|partition| (topic.name.0.to_string(), partition.partition_index))
    });
    all.filter(|partition| !seen.insert(partition.clone())).collect()
}

async fn answer(
    found: &FoundTopic<'_>,
    asked: &ListOffsetsPartition,
    asker: &Asker,
    is_twice: bool,
) -> ListOffsetsPartitionResponse {
    let none = ListOffsetsPartitionResponse::default()
        .with_partition_index(asked.partition_index)
        .with_timestamp(-1)
        .with_offset(-1);
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
    let question =
        OffsetQuestion::from_wire(asked.timestamp, asker.version).ok_or(ResponseError::UnsupportedVersion)?;
    let partition = found.partition(asked.partition_index)?;
    if partition.log_dir().is_failed() {
        return Err(ResponseError::KafkaStorageError);
    }
    partition.check_epoch(LeaderEpoch::from_wire(asked.current_leader_epoch)).map_err(|stale| match stale {
        StaleEpoch::Fenced(_) => ResponseError::FencedLeaderEpoch,
        StaleEpoch::Unknown(_) => ResponseError::UnknownLeaderEpoch,
    })?;
    let answer = partition.find_offset(question, readable_end(&partition, asker));
    let answer = timeout(asker.limit, answer).await.map_err(|_| ResponseError::RequestTimedOut)?;
    answer.map_err(|error| {
        debug!(topic = %partition.topic(), partition = %partition.id().index, %error, "offset not found");
        error_code(&error)
    })
}

fn readable_end(partition: &Partition, asker: &Asker) -> Offset {
    let LogEndOffset(end) = partition.log().end();
    match (asker.is_client, asker.committed_only) {
        (true, true) => partition.last_stable_offset().0,
        (true, false) => partition.high_watermark().0,
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
