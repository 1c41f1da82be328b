//! The batch table: the header of every batch of an object, and where its records are.
//!
//! ```text
//! blob    version u8 = 1 │ group count │ per group: directory entry │ the groups' entries, zstd, one frame per group
//! entry   batch count │ first base offset minus the previous group's next offset │ next offset minus first base offset
//!         │ rows │ record bytes │ raw section: position (0 if none), bytes │ entries: compressed, uncompressed bytes
//! group   producers (count, then id and epoch of each), then one column after the other, a value per batch:
//!         gap before base offset │ last offset delta │ record count minus (last offset delta + 1) │ base timestamp minus
//!         the previous one's │ max minus base timestamp │ leader epoch minus the previous │ attributes │ kind │ producer │
//!         base sequence minus the one expected of that producer │ CRC-32C of the uncompressed records (4 bytes, if rebuilt)
//!         │ uncompressed bytes (if rebuilt) │ raw bytes (if any)
//! ```
//! All numbers are varints, zigzag where they can be negative. A group with rows is one Parquet row group, in order.

use varve_log::format::{Attributes, BatchHeader};
use varve_metadata::model::{LeaderEpoch, Offset, ProducerEpoch, ProducerId, Sequence};

use crate::varint::{put_signed, put_unsigned, take_signed, take_unsigned};

const VERSION: u8 = 1;
/// More batches in one group than any encoder of ours puts there: refuses to allocate for damaged tables.
const MAX_GROUP_BATCHES: u64 = 1 << 20;
/// An entry takes at least this many bytes before compression, so a count is checked against what is there.
const MIN_ENTRY_BYTES: u64 = 10;

/// How the bytes of a batch come back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BatchKind {
    /// Its records are rows and are rebuilt from the columns.
    Rows,
    /// As `Rows`, but the timestamp deltas come from the raw section: the column cannot give them back (LogAppendTime, or
    /// values that are null in the column).
    RowsWithTimestamps,
    /// Its records are rows, for SQL, but do not rebuild to the same bytes (such as varints longer than need be): the
    /// batch itself lies in the raw section.
    RowsAndRaw,
    /// No rows: a control batch, an aborted one, or one whose records cannot be read. The batch lies in the raw section.
    Raw,
}

impl BatchKind {
    const ALL: [BatchKind; 4] = [BatchKind::Rows, BatchKind::RowsWithTimestamps, BatchKind::RowsAndRaw, BatchKind::Raw];

    /// Whether its records are rows of the columns.
    pub const fn has_rows(self) -> bool {
        !matches!(self, BatchKind::Raw)
    }

    /// Whether its records are rebuilt from the columns.
    pub const fn is_rebuilt(self) -> bool {
        matches!(self, BatchKind::Rows | BatchKind::RowsWithTimestamps)
    }

    const fn has_raw(self) -> bool {
        !matches!(self, BatchKind::Rows)
    }
}

/// One batch of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchEntry {
    /// Its header. `bytes` and `crc` are 0 in a table that was read: they belong to the frame, which is made anew.
    pub header: BatchHeader,
    /// How its bytes come back.
    pub kind: BatchKind,
    /// CRC-32C of the uncompressed records; 0 unless they are rebuilt.
    pub records_crc: u32,
    /// Size of the uncompressed records in bytes; 0 unless they are rebuilt.
    pub records_bytes: u32,
    /// Size of what lies in the raw section for it, in bytes.
    pub raw_bytes: u32,
}

impl BatchEntry {
    /// Rows of the columns that belong to it.
    pub const fn rows(&self) -> u64 {
        if self.kind.has_rows() { self.header.record_count as u64 } else { 0 }
    }

    /// Size of the batch as it is given out uncompressed, in bytes.
    pub const fn frame_bytes(&self) -> u64 {
        if self.kind.is_rebuilt() {
            varve_log::format::HEADER_BYTES as u64 + self.records_bytes as u64
        } else {
            self.raw_bytes as u64
        }
    }
}

