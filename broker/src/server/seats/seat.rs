//! One machine at work: its partition, its clock, and the requests that wait for it.

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};
use tokio_util::sync::CancellationToken;
use varve_log::{
    format::{BatchBuilder, ControlRecord, RecordContent},
    local::{AppendError, Appended, ProducerError, TransactionTerms},
};
use varve_metadata::{
    config::Codec,
    model::{LeaderEpoch, LogEndOffset, Offset, PartitionIndex, Timestamp},
};

use super::Office;
use crate::{
    coordinator::{
        AppendFailure, AppendId, Batch, Effects, EndOfTransaction, LogRecord, Machine, Now, RequestId, machine::Effect,
    },
    partition::{Appending, Partition, PartitionAppendError},
    server::wall_clock,
};

type Answer<O> = <<O as Office>::Machine as Machine>::Answer;
type Record<O> = <<O as Office>::Machine as Machine>::Record;

/// Why a seat answers nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SeatError {
    /// Its partition is being read; ask again.
    #[error("the coordinator is loading")]
    Loading,
    /// Somebody else coordinates, or nobody does.
    #[error("this is not the coordinator")]
    NotHere,
}

/// One partition of an internal topic that this node leads, and the machine whose state it holds.
pub(crate) struct Seat<O: Office + ?Sized> {
    partition: Arc<Partition>,
    /// The leadership for which it was loaded.
    epoch: LeaderEpoch,
    office: Arc<O>,
    codec: Codec,
    started: Instant,
    state: Mutex<State<O>>,
    /// The log takes nothing, and that was said: timers try again several times a second.
    is_refused: AtomicBool,
    /// The next deadline moved closer.
    sooner: Notify,
    closed: CancellationToken,
}

enum State<O: Office + ?Sized> {
    Loading,
    Serving(Box<Serving<O>>),
    /// Not loaded because the log could not be read, or closed.
    Gone,
}

struct Serving<O: Office + ?Sized> {
    machine: O::Machine,
    waiting: HashMap<RequestId, oneshot::Sender<Answer<O>>>,
    next_request: u64,
    /// Appends that wait for a flush, or for one before them that does.
    unconfirmed: VecDeque<(AppendId, Result<Written, AppendFailure>)>,
    /// What the timer task sleeps for.
    sleeps_until: Option<Duration>,
}

/// Where a batch lies in the log.
#[derive(Clone, Copy)]
struct Written {
    base: Offset,
    end: LogEndOffset,
}

impl From<Appended> for Written {
    fn from(appended: Appended) -> Written {
        Written { base: appended.base, end: appended.end }
    }
}

impl<O: Office> Seat<O> {
    pub(in crate::server) fn new(
        partition: Arc<Partition>,
        office: Arc<O>,
        codec: Codec,
        started: Instant,
    ) -> Arc<Seat<O>> {
        Arc::new(Seat {
            epoch: partition.leader_epoch(),
            partition,
            office,
            codec,
            started,
            state: Mutex::new(State::Loading),
            is_refused: AtomicBool::new(false),
            sooner: Notify::new(),
            closed: CancellationToken::new(),
        })
    }

    pub(in crate::server) fn partition(&self) -> &Arc<Partition> {
        &self.partition
    }

    /// The epoch of the leadership for which it was taken: in no other does it append or answer anything.
    pub(super) fn epoch(&self) -> LeaderEpoch {
        self.epoch
    }

    /// Whether this node still leads as it did when the seat was taken.
    pub(super) fn stands(&self) -> bool {
        self.partition.leads_in(self.epoch)
    }

    fn index(&self) -> PartitionIndex {
        self.partition.id().index
    }

    pub(super) fn office(&self) -> &O {
        &self.office
    }

    pub(super) fn now(&self) -> Now {
        Now { elapsed: self.started.elapsed(), wall: wall_clock() }
    }

    /// The machine is loaded: it serves, and looks at the clock, from now on.
    pub(in crate::server) fn serve(self: &Arc<Self>, mut machine: O::Machine) {
        let mut state = self.state.lock();
        if self.closed.is_cancelled() {
            return;
        }
        // Under the lock: whatever changes from here on finds a machine that serves.
        self.office.refresh(&mut machine);
        let serving = Serving {
            machine,
            waiting: HashMap::new(),
            next_request: 0,
            unconfirmed: VecDeque::new(),
            sleeps_until: None,
        };
        *state = State::Serving(Box::new(serving));
        drop(state);
        let _ = self.step(|machine, now, effects| machine.finish_load(now, effects));
        tokio::spawn(self.clone().run_timers());
    }

    /// Serves no longer: everyone who waits is told to look for the coordinator anew.
    pub(super) fn close(&self) {
        self.closed.cancel();
        *self.state.lock() = State::Gone;
    }

    /// Whether it was given up, also before it served.
    pub(super) fn is_closed(&self) -> bool {
        self.closed.is_cancelled()
    }

