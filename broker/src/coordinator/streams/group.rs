//! A streams group, as its records describe it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use varve_metadata::model::{PartitionIndex, Timestamp};

use super::{
    configure::Configured,
    member::StreamsMember,
    tasks::{AssignedTasks, TaskSet, Tasks},
    topology::Topology,
};
use crate::coordinator::{ModernGroupError, modern::known_member, records::StreamsRecord};

/// Where a streams group is in its life; drawn in the module above.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StreamsGroupState {
    /// No members; perhaps offsets.
    Empty,
    /// The topics that its topology needs are not all there, or not well partitioned.
    NotReady,
    /// The target assignment is older than the group.
    Assigning,
    /// Some members are not at their target yet.
    Reconciling,
    /// Every member has what it shall have.
    Stable,
}

impl StreamsGroupState {
    /// Kafka's name for it, as requests and tools show it.
    pub const fn name(self) -> &'static str {
        match self {
            StreamsGroupState::Empty => "Empty",
            StreamsGroupState::NotReady => "NotReady",
            StreamsGroupState::Assigning => "Assigning",
            StreamsGroupState::Reconciling => "Reconciling",
            StreamsGroupState::Stable => "Stable",
        }
    }
}

/// A group.
#[derive(Clone, Debug)]
pub(in crate::coordinator) struct StreamsGroup {
    pub(super) id: String,
    pub(super) epoch: i32,
    pub(super) metadata_hash: i64,
    /// The topology epoch whose topics were found in order; -1 if they were not.
    pub(super) validated_topology_epoch: i32,
    /// The settings with which tasks were assigned last.
    pub(super) assignment_configs: BTreeMap<String, String>,
    pub(super) members: BTreeMap<String, StreamsMember>,
    /// What every member shall have.
    pub(super) targets: BTreeMap<String, Tasks>,
    /// The group epoch for which that was decided; -1 once that was taken back.
    pub(super) assignment_epoch: i32,
    pub(super) assigned_at: Option<Timestamp>,
    pub(super) topology: Option<Arc<Topology>>,
    /// What follows is not kept in the log.
    pub(super) configured: Option<Arc<Configured>>,
    /// Topics may have changed since the group last looked; true after a load.
    pub(in crate::coordinator) must_look_at_topics: bool,
    /// The member that asked all others to end (KIP-671).
    pub(super) shutdown_by: Option<String>,
    /// Rises when a member that answers queries gets other tasks.
    pub(super) endpoint_epoch: i32,
}

impl StreamsGroup {
    pub(in crate::coordinator) fn new(id: String) -> StreamsGroup {
        StreamsGroup {
            id,
            epoch: 1,
            metadata_hash: 0,
            validated_topology_epoch: 0,
            assignment_configs: BTreeMap::new(),
            members: BTreeMap::new(),
            targets: BTreeMap::new(),
            assignment_epoch: 1,
            assigned_at: None,
            topology: None,
            configured: None,
            must_look_at_topics: true,
            shutdown_by: None,
            endpoint_epoch: 0,
        }
    }

    pub(in crate::coordinator) fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    pub(in crate::coordinator) fn member_count(&self) -> usize {
        self.members.len()
    }

    /// Costs a walk over the members.
    pub(in crate::coordinator) fn state(&self) -> StreamsGroupState {
        let is_validated =
            self.topology.as_ref().is_some_and(|topology| topology.epoch == self.validated_topology_epoch);
        if self.members.is_empty() {
            StreamsGroupState::Empty
        } else if !is_validated {
            StreamsGroupState::NotReady
        } else if self.epoch > self.assignment_epoch {
            StreamsGroupState::Assigning
        } else if self.members.values().all(|member| member.is_reconciled_to(self.assignment_epoch)) {
            StreamsGroupState::Stable
        } else {
            StreamsGroupState::Reconciling
        }
    }

    pub(super) fn known_member(&self, member_id: &str) -> Result<&StreamsMember, ModernGroupError> {
        known_member(&self.members, &self.id, member_id)
    }

    pub(super) fn target_of(&self, member_id: &str) -> Tasks {
        self.targets.get(member_id).cloned().unwrap_or_default()
    }

    /// Who holds which tasks. Costs a walk over all members and their tasks.
    pub(super) fn holders(&self) -> Holders<'_> {
        let mut holders = Holders::default();
        for member in self.members.values() {
            holders.add(&member.process_id, &member.assigned);
            holders.add(&member.process_id, &member.pending_revocation);
        }
        holders
    }

    /// Whether members read the topic.
    pub(in crate::coordinator) fn is_subscribed(&self, topic: &str) -> bool {
        !self.is_empty() && self.topology.as_ref().is_some_and(|topology| topology.reader_of(topic).is_some())
    }

    /// Whether the group needs the topic, be it to read it or to keep state in it.
    pub(in crate::coordinator) fn requires(&self, topic: &str) -> bool {
        self.topology.as_ref().is_some_and(|topology| topology.requires(topic))
    }

    /// The records that end a group without members.
    pub(in crate::coordinator) fn end_records(&self) -> Vec<StreamsRecord> {
        vec![
            StreamsRecord::Target(self.id.clone(), None),
            StreamsRecord::Group(self.id.clone(), None),
            StreamsRecord::Topology(self.id.clone(), None),
        ]
    }
}

/// Which processes hold which tasks, be it that they have not given them up yet.
#[derive(Debug, Default)]
pub(super) struct Holders<'a> {
    active: BTreeMap<(&'a str, PartitionIndex), BTreeSet<&'a str>>,
    /// Standby and warm-up tasks.
    copies: BTreeMap<(&'a str, PartitionIndex), BTreeSet<&'a str>>,
}

impl<'a> Holders<'a> {
    fn add(&mut self, process: &'a str, tasks: &'a AssignedTasks) {
        for (subtopology, tasks) in &tasks.active {
            for task in tasks.keys() {
                self.active.entry((subtopology, *task)).or_default().insert(process);
            }
        }
        let mut add_copies = |tasks: &'a TaskSet| {
            for (subtopology, tasks) in tasks {
                for task in tasks {
                    self.copies.entry((subtopology, *task)).or_default().insert(process);
                }
            }
        };
        add_copies(&tasks.standby);
        add_copies(&tasks.warmup);
    }

    /// Whether somebody processes the task.
    pub(super) fn is_processed(&self, subtopology: &str, task: PartitionIndex) -> bool {
        self.active.contains_key(&(subtopology, task))
    }

    /// Whether it is `process` that processes the task.
    pub(super) fn processes(&self, process: &str, subtopology: &str, task: PartitionIndex) -> bool {
        self.active.get(&(subtopology, task)).is_some_and(|processes| processes.contains(process))
    }

    /// Whether `process` has a copy of the task's state.
    pub(super) fn has_copy(&self, process: &str, subtopology: &str, task: PartitionIndex) -> bool {
        self.copies.get(&(subtopology, task)).is_some_and(|processes| processes.contains(process))
    }
}
