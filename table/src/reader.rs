//! Reading an object: which bytes to fetch for an offset, and the exact batches that they hold.

use std::ops::Range;

use bytes::Bytes;
use varve_log::format::{BatchHeader, HEADER_BYTES, compression, records_crc};
use varve_metadata::{config::Codec, model::Offset};

use crate::{
    batch_table::{BatchEntry, BatchKind},
    error::DecodeError,
    fetched::Fetched,
    footer::TableFooter,
    pages::PageRun,
    raw_section,
    rebuild::RowWalk,
    schema::COLUMNS,
};

/// Two ranges nearer than this are fetched as one: a request costs more than the bytes between them.
pub const MERGE_GAP_BYTES: u64 = 512 << 10;

/// Memory reserved up front for a run of batches; it grows beyond by need, not by what a table claims.
const RESERVE_BYTES: u64 = 64 << 20;

/// How rebuilt batches are given out (`varve.archive.fetch.compression`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Recompression {
    /// Uncompressed, whatever they were: length, CRC and codec bits are made anew.
    #[default]
    None,
    /// With the codec that the producer used. Costs three times the CPU.
    Producer,
}

/// Which whole batches answer a read, and the bytes of the object that hold them.
#[derive(Clone, Debug)]
pub struct ReadPlan {
    parts: Vec<PlanPart>,
    ranges: Vec<Range<u64>>,
    first: Offset,
    end: Offset,
    frame_bytes: u64,
}

/// The batches of a plan within one group.
#[derive(Clone, Debug)]
struct PlanPart {
    row_group: Option<usize>,
    skip_rows: u64,
    raw_position: u64,
    batches: Vec<BatchEntry>,
}

impl ReadPlan {
    /// What to fetch: ascending, not overlapping.
    pub fn ranges(&self) -> &[Range<u64>] {
        &self.ranges
    }

    /// Bytes to fetch in all.
    pub fn fetch_bytes(&self) -> u64 {
        self.ranges.iter().map(|range| range.end - range.start).sum()
    }

    /// Base offset of the first batch.
    pub const fn first(&self) -> Offset {
        self.first
    }

    /// The offset behind the last batch: where the next read goes on.
    pub const fn end(&self) -> Offset {
        self.end
    }

    /// Size of the batches when they are given out uncompressed, in bytes.
    pub const fn frame_bytes(&self) -> u64 {
        self.frame_bytes
    }
}

impl TableFooter {
    /// The batches from the one that holds `from` (or the next one, in a gap) on, as many as fit in `max_bytes`, at least
    /// one. `None` if no batch of this object ends behind `from`.
    ///
    /// # Errors
    /// [`DecodeError::Corrupt`] if the batch table is damaged.
    pub fn plan(&self, from: Offset, max_bytes: u64) -> Result<Option<ReadPlan>, DecodeError> {
        let mut parts = Vec::new();
        let mut budget = Some(max_bytes);
        let start = self.groups().partition_point(|group| group.end <= from);
        for index in start..self.groups().len() {
            let (part, full) = self.part(index, from, budget.as_mut(), parts.is_empty())?;
            parts.extend(part);
            if full {
                break;
            }
        }
        Ok(self.planned(parts))
    }

    /// As [`plan`](Self::plan), but to the end of the group that holds `from`: for readers that will read on.
    ///
    /// # Errors
    /// [`DecodeError::Corrupt`] if the batch table is damaged.
    pub fn plan_group(&self, from: Offset) -> Result<Option<ReadPlan>, DecodeError> {
        let index = self.groups().partition_point(|group| group.end <= from);
        if index == self.groups().len() {
            return Ok(None);
        }
        let (part, _) = self.part(index, from, None, true)?;
        Ok(self.planned(part.into_iter().collect()))
    }

    /// What a group adds to a plan, and whether the plan is full. `budget`: bytes left; `None` is no limit.
    fn part(
        &self,
        index: usize,
        from: Offset,
        budget: Option<&mut u64>,
        first: bool,
    ) -> Result<(Option<PlanPart>, bool), DecodeError> {
        let group = self.groups()[index];
        let mut batches = self.batches(index)?;
        let skipped = batches.partition_point(|batch| batch.header.next_offset() <= from);
        let skip_rows = batches[..skipped].iter().map(BatchEntry::rows).sum();
        let skip_raw: u64 = batches[..skipped].iter().map(|batch| u64::from(batch.raw_bytes)).sum();
        batches.drain(..skipped);
        let mut full = false;
        if let Some(budget) = budget {
            let mut taken = 0;
            while let Some(batch) = batches.get(taken) {
                let bytes = batch.frame_bytes();
                if bytes > *budget && !(first && taken == 0) {
                    full = true;
                    break;
                }
                *budget = budget.saturating_sub(bytes);
                taken += 1;
            }
            batches.truncate(taken);
        }
        let part = PlanPart {
            row_group: group.row_group,
            skip_rows,
            raw_position: group.raw_position.saturating_add(skip_raw),
            batches,
        };
        Ok(((!part.batches.is_empty()).then_some(part), full))
    }

