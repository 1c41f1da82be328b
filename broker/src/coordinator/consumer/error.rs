//! Why a member of a consumer group is refused, in the words that its client shows.

use crate::coordinator::GroupError;

/// What a request of a member is refused with.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeartbeatError {
    /// The request contradicts itself.
    #[error("{0}")]
    Invalid(&'static str),
    /// An assignor that the broker does not have.
    #[error("ServerAssignor {name} is not supported. Supported assignors: {supported}.")]
    UnsupportedAssignor {
        /// As asked for.
        name: String,
        /// Those that there are.
        supported: String,
    },
    /// No such group.
    #[error("Group {0} not found.")]
    NoGroup(String),
    /// No such group, and it would not be made.
    #[error("Consumer group {0} not found.")]
    NoConsumerGroup(String),
    /// A group of another type.
    #[error("Group {0} is not a consumer group.")]
    NotConsumer(String),
    /// A classic group that may not become a consumer group.
    #[error("Cannot upgrade classic group {group} to consumer group because {why}.")]
    NoUpgrade {
        /// The group.
        group: String,
        /// What stands against it.
        why: &'static str,
    },
    /// `group.consumer.max.size` is reached.
    #[error("The consumer group has reached its maximum capacity of {0} members.")]
    Full(usize),
    /// The member was removed, or never was.
    #[error("Member {member} is not a member of group {group}.")]
    UnknownMember {
        /// Who asks.
        member: String,
        /// Of whom.
        group: String,
    },
    /// Nobody holds this instance id.
    #[error("Instance id {0} is unknown.")]
    UnknownInstance(String),
    /// Another member took the instance id over.
    #[error("Static member {member} with instance id {instance} was fenced by member {holder}.")]
    FencedInstance {
        /// Who asks.
        member: String,
        /// As whom.
        instance: String,
        /// Who it is.
        holder: String,
    },
    /// Another member has the instance id, and did not give it up.
    #[error(
        "Static member {member} with instance id {instance} cannot join the group because the instance id is owned by \
         {holder} member."
    )]
    UnreleasedInstance {
        /// Who asks.
        member: String,
        /// As whom.
        instance: String,
        /// Who it is.
        holder: String,
    },
    /// The member is ahead of the group: it must start over.
    #[error(
        "The consumer group member has a greater member epoch ({received}) than the one known by the group coordinator \
         ({known}). The member must abandon all its partitions and rejoin."
    )]
    EpochAhead {
        /// The member's.
        received: i32,
        /// The coordinator's.
        known: i32,
    },
    /// The group went on without the member: it must start over.
    #[error(
        "The consumer group member has a smaller member epoch ({received}) than the one known by the group coordinator \
         ({known}). The member must abandon all its partitions and rejoin."
    )]
    EpochBehind {
        /// The member's.
        received: i32,
        /// The coordinator's.
        known: i32,
    },
    /// The member's state is of a later version: it must start over.
    #[error("The consumer group member is in a unknown state. The member must abandon all its partitions and rejoin.")]
    UnknownState,
    /// A pattern that is none.
    #[error("SubscribedTopicRegex `{regex}` is not a valid regular expression: {why}.")]
    InvalidRegex {
        /// As sent.
        regex: String,
        /// What is wrong with it.
        why: String,
    },
    /// Refused for a reason that all groups share; without words of its own.
    #[error("{0}")]
    Group(#[from] GroupError),
}

impl HeartbeatError {
    /// The error as requests without room for words tell it.
    pub fn kind(&self) -> GroupError {
        match self {
            HeartbeatError::Invalid(_) => GroupError::InvalidRequest,
            HeartbeatError::UnsupportedAssignor { .. } => GroupError::UnsupportedAssignor,
            HeartbeatError::NoGroup(_)
            | HeartbeatError::NoConsumerGroup(_)
            | HeartbeatError::NotConsumer(_)
            | HeartbeatError::NoUpgrade { .. } => GroupError::GroupIdNotFound,
            HeartbeatError::Full(_) => GroupError::MaxSizeReached,
            HeartbeatError::UnknownMember { .. } | HeartbeatError::UnknownInstance(_) => GroupError::UnknownMemberId,
            HeartbeatError::FencedInstance { .. } => GroupError::FencedInstanceId,
            HeartbeatError::UnreleasedInstance { .. } => GroupError::UnreleasedInstanceId,
            HeartbeatError::EpochAhead { .. } | HeartbeatError::EpochBehind { .. } | HeartbeatError::UnknownState => {
                GroupError::FencedMemberEpoch
            }
            HeartbeatError::InvalidRegex { .. } => GroupError::InvalidRegularExpression,
            HeartbeatError::Group(error) => *error,
        }
    }
}