/// What the table says about one group of batches without reading its entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupEntry {
    /// Batches in it, at least one.
    pub batches: u64,
    /// Base offset of its first batch.
    pub base: Offset,
    /// The offset behind its last batch.
    pub end: Offset,
    /// Rows in its row group; 0 if it has none.
    pub rows: u64,
    /// Its batches as they are given out, in bytes.
    pub frame_bytes: u64,
    /// Where in the object its raw section begins.
    pub raw_position: u64,
    /// Size of its raw section in bytes.
    pub raw_bytes: u64,
    /// Which row group of the Parquet file holds its rows.
    pub row_group: Option<usize>,
    compressed: u64,
    uncompressed: u64,
}

/// The entries of one group, encoded.
pub(crate) struct EncodedGroup {
    directory: GroupEntry,
    entries: Vec<u8>,
}

impl EncodedGroup {
    /// Encodes a group of at least one batch, in offset order. `raw_position` is where its raw section was written.
    pub(crate) fn new(batches: &[BatchEntry], raw_position: u64) -> EncodedGroup {
        let (first, last) = (&batches[0].header, &batches[batches.len() - 1].header);
        let plain = encode_entries(batches);
        let entries = zstd::bulk::compress(&plain, 3).expect("compressing memory into memory cannot fail");
        EncodedGroup {
            directory: GroupEntry {
                batches: batches.len() as u64,
                base: first.base_offset,
                end: last.next_offset(),
                rows: batches.iter().map(BatchEntry::rows).sum(),
                frame_bytes: batches.iter().map(BatchEntry::frame_bytes).sum(),
                raw_position,
                raw_bytes: batches.iter().map(|batch| u64::from(batch.raw_bytes)).sum(),
                row_group: None,
                compressed: entries.len() as u64,
                uncompressed: plain.len() as u64,
            },
            entries,
        }
    }
}

impl EncodedGroup {
    /// The offset behind its last batch.
    pub(crate) fn end(&self) -> Offset {
        self.directory.end
    }
}

/// The blob: directory, then every group's entries.
pub(crate) fn encode_table(groups: &[EncodedGroup]) -> Vec<u8> {
    let mut out = vec![VERSION];
    put_unsigned(&mut out, groups.len() as u64);
    let mut previous_end = Offset::ZERO;
    for EncodedGroup { directory: group, .. } in groups {
        for number in [
            group.batches,
            group.base.since(previous_end),
            group.end.since(group.base),
            group.rows,
            group.frame_bytes,
            group.raw_position,
            group.raw_bytes,
            group.compressed,
            group.uncompressed,
        ] {
            put_unsigned(&mut out, number);
        }
        previous_end = group.end;
    }
    groups.iter().for_each(|group| out.extend_from_slice(&group.entries));
    out
}

/// A batch table as it was read: the directory decoded, the entries still compressed (7 bytes a batch).
#[derive(Clone, Debug)]
pub(crate) struct BatchTable {
    pub(crate) groups: Vec<GroupEntry>,
    /// Position in `entries` where each group's frame begins.
    positions: Vec<usize>,
    entries: bytes::Bytes,
}

impl BatchTable {
    /// `None` if the blob is damaged or of another version.
    pub(crate) fn parse(blob: bytes::Bytes) -> Option<BatchTable> {
        let mut rest = blob.strip_prefix(&[VERSION])?;
        let count = take_unsigned(&mut rest)?;
        if count > rest.len() as u64 {
            return None;
        }
        let mut groups = Vec::with_capacity(count as usize);
        let mut positions = Vec::with_capacity(count as usize);
        let (mut previous_end, mut position, mut row_groups) = (0u64, 0u64, 0);
        for _ in 0..count {
            let mut next = || take_unsigned(&mut rest);
            let batches = next()?;
            let base = Offset::new(previous_end.checked_add(next()?)?)?;
            let end = Offset::new(base.get().checked_add(next()?)?)?;
            let (rows, frame_bytes, raw_position, raw_bytes) = (next()?, next()?, next()?, next()?);
            let (compressed, uncompressed) = (next()?, next()?);
            let plausible = (1..=MAX_GROUP_BATCHES).contains(&batches) && batches * MIN_ENTRY_BYTES <= uncompressed;
            if !plausible || uncompressed > MAX_GROUP_BATCHES * 64 {
                return None;
            }
            let row_group = (rows > 0).then_some(row_groups);
            row_groups += usize::from(rows > 0);
            positions.push(position as usize);
            position = position.checked_add(compressed)?;
            groups.push(GroupEntry {
                batches,
                base,
                end,
                rows,
                frame_bytes,
                raw_position,
                raw_bytes,
                row_group,
                compressed,
                uncompressed,
            });
            previous_end = end.get();
        }
        let entries = blob.slice(blob.len() - rest.len()..);
        (position == entries.len() as u64).then_some(BatchTable { groups, positions, entries })
    }

