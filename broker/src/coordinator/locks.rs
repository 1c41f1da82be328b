//! Who may change a group while an append for it is on its way.
//!
//! Classic groups are ahead of their log, and go on while appends are on their way. Consumer, share and streams groups change
//! only by what the log acknowledged, and so does a group that changes its type: until then, whatever would change it waits
//! here, in the order in which it came. With a log that acknowledges at once nothing ever waits.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use varve_metadata::model::TopicId;

use super::{
    JoinRequest, LeaveRequest, RequestId, SyncRequest,
    assignor::PartitionSet,
    consumer::ConsumerHeartbeat,
    records::ResolvedRegex,
    share_group::{ShareHeartbeat, SharePlace},
    streams::StreamsHeartbeat,
    timers::{TimerAction, TimerKey},
};

/// Something that changes a group.
#[derive(Debug)]
pub(super) enum Task {
    Heartbeat(RequestId, Box<ConsumerHeartbeat>),
    StreamsHeartbeat(RequestId, Box<StreamsHeartbeat>),
    Join(RequestId, Box<JoinRequest>),
    Sync(RequestId, Box<SyncRequest>),
    Leave(RequestId, Box<LeaveRequest>),
    DeleteGroup(RequestId, String),
    /// Topics were found for the patterns of a group.
    Resolved(String, BTreeMap<String, ResolvedRegex>),
    ShareHeartbeat(RequestId, Box<ShareHeartbeat>),
    AlterShares(RequestId, String, Vec<SharePlace>),
    /// Keepers were asked to begin, and all of them have, or not.
    SharesBegun(Option<RequestId>, String, PartitionSet, bool),
    EndShares(RequestId, String, Option<Vec<String>>),
    /// Keepers have forgotten topics; if nobody asked for it, the topics are gone.
    SharesEnded(Option<RequestId>, String, BTreeSet<TopicId>),
    /// A timer that fell due. It no longer counts if it was set anew since.
    Timer(TimerKey, TimerAction),
}

/// How much of a group a task needs for itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Need {
    /// The group is classic and stays so: other appends for it may be on their way.
    Shared,
    /// Nothing may be on its way.
    Alone,
}

#[derive(Debug, Default)]
struct Lock {
    appends: usize,
    /// One of the appends changes the group only when it is acknowledged.
    is_exclusive: bool,
    /// Each waits for its client's connection, or for a member's timer: there are no more than those.
    waiting: VecDeque<(Need, Task)>,
}

/// The groups for which something is on its way.
#[derive(Debug, Default)]
pub(super) struct Locks(HashMap<String, Lock>);

impl Locks {
    /// Takes the task back if it may run now, else keeps it until it may.
    pub(super) fn pass(&mut self, group_id: &str, need: Need, task: Task) -> Option<Task> {
        match self.0.get_mut(group_id) {
            Some(lock)
                if lock.is_exclusive || !lock.waiting.is_empty() || (need == Need::Alone && lock.appends > 0) =>
            {
                lock.waiting.push_back((need, task));
                None
            }
            _ => Some(task),
        }
    }

    /// An append for the group was asked of the log.
    pub(super) fn hold(&mut self, group_id: &str, is_exclusive: bool) {
        let lock = self.0.entry(group_id.to_owned()).or_default();
        lock.appends += 1;
        lock.is_exclusive |= is_exclusive;
    }

    /// An append for the group came to its end.
    pub(super) fn release(&mut self, group_id: &str) {
        if let Some(lock) = self.0.get_mut(group_id) {
            lock.appends -= 1;
            lock.is_exclusive &= lock.appends > 0;
        }
    }

    /// The task that may run next, if one waits.
    pub(super) fn next(&mut self, group_id: &str) -> Option<Task> {
        let lock = self.0.get_mut(group_id)?;
        let may_run = |need: Need| !lock.is_exclusive && (need == Need::Shared || lock.appends == 0);
        if lock.waiting.front().is_some_and(|(need, _)| may_run(*need)) {
            return lock.waiting.pop_front().map(|(_, task)| task);
        }
        if lock.appends == 0 && lock.waiting.is_empty() {
            self.0.remove(group_id);
        }
        None
    }

    /// Puts a task before all others.
    pub(super) fn put_first(&mut self, group_id: &str, task: Task) {
        self.0.entry(group_id.to_owned()).or_default().waiting.push_front((Need::Alone, task));
    }

    pub(super) fn is_held(&self, group_id: &str) -> bool {
        self.0.contains_key(group_id)
    }
}
