//! Why a request about a share group is refused, in the words that its client shows.

use crate::coordinator::GroupError;

/// What a request of a member, or about a share group, is refused with.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ShareGroupError {
    /// The request contradicts itself.
    #[error("{0}")]
    Invalid(&'static str),
    /// No such group.
    #[error("Group {0} not found.")]
    NoGroup(String),
    /// No such group, and it would not be made.
    #[error("Share group {0} not found.")]
    NoShareGroup(String),
    /// A group of another type.
    #[error("Group {0} is not a share group.")]
    NotShare(String),
    /// `group.share.max.size` is reached.
    #[error("The share group has reached its maximum capacity of {0} members.")]
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
        "The share group member has a greater member epoch ({received}) than the one known by the group coordinator \
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
        "The share group member has a smaller member epoch ({received}) than the one known by the group coordinator \
         ({known}), and it does not match the previous member epoch ({previous}). The member must abandon all its \
         partitions and rejoin."
    )]
    EpochBehind {
        /// The member's.
        received: i32,
        /// The coordinator's.
        known: i32,
        /// The coordinator's before.
        previous: i32,
    },
    /// It has members.
    #[error("The group is not empty.")]
    NotEmpty,
    /// Refused for a reason that all groups share; without words of its own.
    #[error("{0}")]
    Group(#[from] GroupError),
}

impl ShareGroupError {
    /// The error as requests without room for words tell it.
    pub fn kind(&self) -> GroupError {
        match self {
            ShareGroupError::Invalid(_) => GroupError::InvalidRequest,
            ShareGroupError::NoGroup(_) | ShareGroupError::NoShareGroup(_) | ShareGroupError::NotShare(_) => {
                GroupError::GroupIdNotFound
            }
            ShareGroupError::Full(_) => GroupError::MaxSizeReached,
            ShareGroupError::UnknownMember { .. } => GroupError::UnknownMemberId,
            ShareGroupError::EpochAhead { .. } | ShareGroupError::EpochBehind { .. } => GroupError::FencedMemberEpoch,
            ShareGroupError::NotEmpty => GroupError::NonEmptyGroup,
            ShareGroupError::Group(error) => *error,
        }
    }
}