    fn planned(&self, parts: Vec<PlanPart>) -> Option<ReadPlan> {
        let first = parts.first()?.batches.first()?.header.base_offset;
        let end = parts.last()?.batches.last()?.header.next_offset();
        let mut ranges: Vec<_> = parts.iter().flat_map(|part| self.ranges_of(part)).collect();
        ranges.retain(|range| range.start < range.end);
        ranges.sort_by_key(|range| range.start);
        let ranges = ranges.into_iter().fold(Vec::<Range<u64>>::new(), |mut merged, range| {
            match merged.last_mut() {
                Some(last) if range.start <= last.end.saturating_add(MERGE_GAP_BYTES) => {
                    last.end = last.end.max(range.end);
                }
                _ => merged.push(range),
            }
            merged
        });
        let frame_bytes = parts.iter().flat_map(|part| &part.batches).map(BatchEntry::frame_bytes).sum();
        Some(ReadPlan { parts, ranges, first, end, frame_bytes })
    }

    /// The pages that hold a part's rows, and its piece of the raw section.
    fn ranges_of(&self, part: &PlanPart) -> Vec<Range<u64>> {
        let raw_bytes: u64 = part.batches.iter().map(|batch| u64::from(batch.raw_bytes)).sum();
        let raw = part.raw_position..part.raw_position.saturating_add(raw_bytes);
        // Rows of batches that are carried whole need no pages, unless rows to be rebuilt lie around them.
        let (skip, take) = part.rows();
        let pages = self.page_runs(part.row_group, skip..skip + take, 0..COLUMNS).into_iter().map(|run| run.range);
        pages.chain([raw]).collect()
    }

    /// The pages that hold `rows` of some columns of a row group; none without a row group or rows.
    pub(crate) fn page_runs(&self, row_group: Option<usize>, rows: Range<u64>, columns: Range<usize>) -> Vec<PageRun> {
        let Some(row_group) = row_group.filter(|_| !rows.is_empty()) else { return Vec::new() };
        let metadata = self.metadata().metadata();
        columns.flat_map(|column| self.pages().runs(metadata, row_group, column, rows.clone())).collect()
    }

    /// Rebuilds the batches of `plan` from the fetched ranges and hands each out in order: its entry, whose header names the
    /// codec that it came with, and its bytes.
    ///
    /// Each is checked against the CRC of its records that was taken when it was archived.
    ///
    /// # Errors
    /// [`DecodeError::Missing`] if a range was not fetched; the others if the object is damaged.
    pub fn decode_each(
        &self,
        plan: &ReadPlan,
        fetched: &Fetched,
        recompression: Recompression,
        mut each: impl FnMut(&BatchEntry, &[u8]),
    ) -> Result<(), DecodeError> {
        let mut run = Vec::new();
        plan.parts.iter().try_for_each(|part| {
            part.decode(self, fetched, recompression, |batch, write| {
                run.clear();
                write(&mut run)?;
                each(batch, &run);
                Ok(())
            })
        })
    }

    /// The batches of `plan` as one run of bytes.
    ///
    /// # Errors
    /// As [`decode_each`](Self::decode_each).
    pub fn decode(
        &self,
        plan: &ReadPlan,
        fetched: &Fetched,
        recompression: Recompression,
    ) -> Result<Bytes, DecodeError> {
        let mut run = Vec::with_capacity(plan.frame_bytes.min(RESERVE_BYTES) as usize);
        plan.parts.iter().try_for_each(|part| part.decode(self, fetched, recompression, |_, write| write(&mut run)))?;
        Ok(run.into())
    }
}

/// Appends one batch to a buffer.
type Write<'a> = &'a mut dyn FnMut(&mut Vec<u8>) -> Result<(), DecodeError>;

