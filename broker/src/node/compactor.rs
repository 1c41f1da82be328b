//! A process that rewrites the archive and serves nobody (`varve.roles=compactor`): etcd says what is to be done, the bucket is
//! all it reads and writes.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use futures::{StreamExt, stream};
use parking_lot::{Mutex, RwLock};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{info, warn};
use varve_compactor::{
    metrics::CompactorMetrics,
    worker::{Assigned, Compactor},
};
use varve_metadata::{
    cluster::{ClusterMetadata, CompactorMember},
    config::TopicConfig,
    image::ClusterImage,
    model::{PartitionId, TopicId},
};
use varve_tiering::{
    layout::Version,
    tier::{
        bucket::{Bucket, BucketMetrics},
        cluster::Claim,
        manifests::ManifestStore,
        partition::RemotePartitions,
    },
};

use super::{StartError, serve_http, store::follow_cluster};
use crate::{
    archive::{ArchiveError, archive_settings, compactor_options, forget_deleted, known_topics, registered, told},
    config::BrokerConfig,
    http::Health,
    metrics::{Metrics, register_build_info, show_clock},
};

/// The bucket is listed for what others published once in so many looks at all partitions.
const LOOKS_PER_LISTING: u32 = 6;
/// Manifests read at a time after a listing.
const READS: usize = 16;
/// Between two tries to reach a bucket.
const AGAIN: Duration = Duration::from_secs(2);

/// A running compactor.
pub struct CompactorNode {
    metadata: Arc<ClusterMetadata>,
    member: Arc<CompactorMember>,
    health: Health,
    tasks: TaskTracker,
    stop: CancellationToken,
    shutdown_timeout: Duration,
}

impl std::fmt::Debug for CompactorNode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CompactorNode").finish_non_exhaustive()
    }
}

impl CompactorNode {
    /// Starts to work, and returns when others know of it.
    ///
    /// # Errors
    /// [`StartError`]: what stands in the way; nothing is left running.
    pub async fn start(config: Arc<BrokerConfig>) -> Result<CompactorNode, StartError> {
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let (metrics, health) = (Metrics::new(), Health::starting());
        register_build_info(metrics.registry());
        show_clock(&metrics);
        serve_http(&config, &metrics, &health, &tasks, &stop).await?;

        let metadata = follow_cluster(&config, &metrics, &health).await?;

        health.waiting_for("the object store");
        let requests = BucketMetrics::new();
        registered(metrics.registry(), requests.collectors());
        let options = config.object_store.bucket_options();
        let bucket = Bucket::open(config.object_store.url.as_str(), options, requests).await;
        let bucket = bucket.map_err(ArchiveError::Bucket)?;
        let claim = Claim::new(bucket.clone(), metadata.image().cluster_id());
        claimed(&claim).await?;
        let rewrites = CompactorMetrics::new();
        registered(metrics.registry(), rewrites.collectors());
        let partitions = Arc::new(RemotePartitions::new(ManifestStore::new(bucket)));
        let compactor = Arc::new(Compactor::new(partitions.clone(), compactor_options(&config), rewrites));

        let member = Arc::new(CompactorMember::enroll(metadata.clone(), config.replication.session).await?);
        let work = Arc::new(Work::new(metadata.clone(), member.clone(), partitions, config.archive.backup_lag));
        tasks.spawn(work.clone().follow_settings(stop.clone()));
        tasks.spawn(work.clone().list_every(config.compactor.interval * LOOKS_PER_LISTING, stop.clone()));
        let (topics, ended) = (metadata.clone(), stop.clone());
        let (first, assigned) = (member.clone(), work);
        tasks.spawn(async move {
            let (known, forget) = (|| known_topics(&topics), |ids| forget_deleted(&topics, ids));
            compactor.run(|| assigned.assigned(), known, forget, || first.is_first(), ended).await;
        });
        health.ready();
        info!("ready: this process rewrites the archive");
        let shutdown_timeout = config.shutdown_timeout;
        Ok(CompactorNode { metadata, member, health, tasks, stop, shutdown_timeout })
    }

    /// Returns when this process cannot go on, and says why. Cancel-safe.
    pub async fn failed(&self) -> StartError {
        tokio::select! {
            unserved = self.metadata.outdated() => {
                self.health.broken("the cluster has agreed on a feature that this version does not serve");
                unserved.into()
            }
            how = self.metadata.put_back() => {
                self.health.broken("the metadata store was put back to an older state, or is another one");
                how.into()
            }
        }
    }

