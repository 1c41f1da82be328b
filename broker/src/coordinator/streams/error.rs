//! Why a member of a streams group is refused, in the words that its client shows.

use crate::coordinator::GroupError;

/// What a request of a member is refused with.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StreamsError {
    /// The request contradicts itself.
    #[error("{0}")]
    Invalid(String),
    /// Topics that may come would not help this topology.
    #[error("{0}")]
    InvalidTopology(String),
    /// No such group.
    #[error("Group {0} not found.")]
    NoGroup(String),
    /// No such group, and it would not be made.
    #[error("Streams group {0} not found.")]
    NoStreamsGroup(String),
    /// A group of another type.
    #[error("Group {0} is not a streams group.")]
    NotStreams(String),
    /// `group.streams.max.size` is reached.
    #[error("The streams group has reached its maximum capacity of {0} members.")]
    Full(usize),
    /// The member was removed, or never was.
    #[error("Member {member} is not a member of group {group}.")]
    UnknownMember {
        /// Who asks.
        member: String,
        /// Of whom.
        group: String,
    },
    /// The member is ahead of the group: it must start over.
    #[error(
        "The streams group member has a greater member epoch ({received}) than the one known by the group coordinator \
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
        "The streams group member has a smaller member epoch ({received}) than the one known by the group coordinator \
         ({known}). The member must abandon all its partitions and rejoin."
    )]
    EpochBehind {
        /// The member's.
        received: i32,
        /// The coordinator's.
        known: i32,
    },
    /// The member's state is of a later version: it must start over.
    #[error("The streams group member is in a unknown state. The member must abandon all its tasks and rejoin.")]
    UnknownState,
    /// Refused for a reason that all groups share; without words of its own.
    #[error("{0}")]
    Group(#[from] GroupError),
}

impl StreamsError {
    pub(super) fn invalid(why: impl Into<String>) -> StreamsError {
        StreamsError::Invalid(why.into())
    }

    /// The error as requests without room for words tell it.
    pub fn kind(&self) -> GroupError {
        match self {
            StreamsError::Invalid(_) => GroupError::InvalidRequest,
            StreamsError::InvalidTopology(_) => GroupError::InvalidTopology,
            StreamsError::NoGroup(_) | StreamsError::NoStreamsGroup(_) | StreamsError::NotStreams(_) => {
                GroupError::GroupIdNotFound
            }
            StreamsError::Full(_) => GroupError::MaxSizeReached,
            StreamsError::UnknownMember { .. } => GroupError::UnknownMemberId,
            StreamsError::EpochAhead { .. } | StreamsError::EpochBehind { .. } | StreamsError::UnknownState => {
                GroupError::FencedMemberEpoch
            }
            StreamsError::Group(error) => *error,
        }
    }
}
