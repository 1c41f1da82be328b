//! SyncGroup: a member asks for its assignment; the leader brings everyone's.

use bytes::Bytes;
use kafka_protocol::{
    error::ResponseError,
    messages::{SyncGroupRequest, SyncGroupResponse},
};

use super::group_support::{group_error, identity, member_seat, mismatched, own, text};
use crate::{
    coordinator::{Answer, Generation, GroupError, SyncAnswer, SyncRequest, SyncedMember},
    server::{
        Broker, RequestContext,
        authorizer::{Operation, Resource},
    },
};

/// First version that must name protocol type and protocol (KIP-559).
const PROTOCOL_SINCE: i16 = 5;

pub(crate) async fn handle(broker: &Broker, context: &RequestContext, request: SyncGroupRequest) -> SyncGroupResponse {
    let names_protocol = request.protocol_type.is_some() && request.protocol_name.is_some();
    if context.api_version >= PROTOCOL_SINCE && !names_protocol {
        return refused(ResponseError::InconsistentGroupProtocol);
    }
    if let Err(error) = broker.access(context).require(Operation::Read, Resource::Group(&request.group_id)) {
        return refused(error);
    }
    match sync(broker, request).await {
        Ok(synced) => SyncGroupResponse::default()
            .with_protocol_type(synced.protocol_type.map(text))
            .with_protocol_name(synced.protocol_name.map(text))
            .with_assignment(synced.assignment),
        Err(error) => refused(group_error(error)),
    }
}

fn refused(error: ResponseError) -> SyncGroupResponse {
    SyncGroupResponse::default().with_error_code(error.code())
}

async fn sync(broker: &Broker, request: SyncGroupRequest) -> Result<SyncedMember, GroupError> {
    let seat = member_seat(broker, &request.group_id)?;
    let request = SyncRequest {
        group_id: request.group_id.to_string(),
        member: identity(&request.member_id, &request.group_instance_id),
        generation: Generation::from_wire(request.generation_id),
        protocol_type: own(&request.protocol_type),
        protocol_name: own(&request.protocol_name),
        assignments: request
            .assignments
            .iter()
            // Copied: the group outlives the request's frame.
            .map(|part| (part.member_id.to_string(), Bytes::copy_from_slice(&part.assignment)))
            .collect(),
    };
    match seat.ask(|shard, now, id, effects| shard.sync(now, id, request, effects)).await? {
        Answer::Sync(SyncAnswer(outcome)) => outcome,
        _ => Err(mismatched()),
    }
}
