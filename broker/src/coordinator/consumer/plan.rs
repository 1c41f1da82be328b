//! What a request comes to: records to append, and what follows once they are in the log.

use std::time::Duration;

use super::{migration::Downgraded, regex::RegexJob};
use crate::coordinator::{
    Answer, CommitAnswer, Effect, GroupError, GroupOrder, JoinAnswer, LeaveAnswer, RequestId, Shard, SyncAnswer,
    records::CoordinatorRecord,
    shard::{Completion, Step},
    timers::{TimerAction, TimerKey},
};

/// Pause before a timer's change that the log refused is asked for again.
const RETRY: Duration = Duration::from_millis(500);

/// A change that is ready to be made.
#[derive(Debug)]
pub(in crate::coordinator) struct Plan {
    pub(super) records: Vec<CoordinatorRecord>,
    pub(super) outcome: Outcome,
}

/// What happens once the records of a plan are acknowledged.
#[derive(Debug)]
pub(in crate::coordinator) struct Outcome {
    pub(in crate::coordinator) group: String,
    pub(super) timers: Vec<TimerChange>,
    /// The version of the cluster with which the group's topics were compared.
    pub(super) looked_at: Option<i64>,
    pub(super) resolve: Option<RegexJob>,
    /// The classic group that takes the place of this one.
    pub(super) downgraded: Option<Box<Downgraded>>,
    pub(super) answer: Option<(RequestId, Answer)>,
    /// The timer that asked for this, to be set again should the log refuse it: nobody else would ask.
    pub(super) retry: Option<(TimerKey, TimerAction)>,
}

/// A timer that is set or cancelled once a plan's records are acknowledged.
#[derive(Debug)]
pub(in crate::coordinator) enum TimerChange {
    Set(TimerKey, Duration, TimerAction),
    Cancel(TimerKey),
}

impl Outcome {
    pub(super) fn of(group: &str) -> Outcome {
        Outcome {
            group: group.to_owned(),
            timers: Vec::new(),
            looked_at: None,
            resolve: None,
            downgraded: None,
            answer: None,
            retry: None,
        }
    }
}

impl Shard {
    pub(super) fn carry_out(&mut self, plan: Plan, step: &mut Step<'_>) {
        if plan.records.is_empty() {
            self.settle_consumer(plan.outcome, Ok(()), step);
        } else {
            self.append(plan.records, Completion::Consumer(Box::new(plan.outcome)), step);
        }
    }

    /// The records of a plan are in the log and have changed the group, or they never will be.
    pub(in crate::coordinator) fn settle_consumer(
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
        for change in outcome.timers {
            self.change_timer(change, step);
        }
        if let Some(downgraded) = outcome.downgraded {
            self.install_classic(*downgraded, step);
        } else if let Some(group) = self.consumers.get_mut(&outcome.group) {
            // Topics that changed since were shown to the group as it was before.
            if let Some(version) = outcome.looked_at {
                group.must_look_at_topics = version != self.cluster.version();
            }
            if let Some(job) = outcome.resolve {
                group.resolves_regexes = true;
                step.effects.push(Effect::Order(GroupOrder::Resolve(job)));
            }
        }
        if let Some((request, answer)) = outcome.answer {
            step.answer(request, answer);
        }
    }

    pub(in crate::coordinator) fn change_timer(&mut self, change: TimerChange, step: &Step<'_>) {
        match change {
            TimerChange::Set(key, after, action) => {
                self.timers.set(key, step.now.elapsed + after, action);
            }
            TimerChange::Cancel(key) => self.timers.cancel(&key),
        }
    }
}

/// The same kind of answer, with an error in place of what would have been.
fn refused(answer: Answer, error: GroupError) -> Answer {
    match answer {
        Answer::Heartbeat(_) => Answer::Heartbeat(Err(error.into())),
        Answer::StreamsHeartbeat(_) => Answer::StreamsHeartbeat(Err(error.into())),
        Answer::Join(_) => Answer::Join(JoinAnswer { member_id: String::new(), outcome: Err(error) }),
        Answer::Sync(_) => Answer::Sync(SyncAnswer(Err(error))),
        Answer::Leave(_) => Answer::Leave(LeaveAnswer(Err(error))),
        Answer::Commit(_) => Answer::Commit(CommitAnswer(Err(error))),
        Answer::DeleteOffsets(_) => Answer::DeleteOffsets(CommitAnswer(Err(error))),
        Answer::DeleteGroup(_) => Answer::DeleteGroup(Err(error)),
        Answer::Settled => Answer::Settled,
        Answer::TransactionEnded(_) => Answer::TransactionEnded(Err(error)),
        // Never in a plan of a consumer group.
        Answer::ShareHeartbeat(_) | Answer::BeginShares(_) | Answer::EndShares(_) | Answer::SharesSettled(_) => answer,
    }
}
