//! ConsumerGroupHeartbeat (KIP-848): a member of a consumer group joins, says what it wants and has, and leaves.

use kafka_protocol::{
    error::ResponseError,
    messages::{
        ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse, consumer_group_heartbeat_request,
        consumer_group_heartbeat_response::{Assignment, TopicPartitions},
    },
};
use uuid::Uuid;
use varve_metadata::model::{Feature, PartitionIndex, TopicId};

use super::{
    group_support::{own, text},
    modern_groups::{Refused, heartbeat, interval_ms, to_wire},
};
use crate::{
    coordinator::{Asker, ConsumerHeartbeat, MemberEpoch, Owned, assignor::PartitionSet},
    server::{
        Broker, RequestContext,
        authorizer::{Operation, Resource},
    },
};

/// First version whose members choose their ids themselves (KIP-1082).
const OWN_IDS_SINCE: i16 = 1;

pub(crate) async fn handle(
    broker: &Broker,
    context: &RequestContext,
    request: ConsumerGroupHeartbeatRequest,
) -> ConsumerGroupHeartbeatResponse {
    let answer = ConsumerGroupHeartbeatResponse::default();
    if let Err(refused) = check(broker, context, &request) {
        return answer.with_error_code(refused.code());
    }
    let heard = heard(context, request);
    let group = heard.group_id.clone();
    match heartbeat(broker, &group, |shard, now, id, effects| shard.consumer_heartbeat(now, id, heard, effects)).await {
        Ok(told) => answer
            .with_member_id(Some(text(told.member_id)))
            .with_member_epoch(told.epoch.0)
            .with_heartbeat_interval_ms(interval_ms(told.heartbeat_interval))
            .with_assignment(told.assignment.map(assignment)),
        Err(error) => {
            let Refused { error, message } = error.into();
            answer.with_error_code(error.code()).with_error_message(message)
        }
    }
}

/// Whether there are groups of the consumer protocol: the configuration names it, and the cluster has agreed on it.
pub(super) fn is_served(broker: &Broker) -> bool {
    broker.config.groups.consumer.enabled && broker.metadata.image().feature_level(Feature::GROUP_VERSION.name) > 0
}

/// The group has to be readable, and the topics that are named visible.
fn check(
    broker: &Broker,
    context: &RequestContext,
    request: &ConsumerGroupHeartbeatRequest,
) -> Result<(), ResponseError> {
    if !is_served(broker) {
        return Err(ResponseError::UnsupportedVersion);
    }
    let access = broker.access(context);
    access.require(Operation::Read, Resource::Group(&request.group_id))?;
    let mut topics = request.subscribed_topic_names.iter().flatten();
    topics.try_for_each(|topic| access.require(Operation::Describe, Resource::Topic(topic)))
}

fn heard(context: &RequestContext, request: ConsumerGroupHeartbeatRequest) -> ConsumerHeartbeat {
    ConsumerHeartbeat {
        group_id: request.group_id.to_string(),
        member_id: request.member_id.to_string(),
        epoch: MemberEpoch(request.member_epoch),
        instance_id: own(&request.instance_id),
        rack_id: own(&request.rack_id),
        // -1 leaves it as it is.
        rebalance_timeout_ms: Some(request.rebalance_timeout_ms).filter(|timeout| *timeout != -1),
        topics: request.subscribed_topic_names.map(|names| names.iter().map(|name| name.to_string()).collect()),
        regex: own(&request.subscribed_topic_regex),
        assignor: own(&request.server_assignor),
        owned: request.topic_partitions.as_deref().map(owned),
        client_id: context.client_id().to_owned(),
        client_host: format!("/{}", context.peer.ip()),
        asker: Asker { principal: context.principal.clone(), peer: context.peer },
        requires_member_id: context.api_version >= OWN_IDS_SINCE,
        fresh_id: Uuid::new_v4(),
    }
}

fn owned(topics: &[consumer_group_heartbeat_request::TopicPartitions]) -> Owned {
    let mut owned = Owned::default();
    for topic in topics {
        let id = TopicId::from_wire(topic.topic_id);
        for index in &topic.partitions {
            match (id, PartitionIndex::from_wire(*index)) {
                (Some(id), Some(index)) => drop(owned.partitions.entry(id).or_default().insert(index)),
                _ => owned.has_impossible = true,
            }
        }
        // A topic without partitions still says something in the first request, where there may be none.
        match id {
            Some(id) => drop(owned.partitions.entry(id).or_default()),
            None => owned.has_impossible = true,
        }
    }
    owned
}

fn assignment(partitions: PartitionSet) -> Assignment {
    let topics = to_wire(partitions)
        .map(|(topic, partitions)| TopicPartitions::default().with_topic_id(topic).with_partitions(partitions));
    Assignment::default().with_topic_partitions(topics.collect())
}
