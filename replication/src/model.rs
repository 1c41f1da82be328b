//! All states of small worlds: everything that can happen, in every order.

use std::{
    collections::{HashMap, VecDeque},
    hash::{BuildHasher, BuildHasherDefault, DefaultHasher},
};

use crate::{
    simulation,
    world::{Action, Break, Budget, Violation, World},
};

/// What a search found.
struct Found {
    states: usize,
    /// The shortest way to a state that must not be.
    violation: Option<(Violation, Vec<Action>)>,
}

/// Walks through every state that can be reached from `start`, nearest first, or through `limit` of them.
fn search(start: World, limit: usize) -> Found {
    // States are told apart by 64-bit hashes: one of a million is overlooked with a chance of 1 in 10^7.
    let hasher = BuildHasherDefault::<DefaultHasher>::default();
    let first = hasher.hash_one(&start);
    let mut seen: HashMap<u64, Option<(u64, Action)>> = HashMap::from([(first, None)]);
    let mut due = VecDeque::from([(first, start)]);
    while let Some((hash, world)) = due.pop_front() {
        for action in world.actions() {
            let mut next = world.clone();
            next.act(action);
            let next_hash = hasher.hash_one(&next);
            if seen.contains_key(&next_hash) {
                continue;
            }
            seen.insert(next_hash, Some((hash, action)));
            if let Err(violation) = next.check() {
                return Found { states: seen.len(), violation: Some((violation, way_to(next_hash, &seen))) };
            }
            if seen.len() >= limit {
                return Found { states: seen.len(), violation: None };
            }
            due.push_back((next_hash, next));
        }
    }
    Found { states: seen.len(), violation: None }
}

fn way_to(mut state: u64, seen: &HashMap<u64, Option<(u64, Action)>>) -> Vec<Action> {
    let mut way = Vec::new();
    while let Some(Some((before, action))) = seen.get(&state) {
        way.push(*action);
        state = *before;
    }
    way.reverse();
    way
}

/// The small worlds, by what happens in them.
fn worlds(broken: Option<Break>) -> Vec<(&'static str, World)> {
    let none = Budget::NONE;
    let two = |minimum, budget| World::new(2, minimum, budget, broken);
    vec![
        ("two replicas, a crash", two(1, Budget { appends: 2, crashes: 1, ..none })),
        ("two replicas, a laggard", two(1, Budget { appends: 2, lags: 1, lost_answers: 1, ..none })),
        ("two replicas, a false alarm", two(1, Budget { appends: 2, false_alarms: 1, ..none })),
        (
            "a follower joins, of which its leader hears nothing",
            two(1, Budget { appends: 1, lags: 1, lost_answers: 1, false_alarms: 1, ..none }).led_alone(),
        ),
        (
            "two replicas, of which one crashes and one loses records",
            two(2, Budget { appends: 1, crashes: 1, power_cuts: 1, ..none }),
        ),
        (
            "two replicas, of which one is enough from some time on",
            two(2, Budget { appends: 1, crashes: 1, lowered: 1, ..none }),
        ),
        ("two replicas, of which one loses its directory", two(1, Budget { appends: 2, failures: 1, ..none })),
        ("two replicas, of which one loses its disk", two(1, Budget { appends: 2, swaps: 2, ..none })),
        (
            "three replicas, of which one loses records",
            World::new(3, 2, Budget { appends: 1, power_cuts: 1, ..none }, broken),
        ),
    ]
}

/// States looked at in each world: most are walked to the end. `VARVE_MODEL_STATES` raises it.
fn limit(default: usize) -> usize {
    std::env::var("VARVE_MODEL_STATES").ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

#[test]
fn no_state_of_a_small_world_breaks_a_promise() {
    for (name, world) in worlds(None) {
        let found = search(world, limit(120_000));
        println!("{name}: {} states", found.states);
        assert!(found.violation.is_none(), "{name}: {:?}", found.violation);
    }
}

/// The rules broken one by one: a check that would not notice is no check.
#[test]
fn every_rule_that_is_broken_on_purpose_is_noticed() {
    for broken in Break::ALL {
        let by_chance = simulation::noticed(broken, 1000).map(|(seed, what)| format!("seed {seed}: {what:?}"));
        let by_search = || {
            worlds(Some(broken)).into_iter().find_map(|(name, world)| {
                let found = search(world, limit(600_000));
                found.violation.map(|violation| format!("{name}: {violation:?}"))
            })
        };
        let noticed = by_chance.or_else(by_search);
        println!("{broken:?}: {noticed:?}");
        assert!(noticed.is_some(), "nobody noticed {broken:?}");
    }
}
