//! What the requests about consumer, share and streams groups share.

use std::time::Duration;

use kafka_protocol::{error::ResponseError, protocol::StrBytes};
use uuid::Uuid;
use varve_metadata::{image::ClusterImage, model::PartitionIndex};

use super::group_support::{group_error, mismatched, text};
use crate::{
    coordinator::{
        Answer, Effect, GroupError, HeartbeatAnswer, ModernGroupError, Now, RequestId, Shard, assignor::PartitionSet,
    },
    server::{
        Broker,
        authorizer::{Access, Operation, Resource},
    },
};

/// Why a request is refused, and in the client's words what is wrong.
pub(super) struct Refused {
    pub(super) error: ResponseError,
    pub(super) message: Option<StrBytes>,
}

impl From<ResponseError> for Refused {
    fn from(error: ResponseError) -> Refused {
        Refused { error, message: None }
    }
}

impl From<ModernGroupError> for Refused {
    fn from(error: ModernGroupError) -> Refused {
        Refused { error: group_error(error.kind()), message: error.words().map(text) }
    }
}

/// Has the coordinator of a consumer or share group hear of a member.
pub(super) async fn heartbeat(
    broker: &Broker,
    group: &str,
    hear: impl FnOnce(&mut Shard, Now, RequestId, &mut Vec<Effect>),
) -> Result<HeartbeatAnswer, ModernGroupError> {
    let seat = broker.groups.seat(broker, group)?;
    match seat.ask(hear).await.map_err(GroupError::from)? {
        Answer::Heartbeat(outcome) => outcome,
        _ => Err(mismatched().into()),
    }
}

/// As answers carry it.
pub(super) fn interval_ms(interval: Duration) -> i32 {
    i32::try_from(interval.as_millis()).unwrap_or(i32::MAX)
}

/// Partitions as answers name them: topic id and numbers.
pub(super) fn to_wire(partitions: PartitionSet) -> impl Iterator<Item = (Uuid, Vec<i32>)> {
    partitions
        .into_iter()
        .map(|(topic, partitions)| (topic.to_wire(), partitions.into_iter().map(PartitionIndex::to_wire).collect()))
}

/// Partitions with the names of their topics. Topics that are gone cannot be named, and are left out.
pub(super) fn named(
    partitions: PartitionSet,
    image: &ClusterImage,
) -> impl Iterator<Item = (Uuid, StrBytes, Vec<i32>)> {
    partitions.into_iter().filter_map(|(id, partitions)| {
        let name = text(image.topic_by_id(id)?.name.as_str());
        Some((id.to_wire(), name, partitions.into_iter().map(PartitionIndex::to_wire).collect()))
    })
}

/// The group in full, if its type is served and the client may see it.
pub(super) fn describe<G>(
    broker: &Broker,
    access: &Access<'_>,
    is_served: bool,
    group: &str,
    read: impl FnOnce(&Shard) -> Result<G, ModernGroupError>,
) -> Result<G, Refused> {
    if !is_served {
        return Err(ResponseError::UnsupportedVersion.into());
    }
    access.require(Operation::Describe, Resource::Group(group))?;
    let described = || {
        if group.is_empty() {
            return Err(GroupError::InvalidGroupId.into());
        }
        broker.groups.seat(broker, group)?.read(read).map_err(GroupError::from)?
    };
    Ok(described()?)
}

/// A group that has a topic which the caller may not see is not described at all, as in Kafka.
pub(super) fn check_shown<'a>(
    access: &Access<'_>,
    topics: impl IntoIterator<Item = &'a str>,
    message: &'static str,
) -> Result<(), Refused> {
    let is_hidden = |topic: &str| !access.shows(Operation::Describe, Resource::Topic(topic));
    if access.is_checked() && topics.into_iter().any(is_hidden) {
        let message = Some(StrBytes::from_static_str(message));
        return Err(Refused { error: ResponseError::TopicAuthorizationFailed, message });
    }
    Ok(())
}

/// What is said of a consumer or share group that is hidden.
pub(super) const HIDDEN_TOPICS: &str =
    "The group has described topic(s) that the client is not authorized to describe.";
