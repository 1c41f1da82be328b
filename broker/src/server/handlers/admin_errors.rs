//! Where errors of cluster state become Kafka's.

use std::time::Duration;

use kafka_protocol::error::ResponseError;
use tokio::time::{Instant, timeout_at};
use varve_metadata::{
    cluster::MetadataError,
    config::ConfigError,
    controller::{AlterError, CreateTopicError, GrowError, PlacementError},
    store::StoreError,
};

use super::config_words;
use crate::server::{Broker, RequestContext};

/// When an administrative request gives up waiting for its turn: `timeout_ms` after it was read.
pub(in crate::server) fn deadline(context: &RequestContext, timeout_ms: i32) -> Option<Instant> {
    let timeout = Duration::from_millis(u64::try_from(timeout_ms).unwrap_or(0));
    Some(Instant::from_std(context.received) + timeout)
}

/// What Kafka says about an error when it has nothing more to say.
pub(in crate::server) fn plain(error: ResponseError) -> (ResponseError, String) {
    let message = match error {
        ResponseError::UnknownTopicOrPartition => "This server does not host this topic-partition.",
        ResponseError::UnknownTopicId => "This server does not host this topic ID.",
        ResponseError::InvalidRequest => {
            "This most likely occurs because of a request being malformed by the client library or the message was sent \
             to an incompatible broker. See the broker logs for more details."
        }
        ResponseError::TopicDeletionDisabled => "Topic deletion is disabled.",
        ResponseError::TopicAuthorizationFailed => "Topic authorization failed.",
        ResponseError::GroupAuthorizationFailed => "Group authorization failed.",
        ResponseError::ClusterAuthorizationFailed => "Cluster authorization failed.",
        ResponseError::TransactionalIdAuthorizationFailed => "Transactional Id authorization failed.",
        ResponseError::InvalidGroupId => "The group id is invalid.",
        ResponseError::FencedLeaderEpoch => "The leader epoch in the request is older than the epoch on the broker.",
        ResponseError::FencedStateEpoch => {
            "The share coordinator rejected the request because the share-group state epoch did not match."
        }
        ResponseError::DelegationTokenAuthorizationFailed => "Delegation Token authorization failed.",
        ResponseError::SecurityDisabled => "Security features are disabled.",
        _ => return (error, error.to_string()),
    };
    (error, message.to_owned())
}

/// The error of a change that was not made, or not seen to be made.
pub(in crate::server) fn metadata_error(error: &MetadataError) -> (ResponseError, String) {
    let code = match error {
        MetadataError::TimedOut => ResponseError::RequestTimedOut,
        MetadataError::TooManyPartitions(_) | MetadataError::TooManyAcls(_) => ResponseError::PolicyViolation,
        // It may have happened: the client looks, and asks again if it did not.
        MetadataError::Store(StoreError::Unknown(_)) => ResponseError::RequestTimedOut,
        // It did not happen; the same request may succeed later.
        MetadataError::Store(StoreError::Conflict | StoreError::Unavailable(_)) => ResponseError::NotController,
        MetadataError::Image(_) | MetadataError::Unserved(_) => ResponseError::UnknownServerError,
    };
    (code, error.to_string())
}

/// The error of a topic that was not made.
pub(in crate::server) fn create_topic_error(error: &CreateTopicError) -> (ResponseError, String) {
    let code = match error {
        CreateTopicError::Name(_) | CreateTopicError::Collides { .. } => ResponseError::InvalidTopicException,
        CreateTopicError::Exists(_) => ResponseError::TopicAlreadyExists,
        CreateTopicError::NullConfigs(_) => ResponseError::InvalidConfig,
        CreateTopicError::Config(error) => return (ResponseError::InvalidConfig, topic_config_text(error)),
        CreateTopicError::Placement(error) | CreateTopicError::Unplaceable { error, .. } => placement_code(error),
    };
    (code, error.to_string())
}

fn placement_code(error: &PlacementError) -> ResponseError {
    match error {
        PlacementError::ManualWithReplicationFactor | PlacementError::ManualWithPartitions => {
            ResponseError::InvalidRequest
        }
        PlacementError::ReplicationFactor | PlacementError::TooFewBrokers { .. } | PlacementError::AllFenced => {
            ResponseError::InvalidReplicationFactor
        }
        PlacementError::Partitions => ResponseError::InvalidPartitions,
        PlacementError::Repeated(_) | PlacementError::NotConsecutive | PlacementError::Assignment(_) => {
            ResponseError::InvalidReplicaAssignment
        }
    }
}

/// The error of a topic that did not grow; Kafka says nothing about one that does not exist.
pub(in crate::server) fn grow_error(error: &GrowError) -> (ResponseError, Option<String>) {
    let code = match error {
        GrowError::UnknownTopic => return (ResponseError::UnknownTopicOrPartition, None),
        GrowError::Already(_) | GrowError::NotAnIncrease { .. } => ResponseError::InvalidPartitions,
        GrowError::TooMany => ResponseError::PolicyViolation,
        GrowError::Assignments { .. } | GrowError::Assignment(_) => ResponseError::InvalidReplicaAssignment,
        GrowError::Placement(error) => placement_code(error),
    };
    (code, Some(error.to_string()))
}

/// The error of settings that did not change.
pub(in crate::server) fn alter_error(error: &AlterError) -> (ResponseError, String) {
    let code = match error {
        AlterError::UnknownTopic(_) => ResponseError::UnknownTopicOrPartition,
        AlterError::Name(_) => ResponseError::InvalidTopicException,
        AlterError::DefaultTopic | AlterError::DefaultGroup | AlterError::Refused(_) => ResponseError::InvalidRequest,
        AlterError::Invalid(_) | AlterError::NotAList { .. } | AlterError::TooLong | AlterError::LosesArchive => {
            ResponseError::InvalidConfig
        }
        AlterError::Config(error) => return (ResponseError::InvalidConfig, topic_config_text(error)),
    };
    (code, error.to_string())
}

/// What is wrong with a topic's setting, beginning as Kafka's users know it.
fn topic_config_text(error: &ConfigError) -> String {
    match error {
        ConfigError::Unknown { name, nearest } => {
            let hint = nearest.as_ref().map(|nearest| format!(" (did you mean {nearest}?)")).unwrap_or_default();
            format!("Unknown topic config name: {name}{hint}")
        }
        other => config_text(other),
    }
}

/// What is wrong with a setting.
pub(in crate::server) fn config_text(error: &ConfigError) -> String {
    match error {
        ConfigError::Invalid { name, value, allowed } => config_words::of_invalid(name, value, allowed),
        ConfigError::Conflict { name, value, rule, other, other_value } => {
            format!("Invalid value {value} for configuration {name}: with {other}={other_value}, {rule}")
        }
        ConfigError::Unknown { .. } | ConfigError::Refused { .. } | ConfigError::Syntax { .. } => error.to_string(),
    }
}

/// Waits until this node serves what its metadata shows, at most until `deadline`: so that a client that was told of a
/// topic finds it. A partition that opens slowly is no error; the client's next request says what is the matter.
pub(in crate::server) async fn until_visible(broker: &Broker, deadline: Option<Instant>) {
    let shown = broker.partitions.caught_up(broker.metadata.image().revision());
    match deadline {
        Some(deadline) => drop(timeout_at(deadline, shown).await),
        None => shown.await,
    }
}
