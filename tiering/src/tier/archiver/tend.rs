//! One look at one partition: everything that is due is done, in the order that loses nothing.

mod error;
mod uploads;

use std::{io, sync::Arc, time::Duration};

use parking_lot::Mutex;
use varve_log::local::{EpochCache, LocalLog, ReadError, RemovedFiles, RollError, SealedSegment};
use varve_metadata::{
    config::TopicConfig,
    model::{LastStableOffset, LeaderEpoch, LogEndOffset, LogStartOffset, Offset, Timestamp},
};

use super::{
    metrics::ArchiverMetrics,
    pressure::HotPressure,
    share::{Pool, Sharing, Uploaded},
    slot::Slot,
};
use crate::{
    layout::Version,
    manifest::{Manifest, ManifestError, Writer},
    plan::{self, Policy},
    tier::{
        cluster::Claim,
        pace::ByteRate,
        partition::{RemotePartition, UpdateError},
    },
};

pub(super) use error::TendError;

/// What the archiver needs of a partition on this broker.
pub trait LocalPartition: Send + Sync + 'static {
    /// The local log.
    fn log(&self) -> &LocalLog;
    /// Whether this broker leads it: only then it writes to the archive.
    fn is_led(&self) -> bool {
        true
    }
    /// The epoch in which this broker leads it.
    fn leader_epoch(&self) -> LeaderEpoch;
    /// Below it all records are committed and their transactions decided.
    fn last_stable_offset(&self) -> LastStableOffset;
    /// The topic's settings in force.
    fn topic_config(&self) -> Arc<TopicConfig>;
    /// Retention has moved the log start to `start`: it must outlive a restart.
    fn log_start_moved(&self, start: LogStartOffset);
}

/// What all looks share.
pub(super) struct Tools {
    pub(super) rate: Arc<ByteRate>,
    pub(super) sharing: Sharing,
    /// `None`: nothing is shared.
    pub(super) pool: Option<Arc<Pool>>,
    pub(super) metrics: ArchiverMetrics,
    pub(super) regular: Duration,
    pub(super) pressure: Arc<HotPressure>,
    pub(super) claim: Option<Arc<Claim>>,
}

impl Tools {
    /// Nothing is written to a bucket that is not ours for sure.
    pub(super) async fn check_claim(&self) -> Result<(), TendError> {
        match &self.claim {
            Some(claim) => claim.ours().await.map_err(TendError::Claim),
            None => Ok(()),
        }
    }
}

/// A partition in the archiver's care.
pub(super) struct Tended {
    pub(super) local: Arc<dyn LocalPartition>,
    pub(super) remote: Arc<RemotePartition>,
    /// Files that the log let go of, and when they may be deleted.
    removed: Mutex<Vec<(Timestamp, RemovedFiles)>>,
    /// Sealed bytes that wait, and since when.
    pending: Mutex<(u64, Option<Timestamp>)>,
    /// What is in the bucket and, as far as is known, not in the manifest: the next look need not upload it again.
    unpublished: Mutex<Option<Uploaded>>,
}

/// Where one look has got to.
struct Look<'a> {
    tended: &'a Tended,
    tools: &'a Tools,
    slot: &'a Slot,
    now: Timestamp,
    config: Arc<TopicConfig>,
    policy: Policy,
    epoch: LeaderEpoch,
    manifest: Arc<Manifest>,
}

impl Tended {
    pub(super) fn new(local: Arc<dyn LocalPartition>, remote: Arc<RemotePartition>) -> Tended {
        Tended { local, remote, removed: Mutex::default(), pending: Mutex::default(), unpublished: Mutex::default() }
    }

    /// Sealed bytes that are not archived, and how long the oldest has waited.
    pub(super) fn pending(&self, now: Timestamp) -> (u64, Duration) {
        let (bytes, since) = *self.pending.lock();
        (
            bytes,
            since.map_or(Duration::ZERO, |since| Duration::from_millis(now.millis().saturating_sub(since.millis()))),
        )
    }

    /// Whether the local disk holds archived records that may leave it before their time.
    pub(super) fn may_make_room(&self) -> bool {
        let (log, end) = (self.local.log(), self.remote.bounds().end);
        log.local_start() < end.min(log.end().0) && Policy::of(&self.local.topic_config()).may_leave
    }

