//! Records to columns: the rows of one row group, as they grow.

use std::{io, sync::Arc};

use arrow::{
    array::{ArrayRef, BinaryViewBuilder, Int64Array, ListArray, StructArray, TimestampMicrosecondArray},
    buffer::{Buffer, OffsetBuffer, ScalarBuffer},
    datatypes::{DataType, Fields},
    error::ArrowError,
};
use bytes::Bytes;
use parquet::{
    arrow::arrow_writer::{ArrowColumnWriter, ArrowRowGroupWriterFactory, compute_leaves},
    errors::ParquetError,
    file::writer::{SerializedFileWriter, SerializedRowGroupWriter},
};
use varve_log::format::{BatchHeader, RecordView, records};
use varve_metadata::config::TimestampType;

use crate::{
    options::EncodeOptions,
    schema::{Dictionaries, arrow_schema, parquet_schema, writer_properties},
    tags::{Tag, TagFilter},
};

/// What the `timestamp` column holds for a record, in microseconds; `None` is null.
pub(crate) fn column_timestamp(header: &BatchHeader, delta: i64) -> Option<i64> {
    let millis = match header.attributes.timestamp_type() {
        TimestampType::LogAppendTime => header.max_timestamp_ms,
        TimestampType::CreateTime => header.base_timestamp_ms.wrapping_add(delta),
    };
    if millis < 0 { None } else { millis.checked_mul(1000) }
}

/// The timestamp delta of a record whose column holds `micros`; null stands for Kafka's -1.
pub(crate) fn rebuilt_delta(header: &BatchHeader, micros: Option<i64>) -> i64 {
    micros.map_or(-1, |micros| micros / 1000).wrapping_sub(header.base_timestamp_ms)
}

/// Uncompressed records whose structure has been walked once, to the last byte.
pub(crate) struct CheckedRecords {
    pub(crate) records: Bytes,
    /// The timestamp deltas, if the column cannot give them back.
    pub(crate) deltas: Option<Vec<i64>>,
}

impl CheckedRecords {
    /// `None` if the records cannot become rows: they do not parse, or their offsets do not ascend within the batch.
    pub(crate) fn walk(header: &BatchHeader, payload: Bytes) -> Option<CheckedRecords> {
        let mut exact = true;
        let mut previous = -1;
        for record in records(&payload, header.record_count) {
            let record = record.ok()?;
            if record.offset_delta <= previous || record.offset_delta as u32 > header.last_offset_delta {
                return None;
            }
            previous = record.offset_delta;
            let column = column_timestamp(header, record.timestamp_delta);
            exact &= rebuilt_delta(header, column) == record.timestamp_delta;
        }
        let deltas = (!exact)
            .then(|| records(&payload, header.record_count).flatten().map(|record| record.timestamp_delta).collect());
        Some(CheckedRecords { records: payload, deltas })
    }

    pub(crate) fn iter(&self, header: &BatchHeader) -> impl Iterator<Item = RecordView<'_>> {
        records(&self.records, header.record_count).map(|record| record.expect("walked before"))
    }
}

/// Rows that wait to be encoded: about a page or a few of each column, borrowing from the batches they came in.
#[derive(Default)]
pub(crate) struct RowBuffer {
    offsets: Vec<i64>,
    timestamps: Vec<Option<i64>>,
    keys: Views,
    list_offsets: Vec<i32>,
    header_keys: Views,
    header_values: Views,
    values: Views,
    bytes: usize,
}

impl RowBuffer {
    /// Adds a batch's records as rows, and their tags to `tags`.
    pub(crate) fn push(&mut self, header: &BatchHeader, batch: &CheckedRecords, mut tags: Option<&mut TagFilter>) {
        if self.list_offsets.is_empty() {
            self.list_offsets.push(0);
        }
        for column in [&mut self.keys, &mut self.header_keys, &mut self.header_values, &mut self.values] {
            column.start(&batch.records);
        }
        for record in batch.iter(header) {
            self.offsets.push(header.base_offset.to_wire() + i64::from(record.offset_delta));
            self.timestamps.push(column_timestamp(header, record.timestamp_delta));
            self.keys.push(record.key);
            self.values.push(record.value);
            for (key, value) in record.headers() {
                self.header_keys.push(Some(key));
                self.header_values.push(value);
                if let (Some(tags), Some(value)) = (tags.as_deref_mut(), value) {
                    tags.insert(Tag::header(key, value));
                }
            }
            self.list_offsets.push(self.header_keys.len as i32);
            if let (Some(tags), Some(key)) = (tags.as_deref_mut(), record.key) {
                tags.insert(Tag::key(key));
            }
        }
        self.bytes += batch.records.len();
    }

