//! One connection to one leader, over which partitions are fetched.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures::future;
use kafka_protocol::{
    messages::{
        DescribeProducersRequest, ListOffsetsRequest, TopicName,
        describe_producers_request::TopicRequest,
        list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic},
    },
    protocol::StrBytes,
};
use parking_lot::Mutex;
use tokio::{
    sync::Notify,
    task::{JoinHandle, spawn_blocking},
    time::{sleep_until, timeout},
};
use tracing::{debug, info, warn};
use varve_log::local::ProducerEntry;
use varve_metadata::model::{BrokerId, HighWatermark, LeaderEpoch, LogStartOffset, Offset, PartitionId, ProducerId};
use varve_replication::fetcher::{Ask, Fetcher, Step, Wanted};

use super::{Lane, Replicas, incarnation_of, wire};
use crate::{
    links::{Link, LinkError, Links},
    partition::{FollowError, Partition, Peers, RemoteError, save_log_starts},
};

/// The only version of DescribeProducers.
const PRODUCERS_VERSION: i16 = 0;
/// The version of ListOffsets that knows where the local part begins.
const LIST_VERSION: i16 = 9;
const EARLIEST: i64 = -2;
const EARLIEST_LOCAL: i64 = -4;
/// How long the partitions of a connection wait for one whose log is cut or begun anew.
const BESIDE: Duration = Duration::from_millis(100);

/// The partitions that one connection is for.
pub(super) struct FetchTask {
    pub(super) lane: Lane,
    /// The number of fetchers, by how often it had changed, that its partitions are right for.
    arrangement: AtomicU64,
    state: Mutex<State>,
    changed: Notify,
}

struct State {
    fetcher: Fetcher,
    /// Each with the epoch in which it is followed.
    partitions: HashMap<PartitionId, (Arc<Partition>, LeaderEpoch)>,
    /// Those with a step that is done beside, and how many: their logs are not for two at a time.
    busy: HashMap<PartitionId, usize>,
}

/// Why a fetch came to nothing.
#[derive(Debug, thiserror::Error)]
enum FetchError {
    #[error(transparent)]
    Link(#[from] LinkError),
    #[error("the leader answers with error {0}")]
    Refused(i16),
}

impl FetchTask {
    pub(super) fn new(lane: Lane, backoff: Duration) -> FetchTask {
        let state = State { fetcher: Fetcher::new(backoff), partitions: HashMap::new(), busy: HashMap::new() };
        FetchTask { lane, arrangement: AtomicU64::new(0), state: Mutex::new(state), changed: Notify::new() }
    }

    /// Has it look anew at what there is to do.
    pub(super) fn wake(&self) {
        self.changed.notify_one();
    }

    pub(super) fn is_arranged_for(&self, arrangement: u64) -> bool {
        self.arrangement.load(Ordering::Relaxed) == arrangement
    }

    pub(super) fn arranged_for(&self, arrangement: u64) {
        self.arrangement.store(arrangement, Ordering::Relaxed);
    }

    /// Neither has a partition nor is busy with one.
    pub(super) fn is_empty(&self) -> bool {
        let state = self.state.lock();
        state.partitions.is_empty() && state.busy.is_empty()
    }

    #[cfg(test)]
    pub(super) fn followed(&self) -> Vec<PartitionId> {
        self.state.lock().partitions.keys().copied().collect()
    }

    /// Takes those partitions out that are `strays`, each with the epoch in which it is followed; `false` if some of them have to
    /// stay for now, because it is busy with them. Only between two exchanges: no answer is about them then.
    pub(super) fn give_away(&self, strays: impl Fn(PartitionId) -> bool) -> (Vec<(Arc<Partition>, LeaderEpoch)>, bool) {
        let mut state = self.state.lock();
        let found: Vec<PartitionId> = state.partitions.keys().copied().filter(|id| strays(*id)).collect();
        let (busy, free): (Vec<_>, Vec<_>) = found.into_iter().partition(|id| state.busy.contains_key(id));
        let mut given = Vec::with_capacity(free.len());
        for id in free {
            state.fetcher.forget(id);
            given.extend(state.partitions.remove(&id));
        }
        (given, busy.is_empty())
    }

