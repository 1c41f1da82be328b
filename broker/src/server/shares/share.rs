//! One share partition at work: what its members have, what is on its way to its keeper, its clock, and who waits for it.
//!
//! ```text
//!   Loading ──the keeper answered──► Ready ──fenced, or nobody reads any more──► Gone
//!      └──────────────── it cannot be loaded ─────────────────────────────────────┘
//! ```
//! Writes go to the keeper one at a time, in order; what came meanwhile goes together with the next.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Weak},
    time::{Duration, Instant},
};

use kafka_protocol::error::ResponseError;
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};
use tokio_util::sync::CancellationToken;
use varve_metadata::model::{LeaderEpoch, Offset, Timestamp};

use super::settings::{OffsetReset, ShareRules};
use crate::{
    coordinator::{
        RequestId,
        share_state::{KeptState, ShareKey, ShareStateError, StateChange, StateEpoch, StateRequest, combine},
    },
    partition::{OffsetQuestion, Partition, Waiter, Waiters, Watch},
    server::{Broker, wall_clock},
    share::{
        AcknowledgeError, Acknowledgement, Acquired, Effect, Fetched, PersistedState, SharePartition, ShareTerms,
        StateWrite, Want, WriteId,
    },
};

/// Whether a member's word is kept, once that is known.
pub(super) type Word = oneshot::Receiver<Result<(), AcknowledgeError>>;

/// A share partition that is read here.
pub(super) struct Share {
    pub(super) key: ShareKey,
    pub(super) partition: Arc<Partition>,
    /// The leadership in which it is read: its keeper knows of no later one.
    pub(super) epoch: LeaderEpoch,
    started: Instant,
    broker: Weak<Broker>,
    phase: Mutex<Phase>,
    waiters: Arc<Waiters>,
    /// The next deadline moved closer.
    sooner: Notify,
    closed: CancellationToken,
}

enum Phase {
    Loading,
    Ready(Box<Ready>),
    Gone(ResponseError),
}

struct Ready {
    share: SharePartition,
    state_epoch: StateEpoch,
    waiting: HashMap<RequestId, oneshot::Sender<Result<(), AcknowledgeError>>>,
    next_request: u64,
    /// For the keeper.
    queue: VecDeque<(WriteId, StateWrite)>,
    is_writing: bool,
    /// What the timer task sleeps for.
    sleeps_until: Option<Duration>,
}

/// What a share partition is at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// It is being loaded.
    Loading,
    /// As many records are out as may be.
    Full,
    /// Where to read on.
    From(Offset),
    /// It is not to be had.
    Gone(ResponseError),
}

impl Share {
    /// A share partition that is about to be loaded.
    pub(super) fn load(
        broker: &Arc<Broker>,
        key: ShareKey,
        partition: Arc<Partition>,
        rules: ShareRules,
        started: Instant,
    ) -> Arc<Share> {
        let share = Arc::new(Share {
            epoch: partition.leader_epoch(),
            key,
            partition,
            started,
            broker: Arc::downgrade(broker),
            phase: Mutex::new(Phase::Loading),
            waiters: Arc::default(),
            sooner: Notify::new(),
            closed: CancellationToken::new(),
        });
        tokio::spawn(share.clone().begin(broker.clone(), rules));
        share
    }

    async fn begin(self: Arc<Self>, broker: Arc<Broker>, rules: ShareRules) {
        let loaded = self.read_state(&broker, rules).await;
        drop(broker);
        {
            let mut phase = self.phase.lock();
            if !matches!(*phase, Phase::Loading) {
                return;
            }
            *phase = match loaded {
                Ok(ready) => Phase::Ready(Box::new(ready)),
                Err(error) => Phase::Gone(error),
            };
        }
        self.waiters.wake();
        self.run_timers().await;
    }

    async fn read_state(&self, broker: &Broker, rules: ShareRules) -> Result<Ready, ResponseError> {
        let request = StateRequest::Read { leader_epoch: Some(self.epoch) };
        let kept = broker.share_states.ask(broker, &self.key, request).await;
        let kept = kept.and_then(|kept| kept.ok_or(ShareStateError::Unexpected)).map_err(|error| {
            let (group, topic, partition) = (&self.key.group, self.partition.topic(), self.key.partition);
            tracing::info!(group, %topic, %partition, %error, "a share partition cannot be loaded");
            load_error(error)
        })?;
        let state_epoch = kept.state_epoch;
        let persisted = self.place(kept, rules).await?;
        let share = SharePartition::load(&persisted, rules.terms).map_err(|error| {
            tracing::error!(group = self.key.group, %error, "the state of a share partition is damaged");
            ResponseError::UnknownServerError
        })?;
        Ok(Ready {
            share,
            state_epoch,
            waiting: HashMap::new(),
            next_request: 0,
            queue: VecDeque::new(),
            is_writing: false,
            sleeps_until: None,
        })
    }

