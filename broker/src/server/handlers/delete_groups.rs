//! DeleteGroups: removes groups without members, with their offsets (KIP-229).

use std::collections::HashSet;

use kafka_protocol::messages::{
    DeleteGroupsRequest, DeleteGroupsResponse, delete_groups_response::DeletableGroupResult,
};

use super::group_support::{code, mismatched};
use crate::{
    coordinator::{Answer, GroupError},
    server::{
        Broker, RequestContext,
        authorizer::{Operation, Resource},
    },
};

pub(crate) async fn handle(
    broker: &Broker,
    context: &RequestContext,
    request: DeleteGroupsRequest,
) -> DeleteGroupsResponse {
    let access = broker.access(context);
    let mut seen = HashSet::new();
    let mut results = Vec::with_capacity(request.groups_names.len());
    for group_id in request.groups_names {
        if seen.insert(group_id.clone()) {
            let code = match access.require(Operation::Delete, Resource::Group(&group_id)) {
                Ok(()) => code(delete(broker, &group_id).await),
                Err(refused) => refused.code(),
            };
            results.push(DeletableGroupResult::default().with_group_id(group_id).with_error_code(code));
        }
    }
    DeleteGroupsResponse::default().with_results(results)
}

async fn delete(broker: &Broker, group_id: &str) -> Result<(), GroupError> {
    let seat = broker.groups.seat(broker, group_id)?;
    let group = group_id.to_owned();
    match seat.ask(|shard, now, id, effects| shard.delete_group(now, id, group, effects)).await? {
        Answer::DeleteGroup(outcome) => outcome,
        _ => Err(mismatched()),
    }
}
