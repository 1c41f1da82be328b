//! ListGroups: the groups that this broker coordinates (KIP-518, KIP-848).

use kafka_protocol::messages::{ListGroupsRequest, ListGroupsResponse, list_groups_response};

use super::group_support::{group_error, text};
use crate::{
    coordinator::{GroupError, GroupFilter, ListedGroup},
    server::{
        Broker, RequestContext,
        authorizer::{Operation, Resource},
        seats::SeatError,
    },
};

pub(crate) async fn handle(
    broker: &Broker,
    context: &RequestContext,
    request: ListGroupsRequest,
) -> ListGroupsResponse {
    let own = |names: &[kafka_protocol::protocol::StrBytes]| names.iter().map(|name| name.to_string()).collect();
    let filter = GroupFilter { states: own(&request.states_filter), types: own(&request.types_filter) };
    match list(broker, &filter) {
        Ok(groups) => {
            let access = broker.access(context);
            // Who may describe the cluster sees every group; others those that they may describe.
            let sees_all = access.shows(Operation::Describe, Resource::Cluster);
            let shown = groups
                .into_iter()
                .filter(|group| sees_all || access.shows(Operation::Describe, Resource::Group(&group.group_id)));
            let groups = shown.map(|group| {
                list_groups_response::ListedGroup::default()
                    .with_group_id(text(group.group_id).into())
                    .with_protocol_type(text(group.protocol_type))
                    .with_group_state(text(group.state))
                    .with_group_type(text(group.group_type.name()))
            });
            ListGroupsResponse::default().with_groups(groups.collect())
        }
        // A list that lacks the groups of a partition would look like their end.
        Err(error) => ListGroupsResponse::default().with_error_code(group_error(error).code()),
    }
}

fn list(broker: &Broker, filter: &GroupFilter) -> Result<Vec<ListedGroup>, GroupError> {
    let mut groups = Vec::new();
    for seat in broker.groups.all_seats() {
        match seat.read(|shard| shard.list(filter)) {
            Ok(listed) => groups.extend(listed),
            // Whoever coordinates them now lists them.
            Err(SeatError::NotHere) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(groups)
}
