//! ShareGroupHeartbeat (KIP-932): a member of a share group joins, says what it wants, and leaves.

use kafka_protocol::{
    error::ResponseError,
    messages::{
        ShareGroupHeartbeatRequest, ShareGroupHeartbeatResponse,
        share_group_heartbeat_response::{Assignment, TopicPartitions},
    },
};
use varve_metadata::model::PartitionIndex;

use super::{
    group_support::{mismatched, own, text},
    share_support::{is_member_id, is_served, share_group_error},
};
use crate::{
    coordinator::{
        Answer, GroupError, MemberEpoch, ShareGroupError, ShareHeartbeat, ShareHeartbeatAnswer, assignor::PartitionSet,
    },
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
    match heartbeat(broker, context, request).await {
        Ok(told) => answer
            .with_member_id(Some(text(told.member_id)))
            .with_member_epoch(told.epoch.0)
            .with_heartbeat_interval_ms(i32::try_from(told.heartbeat_interval.as_millis()).unwrap_or(i32::MAX))
            .with_assignment(told.assignment.map(assignment)),
        Err(error) => {
            let (error, message) = share_group_error(&error);
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

async fn heartbeat(
    broker: &Broker,
    context: &RequestContext,
    request: ShareGroupHeartbeatRequest,
) -> Result<ShareHeartbeatAnswer, ShareGroupError> {
    let seat = broker.groups.seat(broker, &request.group_id)?;
    let request = ShareHeartbeat {
        group_id: request.group_id.to_string(),
        member_id: request.member_id.to_string(),
        epoch: MemberEpoch(request.member_epoch),
        rack_id: own(&request.rack_id),
        topics: request.subscribed_topic_names.map(|names| names.iter().map(|name| name.to_string()).collect()),
        client_id: context.client_id().to_owned(),
        client_host: format!("/{}", context.peer.ip()),
    };
    let asked = seat.ask(|shard, now, id, effects| shard.share_heartbeat(now, id, request, effects)).await;
    match asked.map_err(GroupError::from)? {
        Answer::ShareHeartbeat(outcome) => outcome,
        _ => Err(mismatched().into()),
    }
}

fn assignment(partitions: PartitionSet) -> Assignment {
    let topics = partitions.into_iter().map(|(topic, partitions)| {
        TopicPartitions::default()
            .with_topic_id(topic.to_wire())
            .with_partitions(partitions.into_iter().map(PartitionIndex::to_wire).collect())
    });
    Assignment::default().with_topic_partitions(topics.collect())
}
