//! Records go out to a member.

use std::{sync::Arc, time::Duration};

use varve_metadata::model::Offset;

use super::{
    Lock, SharePartition, before,
    runs::{Run, State},
};

/// What a member may be given.
#[derive(Clone, Debug)]
pub struct Want {
    /// Who asks.
    pub member: Arc<str>,
    /// How many records. Whole batches are given, so it may be more, unless `is_strict`.
    pub max_records: u64,
    /// Records that shall be acknowledged together, at least.
    pub batch_size: u64,
    /// Not one record more (KIP-1206).
    pub is_strict: bool,
}

/// Where to read for the group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NextFetch {
    /// The first record that is worth reading.
    pub from: Offset,
}

/// What was read from the log.
#[derive(Clone, Debug)]
pub struct Fetched {
    /// Where reading began.
    pub from: Offset,
    /// First and last offset of each batch, in their order.
    pub batches: Vec<(Offset, Offset)>,
    /// Batches that are not to be seen: of aborted transactions, where only committed records are read.
    pub hidden: Vec<(Offset, Offset)>,
}

/// Records that are the member's now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Acquired {
    /// The first.
    pub first: Offset,
    /// The last.
    pub last: Offset,
    /// How often they were delivered, this time included.
    pub deliveries: u16,
}

/// Below that many deliveries records are not set apart (Kafka's constant).
const LEAST_THROTTLED: u16 = 2;

impl SharePartition {
    /// Where to read next; `None` while as many records are in flight as may be.
    pub fn next_fetch(&self) -> Option<NextFetch> {
        let available = self.runs.iter().find(|(_, _, run)| run.state == State::Available);
        match available {
            Some((from, _, _)) => Some(NextFetch { from }),
            None if self.room() > 0 => Some(NextFetch { from: self.end() }),
            None => None,
        }
    }

    fn room(&self) -> u64 {
        self.terms.max_in_flight.saturating_sub(self.end().since(self.start()))
    }

    /// Gives the member what it wants of what was read. Nothing of it is kept: a restart makes it available again.
    pub fn acquire(&mut self, now: Duration, want: &Want, fetched: &Fetched) -> Vec<Acquired> {
        let (Some((base, _)), Some((_, last))) = (fetched.batches.first(), fetched.batches.last()) else {
            return Vec::new();
        };
        if *last < self.start() {
            return Vec::new();
        }
        let archive = |run: &mut Run| {
            if run.state == State::Available {
                run.state = State::Archived;
            }
        };
        // The log does not have them any more (compaction), or nobody may see them.
        self.runs.change(fetched.from, *base, archive);
        for (first, last) in &fetched.hidden {
            self.runs.change(*first, last.plus(1), archive);
        }
        let lock = Lock { member: want.member.clone(), until: now + self.terms.lock_duration };
        let mut acquired = Vec::new();
        let is_full = self.acquire_again(want, (*base, last.plus(1)), &lock, &mut acquired);
        if !is_full {
            self.acquire_new(want, fetched, &lock, &mut acquired);
        }
        self.runs.drop_settled();
        if !acquired.is_empty() {
            self.note_lock(lock.until);
        }
        acquired
    }

    /// Gives out what others gave back. True if the member shall have no more.
    fn acquire_again(
        &mut self,
        want: &Want,
        (base, end): (Offset, Offset),
        lock: &Lock,
        acquired: &mut Vec<Acquired>,
    ) -> bool {
        let found =
            self.runs.iter().filter(|(first, to, run)| run.state == State::Available && *first < end && *to > base);
        let found: Vec<(Offset, Offset, u16)> = found.map(|(first, to, run)| (first, to, run.deliveries)).collect();
        let mut count = 0;
        for (first, to, deliveries) in found {
            let (first, to) = (first.max(base), to.min(end));
            let mut length = to.since(first);
            let apart = self.set_apart(length, deliveries);
            match apart {
                // What failed often goes alone, so that one bad record does not drag others along.
                Some(_) if count > 0 => return true,
                Some(part) => length = part,
                None => {}
            }
            if want.is_strict || apart.is_some() {
                length = length.min(want.max_records - count);
            }
            let to = first.plus(length);
            self.runs.change(first, to, |run| {
                run.state = State::Acquired(lock.clone());
                run.deliveries += 1;
            });
            acquired.push(Acquired { first, last: before(to), deliveries: deliveries + 1 });
            count += length;
            if count >= want.max_records || apart.is_some() {
                return true;
            }
        }
        false
    }

    /// How many of `length` records that were delivered so often go out at one time, if not all of them: fewer with each
    /// delivery, and one alone before it is given up.
    fn set_apart(&self, length: u64, deliveries: u16) -> Option<u64> {
        let max = self.terms.max_deliveries;
        if max > LEAST_THROTTLED && deliveries + 1 >= max {
            return Some(1);
        }
        (deliveries >= max.div_ceil(2).max(LEAST_THROTTLED)).then(|| (length / 2).max(1))
    }

    /// Gives out what nobody had before.
    fn acquire_new(&mut self, want: &Want, fetched: &Fetched, lock: &Lock, acquired: &mut Vec<Acquired>) {
        let count: u64 = acquired.iter().map(|acquired| acquired.last.since(acquired.first) + 1).sum();
        let mut left = want.max_records.saturating_sub(count).min(self.room());
        let mut open: Option<Offset> = None;
        for (base, last) in &fetched.batches {
            let (first, end) = ((*base).max(self.end()), last.plus(1));
            if first >= end {
                continue;
            }
            if left == 0 {
                break;
            }
            let is_hidden = fetched.hidden.iter().any(|(from, to)| from <= base && last <= to);
            if is_hidden || first > self.end() {
                self.close(&mut open, lock, acquired);
            }
            // What the log skips is nobody's.
            if first > self.end() {
                self.runs.push(first, Run { state: State::Archived, deliveries: 0 });
            }
            if is_hidden {
                self.runs.push(end, Run { state: State::Archived, deliveries: 0 });
                continue;
            }
            let end = if want.is_strict { end.min(first.plus(left)) } else { end };
            left = left.saturating_sub(end.since(first));
            let begins = *open.get_or_insert(first);
            self.runs.push(end, Run { state: State::Available, deliveries: 0 });
            if end.since(begins) >= want.batch_size {
                self.close(&mut open, lock, acquired);
            }
        }
        self.close(&mut open, lock, acquired);
    }

    /// Makes one run of what came since `open`, and gives it out.
    fn close(&mut self, open: &mut Option<Offset>, lock: &Lock, acquired: &mut Vec<Acquired>) {
        let Some(first) = open.take() else { return };
        let end = self.end();
        self.runs.replace_tail(first, Run { state: State::Acquired(lock.clone()), deliveries: 1 });
        acquired.push(Acquired { first, last: before(end), deliveries: 1 });
    }
}
