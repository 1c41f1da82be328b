//! Heartbeat: a member shows that it is alive, and learns whether it has to join again.

use kafka_protocol::messages::{HeartbeatRequest, HeartbeatResponse};

use super::group_support::{code, identity, member_seat};
use crate::{
    coordinator::{Generation, GroupError},
    server::{
        Broker, RequestContext,
        authorizer::{Operation, Resource},
    },
};

pub(crate) async fn handle(broker: &Broker, context: &RequestContext, request: HeartbeatRequest) -> HeartbeatResponse {
    if let Err(refused) = broker.access(context).require(Operation::Read, Resource::Group(&request.group_id)) {
        return HeartbeatResponse::default().with_error_code(refused.code());
    }
    let outcome = match heartbeat(broker, &request) {
        // Sessions only start to run when the group is loaded: nothing is lost yet, and nothing to be done.
        Err(GroupError::LoadInProgress) => Ok(()),
        outcome => outcome,
    };
    HeartbeatResponse::default().with_error_code(code(outcome))
}

fn heartbeat(broker: &Broker, request: &HeartbeatRequest) -> Result<(), GroupError> {
    let seat = member_seat(broker, &request.group_id)?;
    let member = identity(&request.member_id, &request.group_instance_id);
    let generation = Generation::from_wire(request.generation_id);
    seat.step(|shard, now, _| shard.heartbeat(now, &request.group_id, &member, generation))?
}
