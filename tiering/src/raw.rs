//! The raw object: a sealed segment as it goes into the bucket, in one write, readable by ranges. Pure.
//!
//! ```text
//!   batches                    the segment's bytes, from the batch that holds the part's first offset
//!   offset index               24 bytes each: offset u64 │ position u64 │ largest timestamp from here to the next entry i64 (-1 none)
//!   aborted transactions       34 bytes each, as in Kafka's .txnindex: all that overlap the part's offsets
//!   leader epochs              12 bytes each: epoch u32 │ first offset u64
//!   producer snapshot          Kafka's .snapshot as of the part's end; may be empty
//!   footer (106)               base u64 │ end u64 │ records u64 │ largest timestamp i64 │ 5 × (length u64 │ CRC-32C u32)
//!                              │ format version u16 │ CRC-32C of the footer so far u32 │ magic "varveraw"
//! ```
//!
//! All numbers are big endian. Positions count from the part's begin, so parts can lie behind each other in one shared
//! object. [`RawBuilder`] checks the CRC of every batch that passes through it: what is damaged on the disk does not
//! reach the archive.

pub mod shared;

use std::ops::Range;

use bytes::Bytes;
use varve_log::{
    format::{BatchError, BatchHeader, HEADER_BYTES},
    local::{AbortedTxn, TXN_INDEX_ENTRY_BYTES},
};
use varve_metadata::model::{LeaderEpoch, Offset, Timestamp};

/// Size of the footer.
pub const FOOTER_BYTES: usize = 106;
/// A read of the last this many bytes usually brings footer and indexes at once.
pub const TAIL_GUESS: u64 = 64 << 10;
/// All behind the batches of one part, at most.
pub const MAX_META_BYTES: u64 = 256 << 20;
/// Batches between two index entries, in bytes: the most that is read in vain to find an offset.
pub const INDEX_INTERVAL: u64 = 64 << 10;

const MAGIC: &[u8; 8] = b"varveraw";
const FORMAT: u16 = 1;
const INDEX_ENTRY_BYTES: usize = 24;
const EPOCH_ENTRY_BYTES: usize = 12;
/// Where a batch's CRC begins to count.
const CRC_START: usize = 21;

/// Why bytes are no raw object, or no segment that may become one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RawError {
    /// A batch is damaged or cut, at this position of the part.
    #[error("record batch at position {position} is not whole")]
    Batch {
        /// Bytes before it.
        position: u64,
        /// What is wrong with it.
        source: BatchError,
    },
    /// Batches do not ascend, or leave the offsets that the part answers for.
    #[error("offset {0} is out of order or out of range")]
    Offset(Offset),
    /// Written by a newer Varve.
    #[error("format version {0} is newer than this program")]
    Newer(u16),
    /// Damaged, or not ours.
    #[error("not a raw object: {0}")]
    Corrupt(&'static str),
    /// The tail read is too short: read the last this many bytes.
    #[error("{0} bytes of the tail are needed")]
    TailNeeded(u64),
}

/// What lies behind the batches, besides what the batches themselves tell.
#[derive(Clone, Debug, Default)]
pub struct Attachments {
    /// All aborted transactions that overlap the part's offsets, whichever segment their markers lie in.
    pub aborted: Vec<AbortedTxn>,
    /// The local log's producer snapshot as of the part's end; empty if there is none.
    pub producer_snapshot: Bytes,
}

/// What the batches were, once all have passed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawSummary {
    /// First offset that the part answers for.
    pub base: Offset,
    /// Offset behind the last one that it answers for.
    pub end: Offset,
    /// Size of the whole part.
    pub bytes: u64,
    /// Size of its batches.
    pub log_bytes: u64,
    /// Records in them, by their headers.
    pub records: u64,
    /// Largest record timestamp.
    pub max_timestamp: Option<Timestamp>,
    /// Leader epochs with the first offset of each.
    pub leader_epochs: Vec<(LeaderEpoch, Offset)>,
    /// CRC-32C of the whole part.
    pub crc32c: u32,
}

