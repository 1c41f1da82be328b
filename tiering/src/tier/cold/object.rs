//! An opened object: which stretches of it hold which batches, and how their bytes become batches.

use std::{cmp::Reverse, ops::Range, sync::Arc};

use bytes::Bytes;
use varve_log::{format::BatchHeader, local::AbortedTxn};
use varve_metadata::model::{Offset, Timestamp};
use varve_table::{Fetched, ReadPlan, Recompression, TableFooter};

use super::{
    error::{ColdError, Damage},
    select,
};
use crate::{
    layout::Key,
    raw::{RawIndexEntry, RawMeta},
};

/// An object whose footer and index are in memory. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) enum Opened {
    Table(TableObject),
    Raw(RawObject),
}

/// A stretch of whole batches that is fetched, cached and given up as one.
#[derive(Clone, Debug)]
pub(super) struct Stretch {
    /// What to fetch, in the stored object.
    pub(super) ranges: Vec<Range<u64>>,
    /// Its batches as they are given out, in bytes.
    pub(super) bytes: u64,
    plan: Option<ReadPlan>,
}

impl Stretch {
    /// Bytes to fetch.
    pub(super) fn fetch_bytes(&self) -> u64 {
        self.ranges.iter().map(|range| range.end - range.start).sum()
    }

    /// Memory that fetching and rebuilding takes.
    pub(super) fn work_bytes(&self) -> u64 {
        if self.plan.is_some() { self.fetch_bytes() + self.bytes } else { self.bytes }
    }
}

impl Opened {
    /// The number of the unit that holds `offset`, or of the first one after it, and where that unit begins and ends.
    pub(super) fn unit_at(&self, offset: Offset) -> Option<(u64, Range<Offset>)> {
        match self {
            Opened::Table(table) => {
                let groups = table.footer.groups();
                let index = groups.partition_point(|group| group.end <= offset);
                groups.get(index).map(|group| (index as u64, group.base..group.end))
            }
            Opened::Raw(raw) => {
                let index = raw.units.partition_point(|unit| unit.offsets.end <= offset);
                raw.units.get(index).map(|unit| (index as u64, unit.offsets.clone()))
            }
        }
    }

    /// The whole unit.
    pub(super) fn unit(&self, index: u64, key: &Key) -> Result<Stretch, ColdError> {
        let at = usize::try_from(index).unwrap_or(usize::MAX);
        let missing = || ColdError::corrupt(key, Damage("a unit that its index does not have"));
        match self {
            Opened::Table(table) => {
                let group = table.footer.groups().get(at).ok_or_else(missing)?;
                let plan = table.footer.plan_group(group.base).map_err(|error| ColdError::corrupt(key, error))?;
                Ok(table.stretch(plan.ok_or_else(missing)?))
            }
            Opened::Raw(raw) => {
                let unit = raw.units.get(at).ok_or_else(missing)?;
                Ok(RawObject::stretch(unit.range.clone()))
            }
        }
    }

    /// The batches from the one that holds `from` on, about `bytes` of them. `None` if none ends behind `from`.
    pub(super) fn stretch_from(&self, from: Offset, bytes: u64, key: &Key) -> Result<Option<Stretch>, ColdError> {
        match self {
            Opened::Table(table) => {
                let plan = table.footer.plan(from, bytes).map_err(|error| ColdError::corrupt(key, error))?;
                Ok(plan.map(|plan| table.stretch(plan)))
            }
            Opened::Raw(raw) => Ok(raw.stretch_from(from, bytes)),
        }
    }

    /// Where to begin looking for a record at or after `from` with a timestamp of `target` or later: the first batch that may
    /// hold it, or no later. `None` if there is none.
    pub(super) fn first_reaching(
        &self,
        target: Timestamp,
        from: Offset,
        key: &Key,
    ) -> Result<Option<Offset>, ColdError> {
        let table = match self {
            Opened::Table(table) => table,
            Opened::Raw(raw) => {
                let index = &raw.meta.index;
                let first = index.partition_point(|entry| entry.offset <= from).saturating_sub(1);
                let found = index[first..].iter().find(|entry| entry.max_timestamp >= Some(target));
                return Ok(found.map(|entry| entry.offset.max(from)));
            }
        };
        let groups = table.footer.groups();
        for index in groups.partition_point(|group| group.end <= from)..groups.len() {
            let batches = table.footer.batches(index).map_err(|error| ColdError::corrupt(key, error))?;
            let reaches = |header: &BatchHeader| header.next_offset() > from && header.max_timestamp() >= Some(target);
            if let Some(batch) = batches.iter().find(|batch| reaches(&batch.header)) {
                return Ok(Some(batch.header.base_offset.max(from)));
            }
        }
        Ok(None)
    }

