//! Reads of one partition's archive.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use bytes::Bytes;
use parking_lot::Mutex;
use varve_log::{
    format::BatchHeader,
    local::{AbortedTxn, OffsetAndTimestamp},
};
use varve_metadata::model::{LeaderEpoch, Offset, Timestamp};
use varve_table::Recompression;

use super::{
    cache::RunKey,
    error::ColdError,
    metrics::Source,
    object::Opened,
    reader::{ColdReader, Part},
    select,
    streams::Advice,
};
use crate::{manifest::RemoteObject, tier::partition::RemotePartition};

/// Manifests loaded anew for one read because an object was gone.
const RELOADS: usize = 3;
/// Readers of one partition whose place within a unit is remembered.
const BOOKMARKS: usize = 16;

/// The archived part of one partition, to be read. Clones are the same.
#[derive(Clone, Debug)]
pub struct ColdPartition {
    pub(super) reader: ColdReader,
    remote: Arc<RemotePartition>,
    recompress: Arc<AtomicBool>,
    /// Held while a manifest is loaded because an object was gone: all who found it gone share the load.
    reloading: Arc<tokio::sync::Mutex<()>>,
    /// Where readers stopped within units: reading on needs no walk from the unit's start.
    bookmarks: Arc<Mutex<VecDeque<Bookmark>>>,
}

#[derive(Clone, Copy, Debug)]
struct Bookmark {
    unit: RunKey,
    next: Offset,
    position: usize,
}

/// Whole batches out of the archive.
#[derive(Clone, Debug, Default)]
pub struct ColdBatches {
    /// Whole batches; pieces follow each other without a gap in their bytes. The first batch holds the offset asked for, or
    /// is the first after it.
    pub pieces: Vec<Bytes>,
    /// The offset behind the last batch; where the archive was searched up to if there is none.
    pub end: Offset,
    /// Aborted transactions that a read_committed reader meets here, by first offset.
    pub aborted: Vec<AbortedTxn>,
}

impl ColdBatches {
    /// Bytes of all batches.
    pub fn len(&self) -> usize {
        self.pieces.iter().map(Bytes::len).sum()
    }

    /// Whether there is no batch.
    pub fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }
}

impl ColdPartition {
    pub(super) fn new(reader: ColdReader, remote: Arc<RemotePartition>) -> ColdPartition {
        ColdPartition {
            reader,
            remote,
            recompress: Arc::default(),
            reloading: Arc::default(),
            bookmarks: Arc::default(),
        }
    }

    /// The handle below.
    pub fn remote(&self) -> &Arc<RemotePartition> {
        &self.remote
    }

    /// Whether batches out of Parquet are given out with the codec that their producer used
    /// (`varve.archive.fetch.compression=producer`) or uncompressed. For reads from now on.
    pub fn set_recompression(&self, recompression: Recompression) {
        self.recompress.store(recompression == Recompression::Producer, Ordering::Relaxed);
    }

    pub(super) fn recompression(&self) -> Recompression {
        if self.recompress.load(Ordering::Relaxed) { Recompression::Producer } else { Recompression::None }
    }

    /// First offset in the archive and the offset behind its last one, from memory; `None` while it holds nothing.
    pub fn bounds(&self) -> Option<(Offset, Offset)> {
        let bounds = self.remote.bounds();
        (bounds.start.0 < bounds.end).then_some((bounds.start.0, bounds.end))
    }

    /// Stored bytes, from memory.
    pub fn size(&self) -> u64 {
        self.remote.bounds().bytes
    }

    /// The largest archived epoch not above `epoch`, and the offset behind its last archived record; from memory.
    pub fn end_of_epoch(&self, epoch: LeaderEpoch) -> Option<(LeaderEpoch, Offset)> {
        let manifest = self.remote.manifest();
        let (found, end) = manifest.end_of_epoch(epoch)?;
        Some((found, end.unwrap_or(manifest.end())))
    }

