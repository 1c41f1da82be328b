//! Tasks by kind: what a member shall have, and what it has.

use std::collections::{BTreeMap, BTreeSet};

use varve_metadata::model::PartitionIndex;

/// Tasks of one kind: for each subtopology, partition numbers. No subtopology is there without any.
pub type TaskSet = BTreeMap<String, BTreeSet<PartitionIndex>>;

/// Active tasks, each with the epoch in which it was given to its member: commits of an older epoch are refused (KIP-1251).
pub type EpochTasks = BTreeMap<String, BTreeMap<PartitionIndex, i32>>;

/// What a member shall have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tasks {
    /// It processes them.
    pub active: TaskSet,
    /// It keeps copies of their state.
    pub standby: TaskSet,
    /// It catches up with them, in order to process them later. Nobody assigns any yet.
    pub warmup: TaskSet,
}

/// What a member has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AssignedTasks {
    /// It processes them.
    pub active: EpochTasks,
    /// It keeps copies of their state.
    pub standby: TaskSet,
    /// It catches up with them.
    pub warmup: TaskSet,
}

impl Tasks {
    pub(super) fn is_empty(&self) -> bool {
        self.active.is_empty() && self.standby.is_empty() && self.warmup.is_empty()
    }

    /// Whether a task of one kind is in `other`, as a task of the same kind.
    pub(super) fn shares_any(&self, other: &AssignedTasks) -> bool {
        let of_epochs = |subtopology: &String, task: &PartitionIndex| {
            other.active.get(subtopology).is_some_and(|tasks| tasks.contains_key(task))
        };
        self.active.iter().any(|(subtopology, tasks)| tasks.iter().any(|task| of_epochs(subtopology, task)))
            || overlap(&self.standby, &other.standby)
            || overlap(&self.warmup, &other.warmup)
    }

    /// Whether every task is in `other`, as a task of the same kind.
    pub(super) fn is_part_of(&self, other: &AssignedTasks) -> bool {
        let has_active = |subtopology: &String, task: &PartitionIndex| {
            other.active.get(subtopology).is_some_and(|tasks| tasks.contains_key(task))
        };
        let all_active =
            self.active.iter().all(|(subtopology, tasks)| tasks.iter().all(|task| has_active(subtopology, task)));
        all_active && is_subset(&self.standby, &other.standby) && is_subset(&self.warmup, &other.warmup)
    }
}

impl AssignedTasks {
    pub(super) fn is_empty(&self) -> bool {
        self.active.is_empty() && self.standby.is_empty() && self.warmup.is_empty()
    }

    /// Whether every task is in `owned`, as a task of the same kind.
    pub(super) fn is_part_of(&self, owned: &Tasks) -> bool {
        is_subset(&keys(&self.active), &owned.active)
            && is_subset(&self.standby, &owned.standby)
            && is_subset(&self.warmup, &owned.warmup)
    }

    /// The same, without the epochs.
    pub(super) fn without_epochs(&self) -> Tasks {
        Tasks { active: keys(&self.active), standby: self.standby.clone(), warmup: self.warmup.clone() }
    }
}

/// Tasks without their epochs.
pub(super) fn keys(tasks: &EpochTasks) -> TaskSet {
    tasks.iter().map(|(subtopology, tasks)| (subtopology.clone(), tasks.keys().copied().collect())).collect()
}

fn overlap(one: &TaskSet, other: &TaskSet) -> bool {
    one.iter().any(|(subtopology, tasks)| other.get(subtopology).is_some_and(|others| !tasks.is_disjoint(others)))
}

fn is_subset(one: &TaskSet, other: &TaskSet) -> bool {
    one.iter()
        .all(|(subtopology, tasks)| tasks.is_empty() || other.get(subtopology).is_some_and(|all| tasks.is_subset(all)))
}
