//! Large worlds, in which chance decides what happens: the same seed, the same course.
//!
//! Networks are cut between two brokers, in one direction or both, and heal; the store is away; brokers crash, lose what was not on disk, go
//! on without their log or with another disk, find the store put back to an older state, step aside, and are taken for
//! dead; messages are late, doubled or gone; clocks jump; the bucket is away, too, and what was put to it arrives late; clients delete
//! records, and retention lets them go; compactors are slow and end; the partition is sent to other brokers, and back. In the end everything heals, and the cluster has to become whole, with the partition where
//! it was sent.

use std::{
    collections::BTreeSet,
    hash::{BuildHasher, BuildHasherDefault, DefaultHasher},
    time::Duration,
};

use varve_metadata::model::BrokerId;
use varve_simulation::seeds;

use crate::world::{Action, Break, Budget, LAG, Violation, World};

/// Chance from a seed (SplitMix64).
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// One of `count`.
    fn of(&mut self, count: usize) -> usize {
        (self.next() % count.max(1) as u64) as usize
    }

    /// True once in `times`.
    fn once_in(&mut self, times: usize) -> bool {
        self.of(times) == 0
    }
}

/// Things done in one run, before everything heals.
const STEPS: usize = 400;
/// One of so many targets of a move is looked at, in each step.
const TARGETS: usize = 16;

/// How likely an action is, against the others that are possible.
fn weight(action: Action) -> usize {
    match action {
        Action::Store(_) | Action::Unfence(_) | Action::Enter(_) => 12,
        Action::Fetch(_) | Action::Show(_) | Action::Tend(_) => 8,
        Action::TellOffline(_) | Action::TellOnline(_) | Action::TellFound(_) => 4,
        Action::Append(_) | Action::Review(_) | Action::Restart(_) => 6,
        // Late enough for leaders to change meanwhile.
        Action::Deliver(_) => 5,
        Action::Fence(_) => 3,
        Action::Duplicate(_) | Action::LoseAnswer(_) | Action::Drop(_) | Action::Lag => 1,
        Action::SendNothing(_) | Action::Aside(_) | Action::Cancel => 1,
        Action::Prefer | Action::Arrive(_) | Action::Return(_) => 2,
        // Many of them can be at a time.
        Action::Reassign(_) => 2,
        Action::LowerMinimum => 1,
        Action::Crash(_) | Action::PowerCut(..) | Action::FailDirectory(..) => 1,
        Action::TakeDisk(_) | Action::ReturnDisk(..) => 1,
        Action::BackUp | Action::PutBack => 1,
        Action::TellLog(_) => 6,
        Action::Archive(_) | Action::Bucket(_) => 8,
        Action::KeepStart(_) | Action::Expire(_) => 4,
        Action::List | Action::Sweep => 2,
        // Late enough for others to publish meanwhile.
        Action::Compact(_) => 4,
        Action::EndCompactor(_) => 1,
        Action::DeleteRecords(..) => 1,
        Action::DropLocal(_) => 4,
        // Late enough for leaders to change meanwhile.
        Action::BucketLate(_) | Action::Part | Action::ConfirmPart => 2,
        Action::Learn(_) | Action::GiveUp(_) | Action::LoseReply(_) | Action::WriteNothing(_) => 1,
    }
}

fn budget(chance: &mut Chance, power_cuts: u8, lowered: u8) -> Budget {
    let all = Budget {
        lowered,
        appends: 20,
        crashes: chance.of(5) as u8,
        power_cuts,
        failures: if power_cuts > 0 { 0 } else { chance.of(3) as u8 },
        // However many are lost: where the last one is, nobody leads.
        swaps: if power_cuts > 0 { 0 } else { chance.of(5) as u8 },
        false_alarms: chance.of(6) as u8,
        lags: chance.of(4) as u8,
        lost_answers: chance.of(4) as u8,
        outages: chance.of(4) as u8,
        moves: chance.of(5) as u8,
        cancels: chance.of(3) as u8,
        asides: chance.of(3) as u8,
        refetches: 20,
        duplicates: 10,
        preferred: chance.of(10) as u8,
        put_backs: 0,
        drops: chance.of(15) as u8,
        lost_replies: chance.of(6) as u8,
        bucket_outages: chance.of(4) as u8,
        partings: 0,
        deletes: chance.of(6) as u8,
        sweeps: chance.of(6) as u8,
        compactions: chance.of(10) as u8,
        compactor_ends: chance.of(3) as u8,
    };
    match chance.of(3) {
        0 => {
            let put_backs = 1 + chance.of(2) as u8;
            Budget { put_backs, swaps: 0, ..all }
        }
        _ => all,
    }
}

