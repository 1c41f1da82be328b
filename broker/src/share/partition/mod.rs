//! One partition, as one share group has it: which records are out, with whom, how often they were delivered.
//!
//! ```text
//!                        ┌───────────── release, lock ran out ────────────┐
//!                        ▼                                                │
//!   (not fetched) ──► Available ──acquire──► Acquired ──accept──► Acknowledged
//!                        │                      └──reject, gap, delivered too often──► Archived
//!                        └── gone from the log ──────────────────────────────────────► Archived
//! ```
//!
//! ```text
//!   start (SPSO)                          end
//!     │ acquired │ available │ acknowledged │  not fetched yet …
//! ```
//!
//! Records from `start` to `end` are in flight: they lie in runs of equal state without holes between them. What is settled
//! at the front moves `start` on. A member's word counts once it is kept ([`Effect::Write`]): until then the run is on its way
//! to its new state, nobody else gets it, and should the write fail it is what it was before, unless its lock ran out meanwhile.
//! Acquiring is not kept: after a restart what was out is available again, as often delivered as was known.

mod acknowledge;
mod acquire;
mod runs;

#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;

use std::{sync::Arc, time::Duration};

use varve_metadata::model::Offset;

pub use acknowledge::{AcknowledgeError, Acknowledgement, Settle};
pub use acquire::{Acquired, Fetched, NextFetch, Want};
use runs::{Run, Runs, State};

use crate::coordinator::{
    RequestId,
    share_state::{DeliveryState, StateBatch},
};

/// Names a write that a partition asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WriteId(pub u64);

/// The rules of the group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShareTerms {
    /// How long a record is one member's (`share.record.lock.duration.ms`).
    pub lock_duration: Duration,
    /// How often a record is delivered at most (`share.delivery.count.limit`); at least 2.
    pub max_deliveries: u16,
    /// Most records in flight (`share.partition.max.record.locks`).
    pub max_in_flight: u64,
    /// Members may ask for more time (`share.renew.acknowledge.enable`).
    pub allows_renewal: bool,
}

/// What was kept of the partition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PersistedState {
    /// The first record that is not settled.
    pub start: Offset,
    /// What became of records from there on, in their order.
    pub batches: Vec<StateBatch>,
}

/// What was kept contradicts itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the kept state of a share partition is damaged at offset {0}")]
pub struct StateError(pub Offset);

/// What shall be kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateWrite {
    /// The first record that is not settled.
    pub start: Offset,
    /// How many records from there on are settled, those of this write included.
    pub settled: u64,
    /// What became of records, in their order.
    pub batches: Vec<StateBatch>,
}

/// What the server has to do, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Keep it, then report with [`SharePartition::written`].
    Write {
        /// To be named in the report.
        id: WriteId,
        /// What.
        state: StateWrite,
    },
    /// Answer the request.
    Answer {
        /// Which.
        request: RequestId,
        /// What came of it.
        outcome: Result<(), AcknowledgeError>,
    },
    /// There is more to acquire than before: whoever waits for records looks again.
    Wake,
}

/// A partition of a share group.
#[derive(Clone, Debug)]
pub struct SharePartition {
    terms: ShareTerms,
    runs: Runs,
    next_write: u64,
    /// Requests that wait for writes.
    waiting: Vec<(WriteId, RequestId)>,
    /// No lock ends before.
    earliest_lock: Option<Duration>,
}

impl SharePartition {
    /// The partition as it was kept. Holes in what was kept were out with somebody.
    ///
    /// # Errors
    /// [`StateError`] if that contradicts itself: the partition must then not be served.
    pub fn load(kept: &PersistedState, terms: ShareTerms) -> Result<SharePartition, StateError> {
        let mut runs = Runs::starting_at(kept.start);
        for batch in &kept.batches {
            if batch.first < runs.end() || batch.last < batch.first {
                return Err(StateError(batch.first));
            }
            if batch.first > runs.end() {
                runs.push(batch.first, Run { state: State::Available, deliveries: 0 });
            }
            let state = match batch.state {
                DeliveryState::Available => State::Available,
                DeliveryState::Acknowledged => State::Acknowledged,
                DeliveryState::Archived => State::Archived,
            };
            runs.push(batch.last.plus(1), Run { state, deliveries: batch.deliveries });
        }
        runs.drop_settled();
        Ok(SharePartition { terms, runs, next_write: 0, waiting: Vec::new(), earliest_lock: None })
    }

    /// The group has other rules from now on. Locks that were given stay as long as they are.
    pub fn set_terms(&mut self, terms: ShareTerms) {
        self.terms = terms;
    }

    /// The first record that is not settled (share-partition start offset).
    pub fn start(&self) -> Offset {
        self.runs.start()
    }

    /// Behind the last record that was fetched for the group.
    pub fn end(&self) -> Offset {
        self.runs.end()
    }

