//! Opens, alters and deletes local partitions so that they follow the cluster's image.
//!
//! One task does this, image by image. Opening and deleting is work for blocking threads, several partitions at a time;
//! requests meanwhile go on with the partitions that are in the table.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use futures::{StreamExt, stream};
use tokio::{sync::Mutex, task::spawn_blocking};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};
use varve_log::local::{LocalLog, LogConfig, OpenError, RecoveryStart};
use varve_metadata::{
    cluster::ClusterMetadata,
    config::TopicConfig,
    image::{ClusterImage, TopicChange, TopicImage},
    model::{BrokerId, PartitionId, PartitionIndex, Timestamp},
};

use super::{LogDirHealth, Partition, Partitions};

/// Partitions opened or deleted at a time.
const PARALLEL: usize = 8;
/// Suffix of a partition's directory between the topic's deletion and the removal of its files.
const DELETED: &str = "-delete";

/// What the node says about its storage.
#[derive(Debug, Clone)]
pub struct StorageSettings {
    /// `log.dirs`.
    pub dirs: Vec<PathBuf>,
    /// `producer.id.expiration.ms`.
    pub producer_expiry: Duration,
    /// `transaction.max.timeout.ms`.
    pub max_transaction_timeout: Duration,
}

/// Called with each partition after its log was opened and before a request can find it: the place to attach its
/// archive.
pub type Attach = Box<dyn Fn(&Arc<Partition>, &TopicImage) + Send + Sync>;

/// The log directories, and the partitions in them.
pub struct Storage {
    node: BrokerId,
    partitions: Arc<Partitions>,
    dirs: Vec<Arc<LogDirHealth>>,
    settings: StorageSettings,
    attach: Attach,
    shown: Mutex<Option<Arc<ClusterImage>>>,
}

impl std::fmt::Debug for Storage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Storage").field("dirs", &self.dirs).finish_non_exhaustive()
    }
}

impl Storage {
    /// Makes the directories that are missing. One that cannot be made or read is offline from the start.
    pub fn new(node: BrokerId, partitions: Arc<Partitions>, settings: StorageSettings, attach: Attach) -> Arc<Storage> {
        let dirs = settings.dirs.iter().map(|path| {
            let health = LogDirHealth::new(path.clone());
            if let Err(error) = std::fs::create_dir_all(path).and_then(|()| remove_deleted(path)) {
                health.fail(&error);
            }
            health
        });
        let dirs = dirs.collect();
        Arc::new(Storage { node, partitions, dirs, settings, attach, shown: Mutex::new(None) })
    }