    /// Asks the machine something that it answers when it can.
    ///
    /// # Errors
    /// [`SeatError`] if the machine does not serve (any more). Cancel-safe: what was asked happens none the less.
    pub(crate) async fn ask(
        self: &Arc<Self>,
        request: impl FnOnce(&mut O::Machine, Now, RequestId, &mut Effects<O::Machine>),
    ) -> Result<Answer<O>, SeatError> {
        let (sender, answer) = oneshot::channel();
        {
            let mut state = self.state.lock();
            let serving = state.serving()?;
            let id = RequestId(serving.next_request);
            serving.next_request += 1;
            serving.waiting.insert(id, sender);
            self.step_locked(serving, |machine, now, effects| request(machine, now, id, effects));
        }
        answer.await.map_err(|_| SeatError::NotHere)
    }

    /// Has the machine do something that needs no answer, or answers at once.
    ///
    /// # Errors
    /// As [`ask`](Self::ask).
    pub(crate) fn step<R>(
        self: &Arc<Self>,
        input: impl FnOnce(&mut O::Machine, Now, &mut Effects<O::Machine>) -> R,
    ) -> Result<R, SeatError> {
        let mut state = self.state.lock();
        Ok(self.step_locked(state.serving()?, input))
    }

    /// Reads from the machine.
    ///
    /// # Errors
    /// As [`ask`](Self::ask).
    pub(crate) fn read<R>(&self, read: impl FnOnce(&O::Machine) -> R) -> Result<R, SeatError> {
        Ok(read(&self.state.lock().serving()?.machine))
    }

    /// Reads from the machine as it is at this moment.
    ///
    /// # Errors
    /// As [`ask`](Self::ask).
    pub(crate) fn read_now<R>(&self, read: impl FnOnce(&O::Machine, Now) -> R) -> Result<R, SeatError> {
        let now = self.now();
        self.read(|machine| read(machine, now))
    }

    fn step_locked<R>(
        self: &Arc<Self>,
        serving: &mut Serving<O>,
        input: impl FnOnce(&mut O::Machine, Now, &mut Effects<O::Machine>) -> R,
    ) -> R {
        let mut effects = Vec::new();
        let result = input(&mut serving.machine, self.now(), &mut effects);
        self.perform(serving, effects);
        let next = serving.machine.next_deadline();
        if next.is_some_and(|next| serving.sleeps_until.is_none_or(|until| next < until)) {
            serving.sleeps_until = next;
            self.sooner.notify_one();
        }
        result
    }

    fn perform(self: &Arc<Self>, serving: &mut Serving<O>, effects: Effects<O::Machine>) {
        let mut queue: VecDeque<_> = effects.into();
        while let Some(effect) = queue.pop_front() {
            match effect {
                Effect::Answer { request, answer } => {
                    if let Some(waiting) = serving.waiting.remove(&request) {
                        // Nobody listens if the connection is gone.
                        let _ = waiting.send(answer);
                    }
                }
                Effect::Append { id, batch } => {
                    let written = self.append(&batch);
                    let is_open = |written: Written| !self.partition.is_committed_in(self.epoch, written.end);
                    let is_hidden = written.is_ok_and(is_open);
                    let must_wait = !serving.unconfirmed.is_empty() || is_hidden;
                    if must_wait {
                        serving.unconfirmed.push_back((id, written));
                        if serving.unconfirmed.len() == 1 {
                            tokio::spawn(self.clone().confirm_appends());
                        }
                    } else {
                        let mut more = Vec::new();
                        serving.machine.appended(self.now(), id, written.map(|written| written.base), &mut more);
                        queue.extend(more);
                    }
                }
                Effect::Order(order) => self.office.perform(self, order),
            }
        }
    }

    fn append(&self, batch: &Batch<Record<O>>) -> Result<Written, AppendFailure> {
        let now = wall_clock();
        let (bytes, terms) = self.encode(batch, now).ok_or(AppendFailure::Refused)?;
        match self.partition.append_as(&bytes, Appending::of_coordinator(self.epoch, terms), now) {
            Ok(appended) => {
                self.is_refused.store(false, Ordering::Relaxed);
                Ok(appended.into())
            }
            Err(error) => {
                let failure = append_failure(&error);
                let (topic, partition) = (self.partition.topic(), self.index());
                // A producer that is refused is a producer's mistake.
                match failure {
                    AppendFailure::ProducerFenced | AppendFailure::NoTransaction => {
                        tracing::info!(%topic, %partition, %error, "a transaction's records are refused");
                    }
                    _ if self.is_refused.swap(true, Ordering::Relaxed) => {
                        tracing::debug!(%topic, %partition, %error, "coordinator records could not be appended, again");
                    }
                    _ => tracing::error!(%topic, %partition, %error, "coordinator records could not be appended"),
                }
                Err(failure)
            }
        }
    }

