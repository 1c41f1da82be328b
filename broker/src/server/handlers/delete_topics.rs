//! DeleteTopics: by name, or by id since version 6.

use std::collections::{BTreeMap, BTreeSet};

use kafka_protocol::{
    error::ResponseError,
    messages::{DeleteTopicsRequest, DeleteTopicsResponse, delete_topics_response::DeletableTopicResult},
};
use uuid::Uuid;
use varve_metadata::{image::ClusterImage, model::TopicId};

use super::{
    admin_errors::{deadline, metadata_error, plain},
    cluster_view::{text, topic_name},
    mutation_quota::Mutations,
};
use crate::server::{
    Broker, RequestContext,
    authorizer::{Access, Operation, Resource},
};

/// First version whose clients know THROTTLING_QUOTA_EXCEEDED.
const STRICT_SINCE: i16 = 5;

pub(crate) async fn handle(
    broker: &Broker,
    context: &RequestContext,
    request: DeleteTopicsRequest,
) -> DeleteTopicsResponse {
    if !broker.config.topics.delete_enabled {
        return disabled(context, &request);
    }
    let access = broker.access(context);
    let image = broker.metadata.image();
    let (mut responses, mut wanted) = sort(&image, &access, &request);
    let mut mutations = Mutations::of(broker, context, STRICT_SINCE);
    if mutations.are_counted() {
        wanted.retain(|id, name| {
            let partitions = image.topic_by_id(*id).map_or(0, |topic| topic.partitions.len());
            let refusal = mutations.allow(partitions).err();
            responses.extend(refusal.clone().map(|refusal| result(Some(name), id.to_wire(), Some(refusal))));
            refusal.is_none()
        });
    }
    let ids: Vec<TopicId> = wanted.keys().copied().collect();
    let deleted = broker.metadata.delete_topics(&ids, deadline(context, request.timeout_ms)).await;
    for (place, (id, name)) in wanted.into_iter().enumerate() {
        let error = match &deleted {
            Ok(deleted) if deleted.get(place) == Some(&true) => None,
            Ok(_) => Some(plain(ResponseError::UnknownTopicId)),
            Err(error) => Some(metadata_error(error)),
        };
        responses.push(result(Some(&name), id.to_wire(), error));
    }
    DeleteTopicsResponse::default().with_throttle_time_ms(mutations.throttle_time_ms()).with_responses(responses)
}

type Refusal = (ResponseError, String);

fn result(name: Option<&str>, id: Uuid, error: Option<Refusal>) -> DeletableTopicResult {
    let result = DeletableTopicResult::default().with_name(name.map(topic_name)).with_topic_id(id);
    match error {
        None => result,
        Some((error, message)) => result.with_error_code(error.code()).with_error_message(Some(text(&message))),
    }
}

/// Every topic that can be deleted, once, and an answer for everything else that was asked.
fn sort(
    image: &ClusterImage,
    access: &Access<'_>,
    request: &DeleteTopicsRequest,
) -> (Vec<DeletableTopicResult>, BTreeMap<TopicId, String>) {
    let rights = Rights { access, deletes_any: access.shows(Operation::Delete, Resource::Cluster) };
    let invalid = |message: &str| Some((ResponseError::InvalidRequest, message.to_owned()));
    let mut responses = Vec::new();
    let (mut names, mut ids) = (Given::default(), Given::default());
    request.topic_names.iter().for_each(|name| names.add(name.to_string()));
    for topic in &request.topics {
        match &topic.name {
            None if topic.topic_id.is_nil() => {
                responses.push(result(None, Uuid::nil(), invalid("Neither topic name nor id were specified.")));
            }
            None => ids.add(topic.topic_id),
            Some(name) if topic.topic_id.is_nil() => names.add(name.to_string()),
            Some(name) => {
                let refusal = invalid("You may not specify both topic name and topic id.");
                responses.push(result(Some(name), topic.topic_id, refusal));
            }
        }
    }
    let repeated = |name: &String| result(Some(name), Uuid::nil(), invalid("Duplicate topic name."));
    responses.extend(names.repeated.iter().map(repeated));
    responses.extend(ids.repeated.iter().map(|id| result(None, *id, invalid("Duplicate topic id."))));

    let mut wanted = BTreeMap::new();
    for id in ids.once {
        match TopicId::from_wire(id).and_then(|id| image.topic_by_id(id)) {
            Some(topic) if rights.delete(topic.name.as_str()) => {
                wanted.insert(topic.id, topic.name.to_string());
            }
            Some(topic) => {
                // Who may not see it does not learn what the id's topic is called.
                let name = Some(topic.name.as_str()).filter(|name| rights.describe(name));
                responses.push(result(name, id, Some(plain(ResponseError::TopicAuthorizationFailed))));
            }
            None => responses.push(result(None, id, Some(plain(ResponseError::UnknownTopicId)))),
        }
    }
    for name in names.once {
        let denied = || Some(plain(ResponseError::TopicAuthorizationFailed));
        match image.topic(&name) {
            _ if !rights.describe(&name) => responses.push(result(Some(&name), Uuid::nil(), denied())),
            Some(_) if !rights.delete(&name) => responses.push(result(Some(&name), Uuid::nil(), denied())),
            None => {
                responses.push(result(Some(&name), Uuid::nil(), Some(plain(ResponseError::UnknownTopicOrPartition))));
            }
            Some(topic) if wanted.contains_key(&topic.id) || ids.repeated.contains(&topic.id.to_wire()) => {
                // Named and numbered: it is not clear what was meant, so nothing happens to it.
                wanted.remove(&topic.id);
                let refusal = invalid("The provided topic name maps to an ID that was already supplied.");
                responses.push(result(Some(&name), topic.id.to_wire(), refusal));
            }
            Some(topic) => drop(wanted.insert(topic.id, name)),
        }
    }
    (responses, wanted)
}

/// What the caller may do with topics that it wants to delete.
struct Rights<'a> {
    access: &'a Access<'a>,
    deletes_any: bool,
}

impl Rights<'_> {
    fn describe(&self, name: &str) -> bool {
        self.deletes_any || self.access.allows(Operation::Describe, Resource::Topic(name))
    }

    fn delete(&self, name: &str) -> bool {
        self.deletes_any || self.access.allows(Operation::Delete, Resource::Topic(name))
    }
}

/// What a request gives once, and what it gives more than once.
struct Given<T> {
    once: BTreeSet<T>,
    repeated: BTreeSet<T>,
}

impl<T> Default for Given<T> {
    fn default() -> Given<T> {
        Given { once: BTreeSet::new(), repeated: BTreeSet::new() }
    }
}

impl<T: Ord + Clone> Given<T> {
    fn add(&mut self, value: T) {
        if self.repeated.contains(&value) || !self.once.insert(value.clone()) {
            self.once.remove(&value);
            self.repeated.insert(value);
        }
    }
}

fn disabled(context: &RequestContext, request: &DeleteTopicsRequest) -> DeleteTopicsResponse {
    // Clients before version 3 do not know the error that says it.
    let error = match context.api_version {
        ..3 => (ResponseError::InvalidRequest, "This version does not support topic deletion.".to_owned()),
        _ => plain(ResponseError::TopicDeletionDisabled),
    };
    let named = request.topic_names.iter().map(|name| (Some(name.as_str()), Uuid::nil()));
    let stated = request.topics.iter().map(|topic| (topic.name.as_ref().map(|name| name.as_str()), topic.topic_id));
    let responses = named.chain(stated).map(|(name, id)| result(name, id, Some(error.clone())));
    DeleteTopicsResponse::default().with_responses(responses.collect())
}