    /// The log directories, failed ones too.
    pub fn dirs(&self) -> &[Arc<LogDirHealth>] {
        &self.dirs
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
            }
        }
    }

    /// Makes the table show `image`, and says so to those who wait in [`Partitions::caught_up`].
    pub async fn apply(&self, image: &Arc<ClusterImage>) {
        let mut shown = self.shown.lock().await;
        let changes = match shown.as_ref() {
            Some(before) => image.changes_since(before),
            None => image.topics().values().cloned().map(TopicChange::Created).collect(),
        };
        for change in &changes {
            if let TopicChange::Deleted(topic) = change {
                self.delete(topic).await;
            }
        }
        let mut to_open = Vec::new();
        for change in changes {
            match change {
                TopicChange::Deleted(_) => {}
                TopicChange::Created(topic) => to_open.extend(self.ours(&topic).map(|index| (topic.clone(), index))),
                TopicChange::Altered { now: topic, .. } => {
                    self.alter(&topic);
                    let missing = self
                        .ours(&topic)
                        .filter(|&index| self.partitions.get(PartitionId { topic: topic.id, index }).is_err());
                    to_open.extend(missing.map(|index| (topic.clone(), index)));
                }
            }
        }
        stream::iter(to_open).for_each_concurrent(PARALLEL, |(topic, index)| self.open(topic, index)).await;
        self.partitions.shows(image.revision());
        *shown = Some(image.clone());
    }

    /// Numbers of the topic's partitions that have a replica here.
    fn ours<'a>(&'a self, topic: &'a TopicImage) -> impl Iterator<Item = PartitionIndex> + 'a {
        let numbered = topic.partitions.iter().zip(0..);
        numbered
            .filter(|(partition, _)| partition.replicas.contains(&self.node))
            .map(|(_, index)| PartitionIndex(index))
    }

    fn log_config(&self, topic: &TopicConfig) -> Arc<LogConfig> {
        Arc::new(LogConfig::new(topic, self.settings.producer_expiry, self.settings.max_transaction_timeout))
    }

    fn alter(&self, topic: &TopicImage) {
        let config = self.log_config(&topic.config);
        for index in self.ours(topic) {
            let Ok(partition) = self.partitions.get(PartitionId { topic: topic.id, index }) else { continue };
            partition.log().update_config(config.clone());
            if let Some((_, image)) = topic.partition(index) {
                partition.lead_in(image.leader_epoch);
            }
        }
    }

    async fn open(&self, topic: Arc<TopicImage>, index: PartitionIndex) {
        let id = PartitionId { topic: topic.id, index };
        let Some((_, image)) = topic.partition(index) else { return };
        let name = format!("{}-{index}", topic.name);
        let Some((dir, is_new)) = self.place(&name) else {
            error!(topic = %topic.name, partition = %index, "no log directory is online");
            return self.partitions.insert_offline(id, &topic.name, topic.internal);
        };
        let (path, config) = (dir.path.join(name), self.log_config(&topic.config));
        let opened = spawn_blocking(move || open_log(&path, config, is_new)).await;
        let log = match opened {
            Ok(Ok(log)) => log,
            Ok(Err(OpenError::Storage(error))) => {
                dir.fail(&error);
                return self.partitions.insert_offline(id, &topic.name, topic.internal);
            }
            Err(panic) => {
                error!(topic = %topic.name, partition = %index, %panic, "opening a log panicked");
                return self.partitions.insert_offline(id, &topic.name, topic.internal);
            }
        };
        let partition = Partition::new(id, topic.name.clone(), log, dir, image.leader_epoch);
        (self.attach)(&partition, &topic);
        self.partitions.insert(partition, topic.internal);
    }

    /// The directory that has the partition, or else the one online that has the fewest.
    fn place(&self, name: &str) -> Option<(Arc<LogDirHealth>, bool)> {
        let online = || self.dirs.iter().filter(|dir| !dir.is_failed());
        if let Some(dir) = online().find(|dir| dir.path.join(name).is_dir()) {
            return Some((dir.clone(), false));
        }
        let emptiest = online().min_by_key(|dir| Arc::strong_count(dir))?;
        Some((emptiest.clone(), true))
    }

    async fn delete(&self, topic: &TopicImage) {
        let removed = self.partitions.remove(topic.id);
        let count = removed.len();
        let gone = spawn_blocking(move || removed.iter().for_each(|partition| delete_dir(partition))).await;
        match gone {
            Ok(()) => info!(topic = %topic.name, partitions = count, "topic deleted"),
            Err(panic) => error!(topic = %topic.name, %panic, "deleting a topic panicked"),
        }
    }
}

fn open_log(path: &Path, config: Arc<LogConfig>, is_new: bool) -> Result<LocalLog, OpenError> {
    let start = match is_new {
        true => RecoveryStart::NEW,
        false => RecoveryStart { clean: false, ..RecoveryStart::NEW },
    };
    let now = Timestamp::from_wire(0).unwrap_or_default();
    let (log, recovered) = LocalLog::open(path, config, start, now)?;
    if recovered.bytes_cut > 0 {
        warn!(dir = %path.display(), bytes = recovered.bytes_cut, "a torn tail was cut");
    }
    Ok(log)
}

/// The rename makes the name free for a new topic at once, and a crash in between is finished at the next start.
fn delete_dir(partition: &Partition) {
    let from = partition.log().dir();
    let to = partition.log_dir().path.join(format!("{}{DELETED}", partition.id()));
    if let Err(error) = std::fs::rename(from, &to).and_then(|()| std::fs::remove_dir_all(&to)) {
        warn!(dir = %from.display(), %error, "a deleted partition's files could not be removed");
    }
}

fn remove_deleted(dir: &Path) -> io::Result<()> {
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().ends_with(DELETED) {
            std::fs::remove_dir_all(entry.path())?;
        }
    }
    Ok(())
}
