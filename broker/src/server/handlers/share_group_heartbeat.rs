//! ShareGroupHeartbeat (KIP-932): a member of a share group joins, says what it wants, and leaves.

use kafka_protocol::{
    error::ResponseError,
    messages::{
        ShareGroupHeartbeatRequest, ShareGroupHeartbeatResponse,
        share_group_heartbeat_response::{Assignment, TopicPartitions},
    },
};

use super::{
    group_support::{own, text},
    modern_groups::{Refused, heartbeat, interval_ms, to_wire},
    share_support::{is_member_id, is_served},
};
use crate::{
    coordinator::{MemberEpoch, ShareHeartbeat, assignor::PartitionSet},
    server::{
        Broker, RequestContext,
        authorizer::{Operation, Resource},
    },
};

pub(crate) async fn handle(
    broker: &Broker,
    context: &RequestContext,
    request: ShareGroupHeartbeatRequest,
) -> ShareGroupHeartbeatResponse {
    let answer = ShareGroupHeartbeatResponse::default();
    if let Err(refused) = check(broker, context, &request) {
        return answer.with_error_code(refused.code());
    }
    let heard = heard(context, request);
    let group = heard.group_id.clone();
    match heartbeat(broker, &group, |shard, now, id, effects| shard.share_heartbeat(now, id, heard, effects)).await {
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

/// The group has to be readable, and the topics that are named visible.
fn check(broker: &Broker, context: &RequestContext, request: &ShareGroupHeartbeatRequest) -> Result<(), ResponseError> {
    if !is_served(broker) {
        return Err(ResponseError::UnsupportedVersion);
    }
    let access = broker.access(context);
    access.require(Operation::Read, Resource::Group(&request.group_id))?;
    if !is_member_id(&request.member_id) {
        return Err(ResponseError::InvalidRequest);
    }
    let mut topics = request.subscribed_topic_names.iter().flatten();
    topics.try_for_each(|topic| access.require(Operation::Describe, Resource::Topic(topic)))
}

fn heard(context: &RequestContext, request: ShareGroupHeartbeatRequest) -> ShareHeartbeat {
    ShareHeartbeat {
        group_id: request.group_id.to_string(),
        member_id: request.member_id.to_string(),
        epoch: MemberEpoch(request.member_epoch),
        rack_id: own(&request.rack_id),
        topics: request.subscribed_topic_names.map(|names| names.iter().map(|name| name.to_string()).collect()),
        client_id: context.client_id().to_owned(),
        client_host: format!("/{}", context.peer.ip()),
    }
}

fn assignment(partitions: PartitionSet) -> Assignment {
    let topics = to_wire(partitions)
        .map(|(topic, partitions)| TopicPartitions::default().with_topic_id(topic).with_partitions(partitions));
    Assignment::default().with_topic_partitions(topics.collect())
}
