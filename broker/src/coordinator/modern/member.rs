//! How far members have come, and what they are told.

use std::{collections::BTreeMap, time::Duration};

use super::ModernGroupError;
use crate::coordinator::{GroupType, assignor::PartitionSet};

/// How far a member has come, and what its requests carry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MemberEpoch(pub i32);

impl MemberEpoch {
    /// The member wants to join, or starts over after it was fenced.
    pub const JOINING: MemberEpoch = MemberEpoch(0);
    /// The member leaves.
    pub const LEAVING: MemberEpoch = MemberEpoch(-1);
    /// A static member leaves for a while: its place is kept until its session ends.
    pub const LEAVING_FOR_A_WHILE: MemberEpoch = MemberEpoch(-2);
}

/// What a member of a consumer or share group is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeartbeatAnswer {
    /// The member.
    pub member_id: String,
    /// What its next request must carry.
    pub epoch: MemberEpoch,
    /// How soon it shall be heard of again; zero when it leaves.
    pub heartbeat_interval: Duration,
    /// What it may read from now on; absent if that did not change.
    pub assignment: Option<PartitionSet>,
}

impl HeartbeatAnswer {
    /// To a member that leaves, and said so by `epoch`.
    pub(in crate::coordinator) fn farewell(member_id: &str, epoch: MemberEpoch) -> HeartbeatAnswer {
        HeartbeatAnswer { member_id: member_id.to_owned(), epoch, heartbeat_interval: Duration::ZERO, assignment: None }
    }
}

/// The member of that name among those of `group`.
pub(in crate::coordinator) fn known_member<'a, M>(
    members: &'a BTreeMap<String, M>,
    group: &str,
    member: &str,
) -> Result<&'a M, ModernGroupError> {
    let unknown = || ModernGroupError::UnknownMember { member: member.to_owned(), group: group.to_owned() };
    members.get(member).ok_or_else(unknown)
}

/// Whether a member in the epoch `known`, and before that in `previous`, may go on from where it says it stands.
/// `has_only_its_own`: it says what it has, and that is nothing but what it was given.
pub(in crate::coordinator) fn check_epoch(
    kind: GroupType,
    received: MemberEpoch,
    (known, previous): (MemberEpoch, MemberEpoch),
    has_only_its_own: impl FnOnce() -> bool,
) -> Result<(), ModernGroupError> {
    if received == MemberEpoch::JOINING || received == known {
        return Ok(());
    }
    let (told, kept) = (received.0, known.0);
    if received > known {
        return Err(ModernGroupError::EpochAhead { kind, received: told, known: kept });
    }
    // The answer with the new epoch may have been lost: the member has nothing then that it may not have.
    if received == previous && has_only_its_own() {
        return Ok(());
    }
    Err(ModernGroupError::EpochBehind { kind, received: told, known: kept })
}

/// How long a member may take to give up what it must, as it said in milliseconds; no time at all if it never did.
pub(in crate::coordinator) fn rebalance_timeout(millis: i32) -> Duration {
    Duration::from_millis(u64::try_from(millis).unwrap_or(0))
}
