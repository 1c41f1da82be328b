//! The logs that the cleaner looks after, and how far it is with each.

use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio_util::sync::CancellationToken;
use tracing::warn;
use varve_metadata::model::{Offset, PartitionId, Timestamp};

use super::{Storage, wall_clock};
use crate::{
    config::CleanerConfig,
    partition::{CompactedLog, CompactedLogs, LogCleaner, Partition, UpkeepMetrics},
};

impl Storage {
    /// Compacts the logs that need it, until `stop` is cancelled.
    pub async fn clean_logs(
        self: Arc<Storage>,
        config: Arc<ArcSwap<CleanerConfig>>,
        metrics: UpkeepMetrics,
        stop: CancellationToken,
    ) {
        LogCleaner::new(self, config, metrics, stop).run().await;
    }
}

impl CompactedLogs for Arc<Storage> {
    async fn list(&self) -> Vec<CompactedLog> {
        let Some(image) = self.shown.lock().await.clone() else { return Vec::new() };
        let mut logs = Vec::new();
        for topic in image.topics().values().filter(|topic| topic.config.cleanup.compact) {
            for index in self.ours(topic) {
                let Ok(partition) = self.partitions.get(PartitionId { topic: topic.id, index }) else { continue };
                let dir = partition.log_dir();
                let checkpoint = dir.files().and_then(|files| files.cleaned_below(&topic.name, index));
                logs.push(CompactedLog { partition, topic: topic.config.clone(), checkpoint });
            }
        }
        logs
    }

    fn cleaned(&self, partition: &Partition, end: Offset) {
        let dir = partition.log_dir();
        let Some(files) = dir.files() else { return };
        if let Err(error) = files.set_cleaned_below(partition.topic(), partition.id().index, Some(end)) {
            warn!(dir = %files.path().display(), %error, "the cleaner's checkpoint could not be written");
        }
    }

    fn now(&self) -> Timestamp {
        wall_clock()
    }
}
