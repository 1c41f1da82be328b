//! What requests of groups are refused with.

/// What a request is refused with. Each is one of Kafka's error codes; the server maps them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GroupError {
    /// Retry, perhaps after looking the coordinator up again.
    #[error("the coordinator is not available")]
    CoordinatorNotAvailable,
    /// Look the coordinator up again.
    #[error("this is not the correct coordinator")]
    NotCoordinator,
    /// The partition is being replayed; retry.
    #[error("the coordinator is loading")]
    LoadInProgress,
    /// Empty, or too long to be written.
    #[error("the group id is invalid")]
    InvalidGroupId,
    /// No such group.
    #[error("the group id does not exist")]
    GroupIdNotFound,
    /// The group has members.
    #[error("the group is not empty")]
    NonEmptyGroup,
    /// A member subscribes to the topic.
    #[error("the group is actively subscribed to the topic")]
    SubscribedToTopic,
    /// `group.max.size` is reached (KIP-389).
    #[error("the group has reached its maximum size")]
    MaxSizeReached,
    /// Join again with the member id in the answer (KIP-394).
    #[error("the member id is required to join")]
    MemberIdRequired,
    /// The member was removed, or never was.
    #[error("the coordinator is not aware of this member")]
    UnknownMemberId,
    /// Another member took over this instance id (KIP-345).
    #[error("the instance id belongs to another member")]
    FencedInstanceId,
    /// The generation is over.
    #[error("the generation is not the current one")]
    IllegalGeneration,
    /// No protocol is understood by all.
    #[error("the protocol type or protocols do not match the group's")]
    InconsistentProtocol,
    /// Outside `group.min.session.timeout.ms` … `group.max.session.timeout.ms`.
    #[error("the session timeout is out of range")]
    InvalidSessionTimeout,
    /// Join again.
    #[error("the group is rebalancing")]
    RebalanceInProgress,
    /// Longer than `offset.metadata.max.bytes`.
    #[error("the offset's metadata is too large")]
    OffsetMetadataTooLarge,
    /// A newer epoch of the transaction's producer is known.
    #[error("the producer's epoch is not the newest")]
    InvalidProducerEpoch,
    /// The group's partition is not part of an open transaction of the producer.
    #[error("the transaction is in another state")]
    InvalidTransactionState,
    /// The transaction coordinator that sent a marker has been replaced.
    #[error("the transaction coordinator has been replaced")]
    TransactionCoordinatorFenced,
    /// The request contradicts itself.
    #[error("the request is invalid")]
    InvalidRequest,
    /// The member is of another epoch than the coordinator knows: it starts over (KIP-848).
    #[error("the member epoch is fenced by the group coordinator")]
    FencedMemberEpoch,
    /// The epoch is over, or the partition was not the member's in it (KIP-848, KIP-1251).
    #[error("the member epoch is stale")]
    StaleMemberEpoch,
    /// The instance id is in use (KIP-848).
    #[error("the instance id is still used by another member")]
    UnreleasedInstanceId,
    /// No such assignor (KIP-848).
    #[error("the assignor is not supported")]
    UnsupportedAssignor,
    /// Not a regular expression (KIP-848).
    #[error("the regular expression is not valid")]
    InvalidRegularExpression,
    /// No topics that may come would help this topology (KIP-1071).
    #[error("the topology is invalid")]
    InvalidTopology,
    /// A member of a consumer group asks in a version that does not know member epochs.
    #[error("the version does not support this")]
    UnsupportedVersion,
    /// The request contradicts itself in a way that no client library produces, or its state is too large to be kept.
    #[error("the request cannot be carried out")]
    Unexpected,
}
