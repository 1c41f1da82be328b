//! Reading segments through: checking batches after a crash, rebuilding indexes, epochs and producer state.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::FileExt,
    path::Path,
    sync::Arc,
};

use varve_metadata::model::{Offset, Timestamp};

use super::{
    active::ActiveSegment,
    append::{ProducerEvent, producer_event},
    config::LogConfig,
    error::OpenError,
    files::{self, LOG, OFFSET_INDEX, SWAP, SegmentFiles, TIME_INDEX, TXN_INDEX},
    index::{GrowingIndex, OffsetEntry, TimeEntry},
    leader_epochs::EpochCache,
    log::{AppendOrigin, View},
    producer_snapshot::ProducerSnapshots,
    producer_state::ProducerState,
    scan::{HeaderScan, Located, ScanError},
    sealed::Sealed,
    txn_index::{AbortedTxn, TxnIndex},
};
use crate::format::{BatchHeader, CRC_START, HEADER_BYTES};

/// Bytes read at once when a whole segment is read.
const CHUNK: usize = 256 * 1024;

/// A segment that was read through, open for appends.
pub(super) struct Segment {
    pub(super) active: ActiveSegment,
    pub(super) end: Offset,
    pub(super) bytes_cut: u64,
}

/// Checks every batch of a segment including its CRC, cuts it off before the first that does not hold, and makes its
/// indexes anew. `next`: base offset of the segment behind it.
pub(super) fn check(
    files: SegmentFiles,
    next: Option<Offset>,
    config: &LogConfig,
    epochs: &mut EpochCache,
    now: Timestamp,
) -> io::Result<Segment> {
    let mut active = ActiveSegment::open(files)?;
    let len = active.file.metadata()?.len();
    let limit = u32::try_from(len).unwrap_or(u32::MAX);
    let mut end = active.base();
    let mut buffer = vec![0; CHUNK.min(limit as usize)];
    let file = Arc::clone(&active.file);
    for batch in HeaderScan::new(&file, 0, limit).with_chunk(CHUNK) {
        let batch = match batch {
            Ok(batch) => batch,
            Err(ScanError::Io(error)) => return Err(error),
            Err(ScanError::Batch(_)) => break,
        };
        if !follows(&batch.header, end, &active, next) || !crc_holds(&file, &batch, &mut buffer)? {
            break;
        }
        if let Some(epoch) = batch.header.leader_epoch
            && epochs.latest().is_none_or(|(latest, _)| epoch > latest)
        {
            epochs.assign(epoch, batch.header.base_offset);
        }
        active.note(&batch.header, config, now);
        end = batch.header.next_offset();
    }
    let bytes_cut = len - u64::from(active.bytes);
    if bytes_cut > 0 {
        active.file.set_len(active.bytes.into())?;
    }
    cut_txn_index(&active.files, end)?;
    Ok(Segment { active, end, bytes_cut })
}

/// Whether a batch may stand here: behind the one before, within what the segment's indexes can say, and in front of the next
/// segment. Its offset lies outside of its CRC, so nothing else tells that it was changed.
fn follows(header: &BatchHeader, end: Offset, segment: &ActiveSegment, next: Option<Offset>) -> bool {
    let last = header.last_offset();
    header.base_offset >= end && last.since(segment.base()) <= i32::MAX as u64 && next.is_none_or(|next| last < next)
}

fn crc_holds(file: &File, batch: &Located, buffer: &mut [u8]) -> io::Result<bool> {
    let (mut position, end) = (u64::from(batch.position) + CRC_START as u64, u64::from(batch.end()));
    let mut crc = 0;
    while position < end {
        let part = &mut buffer[..(end - position).min(CHUNK as u64) as usize];
        file.read_exact_at(part, position)?;
        crc = crc32c::crc32c_append(crc, part);
        position += part.len() as u64;
    }
    Ok(crc == batch.header.crc)
}

/// A transaction index must not know of markers that are gone. One that is no index is dropped; the batches are replayed
/// into a new one.
fn cut_txn_index(files: &SegmentFiles, end: Offset) -> io::Result<()> {
    let path = files.path(TXN_INDEX);
    if !path.exists() {
        return Ok(());
    }
    let cut = TxnIndex::open(path.clone(), files.base()).and_then(|mut index| index.truncate_to(end));
    if cut.is_err() { files::delete(&path) } else { Ok(()) }
}

