//! Cutting the end of a log, as a follower does that has records its leader lacks.

use std::sync::atomic::Ordering;

use varve_metadata::model::{LeaderEpoch, LogStartOffset, Offset, ProducerId, Timestamp};

use super::{
    active::ActiveSegment,
    epochs_file,
    error::{ReadError, RollError},
    files::{SegmentFiles, TXN_INDEX},
    leader_epochs::EpochCache,
    log::{LocalLog, Writer},
    open::load_producers,
    producer_state::{ProducerEntry, ProducerState},
    recovery,
    removed::RemovedFiles,
    txn_index::TxnIndex,
};

impl LocalLog {
    /// Cuts the log so that it ends at `offset`, or at the start of the batch that holds it; a log start behind that end
    /// moves down to it. Epochs that began there or later are forgotten, also those without a record (KIP-279: the leader has
    /// none of them). Nothing may be appended before [`LogDir::save_recovery_points`](super::LogDir::save_recovery_points)
    /// wrote down that less is flushed now: after a crash what is appended would be taken for flushed.
    ///
    /// # Errors
    /// [`RollError::Storage`]: the log must be opened anew.
    pub fn truncate_to(&self, offset: Offset, now: Timestamp) -> Result<RemovedFiles, RollError> {
        if offset >= self.end().0 {
            self.forget_epochs_from(offset)?;
            return Ok(RemovedFiles::default());
        }
        // Whatever is left in front of the log start is deleted.
        if offset < self.view.read().local_start() {
            return self.truncate_fully(offset, self.start().0.min(offset));
        }
        let mut writer = self.writer.lock();
        // A flush in the middle would take what it saw before the cut for flushed.
        let _flush = self.flushing.lock();
        self.mend(&mut writer)?;
        let segment = self.segment_at(offset).map_err(storage)?;
        let found = segment.map(|segment| Ok((segment.files.clone(), segment.find(offset)?))).transpose();
        let Some((files, cut)) = found.map_err(storage)? else { return Ok(RemovedFiles::default()) };
        let cut_at = cut.map(|batch| (batch.position, batch.base.min(offset)));
        let removed = self.drop_from(&files, cut_at.map(|(position, _)| position), now)?;
        let end = self.view.read().end;
        self.forget_from(&mut writer, end, now)?;
        Ok(removed)
    }

    /// Removes the segments behind that of `files`, which becomes the active one, cut at `position`.
    fn drop_from(
        &self,
        files: &SegmentFiles,
        position: Option<u32>,
        now: Timestamp,
    ) -> Result<RemovedFiles, RollError> {
        let config = self.config();
        let mut removed = RemovedFiles::default();
        let mut view = self.view.write();
        view.replacements += 1;
        view.cuts += 1;
        if view.active.base() > files.base() {
            removed.add_files(&view.active.files, view.active.bytes.into())?;
        }
        let kept = view.sealed.partition_point(|segment| segment.base() < files.base());
        for segment in view.sealed.drain(kept..).filter(|segment| segment.base() != files.base()) {
            removed.add(&segment)?;
        }
        if let Some(position) = position {
            let active = ActiveSegment::open(files.clone())?;
            active.file.set_len(position.into())?;
        }
        let segment = recovery::walk(files.clone(), None, &config, now)?;
        (view.active, view.end) = (segment.active, segment.end);
        // The batch that was cut off may have held the log start; no log starts behind its end.
        view.log_start = view.log_start.min(view.end);
        view.active.write_indexes()?;
        let base = view.active.base();
        view.txn_bases.split_off(&base.plus(1));
        Ok(removed)
    }

    fn forget_epochs_from(&self, end: Offset) -> Result<(), RollError> {
        let _writer = self.writer.lock();
        let mut view = self.view.write();
        if view.epochs.truncate_from_end(end) {
            epochs_file::write(&self.dir(), &view.epochs)?;
        }
        Ok(())
    }

    /// Notes that `epoch` begins where the log ends, as a new leader does before its first record: followers whose last
    /// records are of an epoch between are told where to cut, though this log has none of that epoch.
    ///
    /// # Errors
    /// [`RollError::Storage`]: it is not written down.
    pub fn begin_epoch(&self, epoch: LeaderEpoch) -> Result<(), RollError> {
        let _writer = self.writer.lock();
        let mut view = self.view.write();
        let end = view.end;
        if view.epochs.assign(epoch, end) {
            epochs_file::write(&self.dir(), &view.epochs)?;
        }
        Ok(())
    }

