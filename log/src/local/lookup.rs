//! Finding records by timestamp.

use std::os::unix::fs::FileExt;

use varve_metadata::model::{Offset, Timestamp};

use super::{
    error::ReadError,
    files::TIME_INDEX,
    index::{IndexFile, Search, TimeEntry},
    log::{LocalLog, OffsetAndTimestamp},
    read::SegmentReader,
    scan::Located,
};
use crate::format::{BatchError, RecordBatchView, RecordTime, TimesError, record_times};

impl LocalLog {
    /// First record at or after `from` with a timestamp of `target` or later, among local segments.
    ///
    /// # Errors
    /// [`ReadError`] of the file system, or of damaged batches.
    pub fn offset_for_timestamp(
        &self,
        target: Timestamp,
        from: Offset,
    ) -> Result<Option<OffsetAndTimestamp>, ReadError> {
        let found = self.find_timestamp(target, from);
        self.if_ours(found)
    }

    fn find_timestamp(&self, target: Timestamp, from: Offset) -> Result<Option<OffsetAndTimestamp>, ReadError> {
        let mut at = from.max(self.local_start());
        while let Some(segment) = self.segment_at(at)? {
            if self.newest_of(at)? >= target.to_wire()
                && let Some(found) = segment.find_timestamp(target, at)?
            {
                return Ok(Some(found));
            }
            if segment.end >= self.end().0 {
                break;
            }
            at = segment.end;
        }
        Ok(None)
    }

    /// The first record that has the largest timestamp among the readable ones of local segments (KIP-734).
    ///
    /// # Errors
    /// [`ReadError`] of the file system, or of damaged batches.
    pub fn max_timestamp_offset(&self) -> Result<Option<OffsetAndTimestamp>, ReadError> {
        let found = self.find_max_timestamp();
        self.if_ours(found)
    }

    fn find_max_timestamp(&self) -> Result<Option<OffsetAndTimestamp>, ReadError> {
        let start = self.local_start();
        let newest = {
            let view = self.view.read();
            let mut newest = None;
            for segment in &view.sealed {
                newest =
                    newest.max(segment.newest()?.map(|newest| (newest.timestamp_ms, std::cmp::Reverse(newest.offset))));
            }
            newest.max(view.active.newest.map(|newest| (newest.timestamp_ms, std::cmp::Reverse(newest.offset))))
        };
        let Some((timestamp_ms, std::cmp::Reverse(offset))) = newest else { return Ok(None) };
        if offset >= start
            && let Some(segment) = self.segment_at(offset)?
            && let Some(batch) = segment.find(offset)?
            && let Some(batch) = segment.headers(batch.position).next().transpose()?
            && let Some(found) = segment.search_batch(batch, timestamp_ms, start)?
        {
            return Ok(Some(found));
        }
        // The newest record of all lies before the log start: what segments know of themselves counts records that are gone.
        self.newest_from(start)
    }

    /// The first record with the largest timestamp at or behind `start`, by looking at every batch of the segment that
    /// `start` lies in.
    fn newest_from(&self, start: Offset) -> Result<Option<OffsetAndTimestamp>, ReadError> {
        let Some(segment) = self.segment_at(start)? else { return Ok(None) };
        let mut newest: Option<OffsetAndTimestamp> = None;
        let mut better = |found: Option<OffsetAndTimestamp>| {
            if let Some(found) = found
                && newest.is_none_or(|newest| found.timestamp > newest.timestamp)
            {
                newest = Some(found);
            }
            newest.map_or(0, |newest| newest.timestamp.to_wire() + 1)
        };
        let mut wanted = 0;
        if let Some(first) = segment.find(start)? {
            for batch in segment.headers(first.position) {
                let batch = batch?;
                // Within a batch timestamps may come in any order, so that each find may be beaten by a later record.
                while batch.header.max_timestamp_ms >= wanted
                    && let Some(found) = segment.search_batch(batch, wanted, start)?
                {
                    wanted = better(Some(found));
                }
            }
        }
        // No part of the segments behind is gone.
        let mut at = segment.end;
        while at < self.end().0 {
            let Some(segment) = self.segment_at(at)? else { break };
            let known = self.newest_of(at)?;
            if known >= wanted
                && let Some(target) = Timestamp::from_wire(known)
            {
                wanted = better(segment.find_timestamp(target, at)?);
            }
            at = segment.end;
        }
        Ok(newest)
    }

    /// Largest timestamp in the segment that holds `offset`, in milliseconds; -1 for none.
    fn newest_of(&self, offset: Offset) -> Result<i64, ReadError> {
        let view = self.view.read();
        let newest = match view.sealed.get(view.floor(offset)) {
            Some(sealed) => sealed.newest()?,
            None => view.active.newest,
        };
        Ok(newest.map_or(-1, |newest| newest.timestamp_ms))
    }

    /// The last time entry before `target` in the segment at `offset`: nothing up to its offset is old enough to matter.
    fn time_entry(&self, segment: &SegmentReader<'_>, target: Timestamp) -> Result<Option<TimeEntry>, ReadError> {
        let before = |entry: &TimeEntry| entry.timestamp_ms < target.to_wire();
        let entries = {
            let view = self.view.read();
            if view.active.base() == segment.files.base() {
                match view.active.time_index.search(before) {
                    Search::Found(entry) => return Ok(Some(entry)),
                    Search::InFile { entries } => entries,
                }
            } else {
                u32::MAX
            }
        };
        let file = IndexFile::open(&segment.files.path(TIME_INDEX))?;
        Ok(file.map(|file| file.find_last(entries, before)).transpose()?.flatten())
    }
}

impl SegmentReader<'_> {
    /// First record at or after `from` that is not older than `target`.
    fn find_timestamp(&self, target: Timestamp, from: Offset) -> Result<Option<OffsetAndTimestamp>, ReadError> {
        let older = self.log.time_entry(self, target)?;
        let start = older.map_or(from, |entry| from.max(self.files.base().plus(entry.relative_offset.into())));
        let Some(first) = self.find(start)? else { return Ok(None) };
        for batch in self.headers(first.position) {
            let batch = batch?;
            if batch.header.max_timestamp_ms >= target.to_wire()
                && let Some(found) = self.search_batch(batch, target.to_wire(), from)?
            {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// First record of `batch` at or after `from` that is not older than `target_ms`.
    fn search_batch(
        &self,
        batch: Located,
        target_ms: i64,
        from: Offset,
    ) -> Result<Option<OffsetAndTimestamp>, ReadError> {
        let mut bytes = vec![0; batch.header.bytes as usize];
        self.file.read_exact_at(&mut bytes, batch.position.into())?;
        let (view, _) = RecordBatchView::parse(&bytes)?;
        let leader_epoch = view.header().leader_epoch;
        let corrupt = |error: TimesError| {
            let field = match error {
                TimesError::Codec(_) => "compressed records",
                TimesError::Record(_) => "record",
            };
            ReadError::Corrupt(BatchError::Corrupt { field })
        };
        for record in record_times(&view).map_err(corrupt)? {
            let RecordTime { offset, timestamp } = record.map_err(corrupt)?;
            if timestamp.to_wire() >= target_ms && offset >= from {
                return Ok(Some(OffsetAndTimestamp { offset, timestamp, leader_epoch }));
            }
        }
        Ok(None)
    }
}
