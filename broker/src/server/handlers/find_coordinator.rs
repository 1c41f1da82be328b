//! FindCoordinator (KIP-699): which broker looks after a group or a transactional id.

use kafka_protocol::{
    error::ResponseError,
    messages::{FindCoordinatorRequest, FindCoordinatorResponse, find_coordinator_response::Coordinator},
    protocol::StrBytes,
};
use varve_metadata::{
    image::Endpoint,
    model::{BrokerId, TopicName},
};

use super::group_support::text;
use crate::{
    coordinator::{
        OFFSETS_TOPIC,
        share_state::{SHARE_STATE_TOPIC, ShareKey},
        transactions::TRANSACTIONS_TOPIC,
    },
    server::{
        Broker, RequestContext,
        authorizer::{Operation, Resource},
        auto_create::create_missing,
    },
};

/// First version that asks for several at once.
const BATCHES_SINCE: i16 = 4;
/// First version that knows share groups (KIP-932).
const SHARES_SINCE: i16 = 6;

/// What Kafka says of an INVALID_REQUEST when it has nothing more to say.
const MALFORMED: &str = "This most likely occurs because of a request being malformed by the client library or the \
                         message was sent to an incompatible broker. See the broker logs for more details.";
pub(crate) async fn handle(
    broker: &Broker,
    context: &RequestContext,
    request: FindCoordinatorRequest,
) -> FindCoordinatorResponse {
    if context.api_version >= BATCHES_SINCE {
        let mut coordinators = Vec::with_capacity(request.coordinator_keys.len());
        for key in request.coordinator_keys {
            coordinators.push(find(broker, context, request.key_type, key).await);
        }
        return FindCoordinatorResponse::default().with_coordinators(coordinators);
    }
    let found = find(broker, context, request.key_type, request.key).await;
    // Kafka's word for a success that was asked for alone.
    let message = match found.error_code {
        0 => Some(StrBytes::from_static_str("NONE")),
        _ => found.error_message,
    };
    FindCoordinatorResponse::default()
        .with_error_code(found.error_code)
        .with_error_message(message)
        .with_node_id(found.node_id)
        .with_host(found.host)
        .with_port(found.port)
}

async fn find(broker: &Broker, context: &RequestContext, key_type: i8, key: StrBytes) -> Coordinator {
    let found = match (authorize(broker, context, key_type, &key), key_type) {
        (Err(denied), _) => Err(denied),
        (Ok(()), 0) => coordinator(broker, context, OFFSETS_TOPIC, &key).await,
        (Ok(()), 1) => coordinator(broker, context, TRANSACTIONS_TOPIC, &key).await,
        (Ok(()), 2) if context.api_version >= SHARES_SINCE => match ShareKey::is_spelled(&key) {
            true => coordinator(broker, context, SHARE_STATE_TOPIC, &key).await,
            false => Err((ResponseError::InvalidRequest, "")),
        },
        (Ok(()), 2) if context.api_version >= BATCHES_SINCE => Err((ResponseError::InvalidRequest, "")),
        (Ok(()), _) => Err((ResponseError::InvalidRequest, MALFORMED)),
    };
    let answer = Coordinator::default().with_key(key);
    match found {
        Ok((id, endpoint)) => {
            answer.with_node_id(id.to_wire().into()).with_host(text(endpoint.host)).with_port(i32::from(endpoint.port))
        }
        Err((error, reason)) => answer
            .with_error_code(error.code())
            .with_error_message(Some(StrBytes::from_static_str(reason)))
            .with_node_id((-1).into())
            .with_port(-1),
    }
}

fn authorize(
    broker: &Broker,
    context: &RequestContext,
    key_type: i8,
    key: &str,
) -> Result<(), (ResponseError, &'static str)> {
    let resource = match key_type {
        0 => Resource::Group(key),
        1 => Resource::TransactionalId(key),
        2 if context.api_version >= SHARES_SINCE => {
            let required = broker.access(context).require(Operation::ClusterAction, Resource::Cluster);
            return required.map_err(|error| (error, ""));
        }
        _ => return Ok(()),
    };
    let required = broker.access(context).require(Operation::Describe, resource);
    // Where several are asked for, Kafka leaves it at the code.
    let message = if context.api_version >= BATCHES_SINCE { "" } else { resource.refusal_text() };
    required.map_err(|error| (error, message))
}

/// The leader of the partition of `topic` that holds `key`; the topic is made if it is missing.
async fn coordinator(
    broker: &Broker,
    context: &RequestContext,
    topic: &'static str,
    key: &str,
) -> Result<(BrokerId, Endpoint), (ResponseError, &'static str)> {
    let not_available = |reason| (ResponseError::CoordinatorNotAvailable, reason);
    if broker.metadata.image().topic(topic).is_none()
        && let Ok(name) = TopicName::parse(topic)
    {
        create_missing(broker, &[name]).await;
    }
    let image = broker.metadata.image();
    let index = match topic {
        TRANSACTIONS_TOPIC => broker.transactions.partition_of(&image, key),
        SHARE_STATE_TOPIC => broker.share_states.partition_of(&image, key),
        _ => broker.groups.partition_of(&image, key),
    };
    let topic = image.topic(topic).ok_or_else(|| not_available("the coordinator's topic is being created"))?;
    let leader = topic.partition(index).and_then(|(_, partition)| partition.leader);
    let leader = leader.ok_or_else(|| not_available("the coordinator's partition has no leader"))?;
    let node = image.brokers().get(&leader).filter(|node| !node.fenced);
    let endpoint = node.and_then(|node| node.endpoints.get(context.listener.0.as_ref()));
    let endpoint = endpoint.ok_or_else(|| not_available("the coordinator is not reached by this listener"))?;
    Ok((leader, endpoint.clone()))
}
