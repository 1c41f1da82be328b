//! One shard at work: its partition, its clock, and the requests that wait for it.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};
use tokio_util::sync::CancellationToken;
use varve_log::{
    format::{BatchBuilder, RecordContent},
    local::{AppendError, AppendOrigin},
};
use varve_metadata::{
    config::Codec,
    model::{LogEndOffset, Offset, PartitionIndex, Timestamp, TopicId},
};

use crate::{
    coordinator::{
        Answer, AppendFailure, AppendId, Effect, GroupConfig, GroupError, Now, RequestId, Shard, ShardStats,
        records::CoordinatorRecord,
    },
    partition::{Partition, PartitionAppendError},
    server::wall_clock,
};

/// One partition of `__consumer_offsets` that this node leads, and the groups in it.
pub(crate) struct Seat {
    partition: Arc<Partition>,
    rules: Arc<GroupConfig>,
    codec: Codec,
    started: Instant,
    state: Mutex<State>,
    /// The next deadline moved closer.
    sooner: Notify,
    closed: CancellationToken,
}

enum State {
    Loading,
    Serving(Box<Serving>),
    /// Not loaded because the log could not be read, or closed.
    Gone,
}

struct Serving {
    shard: Shard,
    waiting: HashMap<RequestId, oneshot::Sender<Answer>>,
    next_request: u64,
    /// Appends that wait for a flush, or for one before them that does.
    unconfirmed: VecDeque<(AppendId, Result<LogEndOffset, AppendFailure>)>,
    /// What the timer task sleeps for.
    sleeps_until: Option<Duration>,
}

impl Seat {
    pub(super) fn new(partition: Arc<Partition>, rules: Arc<GroupConfig>, codec: Codec, started: Instant) -> Arc<Seat> {
        Arc::new(Seat {
            partition,
            rules,
            codec,
            started,
            state: Mutex::new(State::Loading),
            sooner: Notify::new(),
            closed: CancellationToken::new(),
        })
    }

    pub(in crate::server) fn partition(&self) -> &Arc<Partition> {
        &self.partition
    }

    fn index(&self) -> PartitionIndex {
        self.partition.id().index
    }

    pub(super) fn new_shard(&self) -> Shard {
        Shard::new(self.rules.clone())
    }

    pub(super) fn now(&self) -> Now {
        Now { elapsed: self.started.elapsed(), wall: wall_clock() }
    }

    /// The shard is loaded: it serves, and looks at the clock, from now on.
    pub(super) fn serve(self: &Arc<Seat>, shard: Shard) {
        let mut state = self.state.lock();
        if self.closed.is_cancelled() {
            return;
        }
        let serving = Serving {
            shard,
            waiting: HashMap::new(),
            next_request: 0,
            unconfirmed: VecDeque::new(),
            sleeps_until: None,
        };
        *state = State::Serving(Box::new(serving));
        drop(state);
        let _ = self.step(|shard, now, effects| shard.finish_load(now, effects));
        tokio::spawn(self.clone().run_timers());
    }

    /// Serves no longer: everyone who waits is told to look for the coordinator anew.
    pub(super) fn close(&self) {
        self.closed.cancel();
        *self.state.lock() = State::Gone;
    }

    /// Asks the shard something that it answers when it can.
    ///
    /// # Errors
    /// [`GroupError::LoadInProgress`] and [`GroupError::NotCoordinator`] if the shard does not serve (any more).
    /// Cancel-safe: what was asked happens none the less.
    pub(crate) async fn ask(
        self: &Arc<Seat>,
        request: impl FnOnce(&mut Shard, Now, RequestId, &mut Vec<Effect>),
    ) -> Result<Answer, GroupError> {
        let (sender, answer) = oneshot::channel();
        {
            let mut state = self.state.lock();
            let serving = state.serving()?;
            let id = RequestId(serving.next_request);
            serving.next_request += 1;
            serving.waiting.insert(id, sender);
            self.step_locked(serving, |shard, now, effects| request(shard, now, id, effects));
        }
        answer.await.map_err(|_| GroupError::NotCoordinator)
    }

    /// Has the shard do something that needs no answer, or answers at once.
    ///
    /// # Errors
    /// As [`ask`](Self::ask).
    pub(crate) fn step<R>(
        self: &Arc<Seat>,
        input: impl FnOnce(&mut Shard, Now, &mut Vec<Effect>) -> R,
    ) -> Result<R, GroupError> {
        let mut state = self.state.lock();
        Ok(self.step_locked(state.serving()?, input))
    }

    /// Reads from the shard.
    ///
    /// # Errors
    /// As [`ask`](Self::ask).
    pub(crate) fn read<R>(&self, read: impl FnOnce(&Shard) -> R) -> Result<R, GroupError> {
        Ok(read(&self.state.lock().serving()?.shard))
    }

    pub(super) fn stats(&self) -> Option<ShardStats> {
        self.read(Shard::stats).ok()
    }

    pub(super) fn topics_deleted(self: &Arc<Seat>, deleted: &[(String, TopicId)]) {
        // A shard that is loading shows offsets of topics that are gone until they expire.
        let _ = self.step(|shard, now, effects| shard.topics_deleted(now, deleted, effects));
    }

