//! What a request comes to: records to append, and what follows once they are in the log.

use std::{sync::Arc, time::Duration};

use super::configure::Configured;
use crate::coordinator::{
    Answer, GroupError, RequestId, Shard,
    consumer::TimerChange,
    records::CoordinatorRecord,
    shard::{Completion, Step},
    timers::{TimerAction, TimerKey},
};

/// Pause before a timer's change that the log refused is asked for again.
const RETRY: Duration = Duration::from_millis(500);

/// A change that is ready to be made.
#[derive(Debug)]
pub(super) struct StreamsPlan {
    pub(super) records: Vec<CoordinatorRecord>,
    pub(super) outcome: StreamsOutcome,
}

/// What happens once the records of a plan are acknowledged.
#[derive(Debug)]
pub(in crate::coordinator) struct StreamsOutcome {
    pub(super) group: String,
    pub(super) timers: Vec<TimerChange>,
    pub(super) soft: Option<Soft>,
    pub(super) answer: Option<(RequestId, Answer)>,
    /// The timer that asked for this, to be set again should the log refuse it: nobody else would ask.
    pub(super) retry: Option<(TimerKey, TimerAction)>,
}

/// What changes of a group that the log does not keep.
#[derive(Debug)]
pub(super) struct Soft {
    pub(super) configured: Option<Arc<Configured>>,
    /// The version of the cluster with which the topology was compared.
    pub(super) looked_at: i64,
    pub(super) endpoint_epoch: i32,
    pub(super) shutdown_by: Option<String>,
}

impl StreamsOutcome {
    pub(super) fn of(group: &str) -> StreamsOutcome {
        StreamsOutcome { group: group.to_owned(), timers: Vec::new(), soft: None, answer: None, retry: None }
    }
}

impl Shard {
    pub(super) fn carry_out_streams(&mut self, plan: StreamsPlan, step: &mut Step<'_>) {
        if plan.records.is_empty() {
            self.settle_streams(plan.outcome, Ok(()), step);
        } else {
            self.append(plan.records, Completion::Streams(Box::new(plan.outcome)), step);
        }
    }

    /// The records of a plan are in the log and have changed the group, or they never will be.
    pub(in crate::coordinator) fn settle_streams(
        &mut self,
        outcome: StreamsOutcome,
        result: Result<(), GroupError>,
        step: &mut Step<'_>,
    ) {
        if let Err(error) = result {
            if let Some((request, _)) = outcome.answer {
                step.answer(request, Answer::StreamsHeartbeat(Err(error.into())));
            }
            if let Some((key, action)) = outcome.retry {
                self.timers.set(key, step.now.elapsed + RETRY, action);
            }
            return;
        }
        for change in outcome.timers {
            self.change_timer(change, step);
        }
        if let Some((group, soft)) = self.streams.get_mut(&outcome.group).zip(outcome.soft) {
            // Topics that changed since were shown to the group as it was before.
            group.must_look_at_topics = soft.looked_at != self.cluster.version();
            group.configured = soft.configured;
            group.endpoint_epoch = soft.endpoint_epoch;
            group.shutdown_by = soft.shutdown_by;
        }
        if let Some((request, answer)) = outcome.answer {
            step.answer(request, answer);
        }
    }
}
