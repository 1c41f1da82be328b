//! DeleteShareGroupOffsets (KIP-932): a share group, which has no members, forgets topics.

use std::collections::{BTreeMap, BTreeSet};

use kafka_protocol::{
    error::ResponseError,
    messages::{
        DeleteShareGroupOffsetsRequest, DeleteShareGroupOffsetsResponse,
        delete_share_group_offsets_response::DeleteShareGroupOffsetsResponseTopic,
    },
    protocol::StrBytes,
};
use varve_metadata::model::TopicId;

use super::{
    group_support::{mismatched, text},
    modern_groups::Refused,
    share_support::{is_served, message, state_error},
};
use crate::{
    coordinator::{
        Answer, GroupError, ModernGroupError, SharesToEnd,
        assignor::PartitionSet,
        share_state::{ShareKey, StateRequest},
    },
    server::{
        Broker, RequestContext,
        authorizer::{Operation, Resource},
        group_coordinator::Seat,
    },
};

pub(crate) async fn handle(
    broker: &Broker,
    context: &RequestContext,
    request: DeleteShareGroupOffsetsRequest,
) -> DeleteShareGroupOffsetsResponse {
    let refuse = |Refused { error, message: words }: Refused| {
        let words = words.or_else(|| message(error));
        DeleteShareGroupOffsetsResponse::default().with_error_code(error.code()).with_error_message(words)
    };
    if !is_served(broker) {
        return refuse(ResponseError::UnsupportedVersion.into());
    }
    let access = broker.access(context);
    if let Err(error) = access.require(Operation::Delete, Resource::Group(&request.group_id)) {
        return refuse(error.into());
    }
    let (mut allowed, mut told) = (Vec::new(), Vec::new());
    for topic in request.topics {
        match access.require(Operation::Read, Resource::Topic(&topic.topic_name)) {
            Ok(()) => allowed.push(topic.topic_name.to_string()),
            Err(error) => {
                let topic = DeleteShareGroupOffsetsResponseTopic::default().with_topic_name(topic.topic_name);
                told.push(topic.with_error_code(error.code()).with_error_message(message(error)));
            }
        }
    }
    match delete(broker, &request.group_id, allowed).await {
        Ok(topics) => told.extend(topics),
        Err(error) => return refuse(error.into()),
    }
    DeleteShareGroupOffsetsResponse::default().with_responses(told)
}

async fn delete(
    broker: &Broker,
    group: &str,
    topics: Vec<String>,
) -> Result<Vec<DeleteShareGroupOffsetsResponseTopic>, ModernGroupError> {
    if group.is_empty() {
        return Err(GroupError::InvalidGroupId.into());
    }
    let seat = broker.groups.seat(broker, group)?;
    let SharesToEnd { partitions, without } = to_end(&seat, group, Some(topics)).await?;
    let image = broker.metadata.image();
    let failed = forget(broker, group, &partitions).await;
    let ended: BTreeSet<TopicId> = partitions.keys().copied().filter(|topic| !failed.contains_key(topic)).collect();
    if !ended.is_empty() {
        let topics = ended.clone();
        let settled = seat.ask(|shard, now, id, effects| shard.shares_ended(now, id, group, topics, effects)).await;
        match settled.map_err(GroupError::from)? {
            Answer::SharesSettled(settled) => settled?,
            _ => return Err(mismatched().into()),
        }
    }
    let named = |topic: &TopicId| {
        let name = image.topic_by_id(*topic).map(|topic| topic.name.to_string()).unwrap_or_default();
        DeleteShareGroupOffsetsResponseTopic::default()
            .with_topic_name(text(name).into())
            .with_topic_id(topic.to_wire())
    };
    let ended = ended.iter().map(named);
    let failed = failed
        .iter()
        .map(|(topic, error)| named(topic).with_error_code(error.code()).with_error_message(message(*error)));
    let without = without.into_iter().map(|name| {
        let error = ResponseError::UnknownTopicOrPartition;
        let words = match image.topic(&name) {
            Some(_) => Some(StrBytes::from_static_str("There is no offset information to delete.")),
            None => message(error),
        };
        let topic = DeleteShareGroupOffsetsResponseTopic::default().with_topic_name(text(name).into());
        topic.with_error_code(error.code()).with_error_message(words)
    });
    Ok(ended.chain(failed).chain(without).collect())
}

/// What a group is to forget, written down: of these topics, or with `None` of all.
///
/// # Errors
/// There is no such group, or it has members.
pub(super) async fn to_end(
    seat: &std::sync::Arc<Seat>,
    group: &str,
    topics: Option<Vec<String>>,
) -> Result<SharesToEnd, ModernGroupError> {
    let asked = seat.ask(|shard, now, id, effects| shard.end_shares(now, id, group, topics, effects)).await;
    match asked.map_err(GroupError::from)? {
        Answer::EndShares(to_end) => to_end,
        _ => Err(mismatched().into()),
    }
}

/// Has keepers forget. Returns what one of those says that did not, by topic.
pub(super) async fn forget(
    broker: &Broker,
    group: &str,
    partitions: &PartitionSet,
) -> BTreeMap<TopicId, ResponseError> {
    let keys = partitions.iter().flat_map(|(topic, partitions)| {
        partitions.iter().map(|partition| ShareKey { group: group.to_owned(), topic: *topic, partition: *partition })
    });
    let keys: Vec<ShareKey> = keys.collect();
    let questions = keys.iter().map(|key| (key.clone(), StateRequest::Delete)).collect();
    let outcomes = broker.share_states.ask_each(broker, questions).await;
    let failed = keys.iter().zip(outcomes).filter_map(|(key, outcome)| Some((key.topic, state_error(outcome.err()?))));
    failed.collect()
}
