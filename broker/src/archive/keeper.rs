//! How the partitions of this node come into the archive's care, and what the archiver sees of them.

use std::sync::{Arc, atomic::Ordering};

use futures::future::BoxFuture;
use parking_lot::RwLock;
use tokio::time::timeout;
use tracing::{error, warn};
use varve_log::local::LocalLog;
use varve_metadata::{
    config::TopicConfig,
    image::TopicImage,
    model::{LastStableOffset, LeaderEpoch, LogEndOffset, LogStartOffset, Offset, PartitionId, TopicName},
};
use varve_tiering::{
    manifest::Manifest,
    tier::{
        archiver::LocalPartition,
        cold::{ColdError, ColdPartition},
        partition::RemotePartition,
    },
};

use super::{
    Archive, OPENING_LIMIT,
    bring_back::{SOMETHING, end_transactions},
    is_archived, recompression, told, wall_clock,
};
use crate::partition::{Keeper, Partition, Unsettled};

impl Keeper for Archive {
    fn missing<'a>(&'a self, topic: &'a TopicImage, id: PartitionId) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            if self.is_copied(topic) && self.is_last(topic, id) {
                self.note_end(id, SOMETHING).await;
            }
        })
    }

    /// A log that is not new, and is empty or ends before its archive by this node's own word, lost its disk or its end: it
    /// goes on where the archive ends, and waits until the archive says where.
    fn opening<'a>(
        &'a self,
        topic: &'a TopicImage,
        id: PartitionId,
        log: &'a LocalLog,
        is_new: bool,
    ) -> BoxFuture<'a, Result<(), Unsettled>> {
        Box::pin(async move {
            // Also of a topic that archives no longer: its offsets do not come back either.
            let (LogEndOffset(end), archived) = (log.end(), self.ends.of(id));
            let may_be_archived = match topic.internal {
                true => self.is_copied(topic),
                false => is_archived(topic) || self.was_archived(id) || archived > Offset::ZERO,
            };
            // What other replicas have comes from them.
            if is_new || !may_be_archived || !self.is_last(topic, id) {
                return Ok(());
            }
            // Most partitions of an internal topic are empty: that does not make one suspect if its files are there.
            let looks_whole = (end > Offset::ZERO || topic.internal) && end >= archived;
            if looks_whole && !topic.internal {
                self.catch_up(topic, id, log).await;
                return Ok(());
            }
            if looks_whole && !self.is_longer(topic, id, log).await {
                return Ok(());
            }
            let remote = self.remote(id, &topic.name);
            let unsettled = |why: String| {
                warn!(topic = %topic.name, partition = %id.index, %end, %archived, why, "its records, or the last of them, are gone here; offline until the archive says where it ends");
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
            if manifest.end() <= end || manifest.deleted_at().is_some() {
                self.note_end(id, manifest.end()).await;
                return Ok(());
            }
            match topic.internal {
                true => self.bring_back(&manifest, topic, remote, log).await,
                false => self.go_on(&manifest, topic, remote, log).await,
            }
        })
    }

    /// A topic whose archiving was turned off may have records in the archive still: the archiver removes them, or lets them
    /// expire, and until then they can be read. A copy of an internal topic that is not kept up any more goes: it would give
    /// back what was deleted meanwhile.
    fn opened(&self, partition: &Arc<Partition>, topic: &TopicImage) {
        if self.takes(topic) || self.was_archived(partition.id()) {
            self.take(partition, topic);
        } else if let Some(unlisted) = self.unlisted.lock().as_mut() {
            unlisted.push(partition.clone());
        }
    }

    fn altered(&self, partition: &Arc<Partition>, topic: &TopicImage) {
        let led = self.led.read().get(&partition.id()).cloned();
        match led {
            Some(led) => {
                *led.config.write() = self.settings_of(topic);
                led.cold.set_recompression(recompression(&topic.config));
                if let Some(archiver) = &self.archiver {
                    archiver.wake(partition.id());
                }
            }
            None if self.takes(topic) => self.take(partition, topic),
            None => {}
        }
    }

    fn deleted(&self, id: PartitionId, topic: &TopicName) {
        let was_led = self.led.write().remove(&id).is_some();
        if let Some(archiver) = self.archiver.as_ref().filter(|_| was_led) {
            archiver.delete(self.remotes.get(id, topic));
        }
        self.remotes.forget(id);
    }

    fn left(&self, id: PartitionId) {
        self.led.write().remove(&id);
        if let Some(archiver) = &self.archiver {
            archiver.remove(id);
        }
        self.remotes.forget(id);
    }
}

impl Archive {
    /// Whether the archive holds more than the log, though nothing here says so. Where the bucket does not answer, what is on
    /// the disk is served.
    async fn is_longer(&self, topic: &TopicImage, id: PartitionId, log: &LocalLog) -> bool {
        if !self.was_archived(id) || self.is_slow.load(Ordering::Relaxed) {
            return false;
        }
        match timeout(OPENING_LIMIT, self.remote(id, &topic.name).loaded()).await {
            Ok(Ok(manifest)) => manifest.deleted_at().is_none() && manifest.end() > log.end().0,
            Ok(Err(_)) | Err(_) => {
                self.is_slow.store(true, Ordering::Relaxed);
                warn!(topic = %topic.name, partition = %id.index, "opened without a look at its archive, and so are those that follow");
                false
            }
        }
    }

