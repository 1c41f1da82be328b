//! One round of compaction over a local log: what [`cleaner`](super::cleaner) decides, done to the files.
//!
//! ```text
//! <base>.log.cleaned …   written beside the log          a crash here: deleted at the next start
//! <base>.*.swap          the others first, .log last     a crash before .log: deleted; after: completed
//! <base>.log …           in place of the old segments, which become .deleted
//! ```

use std::{
    fs::{self, File},
    io::{self, IoSlice},
    os::unix::fs::FileExt,
    sync::{Arc, atomic::Ordering},
};

use varve_metadata::model::{Offset, Timestamp};

use super::{
    active::ActiveSegment,
    cleaner::{
        BatchRules, CleanError, Cleanable, CleanableSegment, CleanedBatch, CleanedTransactions, CleanerStats,
        CleaningLimits, OffsetMap, clean_batch, group_segments, index_batch,
    },
    config::LogConfig,
    error::ReadError,
    files::{CLEANED, LOG, OFFSET_INDEX, SWAP, SegmentFiles, TIME_INDEX, TXN_INDEX},
    log::LocalLog,
    removed::RemovedFiles,
    scan::{HeaderScan, ScanError},
    sealed::Sealed,
    txn_index::TxnIndex,
    write::{Quota, write_all_at},
};
use crate::format::{BatchError, BatchHeader, RecordBatchView};

/// Bytes of cleaned batches that are written together.
const WRITE_BYTES: usize = 1 << 20;

/// What a round is to do.
#[derive(Clone, Debug)]
pub struct CleanRequest {
    /// Where the last round ended.
    pub checkpoint: Option<Offset>,
    /// The last stable offset: nothing from here on is touched.
    pub stable: Offset,
    /// The topic's limits.
    pub limits: CleaningLimits,
    /// Memory for the keys of the dirty part (`log.cleaner.dedupe.buffer.size` over the number of cleaners).
    pub memory_bytes: usize,
    /// Where the archive's part of the log ends, if it has one: no rewritten segment reaches across.
    pub border: Option<Offset>,
    /// From here on tombstones and markers stay whatever their age: the archive holds what they speak of, and does not know
    /// them yet. [`Offset::MAX`] without an archive.
    pub unheard_from: Offset,
    /// The wall clock.
    pub now: Timestamp,
}

/// What a round did.
#[derive(Debug)]
pub struct Cleaned {
    /// Where the next round begins: to be written down, and given as the next request's checkpoint.
    pub end: Offset,
    /// Records and bytes met and kept.
    pub stats: CleanerStats,
    /// The files that were replaced.
    pub removed: RemovedFiles,
}

