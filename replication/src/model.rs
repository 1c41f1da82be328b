//! All states of small worlds: everything that can happen, in every order.

use std::{
    collections::{HashMap, VecDeque},
    hash::{BuildHasher, BuildHasherDefault, DefaultHasher},
};

use self::Extent::{Part, Whole};
use crate::{
    simulation,
    world::{Action, Break, Budget, Scene, Violation, World},
};

/// What a search found.
struct Found {
    states: usize,
    /// Every state was looked at that can be reached: nothing was left to look at.
    exhausted: bool,
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
                let violation = Some((violation, way_to(next_hash, &seen)));
                return Found { states: seen.len(), exhausted: false, violation };
            }
            if seen.len() >= limit {
                return Found { states: seen.len(), exhausted: false, violation: None };
            }
            due.push_back((next_hash, next));
        }
    }
    Found { states: seen.len(), exhausted: true, violation: None }
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

/// How far a world is walked in every test run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Extent {
    /// To the end: a search that leaves states out is an error.
    Whole,
    /// Through the nearest states. `VARVE_MODEL_STATES` says how many.
    Part,
}

/// The small worlds, by what happens in them.
fn worlds(broken: Option<Break>) -> Vec<(&'static str, Extent, World)> {
    let none = Budget::NONE;
    let two = |minimum, budget| World::new(2, minimum, budget, broken);
    let three = |minimum, budget| World::new(3, minimum, budget, broken);
    vec![
        ("two replicas, a crash", Whole, two(1, Budget { appends: 2, crashes: 1, ..none })),
        ("two replicas, a laggard", Whole, two(1, Budget { appends: 2, lags: 1, lost_answers: 1, ..none })),
        ("two replicas, a false alarm", Whole, two(1, Budget { appends: 2, false_alarms: 1, ..none })),
        (
            "two replicas, of which one crashes and one loses records",
            Part,
            two(2, Budget { appends: 1, crashes: 1, power_cuts: 1, ..none }),
        ),
        (
            "a follower joins, of which its leader hears nothing",
            Part,
            two(1, Budget { appends: 1, lags: 1, lost_answers: 1, false_alarms: 1, ..none }).led_alone(),
        ),
        (
            "a follower joins and steps aside, and the store is slow",
            Whole,
            two(1, Budget { appends: 1, lost_answers: 1, asides: 1, ..none }).led_alone(),
        ),
        (
            "a follower joins, and the store is slow and away",
            Whole,
            two(1, Budget { appends: 1, lost_answers: 1, outages: 1, ..none }).led_alone(),
        ),
        (
            "a follower joins and lags, and the store is slow and away",
            Part,
            two(1, Budget { appends: 1, lags: 1, lost_answers: 1, outages: 1, ..none }).led_alone(),
        ),
        (
            "two replicas, of which one is enough from some time on",
            Whole,
            two(2, Budget { appends: 1, crashes: 1, lowered: 1, ..none }),
        ),
        ("two replicas, of which one loses its directory", Whole, two(1, Budget { appends: 2, failures: 1, ..none })),
        ("two replicas, of which one loses its disk", Part, two(1, Budget { appends: 2, swaps: 2, ..none })),
        (
            "two replicas, a fetch is sent again and a message comes twice",
            Whole,
            two(1, Budget { appends: 2, refetches: 1, duplicates: 1, ..none }),
        ),
        (
            "two replicas, the preferred one is taken for dead and leads again",
            Whole,
            two(1, Budget { appends: 1, false_alarms: 1, preferred: 1, ..none }),
        ),
        ("two replicas, one steps aside", Whole, two(1, Budget { appends: 2, asides: 1, ..none })),
        (
            "one replica moves to another broker, and a broker crashes",
            Whole,
            two(1, Budget { appends: 1, moves: 1, crashes: 1, ..none }).held_by_first(1),
        ),
        (
            "a replica is added, taken back and added again",
            Whole,
            two(1, Budget { appends: 1, moves: 2, cancels: 1, ..none }).held_by_first(1),
        ),
        (
            "of two replicas one moves and one lags, and one of the three loses records",
            Part,
            three(2, Budget { appends: 1, moves: 1, cancels: 1, lags: 1, power_cuts: 1, ..none }).held_by_first(2),
        ),
        (
            "two replicas, and the store is put back to a state in which they were in sync",
            Part,
            two(1, Budget { appends: 1, crashes: 1, put_backs: 1, ..none }),
        ),
        (
            "one replica moves to another broker, and the store is put back to a state of before",
            Part,
            two(1, Budget { appends: 1, moves: 1, put_backs: 1, ..none }).held_by_first(1),
        ),
        (
            "one replica with an archive, whose bucket is slow and away",
            Whole,
            two(1, Budget { appends: 1, drops: 1, lost_replies: 1, bucket_outages: 1, ..none })
                .held_by_first(1)
                .archived(),
        ),
        (
            "two replicas with an archive, and a crash",
            Part,
            two(1, Budget { appends: 1, drops: 2, crashes: 1, ..none }).archived(),
        ),
        (
            "two replicas with an archive, of which one is taken for dead and archives late",
            Part,
            two(1, Budget { appends: 2, drops: 1, false_alarms: 1, lost_replies: 1, ..none }).archived(),
        ),
        (
            "two replicas with an archive, of which one loses its disk",
            Part,
            two(1, Budget { appends: 1, drops: 1, swaps: 1, ..none }).archived(),
        ),
        (
            "two replicas with an archive, of which one leads without all records",
            Part,
            two(1, Budget { appends: 2, lags: 1, crashes: 1, partings: 1, drops: 1, ..none }).archived().unclean(),
        ),
        (
            "two replicas whose records are deleted, and a crash",
            Part,
            two(1, Budget { appends: 2, deletes: 1, crashes: 1, drops: 1, ..none }),
        ),
        (
            "two replicas whose records are deleted, of which one is taken for dead",
            Whole,
            two(1, Budget { appends: 1, deletes: 1, false_alarms: 1, ..none }),
        ),
        (
            "one replica with an archive whose records are deleted, and a crash",
            Part,
            two(1, Budget { appends: 2, deletes: 1, drops: 1, crashes: 1, ..none }).held_by_first(1).archived(),
        ),
        (
            "two replicas with an archive whose records are deleted, and a crash",
            Part,
            two(1, Budget { appends: 1, deletes: 1, drops: 1, crashes: 1, ..none }).archived(),
        ),
        (
            "one replica with an archive that retains one record, and is swept",
            Part,
            two(1, Budget { appends: 3, drops: 1, crashes: 1, sweeps: 1, lost_replies: 1, ..none })
                .held_by_first(1)
                .archived()
                .retaining(1),
        ),
        (
            "two replicas with an archive that retains one record, of which one is taken for dead",
            Part,
            two(1, Budget { appends: 3, false_alarms: 1, sweeps: 1, ..none }).archived().retaining(1),
        ),
        (
            "two replicas that retain one record, and a crash",
            Part,
            two(1, Budget { appends: 3, crashes: 1, drops: 1, ..none }).retaining(1),
        ),
        (
            "one replica with an archive that two compactors rewrite",
            Part,
            two(1, Budget { appends: 3, compactions: 3, sweeps: 1, lost_replies: 1, ..none })
                .held_by_first(1)
                .archived()
                .with_compactors(2),
        ),
        (
            "one replica with an archive that two compactors compact by key",
            Part,
            two(1, Budget { appends: 3, compactions: 3, compactor_ends: 1, ..none })
                .held_by_first(1)
                .archived()
                .compacted()
                .with_compactors(2),
        ),
        ("three replicas, of which one loses records", Part, three(2, Budget { appends: 1, power_cuts: 1, ..none })),
    ]
}