    /// The archived epochs with the first offset of each, oldest first; from memory.
    pub fn epochs(&self) -> Vec<(LeaderEpoch, Offset)> {
        self.remote.manifest().epochs().to_vec()
    }

    /// Epoch of the archived record at `offset`, from memory.
    pub fn epoch_at(&self, offset: Offset) -> Option<LeaderEpoch> {
        let manifest = self.remote.manifest();
        let epochs = manifest.epochs();
        let after = epochs.partition_point(|(_, start)| *start <= offset);
        (offset < manifest.end()).then(|| after.checked_sub(1).map(|index| epochs[index].0)).flatten()
    }

    /// Whole batches from the one that holds `from`, all of whose offsets lie below `bound`: at most `max_bytes`, or else one
    /// batch. Empty only if the archive holds no batch in `from..bound`.
    ///
    /// # Errors
    /// [`ColdError::OutOfRange`] if the archive does not cover `from`; the others as they say.
    pub async fn read(&self, from: Offset, bound: Offset, max_bytes: u32) -> Result<ColdBatches, ColdError> {
        let advice = self.reader.advise(self.remote.partition(), from);
        let read = self.retrying(|| self.try_read(from, bound, max_bytes as usize, advice)).await?;
        self.reader.served(self.remote.partition(), from, read.end);
        self.reader.metrics().served(read.len() as u64);
        Ok(read)
    }

    /// Transactions aborted among the offsets `from..to`, by first offset.
    ///
    /// # Errors
    /// [`ColdError`].
    pub async fn aborted(&self, from: Offset, to: Offset) -> Result<Vec<AbortedTxn>, ColdError> {
        self.retrying(|| async {
            let manifest = self.remote.loaded().await?;
            let mut found = Vec::new();
            for object in self.remote.objects(&manifest, from, to).await? {
                let opened = self.reader.opened(&self.part(object)).await?;
                found.extend(opened.aborted().iter().filter(|txn| txn.overlaps(from, to)));
            }
            Ok(in_order(found))
        })
        .await
    }

    /// First record at or after `from` with a timestamp of `target` or later.
    ///
    /// # Errors
    /// [`ColdError`].
    pub async fn offset_for_timestamp(
        &self,
        target: Timestamp,
        from: Offset,
    ) -> Result<Option<OffsetAndTimestamp>, ColdError> {
        self.retrying(|| self.try_timestamp(target, from)).await
    }

    async fn try_read(
        &self,
        from: Offset,
        bound: Offset,
        max_bytes: usize,
        advice: Advice,
    ) -> Result<ColdBatches, ColdError> {
        let started = Instant::now();
        let manifest = self.remote.loaded().await?;
        if from < manifest.log_start().0 || from >= manifest.end() {
            return Err(ColdError::OutOfRange(from));
        }
        let mut read = ColdBatches { end: from, ..ColdBatches::default() };
        // Where the next unit is looked for: behind `read.end` where units hold nothing that is asked for.
        let mut probe = from;
        while probe < bound {
            let Some(object) = self.remote.find(probe).await? else { break };
            let part = self.part(object);
            let opened = self.reader.opened(&part).await?;
            let Some((index, unit)) = opened.unit_at(probe) else {
                probe = part.object.end;
                continue;
            };
            let wanted = max_bytes.saturating_sub(read.len());
            let found = if read.is_empty() {
                Some(self.fetch(&part, &opened, index, unit.start, probe.max(from), wanted, advice).await?)
            } else {
                // What would have to be waited for is left to the next read.
                let cached = self.reader.unit_in_memory(&part, index, self.recompression());
                cached.map(|run| (run, Source::Memory, true))
            };
            let Some((run, source, whole)) = found else { break };
            let key = self.reader.unit_key(&part, index, self.recompression());
            let start = if whole { self.bookmark(&key, read.end) } else { 0 };
            let picked = select::pick(&run, start, read.end, bound, wanted, read.is_empty())
                .map_err(|error| ColdError::corrupt(&part.key, error))?;
            if whole {
                self.set_bookmark(key, picked.end, picked.position);
            }
            let picked = match read.is_empty() && picked.bytes.len() > max_bytes {
                true => self.compressed_again(&part, &opened, picked, bound).await?,
                false => picked,
            };
            if !picked.bytes.is_empty() {
                if read.is_empty() {
                    self.reader.metrics().first_batch(source, started.elapsed());
                }
                read.aborted.extend(opened.aborted().iter().filter(|txn| txn.overlaps(from, picked.end)));
                read.end = picked.end;
                read.pieces.push(picked.bytes);
            }
            if let Advice::Sequential { ahead } = advice {
                self.read_ahead(&part, &opened, index, unit.end, ahead);
            }
            if picked.stopped || (!whole && !read.is_empty()) {
                break;
            }
            probe = unit.end;
        }
        if read.is_empty() {
            read.end = probe.min(bound).max(from);
        }
        read.aborted = in_order(std::mem::take(&mut read.aborted));
        Ok(read)
    }