/// Watches batches pass, in pieces of any size, and makes what has to follow them. Memory: the index, and one header.
#[derive(Debug)]
pub struct RawBuilder {
    base: Offset,
    end: Offset,
    position: u64,
    crc: u32,
    /// First bytes of the batch under way, until its header is whole.
    header: Vec<u8>,
    batch: Option<Batch>,
    next_offset: Offset,
    records: u64,
    max_timestamp: Option<Timestamp>,
    epochs: Vec<(LeaderEpoch, Offset)>,
    index: Vec<RawIndexEntry>,
}

#[derive(Debug)]
struct Batch {
    position: u64,
    expected_crc: u32,
    crc: u32,
    left: u64,
}

/// Where batches from an offset on begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RawIndexEntry {
    /// Base offset of the batch at `position`.
    pub offset: Offset,
    /// Bytes of the part before it.
    pub position: u64,
    /// Largest record timestamp from here to the next entry.
    pub max_timestamp: Option<Timestamp>,
}

impl RawBuilder {
    /// For a part that answers for `base..end`. Its first batch may begin before `base`; none may end beyond `end`.
    pub fn new(base: Offset, end: Offset) -> RawBuilder {
        RawBuilder {
            base,
            end,
            position: 0,
            crc: 0,
            header: Vec::with_capacity(HEADER_BYTES),
            batch: None,
            next_offset: Offset::ZERO,
            records: 0,
            max_timestamp: None,
            epochs: Vec::new(),
            index: Vec::new(),
        }
    }

    /// Takes the next bytes of the batches.
    ///
    /// # Errors
    /// [`RawError::Batch`], [`RawError::Offset`]: this segment must not be archived.
    pub fn push(&mut self, mut piece: &[u8]) -> Result<(), RawError> {
        self.crc = crc32c::crc32c_append(self.crc, piece);
        while !piece.is_empty() {
            piece = match &mut self.batch {
                None => self.take_header(piece)?,
                Some(batch) => {
                    let taken = usize::try_from(batch.left).unwrap_or(usize::MAX).min(piece.len());
                    batch.crc = crc32c::crc32c_append(batch.crc, &piece[..taken]);
                    batch.left -= taken as u64;
                    self.position += taken as u64;
                    &piece[taken..]
                }
            };
            self.close_batch()?;
        }
        Ok(())
    }