/// Reads the headers of a segment whose batches are taken to hold, for its indexes. Fails on one that its indexes cannot name,
/// or that reaches into the segment at `next`.
pub(super) fn walk(
    files: SegmentFiles,
    next: Option<Offset>,
    config: &LogConfig,
    now: Timestamp,
) -> io::Result<Segment> {
    let mut active = ActiveSegment::open(files)?;
    let file = Arc::clone(&active.file);
    let limit = u32::try_from(file.metadata()?.len()).unwrap_or(u32::MAX);
    let mut end = active.base();
    for batch in HeaderScan::new(&file, 0, limit).with_chunk(CHUNK) {
        let header = batch.map_err(invalid)?.header;
        if !follows(&header, end, &active, next) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a batch's offsets are not those of its segment"));
        }
        active.note(&header, config, now);
        end = header.next_offset();
    }
    Ok(Segment { active, end, bytes_cut: 0 })
}

/// The active segment as its indexes describe it, read only from the last index entry on. `None` if index and batches
/// disagree or the tail does not end with a whole batch.
pub(super) fn resume(files: SegmentFiles, config: &LogConfig, now: Timestamp) -> io::Result<Option<Segment>> {
    let mut active = ActiveSegment::open(files.clone())?;
    let file = Arc::clone(&active.file);
    let limit = u32::try_from(file.metadata()?.len()).unwrap_or(u32::MAX);
    let Some(offset_index) = GrowingIndex::<OffsetEntry>::open(&files.path(OFFSET_INDEX))? else { return Ok(None) };
    let Some(time_index) = GrowingIndex::<TimeEntry>::open(&files.path(TIME_INDEX))? else { return Ok(None) };
    let last = offset_index.last();
    let start = last.map_or(0, |entry| entry.position);
    if start > 0 {
        let Some(Ok(first)) = HeaderScan::new(&file, 0, limit).next() else { return Ok(None) };
        active.note_first(&first.header, now);
    }
    active.resume(start, offset_index, time_index);
    let mut end = active.base();
    for batch in HeaderScan::new(&file, start, limit) {
        let header = match batch {
            Ok(batch) => batch.header,
            Err(ScanError::Io(error)) => return Err(error),
            Err(ScanError::Batch(_)) => return Ok(None),
        };
        let indexed = last.map(|entry| active.base().plus(entry.relative_offset.into()));
        let misplaced = active.bytes == start && start > 0 && indexed != Some(header.last_offset());
        if misplaced || !follows(&header, end, &active, None) {
            return Ok(None);
        }
        active.note(&header, config, now);
        end = header.next_offset();
    }
    // An entry that points at or beyond the end is damage.
    Ok((start == 0 || start < limit).then_some(Segment { active, end, bytes_cut: 0 }))
}

/// Collects the epochs of a sealed segment's batches.
pub(super) fn collect_epochs(segment: &Sealed, epochs: &mut EpochCache) -> io::Result<()> {
    collect(&*segment.open()?, segment.bytes, epochs)
}

/// Collects the epochs of the active segment's batches: of the last segment file in `dir`.
pub(super) fn collect_active_epochs(dir: &Path, sealed: &[Arc<Sealed>], epochs: &mut EpochCache) -> io::Result<()> {
    let after = sealed.last().map(|segment| segment.base());
    let mut last = None;
    for entry in fs::read_dir(dir)? {
        let name = entry?.file_name();
        if let Some((base, LOG)) = name.to_str().and_then(files::parse_name)
            && after.is_none_or(|after| base > after)
        {
            last = last.max(Some(base));
        }
    }
    let Some(base) = last else { return Ok(()) };
    let file = File::open(SegmentFiles::new(dir.into(), base).path(LOG))?;
    let limit = u32::try_from(file.metadata()?.len()).unwrap_or(u32::MAX);
    collect(&file, limit, epochs)
}

fn collect(file: &File, limit: u32, epochs: &mut EpochCache) -> io::Result<()> {
    for batch in HeaderScan::new(file, 0, limit).with_chunk(CHUNK) {
        let header = batch.map_err(invalid)?.header;
        if let Some(epoch) = header.leader_epoch {
            epochs.assign(epoch, header.base_offset);
        }
    }
    Ok(())
}

/// Brings producer state up to the log's end, batch by batch, and leaves a snapshot at the base of each segment that it
/// comes to.
pub(super) fn replay(
    view: &View,
    state: &mut ProducerState,
    snapshots: &mut ProducerSnapshots,
) -> Result<(), OpenError> {
    let from = state.end();
    for (place, segment) in view.sealed.iter().enumerate() {
        if view.end_of(place) > from {
            replay_segment(&segment.files, &*segment.open()?, segment.bytes, from, state, snapshots)?;
        }
    }
    let active = &view.active;
    replay_segment(&active.files, &active.file, active.bytes, from, state, snapshots)?;
    state.advance_to(view.end);
    Ok(())
}

