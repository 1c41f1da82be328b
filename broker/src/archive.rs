//! The archive of the partitions on this node: uploads, cold reads and rewriting, tied to their logs.

mod backup;
mod bring_back;
mod ends;
mod keeper;
mod options;

use std::{
    collections::{BTreeMap, HashMap},
    num::NonZeroU64,
    sync::{Arc, atomic::AtomicBool},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use parking_lot::{Mutex, RwLock};
use prometheus::core::Collector;
use tokio::time::{Instant, timeout};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{error, info, warn};
use varve_compactor::{
    metrics::CompactorMetrics,
    worker::{Assigned, Compactor},
};
use varve_metadata::{
    cluster::ClusterMetadata,
    config::{CleanupPolicy, FetchCompression, TopicConfig},
    image::{PartitionImage, TopicImage},
    model::{BrokerId, KnownTopics, PartitionId, Timestamp, TopicId, TopicName},
};
use varve_table::Recompression;
use varve_tiering::layout::Version;
use varve_tiering::tier::{
    archiver::{Archiver, ArchiverMetrics, ArchiverOptions, Pressure},
    bucket::{Bucket, BucketMetrics, OpenError},
    cluster::{Claim, ClusterError},
    cold::{ColdMetrics, ColdOpenError, ColdReader},
    manifests::ManifestStore,
    partition::{RemotePartition, RemotePartitions},
    snapshots::Snapshots,
};

pub(crate) use self::options::compactor_options;
use self::{
    ends::ArchiveEnds,
    keeper::Led,
    options::{archiver_options, cold_options},
};
use crate::{config::BrokerConfig, metrics::Registry, partition::Partition};

/// How long a starting node waits for the bucket to say whose it is, and what is in it: a listing grows with the archive of the whole
/// cluster, and a start must not.
const CLAIM_LIMIT: Duration = Duration::from_secs(10);
const LIST_LIMIT: Duration = Duration::from_secs(3);
/// How long the listing may take once the node serves.
const LATER_LIST_LIMIT: Duration = Duration::from_secs(600);
/// How long the opening of a partition whose local log is empty waits for its manifest.
const OPENING_LIMIT: Duration = Duration::from_secs(10);
/// Between two looks for archives that have grown: what a crash keeps from the checkpoint is no older than this.
const SAVE_ENDS_EVERY: Duration = Duration::from_secs(5);
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
    node: BrokerId,
    remotes: Arc<RemotePartitions>,
    reader: ColdReader,
    /// Absent where the role `tiering` is not this process's.
    archiver: Option<Archiver>,
    compactor: Arc<Compactor>,
    led: RwLock<HashMap<PartitionId, Arc<Led>>>,
    claim: Arc<Claim>,
    /// What one listing at the start said of all partitions, and when it began; `None` if the bucket did not answer.
    listed: Option<Listed>,
    /// What this node itself remembers of where archives end.
    ends: Arc<ArchiveEnds>,
    /// Partitions of topics that do not archive, as long as no listing says whether they once did.
    unlisted: Mutex<Option<Vec<Arc<Partition>>>>,
    /// The bucket failed a partition that was opening: the others do not wait for it.
    is_slow: AtomicBool,
    /// Over how long the first looks at partitions are spread; zero once the node serves.
    spread: RwLock<Duration>,
    /// `varve.backup.lag.ms`; `None`: neither internal topics nor the cluster's state are copied.
    backup_lag: Option<Duration>,
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
    /// Opens the bucket for cluster `cluster_id` and starts the uploads; partitions come through [`Keeper`](crate::partition::Keeper).
    ///
    /// # Errors
    /// [`ArchiveError`].
    pub async fn open(
        config: &BrokerConfig,
        cluster_id: &str,
        registry: &Registry,
    ) -> Result<Arc<Archive>, ArchiveError> {
        let requests = BucketMetrics::new();
        registered(registry, requests.collectors());
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
        let listed = if is_ours { list(remotes.store(), LIST_LIMIT).await } else { None };
        let reads = ColdMetrics::new();
        registered(registry, reads.collectors());
        let reader = ColdReader::open(cold_options(config), reads).await?;
        let uploads = ArchiverMetrics::new();
        registered(registry, uploads.collectors());
        let archiver = config.roles.tiering.then(|| {
            let options = ArchiverOptions { claim: Some(claim.clone()), ..archiver_options(config) };
            Archiver::start(options, uploads)
        });
        let rewrites = CompactorMetrics::new();
        registered(registry, rewrites.collectors());
        let compactor = Arc::new(Compactor::new(remotes.clone(), compactor_options(config), rewrites));
        let spread = RwLock::new(config.archive.task_interval);
        let unlisted = Mutex::new(listed.is_none().then(Vec::new));
        let (led, is_slow) = (RwLock::default(), AtomicBool::new(false));
        let ends = Arc::new(ArchiveEnds::open(&config.data_dir));
        Ok(Arc::new(Archive {
            node: config.node,
            remotes,
            reader,
            archiver,
            compactor,
            led,
            claim,
            listed,
            ends,
            unlisted,
            is_slow,
            spread,
            backup_lag: config.archive.backup_lag.filter(|_| config.roles.tiering),
        }))
    }

    /// Rewrites the archive of the partitions that are led here until `stop`, as long as no process is there that does only
    /// that.
    pub fn compact_in_background(
        self: &Arc<Archive>,
        metadata: &Arc<ClusterMetadata>,
        tasks: &TaskTracker,
        stop: &CancellationToken,
    ) {
        let (archive, metadata, stop) = (self.clone(), metadata.clone(), stop.clone());
        tasks.spawn(async move {
            if archive.claimed(&stop).await {
                let topics = || known_topics(&metadata);
                let forget = |ids| forget_deleted(&metadata, ids);
                let is_ours = || metadata.image().membership().compactors().is_empty();
                let assigned = || if is_ours() { archive.assigned() } else { Vec::new() };
                archive.compactor.run(assigned, topics, forget, is_ours, stop).await;
            }
        });
    }

    /// The partitions of the start are all here. As soon as the bucket answers, what deleted topics left there right before
    /// the node ended is buried, and topics that no longer archive get back what they archived.
    pub fn started(
        self: &Arc<Archive>,
        metadata: &Arc<ClusterMetadata>,
        tasks: &TaskTracker,
        stop: &CancellationToken,
    ) {
        *self.spread.write() = Duration::ZERO;
        let (archive, image, ended) = (self.clone(), metadata.clone(), stop.clone());
        tasks.spawn(async move {
            while tokio::time::timeout(SAVE_ENDS_EVERY, ended.cancelled()).await.is_err() {
                let image = image.image();
                archive.save_ends(move |id| image.topic_by_id(id.topic).is_none()).await;
            }
        });
        if self.backup_lag.is_some() {
            let (archive, metadata, ended) = (self.clone(), metadata.clone(), stop.clone());
            tasks.spawn(async move {
                if archive.claimed(&ended).await {
                    let snapshots = Snapshots::new(archive.remotes.store().bucket().clone());
                    tokio::select! {
                        () = ended.cancelled() => {}
                        () = backup::back_up(snapshots, metadata, archive.node) => {}
                    }
                }
            });
        }
        let (archive, metadata, stop) = (self.clone(), metadata.clone(), stop.clone());
        tasks.spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = archive.settle_unknown(&metadata, &stop) => {}
            }
        });
    }

    async fn settle_unknown(&self, metadata: &ClusterMetadata, stop: &CancellationToken) {
        if !self.claimed(stop).await {
            return;
        }
        let newest = match &self.listed {
            Some(listed) => listed.newest.clone(),
            None => match list(self.remotes.store(), LATER_LIST_LIMIT).await {
                Some(listed) => listed.newest,
                // The sweep comes to it.
                None => return,
            },
        };
        for partition in self.unlisted.lock().take().unwrap_or_default() {
            let topic = metadata.image().topic_by_id(partition.id().topic).cloned();
            if let Some(topic) = topic.filter(|_| newest.contains_key(&partition.id())) {
                self.take(&partition, &topic);
            }
        }
        let Some(archiver) = self.archiver.as_ref() else { return };
        // What is neither there nor known to be deleted is kept, and told of by the sweep.
        let Some(topics) = known_topics(metadata).await else { return };
        for (id, version) in newest.into_iter().filter(|(id, _)| topics.is_deleted(id.topic)) {
            match self.remotes.store().load(id, Version(version.0.saturating_sub(1))).await {
                Ok(Some(manifest)) if manifest.deleted_at().is_none() => {
                    warn!(topic = %manifest.topic(), partition = %id, "the topic of this archive was deleted: burying it");
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

    /// What the producer of a request is to feel now, as Kafka's quotas are felt; counted. Costs one atomic load while there
    /// is room.
    pub(crate) fn pressure(&self) -> Pressure {
        let Some(archiver) = &self.archiver else { return Pressure::Fine };
        let pressure = archiver.pressure().now();
        match pressure {
            Pressure::Fine => {}
            Pressure::Throttle(_) => archiver.metrics().throttled_requests.inc(),
            Pressure::Refuse => archiver.metrics().refused_requests.inc(),
        }
        pressure
    }

    /// DeleteRecords moved the log start of a partition: the archive follows soon.
    pub(crate) fn log_start_moved(&self, id: PartitionId) {
        if let Some(archiver) = &self.archiver {
            archiver.wake(id);
        }
    }

    /// Writes down where the archives end that the bucket has told of.
    async fn save_ends(&self, is_gone: impl Fn(PartitionId) -> bool + Send + 'static) {
        let ids: Vec<PartitionId> = self.led.read().keys().copied().collect();
        let remotes = ids.into_iter().filter_map(|id| self.remotes.known(id)).filter(|remote| remote.is_loaded());
        let known: Vec<_> = remotes.map(|remote| (remote.partition(), remote.bounds().end)).collect();
        let ends = self.ends.clone();
        match tokio::task::spawn_blocking(move || ends.save(known, is_gone)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => warn!(error = told(&error), "where archives end is not on the disk"),
            Err(panic) => error!(%panic, "writing down where archives end panicked"),
        }
    }

    /// Ends uploads, and writes the cache to its disk.
    pub async fn close(&self) {
        if let Some(archiver) = &self.archiver {
            archiver.stop().await;
        }
        self.save_ends(|_| false).await;
        if let Err(error) = self.reader.close().await {
            warn!(%error, "the cache was not closed");
        }
    }

    fn assigned(&self) -> Vec<Assigned> {
        let led = self.led.read();
        let assigned = led.values().filter(|led| led.partition.is_leader()).map(|led| Assigned {
            partition: led.partition.id(),
            topic: led.partition.topic().clone(),
            config: led.config.clone(),
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
            config: Arc::new(RwLock::new(self.settings_of(topic))),
            cold: cold.clone(),
        });
        // Who reads an internal topic reads its local log; a copy that is on its way out is nobody's.
        if self.takes(topic) || !topic.internal {
            partition.set_remote(Arc::new(cold));
        }
        self.led.write().insert(partition.id(), led.clone());
        if let Some(archiver) = &self.archiver {
            archiver.add(led, remote, *self.spread.read());
        }
    }

    /// Whether the topic's segments go up: because it says so, or because coordinators need it back from the bucket.
    fn takes(&self, topic: &TopicImage) -> bool {
        is_archived(topic) || self.is_copied(topic)
    }

    /// Whether the topic is internal and has a copy in the archive, which nobody reads unless the local log is lost.
    fn is_copied(&self, topic: &TopicImage) -> bool {
        topic.internal && self.backup_lag.is_some()
    }

    /// Bounds on uploads and cold reads that changed while the node runs.
    pub(crate) fn set_limits(&self, config: &BrokerConfig) {
        let archive = &config.archive;
        self.reader
            .set_limits(archive.read_concurrency as usize, archive.read_bytes_per_second.and_then(NonZeroU64::new));
        if let Some(archiver) = &self.archiver {
            let rate = archive.upload_bytes_per_second.and_then(NonZeroU64::new);
            archiver.set_limits(archive.upload_concurrency as usize, rate);
        }
    }

    /// What the archiver and the compactor go by. To clients an internal topic is none that is archived.
    fn settings_of(&self, topic: &TopicImage) -> Arc<TopicConfig> {
        archive_settings(topic, self.backup_lag)
    }

    /// Whether nobody but this node can have records of the partition that were acknowledged.
    fn is_last(&self, topic: &TopicImage, id: PartitionId) -> bool {
        let Some((_, partition)) = topic.partition(id.index) else { return true };
        let PartitionImage { replicas, isr, elr, last_leader, emptied, .. } = partition;
        // Also where nobody is known to be in sync, because all of that was restored from a backup.
        if replicas[..] == [self.node] {
            return true;
        }
        let is_us = |member: &BrokerId| *member == self.node;
        let nobody = isr.is_empty() && elr.is_empty();
        // Where all who had them lost their disks, whoever of those is allowed to lead goes on where the archive ends.
        let was_us = last_leader.is_none() && emptied.iter().any(|replica| replica.broker == self.node);
        isr.iter().chain(elr).all(is_us) && (!nobody || was_us || *last_leader == Some(self.node))
    }

    /// Whether the bucket had a manifest of this partition when the node started.
    fn was_archived(&self, id: PartitionId) -> bool {
        self.listed.as_ref().is_some_and(|listed| listed.newest.contains_key(&id))
    }
}

/// What the archiver and the compactor go by, where internal topics are copied with that lag, or not at all.
pub(crate) fn archive_settings(topic: &TopicImage, backup_lag: Option<Duration>) -> Arc<TopicConfig> {
    if !topic.internal {
        return topic.config.clone();
    }
    Arc::new(TopicConfig {
        remote_storage: backup_lag.is_some(),
        remote_copy_disable: false,
        remote_delete_on_disable: true,
        archive_lag: backup_lag,
        // Retention is the local log's, which stays whole whatever else leaves the disk; the copy follows its start.
        cleanup: CleanupPolicy { delete: false, ..topic.config.cleanup },
        ..(*topic.config).clone()
    })
}

/// Whether clients see the topic as archived. Internal topics never are: their coordinators read them whole from the local
/// disk at each start (docs/adr/0019).
pub(crate) fn is_archived(topic: &TopicImage) -> bool {
    topic.config.remote_storage && !topic.internal
}

/// All topics that the cluster has now, and all that were deleted, for the sweep: what it finds of these it buries. `None`, and a line
/// in the log, if the metadata store does not say.
pub(crate) async fn known_topics(metadata: &ClusterMetadata) -> Option<KnownTopics> {
    let asked = metadata.known_topics().await;
    asked.inspect_err(|error| warn!(error = told(error), "archives without a topic are left to a later sweep")).ok()
}

/// Has the cluster forget deleted topics of which the archive has nothing more. A later sweep does what this one does not.
pub(crate) async fn forget_deleted(metadata: &ClusterMetadata, ids: Vec<TopicId>) {
    if let Err(error) = metadata.forget_deleted(&ids).await {
        warn!(error = told(&error), "deleted topics are forgotten later");
    }
}

/// The newest manifest version of every partition; `None`, and a line in the log, if the bucket does not say.
async fn list(store: &ManifestStore, limit: Duration) -> Option<Listed> {
    let asked = (Instant::now(), SystemTime::now());
    match timeout(limit, store.partitions()).await {
        Ok(Ok(newest)) => Some(Listed { newest, asked }),
        Ok(Err(error)) => {
            warn!(error = told(&error), "manifests cannot be listed; each is looked for when it is needed");
            None
        }
        Err(_) => {
            info!(?limit, "manifests are not listed in time; each is looked for when it is needed");
            None
        }
    }
}

/// The wall clock, as records and snapshots carry it.
fn wall_clock() -> Timestamp {
    let millis = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64);
    Timestamp::from_wire(millis).unwrap_or_default()
}

/// An error with its causes.
pub(crate) fn told(error: &dyn std::error::Error) -> String {
    let chain = std::iter::successors(Some(error), |error| error.source()).map(ToString::to_string);
    chain.collect::<Vec<_>>().join(": ")
}

fn recompression(config: &TopicConfig) -> Recompression {
    match config.archive_fetch_compression {
        FetchCompression::None => Recompression::None,
        FetchCompression::Producer => Recompression::Producer,
    }
}

/// Has `metrics` shown.
pub(crate) fn registered(registry: &Registry, metrics: Vec<Box<dyn Collector>>) {
    for metric in metrics {
        registry.register(metric).expect("each metric is declared once");
    }
}