    pub(super) fn follow(&self, partition: &Arc<Partition>, epoch: LeaderEpoch) {
        let at = partition.position();
        let mut state = self.state.lock();
        state.partitions.insert(partition.id(), (partition.clone(), epoch));
        state.fetcher.follow(partition.id(), Wanted { epoch, position: at.position, log_start: at.log_start });
        drop(state);
        self.changed.notify_one();
    }

    pub(super) fn forget(&self, id: PartitionId) {
        let mut state = self.state.lock();
        state.partitions.remove(&id);
        state.fetcher.forget(id);
    }

    /// Fetches until the node stops.
    pub(super) async fn run(self: Arc<FetchTask>, replicas: Arc<Replicas>) {
        let stop = replicas.stop.clone();
        tokio::select! {
            () = stop.cancelled() => {}
            () = self.fetch_on(&replicas) => {}
        }
    }

    async fn fetch_on(self: &Arc<Self>, replicas: &Arc<Replicas>) {
        let mut link: Option<Link> = None;
        // What went wrong last, until the leader answers again.
        let mut trouble: Option<String> = None;
        loop {
            if !replicas.arrange(self) {
                return;
            }
            self.rest_above_rate(replicas);
            let (ask, wakes) = {
                let mut state = self.state.lock();
                (state.fetcher.next_ask(replicas.now()), state.fetcher.wakes())
            };
            let Some(ask) = ask else {
                if self.state.lock().fetcher.is_idle() {
                    link = None;
                }
                let due = async {
                    match wakes {
                        Some(at) => sleep_until((replicas.started + at).into()).await,
                        None => std::future::pending().await,
                    }
                };
                tokio::select! {
                    () = due => {}
                    () = self.changed.notified() => {}
                }
                continue;
            };
            match self.exchange(replicas, &mut link, &ask).await {
                Ok(()) => {
                    if trouble.take().is_some() {
                        info!(leader = %self.lane.leader, "the leader answers again");
                    }
                }
                Err(error) => {
                    let is_of_session = matches!(error, FetchError::Refused(code) if wire::is_of_session(code));
                    if !is_of_session {
                        link = None;
                        // Once for each time that it is gone, and for each other reason.
                        let now = Some(error.to_string());
                        if trouble != now {
                            trouble = now;
                            let error = &error as &dyn std::error::Error;
                            warn!(leader = %self.lane.leader, error, "nothing can be fetched, trying again");
                        }
                    }
                    self.state.lock().fetcher.broken(replicas.now(), !is_of_session);
                }
            }
        }
    }

    /// Does not ask for throttled replicas, if this node has fetched too much of such, but of those that are in sync.
    fn rest_above_rate(&self, replicas: &Replicas) {
        let wait = replicas.throttles.follower.wait(Instant::now());
        if wait.is_zero() {
            return;
        }
        let until = replicas.now() + wait;
        let mut state = self.state.lock();
        let State { fetcher, partitions, .. } = &mut *state;
        let throttled = partitions.values().map(|(partition, _)| partition).filter(|one| one.is_follower_throttled());
        let behind = throttled.filter(|partition| !replicas.is_in_sync(partition.id()));
        let resting = behind.filter(|partition| fetcher.rest(partition.id(), until)).count();
        replicas.throttles.follower.note_held_back(resting);
    }