    /// Bytes of the batches that it borrows from.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.offsets.is_empty()
    }

    /// Which columns repeat themselves, judged by the rows at hand.
    fn dictionaries(&self) -> Dictionaries {
        Dictionaries { key: self.keys.repeats(), header_value: self.header_values.repeats() }
    }

    fn take_arrays(&mut self) -> Result<Vec<ArrayRef>, ArrowError> {
        let rows = std::mem::take(self);
        let schema = arrow_schema();
        let DataType::List(element) = schema.field(3).data_type() else { unreachable!("headers are a list") };
        let DataType::Struct(parts) = element.data_type() else { unreachable!("of structs") };
        let parts: Fields = parts.clone();
        let header = StructArray::try_new(parts, vec![rows.header_keys.finish(), rows.header_values.finish()], None)?;
        let offsets = OffsetBuffer::new(ScalarBuffer::from(rows.list_offsets));
        Ok(vec![
            Arc::new(Int64Array::from(rows.offsets)),
            Arc::new(TimestampMicrosecondArray::from(rows.timestamps).with_timezone("UTC")),
            rows.keys.finish(),
            Arc::new(ListArray::try_new(element.clone(), offsets, Arc::new(header), None)?),
            rows.values.finish(),
        ])
    }
}

/// One byte column: views into the batches' own buffers.
#[derive(Default)]
struct Views {
    builder: BinaryViewBuilder,
    block: u32,
    source: Bytes,
    len: usize,
    /// Hashes of a sample of the values, to judge whether they repeat.
    sample: Vec<u64>,
}

const SAMPLE: usize = 16_384;

impl Views {
    fn start(&mut self, source: &Bytes) {
        self.source = source.clone();
        self.block = self.builder.append_block(Buffer::from(source.clone()));
    }

    /// `value` lies within the source that was started last.
    fn push(&mut self, value: Option<&[u8]>) {
        self.len += 1;
        let Some(value) = value else { return self.builder.append_null() };
        if self.sample.len() < SAMPLE {
            self.sample.push(twox_hash::XxHash64::oneshot(0, value));
        }
        let offset = value.as_ptr() as usize - self.source.as_ptr() as usize;
        self.builder
            .try_append_view(self.block, offset as u32, value.len() as u32)
            .expect("the value lies within the block that it was parsed from");
    }

    /// Whether a dictionary pays: of the last quarter of the sample, nearly all had been seen before. Judging by the end
    /// tells a few thousand distinct values, which a dictionary serves well, from values that never come again.
    fn repeats(&self) -> bool {
        let (before, last) = self.sample.split_at(self.sample.len() / 4 * 3);
        let mut seen: std::collections::HashSet<_> = before.iter().collect();
        let repeated = last.iter().filter(|value| !seen.insert(*value)).count();
        repeated * 5 >= last.len() * 4
    }

    fn finish(mut self) -> ArrayRef {
        Arc::new(self.builder.finish())
    }
}

/// The columns of one row group, encoded page by page; memory: its compressed pages.
pub(crate) struct GroupColumns(Vec<ArrowColumnWriter>);

impl GroupColumns {
    /// `sample`: the first rows, which decide about dictionaries.
    pub(crate) fn new(options: &EncodeOptions, sample: &RowBuffer) -> Result<GroupColumns, ParquetError> {
        // The Bloom filter starts at this many distinct keys and is folded to what there were.
        let rows = (sample.offsets.len() as u64).saturating_mul(options.group_bytes as u64)
            / (sample.bytes as u64).clamp(1, options.group_bytes as u64);
        let properties = writer_properties(options, sample.dictionaries(), rows.min(1 << 20));
        // Column writers come from a file writer's properties; each group has its own, so each asks a file of its own.
        let file = SerializedFileWriter::new(io::sink(), parquet_schema().root_schema_ptr(), properties)?;
        ArrowRowGroupWriterFactory::new(&file, arrow_schema()).create_column_writers(0).map(GroupColumns)
    }

    /// Encodes and empties `rows`.
    pub(crate) fn write(&mut self, rows: &mut RowBuffer) -> Result<(), ParquetError> {
        let mut writers = self.0.iter_mut();
        for (field, array) in arrow_schema().fields().iter().zip(rows.take_arrays()?) {
            for leaf in compute_leaves(field, &array)? {
                writers.next().expect("one writer per leaf").write(&leaf)?;
            }
        }
        Ok(())
    }

    /// Puts the finished columns into `group`; returns where in its column each page begins.
    pub(crate) fn finish<W: io::Write + Send>(
        self,
        group: &mut SerializedRowGroupWriter<'_, W>,
    ) -> Result<Vec<Vec<u64>>, ParquetError> {
        let finish = |column: ArrowColumnWriter| {
            let chunk = column.close()?;
            let metadata = &chunk.close().metadata;
            let start = metadata.dictionary_page_offset().unwrap_or(metadata.data_page_offset());
            let index = chunk.close().offset_index.as_ref();
            let pages = index.iter().flat_map(|index| &index.page_locations);
            let starts = pages.map(|page| (page.offset - start) as u64).collect();
            chunk.append_to_row_group(group)?;
            Ok(starts)
        };
        self.0.into_iter().map(finish).collect()
    }
}
