//! Opens, alters and deletes local partitions so that they follow the cluster's image.
//!
//! One task does this, image by image. Opening and deleting is work for blocking threads, several partitions at a time;
//! requests meanwhile go on with the partitions that are in the table.

mod cleaning;
mod closing;
mod failing;
mod found;
mod keeper;
mod roles;

use std::{
    collections::HashSet,
    io,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use futures::{StreamExt, stream};
use tokio::{sync::Mutex, task::spawn_blocking};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};
use varve_log::local::{LocalLog, LogConfig, LogDir, LogDirError, LogDirOwner, OpenError, is_no_space};
use varve_metadata::{
    cluster::ClusterMetadata,
    config::TopicConfig,
    image::{ClusterImage, PartitionImage, TopicChange, TopicImage},
    model::{BrokerId, PartitionId, PartitionIndex, Timestamp},
};

use super::{
    LogDirHealth, LookupError, NoPeers, Outage, Partition, Partitions, Peers,
    moves::finish_moves,
    placement::{place, set_strays_aside},
    removal::delete_logs,
};
pub use keeper::{Keeper, NoKeeper, Unsettled};

/// Partitions at least that are made ready at a time; most of them wait for their turn on the disk, or for the archive.
const PARALLEL: usize = 8;

/// A partition for which there was no room is tried again after this time.
const OPEN_AGAIN: Duration = Duration::from_secs(5);
/// Between two tries to open partitions that wait for the archive.
const SETTLE_EVERY: Duration = Duration::from_secs(1);

/// What the node says about its storage.
#[derive(Debug, Clone)]
pub struct StorageSettings {
    /// `log.dirs`.
    pub dirs: Vec<PathBuf>,
    /// `num.recovery.threads.per.data.dir`; at least 1.
    pub recovery_threads: u32,
    /// `producer.id.expiration.ms`.
    pub producer_expiry: Duration,
    /// `transaction.max.timeout.ms`.
    pub max_transaction_timeout: Duration,
    /// `transaction.partition.verification.enable`.
    pub verify_transactions: bool,
}

/// The log directories, and the partitions in them.
pub struct Storage {
    node: BrokerId,
    partitions: Arc<Partitions>,
    dirs: Vec<Arc<LogDirHealth>>,
    settings: StorageSettings,
    keeper: Arc<dyn Keeper>,
    peers: Arc<dyn Peers>,
    shown: Mutex<Option<Arc<ClusterImage>>>,
    /// Partitions that a full disk kept from opening, and whether they never had a log.
    waiting: parking_lot::Mutex<Vec<(PartitionId, bool)>>,
    /// Partitions to be opened once more is known about them.
    unsettled: parking_lot::Mutex<HashSet<PartitionId>>,
    producer_rules: parking_lot::Mutex<ProducerRules>,
    recovery_threads: AtomicU32,
}

/// What logs ask of producers and keep of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct ProducerRules {
    expiry: Duration,
    verify_transactions: bool,
}

impl std::fmt::Debug for Storage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Storage").field("dirs", &self.settings.dirs).finish_non_exhaustive()
    }
}

impl Storage {
    /// Takes the directories, and makes those that are missing. One that cannot be made or read is offline from the start.
    ///
    /// # Errors
    /// [`LogDirError::Locked`] and [`LogDirError::Foreign`]: the directory is somebody else's. [`LogDirError::Storage`]: not
    /// one of them can be used, so that there is nothing to serve.
    pub fn open(
        owner: &LogDirOwner,
        partitions: Arc<Partitions>,
        settings: StorageSettings,
        keeper: Arc<dyn Keeper>,
    ) -> Result<Arc<Storage>, LogDirError> {
        Storage::open_among(Arc::new(NoPeers), owner, partitions, settings, keeper)
    }

