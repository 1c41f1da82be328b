//! Who may commit and read offsets of a group whose members have epochs.

use std::{cmp::Ordering, collections::BTreeMap};

use varve_metadata::model::{PartitionIndex, TopicId};

use super::MemberEpoch;
use crate::coordinator::{CommitRequest, CommitTopic, Generation, GroupError, MemberIdentity, Shard};

/// Who commits, as its request says.
#[derive(Clone, Copy, Debug)]
pub(in crate::coordinator) struct Committer<'a> {
    member: &'a MemberIdentity,
    /// Its member epoch or generation; -1 for who is no member.
    epoch: i32,
    /// As part of a transaction.
    is_transactional: bool,
    /// Whether the request is of a version that knows member epochs.
    knows_epochs: bool,
}

/// How far a member has come, in the words of its protocol.
#[derive(Clone, Copy, Debug)]
pub(in crate::coordinator) struct Standing {
    pub(in crate::coordinator) epoch: MemberEpoch,
    /// It speaks the classic protocol, whose word for the epoch is generation.
    pub(in crate::coordinator) is_classic: bool,
}

/// What a commit may be about.
#[derive(Debug)]
pub(in crate::coordinator) enum Allowed<'a, M> {
    /// Any partition.
    All,
    /// Those that the member was given no later than in this epoch, which it still has; else the error.
    Since(i32, &'a M, GroupError),
}

impl<'a> Committer<'a> {
    pub(in crate::coordinator) fn of(request: &'a CommitRequest) -> Committer<'a> {
        let epoch = request.generation.map_or(-1, Generation::to_wire);
        let knows_epochs = request.knows_group_id_not_found;
        Committer { member: &request.member, epoch, is_transactional: false, knows_epochs }
    }

    pub(in crate::coordinator) fn in_transaction(request: &'a CommitRequest) -> Committer<'a> {
        Committer { is_transactional: true, knows_epochs: false, ..Committer::of(request) }
    }

    /// # Errors
    /// [`GroupError::UnknownMemberId`], [`GroupError::StaleMemberEpoch`], for members of the classic protocol
    /// [`GroupError::IllegalGeneration`], and [`GroupError::UnsupportedVersion`].
    pub(in crate::coordinator) fn check<'m, M>(
        self,
        members: &'m BTreeMap<String, M>,
        standing: fn(&M) -> Standing,
    ) -> Result<Allowed<'m, M>, GroupError> {
        // An administrator, or a consumer that assigns partitions to itself.
        if self.epoch < 0 && members.is_empty() {
            return Ok(Allowed::All);
        }
        let MemberIdentity { member_id, instance_id } = self.member;
        // Older clients do not say in a transaction who they are.
        if self.is_transactional && self.epoch == -1 && member_id.is_empty() && instance_id.is_none() {
            return Ok(Allowed::All);
        }
        let member = members.get(member_id).ok_or(GroupError::UnknownMemberId)?;
        let standing = standing(member);
        if !self.is_transactional && !standing.is_classic && !self.knows_epochs {
            return Err(GroupError::UnsupportedVersion);
        }
        match self.epoch.cmp(&standing.epoch.0) {
            Ordering::Equal => Ok(Allowed::All),
            Ordering::Greater => Err(standing.stale()),
            Ordering::Less => Ok(Allowed::Since(self.epoch, member, standing.stale())),
        }
    }
}

impl Standing {
    /// Whether a member may read its offsets. Those who say nothing of themselves may.
    ///
    /// # Errors
    /// As [`Committer::check`].
    pub(in crate::coordinator) fn check_fetch<M>(
        members: &BTreeMap<String, M>,
        standing: fn(&M) -> Standing,
        member_id: Option<&str>,
        epoch: i32,
    ) -> Result<(), GroupError> {
        let Some(member_id) = member_id else {
            return if epoch < 0 { Ok(()) } else { Err(GroupError::UnknownMemberId) };
        };
        let standing = standing(members.get(member_id).ok_or(GroupError::UnknownMemberId)?);
        if standing.epoch.0 == epoch { Ok(()) } else { Err(standing.stale()) }
    }

    fn stale(self) -> GroupError {
        if self.is_classic { GroupError::IllegalGeneration } else { GroupError::StaleMemberEpoch }
    }
}

impl<M> Allowed<'_, M> {
    /// `given`: in which epoch the member was given what it commits for.
    ///
    /// # Errors
    /// That was later than in the epoch that it commits in, or never.
    pub(in crate::coordinator) fn check(&self, given: impl FnOnce(&M) -> Option<i32>) -> Result<(), GroupError> {
        match self {
            Allowed::All => Ok(()),
            Allowed::Since(epoch, member, _) if given(member).is_some_and(|given| *epoch >= given) => Ok(()),
            Allowed::Since(_, _, stale) => Err(*stale),
        }
    }
}

impl Shard {
    /// Whether a commit to a consumer or streams group is allowed; `None` if the group is of another type. `id_of` knows the
    /// topics' ids.
    pub(in crate::coordinator) fn check_modern_commit(
        &self,
        request: &CommitRequest,
        from: Committer<'_>,
        id_of: impl Fn(&CommitTopic) -> Option<TopicId>,
    ) -> Option<Result<(), GroupError>> {
        if let Some(group) = self.consumers.get(&request.group_id) {
            let allowed = group.check_commit(from);
            return Some(allowed.and_then(|allowed| {
                each_partition(request, |topic, partition| {
                    allowed.check(|member| member.epoch_of(id_of(topic)?, partition))
                })
            }));
        }
        let group = self.streams.get(&request.group_id)?;
        let allowed = group.check_commit(from);
        Some(allowed.and_then(|allowed| {
            each_partition(request, |topic, partition| {
                allowed.check(|member| member.epoch_of(&group.reader_of(&topic.name)?.id, partition))
            })
        }))
    }
}

fn each_partition(
    request: &CommitRequest,
    check: impl Fn(&CommitTopic, PartitionIndex) -> Result<(), GroupError>,
) -> Result<(), GroupError> {
    let mut topics = request.topics.iter();
    topics.try_for_each(|topic| topic.partitions.iter().try_for_each(|partition| check(topic, partition.partition)))
}
