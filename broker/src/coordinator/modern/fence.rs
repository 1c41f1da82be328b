//! The times that members have: to be heard of, and to give up what they must.

use std::time::Duration;

use super::MemberEpoch;
use crate::coordinator::{
    Now,
    rebalance::session_key,
    timers::{TimerAction, TimerKey, Timers},
};

/// The key of the time that a member has to give partitions or tasks up.
pub(in crate::coordinator) fn revocation_key(group: &str, member: &str) -> TimerKey {
    TimerKey::Revocation { group: group.to_owned(), member: member.to_owned() }
}

/// A member as its timers see it.
pub(in crate::coordinator) struct Watched<'a> {
    pub(in crate::coordinator) id: &'a str,
    /// It has to give something up: in which epoch, and how long it may take.
    pub(in crate::coordinator) revokes: Option<(MemberEpoch, Duration)>,
}

impl Timers {
    /// After a load: every member of the group was heard of just now.
    pub(in crate::coordinator) fn watch_members<'a>(
        &mut self,
        now: Now,
        group: &str,
        session: Duration,
        members: impl Iterator<Item = Watched<'a>>,
    ) {
        for Watched { id, revokes } in members {
            self.set(session_key(group, id), now.elapsed + session, TimerAction::ExpireSession);
            if let Some((epoch, timeout)) = revokes {
                let at = now.elapsed + timeout;
                self.set(revocation_key(group, id), at, TimerAction::ExpireRevocation(epoch));
            }
        }
    }
}