    fn step_locked<R>(
        self: &Arc<Seat>,
        serving: &mut Serving,
        input: impl FnOnce(&mut Shard, Now, &mut Vec<Effect>) -> R,
    ) -> R {
        let mut effects = Vec::new();
        let result = input(&mut serving.shard, self.now(), &mut effects);
        self.perform(serving, effects);
        let next = serving.shard.next_deadline();
        if next.is_some_and(|next| serving.sleeps_until.is_none_or(|until| next < until)) {
            serving.sleeps_until = next;
            self.sooner.notify_one();
        }
        result
    }

    fn perform(self: &Arc<Seat>, serving: &mut Serving, effects: Vec<Effect>) {
        let mut queue: VecDeque<Effect> = effects.into();
        while let Some(effect) = queue.pop_front() {
            match effect {
                Effect::Answer { request, answer } => {
                    if let Some(waiting) = serving.waiting.remove(&request) {
                        // Nobody listens if the connection is gone.
                        let _ = waiting.send(answer);
                    }
                }
                Effect::Append { id, records } => {
                    let written = self.append(&records);
                    let is_hidden = written.is_ok_and(|end| self.partition.must_wait(end));
                    let must_wait = !serving.unconfirmed.is_empty() || is_hidden;
                    if must_wait {
                        serving.unconfirmed.push_back((id, written));
                        if serving.unconfirmed.len() == 1 {
                            tokio::spawn(self.clone().confirm_appends());
                        }
                    } else {
                        let mut more = Vec::new();
                        serving.shard.appended(self.now(), id, written.map(|_| ()), &mut more);
                        queue.extend(more);
                    }
                }
            }
        }
    }

    fn append(&self, records: &[CoordinatorRecord]) -> Result<LogEndOffset, AppendFailure> {
        let now = wall_clock();
        let batch = self.encode(records, now).ok_or(AppendFailure::Refused)?;
        match self.partition.append(&batch, AppendOrigin::Coordinator, now) {
            Ok(appended) => Ok(appended.end),
            Err(error) => {
                tracing::error!(partition = %self.index(), %error, "group records could not be appended");
                Err(append_failure(&error))
            }
        }
    }

    fn encode(&self, records: &[CoordinatorRecord], now: Timestamp) -> Option<Vec<u8>> {
        let mut batch = BatchBuilder::new(Offset::ZERO).compression(self.codec, None);
        for record in records {
            let record = record.encode().inspect_err(|error| tracing::warn!(%error, "group state refused")).ok()?;
            batch.push(RecordContent {
                timestamp: Some(now),
                key: Some(&record.key),
                value: record.value.as_deref(),
                headers: &[],
            });
        }
        batch.build().inspect_err(|error| tracing::error!(%error, "group records could not be encoded")).ok()
    }

    /// Reports appends in order, each once it is committed; ends when none is left.
    async fn confirm_appends(self: Arc<Seat>) {
        loop {
            let written = match self.state.lock().serving() {
                Ok(serving) => serving.unconfirmed.front().copied(),
                Err(_) => return,
            };
            let Some((id, written)) = written else { return };
            let outcome = match written {
                Ok(end) => self.partition.committed(end).await.map_err(|error| {
                    tracing::error!(partition = %self.index(), %error, "group records could not be flushed");
                    AppendFailure::NotLeader
                }),
                Err(failure) => Err(failure),
            };
            let mut state = self.state.lock();
            let Ok(serving) = state.serving() else { return };
            self.step_locked(serving, |shard, now, effects| shard.appended(now, id, outcome, effects));
            // Only now: what the step appended had to queue behind.
            serving.unconfirmed.pop_front();
            if serving.unconfirmed.is_empty() {
                return;
            }
        }
    }

    /// Lets the shard look at the clock whenever something is due, until the seat is closed.
    async fn run_timers(self: Arc<Seat>) {
        loop {
            let next = match self.state.lock().serving() {
                Ok(serving) => {
                    serving.sleeps_until = serving.shard.next_deadline();
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
                    let _ = self.step(|shard, now, effects| shard.tick(now, effects));
                }
                () = self.sooner.notified() => {}
                () = self.closed.cancelled() => return,
            }
        }
    }
}

impl State {
    fn serving(&mut self) -> Result<&mut Serving, GroupError> {
        match self {
            State::Serving(serving) => Ok(serving),
            State::Loading => Err(GroupError::LoadInProgress),
            State::Gone => Err(GroupError::NotCoordinator),
        }
    }
}

fn append_failure(error: &PartitionAppendError) -> AppendFailure {
    match error {
        PartitionAppendError::Offline => AppendFailure::NotLeader,
        PartitionAppendError::Refused(refused) => match refused {
            // Space may come back.
            AppendError::Storage { no_space: true, .. } => AppendFailure::Unavailable,
            AppendError::Storage { no_space: false, .. } => AppendFailure::NotLeader,
            AppendError::Batch(_)
            | AppendError::TooLarge { .. }
            | AppendError::LargerThanSegment { .. }
            | AppendError::InvalidBatch { .. }
            | AppendError::InvalidRecords { .. }
            | AppendError::Producer(_)
            | AppendError::OutOfOrderOffsets { .. } => AppendFailure::Refused,
        },
    }
}
