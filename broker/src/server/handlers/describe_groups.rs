//! DescribeGroups: groups of the classic protocol in full (KIP-1043 for its errors).

use kafka_protocol::{
    error::ResponseError,
    messages::{
        DescribeGroupsRequest, DescribeGroupsResponse, GroupId,
        describe_groups_response::{DescribedGroup, DescribedGroupMember},
    },
};

use super::group_support::{group_error, text};
use crate::{
    coordinator::{self, GroupState},
    server::{
        Broker, RequestContext,
        authorizer::{Operation, Resource},
    },
};

/// First version that tells an unknown group by an error.
const NOT_FOUND_SINCE: i16 = 6;
/// First version that may ask for the operations that the client is allowed.
const OPERATIONS_SINCE: i16 = 3;

pub(crate) async fn handle(
    broker: &Broker,
    context: &RequestContext,
    request: DescribeGroupsRequest,
) -> DescribeGroupsResponse {
    let wants_operations = context.api_version >= OPERATIONS_SINCE && request.include_authorized_operations;
    let access = broker.access(context);
    let groups = request.groups.into_iter().map(|group_id| {
        let resource = group_id.clone();
        let resource = Resource::Group(&resource);
        if let Err(refused) = access.require(Operation::Describe, resource) {
            return DescribedGroup::default().with_group_id(group_id).with_error_code(refused.code());
        }
        let mut group = describe(broker, context.api_version, group_id);
        if wants_operations && group.error_code == 0 {
            group.authorized_operations = access.authorized_operations(resource);
        }
        group
    });
    DescribeGroupsResponse::default().with_groups(groups.collect())
}

fn describe(broker: &Broker, version: i16, group_id: GroupId) -> DescribedGroup {
    let found = broker.groups.seat(broker, &group_id).and_then(|seat| {
        Ok(seat.read(|shard| shard.describe(&group_id).ok_or_else(|| shard.is_not_classic(&group_id)))?)
    });
    let answer = DescribedGroup::default().with_group_id(group_id.clone());
    match found {
        Err(error) => answer.with_error_code(group_error(error).code()),
        Ok(Ok(group)) => described(answer, group),
        Ok(Err(is_of_another_type)) => {
            let answer = answer.with_group_state(text(GroupState::Dead.name()));
            if version < NOT_FOUND_SINCE {
                return answer;
            }
            let what = if is_of_another_type { "is not a classic group" } else { "not found" };
            let message = format!("Group {} {what}.", group_id.0);
            answer.with_error_code(ResponseError::GroupIdNotFound.code()).with_error_message(Some(text(message)))
        }
    }
}

fn described(answer: DescribedGroup, group: coordinator::DescribedGroup) -> DescribedGroup {
    let members = group.members.into_iter().map(|member| {
        DescribedGroupMember::default()
            .with_member_id(text(member.member_id))
            .with_group_instance_id(member.instance_id.map(text))
            .with_client_id(text(member.client_id))
            .with_client_host(text(member.client_host))
            .with_member_metadata(member.metadata)
            .with_member_assignment(member.assignment)
    });
    answer
        .with_group_state(text(group.state.name()))
        .with_protocol_type(text(group.protocol_type))
        .with_protocol_data(text(group.protocol_name))
        .with_members(members.collect())
}