/// Why a round was given up. What it had replaced so far stays replaced; nothing is lost or doubled.
#[derive(Debug, thiserror::Error)]
pub enum CleanLogError {
    /// The file system failed.
    #[error("storage failed")]
    Storage(#[from] io::Error),
    /// A batch on disk is damaged: the log is left as it is from there on.
    #[error("local log is damaged")]
    Corrupt(#[from] BatchError),
    /// A batch's records cannot be read or rebuilt.
    #[error(transparent)]
    Records(#[from] CleanError),
    /// Who paced the round ended it.
    #[error("stopped")]
    Stopped,
}

impl From<ScanError> for CleanLogError {
    fn from(error: ScanError) -> CleanLogError {
        match error {
            ScanError::Io(error) => error.into(),
            ScanError::Batch(error) => error.into(),
        }
    }
}

impl From<ReadError> for CleanLogError {
    fn from(error: ReadError) -> CleanLogError {
        match error {
            ReadError::Storage(error) => error.into(),
            ReadError::Corrupt(error) => error.into(),
            ReadError::OutOfRange { .. } => io::Error::other("segment is gone").into(),
        }
    }
}

impl From<super::RollError> for CleanLogError {
    fn from(error: super::RollError) -> CleanLogError {
        CleanLogError::Storage(error.into())
    }
}

/// A sealed segment with the offset behind it.
struct Source {
    sealed: Arc<Sealed>,
    end: Offset,
}

impl LocalLog {
    /// What of the log a round could clean, and whether that is due.
    ///
    /// # Errors
    /// [`CleanLogError::Storage`] if a segment cannot be looked at.
    pub fn cleanable(&self, request: &CleanRequest) -> Result<Cleanable, CleanLogError> {
        let segments = self.cleanable_segments(&self.sources())?;
        let log = self.local_start()..self.end().0;
        Ok(Cleanable::find(&segments, log, request.stable, request.checkpoint, &request.limits, request.now))
    }

    /// Runs a round of compaction, if one is due. Appends and reads go on meanwhile; only the exchange of finished segments
    /// waits for them. `None` if none is due or another round is at it.
    ///
    /// # Errors
    /// [`CleanLogError`].
    pub fn clean(&self, request: &CleanRequest) -> Result<Option<Cleaned>, CleanLogError> {
        self.clean_paced(request, &|_| true)
    }

    /// As [`clean`](Self::clean). `pace` hears of every batch that was read, in bytes: it may sleep, so that the round leaves
    /// the disk to others, and ends the round by saying `false`.
    ///
    /// # Errors
    /// [`CleanLogError`]; [`CleanLogError::Stopped`] if `pace` ended the round.
    pub fn clean_paced(
        &self,
        request: &CleanRequest,
        pace: &dyn Fn(u64) -> bool,
    ) -> Result<Option<Cleaned>, CleanLogError> {
        let Some(_turn) = self.cleaning.try_lock() else { return Ok(None) };
        let is_kept_off = || self.cleaning_ended.load(Ordering::Acquire) || self.is_cleaning_paused();
        let pace: &dyn Fn(u64) -> bool = &|bytes| pace(bytes) && !is_kept_off();
        if !pace(0) {
            return Err(CleanLogError::Stopped);
        }
        let sources = self.sources();
        let segments = self.cleanable_segments(&sources)?;
        let log = self.local_start()..self.end().0;
        let (stable, limits) = (request.stable, &request.limits);
        let cleanable = Cleanable::find(&segments, log, stable, request.checkpoint, limits, request.now);
        if !cleanable.is_due(limits) {
            return Ok(None);
        }
        let map = self.read_keys(&sources, &cleanable, request.memory_bytes, pace)?;
        let mut round = Round {
            log: self,
            map: &map,
            request,
            pace,
            round_end: cleanable.first_uncleanable,
            transactions: CleanedTransactions::default(),
            cleaned: Cleaned {
                end: map.end().max(cleanable.first_dirty),
                stats: CleanerStats::default(),
                removed: RemovedFiles::default(),
            },
        };
        let count = segments.partition_point(|segment| segment.base < map.end());
        for group in group_segments(&segments[..count], limits, request.border) {
            let base = sources[group.start].sealed.base();
            match round.rewrite(&sources[group]) {
                Ok(true) => {}
                // Retention took a segment of the group meanwhile: the next round sees what is left.
                Ok(false) => break,
                Err(error) => {
                    // Half a segment helps nobody, least of all on a full disk.
                    SegmentFiles::new(self.dir(), base).with_tail(CLEANED).delete()?;
                    return Err(error);
                }
            }
        }
        Ok(Some(round.cleaned))
    }

    /// Stops the round that runs, and lets none begin any more. When this returns none runs: the directory's name may be given
    /// to another log.
    pub fn end_cleaning(&self) {
        self.cleaning_ended.store(true, Ordering::Release);
        drop(self.cleaning.lock());
    }

    /// Whether [`end_cleaning`](Self::end_cleaning) was called: the log is about to be deleted, or was.
    pub(super) fn has_ended_cleaning(&self) -> bool {
        self.cleaning_ended.load(Ordering::Acquire)
    }

    fn sources(&self) -> Vec<Source> {
        let view = self.view.read();
        let source =
            |(place, sealed): (usize, &Arc<Sealed>)| Source { sealed: Arc::clone(sealed), end: view.end_of(place) };
        view.sealed.iter().enumerate().map(source).collect()
    }

    fn cleanable_segments(&self, sources: &[Source]) -> Result<Vec<CleanableSegment>, CleanLogError> {
        let segment = |source: &Source| {
            let Source { sealed, end } = source;
            let file = sealed.open()?;
            let first = HeaderScan::new(&file, 0, sealed.bytes).next().transpose()?;
            let len = |suffix| fs::metadata(sealed.files.path(suffix)).map_or(0, |metadata| metadata.len());
            Ok(CleanableSegment {
                base: sealed.base(),
                end: *end,
                bytes: sealed.bytes.into(),
                index_bytes: len(OFFSET_INDEX).max(len(TIME_INDEX)),
                first_timestamp: first.and_then(|first| first.header.max_timestamp()),
                max_timestamp: sealed.max_timestamp()?,
            })
        };
        sources.iter().map(segment).collect()
    }

    /// The latest offset of each key of the dirty part, as far as memory goes.
    fn read_keys(
        &self,
        sources: &[Source],
        cleanable: &Cleanable,
        memory_bytes: usize,
        pace: &dyn Fn(u64) -> bool,
    ) -> Result<OffsetMap, CleanLogError> {
        let (from, to) = (cleanable.first_dirty, cleanable.first_uncleanable);
        let mut map = OffsetMap::new(memory_bytes);
        let mut transactions = CleanedTransactions::default();
        transactions.announce(self.aborted(from, to)?);
        let dirty = sources.iter().filter(|source| source.end > from && source.sealed.base() < to);
        for source in dirty {
            let room =
                for_each_batch(source, pace, |batch| Ok(index_batch(batch, from, &mut transactions, &mut map)?))?;
            if !room {
                break;
            }
            map.cover(source.end.min(to));
        }
        Ok(map)
    }
}

/// Gives every batch of a segment to `visit` until that says `false`; returns what it said last. A batch outside of its
/// segment's offsets is damage, which its CRC does not show: in a rewritten segment no index could name it.
fn for_each_batch(
    source: &Source,
    pace: &dyn Fn(u64) -> bool,
    mut visit: impl FnMut(&RecordBatchView<'_>) -> Result<bool, CleanLogError>,
) -> Result<bool, CleanLogError> {
    let segment = &source.sealed;
    let file = segment.open()?;
    let mut bytes = Vec::new();
    for located in HeaderScan::new(&file, 0, segment.bytes) {
        let located = located?;
        let (base, last) = (segment.base(), located.header.last_offset());
        if located.header.base_offset < base || last >= source.end || last.since(base) > i32::MAX as u64 {
            return Err(BatchError::Corrupt { field: "base offset" }.into());
        }
        bytes.resize(located.header.bytes as usize, 0);
        file.read_exact_at(&mut bytes, located.position.into())?;
        let (batch, _) = RecordBatchView::parse(&bytes)?;
        if !pace(u64::from(located.header.bytes)) {
            return Err(CleanLogError::Stopped);
        }
        if !visit(&batch)? {
            return Ok(false);
        }
    }
    Ok(true)
}

struct Round<'a> {
    log: &'a LocalLog,
    map: &'a OffsetMap,
    request: &'a CleanRequest,
    pace: &'a dyn Fn(u64) -> bool,
    round_end: Offset,
    transactions: CleanedTransactions,
    cleaned: Cleaned,
}

impl Round<'_> {
    /// Rewrites a group of neighbours as one segment. `false` if they are not the log's any more.
    fn rewrite(&mut self, group: &[Source]) -> Result<bool, CleanLogError> {
        let [first, ..] = group else { return Ok(true) };
        let files = SegmentFiles::new(self.log.dir(), first.sealed.base());
        let last_records = self.log.writer.lock().producers.last_records();
        let rules = BatchRules {
            latest: self.map,
            now: self.request.now,
            delete_retention: self.request.limits.delete_retention,
            unheard_from: self.request.unheard_from,
            last_records: &last_records,
            round_end: self.round_end,
        };
        let config = self.log.config();
        let mut output = Output::create(files.with_tail(CLEANED), &config, self.request.now)?;
        let mut changed = group.len() > 1;
        for source in group {
            self.transactions.announce(self.log.aborted(source.sealed.base(), source.end)?);
            let (transactions, stats) = (&mut self.transactions, &mut self.cleaned.stats);
            for_each_batch(source, self.pace, |batch| {
                let cleaned = clean_batch(batch, &rules, transactions, stats)?;
                changed |= cleaned != CleanedBatch::Kept;
                match cleaned {
                    CleanedBatch::Kept => output.push(batch.header(), batch.as_bytes())?,
                    CleanedBatch::Replaced(bytes) => output.push(&BatchHeader::parse(&bytes)?, &bytes)?,
                    CleanedBatch::Dropped => {}
                }
                Ok(true)
            })?;
        }
        if !changed {
            // A segment that has nothing to lose stays, and with it what others know of its files.
            self.transactions.take_retained();
            output.segment.files.delete()?;
            return Ok(true);
        }
        let has_txn_index = output.finish(self.transactions.take_retained())?;
        if !(self.pace)(0) {
            return Err(CleanLogError::Stopped);
        }
        self.log.exchange(group, &files, output.segment, has_txn_index, &mut self.cleaned.removed)
    }
}

/// The segment that a group becomes.
struct Output<'a> {
    segment: ActiveSegment,
    config: &'a LogConfig,
    now: Timestamp,
    pending: Vec<u8>,
    position: u64,
}

impl Output<'_> {
    fn create(files: SegmentFiles, config: &LogConfig, now: Timestamp) -> io::Result<Output<'_>> {
        let segment = ActiveSegment::create(files)?;
        Ok(Output { segment, config, now, pending: Vec::new(), position: 0 })
    }

    fn push(&mut self, header: &BatchHeader, bytes: &[u8]) -> io::Result<()> {
        self.segment.note(header, self.config, self.now);
        self.pending.extend_from_slice(bytes);
        if self.pending.len() >= WRITE_BYTES { self.write() } else { Ok(()) }
    }

    fn write(&mut self) -> io::Result<()> {
        let mut slices = [IoSlice::new(&self.pending)];
        write_all_at(&self.segment.file, self.position, &mut slices, &mut Quota::default())?;
        self.position += self.pending.len() as u64;
        self.pending.clear();
        Ok(())
    }

    /// Brings everything to disk: what it replaces may be gone a moment later. Returns whether there is a transaction index.
    fn finish(&mut self, retained: Vec<super::AbortedTxn>) -> Result<bool, CleanLogError> {
        if !self.pending.is_empty() {
            self.write()?;
        }
        self.segment.write_indexes()?;
        let files = &self.segment.files;
        let mut txn_index = TxnIndex::open(files.path(TXN_INDEX), files.base()).map_err(super::RollError::from)?;
        for txn in &retained {
            txn_index.append(txn).map_err(super::RollError::from)?;
        }
        txn_index.flush().map_err(super::RollError::from)?;
        for suffix in [OFFSET_INDEX, TIME_INDEX] {
            File::open(files.path(suffix))?.sync_data()?;
        }
        self.segment.file.sync_all()?;
        Ok(!txn_index.is_empty())
    }
}

