//! DeleteGroups: removes groups without members, with their offsets (KIP-229).

use std::collections::HashSet;

use kafka_protocol::{
    error::ResponseError,
    messages::{DeleteGroupsRequest, DeleteGroupsResponse, delete_groups_response::DeletableGroupResult},
};

use super::{
    delete_share_group_offsets::{forget, to_end},
    group_support::{group_error, mismatched},
};
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
                Ok(()) => delete(broker, &group_id).await.err().map_or(0, |error| error.code()),
                Err(refused) => refused.code(),
            };
            results.push(DeletableGroupResult::default().with_group_id(group_id).with_error_code(code));
        }
    }
    DeleteGroupsResponse::default().with_results(results)
}

async fn delete(broker: &Broker, group_id: &str) -> Result<(), ResponseError> {
    let seat = broker.groups.seat(broker, group_id).map_err(group_error)?;
    // What is kept for a share group goes before the group does: nobody would know of it later. Of groups of other types
    // nothing is kept.
    match to_end(&seat, group_id, None).await.map_err(|error| error.kind()) {
        Ok(to_end) => {
            if let Some((_, error)) = forget(broker, group_id, &to_end.partitions).await.pop_first() {
                return Err(error);
            }
        }
        Err(GroupError::GroupIdNotFound) => {}
        Err(error) => return Err(group_error(error)),
    }
    let group = group_id.to_owned();
    let asked = seat.ask(|shard, now, id, effects| shard.delete_group(now, id, group, effects)).await;
    match asked.map_err(|error| group_error(error.into()))? {
        Answer::DeleteGroup(outcome) => outcome.map_err(group_error),
        _ => Err(group_error(mismatched())),
    }
}
