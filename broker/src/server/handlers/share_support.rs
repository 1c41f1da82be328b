//! What the requests of share groups share.

use kafka_protocol::{error::ResponseError, protocol::StrBytes};
use uuid::Uuid;
use varve_metadata::{
    image::TopicImage,
    model::{Feature, PartitionIndex, TopicId},
};

use super::{admin_errors::plain, group_support::text};
use crate::{
    coordinator::share_state::{ShareKey, ShareStateError},
    server::{
        Broker, RequestContext,
        authorizer::{Operation, Resource},
    },
};

/// The longest id of a member: that of a UUID as people read it.
const MEMBER_ID_MAX: usize = 36;

/// Whether there are share groups: the cluster has agreed on it.
pub(super) fn is_served(broker: &Broker) -> bool {
    broker.metadata.image().feature_level(Feature::SHARE_VERSION.name) > 0
}

/// Whether a member may be called so.
pub(super) fn is_member_id(id: &str) -> bool {
    !id.is_empty() && id.encode_utf16().count() <= MEMBER_ID_MAX
}

/// What Kafka says about an error when it has nothing more to say.
pub(super) fn message(error: ResponseError) -> Option<StrBytes> {
    Some(text(plain(error).1))
}

/// The only place where a [`ShareStateError`] becomes Kafka's.
pub(super) fn state_error(error: ShareStateError) -> ResponseError {
    match error {
        ShareStateError::NotInitialized => ResponseError::InvalidRequest,
        ShareStateError::FencedLeaderEpoch => ResponseError::FencedLeaderEpoch,
        ShareStateError::FencedStateEpoch => ResponseError::FencedStateEpoch,
        ShareStateError::CoordinatorNotAvailable => ResponseError::CoordinatorNotAvailable,
        ShareStateError::NotCoordinator => ResponseError::NotCoordinator,
        ShareStateError::LoadInProgress => ResponseError::CoordinatorLoadInProgress,
        ShareStateError::UnknownTopic => ResponseError::UnknownTopicOrPartition,
        ShareStateError::Unexpected => ResponseError::UnknownServerError,
    }
}

/// Why a keeper does not do what it is asked.
pub(super) struct Refusal {
    pub(super) error: ResponseError,
    pub(super) message: String,
}

impl Refusal {
    fn new(error: ResponseError, message: &str) -> Refusal {
        Refusal { error, message: message.to_owned() }
    }

    fn plain(error: ResponseError) -> Refusal {
        let (error, message) = plain(error);
        Refusal { error, message }
    }

    /// The word of a keeper; `what` it was to do.
    pub(super) fn of(error: ShareStateError, what: &str) -> Refusal {
        match error {
            ShareStateError::NotInitialized => {
                let message = format!("{what} operation on uninitialized share partition not allowed.");
                Refusal { error: ResponseError::InvalidRequest, message }
            }
            error => Refusal::plain(state_error(error)),
        }
    }
}

/// Whether a broker asks: only they may speak to keepers.
pub(super) fn require_broker(broker: &Broker, context: &RequestContext) -> Result<(), Refusal> {
    let required = broker.access(context).require(Operation::ClusterAction, Resource::Cluster);
    required.map_err(Refusal::plain)
}

/// The share partition that a broker asks a keeper about.
///
/// # Errors
/// There is no such topic or partition, as far as this node knows.
pub(super) fn kept_share(group: &str, topic: Uuid, partition: i32) -> Result<ShareKey, Refusal> {
    if partition < 0 {
        return Err(Refusal::new(ResponseError::InvalidRequest, "The partition id cannot be a negative number."));
    }
    let unknown = || Refusal::plain(ResponseError::UnknownTopicOrPartition);
    let index = PartitionIndex::from_wire(partition).ok_or_else(unknown)?;
    let topic = TopicId::from_wire(topic).ok_or_else(unknown)?;
    Ok(ShareKey { group: group.to_owned(), topic, partition: index })
}

/// Whether this node has heard of the partition: a keeper looks at that last.
pub(super) fn require_topic(broker: &Broker, key: &ShareKey) -> Result<(), Refusal> {
    let image = broker.metadata.image();
    let known = |topic: &std::sync::Arc<TopicImage>| topic.partition(key.partition).is_some();
    match image.topic_by_id(key.topic).is_some_and(known) {
        true => Ok(()),
        false => Err(Refusal::plain(ResponseError::UnknownTopicOrPartition)),
    }
}