    fn take_header<'a>(&mut self, piece: &'a [u8]) -> Result<&'a [u8], RawError> {
        let (taken, rest) = piece.split_at((HEADER_BYTES - self.header.len()).min(piece.len()));
        self.header.extend_from_slice(taken);
        self.position += taken.len() as u64;
        if self.header.len() == HEADER_BYTES {
            let position = self.position - HEADER_BYTES as u64;
            let header = BatchHeader::parse(&self.header).map_err(|source| RawError::Batch { position, source })?;
            self.note(&header, position)?;
            self.batch = Some(Batch {
                position,
                expected_crc: header.crc,
                crc: crc32c::crc32c(&self.header[CRC_START..]),
                left: u64::from(header.bytes) - HEADER_BYTES as u64,
            });
            self.header.clear();
        }
        Ok(rest)
    }

    fn note(&mut self, header: &BatchHeader, position: u64) -> Result<(), RawError> {
        let in_order = header.base_offset >= self.next_offset;
        if !in_order || header.last_offset() < self.base || header.next_offset() > self.end {
            return Err(RawError::Offset(header.base_offset));
        }
        self.next_offset = header.next_offset();
        self.records = self.records.saturating_add(u64::from(header.record_count));
        let timestamp = header.max_timestamp();
        self.max_timestamp = self.max_timestamp.max(timestamp);
        if let Some(epoch) = header.leader_epoch
            && self.epochs.last().is_none_or(|(newest, _)| epoch > *newest)
        {
            self.epochs.push((epoch, header.base_offset));
        }
        match self.index.last_mut() {
            Some(entry) if position - entry.position < INDEX_INTERVAL => {
                entry.max_timestamp = entry.max_timestamp.max(timestamp);
            }
            _ => self.index.push(RawIndexEntry { offset: header.base_offset, position, max_timestamp: timestamp }),
        }
        Ok(())
    }

    fn close_batch(&mut self) -> Result<(), RawError> {
        let Some(batch) = self.batch.take_if(|batch| batch.left == 0) else { return Ok(()) };
        if batch.crc != batch.expected_crc {
            let source = BatchError::Corrupt { field: "crc" };
            return Err(RawError::Batch { position: batch.position, source });
        }
        Ok(())
    }

    /// What has to follow the batches, and what they were.
    ///
    /// # Errors
    /// [`RawError::Batch`] if the last batch is cut; [`RawError::Corrupt`] if the attachments are too large.
    pub fn finish(mut self, attachments: Attachments) -> Result<(Vec<u8>, RawSummary), RawError> {
        if self.batch.is_some() || !self.header.is_empty() {
            let position = self.batch.map_or(self.position - self.header.len() as u64, |batch| batch.position);
            return Err(RawError::Batch { position, source: BatchError::Truncated });
        }
        let log_bytes = self.position;
        let index: Vec<u8> = self.index.iter().flat_map(RawIndexEntry::encode).collect();
        let aborted: Vec<u8> = attachments.aborted.iter().flat_map(AbortedTxn::encode).collect();
        let epochs: Vec<u8> = self.epochs.iter().flat_map(encode_epoch).collect();
        let sections = [index.as_slice(), &aborted, &epochs, &attachments.producer_snapshot];
        let mut tail: Vec<u8> = sections.concat();
        if tail.len() as u64 + FOOTER_BYTES as u64 > MAX_META_BYTES {
            return Err(RawError::Corrupt("too much behind the batches"));
        }
        let footer_at = tail.len();
        for number in [self.base.get(), self.end.get(), self.records] {
            tail.extend(number.to_be_bytes());
        }
        tail.extend(self.max_timestamp.map_or(-1, Timestamp::to_wire).to_be_bytes());
        tail.extend(log_bytes.to_be_bytes());
        tail.extend(self.crc.to_be_bytes());
        for section in sections {
            tail.extend((section.len() as u64).to_be_bytes());
            tail.extend(crc32c::crc32c(section).to_be_bytes());
        }
        tail.extend(FORMAT.to_be_bytes());
        tail.extend(crc32c::crc32c(&tail[footer_at..]).to_be_bytes());
        tail.extend(MAGIC);
        self.crc = crc32c::crc32c_append(self.crc, &tail);
        let summary = RawSummary {
            base: self.base,
            end: self.end,
            bytes: log_bytes + tail.len() as u64,
            log_bytes,
            records: self.records,
            max_timestamp: self.max_timestamp,
            leader_epochs: self.epochs,
            crc32c: self.crc,
        };
        Ok((tail, summary))
    }
}

impl RawIndexEntry {
    fn encode(&self) -> [u8; INDEX_ENTRY_BYTES] {
        let mut entry = [0; INDEX_ENTRY_BYTES];
        entry[0..8].copy_from_slice(&self.offset.get().to_be_bytes());
        entry[8..16].copy_from_slice(&self.position.to_be_bytes());
        entry[16..24].copy_from_slice(&self.max_timestamp.map_or(-1, Timestamp::to_wire).to_be_bytes());
        entry
    }

    fn parse(entry: &[u8; INDEX_ENTRY_BYTES]) -> Result<RawIndexEntry, RawError> {
        let mut entry = Fields(entry);
        Ok(RawIndexEntry {
            offset: entry.offset()?,
            position: entry.u64()?,
            max_timestamp: Timestamp::from_wire(entry.u64()? as i64),
        })
    }
}

fn encode_epoch((epoch, start): &(LeaderEpoch, Offset)) -> [u8; EPOCH_ENTRY_BYTES] {
    let mut entry = [0; EPOCH_ENTRY_BYTES];
    entry[0..4].copy_from_slice(&epoch.0.to_be_bytes());
    entry[4..12].copy_from_slice(&start.get().to_be_bytes());
    entry
}