    async fn exchange(
        self: &Arc<Self>,
        replicas: &Arc<Replicas>,
        link: &mut Option<Link>,
        ask: &Ask,
    ) -> Result<(), FetchError> {
        let link = match link {
            Some(link) => link,
            None => link.insert(replicas.links.connect(self.lane.leader).await?),
        };
        let us = (replicas.node, incarnation_of(replicas.life));
        let response = link.ask(wire::VERSION, &wire::request(ask, us, &replicas.config)).await?;
        if response.error_code != 0 {
            return Err(FetchError::Refused(response.error_code));
        }
        // Followers may read everything or nothing.
        if wire::is_not_allowed(&response) {
            return Err(LinkError::NotAllowed.into());
        }
        let session = response.session_id;
        let steps = self.state.lock().fetcher.take(session, wire::answers(response), replicas.now());
        let (mut beside, mut taken) = (Vec::new(), Vec::new());
        for (id, asked, step) in steps {
            let Some(partition) = self.still_followed(id, &asked) else { continue };
            match step {
                Step::Append { records, high_watermark, log_start } => {
                    if partition.is_follower_throttled() {
                        replicas.throttles.follower.note(records.len(), Instant::now());
                    }
                    let done = append(&partition, asked.epoch, records, high_watermark, log_start).await;
                    let is_done = done.is_ok();
                    self.settle(replicas, &partition, asked.epoch, done);
                    taken.extend(is_done.then_some((partition, asked.epoch)));
                }
                Step::Truncate { epoch: known, end } if !partition.parts_before_its_start(known, end) => {
                    let (of, epoch) = (partition.clone(), asked.epoch);
                    let cut = blocking(move || of.cut(epoch, known, end));
                    beside.push(self.do_beside(replicas, partition, epoch, cut));
                }
                Step::Truncate { .. } | Step::StartOver { .. } => {
                    debug!(topic = %partition.topic(), partition = %id.index, "the leader does not have what comes next here");
                    let sides = (replicas.node, self.lane.leader);
                    let start = start_over(replicas.links.clone(), sides, partition.clone(), asked.epoch);
                    beside.push(self.do_beside(replicas, partition, asked.epoch, start));
                }
            }
        }
        self.keep_starts(replicas, taken).await;
        // As a rule they are done in no time, and the next fetch is for all.
        let _ = timeout(BESIDE, future::join_all(beside)).await;
        Ok(())
    }

    /// Writes down where the logs start now of which the leader has deleted records, all with one write. The next fetch tells that it
    /// is so: the leader calls the records deleted, which a crash of this node must not bring back.
    async fn keep_starts(&self, replicas: &Replicas, taken: Vec<(Arc<Partition>, LeaderEpoch)>) {
        let moved: Vec<_> = taken.into_iter().filter(|(partition, _)| !partition.log().is_start_kept()).collect();
        if moved.is_empty() {
            return;
        }
        let partitions: Vec<_> = moved.iter().map(|(partition, _)| partition.clone()).collect();
        // What could not be written down is told by whoever notes that the directory failed, or is full.
        let _ = spawn_blocking(move || save_log_starts(&partitions)).await;
        let mut state = self.state.lock();
        for (partition, epoch) in moved {
            let (id, at) = (partition.id(), partition.position());
            match partition.log().is_start_kept() {
                true => state.fetcher.moved(id, epoch, at.position, at.log_start),
                false => state.fetcher.hold_back(id, epoch, replicas.now()),
            }
        }
    }

    /// Does what may take long, so that other partitions can go on: this one is not asked for meanwhile.
    pub(super) fn do_beside(
        self: &Arc<Self>,
        replicas: &Arc<Replicas>,
        partition: Arc<Partition>,
        epoch: LeaderEpoch,
        step: impl Future<Output = Result<(), StepError>> + Send + 'static,
    ) -> JoinHandle<()> {
        let (task, replicas, id) = (self.clone(), replicas.clone(), partition.id());
        *self.state.lock().busy.entry(id).or_default() += 1;
        replicas.tasks.clone().spawn(async move {
            tokio::select! {
                () = replicas.stop.cancelled() => {}
                done = step => {
                    task.settle(&replicas, &partition, epoch, done);
                    task.no_longer_busy(id);
                    task.changed.notify_one();
                }
            }
        })
    }

    fn no_longer_busy(&self, id: PartitionId) {
        let mut state = self.state.lock();
        if let Some(steps) = state.busy.get_mut(&id) {
            *steps -= 1;
            if *steps == 0 {
                state.busy.remove(&id);
            }
        }
    }