    /// The batches of group `index`; `None` if the table is damaged there.
    pub(crate) fn entries(&self, index: usize) -> Option<Vec<BatchEntry>> {
        let group = self.groups.get(index)?;
        let start = self.positions[index];
        let frame = self.entries.get(start..start + group.compressed as usize)?;
        let plain = zstd::bulk::decompress(frame, group.uncompressed as usize).ok()?;
        let batches = decode_entries(&plain, group.batches as usize, group.base)?;
        let rows: u64 = batches.iter().map(BatchEntry::rows).sum();
        let raw_bytes: u64 = batches.iter().map(|batch| u64::from(batch.raw_bytes)).sum();
        (rows == group.rows && raw_bytes == group.raw_bytes).then_some(batches)
    }

    /// Bytes that the table takes in memory.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.entries.len() + self.groups.len() * (size_of::<GroupEntry>() + size_of::<usize>())
    }
}

type Producer = (Option<ProducerId>, Option<ProducerEpoch>);

fn encode_entries(batches: &[BatchEntry]) -> Vec<u8> {
    let mut producers: Vec<Producer> = Vec::new();
    let mut index_of = std::collections::HashMap::new();
    let producer_of: Vec<usize> = batches
        .iter()
        .map(|batch| {
            let producer = (batch.header.producer_id, batch.header.producer_epoch);
            *index_of.entry(producer).or_insert_with(|| {
                producers.push(producer);
                producers.len() - 1
            })
        })
        .collect();
    let mut out = Vec::with_capacity(batches.len() * 20);
    put_unsigned(&mut out, producers.len() as u64);
    for (id, epoch) in &producers {
        put_signed(&mut out, id.map_or(-1, ProducerId::to_wire));
        put_signed(&mut out, i64::from(epoch.map_or(-1, ProducerEpoch::to_wire)));
    }
    let mut next = batches[0].header.base_offset;
    for batch in batches {
        put_unsigned(&mut out, batch.header.base_offset.since(next));
        next = batch.header.next_offset();
    }
    let headers = || batches.iter().map(|batch| &batch.header);
    headers().for_each(|header| put_unsigned(&mut out, u64::from(header.last_offset_delta)));
    headers().for_each(|header| {
        put_signed(&mut out, i64::from(header.record_count) - i64::from(header.last_offset_delta) - 1);
    });
    let mut previous = 0i64;
    for header in headers() {
        put_signed(&mut out, header.base_timestamp_ms.wrapping_sub(previous));
        previous = header.base_timestamp_ms;
    }
    headers().for_each(|header| {
        put_signed(&mut out, header.max_timestamp_ms.wrapping_sub(header.base_timestamp_ms));
    });
    let mut previous = 0i64;
    for header in headers() {
        let epoch = i64::from(header.leader_epoch.map_or(-1, LeaderEpoch::to_wire));
        put_signed(&mut out, epoch - previous);
        previous = epoch;
    }
    headers().for_each(|header| put_unsigned(&mut out, u64::from(header.attributes.to_wire() as u16)));
    batches.iter().for_each(|batch| put_unsigned(&mut out, batch.kind as u64));
    producer_of.iter().for_each(|&index| put_unsigned(&mut out, index as u64));
    let mut expected = vec![0i64; producers.len()];
    for (header, &producer) in headers().zip(&producer_of) {
        let sequence = i64::from(header.base_sequence.map_or(-1, Sequence::to_wire));
        put_signed(&mut out, sequence - expected[producer]);
        expected[producer] = next_sequence(header, sequence);
    }
    let rebuilt = || batches.iter().filter(|batch| batch.kind.is_rebuilt());
    rebuilt().for_each(|batch| out.extend_from_slice(&batch.records_crc.to_le_bytes()));
    rebuilt().for_each(|batch| put_unsigned(&mut out, u64::from(batch.records_bytes)));
    let raw = batches.iter().filter(|batch| batch.kind.has_raw());
    raw.for_each(|batch| put_unsigned(&mut out, u64::from(batch.raw_bytes)));
    out
}

