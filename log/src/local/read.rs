//! Finding batches by offset.

use std::{fs::File, io, sync::Arc};

use varve_metadata::model::Offset;

use super::{
    error::ReadError,
    files::{OFFSET_INDEX, SegmentFiles, TXN_INDEX},
    index::{IndexFile, OffsetEntry, Search},
    log::LocalLog,
    scan::{HeaderScan, Located},
    slice::LogSlice,
    txn_index::{AbortedTxn, TxnIndexError},
};
use crate::format::BatchError;

/// A segment as one reader holds it: what it may see of the file, which stays readable even if the log deletes it.
pub(super) struct SegmentReader<'a> {
    pub(super) log: &'a LocalLog,
    pub(super) files: SegmentFiles,
    pub(super) file: Arc<File>,
    pub(super) bytes: u32,
    /// First offset that the segment does not hold.
    pub(super) end: Offset,
}

/// Where a batch starts and ends, and its first offset.
#[derive(Clone, Copy, Debug)]
pub(super) struct Found {
    pub(super) position: u32,
    pub(super) end: u32,
    pub(super) base: Offset,
}

impl From<Located> for Found {
    fn from(batch: Located) -> Found {
        Found { position: batch.position, end: batch.end(), base: batch.header.base_offset }
    }
}

impl LocalLog {
    /// Finds whole batches from the one that holds `from` on, within one segment, of at most `max_bytes`, all of whose
    /// offsets lie below `bound`. With `at_least_one` the first batch comes even if it exceeds `max_bytes`. Reads headers at
    /// most, and for what was just appended nothing.
    ///
    /// # Errors
    /// [`ReadError::OutOfRange`] if `from` is below [`local_start`](Self::local_start) or beyond [`end`](Self::end).
    pub fn read(&self, from: Offset, bound: Offset, max_bytes: u32, at_least_one: bool) -> Result<LogSlice, ReadError> {
        let slice = self.find_slice(from, bound, max_bytes, at_least_one);
        self.if_ours(slice)
    }

    /// As [`read`](Self::read), with the aborted transactions that a reader of the slice meets. Both are of one state of the log:
    /// compaction and retention take entries out of the transaction index together with the records they speak of, and a
    /// reader that still has the records must have the entries.
    ///
    /// # Errors
    /// As [`read`](Self::read); [`ReadError::Storage`] if an index cannot be read.
    pub fn read_committed(
        &self,
        from: Offset,
        bound: Offset,
        max_bytes: u32,
        at_least_one: bool,
    ) -> Result<(LogSlice, Vec<AbortedTxn>), ReadError> {
        self.read_committed_with(from, |log| log.read(from, bound, max_bytes, at_least_one))
    }

    pub(super) fn read_committed_with(
        &self,
        from: Offset,
        mut read: impl FnMut(&LocalLog) -> Result<LogSlice, ReadError>,
    ) -> Result<(LogSlice, Vec<AbortedTxn>), ReadError> {
        self.of_one_state(|log| {
            let slice = read(log)?;
            let aborted = if slice.len > 0 { log.find_aborted(from, slice.next)? } else { Vec::new() };
            Ok((slice, aborted))
        })
    }

    /// What `read` finds in several files while none of them is taken out of the log or exchanged.
    pub(super) fn of_one_state<T>(
        &self,
        mut read: impl FnMut(&LocalLog) -> Result<T, ReadError>,
    ) -> Result<T, ReadError> {
        loop {
            let before = self.view.read().replacements;
            let found = read(self);
            // Looked at before the error: a file may be gone in the middle of an exchange.
            if self.view.read().replacements == before {
                return self.if_ours(found);
            }
        }
    }

    /// What was read by path, unless the log was abandoned meanwhile: under the same path there may be another log by now.
    pub(super) fn if_ours<T>(&self, read: Result<T, ReadError>) -> Result<T, ReadError> {
        if self.has_ended_cleaning() {
            return Err(io::Error::new(io::ErrorKind::NotFound, "the log was deleted").into());
        }
        read
    }

