//! Records in flight, in runs of equal state.

use std::collections::BTreeMap;

use varve_metadata::model::Offset;

use super::{Lock, WriteId};
use crate::coordinator::share_state::DeliveryState;

/// What records are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// For whoever asks next.
    Available,
    /// One member's.
    Acquired(Lock),
    /// On the way to `to`, which is being written; `held` by whoever had it, for as long as that lock would last.
    Settling { write: WriteId, to: DeliveryState, held: Option<Lock> },
    /// Done with.
    Acknowledged,
    /// Given up.
    Archived,
}

impl State {
    pub(super) fn of(kept: DeliveryState) -> State {
        match kept {
            DeliveryState::Available => State::Available,
            DeliveryState::Acknowledged => State::Acknowledged,
            DeliveryState::Archived => State::Archived,
        }
    }

    /// Whether nobody gets the record any more, once what is on its way is kept.
    pub(super) fn is_settled(&self) -> bool {
        match self {
            State::Acknowledged | State::Archived => true,
            State::Settling { to, .. } => *to != DeliveryState::Available,
            State::Available | State::Acquired(_) => false,
        }
    }
}

/// Records that lie together and are the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) state: State,
    /// How often they were delivered.
    pub(super) deliveries: u16,
}

/// Runs from `start` to `end`, without holes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Runs {
    /// By first offset; each ends where the next begins.
    runs: BTreeMap<Offset, Run>,
    start: Offset,
    end: Offset,
}

impl Runs {
    pub(super) fn starting_at(start: Offset) -> Runs {
        Runs { runs: BTreeMap::new(), start, end: start }
    }

    pub(super) fn start(&self) -> Offset {
        self.start
    }

    pub(super) fn end(&self) -> Offset {
        self.end
    }

    /// First offset, offset behind the last, and the run, in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (Offset, Offset, &Run)> {
        let ends = self.runs.keys().skip(1).copied().chain([self.end]);
        self.runs.iter().zip(ends).map(|((first, run), end)| (*first, end, run))
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (Offset, Offset, &mut Run)> {
        let ends: Vec<Offset> = self.runs.keys().skip(1).copied().chain([self.end]).collect();
        self.runs.iter_mut().zip(ends).map(|((first, run), end)| (*first, end, run))
    }

    pub(super) fn change_each(&mut self, change: impl FnMut(&mut Run)) {
        self.runs.values_mut().for_each(change);
    }

    /// The run of the record at `offset`, with its first offset and the one behind its last.
    pub(super) fn at(&self, offset: Offset) -> Option<(Offset, Offset, &Run)> {
        if offset >= self.end {
            return None;
        }
        let (first, run) = self.runs.range(..=offset).next_back()?;
        let end = self.runs.range(offset.plus(1)..).next().map_or(self.end, |(next, _)| *next);
        Some((*first, end, run))
    }

    /// Adds a run behind the last, up to `end`.
    pub(super) fn push(&mut self, end: Offset, run: Run) {
        debug_assert!(end > self.end, "a run has records");
        self.runs.insert(self.end, run);
        self.end = end;
    }

    /// Puts one run in the place of all from `first` on.
    pub(super) fn replace_tail(&mut self, first: Offset, run: Run) {
        self.split(first);
        drop(self.runs.split_off(&first));
        self.runs.insert(first, run);
    }

    /// Has a run begin at `offset`, if it lies in one.
    fn split(&mut self, offset: Offset) {
        if let Some((first, _, run)) = self.at(offset)
            && first < offset
        {
            let rest = run.clone();
            self.runs.insert(offset, rest);
        }
    }

    /// Puts `change` upon the records from `first` up to `end`; nothing outside of what is in flight.
    pub(super) fn change(&mut self, first: Offset, end: Offset, change: impl FnMut(&mut Run)) {
        let (first, end) = (first.max(self.start), end.min(self.end));
        if first < end {
            self.split(first);
            self.split(end);
            self.runs.range_mut(first..end).map(|(_, run)| run).for_each(change);
        }
    }

    /// Takes what is done with off the front, and joins what is done with further behind.
    pub(super) fn drop_settled(&mut self) {
        let is_done = |run: &Run| matches!(run.state, State::Acknowledged | State::Archived);
        while let Some(front) = self.runs.first_entry().filter(|front| is_done(front.get())) {
            front.remove();
            self.start = self.runs.keys().next().copied().unwrap_or(self.end);
        }
        let mut last: Option<Run> = None;
        self.runs.retain(|_, run| {
            let joins = is_done(run) && last.as_ref() == Some(run);
            last = Some(run.clone());
            !joins
        });
    }

    /// Forgets what lies before `start`.
    pub(super) fn drop_before(&mut self, start: Offset) {
        self.split(start);
        self.runs = self.runs.split_off(&start);
        self.start = start;
        self.end = self.end.max(start);
    }
}
