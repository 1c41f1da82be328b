//! JoinGroup: a member joins; answered when the rebalance ends.

use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::{
    error::ResponseError,
    messages::{JoinGroupRequest, JoinGroupResponse, join_group_response::JoinGroupResponseMember},
    protocol::StrBytes,
};
use uuid::Uuid;

use super::group_support::{group_error, member_seat, mismatched, own, text};
use crate::{
    coordinator::{Answer, GroupError, JoinAnswer, JoinRequest, JoinedGroup, Protocol},
    server::{
        Broker, RequestContext,
        authorizer::{Operation, Resource},
    },
};

/// First version whose new members are sent back with a member id (KIP-394).
const MEMBER_ID_REQUIRED_SINCE: i16 = 4;
/// First version in which the protocol's name may be null.
const NULL_PROTOCOL_SINCE: i16 = 7;
/// First version that can tell a leader to leave the assignment as it is (KIP-814).
const SKIP_ASSIGNMENT_SINCE: i16 = 9;

pub(crate) async fn handle(broker: &Broker, context: &RequestContext, request: JoinGroupRequest) -> JoinGroupResponse {
    if let Err(error) = broker.access(context).require(Operation::Read, Resource::Group(&request.group_id)) {
        return refused(context.api_version, String::new(), error);
    }
    let member_id = request.member_id.to_string();
    let answer = match join(broker, context, request).await {
        Ok(answer) => answer,
        Err(error) => JoinAnswer { member_id, outcome: Err(error) },
    };
    response(context.api_version, answer)
}

async fn join(broker: &Broker, context: &RequestContext, request: JoinGroupRequest) -> Result<JoinAnswer, GroupError> {
    let seat = member_seat(broker, &request.group_id)?;
    let request = join_request(context, request);
    match seat.ask(|shard, now, id, effects| shard.join(now, id, request, effects)).await? {
        Answer::Join(answer) => Ok(answer),
        _ => Err(mismatched()),
    }
}

fn join_request(context: &RequestContext, request: JoinGroupRequest) -> JoinRequest {
    // Version 0 had one time for both.
    let rebalance_ms = if context.api_version == 0 { request.session_timeout_ms } else { request.rebalance_timeout_ms };
    JoinRequest {
        group_id: request.group_id.to_string(),
        member_id: (!request.member_id.is_empty()).then(|| request.member_id.to_string()),
        instance_id: own(&request.group_instance_id),
        client_id: context.client_id().to_owned(),
        client_host: format!("/{}", context.peer.ip()),
        session_timeout: millis(request.session_timeout_ms),
        rebalance_timeout: millis(rebalance_ms),
        protocol_type: request.protocol_type.to_string(),
        protocols: request
            .protocols
            .iter()
            .map(|protocol| Protocol {
                name: protocol.name.to_string(),
                // Copied: the group outlives the request's frame.
                metadata: Bytes::copy_from_slice(&protocol.metadata),
            })
            .collect(),
        reason: own(&request.reason).filter(|reason| !reason.is_empty()),
        requires_known_member_id: context.api_version >= MEMBER_ID_REQUIRED_SINCE,
        supports_skip_assignment: context.api_version >= SKIP_ASSIGNMENT_SINCE,
        fresh_id: Uuid::new_v4(),
    }
}

fn millis(millis: i32) -> Duration {
    Duration::from_millis(u64::try_from(millis).unwrap_or(0))
}

/// What stands for the name of a protocol where there is none.
fn no_protocol(version: i16) -> Option<StrBytes> {
    (version < NULL_PROTOCOL_SINCE).then(StrBytes::default)
}

fn refused(version: i16, member_id: String, error: ResponseError) -> JoinGroupResponse {
    JoinGroupResponse::default()
        .with_member_id(text(member_id))
        .with_error_code(error.code())
        .with_generation_id(-1)
        .with_protocol_type(None)
        .with_protocol_name(no_protocol(version))
}

fn response(version: i16, answer: JoinAnswer) -> JoinGroupResponse {
    let JoinedGroup { generation, protocol_type, protocol_name, leader, skip_assignment, members } =
        match answer.outcome {
            Ok(joined) => joined,
            Err(error) => return refused(version, answer.member_id, group_error(error)),
        };
    let members = members.into_iter().map(|member| {
        JoinGroupResponseMember::default()
            .with_member_id(text(member.member_id))
            .with_group_instance_id(member.instance_id.map(text))
            .with_metadata(member.metadata)
    });
    JoinGroupResponse::default()
        .with_member_id(text(answer.member_id))
        .with_generation_id(generation.to_wire())
        .with_protocol_type(protocol_type.map(text))
        .with_protocol_name(protocol_name.map(text).or_else(|| no_protocol(version)))
        .with_leader(text(leader))
        .with_skip_assignment(skip_assignment)
        .with_members(members.collect())
}
