//! DescribeQuorum (KIP-595, KIP-836, KIP-853): who decides on cluster state.
//!
//! There is no Raft log here, but the question has an answer: the controller leads, the store's revision is how far its
//! decisions reach, and a broker that follows them is an observer. So Kafka's tool shows what an operator wants to know.

use kafka_protocol::{
    error::ResponseError,
    messages::{
        DescribeQuorumRequest, DescribeQuorumResponse,
        describe_quorum_response::{Listener, Node, PartitionData, ReplicaState, TopicData},
    },
    protocol::StrBytes,
};
use varve_metadata::{image::BrokerImage, store::Revision};

use super::{
    admin_errors::plain,
    cluster_view::{ClusterView, text, topic_name, wire},
};
use crate::server::{
    Broker, RequestContext,
    authorizer::{Operation, Resource},
    wall_clock,
};

/// The topic that stands for cluster state.
const METADATA_TOPIC: &str = "__cluster_metadata";

/// First version that tells where nodes are reached (KIP-853).
const NODES_SINCE: i16 = 2;

pub(crate) async fn handle(
    broker: &Broker,
    context: &RequestContext,
    request: DescribeQuorumRequest,
) -> DescribeQuorumResponse {
    if let Err(error) = broker.access(context).require(Operation::Describe, Resource::Cluster) {
        let (error, message) = plain(error);
        return DescribeQuorumResponse::default()
            .with_error_code(error.code())
            .with_error_message(Some(StrBytes::from_string(message)));
    }
    let asks_for_it = match request.topics.as_slice() {
        [topic] => {
            let is_first = |partition: &[_]| matches!(partition, [_]);
            topic.topic_name.as_str() == METADATA_TOPIC
                && is_first(&topic.partitions)
                && topic.partitions[0].partition_index == 0
        }
        _ => false,
    };
    if !asks_for_it {
        return unknown(&request);
    }
    let image = broker.metadata.image();
    let Revision(revision) = image.revision();
    let now = wall_clock().to_wire();
    let state = |broker: &BrokerImage| {
        ReplicaState::default()
            .with_replica_id(wire(broker.id))
            .with_log_end_offset(revision as i64)
            .with_last_fetch_timestamp(now)
            .with_last_caught_up_timestamp(now)
    };
    let controller = ClusterView { image: &image, listener: &context.listener.0 }.controller();
    let (voters, observers): (Vec<_>, Vec<_>) =
        image.brokers().values().filter(|broker| !broker.fenced).partition(|broker| wire(broker.id) == controller);
    let nodes = voters.iter().map(|broker| {
        let listeners = broker
            .endpoints
            .iter()
            .map(|(name, at)| Listener::default().with_name(text(name)).with_host(text(&at.host)).with_port(at.port));
        Node::default().with_node_id(wire(broker.id)).with_listeners(listeners.collect())
    });
    let partition = PartitionData::default()
        .with_error_message(Some(StrBytes::default()))
        .with_leader_id(controller)
        .with_leader_epoch(1)
        .with_high_watermark(revision as i64)
        .with_current_voters(voters.iter().copied().map(state).collect())
        .with_observers(observers.iter().copied().map(state).collect());
    // Before version 2 there is no place for them, and an answer that has them cannot be written.
    let nodes = if context.api_version >= NODES_SINCE { nodes.collect() } else { Vec::new() };
    DescribeQuorumResponse::default().with_error_message(Some(StrBytes::default())).with_nodes(nodes).with_topics(vec![
        TopicData::default().with_topic_name(topic_name(METADATA_TOPIC)).with_partitions(vec![partition]),
    ])
}

/// No partition but the one of cluster state has a quorum.
fn unknown(request: &DescribeQuorumRequest) -> DescribeQuorumResponse {
    let message = StrBytes::from_string(plain(ResponseError::UnknownTopicOrPartition).1);
    let topics = request.topics.iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|partition| {
            PartitionData::default()
                .with_partition_index(partition.partition_index)
                .with_error_code(ResponseError::UnknownTopicOrPartition.code())
                .with_error_message(Some(message.clone()))
        });
        TopicData::default().with_topic_name(topic.topic_name.clone()).with_partitions(partitions.collect())
    });
    DescribeQuorumResponse::default().with_error_message(Some(StrBytes::default())).with_topics(topics.collect())
}
