//! Which commits and which reads of offsets a consumer group lets pass.

use varve_metadata::model::{PartitionIndex, TopicId};

use super::{group::ConsumerGroup, member::ConsumerMember};
use crate::coordinator::{GroupError, MemberIdentity};

/// Who commits, as its request says.
#[derive(Clone, Copy, Debug)]
pub(in crate::coordinator) struct Committer<'a> {
    pub(in crate::coordinator) member: &'a MemberIdentity,
    /// Its member epoch or generation; -1 for who is no member.
    pub(in crate::coordinator) epoch: i32,
    /// As part of a transaction.
    pub(in crate::coordinator) is_transactional: bool,
    /// Whether the request is of a version that knows member epochs.
    pub(in crate::coordinator) knows_epochs: bool,
}

/// What a commit may be about.
#[derive(Debug)]
pub(in crate::coordinator) enum Allowed<'a> {
    /// Any partition.
    All,
    /// Those that the member was given no later than in the epoch that it still has.
    Since(i32, &'a ConsumerMember),
}

impl ConsumerGroup {
    /// # Errors
    /// [`GroupError::UnknownMemberId`], [`GroupError::StaleMemberEpoch`], for members of the classic protocol
    /// [`GroupError::IllegalGeneration`], and [`GroupError::UnsupportedVersion`].
    pub(in crate::coordinator) fn check_commit(&self, from: Committer<'_>) -> Result<Allowed<'_>, GroupError> {
        // An administrator, or a consumer that assigns partitions to itself.
        if from.epoch < 0 && self.is_empty() {
            return Ok(Allowed::All);
        }
        let MemberIdentity { member_id, instance_id } = from.member;
        // Older clients do not say in a transaction who they are.
        if from.is_transactional && from.epoch == -1 && member_id.is_empty() && instance_id.is_none() {
            return Ok(Allowed::All);
        }
        let member = self.members.get(member_id).ok_or(GroupError::UnknownMemberId)?;
        if !from.is_transactional && member.classic.is_none() && !from.knows_epochs {
            return Err(GroupError::UnsupportedVersion);
        }
        match from.epoch.cmp(&member.epoch.0) {
            std::cmp::Ordering::Equal => Ok(Allowed::All),
            std::cmp::Ordering::Greater => Err(stale(member)),
            std::cmp::Ordering::Less => Ok(Allowed::Since(from.epoch, member)),
        }
    }

    /// # Errors
    /// As [`check_commit`](Self::check_commit).
    pub(in crate::coordinator) fn check_fetch(&self, member_id: Option<&str>, epoch: i32) -> Result<(), GroupError> {
        let Some(member_id) = member_id else {
            return if epoch < 0 { Ok(()) } else { Err(GroupError::UnknownMemberId) };
        };
        let member = self.members.get(member_id).ok_or(GroupError::UnknownMemberId)?;
        if member.epoch.0 == epoch { Ok(()) } else { Err(stale(member)) }
    }
}

impl Allowed<'_> {
    /// # Errors
    /// The partition was given to the member later than in the epoch that it commits in, or not at all.
    pub(in crate::coordinator) fn check(
        &self,
        topic: Option<TopicId>,
        partition: PartitionIndex,
    ) -> Result<(), GroupError> {
        match self {
            Allowed::All => Ok(()),
            Allowed::Since(epoch, member) => {
                let given = topic.and_then(|topic| member.epoch_of(topic, partition));
                if given.is_some_and(|given| *epoch >= given) { Ok(()) } else { Err(stale(member)) }
            }
        }
    }
}

fn stale(member: &ConsumerMember) -> GroupError {
    if member.classic.is_some() { GroupError::IllegalGeneration } else { GroupError::StaleMemberEpoch }
}
