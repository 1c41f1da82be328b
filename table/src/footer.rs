//! The tail of an object: our blobs, then the Parquet footer whose `varve.*` keys say where they are.
//!
//! ```text
//! PAR1 │ row group, its Bloom filter, its raw section │ … │ tag filter │ producer state │ aborted transactions
//!      │ leader epochs │ page checksums │ batch table │ column and offset indexes │ footer │ length │ PAR1
//! ```
//! From the aborted transactions on it is one run of bytes, so that one read of the tail opens an object.
//!
//! | key | value |
//! |---|---|
//! | `varve.format` | `1` |
//! | `varve.topic_id`, `varve.partition` | whose records these are |
//! | `varve.base_offset`, `varve.last_offset` | first and last offset that the object answers for |
//! | `varve.records` | rows |
//! | `varve.max_timestamp` | largest timestamp of any batch, ms; absent if none has one |
//! | `varve.tags`, `varve.producers`, `varve.aborted`, `varve.leader_epochs`, `varve.checksums`, `varve.batches` | a blob: `position:bytes:crc32c` in decimal |
//!
//! Aborted transactions are four numbers each (producer id, first, last, last stable offset), leader epochs two (epoch,
//! first offset), all varints. Producer state is Kafka's `.snapshot` file.

use std::{collections::HashMap, io::Write, ops::Range, sync::Arc};

use bytes::Bytes;
use parquet::{
    DecodeResult,
    arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions},
    errors::ParquetError,
    file::{
        metadata::{
            ColumnChunkMetaData, KeyValue, PageIndexPolicy, ParquetMetaData, ParquetMetaDataPushDecoder,
            RowGroupMetaData,
        },
        page_index::offset_index::PageLocation,
        writer::SerializedFileWriter,
    },
};
use varve_log::local::AbortedTxn;
use varve_metadata::model::{LeaderEpoch, Offset, PartitionId, PartitionIndex, ProducerId, Timestamp};

use crate::{
    batch_table::{BatchEntry, BatchTable, GroupEntry},
    error::{DecodeError, EncodeError, FooterError, checksum_holds, without_panic},
    fetched::Fetched,
    options::TableMeta,
    pages::PageChecksums,
    schema::{arrow_schema, parquet_schema},
    thrift::{is_file_meta_data, is_offset_index},
    varint::{put_signed, put_unsigned, take_signed, take_unsigned},
    writer::TableSummary,
};

/// Version of everything that this crate writes beside Parquet itself.
pub const FORMAT: &str = "1";

/// Length and magic at the very end of a Parquet file.
const PARQUET_TAIL: u64 = 8;

/// The opened object: enough to plan reads and to decode them. Cheap to clone.
#[derive(Clone, Debug)]
pub struct TableFooter {
    partition: PartitionId,
    base: Offset,
    end: Offset,
    rows: u64,
    max_timestamp: Option<Timestamp>,
    object_bytes: u64,
    metadata: ArrowReaderMetadata,
    table: Arc<BatchTable>,
    pages: Arc<PageChecksums>,
    aborted: Arc<[AbortedTxn]>,
    leader_epochs: Arc<[(LeaderEpoch, Offset)]>,
    producers: Option<Blob>,
    tags: Option<Blob>,
}

