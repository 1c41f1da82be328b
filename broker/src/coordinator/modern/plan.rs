//! What a request comes to: records to append, and what follows once they are in the log.

use std::time::Duration;

use crate::coordinator::{
    Answer, GroupError, RequestId, Shard,
    records::CoordinatorRecord,
    shard::{Completion, Step},
    timers::{TimerAction, TimerKey},
};

/// Pause before a timer's change that the log refused is asked for again.
const RETRY: Duration = Duration::from_millis(500);

/// A change of a group that is ready to be made. `S` is what changes of it that the log does not keep.
#[derive(Debug)]
pub(in crate::coordinator) struct Plan<S> {
    pub(in crate::coordinator) records: Vec<CoordinatorRecord>,
    pub(in crate::coordinator) outcome: Outcome<S>,
}

/// What happens once the records of a plan are acknowledged.
#[derive(Debug)]
pub(in crate::coordinator) struct Outcome<S> {
    pub(in crate::coordinator) group: String,
    pub(in crate::coordinator) timers: Vec<TimerChange>,
    pub(in crate::coordinator) soft: S,
    pub(in crate::coordinator) answer: Option<(RequestId, Answer)>,
    /// The timer that asked for this, to be set again should the log refuse it: nobody else would ask.
    pub(in crate::coordinator) retry: Option<(TimerKey, TimerAction)>,
}

/// A timer that is set or cancelled once a plan's records are acknowledged.
#[derive(Debug)]
pub(in crate::coordinator) enum TimerChange {
    Set(TimerKey, Duration, TimerAction),
    Cancel(TimerKey),
}

impl<S: Default> Outcome<S> {
    pub(in crate::coordinator) fn of(group: &str) -> Outcome<S> {
        Outcome { group: group.to_owned(), timers: Vec::new(), soft: S::default(), answer: None, retry: None }
    }
}

impl Shard {
    /// Appends what a plan has to append, and has it settled as its type of group does.
    pub(in crate::coordinator) fn carry_out<S>(
        &mut self,
        plan: Plan<S>,
        completion: fn(Box<Outcome<S>>) -> Completion,
        step: &mut Step<'_>,
    ) {
        let then = completion(Box::new(plan.outcome));
        if plan.records.is_empty() {
            self.complete(then, Ok(()), step);
        } else {
            self.append(plan.records, then, step);
        }
    }

    /// The records of a plan are in the log and have changed the group, or they never will be. `change` makes the rest of
    /// the change to the group of that name.
    pub(in crate::coordinator) fn settle_plan<S>(
        &mut self,
        outcome: Outcome<S>,
        result: Result<(), GroupError>,
        step: &mut Step<'_>,
        change: impl FnOnce(&mut Shard, &str, S, &mut Step<'_>),
    ) {
        if let Err(error) = result {
            if let Some((request, answer)) = outcome.answer {
                step.answer(request, answer.refused(error));
            }
            if let Some((key, action)) = outcome.retry {
                self.timers.set(key, step.now.elapsed + RETRY, action);
            }
            return;
        }
        for change in outcome.timers {
            match change {
                TimerChange::Set(key, after, action) => self.timers.set(key, step.now.elapsed + after, action),
                TimerChange::Cancel(key) => self.timers.cancel(&key),
            }
        }
        change(self, &outcome.group, outcome.soft, step);
        if let Some((request, answer)) = outcome.answer {
            step.answer(request, answer);
        }
    }
}
