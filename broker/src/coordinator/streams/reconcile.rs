//! One step of a member on its way to its target: which tasks it has to give up, which it gets, what it waits for.

use std::collections::{BTreeMap, BTreeSet};

use varve_metadata::model::PartitionIndex;

use super::{
    group::Holders,
    member::{StreamsMember, StreamsMemberState},
    request::OwnedTasks,
    tasks::{AssignedTasks, EpochTasks, TaskSet, Tasks},
};

use crate::coordinator::{GroupType, ModernGroupError};

/// What a step depends on besides the member.
pub(super) struct Situation<'a> {
    /// The epoch of the target assignment.
    pub(super) epoch: i32,
    /// What the member shall have.
    pub(super) target: &'a Tasks,
    /// What the member says it has; `None` if it did not say.
    pub(super) owned: Option<&'a OwnedTasks>,
    /// Who holds what.
    pub(super) holders: &'a Holders<'a>,
}

impl Situation<'_> {
    /// The member after the step; the same if there is none to take.
    ///
    /// # Errors
    /// The member was written by a later version and has to start over.
    pub(super) fn step(&self, member: &StreamsMember) -> Result<StreamsMember, ModernGroupError> {
        Ok(match member.state {
            StreamsMemberState::Stable if member.epoch.0 == self.epoch => member.clone(),
            StreamsMemberState::Stable | StreamsMemberState::UnreleasedTasks => {
                self.toward_target(member, member.epoch.0)
            }
            StreamsMemberState::UnrevokedTasks if self.still_owns(&member.pending_revocation) => member.clone(),
            // One epoch further, should there be more to give up: what it gave up has been answered.
            StreamsMemberState::UnrevokedTasks => self.toward_target(member, member.epoch.0.saturating_add(1)),
            StreamsMemberState::Unknown if self.owned.is_none_or(|owned| !owned.is_empty()) => {
                return Err(ModernGroupError::UnknownState(GroupType::Streams));
            }
            StreamsMemberState::Unknown => self.toward_target(member, self.epoch),
        })
    }

    /// Whether the member may still work on some of `tasks`. If it does not say what it has, it may.
    fn still_owns(&self, tasks: &AssignedTasks) -> bool {
        self.owned.is_none_or(|owned| owned.tasks.shares_any(tasks))
    }

    fn toward_target(&self, member: &StreamsMember, from: i32) -> StreamsMember {
        let process = member.process_id.as_str();
        let has_copy = |subtopology: &str, task: PartitionIndex| self.holders.has_copy(process, subtopology, task);
        let active = compare(&member.assigned.active, &self.target.active, |subtopology, task| {
            self.holders.is_processed(subtopology, task) || has_copy(subtopology, task)
        });
        let is_here = |subtopology: &str, task: PartitionIndex| {
            self.holders.processes(process, subtopology, task) || has_copy(subtopology, task)
        };
        let standby = compare(&without(&member.assigned.standby), &self.target.standby, is_here);
        let warmup = compare(&without(&member.assigned.warmup), &self.target.warmup, is_here);

        let to_revoke = AssignedTasks {
            active: active.to_revoke,
            standby: as_set(standby.to_revoke),
            warmup: as_set(warmup.to_revoke),
        };
        let mut next = member.clone();
        next.assigned =
            AssignedTasks { active: active.kept, standby: as_set(standby.kept), warmup: as_set(warmup.kept) };
        if !to_revoke.is_empty() && self.still_owns(&to_revoke) {
            // In its epoch until it says that it gave them up.
            next.state = StreamsMemberState::UnrevokedTasks;
            next.move_to(from);
            next.pending_revocation = to_revoke;
            return next;
        }
        for (subtopology, tasks) in active.free {
            let of_subtopology = next.assigned.active.entry(subtopology).or_default();
            of_subtopology.extend(tasks.into_iter().map(|task| (task, self.epoch)));
        }
        extend(&mut next.assigned.standby, standby.free);
        extend(&mut next.assigned.warmup, warmup.free);
        let waits = active.waits || standby.waits || warmup.waits;
        next.state = if waits { StreamsMemberState::UnreleasedTasks } else { StreamsMemberState::Stable };
        next.move_to(self.epoch);
        next.pending_revocation = AssignedTasks::default();
        next
    }
}

/// A member's tasks of one kind beside its target.
struct Parts {
    /// It has them and shall have them.
    kept: EpochTasks,
    /// It has them and shall not.
    to_revoke: EpochTasks,
    /// It shall have them, and nothing stands against it.
    free: TaskSet,
    /// It shall have some that cannot be given to it yet.
    waits: bool,
}

fn compare(has: &EpochTasks, target: &TaskSet, is_held: impl Fn(&str, PartitionIndex) -> bool) -> Parts {
    let mut parts = Parts { kept: EpochTasks::new(), to_revoke: EpochTasks::new(), free: TaskSet::new(), waits: false };
    let subtopologies: BTreeSet<&String> = has.keys().chain(target.keys()).collect();
    for subtopology in subtopologies {
        let none_shall = BTreeSet::new();
        let none_has = BTreeMap::new();
        let shall = target.get(subtopology).unwrap_or(&none_shall);
        let has = has.get(subtopology).unwrap_or(&none_has);
        let (kept, to_revoke): (BTreeMap<_, _>, BTreeMap<_, _>) =
            has.iter().map(|(task, epoch)| (*task, *epoch)).partition(|(task, _)| shall.contains(task));
        let (held, free): (BTreeSet<_>, BTreeSet<_>) =
            shall.iter().copied().filter(|task| !kept.contains_key(task)).partition(|task| is_held(subtopology, *task));
        parts.waits |= !held.is_empty();
        if !kept.is_empty() {
            parts.kept.insert(subtopology.clone(), kept);
        }
        if !to_revoke.is_empty() {
            parts.to_revoke.insert(subtopology.clone(), to_revoke);
        }
        if !free.is_empty() {
            parts.free.insert(subtopology.clone(), free);
        }
    }
    parts
}

/// Copies have no epochs: nothing is committed for them.
fn without(tasks: &TaskSet) -> EpochTasks {
    let of = |tasks: &BTreeSet<PartitionIndex>| tasks.iter().map(|task| (*task, 0)).collect();
    tasks.iter().map(|(subtopology, tasks)| (subtopology.clone(), of(tasks))).collect()
}

fn as_set(tasks: EpochTasks) -> TaskSet {
    tasks.into_iter().map(|(subtopology, tasks)| (subtopology, tasks.into_keys().collect())).collect()
}

fn extend(tasks: &mut TaskSet, more: TaskSet) {
    for (subtopology, more) in more {
        tasks.entry(subtopology).or_default().extend(more);
    }
}
