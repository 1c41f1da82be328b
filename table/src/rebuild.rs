//! Columns to records: the rows of a row group, in order, written as the bytes they came from.

use arrow::{
    array::{Array, AsArray, BinaryViewArray, Int64Array, ListArray, RecordBatch, TimestampMicrosecondArray},
    datatypes::{Int64Type, TimestampMicrosecondType},
};
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder, RowSelection, RowSelectionPolicy,
    RowSelector,
};

use crate::{
    batch_table::BatchEntry,
    columns::rebuilt_delta,
    error::{DecodeError, without_panic},
    fetched::Fetched,
    varint::{put_signed, signed_len, take_signed},
};

/// Rows decoded at a time: few enough that a large value column is held for a page or two only.
const ROWS_AT_A_TIME: usize = 2048;

/// Walks rows of one row group and writes them as records.
pub(crate) struct RowWalk {
    reader: ParquetRecordBatchReader,
    rows: Option<Rows>,
}

/// Some decoded rows, and the next one to use.
struct Rows {
    next: usize,
    offsets: Int64Array,
    timestamps: TimestampMicrosecondArray,
    keys: BinaryViewArray,
    lists: ListArray,
    header_keys: BinaryViewArray,
    header_values: BinaryViewArray,
    values: BinaryViewArray,
}

impl RowWalk {
    /// Rows `skip .. skip + take` of row group `row_group`.
    pub(crate) fn open(
        metadata: ArrowReaderMetadata,
        fetched: Fetched,
        row_group: usize,
        skip: u64,
        take: u64,
    ) -> Result<RowWalk, DecodeError> {
        let selection = RowSelection::from(vec![RowSelector::skip(skip as usize), RowSelector::select(take as usize)]);
        let reader = ParquetRecordBatchReaderBuilder::new_with_metadata(fetched, metadata)
            .with_row_groups(vec![row_group])
            .with_row_selection(selection)
            .with_row_selection_policy(RowSelectionPolicy::Selectors)
            .with_batch_size(ROWS_AT_A_TIME);
        let reader = without_panic(|| reader.build()).ok_or(DecodeError::Corrupt("columns"))??;
        Ok(RowWalk { reader, rows: None })
    }

    /// Appends the records of the next batch to `out`. `deltas`: their timestamp deltas, if they lie beside the columns.
    pub(crate) fn append_records(
        &mut self,
        batch: &BatchEntry,
        mut deltas: Option<&[u8]>,
        out: &mut Vec<u8>,
    ) -> Result<(), DecodeError> {
        let mut remaining = batch.rows() as usize;
        while remaining > 0 {
            let rows = self.some_rows()?;
            let here = remaining.min(rows.offsets.len() - rows.next);
            for _ in 0..here {
                rows.append_record(batch, &mut deltas, out)?;
            }
            remaining -= here;
        }
        match deltas {
            Some(rest) if !rest.is_empty() => Err(DecodeError::Corrupt("more timestamp deltas than records")),
            _ => Ok(()),
        }
    }

    /// Steps over rows that nobody wants.
    pub(crate) fn skip(&mut self, rows: u64) -> Result<(), DecodeError> {
        let mut remaining = rows as usize;
        while remaining > 0 {
            let rows = self.some_rows()?;
            let here = remaining.min(rows.offsets.len() - rows.next);
            rows.next += here;
            remaining -= here;
        }
        Ok(())
    }

    /// Decoded rows of which at least one is not used.
    fn some_rows(&mut self) -> Result<&mut Rows, DecodeError> {
        while self.rows.as_ref().is_none_or(|rows| rows.next == rows.offsets.len()) {
            let decoded = without_panic(|| self.reader.next()).ok_or(DecodeError::Corrupt("columns"))?;
            let decoded = decoded.ok_or(DecodeError::Corrupt("fewer rows than batches count"))??;
            self.rows = Some(Rows::new(&decoded)?);
        }
        Ok(self.rows.as_mut().expect("filled above"))
    }
}

impl Rows {
    fn new(batch: &RecordBatch) -> Result<Rows, DecodeError> {
        let refused = DecodeError::Corrupt("columns of another type");
        let column = |index| batch.columns().get(index);
        let parts = || -> Option<Rows> {
            let lists = column(3)?.as_list_opt::<i32>()?.clone();
            let headers = lists.values().as_struct_opt()?.clone();
            Some(Rows {
                next: 0,
                offsets: column(0)?.as_primitive_opt::<Int64Type>()?.clone(),
                timestamps: column(1)?.as_primitive_opt::<TimestampMicrosecondType>()?.clone(),
                keys: column(2)?.as_binary_view_opt()?.clone(),
                header_keys: headers.columns().first()?.as_binary_view_opt()?.clone(),
                header_values: headers.columns().get(1)?.as_binary_view_opt()?.clone(),
                lists,
                values: column(4)?.as_binary_view_opt()?.clone(),
            })
        };
        parts().ok_or(refused)
    }

    fn append_record(
        &mut self,
        batch: &BatchEntry,
        deltas: &mut Option<&[u8]>,
        out: &mut Vec<u8>,
    ) -> Result<(), DecodeError> {
        let row = self.next;
        self.next += 1;
        let header = &batch.header;
        let offset_delta = self.offsets.value(row).wrapping_sub(header.base_offset.to_wire());
        if !(0..=i64::from(header.last_offset_delta)).contains(&offset_delta) {
            return Err(DecodeError::Corrupt("a row outside its batch"));
        }
        let timestamp_delta = match deltas {
            Some(deltas) => take_signed(deltas).ok_or(DecodeError::Corrupt("fewer timestamp deltas than records"))?,
            None => {
                let micros = self.timestamps.is_valid(row).then(|| self.timestamps.value(row));
                rebuilt_delta(header, micros)
            }
        };
        let key = value_at(&self.keys, row);
        let value = value_at(&self.values, row);
        let list = self.lists.value_offsets();
        let headers = list[row] as usize..list[row + 1] as usize;

        let headers_bytes: usize = headers
            .clone()
            .map(|at| nullable_len(Some(self.header_keys.value(at))) + nullable_len(value_at(&self.header_values, at)))
            .sum();
        let body = 1
            + signed_len(timestamp_delta)
            + signed_len(offset_delta)
            + nullable_len(key)
            + nullable_len(value)
            + signed_len(headers.len() as i64)
            + headers_bytes;
        put_signed(out, body as i64);
        out.push(0);
        put_signed(out, timestamp_delta);
        put_signed(out, offset_delta);
        put_nullable(out, key);
        put_nullable(out, value);
        put_signed(out, headers.len() as i64);
        for at in headers {
            put_nullable(out, Some(self.header_keys.value(at)));
            put_nullable(out, value_at(&self.header_values, at));
        }
        Ok(())
    }
}

#[inline]
fn value_at(column: &BinaryViewArray, at: usize) -> Option<&[u8]> {
    column.is_valid(at).then(|| column.value(at))
}

#[inline]
fn nullable_len(value: Option<&[u8]>) -> usize {
    value.map_or(1, |value| signed_len(value.len() as i64) + value.len())
}

#[inline]
fn put_nullable(out: &mut Vec<u8>, value: Option<&[u8]>) {
    match value {
        Some(value) => {
            put_signed(out, value.len() as i64);
            out.extend_from_slice(value);
        }
        None => put_signed(out, -1),
    }
}
