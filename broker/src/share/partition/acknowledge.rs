//! Members say what became of records.

use std::{collections::BTreeMap, time::Duration};

use varve_metadata::model::Offset;

use super::{
    Effect, SharePartition, WriteId, batch_of, released,
    runs::{Run, State},
};
use crate::coordinator::{RequestId, share_state::DeliveryState};

/// What a member says of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settle {
    /// The log has no such record.
    Gap,
    /// Done with.
    Accept,
    /// Somebody else may have it.
    Release,
    /// Nobody shall have it any more.
    Reject,
    /// It takes longer.
    Renew,
}

impl Settle {
    /// `None` for what the protocol does not know.
    pub fn from_wire(raw: i8) -> Option<Settle> {
        match raw {
            0 => Some(Settle::Gap),
            1 => Some(Settle::Accept),
            2 => Some(Settle::Release),
            3 => Some(Settle::Reject),
            4 => Some(Settle::Renew),
            _ => None,
        }
    }
}

/// What a member says of neighbouring records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acknowledgement {
    /// The first.
    pub first: Offset,
    /// The last.
    pub last: Offset,
    /// One word for all, or one for each from the first on.
    pub words: Vec<Settle>,
}

/// Why the word of a member does not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AcknowledgeError {
    /// Records that were never given out, or as many words as fit neither one nor all.
    #[error("the acknowledgement does not fit the records in flight")]
    Invalid,
    /// They are not, or no longer, that member's.
    #[error("the records are not in a state in which the member may acknowledge them")]
    RecordState,
    /// It could not be kept; what was said is forgotten.
    #[error("the state of deliveries cannot be kept now")]
    NotKept,
    /// Another leads the partition, or the group has begun anew.
    #[error("the share partition has been fenced")]
    Fenced,
}

/// Records and what is said of them; `end` lies behind the last.
#[derive(Clone, Copy, Debug)]
struct Part {
    first: Offset,
    end: Offset,
    word: Settle,
}

impl SharePartition {
    /// Takes a member's word: all of it, or with an error none. Answered by [`Effect::Answer`] once it is kept.
    pub fn acknowledge(
        &mut self,
        now: Duration,
        request: RequestId,
        member: &str,
        said: &[Acknowledgement],
        effects: &mut Vec<Effect>,
    ) {
        match self.check(member, said) {
            Err(error) => effects.push(Effect::Answer { request, outcome: Err(error) }),
            Ok(parts) => {
                let id = self.next_write_id();
                self.settle(now, id, &parts);
                self.keep(id, Some(request), effects);
            }
        }
    }

    /// The member is gone: what it has is given to others, as often delivered as it was.
    pub fn release(&mut self, member: &str, effects: &mut Vec<Effect>) {
        let (id, max) = (self.next_write_id(), self.terms.max_deliveries);
        self.runs.change_each(|run| {
            if let State::Acquired(lock) = &run.state
                && *lock.member == *member
            {
                let to = kept(&released(run.deliveries, max));
                // Should it not be kept, then it is given to others all the same.
                run.state = State::Settling { write: id, to, held: None };
            }
        });
        self.keep(id, None, effects);
    }

    /// Writes what settles under `id`, and answers once that is done; at once if nothing does.
    fn keep(&mut self, id: WriteId, request: Option<RequestId>, effects: &mut Vec<Effect>) {
        let is_of = |run: &Run| matches!(&run.state, State::Settling { write, .. } if *write == id);
        let changed = self.runs.iter().filter(|(_, _, run)| is_of(run));
        let changed: Vec<_> = changed.map(|(first, end, run)| batch_of(first, end, run)).collect();
        if changed.is_empty() {
            effects.extend(request.map(|request| Effect::Answer { request, outcome: Ok(()) }));
            return;
        }
        self.waiting.extend(request.map(|request| (id, request)));
        self.write_as(id, changed, effects);
    }

    fn check(&self, member: &str, said: &[Acknowledgement]) -> Result<Vec<Part>, AcknowledgeError> {
        let mut parts = Vec::new();
        // First offset to the one behind the last, of what was said so far.
        let mut covered: BTreeMap<Offset, Offset> = BTreeMap::new();
        for one in said {
            let end = one.last.plus(1);
            let length = end.since(one.first);
            if length == 0 || !(one.words.len() == 1 || one.words.len() as u64 == length) {
                return Err(AcknowledgeError::Invalid);
            }
            // What the log no longer has, or what was settled meanwhile, needs no word.
            if end <= self.start() {
                continue;
            }
            if end > self.end() {
                return Err(AcknowledgeError::Invalid);
            }
            if covered.range(..end).next_back().is_some_and(|(_, before)| *before > one.first) {
                return Err(AcknowledgeError::RecordState);
            }
            covered.insert(one.first, end);
            self.check_holder(member, one.first.max(self.start()), end)?;
            parts.extend(parts_of(one, end).filter(|part| part.end > self.start()));
        }
        let renews = parts.iter().any(|part| part.word == Settle::Renew);
        if renews && !self.terms.allows_renewal { Err(AcknowledgeError::RecordState) } else { Ok(parts) }
    }

    /// Whether the member has all records from `first` up to `end`.
    fn check_holder(&self, member: &str, first: Offset, end: Offset) -> Result<(), AcknowledgeError> {
        let mut at = first;
        while at < end {
            let (_, next, run) = self.runs.at(at).ok_or(AcknowledgeError::Invalid)?;
            match &run.state {
                State::Acquired(lock) if *lock.member == *member => at = next,
                _ => return Err(AcknowledgeError::RecordState),
            }
        }
        Ok(())
    }

    fn settle(&mut self, now: Duration, id: WriteId, parts: &[Part]) {
        let (max, until) = (self.terms.max_deliveries, now + self.terms.lock_duration);
        for part in parts {
            self.runs.change(part.first, part.end, |run| {
                let State::Acquired(lock) = &mut run.state else { return };
                let to = match part.word {
                    Settle::Renew => {
                        lock.until = until;
                        return;
                    }
                    Settle::Accept => DeliveryState::Acknowledged,
                    Settle::Gap | Settle::Reject => DeliveryState::Archived,
                    Settle::Release => kept(&released(run.deliveries, max)),
                };
                run.state = State::Settling { write: id, to, held: Some(lock.clone()) };
            });
        }
    }
}

/// Neighbours with the same word as one part.
fn parts_of(said: &Acknowledgement, end: Offset) -> impl Iterator<Item = Part> {
    let mut first = said.first;
    let is_one = said.words.len() == 1;
    said.words.chunk_by(|one, next| one == next).map(move |words| {
        let behind = if is_one { end } else { first.plus(words.len() as u64) };
        let part = Part { first, end: behind, word: words[0] };
        first = behind;
        part
    })
}

fn kept(state: &State) -> DeliveryState {
    match state {
        State::Archived => DeliveryState::Archived,
        _ => DeliveryState::Available,
    }
}