fn replay_segment(
    files: &SegmentFiles,
    file: &File,
    limit: u32,
    from: Offset,
    state: &mut ProducerState,
    snapshots: &mut ProducerSnapshots,
) -> Result<(), OpenError> {
    if files.base() > state.end() || (files.base() == state.end() && files.base() > from) {
        state.advance_to(files.base());
        snapshots.take(state, false).map_err(super::RollError::from)?;
    }
    let mut txn_index = TxnIndex::open(files.path(TXN_INDEX), files.base()).map_err(super::RollError::from)?;
    let indexed = txn_index.entries().map_err(super::RollError::from)?.last().map(|entry| entry.last);
    for batch in HeaderScan::new(file, 0, limit).with_chunk(CHUNK) {
        let batch = batch.map_err(invalid)?;
        if batch.header.producer_id.is_none() || batch.header.last_offset() < from {
            continue;
        }
        for completed in apply(state, file, &batch)? {
            let missing = indexed.is_none_or(|last| completed.last > last);
            if completed.aborted && missing {
                let last_stable = state.last_stable_offset(&completed);
                let (producer, first, last) = (completed.producer, completed.first, completed.last);
                let entry = AbortedTxn { producer, first, last, last_stable };
                txn_index.append(&entry).map_err(super::RollError::from)?;
            }
            state.complete(&completed);
            // What lies in the log when it is opened is on every replica that counts.
            state.advance_high_watermark(completed.last.plus(1));
        }
        state.advance_to(batch.header.next_offset());
    }
    Ok(())
}

/// Applies one batch that was accepted when it was appended.
fn apply(
    state: &mut ProducerState,
    file: &File,
    batch: &Located,
) -> io::Result<Vec<super::producer_state::CompletedTxn>> {
    let payload = if batch.header.attributes.is_control() {
        let mut payload = vec![0; batch.header.bytes as usize - HEADER_BYTES];
        file.read_exact_at(&mut payload, u64::from(batch.position) + HEADER_BYTES as u64)?;
        payload
    } else {
        Vec::new()
    };
    let mut update = state.update(AppendOrigin::Replication);
    let accepted = match producer_event(&batch.header, &payload) {
        Some(ProducerEvent::Data(data)) => update.data(state, &data).map(drop),
        Some(ProducerEvent::End(marker)) => update.marker(state, &marker),
        None => return Ok(Vec::new()),
    };
    if let Err(error) = accepted {
        tracing::warn!(%error, "batch in the log that its producer may not have written");
        return Ok(Vec::new());
    }
    Ok(state.apply(update))
}

/// Puts cleaned segments in the place of those they were made from, as the cleaner was about to. One whose log was not yet
/// renamed is not complete, and goes.
pub(super) fn complete_swaps(dir: &Path, names: &[String]) -> io::Result<()> {
    let dir: Arc<Path> = dir.into();
    let swapped = |name: &str| {
        let (base, suffix) = files::parse_name(name)?;
        suffix.strip_suffix(SWAP)?.strip_suffix('.').map(|suffix| (base, suffix.to_owned()))
    };
    let swaps: Vec<(Offset, String)> = names.iter().filter_map(|name| swapped(name)).collect();
    for (base, _) in swaps.iter().filter(|(_, suffix)| suffix == LOG) {
        let file = File::open(SegmentFiles::new(Arc::clone(&dir), *base).path(&format!("{LOG}.{SWAP}")))?;
        let limit = u32::try_from(file.metadata()?.len()).unwrap_or(u32::MAX);
        let mut end = *base;
        for batch in HeaderScan::new(&file, 0, limit).with_chunk(CHUNK) {
            end = batch.map_err(invalid)?.header.next_offset();
        }
        for (old, suffix) in names.iter().filter_map(|name| files::parse_name(name)) {
            let segment_file = matches!(suffix, LOG | OFFSET_INDEX | TIME_INDEX | TXN_INDEX);
            // A file of the cleaned segment may have its last name already: one that waits under no other is not old.
            let arrived = old == *base && !swaps.iter().any(|(swap, waits)| swap == base && waits == suffix);
            if segment_file && !arrived && old >= *base && old < end.max(base.plus(1)) {
                files::delete(&SegmentFiles::new(Arc::clone(&dir), old).path(suffix))?;
            }
        }
    }
    let decided: Vec<Offset> = swaps.iter().filter(|(_, suffix)| suffix == LOG).map(|(base, _)| *base).collect();
    for (base, suffix) in swaps {
        let files = SegmentFiles::new(Arc::clone(&dir), base);
        if !decided.contains(&base) {
            files::delete(&files.path(&format!("{suffix}.{SWAP}")))?;
            continue;
        }
        fs::rename(files.path(&format!("{suffix}.{SWAP}")), files.path(&suffix))?;
    }
    Ok(())
}

fn invalid(error: ScanError) -> io::Error {
    match error {
        ScanError::Io(error) => error,
        ScanError::Batch(error) => io::Error::new(io::ErrorKind::InvalidData, error),
    }
}
