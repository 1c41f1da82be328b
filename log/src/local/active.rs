//! The segment that grows.

use std::{
    collections::VecDeque,
    fs::{File, OpenOptions},
    hash::{DefaultHasher, Hash, Hasher},
    io,
    sync::Arc,
    time::Duration,
};

use rustix::fs::{FallocateFlags, fallocate};
use tracing::warn;
use varve_metadata::model::{Offset, Timestamp};

use super::{
    config::LogConfig,
    files::{LOG, OFFSET_INDEX, SegmentFiles, TIME_INDEX},
    index::{GrowingIndex, IndexEntry, OffsetEntry, TimeEntry},
    sealed::Sealed,
};
use crate::format::BatchHeader;

/// Batches at the end whose places are remembered, so that who reads what was just appended needs no look at the disk.
const RECENT_BATCHES: usize = 32;

/// The largest timestamp of a segment and the last offset of the first batch that has it, as Kafka's time index keeps it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Newest {
    pub(super) timestamp_ms: i64,
    pub(super) offset: Offset,
}

/// What an append is about to add.
#[derive(Clone, Copy, Debug)]
pub(super) struct Incoming {
    pub(super) bytes: u32,
    pub(super) last: Offset,
    pub(super) max_timestamp_ms: i64,
}

#[derive(Debug)]
pub(super) struct ActiveSegment {
    pub(super) files: SegmentFiles,
    pub(super) file: Arc<File>,
    /// Bytes that readers may see: all of them whole batches.
    pub(super) bytes: u32,
    pub(super) offset_index: GrowingIndex<OffsetEntry>,
    pub(super) time_index: GrowingIndex<TimeEntry>,
    pub(super) newest: Option<Newest>,
    /// Wall clock of the first append since the segment was opened, or the first batch's timestamp if that is older.
    pub(super) first_append: Option<Timestamp>,
    first_timestamp_ms: Option<i64>,
    bytes_since_index: u32,
    recent: VecDeque<Place>,
    /// Whether disk space may be reserved behind the file's end.
    may_be_reserved: bool,
}

/// Where one of the newest batches lies.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub(super) base: Offset,
    pub(super) last: Offset,
    pub(super) position: u32,
    pub(super) end: u32,
}

impl ActiveSegment {
    /// Starts an empty segment; files of that name are replaced, since nothing refers to them.
    pub(super) fn create(files: SegmentFiles) -> io::Result<ActiveSegment> {
        files.delete()?;
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(files.path(LOG))?;
        Ok(ActiveSegment::over(files, file))
    }

    /// Opens the file without looking inside: [`note`](Self::note) its batches next.
    pub(super) fn open(files: SegmentFiles) -> io::Result<ActiveSegment> {
        let file = OpenOptions::new().read(true).write(true).open(files.path(LOG))?;
        Ok(ActiveSegment { may_be_reserved: true, ..ActiveSegment::over(files, file) })
    }

    fn over(files: SegmentFiles, file: File) -> ActiveSegment {
        ActiveSegment {
            files,
            file: Arc::new(file),
            bytes: 0,
            offset_index: GrowingIndex::empty(),
            time_index: GrowingIndex::empty(),
            newest: None,
            first_append: None,
            first_timestamp_ms: None,
            bytes_since_index: 0,
            recent: VecDeque::new(),
            may_be_reserved: false,
        }
    }

    /// Reserves the disk space of a whole segment if the topic wants that (`preallocate`). The file's size stays that of
    /// its records, so that nobody, and no recovery, takes what is reserved for records. A disk that cannot reserve, or
    /// has no room for it, is no reason not to write.
    pub(super) fn reserve(&mut self, config: &LogConfig) {
        if !config.preallocate {
            return;
        }
        let bytes = u64::from(config.segment_bytes);
        match fallocate(&self.file, FallocateFlags::KEEP_SIZE, 0, bytes) {
            Ok(()) => self.may_be_reserved = true,
            Err(error) => warn!(file = %self.files.path(LOG).display(), bytes, %error, "disk space not reserved"),
        }
    }

    /// Gives back what is reserved and was not needed.
    fn release(&self) {
        if self.may_be_reserved
            && let Err(error) = self.file.set_len(self.bytes.into())
        {
            warn!(file = %self.files.path(LOG).display(), %error, "reserved disk space not given back");
        }
    }

    pub(super) const fn base(&self) -> Offset {
        self.files.base()
    }

    /// Whether `incoming` belongs into the next segment: no room, too far in time from the first batch, full indexes, or an
    /// offset that 31 bits do not reach.
    pub(super) fn must_roll(&self, incoming: Incoming, config: &LogConfig, now: Timestamp) -> bool {
        let index_full = self.offset_index.len() >= config.segment_index_bytes / OffsetEntry::BYTES as u32
            || self.time_index.len() + 1 >= config.segment_index_bytes / TimeEntry::BYTES as u32;
        u64::from(self.bytes) + u64::from(incoming.bytes) > u64::from(config.segment_bytes)
            || self.bytes > 0 && self.is_due(self.waited(incoming.max_timestamp_ms, now), config)
            || self.bytes > 0 && index_full
            || incoming.last.since(self.base()) > i32::MAX as u64
    }