    /// Records from `start` on that are settled, or about to be.
    pub fn settled(&self) -> u64 {
        self.runs.iter().filter(|(_, _, run)| run.state.is_settled()).map(|(first, end, _)| end.since(first)).sum()
    }

    /// The log begins at `start` now: what is gone is nobody's any more.
    pub fn log_start_moved(&mut self, start: Offset, effects: &mut Vec<Effect>) {
        if start > self.runs.start() {
            self.runs.drop_before(start);
            self.runs.drop_settled();
            effects.push(Effect::Wake);
        }
    }

    /// A write was performed, or never will be.
    pub fn written(
        &mut self,
        now: Duration,
        id: WriteId,
        outcome: Result<(), AcknowledgeError>,
        effects: &mut Vec<Effect>,
    ) {
        let max = self.terms.max_deliveries;
        let mut earliest = self.earliest_lock;
        self.runs.change_each(|run| {
            let State::Settling { write, to, held } = &run.state else { return };
            if *write != id {
                return;
            }
            run.state = match (outcome, held) {
                (Ok(()), _) => State::of(*to),
                (Err(_), Some(lock)) if lock.until > now => {
                    earliest = Some(earliest.map_or(lock.until, |earliest| earliest.min(lock.until)));
                    State::Acquired(lock.clone())
                }
                (Err(_), _) => released(run.deliveries, max),
            };
        });
        self.earliest_lock = earliest;
        self.runs.drop_settled();
        effects.push(Effect::Wake);
        let outcome_of = |(_, request): (WriteId, RequestId)| Effect::Answer { request, outcome };
        effects.extend(self.waiting.extract_if(.., |(write, _)| *write == id).map(outcome_of));
    }

    /// Gives what is out for too long to others. What became of it is kept as well as may be; nobody waits for that.
    pub fn tick(&mut self, now: Duration, effects: &mut Vec<Effect>) {
        if self.earliest_lock.is_none_or(|earliest| earliest > now) {
            return;
        }
        let max = self.terms.max_deliveries;
        let mut earliest: Option<Duration> = None;
        let mut changed = Vec::new();
        for (first, end, run) in self.runs.iter_mut() {
            let State::Acquired(lock) = &run.state else { continue };
            if lock.until > now {
                earliest = Some(earliest.map_or(lock.until, |earliest| earliest.min(lock.until)));
                continue;
            }
            run.state = released(run.deliveries, max);
            changed.push(batch_of(first, end, run));
        }
        self.earliest_lock = earliest;
        if !changed.is_empty() {
            self.write(changed, effects);
            self.runs.drop_settled();
            effects.push(Effect::Wake);
        }
    }

    /// When [`tick`](Self::tick) is due; it may find nothing to do.
    pub fn next_deadline(&self) -> Option<Duration> {
        self.earliest_lock
    }

    fn next_write_id(&mut self) -> WriteId {
        self.next_write += 1;
        WriteId(self.next_write)
    }

    fn write(&mut self, batches: Vec<StateBatch>, effects: &mut Vec<Effect>) {
        let id = self.next_write_id();
        self.write_as(id, batches, effects);
    }

    fn write_as(&self, id: WriteId, batches: Vec<StateBatch>, effects: &mut Vec<Effect>) {
        let state = StateWrite { start: self.start(), settled: self.settled(), batches: joined(batches) };
        effects.push(Effect::Write { id, state });
    }

    fn note_lock(&mut self, until: Duration) {
        self.earliest_lock = Some(self.earliest_lock.map_or(until, |earliest| earliest.min(until)));
    }
}

/// What a record is that its holder gave back, or kept for too long.
fn released(deliveries: u16, max_deliveries: u16) -> State {
    if deliveries >= max_deliveries { State::Archived } else { State::Available }
}

/// A run as it is kept. Only for one that is not out.
fn batch_of(first: Offset, end: Offset, run: &Run) -> StateBatch {
    let state = match &run.state {
        State::Settling { to, .. } => *to,
        State::Acknowledged => DeliveryState::Acknowledged,
        State::Archived => DeliveryState::Archived,
        State::Available | State::Acquired(_) => DeliveryState::Available,
    };
    StateBatch { first, last: before(end), state, deliveries: run.deliveries }
}

/// Neighbours of equal state as one.
fn joined(batches: Vec<StateBatch>) -> Vec<StateBatch> {
    let mut joined: Vec<StateBatch> = Vec::with_capacity(batches.len());
    for batch in batches {
        match joined.last_mut() {
            Some(last)
                if last.last.plus(1) == batch.first
                    && (last.state, last.deliveries) == (batch.state, batch.deliveries) =>
            {
                last.last = batch.last;
            }
            _ => joined.push(batch),
        }
    }
    joined
}

/// The last offset before `end`, which is not 0.
fn before(end: Offset) -> Offset {
    Offset::new(end.get().saturating_sub(1)).unwrap_or(Offset::ZERO)
}

/// Who has a record, and how long.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Lock {
    member: Arc<str>,
    until: Duration,
}
