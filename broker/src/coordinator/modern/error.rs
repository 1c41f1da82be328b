//! Why a member of a modern group, or somebody who asks about one, is refused, in the words that the client shows.

use crate::coordinator::{GroupError, GroupType};

/// What a request of a member of a consumer, share or streams group, or about such a group, is refused with.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ModernGroupError {
    /// The request contradicts itself.
    #[error("{0}")]
    Invalid(String),
    /// No such group.
    #[error("Group {0} not found.")]
    NoGroup(String),
    /// No such group, and it would not be made.
    #[error("{} group {} not found.", capitalised(.0), .1)]
    NotMade(GroupType, String),
    /// A group of another type than the one that is named.
    #[error("Group {} is not a {} group.", .1, .0.name())]
    OtherType(GroupType, String),
    /// `group.consumer.max.size`, `group.share.max.size` or `group.streams.max.size` is reached.
    #[error("The {} group has reached its maximum capacity of {} members.", .0.name(), .1)]
    Full(GroupType, usize),
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
        "The {} group member has a greater member epoch ({received}) than the one known by the group coordinator \
         ({known}). The member must abandon all its partitions and rejoin.", .kind.name()
    )]
    EpochAhead {
        /// The group's type.
        kind: GroupType,
        /// The member's.
        received: i32,
        /// The coordinator's.
        known: i32,
    },
    /// The group went on without the member: it must start over.
    #[error(
        "The {} group member has a smaller member epoch ({received}) than the one known by the group coordinator \
         ({known}). The member must abandon all its partitions and rejoin.", .kind.name()
    )]
    EpochBehind {
        /// The group's type.
        kind: GroupType,
        /// The member's.
        received: i32,
        /// The coordinator's.
        known: i32,
    },
    /// A share group went on without the member: it must start over.
    #[error(
        "The share group member has a smaller member epoch ({received}) than the one known by the group coordinator \
         ({known}), and it does not match the previous member epoch ({previous}). The member must abandon all its \
         partitions and rejoin."
    )]
    EpochBehindBoth {
        /// The member's.
        received: i32,
        /// The coordinator's.
        known: i32,
        /// The coordinator's before.
        previous: i32,
    },
    /// The member's state is of a later version: it must start over.
    #[error(
        "The {} group member is in a unknown state. The member must abandon all its {} and rejoin.", .0.name(), had(.0)
    )]
    UnknownState(GroupType),
    /// It has members.
    #[error("The group is not empty.")]
    NotEmpty,
    /// A classic group that may not become a consumer group.
    #[error("Cannot upgrade classic group {group} to consumer group because {why}.")]
    NoUpgrade {
        /// The group.
        group: String,
        /// What stands against it.
        why: &'static str,
    },
    /// An assignor that the broker does not have.
    #[error("ServerAssignor {name} is not supported. Supported assignors: {supported}.")]
    UnsupportedAssignor {
        /// As asked for.
        name: String,
        /// Those that there are.
        supported: String,
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
    /// A pattern that is none.
    #[error("SubscribedTopicRegex `{regex}` is not a valid regular expression: {why}.")]
    InvalidRegex {
        /// As sent.
        regex: String,
        /// What is wrong with it.
        why: String,
    },
    /// Topics that may come would not help this topology.
    #[error("{0}")]
    InvalidTopology(String),
    /// Refused for a reason that all groups share; without words of its own.
    #[error("{0}")]
    Group(#[from] GroupError),
}

impl ModernGroupError {
    pub(in crate::coordinator) fn invalid(why: impl Into<String>) -> ModernGroupError {
        ModernGroupError::Invalid(why.into())
    }

    /// The error as requests without room for words tell it.
    pub fn kind(&self) -> GroupError {
        match self {
            ModernGroupError::Invalid(_) => GroupError::InvalidRequest,
            ModernGroupError::NoGroup(_)
            | ModernGroupError::NotMade(..)
            | ModernGroupError::OtherType(..)
            | ModernGroupError::NoUpgrade { .. } => GroupError::GroupIdNotFound,
            ModernGroupError::Full(..) => GroupError::MaxSizeReached,
            ModernGroupError::UnknownMember { .. } | ModernGroupError::UnknownInstance(_) => {
                GroupError::UnknownMemberId
            }
            ModernGroupError::EpochAhead { .. }
            | ModernGroupError::EpochBehind { .. }
            | ModernGroupError::EpochBehindBoth { .. }
            | ModernGroupError::UnknownState(_) => GroupError::FencedMemberEpoch,
            ModernGroupError::NotEmpty => GroupError::NonEmptyGroup,
            ModernGroupError::UnsupportedAssignor { .. } => GroupError::UnsupportedAssignor,
            ModernGroupError::FencedInstance { .. } => GroupError::FencedInstanceId,
            ModernGroupError::UnreleasedInstance { .. } => GroupError::UnreleasedInstanceId,
            ModernGroupError::InvalidRegex { .. } => GroupError::InvalidRegularExpression,
            ModernGroupError::InvalidTopology(_) => GroupError::InvalidTopology,
            ModernGroupError::Group(error) => *error,
        }
    }

    /// The error in words; `None` for what all groups have in common, as Kafka has none for that.
    pub fn words(&self) -> Option<String> {
        match self {
            ModernGroupError::Group(_) => None,
            error => Some(error.to_string()),
        }
    }
}

const fn capitalised(kind: &GroupType) -> &'static str {
    match kind {
        GroupType::Classic => "Classic",
        GroupType::Consumer => "Consumer",
        GroupType::Share => "Share",
        GroupType::Streams => "Streams",
    }
}

/// What members of such a group have.
const fn had(kind: &GroupType) -> &'static str {
    match kind {
        GroupType::Streams => "tasks",
        _ => "partitions",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Words that clients have shown and people search for: as Kafka 4.3 has them.
    #[test]
    fn each_type_of_group_has_its_own_words() {
        let told = |error: ModernGroupError| error.words().unwrap();
        for (kind, name, title, has) in [
            (GroupType::Consumer, "consumer", "Consumer", "partitions"),
            (GroupType::Share, "share", "Share", "partitions"),
            (GroupType::Streams, "streams", "Streams", "tasks"),
        ] {
            assert_eq!(told(ModernGroupError::NotMade(kind, "g".to_owned())), format!("{title} group g not found."));
            assert_eq!(
                told(ModernGroupError::OtherType(kind, "g".to_owned())),
                format!("Group g is not a {name} group.")
            );
            let full = format!("The {name} group has reached its maximum capacity of 2 members.");
            assert_eq!(told(ModernGroupError::Full(kind, 2)), full);
            for (error, word) in [
                (ModernGroupError::EpochAhead { kind, received: 5, known: 4 }, "greater"),
                (ModernGroupError::EpochBehind { kind, received: 5, known: 4 }, "smaller"),
            ] {
                let words = format!(
                    "The {name} group member has a {word} member epoch (5) than the one known by the group coordinator (4). \
                     The member must abandon all its partitions and rejoin."
                );
                assert_eq!(told(error), words);
            }
            let unknown = format!(
                "The {name} group member is in a unknown state. The member must abandon all its {has} and rejoin."
            );
            assert_eq!(told(ModernGroupError::UnknownState(kind)), unknown);
        }
        assert_eq!(ModernGroupError::from(GroupError::NotCoordinator).words(), None);
    }
}