impl TableFooter {
    /// Parses the last bytes of an object of `object_bytes`. 256 KiB are enough for most.
    ///
    /// # Errors
    /// [`FooterError::NeedMore`] says from where to fetch; the others say why this is no object of ours, or a damaged one.
    pub fn parse(object_bytes: u64, tail: Bytes) -> Result<TableFooter, FooterError> {
        let tail_start =
            object_bytes.checked_sub(tail.len() as u64).ok_or(FooterError::Foreign("it is shorter than its tail"))?;
        let metadata = without_panic(|| parse_parquet(object_bytes, tail_start, &tail))
            .unwrap_or(Err(FooterError::Corrupt("footer")))?;
        let keys = Keys::of(&metadata)?;
        let blob_bytes = |name: &'static str| -> Result<Bytes, FooterError> {
            let blob = keys.blob(name)?.ok_or(FooterError::Foreign("a blob is missing"))?;
            let mut fetched = Fetched::new(object_bytes);
            fetched.add(tail_start, tail.clone());
            if blob.range.start < tail_start {
                return Err(FooterError::NeedMore { from: keys.tail_start()? });
            }
            let bytes = fetched.get(blob.range.clone()).ok_or(FooterError::Corrupt("blob position"))?;
            // A copy: a footer that is kept must not hold the whole tail in memory.
            let is_sound = checksum_holds(&bytes, blob.crc);
            if is_sound { Ok(Bytes::copy_from_slice(&bytes)) } else { Err(FooterError::Corrupt("blob")) }
        };
        let aborted = parse_aborted(&blob_bytes("varve.aborted")?).ok_or(FooterError::Corrupt("aborted index"))?;
        let epochs = parse_epochs(&blob_bytes("varve.leader_epochs")?).ok_or(FooterError::Corrupt("leader epochs"))?;
        let table = BatchTable::parse(blob_bytes("varve.batches")?).ok_or(FooterError::Corrupt("batch table"))?;
        let (partition, base, end) = keys.identity()?;
        let rows = keys.number("varve.records")?;
        check_groups(&metadata, &table, base, end, rows)?;
        let max_timestamp = match keys.get("varve.max_timestamp") {
            Some(text) => text.parse().ok().and_then(Timestamp::from_wire),
            None => None,
        };
        let pages = PageChecksums::new(&metadata, blob_bytes("varve.checksums")?)
            .ok_or(FooterError::Corrupt("page checksums"))?;
        let (producers, tags) = (keys.blob("varve.producers")?, keys.blob("varve.tags")?);
        Ok(TableFooter {
            partition,
            base,
            end,
            rows,
            max_timestamp,
            object_bytes,
            metadata: reader_metadata(metadata).map_err(|_| FooterError::Foreign("its columns are not ours"))?,
            table: Arc::new(table),
            pages: Arc::new(pages),
            aborted: aborted.into(),
            leader_epochs: epochs.into(),
            producers,
            tags,
        })
    }

    /// Whose records these are.
    pub const fn partition(&self) -> PartitionId {
        self.partition
    }

    /// First offset that the object answers for.
    pub const fn base(&self) -> Offset {
        self.base
    }

    /// The offset behind the last one that the object answers for.
    pub const fn end(&self) -> Offset {
        self.end
    }

    /// Rows of the columns: committed records.
    pub const fn rows(&self) -> u64 {
        self.rows
    }

    /// Largest timestamp of any batch.
    pub const fn max_timestamp(&self) -> Option<Timestamp> {
        self.max_timestamp
    }

    /// Size of the object in bytes.
    pub const fn object_bytes(&self) -> u64 {
        self.object_bytes
    }

    /// Transactions that were aborted within the range.
    pub fn aborted(&self) -> &[AbortedTxn] {
        &self.aborted
    }

    /// Leader epochs that overlap the range, with their first offsets.
    pub fn leader_epochs(&self) -> &[(LeaderEpoch, Offset)] {
        &self.leader_epochs
    }

    /// Where producer state at [`end`](Self::end) lies, if the object has it.
    pub fn producers(&self) -> Option<Range<u64>> {
        self.producers.as_ref().map(|blob| blob.range.clone())
    }

    /// Where the tag filter lies, if the object has one. Probe it with [`Tag::block`](crate::Tag::block).
    pub fn tags(&self) -> Option<Range<u64>> {
        self.tags.as_ref().map(|blob| blob.range.clone())
    }

    /// The groups of batches, in offset order.
    pub fn groups(&self) -> &[GroupEntry] {
        &self.table.groups
    }

    /// The batches of one group.
    ///
    /// # Errors
    /// [`DecodeError::Corrupt`] if the table does not decode there.
    pub fn batches(&self, group: usize) -> Result<Vec<BatchEntry>, DecodeError> {
        self.table.entries(group).ok_or(DecodeError::Corrupt("batch table"))
    }

    /// Memory that the footer takes, in bytes: for caches that weigh.
    pub fn memory_bytes(&self) -> usize {
        let parts = self.table.memory_bytes() + self.pages.memory_bytes();
        self.metadata.metadata().memory_size() + parts + size_of::<TableFooter>()
    }

    pub(crate) fn pages(&self) -> &PageChecksums {
        &self.pages
    }

    pub(crate) fn metadata(&self) -> &ArrowReaderMetadata {
        &self.metadata
    }
}