/// The checked footer of one part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawFooter {
    /// First offset the part answers for.
    pub base: Offset,
    /// First offset it no longer answers for.
    pub end: Offset,
    /// Records in its batches.
    pub records: u64,
    /// Largest record timestamp.
    pub max_timestamp: Option<Timestamp>,
    /// Size of the batches, which come first.
    pub log_bytes: u64,
    /// CRC-32C of the batches.
    pub log_crc32c: u32,
    sections: [(u64, u32); 4],
}

/// All that lies behind the batches of one part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawMeta {
    /// The footer.
    pub footer: RawFooter,
    /// Sparse index, in offset order; empty only if there are no batches.
    pub index: Vec<RawIndexEntry>,
    /// Aborted transactions that overlap the part's offsets.
    pub aborted: Vec<AbortedTxn>,
    /// Leader epochs with the first offset of each.
    pub leader_epochs: Vec<(LeaderEpoch, Offset)>,
    /// Kafka's `.snapshot` of the producer state as of `end`; empty if there is none.
    pub producer_snapshot: Bytes,
}

impl RawFooter {
    /// Reads the footer at the end of `tail`, the last bytes of a part of `part_bytes`.
    ///
    /// # Errors
    /// [`RawError`].
    pub fn parse(tail: &[u8], part_bytes: u64) -> Result<RawFooter, RawError> {
        let footer: &[u8; FOOTER_BYTES] = tail.last_chunk().ok_or(RawError::TailNeeded(FOOTER_BYTES as u64))?;
        let (body, magic) = footer.split_at(FOOTER_BYTES - MAGIC.len());
        if magic != MAGIC {
            return Err(RawError::Corrupt("magic"));
        }
        let (body, crc) = body.split_last_chunk().ok_or(RawError::Corrupt("footer"))?;
        if crc32c::crc32c(body) != u32::from_be_bytes(*crc) {
            return Err(RawError::Corrupt("footer checksum"));
        }
        let (body, version) = body.split_last_chunk().ok_or(RawError::Corrupt("footer"))?;
        match u16::from_be_bytes(*version) {
            FORMAT => {}
            0 => return Err(RawError::Corrupt("format version 0")),
            newer => return Err(RawError::Newer(newer)),
        }
        let mut fields = Fields(body);
        let footer = RawFooter {
            base: fields.offset()?,
            end: fields.offset()?,
            records: fields.u64()?,
            max_timestamp: Timestamp::from_wire(fields.u64()? as i64),
            log_bytes: fields.u64()?,
            log_crc32c: fields.u32()?,
            sections: [fields.section()?, fields.section()?, fields.section()?, fields.section()?],
        };
        let lengths = footer.sections.iter().map(|(length, _)| *length);
        let meta = lengths.chain([FOOTER_BYTES as u64]).try_fold(0_u64, u64::checked_add);
        let whole = meta.filter(|meta| *meta <= MAX_META_BYTES).and_then(|meta| meta.checked_add(footer.log_bytes));
        if whole != Some(part_bytes) || footer.base >= footer.end {
            return Err(RawError::Corrupt("sizes or offsets"));
        }
        Ok(footer)
    }

    /// Where in the part the producer snapshot lies: the last thing before the footer.
    pub fn producer_snapshot(&self) -> Range<u64> {
        // Their sum fits, or the footer would not have been read.
        let end = self.log_bytes + self.sections.iter().map(|(length, _)| length).sum::<u64>();
        end - self.sections[3].0..end
    }

    /// Size of all behind the batches, footer included.
    pub fn meta_bytes(&self) -> u64 {
        self.sections.iter().map(|(length, _)| length).sum::<u64>() + FOOTER_BYTES as u64
    }
}

