//! The tasks.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::task::spawn_blocking;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{error, info, warn};
use varve_log::local::RemovedFiles;
use varve_metadata::{cluster::ClusterMetadata, image::ClusterImage, model::Timestamp};

use super::{due::DueQueue, metrics::UpkeepMetrics, plan::is_archived, sweep::sweep};
use crate::{
    config::BrokerConfig,
    partition::{Partitions, storage::wall_clock},
};

/// The first look comes this soon after the start, however long the interval is.
const FIRST_LOOK: Duration = Duration::from_secs(30);

/// What the node says about upkeep.
#[derive(Clone, Debug)]
pub struct UpkeepSettings {
    /// Whether there is an archive at all.
    pub has_archive: bool,
    /// `log.retention.check.interval.ms`.
    pub sweep_interval: Duration,
    /// `producer.id.expiration.check.interval.ms`.
    pub producer_expiry_interval: Duration,
}

impl UpkeepSettings {
    /// The part of `config` that concerns upkeep.
    pub fn of(config: &BrokerConfig) -> UpkeepSettings {
        UpkeepSettings {
            has_archive: config.archive.enabled,
            sweep_interval: config.logs.retention_check_interval,
            producer_expiry_interval: config.producer_expiry_interval,
        }
    }
}

/// Background work on the local logs of a node.
pub struct Upkeep {
    pub(super) partitions: Arc<Partitions>,
    pub(super) metadata: Arc<ClusterMetadata>,
    pub(super) settings: UpkeepSettings,
    pub(super) metrics: UpkeepMetrics,
    /// Files that logs let go of, and when they may be deleted. What a stop leaves goes when the logs are next opened.
    pub(super) removed: DueQueue<RemovedFiles>,
    started: Instant,
}

impl std::fmt::Debug for Upkeep {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Upkeep").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl Upkeep {
    /// For the logs of `partitions`.
    pub fn new(
        partitions: Arc<Partitions>,
        metadata: Arc<ClusterMetadata>,
        settings: UpkeepSettings,
        metrics: UpkeepMetrics,
    ) -> Arc<Upkeep> {
        let (removed, started) = (DueQueue::default(), Instant::now());
        Arc::new(Upkeep { partitions, metadata, settings, metrics, removed, started })
    }

    /// Starts the tasks. They end when `stop` is cancelled.
    pub fn start(self: Arc<Upkeep>, tasks: &TaskTracker, stop: &CancellationToken) {
        tasks.spawn(self.clone().sweep_every(stop.clone()));
        tasks.spawn(self.clone().expire_producers_every(stop.clone()));
        tasks.spawn(self.purge_in_time(stop.clone()));
    }

    /// Monotonic time since the node started.
    pub(super) fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    async fn sweep_every(self: Arc<Upkeep>, stop: CancellationToken) {
        let interval = self.settings.sweep_interval;
        every(interval, &stop, || {
            let (upkeep, stop) = (self.clone(), stop.clone());
            move || upkeep.sweep(&upkeep.metadata.image(), wall_clock(), &stop)
        })
        .await;
    }

    /// Looks at every log once. Of a quiet log that takes two locks and no disk.
    pub(super) fn sweep(&self, image: &ClusterImage, now: Timestamp, stop: &CancellationToken) {
        let (mut segments, mut bytes) = (0, 0);
        for topic in self.partitions.topics() {
            // It may have been deleted since.
            let Some(known) = image.topic_by_id(topic.id) else { continue };
            let is_archived = is_archived(known, self.settings.has_archive);
            for partition in topic.partitions() {
                if stop.is_cancelled() {
                    return;
                }
                if partition.log_dir().is_failed() {
                    continue;
                }
                let removed = sweep(&partition, &known.config, is_archived, now);
                (segments, bytes) = (segments + removed.segments, bytes + removed.bytes);
                self.purge_later(removed, known.config.file_delete_delay);
            }
        }
        self.metrics.expired_segments.inc_by(segments.into());
        self.metrics.expired_bytes.inc_by(bytes);
        if segments > 0 {
            info!(segments, bytes, "segments expired");
        }
    }

    async fn expire_producers_every(self: Arc<Upkeep>, stop: CancellationToken) {
        let interval = self.settings.producer_expiry_interval;
        every(interval, &stop, || {
            let upkeep = self.clone();
            move || upkeep.expire_producers(wall_clock())
        })
        .await;
    }

    pub(super) fn expire_producers(&self, now: Timestamp) {
        let expired: usize = self.partitions.all().iter().map(|partition| partition.log().expire_producers(now)).sum();
        self.metrics.expired_producers.inc_by(expired as u64);
    }

    pub(super) fn purge_later(&self, removed: RemovedFiles, delay: Duration) {
        if !removed.paths.is_empty() {
            self.removed.push(self.elapsed().saturating_add(delay), removed);
        }
    }

    async fn purge_in_time(self: Arc<Upkeep>, stop: CancellationToken) {
        loop {
            let (due, next) = self.removed.take(self.elapsed());
            if !due.is_empty() && spawn_blocking(move || due.into_iter().for_each(purge)).await.is_err() {
                error!("deleting the files of removed segments panicked");
            }
            let wait = next.map_or(Duration::MAX, |next| next.saturating_sub(self.elapsed()));
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.removed.bell.notified() => {}
                () = tokio::time::sleep(wait) => {}
            }
        }
    }
}

pub(super) fn purge(removed: RemovedFiles) {
    if let Err(error) = removed.purge() {
        warn!(%error, "files of removed segments stay until the next start");
    }
}

/// Runs what `work` gives in a blocking thread, at every `interval` until `stop` is cancelled.
async fn every<F: FnOnce() + Send + 'static>(interval: Duration, stop: &CancellationToken, work: impl Fn() -> F) {
    let mut wait = interval.min(FIRST_LOOK);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(wait) => {}
        }
        wait = interval;
        if let Err(panic) = spawn_blocking(work()).await {
            error!(%panic, "upkeep panicked");
        }
    }
}