/// One run. Returns a number that tells its course.
fn run(seed: u64, broken: Option<Break>) -> Result<u64, Violation> {
    let mut chance = Chance(seed);
    let brokers = 2 + chance.of(4) as u32;
    // As many machines may lose records as acks=all promises to survive: all but one of those that have to have them.
    let min_in_sync = 1 + chance.of(brokers.min(3) as usize);
    let power_cuts = chance.of(min_in_sync) as u8;
    // Lowered, the minimum promises to survive one loss less.
    let lowered = u8::from(usize::from(power_cuts) + 1 < min_in_sync);
    let mut budget = budget(&mut chance, power_cuts, lowered);
    let is_unclean = chance.once_in(6);
    if is_unclean {
        let (power_cuts, partings) = (1 + chance.of(3) as u8, chance.of(3) as u8);
        budget = Budget { power_cuts, failures: 0, swaps: 0, moves: 0, put_backs: 0, partings, ..budget };
    }
    // A single replica leads with whatever disk it has.
    let fewest = min_in_sync.max(if budget.swaps > 0 { 2 } else { 1 });
    let replicas = fewest + chance.of(brokers as usize - fewest + 1);
    let mut world = World::new(brokers, min_in_sync, budget, broken).held_by_first(replicas);
    if is_unclean {
        world = world.archived().unclean();
    } else if !chance.once_in(3) {
        world = world.archived();
    }
    if !is_unclean && chance.once_in(3) {
        world = world.retaining(1 + chance.of(5) as u64);
    }
    world = world.with_compactors(chance.of(3));
    if !is_unclean && chance.once_in(3) {
        world = world.compacted();
    }
    let (mut is_away, mut is_bucket_away) = (false, false);
    let mut cuts: BTreeSet<(BrokerId, BrokerId)> = BTreeSet::new();
    let hasher = BuildHasherDefault::<DefaultHasher>::default();
    let mut course = 0;
    for _ in 0..STEPS {
        vary_weather(&mut chance, &mut world, &mut cuts, brokers);
        is_away = chance.once_in(if is_away { 20 } else { 150 }) != is_away;
        is_bucket_away = chance.once_in(if is_bucket_away { 20 } else { 100 }) != is_bucket_away;
        let mut possible: Vec<Action> = Vec::new();
        for action in world.actions() {
            if matches!(action, Action::Reassign(_)) && !chance.once_in(TARGETS) {
                continue;
            }
            if is_away && world.is_at_the_store(action) {
                if let Action::Store(place) = action {
                    possible.push(Action::SendNothing(place));
                }
                continue;
            }
            if is_bucket_away && world.is_at_the_bucket(action) {
                possible.extend(match action {
                    Action::Bucket(place) => Some(Action::WriteNothing(place)),
                    Action::Archive(id) => Some(Action::GiveUp(id)),
                    Action::Deliver(place) => Some(Action::Drop(place)),
                    _ => None,
                });
                continue;
            }
            match world.route(action) {
                // What is under way over a cut line is lost, sooner or later.
                Some(line) if cuts.contains(&line) => {
                    if let Action::Deliver(place) = action {
                        possible.push(Action::Drop(place));
                    }
                }
                _ => possible.push(action),
            }
        }
        let total: usize = possible.iter().map(|action| weight(*action)).sum();
        let mut drawn = chance.of(total);
        let action = possible.into_iter().find(|action| match drawn.checked_sub(weight(*action)) {
            Some(left) => {
                drawn = left;
                false
            }
            None => true,
        });
        if let Some(action) = action {
            if is_away && matches!(action, Action::SendNothing(_)) {
                // That is no chance of a single attempt.
                world.budget.outages += 1;
            }
            if is_bucket_away && matches!(action, Action::WriteNothing(_) | Action::GiveUp(_)) {
                world.budget.bucket_outages += 1;
            }
            world.act(action);
            world.pass(Duration::from_millis(100));
            course = hasher.hash_one((course, &world));
            world.check()?;
        }
    }
    world.heal()?;
    Ok(hasher.hash_one((course, &world)))
}

fn vary_weather(chance: &mut Chance, world: &mut World, cuts: &mut BTreeSet<(BrokerId, BrokerId)>, brokers: u32) {
    let mut any = || BrokerId(chance.of(brokers as usize) as u32);
    let (one, other) = (any(), any());
    if chance.once_in(40) {
        cuts.insert((one, other));
        if chance.once_in(2) {
            cuts.insert((other, one));
        }
    }
    if chance.once_in(30) {
        cuts.clear();
    }
    if chance.once_in(60) {
        world.jump(one, LAG * chance.of(3) as u32);
    }
}

#[test]
fn nothing_acknowledged_is_lost_whatever_happens_and_the_cluster_becomes_whole_again() {
    for seed in seeds(0..1000) {
        if let Err(Violation(what)) = run(seed, None) {
            panic!("seed {seed}: {what}");
        }
    }
}

#[test]
fn the_same_seed_takes_the_same_course() {
    for seed in 0..20 {
        assert_eq!(run(seed, None), run(seed, None));
    }
}

/// The first of so many seeds that notices `broken`.
pub(crate) fn noticed(broken: Break, seeds: u64) -> Option<(u64, Violation)> {
    (0..seeds).find_map(|seed| Some((seed, run(seed, Some(broken)).err()?)))
}