    fn find_slice(
        &self,
        from: Offset,
        bound: Offset,
        max_bytes: u32,
        at_least_one: bool,
    ) -> Result<LogSlice, ReadError> {
        let mut from = from;
        loop {
            let Some(segment) = self.segment_at(from)? else { return Err(self.out_of_range()) };
            if from >= bound.min(segment.end) {
                return Ok(segment.empty(from));
            }
            match segment.find(from)? {
                Some(first) => return segment.slice(first, bound, max_bytes, at_least_one),
                // Compaction may leave a segment whose last offsets are gone.
                None => from = segment.end,
            }
        }
    }

    /// The segment that holds `offset`, or ends at it if that is the log's end; `None` if it is out of range.
    pub(super) fn segment_at(&self, offset: Offset) -> Result<Option<SegmentReader<'_>>, ReadError> {
        loop {
            let view = self.view.read();
            if offset < view.local_start() || offset > view.end {
                return Ok(None);
            }
            let place = view.floor(offset);
            let Some(sealed) = view.sealed.get(place).cloned() else {
                let (files, file) = (view.active.files.clone(), Arc::clone(&view.active.file));
                return Ok(Some(SegmentReader { log: self, files, file, bytes: view.active.bytes, end: view.end }));
            };
            let end = view.end_of(place);
            drop(view);
            match sealed.open() {
                Ok(file) => {
                    let (files, bytes) = (sealed.files.clone(), sealed.bytes);
                    return Ok(Some(SegmentReader { log: self, files, file, bytes, end }));
                }
                // Deleted, or replaced by the cleaner, since we looked: look again.
                Err(error) if error.kind() == io::ErrorKind::NotFound && !self.still_has(&sealed) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    pub(super) fn still_has(&self, segment: &Arc<super::sealed::Sealed>) -> bool {
        self.view.read().sealed.iter().any(|known| Arc::ptr_eq(known, segment))
    }

    pub(super) fn out_of_range(&self) -> ReadError {
        let view = self.view.read();
        ReadError::OutOfRange { local_start: view.local_start(), end: view.end }
    }

    /// The aborted transactions that a reader of `from..to` meets.
    ///
    /// # Errors
    /// [`ReadError::Storage`] if an index cannot be read.
    pub fn aborted(&self, from: Offset, to: Offset) -> Result<Vec<AbortedTxn>, ReadError> {
        self.of_one_state(|log| log.find_aborted(from, to))
    }

    fn find_aborted(&self, from: Offset, to: Offset) -> Result<Vec<AbortedTxn>, ReadError> {
        let bases: Vec<Offset> = {
            let view = self.view.read();
            let place = view.floor(from);
            let first = view.sealed.get(place).map_or(view.active.base(), |segment| segment.base());
            view.txn_bases.range(first..).copied().collect()
        };
        let mut found = Vec::new();
        for base in bases {
            let path = SegmentFiles::new(self.dir(), base).path(TXN_INDEX);
            let bytes = match std::fs::read(path) {
                // Deleted with its segment meanwhile: its range is not readable any more.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                read => read?,
            };
            for entry in AbortedTxn::parse_all(&bytes).map_err(damaged)? {
                if entry.overlaps(from, to) {
                    found.push(entry);
                }
                if entry.last_stable >= to {
                    return Ok(found);
                }
            }
        }
        Ok(found)
    }
}

fn damaged(error: TxnIndexError) -> ReadError {
    ReadError::Storage(match error {
        TxnIndexError::Io { source, .. } => source,
        TxnIndexError::Corrupt(what) => io::Error::new(io::ErrorKind::InvalidData, what),
    })
}

impl SegmentReader<'_> {
    fn empty(&self, from: Offset) -> LogSlice {
        LogSlice { file: Arc::clone(&self.file), position: self.bytes.into(), len: 0, first: from, next: from }
    }

    fn slice(&self, first: Found, bound: Offset, max_bytes: u32, at_least_one: bool) -> Result<LogSlice, ReadError> {
        let limit =
            if bound >= self.end { self.bytes } else { self.find(bound)?.map_or(self.bytes, |next| next.position) };
        if limit <= first.position {
            return Ok(self.empty(first.base));
        }
        let end = if limit - first.position <= max_bytes {
            limit
        } else {
            let end = self.boundary(first, first.position.saturating_add(max_bytes))?;
            if end == first.position && at_least_one { first.end } else { end }
        };
        // Cut short, the run ends where the next batch starts.
        let next = match self.headers(end).next().filter(|_| end < limit) {
            Some(batch) => batch?.header.base_offset,
            None => bound.min(self.end),
        };
        let (file, position) = (Arc::clone(&self.file), first.position.into());
        Ok(LogSlice { file, position, len: end - first.position, first: first.base, next })
    }

    /// The first batch that ends at or behind `offset`.
    pub(super) fn find(&self, offset: Offset) -> Result<Option<Found>, ReadError> {
        {
            let view = self.log.view.read();
            if view.active.base() == self.files.base()
                && let Some(place) = view.active.find_recent(offset)
            {
                // What was appended since this reader came is not for it.
                let visible = place.position < self.bytes;
                return Ok(visible.then_some(Found { position: place.position, end: place.end, base: place.base }));
            }
        }
        let relative = offset.since(self.files.base());
        let hint = self.index_entry(|entry| u64::from(entry.relative_offset) <= relative)?;
        let start = hint.map_or(0, |entry| entry.position);
        match self.scan_to(offset, start) {
            // The index led astray: without it, it takes longer.
            Err(ReadError::Corrupt(_)) | Ok(None) if start > 0 => self.scan_to(offset, 0),
            Ok(Some(found)) if start > 0 && found.position == start && found.base > offset => self.scan_to(offset, 0),
            found => found,
        }
    }

    fn scan_to(&self, offset: Offset, start: u32) -> Result<Option<Found>, ReadError> {
        for batch in self.headers(start) {
            let batch = batch?;
            if batch.header.last_offset() >= offset {
                // A batch's offset lies outside of its CRC: one that reaches into the next segment was changed, and would
                // send the reader past records.
                let belongs = batch.header.last_offset() < self.end;
                return if belongs {
                    Ok(Some(batch.into()))
                } else {
                    Err(BatchError::Corrupt { field: "base offset" }.into())
                };
            }
        }
        Ok(None)
    }

    /// The last batch boundary at or before `limit`, from `first` on.
    fn boundary(&self, first: Found, limit: u32) -> Result<u32, ReadError> {
        let hint = self.index_entry(|entry| entry.position <= limit)?;
        let start = hint.map_or(0, |entry| entry.position).max(first.position);
        match self.boundary_from(start, limit) {
            Err(ReadError::Corrupt(_)) if start > first.position => self.boundary_from(first.position, limit),
            boundary => boundary,
        }
    }

    fn boundary_from(&self, start: u32, limit: u32) -> Result<u32, ReadError> {
        let mut boundary = start;
        for batch in self.headers(start) {
            let batch = batch?;
            if batch.end() > limit {
                break;
            }
            boundary = batch.end();
        }
        Ok(boundary)
    }

    /// The headers from the batch at `position` on.
    pub(super) fn headers(&self, position: u32) -> HeaderScan<'_> {
        HeaderScan::new(&self.file, position, self.bytes)
    }

    /// The last index entry for which `before` holds, given that it holds for the first entries only.
    pub(super) fn index_entry(&self, before: impl Fn(&OffsetEntry) -> bool) -> Result<Option<OffsetEntry>, ReadError> {
        let entries = {
            let view = self.log.view.read();
            if view.active.base() == self.files.base() {
                match view.active.offset_index.search(&before) {
                    Search::Found(entry) => return Ok(Some(entry)),
                    Search::InFile { entries } => entries,
                }
            } else {
                u32::MAX
            }
        };
        let file = if entries > 0 { IndexFile::open(&self.files.path(OFFSET_INDEX))? } else { None };
        let found = file.map(|file| file.find_last(entries, before)).transpose()?.flatten();
        // An entry beyond the file is damage; it must not send the reader there.
        Ok(found.filter(|entry| entry.position < self.bytes))
    }
}
