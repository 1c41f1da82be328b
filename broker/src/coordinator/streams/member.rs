//! One member of a streams group: a thread of an application.

use std::{collections::BTreeMap, time::Duration};

use varve_metadata::model::PartitionIndex;

use super::tasks::AssignedTasks;
use crate::coordinator::{
    MemberEpoch,
    modern::{Watched, rebalance_timeout},
    records::{StreamsCurrentRecord, StreamsMemberRecord},
};

/// What a member waits for; drawn in the module above.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamsMemberState {
    /// Nothing: it has what it shall have in its epoch.
    Stable,
    /// That it gives up tasks.
    UnrevokedTasks,
    /// That others, or its own process, give up tasks.
    UnreleasedTasks,
    /// Written by a later version: the member has to start over.
    Unknown,
}

impl StreamsMemberState {
    pub(in crate::coordinator) const fn to_log(self) -> i8 {
        match self {
            StreamsMemberState::Stable => 1,
            StreamsMemberState::UnrevokedTasks => 2,
            StreamsMemberState::UnreleasedTasks => 3,
            StreamsMemberState::Unknown => 127,
        }
    }

    pub(in crate::coordinator) const fn from_log(raw: i8) -> StreamsMemberState {
        match raw {
            1 => StreamsMemberState::Stable,
            2 => StreamsMemberState::UnrevokedTasks,
            3 => StreamsMemberState::UnreleasedTasks,
            _ => StreamsMemberState::Unknown,
        }
    }
}

/// Where a process answers interactive queries (`application.server`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Its host.
    pub host: String,
    /// Its port.
    pub port: u16,
}

/// A member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::coordinator) struct StreamsMember {
    pub(super) id: String,
    pub(super) epoch: MemberEpoch,
    pub(super) previous_epoch: MemberEpoch,
    pub(super) state: StreamsMemberState,
    /// Kept where a record has it: static members are not served.
    pub(super) instance_id: Option<String>,
    pub(super) rack_id: Option<String>,
    pub(super) client_id: String,
    pub(super) client_host: String,
    /// -1 until it says.
    pub(super) rebalance_timeout_ms: i32,
    /// -1 until it says.
    pub(super) topology_epoch: i32,
    /// Members of one process share its state on disk.
    pub(super) process_id: String,
    pub(super) endpoint: Option<Endpoint>,
    pub(super) tags: BTreeMap<String, String>,
    pub(super) assigned: AssignedTasks,
    pub(super) pending_revocation: AssignedTasks,
}

impl StreamsMember {
    /// A member that nothing is known of yet.
    pub(super) fn new(id: String) -> StreamsMember {
        StreamsMember {
            id,
            epoch: MemberEpoch::JOINING,
            previous_epoch: MemberEpoch::JOINING,
            state: StreamsMemberState::Stable,
            instance_id: None,
            rack_id: None,
            client_id: String::new(),
            client_host: String::new(),
            rebalance_timeout_ms: -1,
            topology_epoch: -1,
            process_id: String::new(),
            endpoint: None,
            tags: BTreeMap::new(),
            assigned: AssignedTasks::default(),
            pending_revocation: AssignedTasks::default(),
        }
    }

    pub(super) fn is_reconciled_to(&self, epoch: i32) -> bool {
        self.state == StreamsMemberState::Stable && self.epoch.0 == epoch
    }

    pub(super) fn rebalance_timeout(&self) -> Duration {
        rebalance_timeout(self.rebalance_timeout_ms)
    }

    pub(super) fn watched(&self) -> Watched<'_> {
        let revokes = self.state == StreamsMemberState::UnrevokedTasks;
        Watched { id: &self.id, revokes: revokes.then(|| (self.epoch, self.rebalance_timeout())) }
    }

    /// In which epoch the task was given to it, while it may still commit for it.
    pub(in crate::coordinator) fn epoch_of(&self, subtopology: &str, task: PartitionIndex) -> Option<i32> {
        let of = |tasks: &AssignedTasks| tasks.active.get(subtopology)?.get(&task).copied();
        of(&self.assigned).or_else(|| of(&self.pending_revocation))
    }

    /// Moves on to `epoch`, and remembers the one before.
    pub(super) fn move_to(&mut self, epoch: i32) {
        self.previous_epoch = self.epoch;
        self.epoch = MemberEpoch(epoch);
    }

    pub(super) fn to_record(&self) -> StreamsMemberRecord {
        StreamsMemberRecord {
            instance_id: self.instance_id.clone(),
            rack_id: self.rack_id.clone(),
            client_id: self.client_id.clone(),
            client_host: self.client_host.clone(),
            rebalance_timeout_ms: self.rebalance_timeout_ms,
            topology_epoch: self.topology_epoch,
            process_id: self.process_id.clone(),
            endpoint: self.endpoint.clone(),
            tags: self.tags.clone(),
        }
    }

    pub(super) fn describe(&mut self, record: StreamsMemberRecord) {
        self.instance_id = record.instance_id;
        self.rack_id = record.rack_id;
        self.client_id = record.client_id;
        self.client_host = record.client_host;
        self.rebalance_timeout_ms = record.rebalance_timeout_ms;
        self.topology_epoch = record.topology_epoch;
        self.process_id = record.process_id;
        self.endpoint = record.endpoint;
        self.tags = record.tags;
    }

    pub(super) fn to_current(&self) -> StreamsCurrentRecord {
        StreamsCurrentRecord {
            epoch: self.epoch,
            previous_epoch: self.previous_epoch,
            state: self.state,
            assigned: self.assigned.clone(),
            pending_revocation: self.pending_revocation.clone(),
        }
    }

    pub(super) fn set_current(&mut self, current: StreamsCurrentRecord) {
        self.epoch = current.epoch;
        self.previous_epoch = current.previous_epoch;
        self.state = current.state;
        self.assigned = current.assigned;
        self.pending_revocation = current.pending_revocation;
    }
}
