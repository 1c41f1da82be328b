//! DescribeProducers (KIP-664): who writes to a partition, and which transactions are open in it.

use kafka_protocol::{
    error::ResponseError,
    messages::{
        DescribeProducersRequest, DescribeProducersResponse, ProducerId as WireProducerId,
        describe_producers_request::TopicRequest,
        describe_producers_response::{PartitionResponse, ProducerState, TopicResponse},
    },
};
use varve_log::local::ProducerEntry;
use varve_metadata::model::{Offset, ProducerId, Sequence, TopicName};

use super::group_support::text;
use crate::server::{
    Broker, RequestContext,
    authorizer::{Access, Operation, Resource},
    lookup::{self, FoundTopic, TopicRef},
};

const NOT_YOURS: &str = "Topic authorization failed.";
const NOT_HERE: &str = "This server does not host this topic-partition.";

pub(crate) async fn handle(
    broker: &Broker,
    context: &RequestContext,
    request: DescribeProducersRequest,
) -> DescribeProducersResponse {
    let access = broker.access(context);
    // Who may copy all that producers wrote may know who they are.
    let is_broker = access.shows(Operation::ClusterAction, Resource::Cluster);
    let topics = request.topics.into_iter().map(|topic| one_topic(broker, &access, is_broker, topic)).collect();
    DescribeProducersResponse::default().with_topics(topics)
}

fn one_topic(broker: &Broker, access: &Access<'_>, is_broker: bool, topic: TopicRequest) -> TopicResponse {
    let invalid = TopicName::parse(&topic.name).err().map(|error| error.to_string());
    let required = match &invalid {
        Some(_) => Ok(()),
        None if is_broker => Ok(()),
        None => access.require(Operation::Read, Resource::Topic(&topic.name)),
    };
    let found = lookup::topic(broker, TopicRef::Named(&topic.name));
    let is_known = broker.metadata.image().topic(&topic.name).is_some();
    let partitions = topic.partition_indexes.iter().map(|&index| match (&invalid, required) {
        (Some(reason), _) => {
            refused(index, ResponseError::InvalidTopicException).with_error_message(Some(text(reason.as_str())))
        }
        (None, Err(error)) => refused(index, error).with_error_message(Some(text(NOT_YOURS))),
        (None, Ok(())) if !is_known => {
            refused(index, ResponseError::UnknownTopicOrPartition).with_error_message(Some(text(NOT_HERE)))
        }
        (None, Ok(())) => one_partition(&found, index),
    });
    let partitions = partitions.collect();
    TopicResponse::default().with_name(topic.name).with_partitions(partitions)
}

fn one_partition(found: &FoundTopic<'_>, index: i32) -> PartitionResponse {
    let partition = match found.partition(index) {
        Ok(partition) => partition,
        Err(error) => return refused(index, error),
    };
    let producers = partition.log().producers();
    PartitionResponse::default()
        .with_partition_index(index)
        .with_error_message(None)
        .with_active_producers(producers.iter().map(|(id, entry)| described(*id, entry)).collect())
}

fn refused(index: i32, error: ResponseError) -> PartitionResponse {
    PartitionResponse::default().with_partition_index(index).with_error_code(error.code()).with_error_message(None)
}

fn described(id: ProducerId, entry: &ProducerEntry) -> ProducerState {
    let last_sequence = entry.last_batch().and_then(|batch| batch.last_sequence);
    ProducerState::default()
        .with_producer_id(WireProducerId(id.to_wire()))
        .with_producer_epoch(i32::from(entry.epoch.to_wire()))
        .with_last_sequence(last_sequence.map_or(-1, Sequence::to_wire))
        .with_last_timestamp(entry.last_timestamp_ms)
        .with_coordinator_epoch(entry.coordinator_epoch.unwrap_or(-1))
        .with_current_txn_start_offset(entry.open_since.map_or(-1, Offset::to_wire))
}
