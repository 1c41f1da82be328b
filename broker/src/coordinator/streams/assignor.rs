//! The sticky assignor of Kafka 4.3: tasks stay where their state is, as far as every member gets its share.
//!
//! Active tasks go back to the member that had them, then to one that kept a copy, then to the process with the least load
//! and in it to the member with the fewest tasks. Standby tasks go where the task was active before, then where a copy was,
//! then to the least loaded process; never two of one task to the same process, so a small application may have fewer than
//! asked for. Where Kafka's choice depends on the order of its hash maps, names decide here.

use std::collections::{BTreeMap, BTreeSet};

use varve_metadata::model::PartitionIndex;

use super::tasks::{TaskSet, Tasks};

/// What is to be divided, and among whom.
#[derive(Clone, Debug, Default)]
pub(super) struct Division {
    /// By member id. Never empty when there is work.
    pub(super) members: BTreeMap<String, Candidate>,
    /// By subtopology.
    pub(super) work: BTreeMap<String, Work>,
    /// How many copies each stateful task shall have.
    pub(super) standby_replicas: u32,
}

/// A member that may get tasks.
#[derive(Clone, Debug, Default)]
pub(super) struct Candidate {
    /// The process that it runs in.
    pub(super) process: String,
    /// What it was to have until now.
    pub(super) before: Tasks,
}

/// The tasks of a subtopology.
#[derive(Clone, Copy, Debug)]
pub(super) struct Work {
    pub(super) tasks: u32,
    /// They have state, which copies can be kept of.
    pub(super) is_stateful: bool,
}

impl Division {
    /// What each member shall have.
    pub(super) fn assign(&self) -> BTreeMap<String, Tasks> {
        let mut shares = Shares::new(self);
        shares.assign_active();
        if self.standby_replicas > 0 {
            shares.assign_standby();
        }
        shares.into_tasks()
    }

    fn tasks(&self, only_stateful: bool) -> Vec<TaskId<'_>> {
        let subtopologies = self.work.iter().filter(|(_, work)| work.is_stateful || !only_stateful);
        subtopologies
            .flat_map(|(subtopology, work)| {
                (0..work.tasks).map(|task| TaskId { subtopology, task: PartitionIndex(task) })
            })
            .collect()
    }
}

/// In the order of subtopologies, then of tasks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct TaskId<'a> {
    subtopology: &'a str,
    task: PartitionIndex,
}

/// Members by number, in the order of their ids.
type Member = usize;
type Process = usize;

#[derive(Debug, Default)]
struct MemberShare<'a> {
    active: BTreeSet<TaskId<'a>>,
    standby: BTreeSet<TaskId<'a>>,
    process: Process,
}

impl MemberShare<'_> {
    fn count(&self) -> usize {
        self.active.len() + self.standby.len()
    }
}

#[derive(Debug, Default)]
struct ProcessShare<'a> {
    members: Vec<Member>,
    tasks: BTreeSet<TaskId<'a>>,
    count: u64,
}

/// How many tasks a member may have while others have room, and what is left to be given to them. A member that has its
/// share no longer counts, and the others share the rest anew.
#[derive(Debug)]
struct Quota {
    tasks: usize,
    members: usize,
}

impl Quota {
    fn share(&self) -> usize {
        if self.members == 0 { 0 } else { self.tasks.div_ceil(self.members) }
    }

    fn note(&mut self, count: usize) {
        if count == self.share() && self.members > 0 {
            self.members -= 1;
            self.tasks = self.tasks.saturating_sub(count);
        }
    }
}

struct Shares<'a> {
    division: &'a Division,
    ids: Vec<&'a String>,
    members: Vec<MemberShare<'a>>,
    processes: Vec<ProcessShare<'a>>,
    active_before: BTreeMap<TaskId<'a>, Member>,
    standby_before: BTreeMap<TaskId<'a>, Vec<Member>>,
    active_quota: Quota,
    quota: Quota,
}

