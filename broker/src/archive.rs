//! The archive of the partitions on this node: uploads, cold reads and rewriting, tied to their logs.

use std::{collections::HashMap, num::NonZeroU64, sync::Arc};

use futures::future::BoxFuture;
use parking_lot::RwLock;
use prometheus::Registry;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{error, info, warn};
use varve_compactor::{
    metrics::CompactorMetrics,
    worker::{Assigned, Compactor, CompactorOptions},
};
use varve_log::local::LocalLog;
use varve_metadata::{
    config::{FetchCompression, TopicConfig},
    image::TopicImage,
    model::{LastStableOffset, LeaderEpoch, LogStartOffset, Offset, PartitionId, TopicName},
};
use varve_table::Recompression;
use varve_tiering::tier::{
    archiver::{Archiver, ArchiverMetrics, ArchiverOptions, LocalPartition, Pressure},
    bucket::{Bucket, BucketMetrics, OpenError},
    cluster::{ClusterError, claim_bucket},
    cold::{ColdDisk, ColdMetrics, ColdOpenError, ColdOptions, ColdPartition, ColdReader},
    manifests::ManifestStore,
    partition::RemotePartitions,
};

use crate::{
    config::BrokerConfig,
    partition::{Keeper, Partition},
};

/// Why the archive cannot be used at the start.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// The bucket cannot be opened.
    #[error("the object store cannot be opened (varve.object.store.url)")]
    Bucket(#[from] OpenError),
    /// The bucket cannot be read, or belongs to another cluster.
    #[error("the object store cannot be used (varve.object.store.url)")]
    Cluster(#[from] ClusterError),
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
        claim_bucket(&bucket, cluster_id).await?;
        let remotes = Arc::new(RemotePartitions::new(ManifestStore::new(bucket)));
        let reads = ColdMetrics::new();
        registered(reads.register(registry));
        let reader = ColdReader::open(cold_options(config), reads).await?;
        let uploads = ArchiverMetrics::new();
        registered(uploads.register(registry));
        let archiver = config.roles.tiering.then(|| Archiver::start(archiver_options(config), uploads));
        let rewrites = CompactorMetrics::new();
        registered(rewrites.register(registry));
        let compactor = Arc::new(Compactor::new(remotes.clone(), compactor_options(config), rewrites));
        Ok(Arc::new(Archive { remotes, reader, archiver, compactor, led: RwLock::default() }))
    }

    /// Rewrites the archive of the partitions here until `stop`.
    pub fn compact_in_background(self: &Arc<Archive>, tasks: &TaskTracker, stop: &CancellationToken) {
        let (archive, stop) = (self.clone(), stop.clone());
        tasks.spawn(async move { archive.compactor.run(|| archive.assigned(), stop).await });
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
        let remote = self.remotes.get(partition.id(), &topic.name);
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
            archiver.add(led, remote, std::time::Duration::ZERO);
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
    /// A log that is empty at the node's start may be one whose disk was lost: it goes on where the archive ends.
    fn opening<'a>(
        &'a self,
        topic: &'a TopicImage,
        id: PartitionId,
        log: &'a LocalLog,
        is_start: bool,
    ) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            if !is_start || !is_archived(topic) || log.end().0 > Offset::ZERO {
                return;
            }
            let manifest = match self.remotes.get(id, &topic.name).loaded().await {
                Ok(manifest) => manifest,
                Err(error) => {
                    error!(topic = %topic.name, partition = %id.index, %error, "the archive's end cannot be asked for");
                    return;
                }
            };
            if manifest.end() == Offset::ZERO {
                return;
            }
            match log.truncate_fully(manifest.end(), manifest.log_start().0) {
                Ok(removed) => {
                    drop(removed.purge());
                    info!(topic = %topic.name, partition = %id.index, end = %manifest.end(), "the local log is gone: going on behind the archive");
                }
                Err(error) => {
                    error!(topic = %topic.name, partition = %id.index, %error, "the local log cannot be moved")
                }
            }
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
