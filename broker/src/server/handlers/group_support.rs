//! What the requests of groups share: errors in Kafka's codes, names as our own.

use std::sync::Arc;

use kafka_protocol::{error::ResponseError, protocol::StrBytes};

use crate::{
    coordinator::{GroupError, MemberIdentity},
    server::{Broker, group_coordinator::Seat},
};

/// The only place where a [`GroupError`] becomes Kafka's.
pub(super) fn group_error(error: GroupError) -> ResponseError {
    match error {
        GroupError::CoordinatorNotAvailable => ResponseError::CoordinatorNotAvailable,
        GroupError::NotCoordinator => ResponseError::NotCoordinator,
        GroupError::LoadInProgress => ResponseError::CoordinatorLoadInProgress,
        GroupError::InvalidGroupId => ResponseError::InvalidGroupId,
        GroupError::GroupIdNotFound => ResponseError::GroupIdNotFound,
        GroupError::NonEmptyGroup => ResponseError::NonEmptyGroup,
        GroupError::SubscribedToTopic => ResponseError::GroupSubscribedToTopic,
        GroupError::MaxSizeReached => ResponseError::GroupMaxSizeReached,
        GroupError::MemberIdRequired => ResponseError::MemberIdRequired,
        GroupError::UnknownMemberId => ResponseError::UnknownMemberId,
        GroupError::FencedInstanceId => ResponseError::FencedInstanceId,
        GroupError::IllegalGeneration => ResponseError::IllegalGeneration,
        GroupError::InconsistentProtocol => ResponseError::InconsistentGroupProtocol,
        GroupError::InvalidSessionTimeout => ResponseError::InvalidSessionTimeout,
        GroupError::RebalanceInProgress => ResponseError::RebalanceInProgress,
        GroupError::OffsetMetadataTooLarge => ResponseError::OffsetMetadataTooLarge,
        GroupError::InvalidProducerEpoch => ResponseError::InvalidProducerEpoch,
        GroupError::InvalidTransactionState => ResponseError::InvalidTxnState,
        GroupError::TransactionCoordinatorFenced => ResponseError::TransactionCoordinatorFenced,
        GroupError::InvalidRequest => ResponseError::InvalidRequest,
        GroupError::FencedMemberEpoch => ResponseError::FencedMemberEpoch,
        GroupError::StaleMemberEpoch => ResponseError::StaleMemberEpoch,
        GroupError::UnreleasedInstanceId => ResponseError::UnreleasedInstanceId,
        GroupError::UnsupportedAssignor => ResponseError::UnsupportedAssignor,
        GroupError::InvalidRegularExpression => ResponseError::InvalidRegularExpression,
        GroupError::InvalidTopology => ResponseError::StreamsInvalidTopology,
        GroupError::UnsupportedVersion => ResponseError::UnsupportedVersion,
        GroupError::Unexpected => ResponseError::UnknownServerError,
    }
}

/// 0, or the code of the error.
pub(super) fn code(outcome: Result<(), GroupError>) -> i16 {
    outcome.map_or_else(|error| group_error(error).code(), |()| 0)
}

/// The seat of a group with members. An empty group id may name committed offsets, but no members.
///
/// # Errors
/// INVALID_GROUP_ID and NOT_COORDINATOR.
pub(super) fn member_seat(broker: &Broker, group_id: &str) -> Result<Arc<Seat>, GroupError> {
    if group_id.is_empty() { Err(GroupError::InvalidGroupId) } else { broker.groups.seat(broker, group_id) }
}

/// An answer of another kind than was asked for is a bug in the shard.
pub(super) fn mismatched() -> GroupError {
    GroupError::Unexpected
}

pub(super) fn identity(member_id: &StrBytes, instance_id: &Option<StrBytes>) -> MemberIdentity {
    MemberIdentity { member_id: member_id.to_string(), instance_id: own(instance_id) }
}

pub(super) fn own(text: &Option<StrBytes>) -> Option<String> {
    text.as_ref().map(|text| text.to_string())
}

pub(super) fn text(text: impl Into<String>) -> StrBytes {
    StrBytes::from_string(text.into())
}