    /// Does what is due; returns when to look again.
    ///
    /// Cancel-safe: what was begun is an orphan or is found again by the next look.
    pub(super) async fn look(&self, tools: &Tools, slot: &Slot, now: Timestamp) -> Result<Duration, TendError> {
        let config = self.local.topic_config();
        let policy = Policy::of(&config);
        self.purge(now).await;
        // Sealing needs no bucket: it bounds what a quiet partition can lose of its promise when the bucket comes back.
        let local = Arc::clone(&self.local);
        blocking(move || local.log().roll_if_due(now, policy.seal_after).map_err(roll_error)).await?;
        let manifest = match self.remote.loaded().await {
            Ok(manifest) => manifest,
            // A topic that archives nothing does not depend on the bucket.
            Err(_) if !config.remote_storage => self.remote.manifest(),
            Err(error) => return Err(UpdateError::Store(error).into()),
        };
        if manifest.deleted_at().is_some() {
            return Err(TendError::Deleted);
        }
        let epoch = self.local.leader_epoch();
        let is_led = self.local.is_led();
        let manifest = if self.is_news_due(&manifest, epoch, is_led) {
            self.remote.refresh().await.map_err(UpdateError::Store)?
        } else {
            manifest
        };
        let mut look = Look { tended: self, tools, slot, now, config, policy, epoch, manifest };
        if !is_led {
            let LogStartOffset(start) = look.manifest.log_start();
            if start <= look.common_end().min(self.local.log().end().0) {
                look.advance_local_start(start)?;
            }
            look.delete_locally().await?;
            return Ok(look.again(None));
        }
        if look.check_lineage().is_err() {
            // An operator may have decided for our log since (`Manifest::parted_at`).
            look.manifest = self.remote.refresh().await.map_err(UpdateError::Store)?;
            look.check_lineage()?;
        }
        look.agree_on_log_start().await?;
        let soon = look.upload().await?;
        // That may have taken long: what was to be deleted before may be meant to stay now.
        look.config = self.local.topic_config();
        look.policy = Policy::of(&look.config);
        look.retain().await?;
        look.delete_locally().await?;
        Ok(look.again(soon))
    }

    /// Whether another broker may have written to the archive since: before our leadership, or now, where we follow and have
    /// something sealed that may be there by now.
    fn is_news_due(&self, manifest: &Manifest, epoch: LeaderEpoch, is_led: bool) -> bool {
        match is_led {
            true => manifest.version() != Version::NONE && manifest.leader_epoch() < epoch,
            false => self.local.log().active().0 > manifest.end(),
        }
    }

    /// Deletes files whose time has come (`file.delete.delay.ms`).
    async fn purge(&self, now: Timestamp) {
        let due: Vec<RemovedFiles> = {
            let mut removed = self.removed.lock();
            removed.extract_if(.., |(due, _)| *due <= now).map(|(_, files)| files).collect()
        };
        for files in due {
            if let Err(error) = blocking(move || files.purge()).await {
                tracing::warn!(partition = %self.remote.partition(), %error, "deleted segment files stay until the next start");
            }
        }
    }
}

