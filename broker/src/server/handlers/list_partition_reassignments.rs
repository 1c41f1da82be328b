//! ListPartitionReassignments (KIP-455): what is under way.

use kafka_protocol::messages::{
    BrokerId as WireBrokerId, ListPartitionReassignmentsRequest, ListPartitionReassignmentsResponse,
    list_partition_reassignments_response::{OngoingPartitionReassignment, OngoingTopicReassignment},
};
use varve_metadata::{
    image::{PartitionImage, TopicImage},
    model::{BrokerId, PartitionIndex},
};

use super::{
    admin_errors::plain,
    cluster_view::{text, topic_name, wire},
};
use crate::server::{
    Broker, RequestContext,
    authorizer::{Operation, Resource},
};

pub(crate) async fn handle(
    broker: &Broker,
    context: &RequestContext,
    request: ListPartitionReassignmentsRequest,
) -> ListPartitionReassignmentsResponse {
    if let Err(error) = broker.access(context).require(Operation::Describe, Resource::Cluster) {
        let (error, message) = plain(error);
        return ListPartitionReassignmentsResponse::default()
            .with_error_code(error.code())
            .with_error_message(Some(text(&message)));
    }
    let image = broker.metadata.image();
    let topics: Vec<OngoingTopicReassignment> = match &request.topics {
        None => {
            let all = |topic: &TopicImage| (0..topic.partitions.len() as i32).collect::<Vec<_>>();
            image.topics().values().filter_map(|topic| ongoing(topic, &all(topic))).collect()
        }
        Some(asked) => asked
            .iter()
            .filter_map(|asked| ongoing(image.topic(asked.name.as_str())?, &asked.partition_indexes))
            .collect(),
    };
    ListPartitionReassignmentsResponse::default().with_error_message(None).with_topics(topics)
}

fn ongoing(topic: &TopicImage, indexes: &[i32]) -> Option<OngoingTopicReassignment> {
    let moving = indexes.iter().filter_map(|index| {
        let (_, partition) = topic.partition(PartitionIndex::from_wire(*index)?)?;
        let is_moving = !partition.adding.is_empty() || !partition.removing.is_empty();
        is_moving.then(|| shown(*index, partition))
    });
    let partitions: Vec<_> = moving.collect();
    let named = || OngoingTopicReassignment::default().with_name(topic_name(topic.name.as_str()));
    (!partitions.is_empty()).then(|| named().with_partitions(partitions))
}

fn shown(index: i32, partition: &PartitionImage) -> OngoingPartitionReassignment {
    let ids = |ids: &[BrokerId]| -> Vec<WireBrokerId> { ids.iter().map(|id| wire(*id)).collect() };
    OngoingPartitionReassignment::default()
        .with_partition_index(index)
        .with_replicas(ids(&partition.replicas))
        .with_adding_replicas(ids(&partition.adding))
        .with_removing_replicas(ids(&partition.removing))
}