/// The sequence that a producer's next batch most likely starts with.
fn next_sequence(header: &BatchHeader, sequence: i64) -> i64 {
    if sequence < 0 { -1 } else { sequence + i64::from(header.last_offset_delta) + 1 }
}

fn decode_entries(mut plain: &[u8], count: usize, base: Offset) -> Option<Vec<BatchEntry>> {
    let buf = &mut plain;
    let producer_count = take_unsigned(buf)?;
    if producer_count > buf.len() as u64 {
        return None;
    }
    let producers: Vec<Producer> = (0..producer_count)
        .map(|_| {
            let id = ProducerId::from_wire(take_signed(buf)?);
            let epoch = i16::try_from(take_signed(buf)?).ok()?;
            Some((id, ProducerEpoch::from_wire(epoch)))
        })
        .collect::<Option<_>>()?;
    let gaps = unsigned_column(buf, count)?;
    let deltas = unsigned_column(buf, count)?;
    let counts = signed_column(buf, count)?;
    let base_timestamps = signed_column(buf, count)?;
    let max_timestamps = signed_column(buf, count)?;
    let epochs = signed_column(buf, count)?;
    let attributes = unsigned_column(buf, count)?;
    let kinds = unsigned_column(buf, count)?;
    let producer_of = unsigned_column(buf, count)?;
    let sequences = signed_column(buf, count)?;

    let mut batches = Vec::with_capacity(count);
    let (mut next, mut base_timestamp_ms, mut epoch) = (base.get(), 0i64, 0i64);
    let mut expected = vec![0i64; producers.len()];
    for at in 0..count {
        let base_offset = Offset::new(next.checked_add(gaps[at])?)?;
        let last_offset_delta = u32::try_from(deltas[at]).ok()?;
        let record_count = u32::try_from(counts[at].checked_add(i64::from(last_offset_delta))?.checked_add(1)?).ok()?;
        base_timestamp_ms = base_timestamp_ms.wrapping_add(base_timestamps[at]);
        epoch = epoch.checked_add(epochs[at])?;
        let producer = usize::try_from(producer_of[at]).ok()?;
        let (producer_id, producer_epoch) = *producers.get(producer)?;
        let sequence = expected[producer].checked_add(sequences[at])?;
        let header = BatchHeader {
            base_offset,
            bytes: 0,
            leader_epoch: LeaderEpoch::from_wire(i32::try_from(epoch).ok()?),
            crc: 0,
            attributes: Attributes::from_wire(u16::try_from(attributes[at]).ok()? as i16)?,
            last_offset_delta,
            base_timestamp_ms,
            max_timestamp_ms: base_timestamp_ms.wrapping_add(max_timestamps[at]),
            producer_id,
            producer_epoch,
            base_sequence: Sequence::from_wire(i32::try_from(sequence).ok()?),
            record_count,
        };
        expected[producer] = next_sequence(&header, sequence);
        next = base_offset.get().checked_add(u64::from(last_offset_delta))?.checked_add(1)?;
        let kind = *BatchKind::ALL.get(usize::try_from(kinds[at]).ok()?)?;
        batches.push(BatchEntry { header, kind, records_crc: 0, records_bytes: 0, raw_bytes: 0 });
    }
    for batch in batches.iter_mut().filter(|batch| batch.kind.is_rebuilt()) {
        let (crc, rest) = buf.split_first_chunk()?;
        batch.records_crc = u32::from_le_bytes(*crc);
        *buf = rest;
    }
    for batch in batches.iter_mut().filter(|batch| batch.kind.is_rebuilt()) {
        batch.records_bytes = u32::try_from(take_unsigned(buf)?).ok().filter(|bytes| *bytes <= i32::MAX as u32)?;
    }
    for batch in batches.iter_mut().filter(|batch| batch.kind.has_raw()) {
        batch.raw_bytes = u32::try_from(take_unsigned(buf)?).ok()?;
    }
    buf.is_empty().then_some(batches)
}

fn unsigned_column(buf: &mut &[u8], count: usize) -> Option<Vec<u64>> {
    (0..count).map(|_| take_unsigned(buf)).collect()
}

