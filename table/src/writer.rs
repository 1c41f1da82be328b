//! Writing an object: batches in, one Parquet file out, each row group read back before it counts.

use std::{
    io::{self, Write},
    ops::Range,
};

use bytes::Bytes;
use parquet::file::{
    metadata::{FileMetaData, ParquetMetaData, RowGroupMetaDataPtr},
    writer::SerializedFileWriter,
};
use varve_log::{
    format::{BatchHeader, HEADER_BYTES, RecordBatchView, compression, records_crc},
    local::AbortedTxn,
};
use varve_metadata::{config::Codec, model::Timestamp};

use crate::{
    batch_table::{BatchEntry, BatchKind, EncodedGroup, encode_table},
    columns::{CheckedRecords, GroupColumns, RowBuffer},
    error::{EncodeError, FooterError},
    fetched::Fetched,
    footer::{TableFooter, reader_metadata, write_blobs},
    options::{EncodeOptions, TableMeta},
    pages::checksums,
    raw_section,
    rebuild::RowWalk,
    schema::{Dictionaries, parquet_schema, writer_properties},
    tags::TagFilter,
};

/// Rows are encoded in runs of about this many record bytes.
const RUN_BYTES: usize = 1 << 20;
/// Largest batch that is unpacked into rows; a larger one is carried as it is.
const MAX_RECORDS_BYTES: usize = 1 << 30;

/// What an object holds, counted while it was written and checked by reading it back.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TableSummary {
    /// Size of the object in bytes.
    pub bytes: u64,
    /// CRC-32C of the whole object.
    pub crc32c: u32,
    /// Rows of the columns: committed records.
    pub rows: u64,
    /// Batches of every kind.
    pub batches: u64,
    /// Batches without rows: control batches, aborted ones, and those that could not be read.
    pub raw_batches: u64,
    /// Batches whose records could not be read at all; included in `raw_batches`.
    pub unreadable_batches: u64,
    /// Batches that have rows but did not rebuild to the same bytes, and are carried beside them.
    pub carried_batches: u64,
    /// The batches as they are given out uncompressed, in bytes.
    pub frame_bytes: u64,
    /// Largest timestamp of any batch.
    pub max_timestamp: Option<Timestamp>,
}

/// An object in memory.
#[derive(Clone, Debug)]
pub struct EncodedTable {
    /// The file.
    pub bytes: Bytes,
    /// What it holds.
    pub summary: TableSummary,
}

/// Encodes `batches`, in offset order, into memory. See [`TableWriter`].
///
/// # Errors
/// As [`TableWriter`].
pub fn encode<'a>(
    batches: impl IntoIterator<Item = RecordBatchView<'a>>,
    meta: TableMeta,
    options: EncodeOptions,
) -> Result<EncodedTable, EncodeError> {
    let mut writer = TableWriter::new(Vec::new(), meta, options)?;
    batches.into_iter().try_for_each(|batch| writer.push(&batch))?;
    let (bytes, summary) = writer.finish()?;
    Ok(EncodedTable { bytes: bytes.into(), summary })
}

/// Writes one object to `W` as its batches come. Memory: one row group's records, and its pages twice.
///
/// Every batch is rebuilt from the encoded columns and compared with its source before its group counts as written; one
/// that does not come back byte for byte is carried beside the columns. Whatever fails, the sink's bytes are then waste.
pub struct TableWriter<W: Write + Send> {
    file: SerializedFileWriter<Tee<W>>,
    meta: TableMeta,
    options: EncodeOptions,
    group: Group,
    groups: Vec<EncodedGroup>,
    checksums: Vec<u8>,
    tags: Option<TagFilter>,
    summary: TableSummary,
}

/// The row group being filled.
#[derive(Default)]
struct Group {
    batches: Vec<Pending>,
    bytes: usize,
    buffer: RowBuffer,
    columns: Option<GroupColumns>,
}

/// A batch whose group is not yet written.
struct Pending {
    entry: BatchEntry,
    /// The batch as it came; made from the records if it is needed and did not come.
    source: Option<Bytes>,
    records: Bytes,
    raw: Bytes,
}