    /// A step of `epoch` came to its end.
    fn settle(&self, replicas: &Replicas, partition: &Partition, epoch: LeaderEpoch, done: Result<(), StepError>) {
        let (id, at) = (partition.id(), partition.position());
        let mut state = self.state.lock();
        match done {
            Ok(()) => state.fetcher.moved(id, epoch, at.position, at.log_start),
            // Whoever changed that says what is to be fetched next.
            Err(StepError::Follow(FollowError::Stale)) => {}
            // Not in this life, or not here any more. One that came back meanwhile is another log.
            Err(StepError::Follow(FollowError::Offline)) => {
                if state.partitions.get(&id).is_some_and(|(known, _)| std::ptr::eq(Arc::as_ptr(known), partition)) {
                    state.partitions.remove(&id);
                    state.fetcher.forget(id);
                }
            }
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                warn!(topic = %partition.topic(), partition = %id.index, leader = %self.lane.leader, error, "the leader's answer is not taken over, trying again");
                state.fetcher.hold_back(id, epoch, replicas.now());
            }
        }
    }

    /// The partition that was asked for so, if the answer is still about it. While the steps before it were done, an image may
    /// have shown another epoch, perhaps of the same leader: what was read in the one before says nothing about that.
    fn still_followed(&self, id: PartitionId, asked: &Wanted) -> Option<Arc<Partition>> {
        let mut state = self.state.lock();
        let (partition, epoch) = state.partitions.get(&id).cloned()?;
        let at = partition.position();
        if epoch != asked.epoch {
            return None;
        }
        if at.position != asked.position {
            state.fetcher.moved(id, epoch, at.position, at.log_start);
            return None;
        }
        Some(partition)
    }
}

async fn append(
    partition: &Arc<Partition>,
    epoch: LeaderEpoch,
    records: Bytes,
    high_watermark: HighWatermark,
    log_start: LogStartOffset,
) -> Result<(), StepError> {
    // As a produce does, on this thread, unless it waits for the disk.
    if partition.log().config().flush_messages.is_none() {
        return Ok(partition.replicate(epoch, &records, high_watermark, log_start)?);
    }
    let partition = partition.clone();
    blocking(move || partition.replicate(epoch, &records, high_watermark, log_start)).await
}

async fn start_over(
    links: Arc<Links>,
    sides: (BrokerId, BrokerId),
    partition: Arc<Partition>,
    epoch: LeaderEpoch,
) -> Result<(), StepError> {
    let local_start = ask_offset(&links, sides, &partition, epoch, EARLIEST_LOCAL).await?;
    let log_start = ask_offset(&links, sides, &partition, epoch, EARLIEST).await?;
    let log_start = LogStartOffset(log_start);
    let producers = ask_producers(&links, sides.1, &partition, local_start).await?;
    partition.ask_archive(local_start, log_start).await?;
    blocking(move || partition.start_over(epoch, local_start, log_start, producers)).await
}

/// Who writes to the leader's log, and up to which sequence; all of it counts as written before `start`. What it has of them
/// behind that is replicated, and takes the place of this.
async fn ask_producers(
    links: &Links,
    leader: BrokerId,
    partition: &Partition,
    start: Offset,
) -> Result<Vec<(ProducerId, ProducerEntry)>, StepError> {
    let topic = TopicRequest::default()
        .with_name(TopicName(StrBytes::from_string(partition.topic().to_string())))
        .with_partition_indexes(vec![partition.id().index.to_wire()]);
    let request = DescribeProducersRequest::default().with_topics(vec![topic]);
    let response = links.ask(leader, PRODUCERS_VERSION, &request).await?;
    let found = response.topics.first().and_then(|topic| topic.partitions.first());
    let found = found.ok_or_else(|| LinkError::Malformed("it names no partition".to_owned()))?;
    if found.error_code != 0 {
        return Err(StepError::Refused(found.error_code));
    }
    Ok(found.active_producers.iter().filter_map(|state| wire::producer(state, start)).collect())
}

