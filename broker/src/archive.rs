//! The archive of the partitions on this node: uploads, cold reads and rewriting, tied to their logs.

use std::{
    collections::{BTreeMap, HashMap},
    num::NonZeroU64,
    sync::Arc,
    time::{Duration, SystemTime},
};

use futures::future::BoxFuture;
use parking_lot::RwLock;
use prometheus::Registry;
use tokio::time::{Instant, timeout};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{error, info, warn};
use varve_compactor::{
    metrics::CompactorMetrics,
    worker::{Assigned, Compactor, CompactorOptions},
};
use varve_log::local::LocalLog;
use varve_metadata::{
    cluster::ClusterMetadata,
    config::{FetchCompression, TopicConfig},
    image::TopicImage,
    model::{LastStableOffset, LeaderEpoch, LogStartOffset, Offset, PartitionId, TopicName},
};
use varve_table::Recompression;
use varve_tiering::layout::Version;
use varve_tiering::tier::{
    archiver::{Archiver, ArchiverMetrics, ArchiverOptions, LocalPartition, Pressure},
    bucket::{Bucket, BucketMetrics, OpenError},
    cluster::{Claim, ClusterError},
    cold::{ColdDisk, ColdMetrics, ColdOpenError, ColdOptions, ColdPartition, ColdReader},
    manifests::ManifestStore,
    partition::{RemotePartition, RemotePartitions},
};

use crate::{
    config::BrokerConfig,
    partition::{Keeper, Partition, Unsettled},
};

/// How long a starting node waits for the bucket to say whose it is, and what is in it.
const CLAIM_LIMIT: Duration = Duration::from_secs(10);
const LIST_LIMIT: Duration = Duration::from_secs(60);
/// How long the opening of a partition whose local log is empty waits for its manifest.
const OPENING_LIMIT: Duration = Duration::from_secs(10);
/// Between two tries to reach a bucket that was away at the start.
const CLAIM_EVERY: Duration = Duration::from_secs(2);

