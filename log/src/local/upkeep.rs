//! Sealing, flushing and deleting segments.

use std::{
    fs::{self, File},
    io,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use varve_metadata::model::{Offset, Timestamp};

use super::{
    active::ActiveSegment,
    error::{ReadError, RollError},
    files::{LOG, OFFSET_INDEX, SegmentFiles, TIME_INDEX, TXN_INDEX, mark_deleted},
    leader_epochs::LEADER_EPOCH_CHECKPOINT,
    log::{LocalLog, Writer},
    ownership::PARTITION_METADATA,
    removed::RemovedFiles,
    retention::Retained,
    sealed::{Sealed, SealedSegment},
    txn_index::TxnIndex,
};

impl LocalLog {
    /// Seals the active segment if `segment.ms` or `lag` has passed since its first append, and starts a new one. Returns
    /// the new base offset if it did. Appends roll by themselves; this is for partitions that fell silent.
    ///
    /// # Errors
    /// [`RollError`]; the log stays as it was.
    pub fn roll_if_due(&self, now: Timestamp, lag: Option<Duration>) -> Result<Option<Offset>, RollError> {
        let config = self.config();
        let due = {
            let view = self.view.read();
            view.active.bytes > 0
                && view.active.first_append.is_some_and(|first| {
                    let age = Duration::from_millis(now.millis().saturating_sub(first.millis()));
                    view.active.is_due(age, &config) || lag.is_some_and(|lag| age >= lag)
                })
        };
        if due { self.roll().map(Some) } else { Ok(None) }
    }

    /// Seals the active segment and starts a new one, unless it is empty. Returns the base of the active segment.
    ///
    /// # Errors
    /// [`RollError`]; the log stays as it was.
    pub fn roll(&self) -> Result<Offset, RollError> {
        let mut writer = self.writer.lock();
        let (end, empty) = {
            let view = self.view.read();
            (view.end, view.active.bytes == 0)
        };
        if empty { Ok(self.view.read().active.base()) } else { self.roll_to(&mut writer, end) }
    }

    /// Seals the active segment (drops it if it is empty) and starts the next at `base`, the log's end or beyond.
    pub(super) fn roll_to(&self, writer: &mut Writer, base: Offset) -> Result<Offset, RollError> {
        self.mend(writer)?;
        self.index_all_transactions(writer)?;
        let empty = {
            let mut view = self.view.write();
            if view.active.bytes > 0 {
                view.active.write_indexes()?;
            }
            view.active.bytes == 0
        };
        // With the state at each base, recovery of a segment needs no look at those before it.
        writer.producers.advance_to(base);
        writer.snapshots.take(&writer.producers, false)?;
        let next = SegmentFiles::new(self.dir(), base);
        let txn_index = TxnIndex::open(next.path(TXN_INDEX), base)?;
        let replaced = empty.then(|| self.view.read().active.files.clone()).filter(|files| files.base() != base);
        let mut active = ActiveSegment::create(next)?;
        active.reserve(&self.config());
        writer.txn_index = txn_index;
        let mut view = self.view.write();
        let before = std::mem::replace(&mut view.active, active);
        if !empty {
            view.sealed.push(Arc::new(before.seal()));
        }
        drop(view);
        if let Some(files) = replaced {
            files.delete()?;
        }
        if !empty {
            self.on_seal.call();
        }
        Ok(base)
    }

    /// Forces everything below `upto` to disk and moves the recovery point there. Whoever waits for another's flush usually
    /// finds its own records covered.
    ///
    /// # Errors
    /// [`RollError::Storage`]: nothing is known about what reached the disk.
    pub fn flush(&self, upto: Offset) -> Result<(), RollError> {
        let _turn = self.flushing.lock();
        let flushed = self.recovery_point();
        if upto <= flushed {
            return Ok(());
        }
        // Everything written so far goes to disk with it, so that those who queue behind need not flush again.
        let (sealed, active, end) = {
            let view = self.view.read();
            let sealed = view.sealed[view.floor(flushed).min(view.sealed.len())..].to_vec();
            (sealed, Arc::clone(&view.active.file), view.end)
        };
        for segment in &sealed {
            self.flush_sealed(segment)?;
        }
        active.sync_data()?;
        sync_if_present(&self.dir().join(LEADER_EPOCH_CHECKPOINT))?;
        File::open(self.dir())?.sync_all()?;
        if !self.is_linked.load(Ordering::Relaxed) {
            // Flushed files in a directory that a loss of power takes away would be lost with it.
            sync_if_present(&self.dir().join(PARTITION_METADATA))?;
            if let Some(parent) = self.dir().parent() {
                File::open(parent)?.sync_all()?;
            }
            self.is_linked.store(true, Ordering::Relaxed);
        }
        self.recovery_point.fetch_max(end.get(), Ordering::AcqRel);
        Ok(())
    }

    fn flush_sealed(&self, segment: &Sealed) -> io::Result<()> {
        match segment.open() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            opened => opened?.sync_data()?,
        }
        [OFFSET_INDEX, TIME_INDEX, TXN_INDEX, super::files::SNAPSHOT]
            .into_iter()
            .try_for_each(|suffix| sync_if_present(&segment.files.path(suffix)))
    }

    /// Moves the log start forward; files stay (see [`delete_local_below`](Self::delete_local_below)). Returns whether
    /// it moved. The caller persists it through the log directory's checkpoint.
    ///
    /// # Errors
    /// [`ReadError::OutOfRange`] if `offset` is beyond the end.
    pub fn advance_log_start(&self, offset: Offset) -> Result<bool, ReadError> {
        if offset > self.end().0 {
            return Err(self.out_of_range());
        }
        let mut writer = self.writer.lock();
        if offset <= self.start().0 {
            return Ok(false);
        }
        writer.producers.advance_log_start(offset);
        let mut view = self.view.write();
        view.log_start = offset;
        view.first_unstable = writer.producers.first_unstable();
        Ok(true)
    }

    /// Removes the sealed segments that end at or below `offset`. If that is the log's end, the active segment is sealed
    /// and goes too.
    ///
    /// # Errors
    /// [`RollError::Storage`]. Segments that no longer appear in the log may then keep their names until the next start.
    pub fn delete_local_below(&self, offset: Offset) -> Result<RemovedFiles, RollError> {
        let mut writer = self.writer.lock();
        let mut removed = RemovedFiles::default();
        // What is sealed goes first: rolling needs room that a full disk may not have before.
        self.remove_sealed_below(&mut writer, offset, &mut removed)?;
        let whole = {
            let view = self.view.read();
            (offset >= view.end && view.active.bytes > 0).then_some(view.end)
        };
        if let Some(end) = whole {
            self.roll_to(&mut writer, end)?;
            self.remove_sealed_below(&mut writer, offset, &mut removed)?;
        }
        Ok(removed)
    }

    fn remove_sealed_below(
        &self,
        writer: &mut Writer,
        offset: Offset,
        removed: &mut RemovedFiles,
    ) -> Result<(), RollError> {
        self.mend(writer)?;
        let (gone, first) = {
            let mut view = self.view.write();
            let count = (0..view.sealed.len()).take_while(|place| view.end_of(*place) <= offset).count();
            let gone: Vec<_> = view.sealed.drain(..count).collect();
            view.replacements += u64::from(count > 0);
            let first = view.first_base();
            view.txn_bases = view.txn_bases.split_off(&first);
            (gone, first)
        };
        for segment in &gone {
            removed.add(segment)?;
        }
        if !gone.is_empty() {
            writer.snapshots.delete_below(first)?;
        }
        Ok(())
    }

    /// The offset below which local segments have outlived `time` or lie in front of the newest `bytes`; the first local
    /// base offset if none has. Never beyond `limit` (what is committed, or archived). The log's end if even the active
    /// segment has.
    ///
    /// # Errors
    /// [`ReadError::Storage`] if a time index cannot be read.
    pub fn expired_below(
        &self,
        now: Timestamp,
        time: Option<Duration>,
        bytes: Option<u64>,
        limit: Offset,
    ) -> Result<Offset, ReadError> {
        let view = self.view.read();
        let sealed = view.sealed.iter().enumerate();
        let mut segments: Vec<_> =
            sealed.map(|(place, segment)| (view.end_of(place), u64::from(segment.bytes))).collect();
        segments.extend((view.active.bytes > 0).then(|| (view.end, u64::from(view.active.bytes))));
        let newest = |place: usize| match view.sealed.get(place) {
            Some(segment) => Ok::<_, io::Error>(Some(segment.retention_timestamp()?)),
            None => {
                let newest = view.active.newest.and_then(|newest| Timestamp::from_wire(newest.timestamp_ms));
                Ok(newest.or(view.active.first_append))
            }
        };
        let retained = Retained { now, time, bytes, limit };
        Ok(retained.expired_below(view.first_base(), &segments, newest)?)
    }

    /// The sealed segments that end above `from`, in order.
    ///
    /// # Errors
    /// [`RollError::Storage`] if a time index cannot be read.
    pub fn sealed_segments(&self, from: Offset) -> Result<Vec<SealedSegment>, RollError> {
        let writer = self.writer.lock();
        let view = self.view.read();
        let mut segments = Vec::new();
        for (place, segment) in view.sealed.iter().enumerate() {
            let (base, end) = (segment.base(), view.end_of(place));
            if end <= from {
                continue;
            }
            let path = |suffix| segment.files.path(suffix);
            segments.push(SealedSegment {
                base,
                end,
                bytes: segment.bytes.into(),
                max_timestamp: segment.max_timestamp()?,
                leader_epochs: view.epochs.within(base, end),
                log_path: path(LOG),
                offset_index_path: path(OFFSET_INDEX),
                time_index_path: path(TIME_INDEX),
                txn_index_path: view.txn_bases.contains(&base).then(|| path(TXN_INDEX)),
                producer_snapshot_path: writer.snapshots.find(end),
            });
        }
        Ok(segments)
    }

    /// Ends all work on the log's files: its directory is about to go, and another log may soon live under the same path.
    /// Waits for a round of compaction, which its pace can end, and for an append in the middle. Whatever would change a
    /// file from here on fails with [`io::ErrorKind::NotFound`]; open files can be read to the end.
    pub fn abandon(&self) {
        self.end_cleaning();
        self.writer.lock().abandoned = true;
    }

    /// Flushes everything and writes indexes and the producer snapshot: after this and a clean-shutdown mark nothing needs
    /// recovery.
    ///
    /// # Errors
    /// [`RollError`].
    pub fn close(&self) -> Result<(), RollError> {
        {
            let mut guard = self.writer.lock();
            let writer = &mut *guard;
            self.mend(writer)?;
            self.index_all_transactions(writer)?;
            let mut view = self.view.write();
            // Always, since the files may still tell of batches that were cut off.
            view.active.write_indexes()?;
            if view.end > Offset::ZERO {
                writer.snapshots.take(&writer.producers, true)?;
            }
        }
        self.flush(self.end().0)
    }
}

impl RemovedFiles {
    pub(super) fn add(&mut self, segment: &Sealed) -> io::Result<()> {
        self.bytes += u64::from(segment.bytes);
        self.segments += 1;
        self.paths.extend(segment.files.mark_deleted()?);
        Ok(())
    }

    /// As [`add`](Self::add), for the files of a segment that was active.
    pub(super) fn add_files(&mut self, files: &SegmentFiles, bytes: u64) -> io::Result<()> {
        self.bytes += bytes;
        self.segments += 1;
        for suffix in [LOG, OFFSET_INDEX, TIME_INDEX, TXN_INDEX] {
            self.paths.extend(mark_deleted(&files.path(suffix))?);
        }
        Ok(())
    }
}

fn sync_if_present(path: &std::path::Path) -> io::Result<()> {
    match fs::File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        opened => opened?.sync_data(),
    }
}
