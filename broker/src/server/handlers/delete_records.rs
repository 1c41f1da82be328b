//! DeleteRecords (KIP-107).

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use futures::future;
use kafka_protocol::{
    error::ResponseError,
    messages::{
        DeleteRecordsRequest, DeleteRecordsResponse,
        delete_records_response::{DeleteRecordsPartitionResult, DeleteRecordsTopicResult},
    },
};
use tokio::{task::spawn_blocking, time::timeout};
use tracing::error;
use varve_metadata::{
    image::TopicImage,
    model::{LeaderEpoch, LogStartOffset, Offset, PartitionIndex},
};

use crate::{
    partition::{DeleteRecordsError, LookupError, Partition, save_log_starts},
    server::{
        Broker, RequestContext,
        authorizer::{Operation, Resource},
    },
};

/// The offset that means "all that is committed".
const HIGH_WATERMARK: i64 = -1;
const NO_LOW_WATERMARK: i64 = -1;

pub(crate) async fn handle(
    broker: &Broker,
    context: &RequestContext,
    mut request: DeleteRecordsRequest,
) -> DeleteRecordsResponse {
    each_once(&mut request);
    let (image, access) = (broker.metadata.image(), broker.access(context));
    let mut deleted = Vec::new();
    for topic in &request.topics {
        let allowed = access.require(Operation::Delete, Resource::Topic(&topic.name));
        let known = image.topic(&topic.name).ok_or(ResponseError::UnknownTopicOrPartition);
        let known = allowed.and(known);
        for asked in &topic.partitions {
            deleted.push(known.and_then(|known| delete(broker, known, asked.partition_index, asked.offset)));
        }
    }
    save(broker, &mut deleted).await;
    let limit = Duration::from_millis(request.timeout_ms.max(0) as u64);
    let mut deleted = on_all_replicas(deleted, limit).await.into_iter();
    let topics = request.topics.into_iter().map(|asked| {
        let partitions = asked.partitions.iter().zip(&mut deleted).map(|(partition, deleted)| {
            let result = DeleteRecordsPartitionResult::default().with_partition_index(partition.partition_index);
            match deleted {
                Ok(LogStartOffset(start)) => result.with_low_watermark(start.to_wire()),
                Err(error) => result.with_low_watermark(NO_LOW_WATERMARK).with_error_code(error.code()),
            }
        });
        let partitions = partitions.collect();
        DeleteRecordsTopicResult::default().with_name(asked.name).with_partitions(partitions)
    });
    DeleteRecordsResponse::default().with_topics(topics.collect())
}

/// A partition, the epoch in which it was led, and the first offset that is kept.
type Deleted = Result<(Arc<Partition>, LeaderEpoch, Offset), ResponseError>;

/// Leaves topics without partitions out, and of each partition the last word, as Kafka does.
fn each_once(request: &mut DeleteRecordsRequest) {
    request.topics.retain(|topic| !topic.partitions.is_empty());
    for topic in &mut request.topics {
        let last: BTreeMap<i32, _> = topic.partitions.drain(..).map(|asked| (asked.partition_index, asked)).collect();
        topic.partitions = last.into_values().collect();
    }
}

/// What is answered must hold after a crash as well.
async fn save(broker: &Broker, deleted: &mut [Deleted]) {
    let moved: Vec<_> = deleted.iter().flatten().map(|(partition, ..)| partition.clone()).collect();
    if moved.is_empty() {
        return;
    }
    let asked = moved.clone();
    let failed = spawn_blocking(move || save_log_starts(&asked)).await.unwrap_or_else(|panic| {
        error!(%panic, "writing log starts panicked");
        moved
    });
    for outcome in deleted {
        let Ok((partition, ..)) = outcome else { continue };
        if failed.iter().any(|failed| Arc::ptr_eq(failed, partition)) {
            *outcome = Err(ResponseError::KafkaStorageError);
        } else if let Some(archive) = &broker.archive {
            archive.log_start_moved(partition.id());
        }
    }
}

/// Waits until the next leader will not show the records again, whichever replica that is; all partitions side by side.
async fn on_all_replicas(deleted: Vec<Deleted>, limit: Duration) -> Vec<Result<LogStartOffset, ResponseError>> {
    let waits = deleted.into_iter().map(|deleted| async move {
        let (partition, epoch, kept) = deleted?;
        let everywhere = timeout(limit, partition.deleted_below(epoch, kept)).await;
        everywhere.map_err(|_| ResponseError::RequestTimedOut)?.ok_or(ResponseError::NotLeaderOrFollower)
    });
    future::join_all(waits).await
}

fn delete(broker: &Broker, topic: &TopicImage, index: i32, offset: i64) -> Deleted {
    let index = PartitionIndex::from_wire(index)
        .filter(|index| topic.partition(*index).is_some())
        .ok_or(ResponseError::UnknownTopicOrPartition)?;
    if topic.internal {
        return Err(ResponseError::InvalidTopicException);
    }
    // The table of partitions follows the image; what is in the one will soon be in the other.
    let partition = broker.partitions.led(topic.name.as_str(), index).map_err(|missing| match missing {
        LookupError::Offline => ResponseError::KafkaStorageError,
        LookupError::UnknownTopic | LookupError::UnknownPartition | LookupError::NotLeader => {
            ResponseError::NotLeaderOrFollower
        }
    })?;
    if !topic.config.cleanup.delete {
        return Err(ResponseError::PolicyViolation);
    }
    let before = match offset {
        HIGH_WATERMARK => None,
        given => Some(Offset::from_wire(given).ok_or(ResponseError::OffsetOutOfRange)?),
    };
    let epoch = partition.leader_epoch();
    let kept = partition.delete_records(before).map_err(|error| match error {
        DeleteRecordsError::Offline | DeleteRecordsError::Failed(_) => ResponseError::KafkaStorageError,
        DeleteRecordsError::BeyondHighWatermark { .. } => ResponseError::OffsetOutOfRange,
    })?;
    Ok((partition, epoch, kept))
}
