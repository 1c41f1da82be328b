//! Which commits and which reads of offsets a streams group lets pass.

use super::{group::StreamsGroup, member::StreamsMember, topology::Subtopology};
use crate::coordinator::{
    GroupError,
    modern::{Allowed, Committer, Standing},
};

impl StreamsGroup {
    /// # Errors
    /// See [`Committer::check`].
    pub(in crate::coordinator) fn check_commit(
        &self,
        from: Committer<'_>,
    ) -> Result<Allowed<'_, StreamsMember>, GroupError> {
        match from.check(&self.members, standing)? {
            // Nobody can tell whose the partitions were.
            Allowed::Since(..) if self.topology.is_none() => Err(GroupError::StaleMemberEpoch),
            allowed => Ok(allowed),
        }
    }

    /// # Errors
    /// See [`Standing::check_fetch`].
    pub(in crate::coordinator) fn check_fetch(&self, member_id: Option<&str>, epoch: i32) -> Result<(), GroupError> {
        Standing::check_fetch(&self.members, standing, member_id, epoch)
    }

    /// The subtopology that reads the topic: its tasks are those that commit for the topic's partitions.
    pub(in crate::coordinator) fn reader_of(&self, topic: &str) -> Option<&Subtopology> {
        self.topology.as_ref()?.reader_of(topic)
    }
}

fn standing(member: &StreamsMember) -> Standing {
    Standing { epoch: member.epoch, is_classic: false }
}
