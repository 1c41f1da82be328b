//! LeaveGroup: members go, or an administrator removes them (KIP-345).

use kafka_protocol::messages::{LeaveGroupRequest, LeaveGroupResponse, leave_group_response::MemberResponse};

use super::group_support::{code, group_error, identity, member_seat, mismatched, own};
use crate::{
    coordinator::{Answer, GroupError, LeaveAnswer, LeaveRequest, LeavingMember, MemberIdentity},
    server::{
        Broker, RequestContext,
        authorizer::{Operation, Resource},
    },
};

/// First version that names several members.
const BATCHES_SINCE: i16 = 3;

pub(crate) async fn handle(
    broker: &Broker,
    context: &RequestContext,
    request: LeaveGroupRequest,
) -> LeaveGroupResponse {
    if let Err(refused) = broker.access(context).require(Operation::Read, Resource::Group(&request.group_id)) {
        return LeaveGroupResponse::default().with_error_code(refused.code());
    }
    let is_batch = context.api_version >= BATCHES_SINCE;
    match leave(broker, &request, is_batch).await {
        Ok(outcomes) if is_batch => {
            let members = request.members.into_iter().zip(outcomes).map(|(member, outcome)| {
                MemberResponse::default()
                    .with_member_id(member.member_id)
                    .with_group_instance_id(member.group_instance_id)
                    .with_error_code(code(outcome))
            });
            LeaveGroupResponse::default().with_members(members.collect())
        }
        Ok(outcomes) => {
            let outcome = outcomes.into_iter().next().unwrap_or(Ok(()));
            LeaveGroupResponse::default().with_error_code(code(outcome))
        }
        Err(error) => LeaveGroupResponse::default().with_error_code(group_error(error).code()),
    }
}

async fn leave(
    broker: &Broker,
    request: &LeaveGroupRequest,
    is_batch: bool,
) -> Result<Vec<Result<(), GroupError>>, GroupError> {
    let seat = member_seat(broker, &request.group_id)?;
    let members = if is_batch {
        let leaving = request.members.iter().map(|member| LeavingMember {
            member: identity(&member.member_id, &member.group_instance_id),
            reason: own(&member.reason),
        });
        leaving.collect()
    } else {
        let member = MemberIdentity { member_id: request.member_id.to_string(), instance_id: None };
        vec![LeavingMember { member, reason: None }]
    };
    let request = LeaveRequest { group_id: request.group_id.to_string(), members };
    match seat.ask(|shard, now, id, effects| shard.leave(now, id, request, effects)).await? {
        Answer::Leave(LeaveAnswer(outcome)) => outcome,
        _ => Err(mismatched()),
    }
}