    /// Stretches of offsets that end behind `from`, of one batch or some neighbours each, with the largest timestamp that their
    /// headers or index tell: the largest first, and of equals the one in front. Those of which none is told are left out.
    pub(super) fn by_time(&self, from: Offset, key: &Key) -> Result<Vec<(Timestamp, Range<Offset>)>, ColdError> {
        let mut found = Vec::new();
        let mut note = |largest: Option<Timestamp>, offsets: Range<Offset>| {
            found.extend(largest.filter(|_| offsets.end > from).map(|largest| (largest, offsets)));
        };
        match self {
            Opened::Raw(RawObject { meta, .. }) => {
                let ends = meta.index.iter().skip(1).map(|next| next.offset).chain([meta.footer.end]);
                meta.index.iter().zip(ends).for_each(|(entry, end)| note(entry.max_timestamp, entry.offset..end));
            }
            Opened::Table(table) => {
                for index in 0..table.footer.groups().len() {
                    let batches = table.footer.batches(index).map_err(|error| ColdError::corrupt(key, error))?;
                    let headers = batches.iter().map(|batch| &batch.header).filter(|header| header.record_count > 0);
                    headers.for_each(|header| note(header.max_timestamp(), header.base_offset..header.next_offset()));
                }
            }
        }
        found.sort_by_key(|(largest, offsets)| (Reverse(*largest), offsets.start));
        Ok(found)
    }

    /// The batches in `fetched`, checked. Takes CPU: 1 to 2 seconds per GiB of Parquet.
    pub(super) fn decode(
        &self,
        stretch: &Stretch,
        fetched: Fetched,
        recompression: Recompression,
        key: &Key,
    ) -> Result<Bytes, ColdError> {
        match (self, &stretch.plan) {
            (Opened::Table(table), Some(plan)) => {
                table.footer.decode(plan, &fetched, recompression).map_err(|error| ColdError::corrupt(key, error))
            }
            _ => {
                let range = stretch.ranges.first().cloned().unwrap_or_default();
                let run = fetched.get(range).ok_or_else(|| ColdError::corrupt(key, Damage("bytes are missing")))?;
                select::verify(&run).map_err(|error| ColdError::corrupt(key, error))?;
                Ok(run)
            }
        }
    }

    /// Whether decoding is worth a thread of its own.
    pub(super) fn decodes(&self) -> bool {
        matches!(self, Opened::Table(_))
    }

    /// Transactions aborted in the object's range of offsets.
    pub(super) fn aborted(&self) -> &[AbortedTxn] {
        match self {
            Opened::Table(table) => table.footer.aborted(),
            Opened::Raw(raw) => &raw.meta.aborted,
        }
    }

    /// Where in the stored object the producers' state at its end lies, if it has that.
    pub(super) fn producers(&self) -> Option<Range<u64>> {
        match self {
            Opened::Table(table) => table.footer.producers(),
            Opened::Raw(raw) => {
                let within = raw.meta.footer.producer_snapshot();
                (!within.is_empty()).then(|| raw.at + within.start..raw.at + within.end)
            }
        }
    }

    /// The object's bytes, if it is so small that opening it read all of it.
    pub(super) fn whole(&self) -> Option<&Bytes> {
        match self {
            Opened::Table(table) => table.whole.as_ref(),
            Opened::Raw(raw) => raw.whole.as_ref(),
        }
    }

    /// Memory that it takes, for a cache that weighs.
    pub(super) fn weight(&self) -> usize {
        let held = match self {
            Opened::Table(table) => table.footer.memory_bytes(),
            Opened::Raw(RawObject { meta, units, .. }) => {
                units.len() * size_of::<RawUnit>()
                    + meta.index.len() * size_of::<RawIndexEntry>()
                    + meta.aborted.len() * size_of::<AbortedTxn>()
            }
        };
        size_of::<Opened>() + held + self.whole().map_or(0, Bytes::len)
    }
}

/// An opened Parquet object.
#[derive(Clone, Debug)]
pub(super) struct TableObject {
    pub(super) footer: TableFooter,
    pub(super) whole: Option<Bytes>,
}

impl TableObject {
    fn stretch(&self, plan: ReadPlan) -> Stretch {
        Stretch { ranges: plan.ranges().to_vec(), bytes: plan.frame_bytes(), plan: Some(plan) }
    }
}

/// An opened raw object: its batches in units that begin where its index points.
#[derive(Clone, Debug)]
pub(super) struct RawObject {
    meta: Arc<RawMeta>,
    units: Arc<[RawUnit]>,
    /// Where the part begins in the stored object.
    at: u64,
    whole: Option<Bytes>,
}

#[derive(Clone, Debug)]
struct RawUnit {
    offsets: Range<Offset>,
    range: Range<u64>,
}

