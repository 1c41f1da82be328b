//! Random members of one share group on one partition whose state is kept slowly, or not at all, and that is led anew now
//! and then; one seed, one run.
//!
//! Held to: no record is two members' at one time; what was accepted and answered is never delivered again, nor is what was
//! rejected; a record is delivered no more often than allowed; what was not settled by a member is delivered as often as
//! allowed before it is given up; and once the weather clears, every record is settled.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use varve_metadata::model::Offset;
use varve_simulation::seeds;

use super::*;
use crate::coordinator::{RequestId, share_state::combine, storm::Random};

const RECORDS: u64 = 120;
const MEMBERS: usize = 4;
const TERMS: ShareTerms =
    ShareTerms { lock_duration: Duration::from_secs(30), max_deliveries: 4, max_in_flight: 40, allows_renewal: true };

fn offset(number: u64) -> Offset {
    Offset::new(number).unwrap()
}

/// What a member believes to have.
#[derive(Clone, Copy, Debug)]
struct Held {
    member: usize,
    until: Duration,
}

struct World {
    seed: u64,
    random: Random,
    now: Duration,
    share: SharePartition,
    kept: PersistedState,
    /// First and last offset of every batch of the log; between some of them something was compacted away.
    batches: Vec<(Offset, Offset)>,
    end: Offset,
    writes: Vec<(WriteId, StateWrite)>,
    next_request: u64,
    /// What each request says of which records.
    asked: BTreeMap<RequestId, Vec<(u64, Settle)>>,
    held: BTreeMap<u64, Held>,
    deliveries: BTreeMap<u64, u16>,
    settled: BTreeMap<u64, Settle>,
    /// A word about them was on its way when the leader changed, or could not be kept: it may count.
    uncertain: BTreeMap<u64, ()>,
    is_stormy: bool,
}

impl World {
    fn new(seed: u64) -> World {
        let mut random = Random(seed);
        let mut batches = Vec::new();
        let mut at = 0;
        while at < RECORDS {
            if random.one_in(6) {
                at += 1 + random.below(4);
            }
            let last = at + random.below(9);
            batches.push((offset(at), offset(last)));
            at = last + 1;
        }
        let kept = PersistedState::default();
        let share = SharePartition::load(&kept, TERMS).unwrap();
        World {
            seed,
            random,
            now: Duration::ZERO,
            share,
            kept,
            batches,
            end: offset(at),
            writes: Vec::new(),
            next_request: 0,
            asked: BTreeMap::new(),
            held: BTreeMap::new(),
            deliveries: BTreeMap::new(),
            settled: BTreeMap::new(),
            uncertain: BTreeMap::new(),
            is_stormy: true,
        }
    }

