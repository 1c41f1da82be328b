//! DeleteRecords (KIP-107).

use kafka_protocol::{
    error::ResponseError,
    messages::{
        DeleteRecordsRequest, DeleteRecordsResponse,
        delete_records_response::{DeleteRecordsPartitionResult, DeleteRecordsTopicResult},
    },
};
use varve_metadata::{
    image::TopicImage,
    model::{LogStartOffset, Offset, PartitionIndex},
};

use crate::{
    partition::{DeleteRecordsError, LookupError},
    server::{Broker, RequestContext},
};

/// The offset that means "all that is committed".
const HIGH_WATERMARK: i64 = -1;
const NO_LOW_WATERMARK: i64 = -1;

pub(crate) async fn handle(
    broker: &Broker,
    _context: &RequestContext,
    request: DeleteRecordsRequest,
) -> DeleteRecordsResponse {
    let image = broker.metadata.image();
    let topics = request.topics.into_iter().map(|asked| {
        let topic = image.topic(&asked.name);
        let partitions = asked.partitions.iter().map(|partition| {
            let result = DeleteRecordsPartitionResult::default().with_partition_index(partition.partition_index);
            let deleted = match topic {
                Some(topic) => delete(broker, topic, partition.partition_index, partition.offset),
                None => Err(ResponseError::UnknownTopicOrPartition),
            };
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

fn delete(broker: &Broker, topic: &TopicImage, index: i32, offset: i64) -> Result<LogStartOffset, ResponseError> {
    let index = PartitionIndex::from_wire(index)
        .filter(|index| topic.partition(*index).is_some())
        .ok_or(ResponseError::UnknownTopicOrPartition)?;
    if topic.internal {
        return Err(ResponseError::InvalidTopicException);
    }
    // The table of partitions follows the image; what is in the one will soon be in the other.
    let partition = broker.partitions.find(topic.name.as_str(), index).map_err(|missing| match missing {
        LookupError::Offline => ResponseError::KafkaStorageError,
        LookupError::UnknownTopic | LookupError::UnknownPartition => ResponseError::NotLeaderOrFollower,
    })?;
    if !topic.config.cleanup.delete {
        return Err(ResponseError::PolicyViolation);
    }
    let before = match offset {
        HIGH_WATERMARK => None,
        given => Some(Offset::from_wire(given).ok_or(ResponseError::OffsetOutOfRange)?),
    };
    let start = partition.delete_records(before).map_err(|error| match error {
        DeleteRecordsError::Offline | DeleteRecordsError::Failed(_) => ResponseError::KafkaStorageError,
        DeleteRecordsError::BeyondHighWatermark { .. } => ResponseError::OffsetOutOfRange,
    })?;
    if let Some(archive) = &broker.archive {
        archive.log_start_moved(partition.id());
    }
    Ok(start)
}