impl<W: Write + Send> TableWriter<W> {
    /// Starts an object.
    ///
    /// # Errors
    /// [`EncodeError::Columns`] if the sink refuses the first bytes.
    pub fn new(sink: W, meta: TableMeta, options: EncodeOptions) -> Result<TableWriter<W>, EncodeError> {
        let unknown = Dictionaries { key: true, header_value: true };
        let properties = writer_properties(&options, unknown, 1);
        let tee = Tee { sink, position: 0, crc: 0, captured: Vec::new() };
        Ok(TableWriter {
            file: SerializedFileWriter::new(tee, parquet_schema().root_schema_ptr(), properties)?,
            tags: (options.tag_filter_max_bytes > 0).then(|| TagFilter::new(options.tag_filter_max_bytes)),
            meta,
            options,
            group: Group::default(),
            groups: Vec::new(),
            checksums: Vec::new(),
            summary: TableSummary::default(),
        })
    }

    /// Adds the next batch. The first one may begin before the object's range, if it reaches into it.
    ///
    /// # Errors
    /// [`EncodeError::Order`] if it does not follow the previous one within the object's range; the others if the sink or
    /// the encoding fails.
    pub fn push(&mut self, batch: &RecordBatchView<'_>) -> Result<(), EncodeError> {
        let header = *batch.header();
        self.check_order(&header)?;
        let source = Bytes::copy_from_slice(batch.as_bytes());
        let pending = match self.unpacked(&header, &source).and_then(|records| self.rows_of(&header, records)) {
            Some(rows) => {
                // A header that our types cannot carry (a producer id of -5): the batch itself must be kept.
                let odd = header.encode()[..] != source[..HEADER_BYTES];
                let mut pending = self.row_batch(header, rows, Some(source));
                if odd {
                    pending.carry()?;
                }
                pending
            }
            None => Pending::raw(header, source),
        };
        self.add(pending)
    }

    /// Adds a batch by its header and its uncompressed `records`, whatever codec the header names: for batches that were
    /// rebuilt from another object, without compressing them on the way.
    ///
    /// # Errors
    /// As [`push`](Self::push).
    pub fn push_records(&mut self, header: &BatchHeader, records: Bytes) -> Result<(), EncodeError> {
        self.check_order(header)?;
        let hidden = header.attributes.is_control() || is_aborted(&self.meta.aborted, header);
        let rows = if hidden { None } else { self.rows_of(header, records.clone()) };
        let pending = match rows {
            Some(rows) => self.row_batch(*header, rows, None),
            None => Pending::raw(*header, compressed_batch(header, &records)?),
        };
        self.add(pending)
    }

    fn check_order(&self, header: &BatchHeader) -> Result<(), EncodeError> {
        let pending = self.group.batches.last().map(|last| last.entry.header.next_offset());
        let previous = pending.or(self.groups.last().map(EncodedGroup::end));
        let expected = previous.unwrap_or(self.meta.base);
        let follows = match previous {
            Some(end) => header.base_offset >= end,
            None => header.next_offset() > self.meta.base,
        };
        if follows && header.next_offset() <= self.meta.end {
            return Ok(());
        }
        Err(EncodeError::Order { expected, found: header.base_offset, end: self.meta.end })
    }

    /// Puts the batch's records into the columns.
    fn row_batch(&mut self, header: BatchHeader, rows: CheckedRecords, source: Option<Bytes>) -> Pending {
        self.group.buffer.push(&header, &rows, self.tags.as_mut());
        let raw = rows.deltas.as_deref().map(raw_section::encode_deltas);
        let kind = if raw.is_some() { BatchKind::RowsWithTimestamps } else { BatchKind::Rows };
        Pending::rebuilt(header, kind, source, rows.records, raw.unwrap_or_default())
    }

    fn add(&mut self, pending: Pending) -> Result<(), EncodeError> {
        self.group.bytes += pending.records.len().max(pending.raw.len());
        self.group.batches.push(pending);
        if self.group.buffer.bytes() >= RUN_BYTES {
            self.group.encode_rows(&self.options)?;
        }
        if self.group.bytes >= self.options.group_bytes || self.group.batches.len() >= self.options.group_batches {
            self.finish_group()?;
        }
        Ok(())
    }

