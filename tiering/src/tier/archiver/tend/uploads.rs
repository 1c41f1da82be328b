//! Bringing up what is sealed and decided: the object first, then the manifest.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::time::Instant;
use varve_log::local::SealedSegment;
use varve_metadata::model::{LastStableOffset, Offset};

use super::{Look, TendError, blocking, later, read_error};
use crate::{
    manifest::ManifestError,
    plan,
    tier::{
        archiver::share::Uploaded,
        partition::UpdateError,
        upload::{Part, upload},
    },
};

/// Segments of one partition that go up in one look; then others get their turn.
const UPLOADS_PER_LOOK: usize = 4;
/// A sealed segment with an open transaction is looked at again after this time.
const UNDECIDED: Duration = Duration::from_secs(2);

impl Look<'_> {
    /// Brings up what is sealed and decided. Returns a time after which to look again sooner than usual.
    pub(super) async fn upload(&mut self) -> Result<Option<Duration>, TendError> {
        for _ in 0..UPLOADS_PER_LOOK {
            let sealed = self.unarchived().await?;
            self.note_pending(&sealed);
            if !self.policy.uploads || sealed.is_empty() {
                return Ok(None);
            }
            let LastStableOffset(stable) = self.tended.local.last_stable_offset();
            let is_last = sealed.len() == 1;
            let Some(segment) = plan::next_upload(sealed, self.manifest.end(), stable) else {
                return Ok(Some(UNDECIDED));
            };
            if self.announce().await? {
                self.upload_one(segment, is_last).await?;
            }
        }
        Ok(Some(Duration::ZERO))
    }

    /// Before anything goes up: the archive is ours to write to, and starts where our log does. Whether it still ends where it
    /// did: the leader before us may have archived more until it heard of us, and what is to go up is then another segment.
    async fn announce(&mut self) -> Result<bool, TendError> {
        let end = self.manifest.end();
        self.tools.check_claim().await?;
        self.claim().await?;
        // What it archived meanwhile may be of another lineage.
        self.check_lineage()?;
        let start = self.log().start().0;
        if start > self.manifest.end() {
            // Nothing of what lies before was archived or ever will be.
            self.expire(start).await?;
        }
        Ok(self.manifest.end() == end)
    }

    async fn upload_one(&mut self, segment: SealedSegment, is_last: bool) -> Result<(), TendError> {
        let uploaded = match self.uploaded_before(segment.end) {
            Some(uploaded) => uploaded,
            None => self.send(segment, is_last).await?,
        };
        *self.tended.unpublished.lock() = Some(uploaded.clone());
        let published = self.publish(&uploaded).await;
        if matches!(published, Ok(()) | Err(TendError::Stale | TendError::Deposed | TendError::Deleted)) {
            *self.tended.unpublished.lock() = None;
        }
        published?;
        let (remote, object) = (&self.tended.remote, uploaded.object);
        self.tools.metrics.uploaded_segments.inc();
        self.tools.metrics.uploaded_bytes.inc_by(object.bytes);
        tracing::debug!(
            topic = %remote.topic(), partition = %remote.partition().index, base = %object.base, end = %object.end,
            bytes = object.bytes, version = %self.manifest.version(), "segment archived"
        );
        Ok(())
    }

    /// What an earlier look uploaded and could not publish, if it is what is to go up now.
    fn uploaded_before(&self, end: Offset) -> Option<Uploaded> {
        let uploaded = self.tended.unpublished.lock().clone()?;
        let object = &uploaded.object;
        let fits = (object.base, object.end, object.writer_epoch) == (self.manifest.end(), end, self.epoch);
        (fits && !uploaded.is_stale(self.tools.sharing.patience)).then_some(uploaded)
    }

    async fn send(&mut self, segment: SealedSegment, is_last: bool) -> Result<Uploaded, TendError> {
        let (base, end, epoch) = (self.manifest.end(), segment.end, self.epoch);
        let local = Arc::clone(&self.tended.local);
        let aborted = blocking(move || local.log().aborted(base, end).map_err(read_error)).await?;
        let is_small = segment.bytes < self.tools.sharing.below;
        let part = Part { segment, base, aborted, epoch };
        let (bucket, partition) = (self.tended.remote.bucket(), self.tended.remote.partition());
        // Who seals nothing by time is not waited for, and what must make room does not wait.
        let linger = plan::linger(&self.policy, is_last, self.tools.sharing.linger);
        let begun = (Instant::now(), SystemTime::now());
        match (&self.tools.pool, linger) {
            (Some(pool), Some(linger)) if is_small => {
                let linger = if self.tools.pressure.needs_room() { Duration::ZERO } else { linger };
                let shared = self.slot.without(pool.upload(bucket, partition, part, linger)).await;
                self.now = later(self.now, begun.0.elapsed());
                shared.map_err(TendError::Share)
            }
            _ => Ok(Uploaded { object: upload(bucket, partition, part, &self.tools.rate).await?, begun }),
        }
    }

    async fn publish(&mut self, uploaded: &Uploaded) -> Result<(), TendError> {
        let (epoch, object, patience) = (self.epoch, &uploaded.object, self.tools.sharing.patience);
        // Looked at for each try: the manifest may be long in coming.
        let published = self.update(|manifest| {
            let next = plan::with_uploaded(manifest, epoch, object)?;
            let adds = next.end() > manifest.end();
            if adds && uploaded.is_stale(patience) { Err(ManifestError::Gone(object.id)) } else { Ok(next) }
        });
        match published.await {
            Err(TendError::Manifest(UpdateError::Refused(ManifestError::Gone(_)))) => Err(TendError::Stale),
            outcome => outcome,
        }
    }
}
