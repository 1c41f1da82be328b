//! Which commits and which reads of offsets a streams group lets pass.

use varve_metadata::model::PartitionIndex;

use super::{group::StreamsGroup, member::StreamsMember, topology::Topology};
use crate::coordinator::{GroupError, MemberIdentity, consumer::Committer};

/// What a commit may be about.
#[derive(Debug)]
pub(in crate::coordinator) enum Allowed<'a> {
    /// Any partition.
    All,
    /// Those of tasks that the member was given no later than in the epoch that it still has.
    Since(i32, &'a StreamsMember, &'a Topology),
}

impl StreamsGroup {
    /// # Errors
    /// [`GroupError::UnknownMemberId`], [`GroupError::StaleMemberEpoch`] and [`GroupError::UnsupportedVersion`].
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
        if !from.is_transactional && !from.knows_epochs {
            return Err(GroupError::UnsupportedVersion);
        }
        match from.epoch.cmp(&member.epoch.0) {
            std::cmp::Ordering::Equal => Ok(Allowed::All),
            std::cmp::Ordering::Greater => Err(GroupError::StaleMemberEpoch),
            std::cmp::Ordering::Less => {
                let topology = self.topology.as_deref().ok_or(GroupError::StaleMemberEpoch)?;
                Ok(Allowed::Since(from.epoch, member, topology))
            }
        }
    }

    /// # Errors
    /// As [`check_commit`](Self::check_commit).
    pub(in crate::coordinator) fn check_fetch(&self, member_id: Option<&str>, epoch: i32) -> Result<(), GroupError> {
        let Some(member_id) = member_id else {
            return if epoch < 0 { Ok(()) } else { Err(GroupError::UnknownMemberId) };
        };
        let member = self.members.get(member_id).ok_or(GroupError::UnknownMemberId)?;
        if member.epoch.0 == epoch { Ok(()) } else { Err(GroupError::StaleMemberEpoch) }
    }
}

impl Allowed<'_> {
    /// # Errors
    /// The topic's task was given to the member later than in the epoch that it commits in, or not at all.
    pub(in crate::coordinator) fn check(&self, topic: &str, partition: PartitionIndex) -> Result<(), GroupError> {
        match self {
            Allowed::All => Ok(()),
            Allowed::Since(epoch, member, topology) => {
                let subtopology = topology.reader_of(topic).ok_or(GroupError::StaleMemberEpoch)?;
                let given = member.epoch_of(&subtopology.id, partition);
                if given.is_some_and(|given| *epoch >= given) { Ok(()) } else { Err(GroupError::StaleMemberEpoch) }
            }
        }
    }
}