/// States looked at in a world that is not walked to its end. `VARVE_MODEL_STATES` raises it.
fn limit(default: usize) -> usize {
    std::env::var("VARVE_MODEL_STATES").ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

#[test]
fn no_state_of_a_small_world_breaks_a_promise() {
    for (name, extent, world) in worlds(None) {
        let found = search(world, limit(if extent == Whole { 1_000_000 } else { 40_000 }));
        println!("{name}: {} states, {}", found.states, if found.exhausted { "all there are" } else { "and more" });
        assert!(found.violation.is_none(), "{name}: {:?}", found.violation);
        assert!(found.exhausted || extent == Part, "{name} is not small any more");
    }
}

#[test]
fn what_chance_brings_about_too_seldom_breaks_no_promise_either() {
    for scene in &Scene::ALL {
        assert_eq!(scene.play(None), Ok(()), "{}", scene.name);
    }
}

/// The rules broken one by one: a check that would not notice is no check.
#[test]
fn every_rule_that_is_broken_on_purpose_is_noticed() {
    for broken in Break::ALL {
        let by_chance = || simulation::noticed(broken, 4000).map(|(seed, what)| format!("seed {seed}: {what:?}"));
        let within = |states| {
            worlds(Some(broken)).into_iter().find_map(|(name, _, world)| {
                let found = search(world, limit(states));
                found.violation.map(|violation| format!("{name}: {violation:?}"))
            })
        };
        // Most are near, in some world.
        let by_search = || within(40_000).or_else(|| within(600_000));
        let scene = Scene::ALL.iter().find(|scene| scene.broken == broken);
        let in_scene =
            || scene.and_then(|scene| Some(format!("{}: {:?}", scene.name, scene.play(Some(broken)).err()?)));
        let noticed = in_scene().or_else(by_chance).or_else(by_search);
        println!("{broken:?}: {noticed:?}");
        assert!(noticed.is_some(), "nobody noticed {broken:?}");
    }
}