fn signed_column(buf: &mut &[u8], count: usize) -> Option<Vec<i64>> {
    (0..count).map(|_| take_signed(buf)).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    prop_compose! {
        fn any_entry()(
            epoch in -1i32..5, attributes in 0i16..5, flags in 0i16..16, delta in 0u32..50, count in 0u32..60,
            base_ts in -2i64..1 << 45, spread in -5i64..1000, pid in -1i64..4, sequence in -1i32..1000,
            kind in 0usize..4, crc: u32, size in 0u32..1 << 20, gap in 0u64..4,
        ) -> (u64, BatchEntry) {
            let kind = BatchKind::ALL[kind];
            let header = BatchHeader {
                base_offset: Offset::ZERO, bytes: 0, crc: 0,
                leader_epoch: LeaderEpoch::from_wire(epoch),
                attributes: Attributes::from_wire(attributes | flags << 3).expect("a codec"),
                last_offset_delta: delta, base_timestamp_ms: base_ts, max_timestamp_ms: base_ts + spread,
                producer_id: ProducerId::from_wire(pid), producer_epoch: ProducerEpoch::from_wire(pid as i16),
                base_sequence: Sequence::from_wire(sequence), record_count: count,
            };
            (gap, BatchEntry {
                header, kind,
                records_crc: if kind.is_rebuilt() { crc } else { 0 },
                records_bytes: if kind.is_rebuilt() { size } else { 0 },
                raw_bytes: if kind.has_raw() { size } else { 0 },
            })
        }
    }

    fn in_order(mut entries: Vec<(u64, BatchEntry)>) -> Vec<BatchEntry> {
        let mut next = Offset::new(7).expect("small");
        for (gap, entry) in &mut entries {
            entry.header.base_offset = next.plus(*gap);
            next = entry.header.next_offset();
        }
        entries.into_iter().map(|(_, entry)| entry).collect()
    }

    proptest! {
        #[test]
        fn every_header_field_comes_back(entries in prop::collection::vec(any_entry(), 1..60), split in 1usize..30) {
            let entries = in_order(entries);
            let groups: Vec<_> = entries.chunks(split).map(|chunk| EncodedGroup::new(chunk, 99)).collect();
            let table = BatchTable::parse(encode_table(&groups).into()).expect("sound");
            let read: Vec<_> = (0..table.groups.len()).flat_map(|group| table.entries(group).expect("sound")).collect();
            prop_assert_eq!(read, entries);
        }

        #[test]
        fn damage_is_refused_without_panic(
            entries in prop::collection::vec(any_entry(), 1..20), at: prop::sample::Index, byte: u8, cut: prop::sample::Index,
        ) {
            let mut blob = encode_table(&[EncodedGroup::new(&in_order(entries), 0)]);
            let at = at.index(blob.len());
            blob[at] = byte;
            blob.truncate(cut.index(blob.len()) + 1);
            if let Some(table) = BatchTable::parse(blob.into()) {
                (0..table.groups.len()).for_each(|group| drop(table.entries(group)));
            }
        }
    }

    #[test]
    fn a_steady_producer_costs_few_bytes_a_batch() {
        let entries: Vec<_> = (0..4000u64)
            .map(|n| BatchEntry {
                header: BatchHeader {
                    base_offset: Offset::new(n * 110).expect("small"),
                    bytes: 0,
                    leader_epoch: LeaderEpoch::from_wire(3),
                    crc: 0,
                    attributes: Attributes::default(),
                    last_offset_delta: 109,
                    base_timestamp_ms: 1_700_000_000_000 + n as i64 * 7,
                    max_timestamp_ms: 1_700_000_000_006 + n as i64 * 7,
                    producer_id: ProducerId::from_wire((n % 8) as i64),
                    producer_epoch: ProducerEpoch::from_wire(0),
                    base_sequence: Sequence::from_wire((n / 8 * 110) as i32),
                    record_count: 110,
                },
                kind: BatchKind::Rows,
                records_crc: (n as u32).wrapping_mul(2_654_435_761),
                records_bytes: 64_000 + (n % 97) as u32,
                raw_bytes: 0,
            })
            .collect();
        let groups: Vec<_> = entries.chunks(256).map(|chunk| EncodedGroup::new(chunk, 0)).collect();
        let bytes = encode_table(&groups).len();
        assert!(bytes < 4000 * 8, "{bytes} bytes for 4000 batches");
    }
}
