//! DescribeTopicPartitions (KIP-966): topics in the order of their names, a limited number of partitions at a time.

use std::{collections::BTreeSet, ops::Bound};

use kafka_protocol::{
    error::ResponseError,
    messages::{
        BrokerId as WireBrokerId, DescribeTopicPartitionsRequest, DescribeTopicPartitionsResponse,
        describe_topic_partitions_response::{
            Cursor, DescribeTopicPartitionsResponsePartition, DescribeTopicPartitionsResponseTopic,
        },
    },
};
use varve_metadata::{
    image::{ClusterImage, PartitionImage, TopicImage, is_internal},
    model::TopicName,
};

use super::cluster_view::{ClusterView, topic_name, wire};
use crate::server::{
    Broker, RequestContext,
    authorizer::{Access, Operation, Resource},
};

pub(crate) async fn handle(
    broker: &Broker,
    context: &RequestContext,
    request: DescribeTopicPartitionsRequest,
) -> DescribeTopicPartitionsResponse {
    answer(
        &broker.metadata.image(),
        &context.listener.0,
        &broker.access(context),
        &request,
        broker.config.network.max_described_partitions as usize,
    )
}

/// Where an answer begins, and how much it may hold.
struct Page<'a> {
    /// Topics before this name were answered already.
    first_topic: &'a str,
    /// Partitions of `first_topic` before this one, too.
    first_partition: usize,
    partitions_left: usize,
}

fn answer(
    image: &ClusterImage,
    listener: &str,
    access: &Access<'_>,
    request: &DescribeTopicPartitionsRequest,
    most_partitions: usize,
) -> DescribeTopicPartitionsResponse {
    let asked: BTreeSet<&str> = request.topics.iter().map(|topic| topic.name.as_str()).collect();
    if asked.contains("") {
        return refused(request, ResponseError::UnknownServerError);
    }
    let (first_topic, first_partition) = match &request.cursor {
        None => ("", 0),
        Some(cursor) => {
            let listed = asked.is_empty() || asked.contains(cursor.topic_name.as_str());
            match usize::try_from(cursor.partition_index) {
                Ok(partition) if listed => (cursor.topic_name.as_str(), partition),
                Ok(_) | Err(_) => return refused(request, ResponseError::InvalidRequest),
            }
        }
    };
    let limit = usize::try_from(request.response_partition_limit).unwrap_or(0);
    let page = Page { first_topic, first_partition, partitions_left: limit.min(most_partitions).max(1) };
    let view = ClusterView { image, listener };
    if asked.is_empty() {
        let from = (Bound::Included(first_topic), Bound::Unbounded);
        let all = image.topics().range::<str, _>(from);
        let shown = all.filter(|(name, _)| access.shows(Operation::Describe, Resource::Topic(name.as_str())));
        return describe(view, access, shown.map(|(name, topic)| (name.as_str(), Some(topic.as_ref()))), page);
    }
    // What may not be seen is told apart before anything says whether it exists, and stands behind everything else.
    let named = asked.range(first_topic..).copied();
    let (visible, denied): (Vec<&str>, Vec<&str>) =
        named.partition(|name| access.allows(Operation::Describe, Resource::Topic(name)));
    let topics = visible.into_iter().map(|name| (name, image.topic(name).map(AsRef::as_ref)));
    let mut response = describe(view, access, topics, page);
    response.topics.extend(denied.into_iter().map(no_access));
    response
}

fn no_access(name: &str) -> DescribeTopicPartitionsResponseTopic {
    DescribeTopicPartitionsResponseTopic::default()
        .with_error_code(ResponseError::TopicAuthorizationFailed.code())
        .with_name(Some(topic_name(name)))
}

fn describe<'a>(
    view: ClusterView<'_>,
    access: &Access<'_>,
    topics: impl Iterator<Item = (&'a str, Option<&'a TopicImage>)>,
    mut page: Page<'_>,
) -> DescribeTopicPartitionsResponse {
    let mut response = DescribeTopicPartitionsResponse::default();
    let operations = |name| access.authorized_operations(Resource::Topic(name));
    for (name, topic) in topics {
        if page.partitions_left == 0 {
            return response.with_next_cursor(Some(cursor(name, 0)));
        }
        let Some(topic) = topic else {
            response.topics.push(no_such_topic(name).with_topic_authorized_operations(operations(name)));
            continue;
        };
        let first = if name == page.first_topic { page.first_partition } else { 0 };
        let until = topic.partitions.len().min(first.saturating_add(page.partitions_left));
        let listed = topic.partitions.get(first..until).unwrap_or_default();
        let partitions = listed.iter().zip(first as i32..).map(|(partition, index)| {
            let seen = view.partition(partition, false);
            DescribeTopicPartitionsResponsePartition::default()
                .with_partition_index(index)
                .with_leader_id(seen.leader)
                .with_leader_epoch(seen.leader_epoch)
                .with_replica_nodes(seen.replicas)
                .with_isr_nodes(seen.isr)
                .with_eligible_leader_replicas(Some(partition.elr.iter().map(|id| wire(*id)).collect()))
                .with_last_known_elr(Some(last_known_elr(partition)))
                .with_offline_replicas(seen.offline)
        });
        response.topics.push(
            DescribeTopicPartitionsResponseTopic::default()
                .with_name(Some(topic_name(name)))
                .with_topic_id(topic.id.to_wire())
                .with_is_internal(topic.internal)
                .with_partitions(partitions.collect())
                .with_topic_authorized_operations(operations(name)),
        );
        if until < topic.partitions.len() {
            return response.with_next_cursor(Some(cursor(name, until)));
        }
        page.partitions_left -= listed.len();
    }
    response
}

/// Who led last, while nobody leads, as in Kafka; and where nobody who lives is known to have all records, who had them and came back
/// without its log.
fn last_known_elr(partition: &PartitionImage) -> Vec<WireBrokerId> {
    let PartitionImage { isr, elr, leader, last_leader, emptied, .. } = partition;
    if leader.is_some() {
        return Vec::new();
    }
    let nobody_knows_all = isr.is_empty() && elr.is_empty();
    let counted_on = emptied.iter().filter(|replica| nobody_knows_all && !replica.dirs.is_empty());
    last_leader.iter().copied().chain(counted_on.map(|replica| replica.broker)).map(wire).collect()
}

fn cursor(topic: &str, partition: usize) -> Cursor {
    Cursor::default().with_topic_name(topic_name(topic)).with_partition_index(partition as i32)
}

fn no_such_topic(name: &str) -> DescribeTopicPartitionsResponseTopic {
    let error = match TopicName::parse(name) {
        Ok(_) => ResponseError::UnknownTopicOrPartition,
        Err(_) => ResponseError::InvalidTopicException,
    };
    DescribeTopicPartitionsResponseTopic::default()
        .with_error_code(error.code())
        .with_name(Some(topic_name(name)))
        .with_is_internal(is_internal(name))
}

/// The whole request is refused, as for a cursor that points outside what is asked for. The response has no error of its own: Kafka gives it to every topic.
fn refused(request: &DescribeTopicPartitionsRequest, error: ResponseError) -> DescribeTopicPartitionsResponse {
    let topics = request.topics.iter().map(|topic| {
        DescribeTopicPartitionsResponseTopic::default()
            .with_error_code(error.code())
            .with_name(Some(topic.name.clone()))
    });
    DescribeTopicPartitionsResponse::default().with_topics(topics.collect())
}