impl Look<'_> {
    fn log(&self) -> &LocalLog {
        self.tended.local.log()
    }

    /// Up to where the archive holds the same records as the local log.
    fn common_end(&self) -> Offset {
        let (epochs, end) = self.local();
        plan::common_end(&self.manifest, &epochs, end)
    }

    /// The epochs of the local log, and where it ends.
    fn local(&self) -> (EpochCache, Offset) {
        let (epochs, LogEndOffset(end)) = (self.log().leader_epochs(), self.log().end());
        (epochs.into_iter().collect(), end)
    }

    /// Whether our log holds all that is archived, as far as it is not gone from its disk in favour of the archive.
    fn check_lineage(&self) -> Result<(), TendError> {
        // Our successor may have archived what we never had, before we hear of it.
        if self.manifest.leader_epoch() > self.epoch {
            return Err(TendError::Deposed);
        }
        let (epochs, end) = self.local();
        let (LogStartOffset(start), local_start) = (self.log().start(), self.log().local_start());
        if let Some(end) = plan::parted(&self.manifest, &epochs, end) {
            return Err(TendError::LocalLogLost { archived: self.manifest.end(), end });
        }
        let lacking = plan::set_aside_before(&self.manifest, start, local_start);
        lacking.map_or(Ok(()), |lacking| Err(TendError::SetAside(lacking)))
    }

    /// DeleteRecords moves the local log's start, expiry by another process the manifest's: both follow the larger.
    async fn agree_on_log_start(&mut self) -> Result<(), TendError> {
        let LogStartOffset(remote) = self.manifest.log_start();
        self.advance_local_start(remote)?;
        if self.policy.empties {
            return self.empty().await;
        }
        let local = self.log().start().0;
        // Also where the archive holds nothing (any more): a disk that is lost must not take the offsets back to its end.
        let is_known = self.manifest.version() != Version::NONE && self.policy.uploads;
        if local > remote && (is_known || !self.manifest.is_empty()) {
            self.expire(local).await?;
        }
        Ok(())
    }

    /// Archiving was turned off and the archive is to go (KIP-950): only what the local log has stays readable.
    async fn empty(&mut self) -> Result<(), TendError> {
        if self.manifest.is_empty() {
            return Ok(());
        }
        let start = self.log().local_start();
        self.claim().await?;
        let (epoch, now, objects) = (self.epoch, self.now, self.manifest.object_count());
        // The end goes back, to where what was uploaded before would fit; it may have been named and swept since.
        *self.tended.unpublished.lock() = None;
        self.update(|manifest| manifest.emptied(Writer::Leader(epoch), start, now)).await?;
        let (topic, partition) = (self.manifest.topic(), self.manifest.partition());
        tracing::info!(%topic, partition = %partition.index, objects, %start, "archiving was turned off: the archive is emptied");
        self.advance_local_start(start)
    }

    /// Announces our epoch, before anything else is written in it.
    async fn claim(&mut self) -> Result<(), TendError> {
        let epoch = self.epoch;
        if self.manifest.leader_epoch() == epoch && self.manifest.version() != Version::NONE {
            return Ok(());
        }
        self.update(|manifest| manifest.claimed_by(epoch)).await
    }

    async fn expire(&mut self, start: Offset) -> Result<(), TendError> {
        self.claim().await?;
        let (epoch, now) = (self.epoch, self.now);
        self.update(|manifest| manifest.expire(Writer::Leader(epoch), start, now)).await
    }

    async fn update(
        &mut self,
        change: impl FnMut(&Manifest) -> Result<Manifest, ManifestError>,
    ) -> Result<(), TendError> {
        self.manifest = self.tended.remote.update(change).await.map_err(|error| match error {
            UpdateError::Refused(ManifestError::Fenced { .. }) => TendError::Deposed,
            UpdateError::Refused(ManifestError::Deleted) => TendError::Deleted,
            error => TendError::Manifest(error),
        })?;
        Ok(())
    }

    /// `retention.ms` and `retention.bytes` over both tiers: first the manifest, then the log start; files follow.
    async fn retain(&mut self) -> Result<(), TendError> {
        let (time, bytes) = (self.policy.retention_time, self.policy.retention_bytes);
        if (time.is_none() && bytes.is_none()) || (self.manifest.is_empty() && self.log().size() == 0) {
            return Ok(());
        }
        let sealed = self.unarchived().await?;
        let ((base, in_active, _), LogEndOffset(end)) = (self.log().active(), self.log().end());
        let local_only = plan::local_only_bytes(&sealed, (base..end, in_active), self.manifest.end());
        let mut start = self.retained_from(local_only).await?;
        if start >= self.manifest.end() {
            // The archive goes as a whole, so the local log is asked too, archived or not.
            let (local, now) = (Arc::clone(&self.tended.local), self.now);
            let LastStableOffset(stable) = local.last_stable_offset();
            let expired = move || local.log().expired_below(now, time, bytes, stable).map_err(read_error);
            start = start.max(blocking(expired).await?);
        }
        if start <= self.log().start().0 {
            return Ok(());
        }
        if !self.manifest.is_empty() {
            self.expire(start).await?;
        }
        self.advance_local_start(start)
    }

    async fn retained_from(&self, local_only: u64) -> Result<Offset, TendError> {
        let (time, bytes) = (self.policy.retention_time, self.policy.retention_bytes);
        let remote = &self.tended.remote;
        let mut manifest = Manifest::clone(&self.manifest);
        loop {
            match plan::retained_from(&manifest, self.now, time, bytes, local_only) {
                Ok(start) => return Ok(start),
                Err(ManifestError::LeafNeeded(leaf)) => {
                    let entries = remote.store().leaf(remote.partition(), &leaf).await.map_err(UpdateError::Store)?;
                    manifest = manifest.inline(&leaf, &entries).map_err(UpdateError::Refused)?;
                }
                Err(error) => return Err(UpdateError::Refused(error).into()),
            }
        }
    }

    /// Gives up local copies: only what the published manifest covers, and what lies below the log start.
    async fn delete_locally(&mut self) -> Result<(), TendError> {
        let (time, bytes) = (self.policy.local_time, self.policy.local_bytes);
        let LastStableOffset(stable) = self.tended.local.last_stable_offset();
        let (epochs, end) = self.local();
        let covered = plan::may_leave_below(&self.manifest, &epochs, end, stable);
        let now = self.now;
        let local = Arc::clone(&self.tended.local);
        let makes_room = self.policy.may_leave && self.tools.pressure.needs_room();
        let removed = blocking(move || {
            let log = local.log();
            // What the archive lacks stays until the log start is written down: a crash would leave the start of before, and readers at
            // it with nothing.
            let start = log.start().0.min(log.kept_start().0.max(covered));
            let expired = match time.is_some() || bytes.is_some() {
                _ if makes_room => covered,
                true => log.expired_below(now, time, bytes, covered).map_err(read_error)?,
                false => start,
            };
            // The log of the same name never goes back, so a start read before is still right.
            log.delete_local_below(expired.max(start)).map_err(roll_error)
        })
        .await?;
        if removed.segments > 0 {
            self.tools.metrics.deleted_local_segments.inc_by(removed.segments.into());
            self.tools.pressure.released(removed.bytes);
            let delay = if makes_room { Duration::ZERO } else { self.config.file_delete_delay };
            self.tended.removed.lock().push((later(self.now, delay), removed));
        }
        Ok(())
    }

    fn advance_local_start(&self, start: Offset) -> Result<(), TendError> {
        if self.log().advance_log_start(start).map_err(read_error)? {
            self.tended.local.log_start_moved(LogStartOffset(start));
        }
        Ok(())
    }

    /// Sealed segments that reach beyond the archive.
    async fn unarchived(&self) -> Result<Vec<SealedSegment>, TendError> {
        let archived = self.manifest.end();
        if self.log().active().0 <= archived {
            return Ok(Vec::new());
        }
        let local = Arc::clone(&self.tended.local);
        Ok(blocking(move || local.log().sealed_segments(archived).map_err(roll_error)).await?)
    }

    fn note_pending(&self, sealed: &[SealedSegment]) {
        let archived = self.manifest.end();
        let nothing = (archived..archived, 0);
        let bytes = if self.policy.uploads { plan::local_only_bytes(sealed, nothing, archived) } else { 0 };
        let mut pending = self.tended.pending.lock();
        let since = (bytes > 0).then(|| pending.1.unwrap_or(self.now));
        *pending = (bytes, since);
    }

    fn again(&self, soon: Option<Duration>) -> Duration {
        let (_, _, active_since) = self.log().active();
        let regular = self.tools.regular;
        let again =
            plan::look_again_after(&self.policy, self.now, active_since, self.config.max_segment_time(), regular);
        let purge = self.tended.removed.lock().iter().map(|(due, _)| *due).min();
        let purge = purge.map(|due| Duration::from_millis(due.millis().saturating_sub(self.now.millis())));
        [soon, purge].into_iter().flatten().fold(again, Duration::min)
    }
}

fn later(now: Timestamp, delay: Duration) -> Timestamp {
    let millis = u128::from(now.millis()).saturating_add(delay.as_millis());
    Timestamp::from_wire(i64::try_from(millis).unwrap_or(i64::MAX)).unwrap_or(now)
}

fn roll_error(error: RollError) -> io::Error {
    io::Error::other(error)
}

fn read_error(error: ReadError) -> io::Error {
    io::Error::other(error)
}

/// Runs file work off the async threads.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(io::Error::other(error)))
}