    fn perform(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Write { id, state } => self.writes.push((id, state)),
                Effect::Answer { request, outcome } => self.answered(request, outcome),
                Effect::Wake => {}
            }
        }
    }

    fn answered(&mut self, request: RequestId, outcome: Result<(), AcknowledgeError>) {
        let said = self.asked.remove(&request).expect("a request is answered once");
        for (record, word) in said {
            match (outcome, word) {
                (Ok(()), Settle::Renew) => {}
                (Ok(()), Settle::Release) => drop(self.held.remove(&record)),
                (Ok(()), word) => {
                    self.held.remove(&record);
                    self.settled.insert(record, word);
                }
                (Err(_), _) => drop(self.uncertain.insert(record, ())),
            }
        }
    }

    fn step(&mut self) {
        self.now += Duration::from_millis(self.random.below(if self.is_stormy { 6000 } else { 1500 }));
        let mut effects = Vec::new();
        self.share.tick(self.now, &mut effects);
        self.perform(effects);
        let now = self.now;
        self.held.retain(|_, held| held.until > now);
        if self.is_stormy && self.random.one_in(60) {
            self.lead_anew();
        }
        while !self.writes.is_empty() && (!self.is_stormy || self.random.one_in(2)) {
            self.write();
        }
        for member in 0..MEMBERS {
            match self.random.below(4) {
                0 | 1 => self.fetch(member),
                2 => self.say(member),
                _ if self.is_stormy && self.random.one_in(10) => self.leave(member),
                _ => {}
            }
        }
    }

    /// The oldest write reaches whoever keeps the state, or does not, or nobody hears that it did.
    fn write(&mut self) {
        let (id, write) = self.writes.remove(0);
        let (fails, is_lost) = (self.is_stormy && self.random.one_in(8), self.random.one_in(2));
        if !fails || is_lost {
            self.kept.batches = combine(&self.kept.batches, &write.batches, write.start);
            self.kept.start = write.start;
        }
        let outcome = if fails { Err(AcknowledgeError::NotKept) } else { Ok(()) };
        let mut effects = Vec::new();
        self.share.written(self.now, id, outcome, &mut effects);
        self.perform(effects);
    }

    /// Another broker leads: what was on its way is lost, or not.
    fn lead_anew(&mut self) {
        for (_, write) in std::mem::take(&mut self.writes) {
            if self.random.one_in(2) {
                self.kept.batches = combine(&self.kept.batches, &write.batches, write.start);
                self.kept.start = write.start;
            }
        }
        for (record, _) in std::mem::take(&mut self.asked).into_values().flatten() {
            self.uncertain.insert(record, ());
        }
        self.held.clear();
        // How often records were delivered that nobody spoke of is not kept.
        self.deliveries.clear();
        self.share = SharePartition::load(&self.kept, TERMS).unwrap();
    }

    fn fetch(&mut self, member: usize) {
        let Some(NextFetch { from }) = self.share.next_fetch() else { return };
        let found = self.batches.iter().skip_while(|(_, last)| *last < from);
        let batches: Vec<_> = found.take(1 + self.random.below(4) as usize).copied().collect();
        let is_strict = self.random.one_in(3);
        let max_records = 1 + self.random.below(12);
        let want = Want { member: name(member), max_records, batch_size: 1 + self.random.below(8), is_strict };
        let acquired = self.share.acquire(self.now, &want, &Fetched { from, batches, hidden: Vec::new() });
        let count: u64 = acquired.iter().map(|one| one.last.since(one.first) + 1).sum();
        assert!(!is_strict || count <= max_records, "seed {}: {count} of {max_records}", self.seed);
        for one in acquired {
            for record in one.first.get()..=one.last.get() {
                self.check_delivery(record, one.deliveries, member);
            }
        }
    }

    fn check_delivery(&mut self, record: u64, deliveries: u16, member: usize) {
        let seed = self.seed;
        let until = self.now + TERMS.lock_duration;
        let before = self.held.insert(record, Held { member, until });
        assert!(before.is_none(), "seed {seed}: {record} is {before:?}'s");
        assert!(!self.settled.contains_key(&record), "seed {seed}: {record} was settled");
        assert!(deliveries <= TERMS.max_deliveries, "seed {seed}: {record} for the {deliveries}th time");
        let known = self.deliveries.insert(record, deliveries);
        assert!(known.is_none_or(|known| known + 1 == deliveries), "seed {seed}: {record}: {known:?}, {deliveries}");
    }

    /// A member says something about a part of what it has.
    fn say(&mut self, member: usize) {
        let mut own = self.held.iter().filter(|(_, held)| held.member == member).map(|(record, _)| *record);
        let Some(first) = own.next() else { return };
        let mut last = first;
        for record in own.take_while(|_| !self.is_stormy || !self.next_request.is_multiple_of(5)) {
            if record != last + 1 {
                break;
            }
            last = record;
        }
        let words: Vec<Settle> = (first..=last).map(|_| self.word()).collect();
        self.next_request += 1;
        let request = RequestId(self.next_request);
        self.asked.insert(request, (first..=last).zip(words.iter().copied()).collect());
        let said = Acknowledgement { first: offset(first), last: offset(last), words: words.clone() };
        let mut effects = Vec::new();
        self.share.acknowledge(self.now, request, &name(member), &[said], &mut effects);
        let is_refused = effects.iter().any(|effect| matches!(effect, Effect::Answer { outcome: Err(_), .. }));
        let until = self.now + TERMS.lock_duration;
        for (record, _) in (first..=last).zip(words).filter(|(_, word)| !is_refused && *word == Settle::Renew) {
            if let Some(held) = self.held.get_mut(&record) {
                held.until = until;
            }
        }
        self.perform(effects);
    }

    fn word(&mut self) -> Settle {
        match self.random.below(12) {
            0 | 1 => Settle::Release,
            2 => Settle::Reject,
            3 if self.is_stormy => Settle::Renew,
            _ => Settle::Accept,
        }
    }

    fn leave(&mut self, member: usize) {
        let mut effects = Vec::new();
        self.share.release(&name(member), &mut effects);
        self.perform(effects);
        self.held.retain(|_, held| held.member != member);
    }

    fn check(&self) {
        let seed = self.seed;
        let mut at = self.share.start();
        for (first, end, _) in self.share.runs.iter() {
            assert!(first == at && end > first, "seed {seed}: {:?}", self.share.runs);
            at = end;
        }
        assert_eq!(at, self.share.end(), "seed {seed}");
        // What is behind the start and was not settled by a member was delivered as often as it may be, or is not there.
        for (first, last) in &self.batches {
            for record in (first.get()..=last.get()).filter(|record| *record < self.share.start().get()) {
                let is_known = self.settled.contains_key(&record) || self.uncertain.contains_key(&record);
                let deliveries = self.deliveries.get(&record).copied().unwrap_or(TERMS.max_deliveries);
                assert!(is_known || deliveries >= TERMS.max_deliveries, "seed {seed}: {record} is lost");
            }
        }
    }
}

fn name(member: usize) -> Arc<str> {
    format!("member-{member}").into()
}

fn run(seed: u64) -> (usize, Offset) {
    let mut world = World::new(seed);
    for _ in 0..300 {
        world.step();
        world.check();
    }
    world.is_stormy = false;
    let is_done = (0..3000).any(|_| {
        world.step();
        world.check();
        world.share.start() == world.end
    });
    assert!(is_done, "seed {seed}: every record is settled in the end: {:?}", world.share);
    (world.settled.len(), world.share.start())
}

#[test]
fn every_record_is_one_members_at_a_time_and_settled_in_the_end() {
    let mut settled = 0;
    for seed in seeds(0..300) {
        settled += run(seed).0;
    }
    assert!(settled > 10_000, "{settled}: the storm leaves no room for work");
}

#[test]
fn the_same_seed_gives_the_same_run() {
    assert_eq!(run(4242), run(4242));
}