    /// How long the segment has waited to be rolled: against the first batch's timestamp if it has one, as Kafka measures.
    fn waited(&self, incoming_ms: i64, now: Timestamp) -> Duration {
        let millis = match self.first_timestamp_ms.filter(|first| *first >= 0) {
            Some(first) => incoming_ms.saturating_sub(first),
            None => self.first_append.map_or(0, |first| now.to_wire() - first.to_wire()),
        };
        Duration::from_millis(u64::try_from(millis).unwrap_or(0))
    }

    /// Whether `waited` exceeds `segment.ms` less this segment's part of the jitter.
    pub(super) fn is_due(&self, waited: Duration, config: &LogConfig) -> bool {
        waited > config.segment_time.saturating_sub(self.jitter(config.segment_jitter))
    }

    /// A share of `bound` that differs from partition to partition and from segment to segment.
    fn jitter(&self, bound: Duration) -> Duration {
        let Ok(bound @ 1..) = u64::try_from(bound.as_millis()) else { return Duration::ZERO };
        let mut hasher = DefaultHasher::new();
        self.files.path(LOG).hash(&mut hasher);
        Duration::from_millis(hasher.finish() % bound)
    }

    /// Takes note of a batch that was written behind the bytes known so far.
    pub(super) fn note(&mut self, header: &BatchHeader, config: &LogConfig, now: Timestamp) {
        let (position, last) = (self.bytes, header.last_offset());
        if position == 0 {
            self.note_first(header, now);
        }
        if self.newest.is_none_or(|newest| header.max_timestamp_ms > newest.timestamp_ms)
            && header.max_timestamp_ms >= 0
        {
            self.newest = Some(Newest { timestamp_ms: header.max_timestamp_ms, offset: last });
        }
        if self.bytes_since_index > config.index_interval_bytes {
            let relative_offset = self.relative(last);
            self.offset_index.push(OffsetEntry { relative_offset, position }, || self.files.path(OFFSET_INDEX));
            self.note_newest();
            self.bytes_since_index = 0;
        }
        self.bytes_since_index += header.bytes;
        self.bytes += header.bytes;
        if self.recent.len() == RECENT_BATCHES {
            self.recent.pop_front();
        }
        self.recent.push_back(Place { base: header.base_offset, last, position, end: self.bytes });
    }

    /// Takes note of the first batch of the segment. It starts the clock of the archive: with its own timestamp for a
    /// segment found on disk, which tells best when that was.
    pub(super) fn note_first(&mut self, header: &BatchHeader, now: Timestamp) {
        self.first_timestamp_ms = Some(header.max_timestamp_ms);
        self.first_append.get_or_insert(header.max_timestamp().map_or(now, |first| first.min(now)));
    }

    /// Adds the largest timestamp so far to the time index if it is not there yet.
    fn note_newest(&mut self) {
        let Some(newest) = self.newest else { return };
        if self.time_index.last().is_none_or(|last| newest.timestamp_ms > last.timestamp_ms) {
            let relative_offset = self.relative(newest.offset);
            self.time_index
                .push(TimeEntry { timestamp_ms: newest.timestamp_ms, relative_offset }, || self.files.path(TIME_INDEX));
        }
    }

    fn relative(&self, offset: Offset) -> u32 {
        u32::try_from(offset.since(self.base())).expect("a segment is rolled before 31 bits do not reach")
    }

    /// The first batch that ends at or behind `offset`, if it is one of the newest.
    pub(super) fn find_recent(&self, offset: Offset) -> Option<Place> {
        let place = self.recent.get(self.recent.partition_point(|place| place.last < offset)).copied();
        let known = self.recent.front().is_some_and(|oldest| oldest.base <= offset || oldest.position == 0);
        place.filter(|_| known)
    }

    /// Goes on with a segment whose indexes cover all up to the batch at `position`, which is to be [noted](Self::note) next.
    pub(super) fn resume(
        &mut self,
        position: u32,
        offset_index: GrowingIndex<OffsetEntry>,
        time_index: GrowingIndex<TimeEntry>,
    ) {
        let newest = time_index.last().filter(|last| last.timestamp_ms >= 0);
        self.newest = newest.map(|last| Newest {
            timestamp_ms: last.timestamp_ms,
            offset: self.base().plus(last.relative_offset.into()),
        });
        (self.bytes, self.offset_index, self.time_index) = (position, offset_index, time_index);
    }

    /// Writes both indexes out, the largest timestamp last: Kafka finds it there when it decides on deletion.
    pub(super) fn write_indexes(&mut self) -> io::Result<()> {
        self.note_newest();
        self.offset_index.write_out(&self.files.path(OFFSET_INDEX))?;
        self.time_index.write_out(&self.files.path(TIME_INDEX))
    }

    /// The same segment under the names that its files have now.
    pub(super) fn moved_to(self, files: SegmentFiles) -> ActiveSegment {
        ActiveSegment { files, ..self }
    }

    /// The segment as one that never changes again. [`write_indexes`](Self::write_indexes) first.
    pub(super) fn seal(self) -> Sealed {
        self.release();
        Sealed::known(self.files, self.bytes, self.newest, &self.file)
    }
}
