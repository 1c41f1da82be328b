//! The end of a partition as consumers see it, wherever it is led: how far a share group has to go is counted from there.

use kafka_protocol::{
    error::ResponseError,
    messages::{
        ListOffsetsRequest,
        list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic},
    },
    protocol::StrBytes,
};
use varve_metadata::model::{Offset, PartitionIndex, TopicId};

use crate::server::Broker;

/// The version in which brokers ask, and its word for the end.
const VERSION: i16 = 7;
const LATEST: i64 = -1;
const CONSUMER: i32 = -1;

/// The first offset that consumers may not read yet.
///
/// # Errors
/// What the leader says against it, or that there is none.
pub(crate) async fn latest_offset(
    broker: &Broker,
    name: &str,
    topic: TopicId,
    partition: PartitionIndex,
) -> Result<Offset, ResponseError> {
    let image = broker.metadata.image();
    let known = image.topic_by_id(topic).ok_or(ResponseError::UnknownTopicOrPartition)?;
    let (_, known) = known.partition(partition).ok_or(ResponseError::UnknownTopicOrPartition)?;
    let leader = known.leader.ok_or(ResponseError::LeaderNotAvailable)?;
    if leader == broker.node {
        let led = broker.partitions.led(name, partition).map_err(|_| ResponseError::NotLeaderOrFollower)?;
        return Ok(led.high_watermark().0);
    }
    let asked = ListOffsetsPartition::default().with_partition_index(partition.to_wire()).with_timestamp(LATEST);
    let topic = ListOffsetsTopic::default().with_name(StrBytes::from_string(name.to_owned()).into());
    let request = ListOffsetsRequest::default()
        .with_replica_id(CONSUMER.into())
        .with_topics(vec![topic.with_partitions(vec![asked.with_current_leader_epoch(-1)])]);
    let response = broker.links.ask(leader, VERSION, &request).await.map_err(|error| {
        tracing::warn!(%leader, %error, "a leader cannot be asked for its end");
        ResponseError::LeaderNotAvailable
    })?;
    let answered = response.topics.into_iter().flat_map(|topic| topic.partitions).next();
    let answered = answered.ok_or(ResponseError::UnknownServerError)?;
    match ResponseError::try_from_code(answered.error_code) {
        Some(error) => Err(error),
        None => Offset::from_wire(answered.offset).ok_or(ResponseError::UnknownServerError),
    }
}