/// Why the archive cannot be used at the start.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// The bucket cannot be opened.
    #[error("the object store cannot be opened (varve.object.store.url)")]
    Bucket(#[from] OpenError),
    /// The bucket cannot be read, or belongs to another cluster.
    #[error("the object store cannot be used (varve.object.store.url)")]
    Cluster(#[source] Arc<ClusterError>),
    /// The directory of the cache cannot be used.
    #[error("the cache cannot be opened (varve.cache.*)")]
    Cache(#[from] ColdOpenError),
}

/// The archive as this node uses it.
pub struct Archive {
    remotes: Arc<RemotePartitions>,
    reader: ColdReader,
    /// Absent where the role `tiering` is not this process's.
    archiver: Option<Archiver>,
    compactor: Arc<Compactor>,
    led: RwLock<HashMap<PartitionId, Arc<Led>>>,
    claim: Arc<Claim>,
    /// What one listing at the start said of all partitions, and when it began; `None` if the bucket did not answer.
    listed: Option<Listed>,
    /// Over how long the first looks at partitions are spread; zero once the node serves.
    spread: RwLock<Duration>,
}

struct Listed {
    newest: BTreeMap<PartitionId, Version>,
    asked: (Instant, SystemTime),
}

impl std::fmt::Debug for Archive {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Archive").field("bucket", &self.remotes.store().bucket().url()).finish_non_exhaustive()
    }
}

impl Archive {
    /// Opens the bucket for cluster `cluster_id` and starts the uploads; partitions come through [`Keeper`].
    ///
    /// # Errors
    /// [`ArchiveError`].
    pub async fn open(
        config: &BrokerConfig,
        cluster_id: &str,
        registry: &Registry,
    ) -> Result<Arc<Archive>, ArchiveError> {
        let requests = BucketMetrics::new();
        registered(requests.register(registry));
        let bucket =
            Bucket::open(config.object_store.url.as_str(), config.object_store.bucket_options(), requests).await?;
        let claim = Arc::new(Claim::new(bucket.clone(), cluster_id));
        let is_ours = match timeout(CLAIM_LIMIT, claim.ours()).await {
            Ok(Err(error)) if !error.is_weather() => return Err(ArchiveError::Cluster(error)),
            Ok(Ok(())) => true,
            Ok(Err(error)) => {
                warn!(error = told(&*error), "the object store cannot be reached: serving what is on the local disk");
                false
            }
            Err(_) => {
                warn!("the object store does not answer: serving what is on the local disk");
                false
            }
        };
        let remotes = Arc::new(RemotePartitions::new(ManifestStore::new(bucket)));
        let listed = if is_ours { list(remotes.store()).await } else { None };
        let reads = ColdMetrics::new();
        registered(reads.register(registry));
        let reader = ColdReader::open(cold_options(config), reads).await?;
        let uploads = ArchiverMetrics::new();
        registered(uploads.register(registry));
        let archiver = config.roles.tiering.then(|| {
            let options = ArchiverOptions { claim: Some(claim.clone()), ..archiver_options(config) };
            Archiver::start(options, uploads)
        });
        let rewrites = CompactorMetrics::new();
        registered(rewrites.register(registry));
        let compactor = Arc::new(Compactor::new(remotes.clone(), compactor_options(config), rewrites));
        let spread = RwLock::new(config.archive.task_interval);
        Ok(Arc::new(Archive { remotes, reader, archiver, compactor, led: RwLock::default(), claim, listed, spread }))
    }

    /// Rewrites the archive of the partitions here until `stop`.
    pub fn compact_in_background(
        self: &Arc<Archive>,
        metadata: &Arc<ClusterMetadata>,
        tasks: &TaskTracker,
        stop: &CancellationToken,
    ) {
        let (archive, metadata, stop) = (self.clone(), metadata.clone(), stop.clone());
        let topics = move || Some(metadata.image().topics().values().map(|topic| topic.id).collect());
        tasks.spawn(async move {
            if archive.claimed(&stop).await {
                archive.compactor.run(|| archive.assigned(), topics, stop).await;
            }
        });
    }

    /// The partitions of the start are all here. Buries what topics left that were deleted right before the node ended, as
    /// soon as the bucket answers.
    pub fn started(
        self: &Arc<Archive>,
        metadata: &Arc<ClusterMetadata>,
        tasks: &TaskTracker,
        stop: &CancellationToken,
    ) {
        *self.spread.write() = Duration::ZERO;
        let (archive, metadata, stop) = (self.clone(), metadata.clone(), stop.clone());
        tasks.spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = archive.bury_unknown(&metadata, &stop) => {}
            }
        });
    }

    async fn bury_unknown(&self, metadata: &ClusterMetadata, stop: &CancellationToken) {
        let Some(archiver) = self.archiver.as_ref() else { return };
        if !self.claimed(stop).await {
            return;
        }
        let newest = match &self.listed {
            Some(listed) => listed.newest.clone(),
            None => match list(self.remotes.store()).await {
                Some(listed) => listed.newest,
                // The sweep comes to it.
                None => return,
            },
        };
        // Asked after the listing: a topic that is not there now and has an archive is gone.
        let image = metadata.image();
        let unknown = newest.into_iter().filter(|(id, _)| image.topic_by_id(id.topic).is_none());
        for (id, version) in unknown {
            match self.remotes.store().load(id, Version(version.0.saturating_sub(1))).await {
                Ok(Some(manifest)) if manifest.deleted_at().is_none() => {
                    warn!(topic = %manifest.topic(), partition = %id, "the topic of this archive is gone: burying it");
                    archiver.delete(self.remotes.get(id, manifest.topic()));
                }
                Ok(_) => {}
                Err(error) => warn!(partition = %id, %error, "an archive without a topic is left to the sweep"),
            }
        }
    }

    /// Waits until the bucket is ours; `false` if it never will be, or at `stop`.
    async fn claimed(&self, stop: &CancellationToken) -> bool {
        loop {
            match self.claim.ours().await {
                Ok(()) => return true,
                Err(error) if !error.is_weather() => {
                    error!(error = told(&*error), "nothing is archived");
                    return false;
                }
                Err(_) => {}
            }
            tokio::select! {
                () = stop.cancelled() => return false,
                () = tokio::time::sleep(CLAIM_EVERY) => {}
            }
        }
    }

    /// The handle of a partition, which knows what the listing at the start said.
    fn remote(&self, id: PartitionId, topic: &TopicName) -> Arc<RemotePartition> {
        let remote = self.remotes.get(id, topic);
        if let Some(listed) = &self.listed {
            remote.listed(listed.newest.get(&id).copied().unwrap_or(Version::NONE), listed.asked);
        }
        remote
    }

    /// What producers of archived partitions are to feel now, as Kafka's quotas are felt. Costs one atomic load.
    pub(crate) fn pressure(&self) -> Pressure {
        self.archiver.as_ref().map_or(Pressure::Fine, |archiver| archiver.pressure().now())
    }

    /// DeleteRecords moved the log start of a partition: the archive follows soon.
    pub(crate) fn log_start_moved(&self, id: PartitionId) {
        if let Some(archiver) = &self.archiver {
            archiver.wake(id);
        }
    }

    /// Ends uploads, and writes the cache to its disk.
    pub async fn close(&self) {
        if let Some(archiver) = &self.archiver {
            archiver.stop().await;
        }
        if let Err(error) = self.reader.close().await {
            warn!(%error, "the cache was not closed");
        }
    }

    fn assigned(&self) -> Vec<Assigned> {
        let led = self.led.read();
        let assigned = led.values().map(|led| Assigned {
            partition: led.partition.id(),
            topic: led.partition.topic().clone(),
            config: led.config.read().clone(),
            // The archiver, which knows the local log, counts both tiers for retention.bytes.
            local_bytes: 0,
        });
        assigned.collect()
    }

    fn take(&self, partition: &Arc<Partition>, topic: &TopicImage) {
        let remote = self.remote(partition.id(), &topic.name);
        let cold = self.reader.partition(remote.clone());
        cold.set_recompression(recompression(&topic.config));
        let led = Arc::new(Led {
            partition: partition.clone(),
            config: RwLock::new(topic.config.clone()),
            cold: cold.clone(),
        });
        partition.set_remote(Arc::new(cold));
        self.led.write().insert(partition.id(), led.clone());
        if let Some(archiver) = &self.archiver {
            archiver.add(led, remote, *self.spread.read());
        }
    }

    /// What was archived can still be read; nothing more is uploaded.
    fn let_go(&self, id: PartitionId) {
        self.led.write().remove(&id);
        if let Some(archiver) = &self.archiver {
            archiver.remove(id);
        }
    }
}