    /// Makes epochs, transaction index and producer state forget what lay at `end` and behind.
    fn forget_from(&self, writer: &mut Writer, end: Offset, now: Timestamp) -> Result<(), RollError> {
        let mut view = self.view.write();
        if view.epochs.truncate_from_end(end) {
            epochs_file::write(&self.dir(), &view.epochs)?;
        }
        let (path, base) = (view.active.files.path(TXN_INDEX), view.active.base());
        TxnIndex::open(path.clone(), base)?.truncate_to(end)?;
        writer.unindexed.clear();
        let config = self.config();
        let loaded = load_producers(&view, &mut writer.snapshots, false, &config, now);
        writer.producers = loaded.map_err(|super::OpenError::Storage(error)| error)?;
        writer.txn_index = TxnIndex::open(path, base)?;
        view.first_unstable = writer.producers.first_unstable();
        self.recovery_point.fetch_min(end.get(), Ordering::AcqRel);
        Ok(())
    }

    /// Puts `known` epochs of what lies before the local log, oldest first, in front of those that the log knows itself: from
    /// then on it answers for them, also after a restart.
    ///
    /// # Errors
    /// [`RollError::Storage`]: they are known until the log is closed, and not on disk.
    pub fn learn_epochs(&self, known: &[(LeaderEpoch, Offset)]) -> Result<(), RollError> {
        let _writer = self.writer.lock();
        let LogStartOffset(kept) = self.kept_start();
        let mut view = self.view.write();
        let own = view.epochs.entries().to_vec();
        let first = own.first().copied();
        let is_before = |(epoch, start): &&(LeaderEpoch, Offset)| {
            first.is_none_or(|(first_epoch, first_start)| *epoch < first_epoch && *start < first_start)
        };
        let mut epochs = EpochCache::default();
        for (epoch, start) in known.iter().filter(is_before).chain(&own) {
            epochs.assign(*epoch, *start);
        }
        epochs.truncate_from_start(kept);
        view.epochs = epochs;
        epochs_file::write(&self.dir(), &view.epochs)?;
        Ok(())
    }

    /// The empty log knows `producers` from now on, also after a restart: of what they wrote nothing is here, but whoever wrote last
    /// is to go on with the sequence that follows.
    ///
    /// # Errors
    /// [`RollError::Storage`]: they are known until the log is closed, and not on disk.
    pub fn learn_producers(
        &self,
        producers: impl IntoIterator<Item = (ProducerId, ProducerEntry)>,
        now: Timestamp,
    ) -> Result<(), RollError> {
        let mut writer = self.writer.lock();
        let end = self.view.read().end;
        if writer.producers.end() == end && writer.producers.is_empty() {
            writer.producers = ProducerState::load(producers, end, now.to_wire(), self.config().producer_expiry);
            let Writer { snapshots, producers, .. } = &mut *writer;
            snapshots.take(producers, true)?;
        }
        Ok(())
    }

    /// Empties the log; the next record gets `offset`, which becomes the local start. The log start becomes `log_start`:
    /// below `offset` if the archive holds what lies between.
    ///
    /// # Errors
    /// [`RollError::Storage`]: the log must be opened anew.
    pub fn truncate_fully(&self, offset: Offset, log_start: Offset) -> Result<RemovedFiles, RollError> {
        let mut writer = self.writer.lock();
        let _flush = self.flushing.lock();
        let mut view = self.view.write();
        let mut removed = RemovedFiles::default();
        view.replacements += 1;
        view.cuts += 1;
        for segment in view.sealed.drain(..) {
            removed.add(&segment)?;
        }
        removed.add_files(&view.active.files, view.active.bytes.into())?;
        view.active = ActiveSegment::create(SegmentFiles::new(self.dir(), offset))?;
        view.active.reserve(&self.config());
        (view.end, view.log_start) = (offset, log_start.min(offset));
        view.epochs.clear();
        epochs_file::write(&self.dir(), &view.epochs)?;
        view.txn_bases.clear();
        view.first_unstable = None;
        writer.snapshots.clear()?;
        writer.producers = ProducerState::starting_at(offset);
        writer.txn_index = TxnIndex::open(view.active.files.path(TXN_INDEX), offset)?;
        writer.unindexed.clear();
        writer.torn = false;
        self.recovery_point.store(offset.get(), Ordering::Release);
        Ok(removed)
    }
}

fn storage(error: ReadError) -> RollError {
    RollError::Storage(match error {
        ReadError::Storage(error) => error,
        error => std::io::Error::new(std::io::ErrorKind::InvalidData, error),
    })
}