/// The reader's view of a file's metadata, with byte columns as views.
pub(crate) fn reader_metadata(metadata: ParquetMetaData) -> Result<ArrowReaderMetadata, ParquetError> {
    let options = ArrowReaderOptions::new().with_schema(arrow_schema());
    ArrowReaderMetadata::try_new(Arc::new(metadata), options)
}

fn parse_parquet(object_bytes: u64, tail_start: u64, tail: &Bytes) -> Result<ParquetMetaData, FooterError> {
    let foreign = |_| FooterError::Foreign("it is no Parquet file");
    if (tail.len() as u64) < PARQUET_TAIL && tail_start > 0 {
        return Err(FooterError::NeedMore { from: object_bytes.saturating_sub(64 << 10) });
    }
    // The length is ours to check: the decoder subtracts it from the object's size.
    let (length, _) = tail.last_chunk::<8>().and_then(|end| end.split_first_chunk::<4>()).ok_or_else(|| foreign(()))?;
    let length = u64::from(u32::from_le_bytes(*length));
    let Some(start) = object_bytes.checked_sub(length + PARQUET_TAIL) else { return Err(foreign(())) };
    let Some(skipped) = start.checked_sub(tail_start) else { return Err(FooterError::NeedMore { from: start }) };
    if !is_file_meta_data(&tail[skipped as usize..]) {
        return Err(foreign(()));
    }
    let decoder = ParquetMetaDataPushDecoder::try_new(object_bytes)
        .map(|decoder| decoder.with_page_index_policy(PageIndexPolicy::Skip));
    let metadata = decoded(decoder, tail_start, tail)?;
    let is_whole = |chunk: &ColumnChunkMetaData| page_index_is_whole(chunk, tail_start, tail);
    if !metadata.row_groups().iter().flat_map(RowGroupMetaData::columns).all(is_whole) {
        return Err(FooterError::Corrupt("page index"));
    }
    let decoder = ParquetMetaDataPushDecoder::try_new_with_metadata(object_bytes, metadata).map(|decoder| {
        decoder.with_offset_index_policy(PageIndexPolicy::Required).with_column_index_policy(PageIndexPolicy::Skip)
    });
    decoded(decoder, tail_start, tail)
}

/// Whether the chunk's page index lists what it claims, as far as the `tail` has it: the decoder asks for what it has not.
fn page_index_is_whole(chunk: &ColumnChunkMetaData, tail_start: u64, tail: &Bytes) -> bool {
    let place = chunk.offset_index_offset().zip(chunk.offset_index_length());
    let Some((Ok(offset), Ok(length))) = place.map(|(offset, length)| (u64::try_from(offset), usize::try_from(length)))
    else {
        return true;
    };
    let Some(skipped) = offset.checked_sub(tail_start) else { return true };
    let index = tail.get(skipped as usize..).and_then(|from| from.get(..length));
    index.is_some_and(is_offset_index)
}

/// What the decoder makes of the object's `tail`.
fn decoded(
    decoder: Result<ParquetMetaDataPushDecoder, ParquetError>,
    tail_start: u64,
    tail: &Bytes,
) -> Result<ParquetMetaData, FooterError> {
    let foreign = |_: ParquetError| FooterError::Foreign("it is no Parquet file");
    let mut decoder = decoder.map_err(foreign)?;
    decoder.push_range(tail_start..tail_start + tail.len() as u64, tail.clone()).map_err(foreign)?;
    match decoder.try_decode().map_err(foreign)? {
        DecodeResult::Data(metadata) => Ok(metadata),
        DecodeResult::NeedsData(ranges) => {
            let from = ranges.iter().map(|range| range.start).min().unwrap_or(0);
            if from >= tail_start { Err(FooterError::Corrupt("footer")) } else { Err(FooterError::NeedMore { from }) }
        }
        DecodeResult::Finished => Err(FooterError::Corrupt("footer")),
    }
}