/// Internal topics stay on the local disk: their coordinators read them whole at each start.
pub(crate) fn is_archived(topic: &TopicImage) -> bool {
    topic.config.remote_storage && !topic.internal
}

impl Keeper for Archive {
    /// A log that is empty and not new may be one whose disk was lost: it goes on where the archive ends.
    fn opening<'a>(
        &'a self,
        topic: &'a TopicImage,
        id: PartitionId,
        log: &'a LocalLog,
        is_new: bool,
    ) -> BoxFuture<'a, Result<(), Unsettled>> {
        Box::pin(async move {
            if is_new || !is_archived(topic) || log.end().0 > Offset::ZERO {
                return Ok(());
            }
            let remote = self.remote(id, &topic.name);
            let unsettled = |why: String| {
                warn!(topic = %topic.name, partition = %id.index, why, "empty here; offline until the archive says where it ends");
                Err(Unsettled)
            };
            if !self.claim.is_ours() {
                return unsettled("the object store cannot be reached".to_owned());
            }
            let manifest = match timeout(OPENING_LIMIT, remote.loaded()).await {
                Ok(Ok(manifest)) => manifest,
                Ok(Err(error)) => return unsettled(told(&error)),
                Err(_) => return unsettled("the object store does not answer".to_owned()),
            };
            if manifest.end() == Offset::ZERO || manifest.deleted_at().is_some() {
                return Ok(());
            }
            match log.truncate_fully(manifest.end(), manifest.log_start().0) {
                Ok(removed) => {
                    drop(removed.purge());
                    if let Err(error) = log.learn_epochs(manifest.epochs()) {
                        warn!(topic = %topic.name, partition = %id.index, %error, "leader epochs are not on the disk");
                    }
                    info!(topic = %topic.name, partition = %id.index, end = %manifest.end(), "the local log is gone: going on behind the archive");
                }
                Err(error) => {
                    error!(topic = %topic.name, partition = %id.index, %error, "the local log cannot be moved");
                    return Err(Unsettled);
                }
            }
            Ok(())
        })
    }

    fn opened(&self, partition: &Arc<Partition>, topic: &TopicImage) {
        if is_archived(topic) {
            self.take(partition, topic);
        }
    }

    fn altered(&self, partition: &Arc<Partition>, topic: &TopicImage) {
        let led = self.led.read().get(&partition.id()).cloned();
        match (led, is_archived(topic)) {
            (Some(led), true) => {
                *led.config.write() = topic.config.clone();
                led.cold.set_recompression(recompression(&topic.config));
                if let Some(archiver) = &self.archiver {
                    archiver.wake(partition.id());
                }
            }
            (None, true) => self.take(partition, topic),
            (Some(_), false) => self.let_go(partition.id()),
            (None, false) => {}
        }
    }

    fn deleted(&self, id: PartitionId, topic: &TopicName) {
        let was_led = self.led.write().remove(&id).is_some();
        if let Some(archiver) = self.archiver.as_ref().filter(|_| was_led) {
            archiver.delete(self.remotes.get(id, topic));
        }
        self.remotes.forget(id);
    }
}