impl<'a> Shares<'a> {
    fn new(division: &'a Division) -> Shares<'a> {
        let names: BTreeSet<&str> = division.members.values().map(|member| member.process.as_str()).collect();
        let numbers: BTreeMap<&str, Process> = names.into_iter().zip(0..).collect();
        let mut processes: Vec<ProcessShare<'a>> = numbers.iter().map(|_| ProcessShare::default()).collect();
        let mut members = Vec::with_capacity(division.members.len());
        let (mut active_before, mut standby_before) = (BTreeMap::new(), BTreeMap::<_, Vec<Member>>::new());
        for (number, candidate) in division.members.values().enumerate() {
            let process = numbers.get(candidate.process.as_str()).copied().unwrap_or_default();
            processes[process].members.push(number);
            members.push(MemberShare { process, ..MemberShare::default() });
            active_before.extend(ids_of(&candidate.before.active).map(|task| (task, number)));
            for task in ids_of(&candidate.before.standby) {
                standby_before.entry(task).or_default().push(number);
            }
        }
        let count = |only_stateful| division.tasks(only_stateful).len();
        let copies = count(true).saturating_mul(division.standby_replicas as usize);
        Shares {
            division,
            ids: division.members.keys().collect(),
            active_quota: Quota { tasks: count(false), members: members.len() },
            quota: Quota { tasks: count(false).saturating_add(copies), members: members.len() },
            members,
            processes,
            active_before,
            standby_before,
        }
    }

    fn assign_active(&mut self) {
        let mut open = self.division.tasks(false);
        // Tasks that read the same partition go together as long as there is room.
        open.sort_by_key(|id| (id.task, id.subtopology));
        let mut left = Vec::new();
        for task in open {
            match self.active_before.get(&task).copied() {
                Some(before) if self.has_room_for_active(before) => self.give_active(before, task),
                _ => left.push(task),
            }
        }
        let mut unclaimed = Vec::new();
        for task in left {
            match self.least_loaded_before(task, false) {
                Some(before) if self.has_room_for_active(before) => self.give_active(before, task),
                _ => unclaimed.push(task),
            }
        }
        unclaimed.sort();
        for task in unclaimed {
            let Some(process) = self.least_loaded_process(None) else { return };
            if let Some(member) = self.least_loaded_member(process) {
                self.give_active(member, task);
            }
        }
    }

    fn assign_standby(&mut self) {
        let mut tasks = self.division.tasks(true);
        tasks.sort_by_key(|id| std::cmp::Reverse((id.task, id.subtopology)));
        let mut left: Vec<(TaskId<'a>, u32)> = Vec::new();
        for task in tasks {
            for copy in 0..self.division.standby_replicas {
                if !self.keep_copy_where_it_was(task) {
                    left.push((task, self.division.standby_replicas - copy));
                    break;
                }
            }
        }
        left.sort_by_key(|(task, _)| std::cmp::Reverse(*task));
        for (task, copies) in left {
            for copy in 0..copies {
                let process = self.least_loaded_process(Some(task));
                match process.and_then(|process| self.least_loaded_member(process)) {
                    Some(member) => self.give_standby(member, task),
                    None => {
                        let (subtopology, task) = (task.subtopology, task.task.0);
                        tracing::warn!(
                            subtopology,
                            task,
                            missing = copies - copy,
                            "too few processes for standby tasks"
                        );
                        break;
                    }
                }
            }
        }
    }

    /// Whether a member that had the task before, active or standby, keeps a copy of it.
    fn keep_copy_where_it_was(&mut self, task: TaskId<'a>) -> bool {
        let active = self.active_before.get(&task).copied();
        let active = active.filter(|before| !self.process_has(*before, task) && self.has_room(*before));
        let before = active.or_else(|| self.least_loaded_before(task, true).filter(|before| self.has_room(*before)));
        match before {
            Some(before) => self.give_standby(before, task),
            None => return false,
        }
        true
    }

    /// Of those that kept a copy, the one in the process with the least load; where `elsewhere` is wanted, not in a process
    /// that has the task already.
    fn least_loaded_before(&self, task: TaskId<'a>, elsewhere: bool) -> Option<Member> {
        let before = self.standby_before.get(&task)?;
        let mut candidate = *before.first()?;
        for member in before.iter().skip(1).copied() {
            let is_free = !elsewhere || !self.process_has(member, task);
            if is_free && self.is_less_loaded(member, candidate) {
                candidate = member;
            }
        }
        (!elsewhere || !self.process_has(candidate, task)).then_some(candidate)
    }

    /// Both its process and itself.
    fn is_less_loaded(&self, member: Member, than: Member) -> bool {
        let (own, other) = (self.members[member].process, self.members[than].process);
        self.load(own, other).is_lt() && self.members[member].count() < self.members[than].count()
    }

    /// Tasks for each member, of one process and another.
    fn load(&self, one: Process, other: Process) -> std::cmp::Ordering {
        let (one, other) = (&self.processes[one], &self.processes[other]);
        let scaled = |count: u64, members: usize| u128::from(count) * members as u128;
        scaled(one.count, other.members.len()).cmp(&scaled(other.count, one.members.len()))
    }

    /// The first of those with the least load that do not have the task.
    fn least_loaded_process(&self, without: Option<TaskId<'a>>) -> Option<Process> {
        let free = (0..self.processes.len())
            .filter(|process| without.is_none_or(|task| !self.processes[*process].tasks.contains(&task)));
        free.reduce(|least, process| if self.load(process, least).is_lt() { process } else { least })
    }

    fn least_loaded_member(&self, process: Process) -> Option<Member> {
        self.processes[process].members.iter().copied().min_by_key(|member| (self.members[*member].count(), *member))
    }

    fn process_has(&self, member: Member, task: TaskId<'a>) -> bool {
        self.processes[self.members[member].process].tasks.contains(&task)
    }

    fn has_room_for_active(&self, member: Member) -> bool {
        self.members[member].count() < self.active_quota.share()
    }

    fn has_room(&self, member: Member) -> bool {
        self.members[member].count() < self.quota.share()
    }

    fn give_active(&mut self, member: Member, task: TaskId<'a>) {
        self.members[member].active.insert(task);
        let count = self.count_task(member, task);
        self.active_quota.note(count);
        self.quota.note(count);
    }

    fn give_standby(&mut self, member: Member, task: TaskId<'a>) {
        self.members[member].standby.insert(task);
        let count = self.count_task(member, task);
        self.quota.note(count);
    }

    fn count_task(&mut self, member: Member, task: TaskId<'a>) -> usize {
        let process = &mut self.processes[self.members[member].process];
        process.tasks.insert(task);
        process.count += 1;
        self.members[member].count()
    }

    fn into_tasks(self) -> BTreeMap<String, Tasks> {
        let share = |(id, member): (&String, MemberShare<'_>)| {
            let tasks =
                Tasks { active: as_set(&member.active), standby: as_set(&member.standby), warmup: TaskSet::new() };
            (id.clone(), tasks)
        };
        self.ids.into_iter().zip(self.members).map(share).collect()
    }
}

fn ids_of(tasks: &TaskSet) -> impl Iterator<Item = TaskId<'_>> {
    tasks.iter().flat_map(|(subtopology, tasks)| tasks.iter().map(|task| TaskId { subtopology, task: *task }))
}

fn as_set(tasks: &BTreeSet<TaskId<'_>>) -> TaskSet {
    let mut set = TaskSet::new();
    for id in tasks {
        set.entry(id.subtopology.to_owned()).or_default().insert(id.task);
    }
    set
}
