//! The sticky assignor: what it promises of any members and tasks, and its choices in small cases.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::coordinator::streams::assignor::{Candidate, Division, Work};

fn work(tasks: u32, is_stateful: bool) -> BTreeMap<String, Work> {
    [("0".to_owned(), Work { tasks, is_stateful })].into()
}

/// Members by name, each with its process and what it had.
fn division(members: &[(&str, &str, Tasks)], work: BTreeMap<String, Work>, standby_replicas: u32) -> Division {
    let members = members.iter().map(|(id, process, before)| {
        let candidate = Candidate { process: (*process).to_owned(), before: before.clone() };
        ((*id).to_owned(), candidate)
    });
    Division { members: members.collect(), work, standby_replicas }
}

fn nothing() -> Tasks {
    Tasks::default()
}

fn with_standby(active: &[u32], standby: &[u32]) -> Tasks {
    Tasks { active: tasks(active), standby: tasks(standby), ..Tasks::default() }
}

#[test]
fn tasks_are_spread_over_processes_first_and_members_then() {
    let members = [("a1", "a", nothing()), ("a2", "a", nothing()), ("b1", "b", nothing()), ("b2", "b", nothing())];
    let assigned = division(&members, work(6, false), 0).assign();
    let counts: Vec<usize> = assigned.values().map(|tasks| tasks.active["0"].len()).collect();
    assert_eq!(counts, [2, 1, 2, 1]);
}

#[test]
fn what_a_member_had_it_keeps_as_far_as_that_is_its_share() {
    let members = [("a", "a", active(&[0, 1, 2, 3])), ("b", "b", nothing())];
    let assigned = division(&members, work(4, false), 0).assign();
    assert_eq!(assigned["a"], active(&[0, 1]));
    assert_eq!(assigned["b"], active(&[2, 3]));
}

#[test]
fn a_task_whose_member_went_goes_where_a_copy_of_its_state_is() {
    let members = [("a", "a", with_standby(&[0], &[3])), ("b", "b", with_standby(&[1], &[2]))];
    let assigned = division(&members, work(4, true), 1).assign();
    assert_eq!(assigned["a"].active, tasks(&[0, 3]));
    assert_eq!(assigned["b"].active, tasks(&[1, 2]));
    assert_eq!(assigned["a"].standby, tasks(&[1, 2]));
    assert_eq!(assigned["b"].standby, tasks(&[0, 3]));
}

#[test]
fn no_process_has_a_task_twice_and_only_stateful_tasks_have_copies() {
    let members = [("a1", "a", nothing()), ("a2", "a", nothing())];
    let alone = division(&members, work(2, true), 1).assign();
    assert!(alone.values().all(|tasks| tasks.standby.is_empty()));
    let members = [("a", "a", nothing()), ("b", "b", nothing())];
    let stateless = division(&members, work(2, false), 1).assign();
    assert!(stateless.values().all(|tasks| tasks.standby.is_empty()));
}

fn any_division() -> impl Strategy<Value = Division> {
    let member =
        (0usize..5, proptest::collection::btree_set(0u32..12, 0..8), proptest::collection::btree_set(0u32..12, 0..8));
    let subtopology = (1u32..9, any::<bool>());
    let members = proptest::collection::vec(member, 1..9);
    let subtopologies = proptest::collection::vec(subtopology, 0..4);
    (members, subtopologies, 0u32..3).prop_map(|(members, subtopologies, standby_replicas)| {
        let set = |numbers: &BTreeSet<u32>| tasks(&numbers.iter().copied().collect::<Vec<_>>());
        let members = members.iter().enumerate().map(|(number, (process, active, standby))| {
            let before = Tasks { active: set(active), standby: set(standby), ..Tasks::default() };
            (format!("m{number}"), Candidate { process: format!("p{process}"), before })
        });
        let work = subtopologies.iter().enumerate();
        let work =
            work.map(|(id, (tasks, is_stateful))| (id.to_string(), Work { tasks: *tasks, is_stateful: *is_stateful }));
        Division { members: members.collect(), work: work.collect(), standby_replicas }
    })
}

fn flat(tasks: &TaskSet) -> Vec<(String, PartitionIndex)> {
    tasks.iter().flat_map(|(id, tasks)| tasks.iter().map(|task| (id.clone(), *task))).collect()
}

/// All active tasks, and how often each is kept in a copy.
fn check(division: &Division, assigned: &BTreeMap<String, Tasks>) {
    let all: Vec<(String, PartitionIndex)> = division
        .work
        .iter()
        .flat_map(|(id, work)| (0..work.tasks).map(|task| (id.clone(), PartitionIndex(task))))
        .collect();
    let mut given: Vec<_> = assigned.values().flat_map(|tasks| flat(&tasks.active)).collect();
    given.sort();
    assert_eq!(given, all, "each task is active once");
    let processes: BTreeSet<&String> = division.members.values().map(|member| &member.process).collect();
    let copies = (division.standby_replicas as usize).min(processes.len() - 1);
    for task in &all {
        let holders: Vec<&String> = assigned
            .iter()
            .filter(|(_, tasks)| flat(&tasks.active).contains(task) || flat(&tasks.standby).contains(task))
            .map(|(member, _)| &division.members[member].process)
            .collect();
        let distinct: BTreeSet<&String> = holders.iter().copied().collect();
        assert_eq!(distinct.len(), holders.len(), "no process has {task:?} twice");
        let wanted = if division.work[&task.0].is_stateful { copies } else { 0 };
        assert_eq!(holders.len(), 1 + wanted, "{task:?} has its copies");
    }
    assert!(assigned.values().all(|tasks| tasks.warmup.is_empty()));
    assert!(assigned.keys().eq(division.members.keys()));
}

proptest! {
    #[test]
    fn every_task_is_active_once_and_has_its_copies_elsewhere(division in any_division()) {
        check(&division, &division.assign());
    }

    #[test]
    fn without_a_change_nothing_moves_that_has_no_copies(division in any_division()) {
        let mut again = Division { standby_replicas: 0, ..division };
        let assigned = again.assign();
        for (member, tasks) in &assigned {
            again.members.get_mut(member).unwrap().before = tasks.clone();
        }
        let counts = || assigned.values().map(|tasks| flat(&tasks.active).len());
        let (most, least) = (counts().max().unwrap_or(0), counts().min().unwrap_or(0));
        let second = again.assign();
        check(&again, &second);
        // Where shares are even, everybody keeps its own.
        if most - least <= 1 {
            prop_assert_eq!(second, assigned);
        }
    }

    #[test]
    fn the_same_division_gives_the_same_assignment(division in any_division()) {
        prop_assert_eq!(division.assign(), division.assign());
    }
}
