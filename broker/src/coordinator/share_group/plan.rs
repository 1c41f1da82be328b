//! What a request comes to: records to append, and what follows once they are in the log.

use std::time::Duration;

use super::{ShareGroupError, partitions::BeginShares};
use crate::coordinator::{
    Answer, Effect, GroupError, GroupOrder, RequestId, Shard,
    records::{CoordinatorRecord, ShareGroupRecord},
    shard::{Completion, Step},
    timers::{TimerAction, TimerKey},
};

/// Pause before a timer's change that the log refused is asked for again.
const RETRY: Duration = Duration::from_millis(500);

/// A change that is ready to be made.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) records: Vec<ShareGroupRecord>,
    pub(super) outcome: Outcome,
}

/// What happens once the records of a plan are acknowledged.
#[derive(Debug)]
pub(in crate::coordinator) struct Outcome {
    pub(super) group: String,
    /// A member whose session begins, and how long it is; without a length, one that is over.
    pub(super) session: Option<(TimerKey, Option<Duration>)>,
    /// The version of the cluster with which the group's topics were compared.
    pub(super) looked_at: Option<i64>,
    /// Keepers that are to begin.
    pub(super) begin: Option<BeginShares>,
    pub(super) answer: Option<(RequestId, Answer)>,
    /// The timer that asked for this, to be set again should the log refuse it: nobody else would ask.
    pub(super) retry: Option<(TimerKey, TimerAction)>,
}

impl Outcome {
    pub(super) fn of(group: &str) -> Outcome {
        Outcome { group: group.to_owned(), session: None, looked_at: None, begin: None, answer: None, retry: None }
    }
}

impl Shard {
    pub(super) fn carry_out_share(&mut self, plan: Plan, step: &mut Step<'_>) {
        if plan.records.is_empty() {
            return self.settle_share(plan.outcome, Ok(()), step);
        }
        let records = plan.records.into_iter().map(CoordinatorRecord::Share).collect();
        self.append(records, Completion::Share(Box::new(plan.outcome)), step);
    }

    /// The records of a plan are in the log and have changed the group, or they never will be.
    pub(in crate::coordinator) fn settle_share(
        &mut self,
        outcome: Outcome,
        result: Result<(), GroupError>,
        step: &mut Step<'_>,
    ) {
        if let Err(error) = result {
            if let Some((request, answer)) = outcome.answer {
                step.answer(request, refused(answer, error));
            }
            if let Some((key, action)) = outcome.retry {
                self.timers.set(key, step.now.elapsed + RETRY, action);
            }
            return;
        }
        match outcome.session {
            Some((key, Some(length))) => {
                self.timers.set(key, step.now.elapsed + length, TimerAction::ExpireSession);
            }
            Some((key, None)) => self.timers.cancel(&key),
            None => {}
        }
        if let Some(group) = self.shares.get_mut(&outcome.group) {
            // Topics that changed since were shown to the group as it was before.
            if let Some(version) = outcome.looked_at {
                group.must_look_at_topics = version != self.cluster.version();
            }
            if let Some(begin) = outcome.begin {
                for topic in begin.partitions.keys() {
                    group.begun_at.insert(*topic, step.now.wall);
                }
                step.effects.push(Effect::Order(GroupOrder::BeginShares(begin)));
            }
        }
        if let Some((request, answer)) = outcome.answer {
            step.answer(request, answer);
        }
    }
}

/// The same kind of answer, with an error in place of what would have been.
fn refused(answer: Answer, error: GroupError) -> Answer {
    let error = ShareGroupError::from(error);
    match answer {
        Answer::ShareHeartbeat(_) => Answer::ShareHeartbeat(Err(error)),
        Answer::BeginShares(_) => Answer::BeginShares(Err(error)),
        Answer::EndShares(_) => Answer::EndShares(Err(error)),
        Answer::SharesSettled(_) => Answer::SharesSettled(Err(error)),
        other => other,
    }
}
