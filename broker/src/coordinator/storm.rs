//! What simulations share: chance, weather, and promises that are to be kept through it.

use std::{collections::BTreeMap, time::Duration};

use super::{
    Answer, AppendFailure, CommitAnswer, CommitRequest, RequestId,
    testing::{Harness, identity},
};

/// SplitMix64: small, and the same everywhere.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    pub(crate) fn one_in(&mut self, odds: u64) -> bool {
        self.below(odds) == 0
    }
}

/// A coordinator of groups whose log is slow and fails while the weather is stormy, and what it promised.
pub(super) struct Storm {
    pub(super) seed: u64,
    pub(super) random: Random,
    pub(super) groups: Harness,
    pub(super) is_stormy: bool,
    /// The newest offset of which a commit was acknowledged, by topic.
    acknowledged: BTreeMap<String, i64>,
    next_offset: i64,
}

/// A commit whose answer is awaited, and its offset.
pub(super) type Commit = (RequestId, i64);

impl Storm {
    pub(super) fn new(seed: u64, groups: Harness) -> Storm {
        let (random, acknowledged) = (Random(seed), BTreeMap::new());
        Storm { seed, random, groups, is_stormy: true, acknowledged, next_offset: 0 }
    }

    /// Lets some time pass, `stormy_ms` or `calm_ms` at most.
    pub(super) fn pass(&mut self, stormy_ms: u64, calm_ms: u64) {
        let pause = self.random.below(if self.is_stormy { stormy_ms } else { calm_ms });
        self.groups.pass(Duration::from_millis(pause));
        self.groups.holds_appends = self.is_stormy && self.random.one_in(2);
    }

    /// Something that only storms bring.
    pub(super) fn strikes(&mut self, odds: u64) -> bool {
        self.is_stormy && self.random.one_in(odds)
    }

    /// The log takes some of what it was asked to, and refuses one in `failures`; all of it once the weather is calm.
    pub(super) fn write(&mut self, failures: u64) {
        while !self.groups.held.is_empty() && (!self.is_stormy || self.random.one_in(2)) {
            let failure = self.strikes(failures).then_some(AppendFailure::Unavailable);
            self.groups.release_one(failure);
        }
    }

    /// The log takes all that it was asked to, and from now on at once.
    pub(super) fn write_all(&mut self) {
        self.groups.holds_appends = false;
        while !self.groups.held.is_empty() {
            self.groups.release_one(None);
        }
    }

    /// Commits the next offset.
    pub(super) fn commit(&mut self, request: impl FnOnce(i64) -> CommitRequest) -> Commit {
        self.next_offset += 1;
        (self.groups.commit(request(self.next_offset)), self.next_offset)
    }

    /// Takes the answer to a commit for `topic`, if there is one and it came.
    pub(super) fn read_commit(&mut self, topic: &str, commit: &mut Option<Commit>) {
        if let Some((request, offset)) = *commit
            && let Some(Answer::Commit(CommitAnswer(outcome))) = self.groups.answers.remove(&request)
        {
            *commit = None;
            if outcome.is_ok() {
                self.acknowledged.insert(topic.to_owned(), offset);
            }
        }
    }

    /// A coordinator that starts anew; what was acknowledged is there.
    pub(super) fn restarted(&self, group: &str) -> Harness {
        let restarted = self.groups.restarted();
        for (topic, acknowledged) in &self.acknowledged {
            let committed = restarted.shard.committed(group).and_then(|topics| topics.get(topic));
            let newest = committed.and_then(|partitions| partitions.values().map(|committed| committed.offset).max());
            assert!(newest >= Some(*acknowledged), "seed {}: {topic} lost {acknowledged}, has {newest:?}", self.seed);
        }
        restarted
    }

    pub(super) fn leave(&mut self, group: &str, member: &str) {
        self.write_all();
        self.groups.leave(group, &[identity(member)]);
    }
}

/// Clients of a coordinator in the weather.
pub(super) trait World {
    fn storm(&mut self) -> &mut Storm;

    fn step(&mut self);

    /// What has to hold at any time.
    fn check(&self);

    /// Everyone works, and has what it shall have.
    fn is_settled(&self) -> bool;

    /// For whoever looks for the fault.
    fn shown(&self) -> String;
}

/// Stormy steps, and then calm ones until everyone works. Returns the length of the log, and what was acknowledged.
pub(super) fn weather(mut world: impl World, stormy: usize, calm: usize) -> (usize, BTreeMap<String, i64>) {
    for step in 0..stormy {
        world.step();
        if step % 20 == 0 {
            world.check();
        }
    }
    world.storm().is_stormy = false;
    let seed = world.storm().seed;
    let settled = (0..calm).any(|_| {
        world.step();
        world.is_settled()
    });
    assert!(settled, "seed {seed}: everyone works in the end: {}", world.shown());
    world.check();
    let storm = world.storm();
    (storm.groups.log.len(), storm.acknowledged.clone())
}