impl RawObject {
    /// The part that begins at `at` in the stored object. A unit has at least `unit_bytes`, save the last.
    pub(super) fn new(meta: RawMeta, at: u64, unit_bytes: u64, whole: Option<Bytes>) -> RawObject {
        let mut cuts: Vec<(Offset, u64)> = Vec::new();
        for entry in &meta.index {
            if cuts.last().is_none_or(|(_, position)| entry.position - position >= unit_bytes) {
                cuts.push((entry.offset, entry.position));
            }
        }
        let ends = cuts.iter().skip(1).copied().chain([(meta.footer.end, meta.footer.log_bytes)]);
        let unit = |(from, to): ((Offset, u64), (Offset, u64))| RawUnit {
            offsets: from.0..to.0,
            range: at + from.1..at + to.1,
        };
        let units = cuts.iter().copied().zip(ends).map(unit).collect();
        RawObject { meta: Arc::new(meta), units, at, whole }
    }

    fn stretch(range: Range<u64>) -> Stretch {
        Stretch { bytes: range.end - range.start, ranges: vec![range], plan: None }
    }

    fn stretch_from(&self, from: Offset, bytes: u64) -> Option<Stretch> {
        let RawMeta { index, footer, .. } = &*self.meta;
        let first = index.partition_point(|entry| entry.offset <= from).saturating_sub(1);
        let start = index.get(first).filter(|_| from < footer.end)?.position;
        // To a known batch behind what was asked for, so that the stretch ends with a whole one. The batch that holds
        // `from`, or is the first after it, begins at the next known position at the latest, so that is not enough.
        let ends = index.iter().skip(first + 2).map(|entry| entry.position);
        let end = ends.into_iter().find(|end| *end >= start.saturating_add(bytes)).unwrap_or(footer.log_bytes);
        Some(RawObject::stretch(self.at + start..self.at + end))
    }
}

#[cfg(test)]
mod tests {
    use varve_log::format::{BatchBuilder, RecordContent};

    use super::*;
    use crate::raw::{Attachments, RawBuilder};

    fn offset(raw: u64) -> Offset {
        Offset::new(raw).unwrap()
    }

    /// A raw object of `count` batches of about 20 KiB with 10 offsets each, of which compaction left the first record.
    fn raw(count: u64, unit_bytes: u64) -> (Opened, Bytes) {
        let mut builder = RawBuilder::new(offset(0), offset(count * 10));
        let mut bytes = Vec::new();
        for index in 0..count {
            let mut batch = BatchBuilder::new(offset(index * 10)).last_offset_delta(7);
            batch.push(RecordContent {
                timestamp: Timestamp::from_wire(index as i64),
                value: Some(&[7; 20 << 10]),
                ..RecordContent::default()
            });
            bytes.extend(batch.build().unwrap());
        }
        builder.push(&bytes).unwrap();
        let (tail, summary) = builder.finish(Attachments::default()).unwrap();
        bytes.extend(tail);
        let meta = RawMeta::parse(&Bytes::from(bytes.clone()), summary.bytes).unwrap();
        (Opened::Raw(RawObject::new(meta, 0, unit_bytes, None)), bytes.into())
    }

    fn decode(opened: &Opened, bytes: &Bytes, stretch: &Stretch) -> Bytes {
        let key = Key::parse("raw/x").unwrap();
        opened.decode(stretch, Fetched::whole(bytes.clone()), Recompression::None, &key).unwrap()
    }

    #[test]
    fn the_units_of_a_raw_object_are_its_batches_one_after_another() {
        let key = Key::parse("raw/x").unwrap();
        let (opened, bytes) = raw(50, 200 << 10);
        let (mut at, mut units, mut all) = (Offset::ZERO, 0, Vec::new());
        while let Some((index, offsets)) = opened.unit_at(at) {
            assert_eq!((index, offsets.start), (units, at));
            all.extend_from_slice(&decode(&opened, &bytes, &opened.unit(index, &key).unwrap()));
            (at, units) = (offsets.end, units + 1);
        }
        assert_eq!((at, units > 2), (offset(500), true));
        assert_eq!(all, bytes[..all.len()]);
        assert!(opened.unit(units, &key).is_err());
    }

    #[test]
    fn a_stretch_from_any_offset_holds_the_first_batch_that_ends_behind_it() {
        let key = Key::parse("raw/x").unwrap();
        let (opened, bytes) = raw(20, 200 << 10);
        for from in 0..200 {
            let stretch = opened.stretch_from(offset(from), 1, &key).unwrap().unwrap();
            let run = decode(&opened, &bytes, &stretch);
            let picked = select::pick(&run, 0, offset(from), Offset::MAX, 1, true).unwrap();
            // A batch answers for 8 offsets; the last two of every ten are a gap.
            let expected = if from % 10 < 8 { from / 10 } else { from / 10 + 1 };
            match picked.bytes.is_empty() {
                true => assert_eq!(expected, 20, "from {from}"),
                false => assert_eq!(picked.end, offset(expected * 10 + 8), "from {from}"),
            }
        }
        assert!(opened.stretch_from(offset(200), 1, &key).unwrap().is_none());
    }
}