/// The columns must be ours and hold the rows that the table counts, or batches would be rebuilt from other rows.
fn check_groups(
    metadata: &ParquetMetaData,
    table: &BatchTable,
    base: Offset,
    end: Offset,
    rows: u64,
) -> Result<(), FooterError> {
    let same = |ours: &parquet::schema::types::SchemaDescriptor, theirs: &parquet::schema::types::SchemaDescriptor| {
        ours.num_columns() == theirs.num_columns()
            && ours
                .columns()
                .iter()
                .zip(theirs.columns())
                .all(|(our, their)| our.path() == their.path() && our.physical_type() == their.physical_type())
    };
    if !same(&parquet_schema(), metadata.file_metadata().schema_descr()) {
        return Err(FooterError::Foreign("its columns are not ours"));
    }
    let counted: Vec<u64> = table.groups.iter().map(|group| group.rows).filter(|rows| *rows > 0).collect();
    let found: Vec<u64> = metadata.row_groups().iter().map(|group| group.num_rows() as u64).collect();
    let within = table.groups.iter().all(|group| base < group.end && group.end <= end);
    if counted != found || counted.iter().sum::<u64>() != rows {
        return Err(FooterError::Foreign("its row groups are not those that were written"));
    }
    let indexed = metadata.offset_index().is_some_and(|index| {
        index.len() == found.len()
            && metadata.row_groups().iter().zip(index).all(|(group, pages)| {
                group.num_columns() == pages.len()
                    && group.columns().iter().zip(pages).all(|(column, pages)| is_placed(column, &pages.page_locations))
            })
    });
    if within && (indexed || found.is_empty()) { Ok(()) } else { Err(FooterError::Corrupt("group directory")) }
}

/// Whether a column and its pages lie where a column can lie: the Parquet library asserts some of it, and plans rely on it.
fn is_placed(column: &ColumnChunkMetaData, pages: &[PageLocation]) -> bool {
    let start = column.dictionary_page_offset().unwrap_or(column.data_page_offset());
    let mut before = (start, -1);
    start > 0
        && column.compressed_size() >= 0
        && pages.first().is_some_and(|first| first.first_row_index == 0)
        && pages.iter().all(|page| {
            let ascends = page.offset >= before.0 && page.first_row_index > before.1 && page.compressed_page_size > 0;
            before = (page.offset, page.first_row_index);
            ascends
        })
}

/// Appends blobs and footer keys; the file can then be closed.
pub(crate) fn write_blobs<W: Write + Send>(
    file: &mut SerializedFileWriter<W>,
    meta: &TableMeta,
    summary: &TableSummary,
    tags: &[u8],
    checksums: &[u8],
    table: &[u8],
) -> Result<(), EncodeError> {
    let mut aborted = Vec::new();
    for range in &meta.aborted {
        put_signed(&mut aborted, range.producer.to_wire());
        for offset in [range.first, range.last, range.last_stable] {
            put_unsigned(&mut aborted, offset.get());
        }
    }
    let mut epochs = Vec::new();
    for (epoch, first) in &meta.leader_epochs {
        put_unsigned(&mut epochs, u64::from(epoch.0));
        put_unsigned(&mut epochs, first.get());
    }
    let last = meta.end.get().saturating_sub(1);
    let mut keys = vec![
        ("varve.format", FORMAT.to_owned()),
        ("varve.topic_id", meta.partition.topic.to_string()),
        ("varve.partition", meta.partition.index.to_string()),
        ("varve.base_offset", meta.base.to_string()),
        ("varve.last_offset", last.to_string()),
        ("varve.records", summary.rows.to_string()),
    ];
    keys.extend(summary.max_timestamp.map(|timestamp| ("varve.max_timestamp", timestamp.to_string())));
    let producers = meta.producers.as_deref().unwrap_or_default();
    for (name, bytes, optional) in [
        ("varve.tags", tags, true),
        ("varve.producers", producers, true),
        ("varve.aborted", &aborted, false),
        ("varve.leader_epochs", &epochs, false),
        ("varve.checksums", checksums, false),
        ("varve.batches", table, false),
    ] {
        if bytes.is_empty() && optional {
            continue;
        }
        keys.push((name, format!("{}:{}:{}", file.bytes_written(), bytes.len(), crc32c::crc32c(bytes))));
        file.write_all(bytes)?;
    }
    for (key, value) in keys {
        file.append_key_value_metadata(KeyValue::new(key.to_owned(), value));
    }
    Ok(())
}

