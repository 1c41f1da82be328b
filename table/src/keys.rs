//! The keys of an object alone: what key compaction reads first (3 to 10% of the object).

use std::ops::Range;

use arrow::{
    array::{Array, AsArray},
    datatypes::Int64Type,
};
use parquet::arrow::{ProjectionMask, arrow_reader::ParquetRecordBatchReaderBuilder};
use varve_metadata::model::Offset;

use crate::{
    error::{DecodeError, without_panic},
    fetched::Fetched,
    footer::TableFooter,
    schema::{KEY_LEAF, OFFSET_LEAF, VALUE_LEAF, parquet_schema},
};

/// Rows decoded at a time.
const ROWS_AT_A_TIME: usize = 8192;

/// The bytes that hold offsets and keys of one group's rows.
#[derive(Clone, Debug)]
pub struct KeyPlan {
    group: usize,
    ranges: Vec<Range<u64>>,
}

impl KeyPlan {
    /// What to fetch: ascending, not overlapping.
    pub fn ranges(&self) -> &[Range<u64>] {
        &self.ranges
    }
}

impl TableFooter {
    /// Whether a record of group `group` may have a null value, as tombstones do: the column's statistics say so.
    pub fn may_have_tombstones(&self, group: usize) -> bool {
        let Some(row_group) = self.groups().get(group).and_then(|group| group.row_group) else { return false };
        let value = self.metadata().metadata().row_group(row_group).column(VALUE_LEAF);
        value.statistics().and_then(|statistics| statistics.null_count_opt()) != Some(0)
    }

    /// What to fetch for the keys of group `group`; `None` if the group has no rows or does not exist.
    pub fn plan_keys(&self, group: usize) -> Option<KeyPlan> {
        let row_group = self.groups().get(group)?.row_group?;
        let columns = self.metadata().metadata().row_group(row_group);
        let ranges = [OFFSET_LEAF, KEY_LEAF].map(|leaf| {
            let (start, len) = columns.column(leaf).byte_range();
            start..start.saturating_add(len)
        });
        Some(KeyPlan { group, ranges: ranges.into() })
    }

    /// Hands out offset and key (`None` is null) of every row of the plan's group, in order.
    ///
    /// # Errors
    /// [`DecodeError::Missing`] if a range was not fetched; the others if the object is damaged.
    pub fn decode_keys(
        &self,
        plan: &KeyPlan,
        fetched: &Fetched,
        mut each: impl FnMut(Offset, Option<&[u8]>),
    ) -> Result<(), DecodeError> {
        let Some((group, row_group)) = self.groups().get(plan.group).and_then(|group| Some((group, group.row_group?)))
        else {
            return Ok(());
        };
        for leaf in [OFFSET_LEAF, KEY_LEAF] {
            for run in self.page_runs(Some(row_group), 0..group.rows, leaf..leaf + 1) {
                run.check(fetched)?;
            }
        }
        let builder = ParquetRecordBatchReaderBuilder::new_with_metadata(fetched.clone(), self.metadata().clone())
            .with_row_groups(vec![row_group])
            .with_projection(ProjectionMask::leaves(&parquet_schema(), [OFFSET_LEAF, KEY_LEAF]))
            .with_batch_size(ROWS_AT_A_TIME);
        let corrupt = || DecodeError::Corrupt("columns");
        let mut reader = without_panic(|| builder.build()).ok_or_else(corrupt)??;
        while let Some(rows) = without_panic(|| reader.next()).ok_or_else(corrupt)? {
            let rows = rows?;
            let offsets = rows.columns().first().and_then(|column| column.as_primitive_opt::<Int64Type>());
            let keys = rows.columns().get(1).and_then(|column| column.as_binary_view_opt());
            let (offsets, keys) = offsets.zip(keys).ok_or_else(corrupt)?;
            for row in 0..rows.num_rows() {
                let offset = Offset::from_wire(offsets.value(row)).ok_or_else(corrupt)?;
                each(offset, keys.is_valid(row).then(|| keys.value(row)));
            }
        }
        Ok(())
    }
}
