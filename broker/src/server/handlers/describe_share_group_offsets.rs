//! DescribeShareGroupOffsets (KIP-932, KIP-1226): how far share groups have come.

use futures::future::join_all;
use kafka_protocol::{
    error::ResponseError,
    messages::{
        DescribeShareGroupOffsetsRequest, DescribeShareGroupOffsetsResponse,
        describe_share_group_offsets_request::DescribeShareGroupOffsetsRequestGroup,
        describe_share_group_offsets_response::{
            DescribeShareGroupOffsetsResponseGroup, DescribeShareGroupOffsetsResponsePartition,
            DescribeShareGroupOffsetsResponseTopic,
        },
    },
};
use uuid::Uuid;
use varve_metadata::model::{PartitionIndex, TopicId};

use super::{
    group_support::{group_error, text},
    share_support::{is_served, message},
};
use crate::{
    coordinator::{GroupError, share_state::ShareKey},
    server::{
        Broker, RequestContext,
        authorizer::{Access, Operation, Resource},
        shares::latest_offset,
    },
    wire::later::share_state::Described,
};

/// What is said of what is not known.
const UNKNOWN: i64 = -1;

pub(crate) async fn handle(
    broker: &Broker,
    context: &RequestContext,
    request: DescribeShareGroupOffsetsRequest,
) -> Described {
    let access = broker.access(context);
    let mut answer = Described::default();
    let mut groups = Vec::with_capacity(request.groups.len());
    for group in request.groups {
        let told = DescribeShareGroupOffsetsResponseGroup::default().with_group_id(group.group_id.clone());
        match describe(broker, &access, group).await {
            Ok(topics) => {
                let (topics, lags) = topics.into_iter().unzip();
                groups.push(told.with_topics(topics));
                answer.lags.push(lags);
            }
            Err((error, has_words)) => {
                let message = if has_words { message(error) } else { None };
                groups.push(told.with_error_code(error.code()).with_error_message(message));
                answer.lags.push(Vec::new());
            }
        }
    }
    answer.known = DescribeShareGroupOffsetsResponse::default().with_groups(groups);
    answer
}

type Topic = (DescribeShareGroupOffsetsResponseTopic, Vec<i64>);

/// The topics of one group.
///
/// # Errors
/// The error, and whether Kafka has words for it.
async fn describe(
    broker: &Broker,
    access: &Access<'_>,
    group: DescribeShareGroupOffsetsRequestGroup,
) -> Result<Vec<Topic>, (ResponseError, bool)> {
    if !is_served(broker) {
        return Err((ResponseError::UnsupportedVersion, false));
    }
    access.require(Operation::Describe, Resource::Group(&group.group_id)).map_err(|error| (error, false))?;
    let image = broker.metadata.image();
    let Some(asked) = group.topics else {
        let kept = broker
            .groups
            .seat(broker, &group.group_id)
            .and_then(|seat| seat.read(|shard| shard.kept_shares(&group.group_id)).map_err(GroupError::from));
        let kept = kept.map_err(|error| (group_error(error), true))?;
        let known = kept.into_iter().filter_map(|(topic, partitions)| {
            let name = image.topic_by_id(topic)?.name.to_string();
            let partitions: Vec<i32> = partitions.into_iter().map(PartitionIndex::to_wire).collect();
            Some((name, topic, partitions))
        });
        let shown = known.filter(|(name, ..)| access.shows(Operation::Describe, Resource::Topic(name)));
        let topics = shown.map(|(name, id, partitions)| topic(broker, &group.group_id, name, id, partitions));
        return Ok(join_all(topics).await);
    };
    let topics = asked.into_iter().map(|asked| {
        let (image, group) = (&image, &group.group_id);
        async move {
            let name = asked.topic_name.to_string();
            if let Err(refused) = access.require(Operation::Describe, Resource::Topic(&name)) {
                return unknown(name, &asked.partitions, Some(refused));
            }
            match image.topic(&name) {
                Some(known) => topic(broker, group, name, known.id, asked.partitions).await,
                None => unknown(name, &asked.partitions, None),
            }
        }
    });
    Ok(join_all(topics).await)
}

/// A topic of which nothing is told.
fn unknown(name: String, partitions: &[i32], error: Option<ResponseError>) -> Topic {
    let told = partitions.iter().map(|index| {
        let told = DescribeShareGroupOffsetsResponsePartition::default()
            .with_partition_index(*index)
            .with_start_offset(UNKNOWN);
        match error {
            Some(error) => told.with_error_code(error.code()).with_error_message(message(error)),
            None => told,
        }
    });
    let topic = DescribeShareGroupOffsetsResponseTopic::default()
        .with_topic_name(text(name).into())
        .with_topic_id(Uuid::nil())
        .with_partitions(told.collect());
    (topic, vec![UNKNOWN; partitions.len()])
}

async fn topic(broker: &Broker, group: &str, name: String, id: TopicId, partitions: Vec<i32>) -> Topic {
    let each = partitions.into_iter().map(|index| partition(broker, group, &name, id, index));
    let (partitions, lags) = join_all(each).await.into_iter().unzip();
    let topic = DescribeShareGroupOffsetsResponseTopic::default()
        .with_topic_name(text(name.clone()).into())
        .with_topic_id(id.to_wire())
        .with_partitions(partitions);
    (topic, lags)
}

async fn partition(
    broker: &Broker,
    group: &str,
    name: &str,
    topic: TopicId,
    index: i32,
) -> (DescribeShareGroupOffsetsResponsePartition, i64) {
    let told = DescribeShareGroupOffsetsResponsePartition::default().with_partition_index(index);
    let nothing = || told.clone().with_start_offset(UNKNOWN);
    let Some(partition) = PartitionIndex::from_wire(index) else { return (nothing(), UNKNOWN) };
    let key = ShareKey { group: group.to_owned(), topic, partition };
    // What cannot be read is no error, as with OffsetFetch: there is nothing.
    let Ok(Some(kept)) = broker.share_states.summary(broker, &key).await else { return (nothing(), UNKNOWN) };
    let Some(start) = kept.start else { return (nothing(), UNKNOWN) };
    let told =
        told.with_start_offset(start.to_wire()).with_leader_epoch(kept.leader_epoch.unwrap_or_default().to_wire());
    let Some(settled) = kept.settled else { return (told, UNKNOWN) };
    match latest_offset(broker, name, topic, partition).await {
        Ok(end) => (told, end.to_wire() - start.to_wire() - i64::from(settled)),
        Err(error) => {
            let told = DescribeShareGroupOffsetsResponsePartition::default().with_partition_index(index);
            (told.with_error_code(error.code()).with_error_message(message(error)), UNKNOWN)
        }
    }
}