    /// A local log that ends before the archive was put back to an older state, or lost its end: its next offsets would be
    /// given out twice. All it holds is in the archive. Where the bucket does not answer, what is on the disk is served.
    async fn catch_up(&self, topic: &TopicImage, id: PartitionId, log: &LocalLog) {
        if !self.was_archived(id) || self.is_slow.load(Ordering::Relaxed) {
            return;
        }
        match timeout(OPENING_LIMIT, self.remote(id, &topic.name).loaded()).await {
            Ok(Ok(manifest)) if manifest.deleted_at().is_none() && manifest.end() > log.end().0 => {
                // A failure was told, and leaves the log as it was: the archiver goes no further with it.
                let _told = self.go_on(&manifest, topic, self.remote(id, &topic.name), log).await;
            }
            // A crash left the log start of an older checkpoint: readers that are sent there are refused.
            Ok(Ok(manifest)) if manifest.deleted_at().is_none() => {
                if let Err(error) = log.advance_log_start(manifest.log_start().0) {
                    warn!(topic = %topic.name, partition = %id.index, %error, "the log starts elsewhere than its archive");
                }
            }
            Ok(Ok(_)) => {}
            Ok(Err(error)) => {
                self.is_slow.store(true, Ordering::Relaxed);
                warn!(topic = %topic.name, partition = %id.index, error = told(&error), "opened without a look at its archive, and so are those that follow");
            }
            Err(_) => {
                self.is_slow.store(true, Ordering::Relaxed);
                warn!(topic = %topic.name, partition = %id.index, "opened without a look at its archive, which does not answer, and so are those that follow");
            }
        }
    }
}

impl Archive {
    /// As [`go_on_behind`]. Transactions that were under way there are ended as they were before, for it is known how: their markers
    /// are gone with the disk, and without one a reader would take the next transaction of an aborted one's producer for aborted, too.
    async fn go_on(
        &self,
        manifest: &Manifest,
        topic: &TopicImage,
        remote: Arc<RemotePartition>,
        log: &LocalLog,
    ) -> Result<(), Unsettled> {
        let (id, archived) = (remote.partition(), self.reader.partition(remote));
        let last = Offset::new(manifest.end().get().saturating_sub(1)).unwrap_or_default();
        let known = async {
            let open: Vec<_> =
                archived.producers().await?.into_iter().filter(|(_, at)| at.open_since.is_some()).collect();
            let aborted = if open.is_empty() { Vec::new() } else { archived.aborted(last, manifest.end()).await? };
            Ok::<_, ColdError>((open, aborted))
        };
        let (open, aborted) = match known.await {
            Ok(known) => known,
            Err(error @ ColdError::Corrupt { .. }) => {
                warn!(topic = %topic.name, partition = %id.index, error = told(&error), "what transactions were under way at the archive's end cannot be told");
                (Vec::new(), Vec::new())
            }
            Err(error) => {
                warn!(topic = %topic.name, partition = %id.index, error = told(&error), "the end of the archive cannot be read yet");
                return Err(Unsettled);
            }
        };
        go_on_behind(manifest, topic, id, log)?;
        if let Err(error) = end_transactions(log, open, &aborted, manifest.leader_epoch(), wall_clock()) {
            error!(topic = %topic.name, partition = %id.index, error = told(&error), "transactions that were under way at the archive's end have no marker");
        }
        Ok(())
    }
}

/// Empties the local log, to go on where the archive ends.
pub(super) fn go_on_behind(
    manifest: &Manifest,
    topic: &TopicImage,
    id: PartitionId,
    log: &LocalLog,
) -> Result<(), Unsettled> {
    let LogEndOffset(before) = log.end();
    // The disk may know of records that were deleted before the manifest was told.
    let start = manifest.log_start().max(log.start());
    match log.truncate_fully(manifest.end(), start.0) {
        Ok(removed) => {
            drop(removed.purge());
            if let Err(error) = log.learn_epochs(manifest.epochs()) {
                warn!(topic = %topic.name, partition = %id.index, %error, "leader epochs are not on the disk");
            }
            warn!(topic = %topic.name, partition = %id.index, end = %manifest.end(), local_end = %before, "the local log, or its end, is gone: going on behind the archive");
            Ok(())
        }
        Err(error) => {
            error!(topic = %topic.name, partition = %id.index, %error, "the local log cannot be moved");
            Err(Unsettled)
        }
    }
}

/// A partition of this node as the archiver sees it.
pub(super) struct Led {
    pub(super) partition: Arc<Partition>,
    pub(super) config: Arc<RwLock<Arc<TopicConfig>>>,
    pub(super) cold: ColdPartition,
}

impl LocalPartition for Led {
    fn log(&self) -> &LocalLog {
        self.partition.log()
    }

    fn is_led(&self) -> bool {
        self.partition.is_leader()
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