    /// Where the group has come to, or where it begins.
    async fn place(&self, kept: KeptState, rules: ShareRules) -> Result<PersistedState, ResponseError> {
        if let Some(start) = kept.start {
            return Ok(PersistedState { start, batches: kept.batches });
        }
        // Nobody is told less than an earlier leader has told (KIP-207).
        if rules.reset != OffsetReset::Earliest && !self.partition.knows_what_is_committed() {
            return Err(ResponseError::OffsetNotAvailable);
        }
        let end = self.partition.high_watermark().0;
        let start = match rules.reset {
            OffsetReset::Earliest => self.partition.log_start().0,
            OffsetReset::Latest => end,
            OffsetReset::Since(age) => {
                let age = i64::try_from(age.as_millis()).unwrap_or(i64::MAX);
                let at = Timestamp::from_wire(wall_clock().to_wire().saturating_sub(age).max(0)).unwrap_or_default();
                let found = self.partition.find_offset(OffsetQuestion::At(at), end).await;
                found.map_err(|_| ResponseError::KafkaStorageError)?.map_or(end, |answer| answer.offset)
            }
        };
        Ok(PersistedState { start, batches: Vec::new() })
    }

    /// Adds `waiter` until the returned watch is dropped.
    pub(super) fn watch(&self, waiter: &Waiter) -> Watch {
        self.waiters.watch(waiter)
    }

    /// What there is to read, by the rules of this moment.
    pub(super) fn standing(&self, terms: ShareTerms) -> Standing {
        match &mut *self.phase.lock() {
            Phase::Loading => Standing::Loading,
            Phase::Gone(error) => Standing::Gone(*error),
            Phase::Ready(ready) => {
                ready.share.set_terms(terms);
                ready.share.next_fetch().map_or(Standing::Full, |next| Standing::From(next.from))
            }
        }
    }

    /// Whether nobody can read it any more.
    pub(super) fn is_gone(&self) -> bool {
        matches!(*self.phase.lock(), Phase::Gone(_))
    }

    /// Whether nothing is on its way to the keeper.
    pub(super) fn is_quiet(&self) -> bool {
        match &*self.phase.lock() {
            Phase::Ready(ready) => !ready.is_writing && ready.queue.is_empty(),
            Phase::Loading | Phase::Gone(_) => true,
        }
    }

    /// Gives a member what it wants of what was read.
    pub(super) fn acquire(self: &Arc<Self>, want: &Want, fetched: &Fetched) -> Vec<Acquired> {
        self.step(|ready, now, _| ready.share.acquire(now, want, fetched)).unwrap_or_default()
    }

    /// The log begins later than what is read.
    pub(super) fn log_start_moved(self: &Arc<Self>, start: Offset) {
        self.step(|ready, _, effects| ready.share.log_start_moved(start, effects));
    }

    /// Takes a member's word. `None` if the share partition is not read here (any more).
    pub(super) fn acknowledge(self: &Arc<Self>, member: &str, said: &[Acknowledgement]) -> Option<Word> {
        self.step(|ready, now, effects| {
            let (sender, word) = oneshot::channel();
            let id = RequestId(ready.next_request);
            ready.next_request += 1;
            ready.waiting.insert(id, sender);
            ready.share.acknowledge(now, id, member, said, effects);
            word
        })
    }

    /// The member is gone: what it has is given to others.
    pub(super) fn release(self: &Arc<Self>, member: &str) {
        self.step(|ready, _, effects| ready.share.release(member, effects));
    }

    fn now(&self) -> Duration {
        self.started.elapsed()
    }

    fn step<R>(self: &Arc<Self>, step: impl FnOnce(&mut Ready, Duration, &mut Vec<Effect>) -> R) -> Option<R> {
        let mut effects = Vec::new();
        let mut wakes = false;
        let result = {
            let mut phase = self.phase.lock();
            let Phase::Ready(ready) = &mut *phase else { return None };
            let result = step(ready, self.now(), &mut effects);
            for effect in effects {
                match effect {
                    Effect::Write { id, state } => ready.queue.push_back((id, state)),
                    Effect::Answer { request, outcome } => {
                        if let Some(waiting) = ready.waiting.remove(&request) {
                            // Nobody listens if the connection is gone.
                            let _ = waiting.send(outcome);
                        }
                    }
                    Effect::Wake => wakes = true,
                }
            }
            if !ready.queue.is_empty() && !ready.is_writing {
                ready.is_writing = true;
                tokio::spawn(self.clone().write_all());
            }
            let next = ready.share.next_deadline();
            if next.is_some_and(|next| ready.sleeps_until.is_none_or(|until| next < until)) {
                ready.sleeps_until = next;
                self.sooner.notify_one();
            }
            result
        };
        if wakes {
            self.waiters.wake();
        }
        Some(result)
    }