    /// The unit, or as much of it as a reader that came from elsewhere needs. Says where it came from, and whether it is the
    /// whole unit.
    #[expect(clippy::too_many_arguments, reason = "a unit, a reader's wish and its habits")]
    async fn fetch(
        &self,
        part: &Part,
        opened: &Opened,
        index: u64,
        unit_start: Offset,
        at: Offset,
        wanted: usize,
        advice: Advice,
    ) -> Result<(Bytes, Source, bool), ColdError> {
        let recompression = self.recompression();
        let cached = || self.reader.unit_in_memory(part, index, recompression).is_some();
        let whole = match advice {
            Advice::Sequential { .. } => true,
            // Who begins where a unit begins is likely to read on.
            Advice::Jump { roomy } => roomy && at <= unit_start,
        };
        if whole || opened.whole().is_some() || cached() {
            let (run, source) = self.reader.unit(part, opened, index, recompression).await?;
            return Ok((run, source, true));
        }
        let (run, source) = self.reader.run_from(part, opened, at, wanted as u64, recompression).await?;
        Ok((run, source, false))
    }

    /// The one batch that was `picked`, as its producer compressed it, if that is smaller: uncompressed it exceeds what the
    /// client asked for, and may exceed what it can take in at all, though it once sent it.
    async fn compressed_again(
        &self,
        part: &Part,
        opened: &Opened,
        picked: select::Picked,
        bound: Offset,
    ) -> Result<select::Picked, ColdError> {
        let corrupt = |error| ColdError::corrupt(&part.key, error);
        if !opened.decodes() || self.recompression() == Recompression::Producer {
            return Ok(picked);
        }
        let base = BatchHeader::parse(&picked.bytes).map_err(corrupt)?.base_offset.max(part.object.base);
        let (run, _) = self.reader.run_from(part, opened, base, 0, Recompression::Producer).await?;
        let again = select::pick(&run, 0, base, bound, 0, true).map_err(corrupt)?;
        let smaller = again.end == picked.end && again.bytes.len() < picked.bytes.len();
        Ok(if smaller { select::Picked { bytes: again.bytes, ..picked } } else { picked })
    }

    /// Has the next `ahead` units fetched, as far as the budget allows. The first of them is looked for in this object
    /// without waiting; objects that are not open yet are opened by a task.
    fn read_ahead(&self, part: &Part, opened: &Opened, index: u64, unit_end: Offset, ahead: usize) {
        let (mut index, mut at, mut left) = (index, unit_end, ahead);
        while left > 0 {
            match opened.unit_at(at) {
                Some((next, unit)) if next > index && at < part.object.end => {
                    if !self.reader.prefetch(part, opened, next, self.recompression()) {
                        return;
                    }
                    (index, at, left) = (next, unit.end, left - 1);
                }
                _ => break,
            }
        }
        let next_object = part.object.end;
        if left == 0 || next_object >= self.remote.manifest().end() {
            return;
        }
        let (this, left) = (self.clone(), left);
        tokio::spawn(async move {
            // What goes wrong here comes again when somebody waits for it.
            let Ok(Some(object)) = this.remote.find(next_object).await else { return };
            let part = this.part(object);
            let Ok(opened) = this.reader.opened(&part).await else { return };
            let mut at = part.object.base;
            for _ in 0..left {
                let Some((next, unit)) = opened.unit_at(at) else { return };
                if !this.reader.prefetch(&part, &opened, next, this.recompression()) {
                    return;
                }
                at = unit.end;
            }
        });
    }