    /// The same for a broker among others.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_among(
        peers: Arc<dyn Peers>,
        owner: &LogDirOwner,
        partitions: Arc<Partitions>,
        settings: StorageSettings,
        keeper: Arc<dyn Keeper>,
    ) -> Result<Arc<Storage>, LogDirError> {
        let mut dirs = Vec::with_capacity(settings.dirs.len());
        let mut failure = None;
        for path in &settings.dirs {
            match LogDir::open(path, owner) {
                Ok(files) => dirs.push(LogDirHealth::opened(files, settings.recovery_threads)),
                Err(LogDirError::Storage(error)) => {
                    let dir = LogDirHealth::new(path.clone());
                    dir.fail(&error);
                    dirs.push(dir);
                    failure = Some(error);
                }
                Err(not_ours) => return Err(not_ours),
            }
        }
        if let Some(error) = failure.filter(|_| dirs.iter().all(|dir| dir.is_failed())) {
            return Err(error.into());
        }
        partitions.set_log_dirs(dirs.clone());
        let verify_transactions = settings.verify_transactions;
        let rules = ProducerRules { expiry: settings.producer_expiry, verify_transactions };
        let recovery_threads = AtomicU32::new(settings.recovery_threads.max(1));
        Ok(Arc::new(Storage {
            node: owner.node,
            partitions,
            dirs,
            settings,
            keeper,
            peers,
            shown: Mutex::new(None),
            waiting: Default::default(),
            unsettled: parking_lot::Mutex::default(),
            producer_rules: parking_lot::Mutex::new(rules),
            recovery_threads,
        }))
    }

    /// Whether a disk has no room at the moment. Asks the file systems of those that had none.
    pub fn has_full_disk(&self) -> bool {
        let mut working = self.dirs.iter().filter(|dir| !dir.is_failed());
        working.clone().for_each(|dir| dir.look_for_room());
        working.any(|dir| dir.is_full())
    }

    /// Follows the image until `stop` is cancelled.
    pub async fn follow(self: Arc<Storage>, metadata: Arc<ClusterMetadata>, stop: CancellationToken) {
        let mut images = metadata.subscribe();
        loop {
            let image = images.borrow_and_update().clone();
            self.apply(&image).await;
            tokio::select! {
                () = stop.cancelled() => return,
                changed = images.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(OPEN_AGAIN), if !self.waiting.lock().is_empty() => self.open_waiting().await,
            }
        }
    }

    /// Tries again to open the partitions for which there was no room.
    pub(super) async fn open_waiting(&self) {
        let shown = self.shown.lock().await;
        let waiting = std::mem::take(&mut *self.waiting.lock());
        for (id, is_new) in waiting {
            let topic = shown.as_ref().and_then(|image| image.topic_by_id(id.topic)).cloned();
            // Meanwhile its topic may have been deleted, or altered, which tries as well.
            if let Some(topic) = topic.filter(|_| self.partitions.get(id).is_err()) {
                let may_lead = shown.as_ref().is_some_and(|image| self.peers.may_lead(image));
                self.open_partition(topic, id.index, is_new, may_lead).await;
            }
        }
    }

    /// Makes the table show `image`, and says so to those who wait in [`Partitions::caught_up`].
    pub async fn apply(self: &Arc<Self>, image: &Arc<ClusterImage>) {
        let mut shown = self.shown.lock().await;
        let is_start = shown.is_none();
        if is_start {
            self.finish_moves().await;
            self.set_strays_aside(image).await;
        }
        let changes = match shown.as_ref() {
            Some(before) => image.changes_since(before),
            None => image.topics().values().cloned().map(TopicChange::Created).collect(),
        };
        let may_lead = self.peers.may_lead(image);
        // Leadership first: deletions and openings may keep the disk and the bucket busy for a while.
        let mut to_show = Vec::new();
        for change in &changes {
            if let TopicChange::Altered { now, .. } = change {
                self.alter(now);
                to_show.push(now.clone());
            }
        }
        self.show_all(to_show, may_lead).await;
        for change in &changes {
            match change {
                TopicChange::Deleted(topic) => self.delete(topic).await,
                TopicChange::Altered { before, now } => self.leave(before, now).await,
                TopicChange::Created(_) => {}
            }
        }
        let mut to_open = Vec::new();
        for change in changes {
            match change {
                TopicChange::Deleted(_) => {}
                TopicChange::Created(topic) => {
                    to_open.extend(self.ours(&topic).map(|index| (topic.clone(), index, !is_start)));
                }
                TopicChange::Altered { before, now: topic } => {
                    let missing = self
                        .ours(&topic)
                        .filter(|&index| self.partitions.get(PartitionId { topic: topic.id, index }).is_err());
                    // One that was here before and is not open may have a log that cannot be reached.
                    let was_here = |before: &PartitionImage| before.replicas.contains(&self.node);
                    let is_new = |index| !before.partition(index).is_some_and(|(_, before)| was_here(before));
                    to_open.extend(missing.map(|index| (topic.clone(), index, is_new(index))));
                }
            }
        }
        let open = |(topic, index, is_new)| self.open_partition(topic, index, is_new, may_lead);
        stream::iter(to_open).for_each_concurrent(self.parallel(), open).await;
        self.partitions.shows(image.revision());
        *shown = Some(image.clone());
        if is_start {
            self.resume_moves();
        }
    }

    async fn finish_moves(&self) {
        let dirs = self.dirs.clone();
        if let Err(panic) = spawn_blocking(move || finish_moves(&dirs)).await {
            error!(%panic, "looking for moved logs panicked");
        }
    }

    /// Begins the moves again that the end of the process before cut short.
    fn resume_moves(&self) {
        for dir in &self.dirs {
            let interrupted = dir.files().map(LogDir::take_interrupted).unwrap_or_default();
            for (topic, index) in interrupted {
                let Ok(partition) = self.partitions.find(topic.as_str(), index) else { continue };
                let to = std::path::absolute(&dir.path).unwrap_or_else(|_| dir.path.clone());
                match self.partitions.move_log(&partition, &to) {
                    Ok(()) => info!(%topic, partition = %index, to = %to.display(), "going on with a move"),
                    Err(error) => warn!(%topic, partition = %index, %error, "a move is not taken up again"),
                }
            }
        }
    }

    /// Opens partitions for which the archive could not be asked, as soon as it can, until `stop` is cancelled.
    pub async fn settle(self: Arc<Storage>, stop: CancellationToken) {
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(SETTLE_EVERY) => {}
            }
            if self.unsettled.lock().is_empty() {
                continue;
            }
            let shown = self.shown.lock().await;
            let Some(image) = shown.as_ref() else { continue };
            let waiting = std::mem::take(&mut *self.unsettled.lock());
            // A change of its topic may have opened it meanwhile.
            let closed = waiting.into_iter().filter(|id| self.partitions.get(*id).is_err());
            let topic = |id: PartitionId| Some((image.topic_by_id(id.topic)?.clone(), id.index));
            let may_lead = self.peers.may_lead(image);
            let open = |(topic, index)| self.open_partition(topic, index, false, may_lead);
            stream::iter(closed.filter_map(topic)).for_each_concurrent(self.parallel(), open).await;
        }
    }

    fn parallel(&self) -> usize {
        PARALLEL.max(self.dirs.len().saturating_mul(self.recovery_threads.load(Ordering::Relaxed) as usize))
    }

    /// Numbers of the topic's partitions that have a replica here.
    fn ours<'a>(&'a self, topic: &'a TopicImage) -> impl Iterator<Item = PartitionIndex> + 'a {
        let numbered = topic.partitions.iter().zip(0..);
        numbered
            .filter(|(partition, _)| partition.replicas.contains(&self.node))
            .map(|(_, index)| PartitionIndex(index))
    }

    fn log_config(&self, topic: &TopicConfig) -> Arc<LogConfig> {
        let rules = *self.producer_rules.lock();
        let config = LogConfig::new(topic, rules.expiry, self.settings.max_transaction_timeout);
        Arc::new(config.verifying_transactions(rules.verify_transactions))
    }

    /// From now on so many logs of each directory are opened, or closed, at the same time
    /// (`num.recovery.threads.per.data.dir`). With fewer than before, those that are being opened go on.
    pub async fn set_recovery_threads(&self, threads: u32) {
        let before = self.recovery_threads.swap(threads.max(1), Ordering::Relaxed);
        for dir in &self.dirs {
            dir.resize(before, threads.max(1)).await;
        }
    }

    /// From now on what is followed is fetched over so many connections to each leader (`num.replica.fetchers`).
    pub fn set_fetchers(&self, fetchers: u32) {
        self.peers.set_fetchers(fetchers);
    }

    /// From now on silent producers are remembered for so long (`producer.id.expiration.ms`), and records of transactions are
    /// taken only where those are known to have begun, or everywhere (`transaction.partition.verification.enable`).
    pub async fn set_producer_rules(&self, expiry: Duration, verify_transactions: bool) {
        let rules = ProducerRules { expiry, verify_transactions };
        if std::mem::replace(&mut *self.producer_rules.lock(), rules) == rules {
            return;
        }
        let shown = self.shown.lock().await;
        for topic in shown.iter().flat_map(|image| image.topics().values()) {
            self.alter(topic);
        }
    }

    fn alter(&self, topic: &TopicImage) {
        let config = self.log_config(&topic.config);
        for index in self.ours(topic) {
            let Ok(partition) = self.partitions.get(PartitionId { topic: topic.id, index }) else { continue };
            partition.log().update_config(config.clone());
            partition.note_unflushed();
            partition.set_min_in_sync(topic.config.min_insync_replicas as usize);
            partition.set_throttled(self.node, &topic.config);
            self.tell_keeper(&partition, topic);
        }
    }

    async fn open_partition(&self, topic: Arc<TopicImage>, index: PartitionIndex, is_new: bool, may_lead: bool) {
        let id = PartitionId { topic: topic.id, index };
        let Some((_, image)) = topic.partition(index) else { return };
        let dir = match place(&self.dirs, &topic.name, id, is_new) {
            Ok(dir) => dir,
            Err(nowhere) => {
                // Each change of its topic comes by here.
                if !matches!(self.partitions.get(id), Err(LookupError::Offline)) {
                    error!(topic = %topic.name, partition = %index, "offline: {nowhere}");
                }
                return self.partitions.insert_offline(id, &topic.name, topic.internal, Outage::OutOfReach);
            }
        };
        if !is_new && dir.files().is_none_or(|files| files.find(&topic.name, index).is_none()) {
            self.keeper.missing(&topic, id).await;
        }
        let config = self.log_config(&topic.config);
        let (place, opening) = (dir.clone(), topic.clone());
        let turn = dir.turn().await;
        let opened = spawn_blocking(move || open_log(&place, &opening, index, config)).await;
        drop(turn);
        let log = match opened {
            Ok(Ok(log)) => log,
            Ok(Err(OpenError::Storage(error))) => {
                let outage = if is_no_space(&error) { Outage::Waiting } else { Outage::OutOfReach };
                match outage {
                    Outage::Waiting => {
                        dir.note_full(&error);
                        self.waiting.lock().push((id, is_new));
                    }
                    Outage::OutOfReach => dir.fail(&error),
                }
                return self.partitions.insert_offline(id, &topic.name, topic.internal, outage);
            }
            Err(panic) => {
                // Nobody tries again before the next start, or change of its topic: others are told.
                error!(topic = %topic.name, partition = %index, %panic, "opening a log panicked");
                return self.partitions.insert_offline(id, &topic.name, topic.internal, Outage::OutOfReach);
            }
        };
        if self.keeper.opening(&topic, id, &log, is_new).await == Err(Unsettled) {
            self.unsettled.lock().insert(id);
            return self.partitions.insert_offline(id, &topic.name, topic.internal, Outage::Waiting);
        }
        let committed = dir.files().and_then(|files| files.high_watermark(&topic.name, index));
        let committed = if is_alone(image) { log.end().0 } else { committed.unwrap_or_default() };
        let name = topic.name.clone();
        let partition = Partition::replica(id, name, log, dir.clone(), image.leader_epoch, committed);
        partition.set_min_in_sync(topic.config.min_insync_replicas as usize);
        partition.set_throttled(self.node, &topic.config);
        self.take_up(&partition, &topic, may_lead);
        self.keeper.opened(&partition, &topic);
        self.partitions.insert(partition, topic.internal);
    }

    /// Takes the logs of partitions that the cluster does not know, or not here, out of the way: of topics that were deleted
    /// while this node, or their directory, was down. They are kept, as Kafka keeps them.
    async fn set_strays_aside(&self, image: &Arc<ClusterImage>) {
        let (dirs, image, node) = (self.dirs.clone(), image.clone(), self.node);
        let done = spawn_blocking(move || dirs.iter().for_each(|dir| set_strays_aside(dir, &image, node)));
        if let Err(panic) = done.await {
            error!(%panic, "looking for stray logs panicked");
        }
    }

    async fn delete(&self, topic: &TopicImage) {
        let removed = self.partitions.remove(topic.id);
        let count = removed.len();
        let open: HashSet<PartitionIndex> = removed.iter().map(|partition| partition.id().index).collect();
        let closed: Vec<PartitionIndex> = self.ours(topic).filter(|index| !open.contains(index)).collect();
        for partition in &removed {
            self.peers.forget(partition.id());
            self.keeper.deleted(partition.id(), &topic.name);
        }
        let (dirs, name, id) = (self.dirs.clone(), topic.name.clone(), topic.id);
        let gone = spawn_blocking(move || delete_logs(&dirs, &name, id, &removed, &closed));
        match gone.await {
            Ok(()) => info!(topic = %topic.name, partitions = count, "topic deleted"),
            Err(panic) => error!(topic = %topic.name, %panic, "deleting a topic panicked"),
        }
    }
}

fn open_log(
    dir: &LogDirHealth,
    topic: &TopicImage,
    index: PartitionIndex,
    config: Arc<LogConfig>,
) -> Result<LocalLog, OpenError> {
    let Some(files) = dir.files() else { return Err(io::Error::other("the log directory failed").into()) };
    let (log, recovered) = files.open_log(&topic.name, topic.id, index, config, wall_clock())?;
    if recovered.bytes_cut > 0 {
        warn!(topic = %topic.name, partition = %index, bytes = recovered.bytes_cut, "a torn tail was cut");
    }
    Ok(log)
}

/// What is in the only log is committed.
fn is_alone(partition: &PartitionImage) -> bool {
    partition.replicas.len() <= 1
}

pub(super) fn wall_clock() -> Timestamp {
    let millis = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64);
    Timestamp::from_wire(millis).unwrap_or_default()
}

#[cfg(test)]
mod tests;