impl PlanPart {
    /// Rows of the row group to walk: how many to skip, how many to decode.
    fn rows(&self) -> (u64, u64) {
        let rows = |batches: &[BatchEntry]| batches.iter().map(BatchEntry::rows).sum::<u64>();
        let walked = self.walked();
        (self.skip_rows + rows(&self.batches[..walked.start]), rows(&self.batches[walked]))
    }

    /// From the first batch that is rebuilt to the last.
    fn walked(&self) -> Range<usize> {
        let rebuilt = |batch: &BatchEntry| batch.kind.is_rebuilt();
        let first = self.batches.iter().position(rebuilt).unwrap_or(0);
        let end = self.batches.iter().rposition(rebuilt).map_or(0, |last| last + 1);
        first.min(end)..end
    }

    fn decode(
        &self,
        footer: &TableFooter,
        fetched: &Fetched,
        recompression: Recompression,
        mut emit: impl FnMut(&BatchEntry, Write<'_>) -> Result<(), DecodeError>,
    ) -> Result<(), DecodeError> {
        let (skip, take) = self.rows();
        for run in footer.page_runs(self.row_group, skip..skip + take, 0..COLUMNS) {
            run.check(fetched)?;
        }
        let mut walk = match self.row_group {
            Some(row_group) if take > 0 => {
                Some(RowWalk::open(footer.metadata().clone(), fetched.clone(), row_group, skip, take)?)
            }
            _ => None,
        };
        let mut raw_position = self.raw_position;
        let walked = self.walked();
        for (index, batch) in self.batches.iter().enumerate() {
            let raw_end = raw_position.saturating_add(u64::from(batch.raw_bytes));
            let raw = fetched.get(raw_position..raw_end);
            raw_position = raw_end;
            match batch.kind {
                BatchKind::Raw | BatchKind::RowsAndRaw => {
                    let raw = raw.ok_or(DecodeError::Missing)?;
                    emit(batch, &mut |out| {
                        out.extend_from_slice(&raw);
                        Ok(())
                    })?;
                    // Rows that lie between others that are rebuilt.
                    if let (Some(walk), true) = (&mut walk, walked.contains(&index)) {
                        walk.skip(batch.rows())?;
                    }
                }
                BatchKind::Rows | BatchKind::RowsWithTimestamps => {
                    let deltas = match batch.kind {
                        BatchKind::RowsWithTimestamps => {
                            let raw = raw.ok_or(DecodeError::Missing)?;
                            let deltas = raw_section::decode_deltas(&raw, batch.header.record_count);
                            Some(deltas.ok_or(DecodeError::Corrupt("timestamp deltas"))?)
                        }
                        _ => None,
                    };
                    emit(batch, &mut |out| append_batch(batch, walk.as_mut(), deltas.as_deref(), recompression, out))?;
                }
            }
        }
        Ok(())
    }
}

/// Rebuilds one batch at the end of `out`.
fn append_batch(
    batch: &BatchEntry,
    walk: Option<&mut RowWalk>,
    deltas: Option<&[u8]>,
    recompression: Recompression,
    out: &mut Vec<u8>,
) -> Result<(), DecodeError> {
    let start = out.len();
    out.extend_from_slice(&[0; HEADER_BYTES]);
    if let Some(walk) = walk {
        walk.append_records(batch, deltas, out)?;
    }
    let records = &out[start + HEADER_BYTES..];
    if records.len() != batch.records_bytes as usize || records_crc(records) != batch.records_crc {
        return Err(DecodeError::Corrupt("records that differ from those archived"));
    }
    match (recompression, batch.header.attributes.compression()) {
        (Recompression::Producer, codec) if codec != Codec::None => {
            let payload = compression::compress(codec, None, records)?;
            out.truncate(start);
            out.extend_from_slice(&batch.header.encode_batch(&payload));
        }
        _ => {
            let attributes = batch.header.attributes.with_compression(Codec::None);
            let bytes = (out.len() - start) as u32;
            let header = BatchHeader { attributes, bytes, ..batch.header };
            out[start..start + HEADER_BYTES].copy_from_slice(&header.encode());
            let crc = crc32c::crc32c(&out[start + CRC_START..]);
            out[start + CRC_FIELD..start + CRC_FIELD + 4].copy_from_slice(&crc.to_be_bytes());
        }
    }
    Ok(())
}

/// Where a batch's CRC field lies, and where the bytes that it covers begin.
const CRC_FIELD: usize = 17;
const CRC_START: usize = 21;