    /// Has the keeper keep what is in the queue; ends when nothing is left.
    async fn write_all(self: Arc<Self>) {
        loop {
            let Some((ids, change)) = self.next_write() else { return };
            let outcome = match self.broker.upgrade() {
                Some(broker) => broker.share_states.ask(&broker, &self.key, StateRequest::Write(change)).await,
                None => Err(ShareStateError::CoordinatorNotAvailable),
            };
            if let Err(error) = &outcome {
                let (group, topic, partition) = (&self.key.group, self.partition.topic(), self.key.partition);
                tracing::warn!(group, %topic, %partition, %error, "what became of records cannot be kept");
            }
            let is_over = outcome.as_ref().err().copied().filter(|error| !error.may_pass());
            let outcome = outcome.map(drop).map_err(write_error);
            self.step(|ready, now, effects| {
                for id in ids {
                    ready.share.written(now, id, outcome, effects);
                }
            });
            if let Some(error) = is_over {
                // Another leads, or the group has begun anew: whoever reads next finds out from the keeper.
                return self.close(load_error(error));
            }
        }
    }

    /// All that is to be kept, as one change.
    fn next_write(&self) -> Option<(Vec<WriteId>, StateChange)> {
        let mut phase = self.phase.lock();
        let Phase::Ready(ready) = &mut *phase else { return None };
        let Some((_, newest)) = ready.queue.back() else {
            ready.is_writing = false;
            return None;
        };
        let (start, settled) = (newest.start, newest.settled);
        let (mut ids, mut batches) = (Vec::new(), Vec::new());
        for (id, state) in ready.queue.drain(..) {
            ids.push(id);
            batches = combine(&batches, &state.batches, start);
        }
        let change = StateChange {
            state_epoch: Some(ready.state_epoch),
            leader_epoch: Some(self.epoch),
            start: Some(start),
            settled: Some(u32::try_from(settled).unwrap_or(u32::MAX)),
            batches,
        };
        Some((ids, change))
    }

    /// Nobody reads it here any more; those who wait are told so.
    pub(super) fn close(&self, why: ResponseError) {
        self.closed.cancel();
        let before = std::mem::replace(&mut *self.phase.lock(), Phase::Gone(why));
        if let Phase::Ready(ready) = before {
            for (_, waiting) in ready.waiting {
                let _ = waiting.send(Err(AcknowledgeError::Fenced));
            }
        }
        self.waiters.wake();
    }

    /// Looks at the clock whenever a lock runs out, until it is closed.
    async fn run_timers(self: Arc<Self>) {
        loop {
            let next = match &mut *self.phase.lock() {
                Phase::Ready(ready) => {
                    ready.sleeps_until = ready.share.next_deadline();
                    ready.sleeps_until
                }
                Phase::Loading | Phase::Gone(_) => return,
            };
            let due = async {
                match next {
                    Some(at) => tokio::time::sleep_until((self.started + at).into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = due => {
                    self.step(|ready, now, effects| ready.share.tick(now, effects));
                }
                () = self.sooner.notified() => {}
                () = self.closed.cancelled() => return,
            }
        }
    }
}

/// What members are told of a share partition that its keeper does not give.
fn load_error(error: ShareStateError) -> ResponseError {
    match error {
        // They ask again, and look for the leader.
        ShareStateError::CoordinatorNotAvailable
        | ShareStateError::NotCoordinator
        | ShareStateError::LoadInProgress => ResponseError::OffsetNotAvailable,
        ShareStateError::UnknownTopic => ResponseError::UnknownTopicOrPartition,
        ShareStateError::FencedLeaderEpoch | ShareStateError::FencedStateEpoch => ResponseError::NotLeaderOrFollower,
        ShareStateError::NotInitialized | ShareStateError::Unexpected => ResponseError::UnknownServerError,
    }
}

fn write_error(error: ShareStateError) -> AcknowledgeError {
    match error {
        ShareStateError::FencedLeaderEpoch | ShareStateError::FencedStateEpoch => AcknowledgeError::Fenced,
        ShareStateError::CoordinatorNotAvailable
        | ShareStateError::NotCoordinator
        | ShareStateError::LoadInProgress
        | ShareStateError::UnknownTopic
        | ShareStateError::NotInitialized
        | ShareStateError::Unexpected => AcknowledgeError::NotKept,
    }
}
