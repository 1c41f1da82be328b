//! What falls due when, inside one shard.

use std::{
    collections::{BTreeSet, HashMap},
    time::Duration,
};

use super::{Generation, MemberEpoch};

/// What a timer watches. Setting a timer again moves it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum TimerKey {
    /// A member, or a member id given out but not yet used (KIP-394), that must be heard of.
    Session { group: String, member: String },
    /// A group waiting for its members to join.
    Join { group: String },
    /// A group waiting for its members to ask for their assignment.
    Sync { group: String },
    /// A member of a consumer or streams group that has to give partitions or tasks up.
    Revocation { group: String, member: String },
    /// A classic member of a consumer group that has to join again.
    MemberJoin { group: String, member: String },
    /// A classic member of a consumer group that has to ask for its assignment.
    MemberSync { group: String, member: String },
    /// A streams group that waits for more members before its first assignment.
    FirstAssignment { group: String },
    /// The next look at expired groups and offsets.
    Expiry,
}

/// What to do when a timer falls due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TimerAction {
    ExpireSession,
    /// First rebalance of a group: wait on while new members keep coming, `remaining` at most (KIP-134).
    CompleteInitialJoin {
        delay: Duration,
        remaining: Duration,
    },
    CompleteJoin,
    ExpireSync(Generation),
    /// If it still is in this epoch.
    ExpireRevocation(MemberEpoch),
    ExpireMember,
    AssignFirst,
    Cleanup,
}

/// Timers in order of time. Equal times fire in the order of their keys, so a run is repeatable.
#[derive(Debug, Default)]
pub(super) struct Timers {
    due: BTreeSet<(Duration, TimerKey)>,
    set: HashMap<TimerKey, (Duration, TimerAction)>,
}

impl TimerKey {
    /// The group that the timer is about, if it is about one.
    pub(super) fn group(&self) -> Option<&str> {
        match self {
            TimerKey::Session { group, .. }
            | TimerKey::Join { group }
            | TimerKey::Sync { group }
            | TimerKey::Revocation { group, .. }
            | TimerKey::MemberJoin { group, .. }
            | TimerKey::MemberSync { group, .. }
            | TimerKey::FirstAssignment { group } => Some(group),
            TimerKey::Expiry => None,
        }
    }
}

impl Timers {
    pub(super) fn set(&mut self, key: TimerKey, at: Duration, action: TimerAction) {
        if let Some((before, _)) = self.set.insert(key.clone(), (at, action)) {
            self.due.remove(&(before, key.clone()));
        }
        self.due.insert((at, key));
    }

    pub(super) fn cancel(&mut self, key: &TimerKey) {
        if let Some((at, _)) = self.set.remove(key) {
            self.due.remove(&(at, key.clone()));
        }
    }

    pub(super) fn cancel_group(&mut self, group: &str) {
        let of_group = |key: &&TimerKey| key.group() == Some(group);
        let keys: Vec<TimerKey> = self.set.keys().filter(of_group).cloned().collect();
        for key in keys {
            self.cancel(&key);
        }
    }

    pub(super) fn is_set(&self, key: &TimerKey) -> bool {
        self.set.contains_key(key)
    }

    pub(super) fn next(&self) -> Option<Duration> {
        self.due.first().map(|(at, _)| *at)
    }

    pub(super) fn take_due(&mut self, now: Duration) -> Option<(TimerKey, TimerAction)> {
        if self.next()? > now {
            return None;
        }
        let (_, key) = self.due.pop_first()?;
        let (_, action) = self.set.remove(&key)?;
        Some((key, action))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn join(group: &str) -> TimerKey {
        TimerKey::Join { group: group.to_owned() }
    }

    #[test]
    fn a_timer_set_again_fires_once_at_its_new_time() {
        let mut timers = Timers::default();
        timers.set(join("g"), Duration::from_secs(1), TimerAction::CompleteJoin);
        timers.set(join("g"), Duration::from_secs(5), TimerAction::CompleteJoin);
        assert_eq!(timers.take_due(Duration::from_secs(4)), None);
        assert_eq!(timers.take_due(Duration::from_secs(5)), Some((join("g"), TimerAction::CompleteJoin)));
        assert_eq!(timers.next(), None);
    }

    #[test]
    fn cancelling_a_group_leaves_the_timers_of_others() {
        let mut timers = Timers::default();
        timers.set(join("g"), Duration::from_secs(1), TimerAction::CompleteJoin);
        timers.set(join("h"), Duration::from_secs(2), TimerAction::CompleteJoin);
        timers.cancel_group("g");
        assert_eq!(timers.next(), Some(Duration::from_secs(2)));
    }
}