    /// Writes what is left and the footer, checks that the footer reads back, and returns the sink. An object without
    /// batches is one too: compaction may leave nothing of a range that still has to be answered for.
    ///
    /// # Errors
    /// [`EncodeError::Unreadable`] if the footer does not read back; the others if the sink or the encoding fails.
    pub fn finish(mut self) -> Result<(W, TableSummary), EncodeError> {
        if !self.group.batches.is_empty() {
            self.finish_group()?;
        }
        let filter = self.tags.take().map(|tags| tags.finish(self.options.tag_filter_false_positives));
        let table = encode_table(&self.groups);
        write_blobs(
            &mut self.file,
            &self.meta,
            &self.summary,
            filter.as_deref().unwrap_or_default(),
            &self.checksums,
            &table,
        )?;
        let tee = self.file.into_inner()?;
        (self.summary.bytes, self.summary.crc32c) = (tee.position, tee.crc);
        let footer = TableFooter::parse(tee.position, tee.captured.into()).map_err(EncodeError::Unreadable)?;
        if footer.groups().len() != self.groups.len() || footer.rows() != self.summary.rows {
            return Err(EncodeError::Unreadable(FooterError::Corrupt("batch table")));
        }
        Ok((tee.sink, self.summary))
    }

    /// Bytes written to the sink so far; what is buffered for the current row group is not among them.
    pub fn bytes_written(&self) -> u64 {
        self.file.bytes_written() as u64
    }

    /// The batch's records, uncompressed; `None` if they are not to become rows or do not decompress.
    fn unpacked(&mut self, header: &BatchHeader, source: &Bytes) -> Option<Bytes> {
        if header.attributes.is_control() || is_aborted(&self.meta.aborted, header) {
            return None;
        }
        let payload = source.slice(HEADER_BYTES..);
        let codec = header.attributes.compression();
        if codec == Codec::None {
            return Some(payload);
        }
        let records = compression::decompress(codec, &payload, MAX_RECORDS_BYTES).ok();
        self.summary.unreadable_batches += u64::from(records.is_none());
        records.map(|records| Bytes::from(records.into_owned()))
    }

    /// The records, if they can become rows.
    fn rows_of(&mut self, header: &BatchHeader, records: Bytes) -> Option<CheckedRecords> {
        let checked = CheckedRecords::walk(header, records);
        self.summary.unreadable_batches += u64::from(checked.is_none());
        checked
    }

    /// Closes the row group, reads it back, and writes what the columns cannot carry behind it.
    fn finish_group(&mut self) -> Result<(), EncodeError> {
        let mut group = std::mem::take(&mut self.group);
        group.encode_rows(&self.options)?;
        if let Some(columns) = group.columns.take() {
            let mut row_group = self.file.next_row_group()?;
            let page_starts = columns.finish(&mut row_group)?;
            let metadata = row_group.close()?;
            self.file.flush()?;
            self.checksums.extend(checksums(&metadata, &page_starts, |range| self.file.inner().crc_of(range)));
            self.carry_what_does_not_rebuild(&mut group.batches, metadata)?;
        }
        let raw_position = self.file.bytes_written() as u64;
        for batch in &group.batches {
            self.file.write_all(&batch.raw)?;
        }
        let entries: Vec<BatchEntry> = group.batches.iter().map(|batch| batch.entry).collect();
        self.count(&entries);
        self.groups.push(EncodedGroup::new(&entries, raw_position));
        self.file.flush()?;
        self.file.inner_mut().forget();
        Ok(())
    }

    /// Rebuilds every batch of the group from the bytes that were written. Those that differ from their source are carried.
    fn carry_what_does_not_rebuild(
        &mut self,
        batches: &mut [Pending],
        metadata: RowGroupMetaDataPtr,
    ) -> Result<(), EncodeError> {
        let rows = metadata.num_rows();
        let file = FileMetaData::new(2, rows, None, None, parquet_schema(), None);
        let metadata = reader_metadata(ParquetMetaData::new(file, vec![metadata.as_ref().clone()]))?;
        let tee = self.file.inner();
        let mut fetched = Fetched::new(tee.position);
        fetched.add(tee.captured_from(), Bytes::copy_from_slice(&tee.captured));
        let mut walk = RowWalk::open(metadata, fetched, 0, 0, rows as u64).ok();
        let mut rebuilt = Vec::new();
        for batch in batches.iter_mut().filter(|batch| batch.entry.kind.has_rows()) {
            rebuilt.clear();
            let deltas = (batch.entry.kind == BatchKind::RowsWithTimestamps)
                .then(|| raw_section::decode_deltas(&batch.raw, batch.entry.header.record_count));
            let deltas = deltas.flatten();
            // After an error the walk has lost its place: what follows is carried too.
            let sound = walk
                .as_mut()
                .is_some_and(|walk| walk.append_records(&batch.entry, deltas.as_deref(), &mut rebuilt).is_ok());
            if !sound {
                walk = None;
            }
            if batch.entry.kind.is_rebuilt() && (!sound || rebuilt != batch.records) {
                batch.carry()?;
            }
        }
        Ok(())
    }