    /// Stops: what is under way is dropped, which leaves at most objects for the sweep; others take over.
    pub async fn stop(self) {
        info!("stopping");
        let begun = Instant::now();
        self.health.waiting_for("the stop");
        self.stop.cancel();
        self.tasks.close();
        if timeout_at(begun + self.shutdown_timeout, self.tasks.wait()).await.is_err() {
            warn!("background work did not end in time");
        }
        match Arc::try_unwrap(self.member) {
            Ok(member) => member.leave().await,
            // Work that did not end still holds it: the lease ends with the process.
            Err(_) => warn!("others are not told, they will miss this process"),
        }
        info!("stopped");
    }
}

/// Waits until the bucket has said whose it is.
async fn claimed(claim: &Claim) -> Result<(), StartError> {
    loop {
        match claim.ours().await {
            Ok(()) => return Ok(()),
            Err(error) if !error.is_weather() => return Err(ArchiveError::Cluster(error).into()),
            Err(error) => warn!(error = told(&*error), "the object store cannot be reached, trying again"),
        }
        tokio::time::sleep(AGAIN).await;
    }
}

/// What there is to do: the partitions that have an archive, by the last listing, with the settings of their topics.
struct Work {
    metadata: Arc<ClusterMetadata>,
    member: Arc<CompactorMember>,
    partitions: Arc<RemotePartitions>,
    /// `varve.backup.lag.ms`, which says whether internal topics have an archive.
    backup_lag: Option<Duration>,
    /// Each is one for all partitions of a topic, and changes under those who hold it.
    settings: Mutex<HashMap<TopicId, Arc<RwLock<Arc<TopicConfig>>>>>,
    archived: RwLock<Vec<PartitionId>>,
}

impl Work {
    fn new(
        metadata: Arc<ClusterMetadata>,
        member: Arc<CompactorMember>,
        partitions: Arc<RemotePartitions>,
        backup_lag: Option<Duration>,
    ) -> Work {
        let work =
            Work { metadata, member, partitions, backup_lag, settings: Mutex::default(), archived: RwLock::default() };
        work.learn_settings(&work.metadata.image());
        work
    }

    fn learn_settings(&self, image: &ClusterImage) {
        let mut settings = self.settings.lock();
        settings.retain(|topic, _| image.topic_by_id(*topic).is_some());
        for topic in image.topics().values() {
            let config = archive_settings(topic, self.backup_lag);
            match settings.get(&topic.id) {
                Some(known) if **known.read() == *config => {}
                Some(known) => *known.write() = config,
                None => drop(settings.insert(topic.id, Arc::new(RwLock::new(config)))),
            }
        }
    }

    /// Keeps to the settings that the image shows, until `stop`.
    async fn follow_settings(self: Arc<Work>, stop: CancellationToken) {
        let mut images = self.metadata.subscribe();
        loop {
            let image = images.borrow_and_update().clone();
            self.learn_settings(&image);
            tokio::select! {
                () = stop.cancelled() => return,
                changed = images.changed() => if changed.is_err() { return },
            }
        }
    }

    /// Finds out what others published, until `stop`: leaders upload, and nobody tells.
    async fn list_every(self: Arc<Work>, interval: Duration, stop: CancellationToken) {
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                listed = self.partitions.store().partitions() => match listed {
                    Ok(listed) => self.learn(listed).await,
                    Err(error) => warn!(error = told(&error), "manifests cannot be listed, trying again"),
                },
            }
            if timeout(interval, stop.cancelled()).await.is_ok() {
                return;
            }
        }
    }

    async fn learn(&self, listed: BTreeMap<PartitionId, Version>) {
        let image = self.metadata.image();
        let known = |id: PartitionId| Some((id, image.topic_by_id(id.topic)?.name.clone()));
        let ours: Vec<_> = listed.keys().filter_map(|id| known(*id)).collect();
        let news = ours.iter().filter(|(id, name)| {
            let handle = self.partitions.get(*id, name);
            self.member.works_on(*id) && listed.get(id).is_some_and(|newest| *newest > handle.manifest().version())
        });
        let read = |(id, name)| async move {
            if let Err(error) = self.partitions.get(id, &name).refresh().await {
                warn!(partition = %id, error = told(&error), "a manifest cannot be read, trying again");
            }
        };
        stream::iter(news.cloned().collect::<Vec<_>>()).for_each_concurrent(READS, read).await;
        *self.archived.write() = ours.into_iter().map(|(id, _)| id).collect();
    }

    fn assigned(&self) -> Vec<Assigned> {
        let image = self.metadata.image();
        let settings = self.settings.lock();
        let archived = self.archived.read();
        let ours = archived.iter().filter(|id| self.member.works_on(**id));
        let assigned = ours.filter_map(|id| {
            let topic = image.topic_by_id(id.topic)?;
            let config = settings.get(&id.topic)?.clone();
            // What is not archived yet only brokers know.
            Some(Assigned { partition: *id, topic: topic.name.clone(), config, local_bytes: 0 })
        });
        assigned.collect()
    }
}
