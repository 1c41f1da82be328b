//! Which commits and which reads of offsets a consumer group lets pass.

use super::{group::ConsumerGroup, member::ConsumerMember};
use crate::coordinator::{
    GroupError,
    modern::{Allowed, Committer, Standing},
};

impl ConsumerGroup {
    /// # Errors
    /// See [`Committer::check`].
    pub(in crate::coordinator) fn check_commit(
        &self,
        from: Committer<'_>,
    ) -> Result<Allowed<'_, ConsumerMember>, GroupError> {
        from.check(&self.members, standing)
    }

    /// # Errors
    /// See [`Standing::check_fetch`].
    pub(in crate::coordinator) fn check_fetch(&self, member_id: Option<&str>, epoch: i32) -> Result<(), GroupError> {
        Standing::check_fetch(&self.members, standing, member_id, epoch)
    }
}

fn standing(member: &ConsumerMember) -> Standing {
    Standing { epoch: member.epoch, is_classic: member.classic.is_some() }
}