    fn count(&mut self, entries: &[BatchEntry]) {
        let summary = &mut self.summary;
        for entry in entries {
            summary.batches += 1;
            summary.rows += entry.rows();
            summary.frame_bytes += entry.frame_bytes();
            summary.raw_batches += u64::from(entry.kind == BatchKind::Raw);
            summary.carried_batches += u64::from(entry.kind == BatchKind::RowsAndRaw);
            summary.max_timestamp = summary.max_timestamp.max(entry.header.max_timestamp());
        }
    }
}

/// Whether the batch belongs to a transaction that was aborted.
fn is_aborted(aborted: &[AbortedTxn], header: &BatchHeader) -> bool {
    header.attributes.is_transactional()
        && aborted.iter().any(|range| {
            Some(range.producer) == header.producer_id && (range.first..=range.last).contains(&header.base_offset)
        })
}

impl Group {
    fn encode_rows(&mut self, options: &EncodeOptions) -> Result<(), EncodeError> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let columns = match &mut self.columns {
            Some(columns) => columns,
            slot => slot.insert(GroupColumns::new(options, &self.buffer)?),
        };
        Ok(columns.write(&mut self.buffer)?)
    }
}

impl Pending {
    /// A batch whose records are rows. `raw`: the timestamp deltas, if they lie beside the columns.
    fn rebuilt(header: BatchHeader, kind: BatchKind, source: Option<Bytes>, records: Bytes, raw: Bytes) -> Pending {
        let entry = BatchEntry {
            header: BatchHeader { bytes: 0, crc: 0, ..header },
            kind,
            records_crc: records_crc(&records),
            records_bytes: records.len() as u32,
            raw_bytes: raw.len() as u32,
        };
        Pending { entry, source, records, raw }
    }

    /// A batch that is carried as it is.
    fn raw(header: BatchHeader, source: Bytes) -> Pending {
        let mut pending = Pending::rebuilt(header, BatchKind::Raw, None, Bytes::new(), Bytes::new());
        pending.keep(BatchKind::Raw, source);
        pending
    }

    /// Its rows stay for SQL; its bytes are kept beside them.
    fn carry(&mut self) -> Result<(), EncodeError> {
        let source = match self.source.take() {
            Some(source) => source,
            None => compressed_batch(&self.entry.header, &self.records)?,
        };
        self.keep(BatchKind::RowsAndRaw, source);
        Ok(())
    }

    fn keep(&mut self, kind: BatchKind, source: Bytes) {
        let raw_bytes = source.len() as u32;
        self.raw = source;
        self.entry = BatchEntry { kind, records_crc: 0, records_bytes: 0, raw_bytes, ..self.entry };
    }
}

/// The batch as its producer's codec would frame it.
fn compressed_batch(header: &BatchHeader, records: &[u8]) -> Result<Bytes, EncodeError> {
    Ok(header.encode_batch(&compression::compress(header.attributes.compression(), None, records)?).into())
}

/// Passes bytes to the sink and keeps those of the current group, so that they can be read back.
struct Tee<W> {
    sink: W,
    position: u64,
    crc: u32,
    captured: Vec<u8>,
}

impl<W> Tee<W> {
    fn captured_from(&self) -> u64 {
        self.position - self.captured.len() as u64
    }

    /// CRC-32C of captured bytes.
    fn crc_of(&self, range: Range<u64>) -> u32 {
        let from = self.captured_from();
        crc32c::crc32c(&self.captured[(range.start - from) as usize..(range.end - from) as usize])
    }

    fn forget(&mut self) {
        self.captured.clear();
    }
}

impl<W: Write> Write for Tee<W> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let written = self.sink.write(buf)?;
        self.position += written as u64;
        self.crc = crc32c::crc32c_append(self.crc, &buf[..written]);
        self.captured.extend_from_slice(&buf[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.sink.flush()
    }
}

#[cfg(test)]
#[path = "writer_tests.rs"]
mod tests;