    pub(super) async fn try_timestamp(
        &self,
        target: Timestamp,
        from: Offset,
    ) -> Result<Option<OffsetAndTimestamp>, ColdError> {
        let mut from = from;
        while let Some(object) = self.remote.find_timestamp(target, from).await? {
            let part = self.part(object);
            let opened = self.reader.opened(&part).await?;
            let mut probe = opened.first_reaching(target, from.max(part.object.base), &part.key)?;
            while let Some(at) = probe.filter(|at| *at < part.object.end) {
                let (run, _) = self.reader.run_from(&part, &opened, at, 0, self.recompression()).await?;
                let found = select::find_timestamp(&run, target, from.max(part.object.base))
                    .map_err(|error| ColdError::corrupt(&part.key, error))?;
                if let Some(found) = found.filter(|found| found.offset < part.object.end) {
                    return Ok(Some(found));
                }
                let all = select::pick(&run, 0, at, Offset::MAX, usize::MAX, true);
                let end = all.map_err(|error| ColdError::corrupt(&part.key, error))?.end;
                probe = if end > at { opened.first_reaching(target, end, &part.key)? } else { None };
            }
            from = part.object.end;
        }
        Ok(None)
    }

    /// Does `work`, and does it again with a newer manifest if an object is gone: a reader of an old manifest may come to an
    /// object after its grace period.
    pub(super) async fn retrying<T, F>(&self, work: impl Fn() -> F) -> Result<T, ColdError>
    where
        F: Future<Output = Result<T, ColdError>>,
    {
        let mut reloads = 0;
        loop {
            let version = self.remote.manifest().version();
            match work().await {
                Err(ColdError::Vanished(key)) if reloads < RELOADS => {
                    reloads += 1;
                    let _turn = self.reloading.lock().await;
                    if self.remote.manifest().version() > version {
                        continue;
                    }
                    tracing::info!(partition = %self.remote.partition(), %key, "gone from the bucket, loading the manifest");
                    self.reader.metrics().reloaded();
                    if self.remote.refresh().await?.version() == version {
                        return Err(ColdError::Vanished(key));
                    }
                }
                outcome => return outcome,
            }
        }
    }

    fn bookmark(&self, unit: &RunKey, next: Offset) -> usize {
        let bookmarks = self.bookmarks.lock();
        let found = bookmarks.iter().find(|bookmark| bookmark.unit == *unit && bookmark.next == next);
        found.map_or(0, |bookmark| bookmark.position)
    }

    fn set_bookmark(&self, unit: RunKey, next: Offset, position: usize) {
        let mut bookmarks = self.bookmarks.lock();
        if bookmarks.len() >= BOOKMARKS {
            bookmarks.pop_front();
        }
        bookmarks.push_back(Bookmark { unit, next, position });
    }

    pub(super) fn part(&self, object: RemoteObject) -> Part {
        let key = object.key(self.remote.partition(), self.remote.topic());
        Part { key, bucket: self.remote.bucket().clone(), partition: self.remote.partition(), object }
    }
}

/// Each transaction once, by first offset: neighbouring objects may both know it.
fn in_order(mut aborted: Vec<AbortedTxn>) -> Vec<AbortedTxn> {
    aborted.sort_unstable_by_key(|txn| (txn.first, txn.last, txn.producer));
    aborted.dedup();
    aborted
}