impl RawMeta {
    /// Reads all that lies behind the batches from `tail`, the last bytes of a part of `part_bytes`.
    ///
    /// # Errors
    /// [`RawError::TailNeeded`] says how many bytes it takes; otherwise the part is damaged.
    pub fn parse(tail: &Bytes, part_bytes: u64) -> Result<RawMeta, RawError> {
        let footer = RawFooter::parse(tail, part_bytes)?;
        let meta = footer.meta_bytes();
        let start = (tail.len() as u64).checked_sub(meta).ok_or(RawError::TailNeeded(meta))?;
        // `meta` is bounded and fits the tail, so these do not truncate.
        let mut rest = tail.slice(start as usize..);
        let mut sections = footer.sections.iter().map(|(length, crc)| {
            let section = rest.split_to(*length as usize);
            if crc32c::crc32c(&section) == *crc { Ok(section) } else { Err(RawError::Corrupt("section checksum")) }
        });
        let mut next = || sections.next().unwrap_or(Err(RawError::Corrupt("sections")));
        let (index, aborted, epochs, producer_snapshot) = (next()?, next()?, next()?, next()?);
        let index: Vec<RawIndexEntry> = entries(&index, RawIndexEntry::parse)?;
        let ascending =
            index.windows(2).all(|pair| pair[0].position < pair[1].position && pair[0].offset < pair[1].offset);
        let within = index.last().is_none_or(|last| last.position < footer.log_bytes);
        if !ascending || !within || index.is_empty() != (footer.log_bytes == 0) {
            return Err(RawError::Corrupt("offset index"));
        }
        let aborted = entries::<TXN_INDEX_ENTRY_BYTES, _>(&aborted, |entry| {
            AbortedTxn::parse(entry).map_err(|_| RawError::Corrupt("aborted transactions"))
        })?;
        let leader_epochs = entries::<EPOCH_ENTRY_BYTES, _>(&epochs, |entry| {
            let mut entry = Fields(entry);
            Ok((LeaderEpoch(entry.u32()?), entry.offset()?))
        })?;
        Ok(RawMeta { footer, index, aborted, leader_epochs, producer_snapshot })
    }

    /// Where to read to meet the batch that holds `offset`, or the first one after it: from a position that a batch begins
    /// at, to the end of the batches. At most [`INDEX_INTERVAL`] plus one batch are read in vain. Empty if there is no such
    /// batch by the footer's word.
    pub fn batches_from(&self, offset: Offset) -> Range<u64> {
        if offset >= self.footer.end {
            return self.footer.log_bytes..self.footer.log_bytes;
        }
        let place = self.index.partition_point(|entry| entry.offset <= offset).saturating_sub(1);
        self.index.get(place).map_or(0, |entry| entry.position)..self.footer.log_bytes
    }

    /// Where to read to meet the first batch with a record at or after `timestamp`; `None` if there is none.
    pub fn batches_at(&self, timestamp: Timestamp) -> Option<Range<u64>> {
        let entry = self.index.iter().find(|entry| entry.max_timestamp >= Some(timestamp))?;
        Some(entry.position..self.footer.log_bytes)
    }
}

fn entries<const N: usize, T>(
    bytes: &[u8],
    parse: impl Fn(&[u8; N]) -> Result<T, RawError>,
) -> Result<Vec<T>, RawError> {
    let (entries, rest) = bytes.as_chunks::<N>();
    if !rest.is_empty() {
        return Err(RawError::Corrupt("section length"));
    }
    entries.iter().map(parse).collect()
}

struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], RawError> {
        let (taken, rest) = self.0.split_first_chunk().ok_or(RawError::Corrupt("too short"))?;
        self.0 = rest;
        Ok(*taken)
    }

    fn u64(&mut self) -> Result<u64, RawError> {
        self.take().map(u64::from_be_bytes)
    }

    fn u32(&mut self) -> Result<u32, RawError> {
        self.take().map(u32::from_be_bytes)
    }

    fn offset(&mut self) -> Result<Offset, RawError> {
        Offset::new(self.u64()?).ok_or(RawError::Corrupt("offset"))
    }

    fn section(&mut self) -> Result<(u64, u32), RawError> {
        Ok((self.u64()?, self.u32()?))
    }
}

#[cfg(test)]
pub(crate) mod tests;