#[derive(Clone, Debug)]
struct Blob {
    range: Range<u64>,
    crc: u32,
}

/// The `varve.*` keys of a footer.
struct Keys<'a>(HashMap<&'a str, &'a str>);

impl<'a> Keys<'a> {
    fn of(metadata: &'a ParquetMetaData) -> Result<Keys<'a>, FooterError> {
        let pairs = metadata.file_metadata().key_value_metadata().map(Vec::as_slice).unwrap_or_default();
        let keys = Keys(pairs.iter().filter_map(|pair| Some((pair.key.as_str(), pair.value.as_deref()?))).collect());
        match keys.get("varve.format") {
            Some(FORMAT) => Ok(keys),
            Some(other) => Err(FooterError::Version(other.to_owned())),
            None => Err(FooterError::Foreign("it has no varve.format")),
        }
    }

    fn get(&self, name: &str) -> Option<&'a str> {
        self.0.get(name).copied()
    }

    fn number(&self, name: &'static str) -> Result<u64, FooterError> {
        self.get(name).and_then(|text| text.parse().ok()).ok_or(FooterError::Corrupt(name))
    }

    fn offset(&self, name: &'static str) -> Result<Offset, FooterError> {
        Offset::new(self.number(name)?).ok_or(FooterError::Corrupt(name))
    }

    fn identity(&self) -> Result<(PartitionId, Offset, Offset), FooterError> {
        let topic = self.get("varve.topic_id").and_then(|text| text.parse().ok());
        let index = u32::try_from(self.number("varve.partition")?).map_err(|_| FooterError::Corrupt("partition"))?;
        let partition =
            PartitionId { topic: topic.ok_or(FooterError::Corrupt("topic id"))?, index: PartitionIndex(index) };
        Ok((partition, self.offset("varve.base_offset")?, self.offset("varve.last_offset")?.plus(1)))
    }

    fn blob(&self, name: &'static str) -> Result<Option<Blob>, FooterError> {
        let Some(text) = self.get(name) else { return Ok(None) };
        let mut parts = text.split(':').map(|part| part.parse::<u64>().ok());
        let mut next = || parts.next().flatten().ok_or(FooterError::Corrupt("blob position"));
        let (position, bytes, crc) = (next()?, next()?, next()?);
        let end = position.checked_add(bytes).ok_or(FooterError::Corrupt("blob position"))?;
        Ok(Some(Blob { range: position..end, crc: crc as u32 }))
    }

    /// Where the run of bytes begins that opening an object needs.
    fn tail_start(&self) -> Result<u64, FooterError> {
        Ok(self.blob("varve.aborted")?.ok_or(FooterError::Foreign("a blob is missing"))?.range.start)
    }
}

fn parse_aborted(mut blob: &[u8]) -> Option<Vec<AbortedTxn>> {
    let mut ranges = Vec::new();
    while !blob.is_empty() {
        let producer = ProducerId::from_wire(take_signed(&mut blob)?)?;
        let mut offset = || Offset::new(take_unsigned(&mut blob)?);
        ranges.push(AbortedTxn { producer, first: offset()?, last: offset()?, last_stable: offset()? });
    }
    Some(ranges)
}

fn parse_epochs(mut blob: &[u8]) -> Option<Vec<(LeaderEpoch, Offset)>> {
    let mut epochs = Vec::new();
    while !blob.is_empty() {
        let epoch = LeaderEpoch(u32::try_from(take_unsigned(&mut blob)?).ok()?);
        epochs.push((epoch, Offset::new(take_unsigned(&mut blob)?)?));
    }
    Some(epochs)
}