/// A partition of this node as the archiver sees it.
struct Led {
    partition: Arc<Partition>,
    config: RwLock<Arc<TopicConfig>>,
    cold: ColdPartition,
}

impl LocalPartition for Led {
    fn log(&self) -> &LocalLog {
        self.partition.log()
    }

    fn leader_epoch(&self) -> LeaderEpoch {
        self.partition.leader_epoch()
    }

    fn last_stable_offset(&self) -> LastStableOffset {
        self.partition.last_stable_offset()
    }

    fn topic_config(&self) -> Arc<TopicConfig> {
        self.config.read().clone()
    }

    /// The manifest remembers it, and the next checkpoint of the log directory does.
    fn log_start_moved(&self, _start: LogStartOffset) {}
}

/// The newest manifest version of every partition; `None`, and a line in the log, if the bucket does not say.
async fn list(store: &ManifestStore) -> Option<Listed> {
    let asked = (Instant::now(), SystemTime::now());
    match timeout(LIST_LIMIT, store.partitions()).await {
        Ok(Ok(newest)) => Some(Listed { newest, asked }),
        Ok(Err(error)) => {
            warn!(error = told(&error), "manifests cannot be listed; each is looked for when it is needed");
            None
        }
        Err(_) => {
            warn!("manifests are not listed in time; each is looked for when it is needed");
            None
        }
    }
}

/// An error with its causes.
fn told(error: &dyn std::error::Error) -> String {
    let chain = std::iter::successors(Some(error), |error| error.source()).map(ToString::to_string);
    chain.collect::<Vec<_>>().join(": ")
}

fn recompression(config: &TopicConfig) -> Recompression {
    match config.archive_fetch_compression {
        FetchCompression::None => Recompression::None,
        FetchCompression::Producer => Recompression::Producer,
    }
}

fn registered(result: Result<(), prometheus::Error>) {
    result.expect("each metric is declared once");
}

fn size(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

fn cold_options(config: &BrokerConfig) -> ColdOptions {
    let (cache, archive) = (&config.cache, &config.archive);
    let defaults = ColdOptions::default();
    ColdOptions {
        memory_bytes: size(cache.memory_bytes),
        disk: (cache.disk_bytes > 0).then(|| ColdDisk { directory: cache.dir.clone(), bytes: size(cache.disk_bytes) }),
        in_flight_reads: archive.read_concurrency as usize,
        read_ahead: size(cache.read_ahead_bytes.div_ceil(config.compactor.row_group_bytes.max(1))),
        ..defaults
    }
}

fn archiver_options(config: &BrokerConfig) -> ArchiverOptions {
    ArchiverOptions {
        workers: config.archive.upload_concurrency as usize,
        upload_rate: config.archive.upload_bytes_per_second.and_then(NonZeroU64::new),
        check_interval: config.logs.retention_check_interval,
        hot_limit: config.archive.local_max_bytes,
        ..ArchiverOptions::default()
    }
}

fn compactor_options(config: &BrokerConfig) -> CompactorOptions {
    let compactor = &config.compactor;
    let mut options = CompactorOptions {
        map_bytes: size(compactor.memory_bytes),
        jobs: compactor.threads as usize,
        interval: compactor.interval,
        grace: config.archive.grace,
        read_bytes_per_second: compactor.bytes_per_second.and_then(NonZeroU64::new),
        ..CompactorOptions::default()
    };
    // Garbage is looked for about as often as it comes of age.
    options.sweep_interval = options.sweep_interval.min(config.archive.grace.max(compactor.interval));
    options.limits.target = compactor.object_bytes;
    options.limits.small = options.limits.small.min(compactor.object_bytes);
    options.encode.group_bytes = size(compactor.row_group_bytes);
    options
}