/// Why a step was not done.
#[derive(Debug, thiserror::Error)]
pub(super) enum StepError {
    #[error(transparent)]
    Follow(#[from] FollowError),
    #[error(transparent)]
    Link(#[from] LinkError),
    #[error("the leader says with error {0} where it begins")]
    Refused(i16),
    #[error("what lies before the leader's local log is not known")]
    Archive(#[from] RemoteError),
    #[error("it panicked")]
    Panicked,
}

async fn blocking(work: impl FnOnce() -> Result<(), FollowError> + Send + 'static) -> Result<(), StepError> {
    Ok(spawn_blocking(work).await.map_err(|_| StepError::Panicked)??)
}

/// Where the leader's log begins.
async fn ask_offset(
    links: &Links,
    (node, leader): (BrokerId, BrokerId),
    partition: &Partition,
    epoch: LeaderEpoch,
    which: i64,
) -> Result<Offset, StepError> {
    let asked = ListOffsetsPartition::default()
        .with_partition_index(partition.id().index.to_wire())
        .with_current_leader_epoch(epoch.to_wire())
        .with_timestamp(which);
    let topic = ListOffsetsTopic::default()
        .with_name(TopicName(StrBytes::from_string(partition.topic().to_string())))
        .with_partitions(vec![asked]);
    let request = ListOffsetsRequest::default().with_replica_id(node.to_wire().into()).with_topics(vec![topic]);
    let response = links.ask(leader, LIST_VERSION, &request).await?;
    let found = response.topics.first().and_then(|topic| topic.partitions.first());
    let found = found.ok_or_else(|| LinkError::Malformed("it names no partition".to_owned()))?;
    if found.error_code != 0 {
        return Err(StepError::Refused(found.error_code));
    }
    let nowhere = || StepError::Link(LinkError::Malformed("it names no offset".to_owned()));
    Offset::from_wire(found.offset).ok_or_else(nowhere)
}

#[cfg(test)]
mod tests {
    use varve_log::local::{LogConfig, LogDir, LogDirOwner};
    use varve_metadata::model::{PartitionIndex, Timestamp, TopicId};
    use varve_replication::fetcher::PartitionAnswer;

    use super::*;
    use crate::partition::LogDirHealth;

    #[test]
    fn a_step_is_not_done_in_a_later_epoch_than_it_was_asked_for() {
        let dir = tempfile::tempdir().unwrap();
        let owner = LogDirOwner { cluster_id: "c".to_owned(), node: BrokerId(1) };
        let files = LogDir::open(dir.path(), &owner).unwrap();
        let topic = varve_metadata::model::TopicName::parse("t").unwrap();
        let (of, index) = (TopicId::random(), PartitionIndex(0));
        let (log, _) = files.open_log(&topic, of, index, Arc::new(LogConfig::default()), Timestamp::default()).unwrap();
        let id = PartitionId { topic: of, index };
        let partition = Partition::new(id, topic, log, LogDirHealth::new(dir.path().to_owned()), LeaderEpoch(1));
        let task = FetchTask::new(Lane { leader: BrokerId(2), number: 0 }, Duration::from_secs(1));
        let answered = || {
            let mut state = task.state.lock();
            state.fetcher.next_ask(Duration::ZERO).unwrap();
            let answer = PartitionAnswer::Diverged::<Bytes> { epoch: LeaderEpoch(0), end: Offset::ZERO };
            let steps = state.fetcher.take(0, vec![(id, answer)], Duration::ZERO);
            let [(_, asked, Step::Truncate { .. })] = steps.as_slice() else { panic!("no cut: {steps:?}") };
            *asked
        };
        task.follow(&partition, LeaderEpoch(1));
        let asked = answered();
        assert!(task.still_followed(id, &asked).is_some());
        // The answer waits for its turn; meanwhile the same broker leads in another epoch.
        task.follow(&partition, LeaderEpoch(2));
        assert!(task.still_followed(id, &asked).is_none());
        let asked = answered();
        assert!(task.still_followed(id, &asked).is_some());
        task.forget(id);
        assert!(task.still_followed(id, &asked).is_none());
    }
}