impl LocalLog {
    /// Puts a finished segment in the place of those of `group`. `false`, without a trace, if one of them is gone.
    fn exchange(
        &self,
        group: &[Source],
        files: &SegmentFiles,
        segment: ActiveSegment,
        has_txn_index: bool,
        removed: &mut RemovedFiles,
    ) -> Result<bool, CleanLogError> {
        let mut writer = self.writer.lock();
        let mut view = self.view.write();
        let start = view.sealed.partition_point(|sealed| sealed.base() < files.base());
        let still_there = view.sealed[start..]
            .iter()
            .zip(group)
            .filter(|(sealed, source)| Arc::ptr_eq(sealed, &source.sealed))
            .count();
        if still_there < group.len() {
            segment.files.delete()?;
            return Ok(false);
        }
        view.replacements += 1;
        let swap = files.with_tail(SWAP);
        // The log last: with it the exchange is decided, and a start after a crash completes it.
        for suffix in [OFFSET_INDEX, TIME_INDEX, TXN_INDEX, LOG] {
            rename_if_present(&segment.files, &swap, suffix)?;
        }
        File::open(self.dir())?.sync_all()?;
        for source in group {
            source.sealed.keep_file()?;
        }
        for source in group {
            removed.add(&source.sealed)?;
            view.txn_bases.remove(&source.sealed.base());
        }
        for suffix in [OFFSET_INDEX, TIME_INDEX, TXN_INDEX, LOG] {
            rename_if_present(&swap, files, suffix)?;
        }
        let sealed = Arc::new(segment.moved_to(files.clone()).seal());
        view.sealed.splice(start..start + group.len(), [sealed]);
        if has_txn_index {
            view.txn_bases.insert(files.base());
        }
        drop(view);
        for source in &group[1..] {
            writer.snapshots.delete(source.sealed.base()).map_err(super::RollError::from)?;
        }
        Ok(true)
    }
}

fn rename_if_present(from: &SegmentFiles, to: &SegmentFiles, suffix: &str) -> io::Result<()> {
    match fs::rename(from.path(suffix), to.path(suffix)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
