//! The log against a list, through appends, rolls, deletions, truncations, clean restarts and crashes at any byte.

use std::fs::OpenOptions;

use proptest::{collection::vec, prelude::*, sample::Index};

use super::*;

#[derive(Clone, Debug)]
enum Step {
    Append { values: Vec<String>, codec: Codec, age_ms: i64 },
    Roll,
    DeleteBelow(Index),
    Truncate(Index),
    Flush,
    Restart,
    Crash { lost: Index },
    Read { from: Index, bound: Index, max_bytes: u32 },
}

fn any_step() -> impl Strategy<Value = Step> {
    let codec = proptest::sample::select(Codec::ALL.to_vec());
    prop_oneof![
        6 => (vec("[a-z]{0,40}", 1..4), codec, 0_i64..5000)
            .prop_map(|(values, codec, age_ms)| Step::Append { values, codec, age_ms }),
        1 => Just(Step::Roll),
        1 => any::<Index>().prop_map(Step::DeleteBelow),
        1 => any::<Index>().prop_map(Step::Truncate),
        1 => Just(Step::Flush),
        1 => Just(Step::Restart),
        1 => any::<Index>().prop_map(|lost| Step::Crash { lost }),
        4 => (any::<Index>(), any::<Index>(), 0_u32..2000)
            .prop_map(|(from, bound, max_bytes)| Step::Read { from, bound, max_bytes }),
    ]
}

#[derive(Clone, Debug, PartialEq)]
struct Batch {
    base: u64,
    timestamp: i64,
    values: Vec<String>,
}

impl Batch {
    fn next(&self) -> u64 {
        self.base + self.values.len() as u64
    }
}

struct Model {
    fixture: Fixture,
    log: LocalLog,
    batches: Vec<Batch>,
    end: u64,
}

impl Model {
    fn step(&mut self, step: Step) {
        match step {
            Step::Append { values, codec, age_ms } => {
                let refs: Vec<&str> = values.iter().map(String::as_str).collect();
                let appended = self.log.append(&compressed(codec, NOW - age_ms, &refs), client()).unwrap();
                assert_eq!(appended.base, at(self.end));
                self.batches.push(Batch { base: self.end, timestamp: NOW - age_ms, values });
                self.end = self.batches.last().unwrap().next();
            }
            Step::Roll => drop(self.log.roll().unwrap()),
            Step::DeleteBelow(index) => {
                let offset = at(index.index(self.end as usize + 1) as u64);
                self.log.delete_local_below(offset).unwrap().purge().unwrap();
                let start = self.log.local_start();
                assert!(start <= offset || self.batches.first().is_none_or(|first| start.get() <= first.base));
                self.batches.retain(|batch| batch.base >= start.get());
            }
            Step::Truncate(index) => {
                let start = self.log.local_start().get();
                let offset = start + index.index((self.end - start) as usize + 1) as u64;
                self.log.truncate_to(at(offset), ms(NOW)).unwrap().purge().unwrap();
                self.batches.retain(|batch| batch.next() <= offset);
                let last = self.batches.last().map_or(start, Batch::next);
                self.end = if offset >= self.end { self.end } else { last.max(start) };
            }
            Step::Flush => self.log.flush(self.log.end().0).unwrap(),
            Step::Restart => {
                self.log.close().unwrap();
                let start = RecoveryStart { clean: true, recovery_point: self.log.end().0, log_start: at(0) };
                self.log = self.fixture.open(start).0;
            }
            Step::Crash { lost } => self.crash(lost),
            Step::Read { from, bound, max_bytes } => self.read(from, bound, max_bytes),
        }
        assert_eq!(self.log.end().0, at(self.end));
        let expected: Vec<(u64, String)> = self
            .batches
            .iter()
            .flat_map(|batch| {
                batch.values.iter().enumerate().map(|(place, value)| (batch.base + place as u64, value.clone()))
            })
            .collect();
        assert_eq!(all(&self.log), expected);
    }

    /// Loses a number of bytes from the end of the last segment, none of which was flushed.
    fn crash(&mut self, lost: Index) {
        let recovery_point = self.log.recovery_point();
        let (base, bytes, _) = self.log.active();
        let flushed = recovery_point.max(base);
        let unflushed = self.batches.iter().filter(|batch| batch.base >= flushed.get()).count() as u64;
        let active = self.batches.iter().filter(|batch| batch.base >= base.get()).count() as u64;
        let lost = if unflushed == 0 { 0 } else { lost.index(bytes as usize + 1) as u64 * unflushed / active.max(1) };
        let file = OpenOptions::new().write(true).open(self.fixture.path().join(format!("{base:020}.log"))).unwrap();
        file.set_len(bytes - lost).unwrap();
        let start = RecoveryStart { clean: false, recovery_point, log_start: at(0) };
        let (log, _) = self.fixture.open(start);
        self.end = log.end().0.get();
        self.batches.retain(|batch| batch.next() <= self.end);
        let kept = self.batches.last().map_or(base.get(), Batch::next);
        assert!(self.end == kept.max(base.get()), "recovery ends with a whole batch");
        self.log = log;
    }

    fn read(&self, from: Index, bound: Index, max_bytes: u32) {
        let start = self.log.local_start().get();
        let pick = |index: Index| start + index.index((self.end - start) as usize + 1) as u64;
        let (from, bound) = (pick(from), pick(bound));
        let slice = self.log.read(at(from), at(bound), max_bytes, true).unwrap();
        let bytes = slice.read().unwrap();
        let got: Vec<u64> = batches(&bytes).map(|batch| batch.unwrap().header().base_offset.get()).collect();
        let mut wanted =
            self.batches.iter().filter(|batch| batch.next() > from && batch.next() <= bound && from < bound);
        assert_eq!(got.first().copied(), wanted.clone().next().map(|batch| batch.base));
        assert!(
            got.iter().all(|base| wanted.next().is_some_and(|batch| batch.base == *base)),
            "in order, without gaps"
        );
        assert!(bytes.len() <= max_bytes as usize || got.len() == 1);
        let timestamp = NOW - i64::from(max_bytes) * 3;
        let found = self.log.offset_for_timestamp(ms(timestamp), at(from)).unwrap();
        let expected = self.batches.iter().find(|batch| batch.next() > from && batch.timestamp >= timestamp);
        assert_eq!(found.map(|found| found.offset.get()), expected.map(|batch| batch.base.max(from)));
        let newest = self.batches.iter().map(|batch| batch.timestamp).max();
        let first = self.batches.iter().find(|batch| Some(batch.timestamp) == newest).map(|batch| batch.base);
        assert_eq!(self.log.max_timestamp_offset().unwrap().map(|found| found.offset.get()), first);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]
    #[test]
    fn the_log_agrees_with_a_list(steps in vec(any_step(), 1..60), interval in 0_u32..400, segment in 300_u32..3000) {
        let fixture = Fixture::new().with(|config| {
            (config.index_interval_bytes, config.segment_bytes) = (interval, segment);
        });
        let log = fixture.new_log();
        let mut model = Model { fixture, log, batches: Vec::new(), end: 0 };
        for step in steps {
            model.step(step);
        }
    }
}