    fn encode(&self, batch: &Batch<Record<O>>, now: Timestamp) -> Option<(Vec<u8>, TransactionTerms)> {
        let builder = BatchBuilder::new(Offset::ZERO).compression(self.codec, None);
        let plain = TransactionTerms::default();
        match batch {
            Batch::Records(records) => Some((encode(builder, records, now)?, plain)),
            Batch::Transactional { producer, epoch, guard, records } => {
                let builder = builder.producer(*producer, *epoch, None).transactional();
                Some((encode(builder, records, now)?, TransactionTerms { guard: *guard, ..plain }))
            }
            Batch::Marker(end) => {
                Some((marker_bytes(end, now), TransactionTerms { raises_epoch: end.raises_epoch, ..plain }))
            }
        }
    }

    /// Reports appends in order, each once it is committed; ends when none is left.
    async fn confirm_appends(self: Arc<Self>) {
        loop {
            let written = match self.state.lock().serving() {
                Ok(serving) => serving.unconfirmed.front().copied(),
                Err(_) => return,
            };
            let Some((id, written)) = written else { return };
            let outcome = match written {
                Ok(Written { base, end }) => self.partition.committed_in(self.epoch, end).await.map(|()| base).map_err(|error| {
                    let (topic, partition) = (self.partition.topic(), self.index());
                    tracing::error!(%topic, %partition, %error, "coordinator records are not known to be committed");
                    AppendFailure::NotLeader
                }),
                Err(failure) => Err(failure),
            };
            let mut state = self.state.lock();
            let Ok(serving) = state.serving() else { return };
            self.step_locked(serving, |machine, now, effects| machine.appended(now, id, outcome, effects));
            // Only now: what the step appended had to queue behind.
            serving.unconfirmed.pop_front();
            if serving.unconfirmed.is_empty() {
                return;
            }
        }
    }

    /// Lets the shard look at the clock whenever something is due, until the seat is closed.
    async fn run_timers(self: Arc<Self>) {
        loop {
            let next = match self.state.lock().serving() {
                Ok(serving) => {
                    serving.sleeps_until = serving.machine.next_deadline();
                    serving.sleeps_until
                }
                Err(_) => return,
            };
            let due = async {
                match next {
                    Some(at) => tokio::time::sleep_until((self.started + at).into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = due => {
                    let _ = self.step(|machine, now, effects| machine.tick(now, effects));
                }
                () = self.sooner.notified() => {}
                () = self.closed.cancelled() => return,
            }
        }
    }
}

impl<O: Office> State<O> {
    fn serving(&mut self) -> Result<&mut Serving<O>, SeatError> {
        match self {
            State::Serving(serving) => Ok(serving),
            State::Loading => Err(SeatError::Loading),
            State::Gone => Err(SeatError::NotHere),
        }
    }
}

fn encode<R: LogRecord>(mut batch: BatchBuilder, records: &[R], now: Timestamp) -> Option<Vec<u8>> {
    for record in records {
        let record = record.encode().inspect_err(|error| tracing::warn!(%error, "coordinator state refused")).ok()?;
        batch.push(RecordContent {
            timestamp: Some(now),
            key: Some(&record.key),
            value: record.value.as_deref(),
            headers: &[],
        });
    }
    batch.build().inspect_err(|error| tracing::error!(%error, "coordinator records could not be encoded")).ok()
}

/// The control batch that ends a transaction in one partition.
pub(crate) fn marker_bytes(end: &EndOfTransaction, now: Timestamp) -> Vec<u8> {
    let coordinator_epoch = end.coordinator_epoch;
    let marker = match end.committed {
        true => ControlRecord::Commit { coordinator_epoch },
        false => ControlRecord::Abort { coordinator_epoch },
    };
    marker.batch(end.producer, end.epoch, now)
}

pub(crate) fn append_failure(error: &PartitionAppendError) -> AppendFailure {
    match error {
        PartitionAppendError::Offline | PartitionAppendError::NotLeader => AppendFailure::NotLeader,
        PartitionAppendError::TooFewInSync(_) => AppendFailure::Unavailable,
        PartitionAppendError::Refused(refused) => match refused {
            // Space may come back.
            AppendError::Storage { no_space: true, .. } => AppendFailure::Unavailable,
            AppendError::Storage { no_space: false, .. } => AppendFailure::NotLeader,
            AppendError::Producer(refused) => match refused {
                ProducerError::InvalidEpoch { .. } => AppendFailure::ProducerFenced,
                ProducerError::NotTransactional { .. } | ProducerError::NoTransaction { .. } => {
                    AppendFailure::NoTransaction
                }
                ProducerError::CoordinatorFenced { .. } => AppendFailure::CoordinatorFenced,
                ProducerError::OutOfOrderSequence { .. } => AppendFailure::Refused,
            },
            AppendError::Batch(_)
            | AppendError::TooLarge { .. }
            | AppendError::LargerThanSegment { .. }
            | AppendError::InvalidBatch { .. }
            | AppendError::InvalidRecords { .. }
            | AppendError::OutOfOrderOffsets { .. } => AppendFailure::Refused,
        },
    }
}
