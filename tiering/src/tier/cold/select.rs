//! Picking whole batches out of a run of them. Pure.

use std::ops::Range;

use bytes::Bytes;
use varve_log::{
    format::{BatchError, BatchHeader, RecordBatchView, RecordTime, TimesError, record_times},
    local::OffsetAndTimestamp,
};
use varve_metadata::model::{Offset, Timestamp};

/// Batches picked from a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Picked {
    /// Whole batches.
    pub(super) bytes: Bytes,
    /// The offset behind the last one; where the search began if there is none.
    pub(super) end: Offset,
    /// Where in the run the batches behind them begin.
    pub(super) position: usize,
    /// Whether the bound or the size ended the search: there may be more in the run.
    pub(super) stopped: bool,
}

/// The batches of `run` from the one that holds `from`, or the first after it, that end at or below `bound`: at most
/// `max_bytes`, but one in any case if `at_least_one`. `start`: position of a batch before which all end at or below `from`;
/// 0 if none is known.
///
/// # Errors
/// [`BatchError`] if the run is damaged.
pub(super) fn pick(
    run: &Bytes,
    start: usize,
    from: Offset,
    bound: Offset,
    max_bytes: usize,
    at_least_one: bool,
) -> Result<Picked, BatchError> {
    let (mut at, mut first_at, mut end) = (start, None, from);
    let mut stopped = false;
    while at < run.len() {
        let header = BatchHeader::parse(&run[at..])?;
        let next = at + header.bytes as usize;
        if next > run.len() {
            return Err(BatchError::Truncated);
        }
        if header.next_offset() > from {
            let first = first_at.is_none();
            let begin = *first_at.get_or_insert(at);
            if header.next_offset() > bound || (next - begin > max_bytes && !(first && at_least_one)) {
                stopped = true;
                break;
            }
            end = header.next_offset();
        }
        at = next;
    }
    let begin = first_at.unwrap_or(at);
    // A slice keeps the whole run in memory for as long as a slow client takes to read it: then a copy is cheaper.
    let whole = (at - begin) * 2 > run.len();
    let bytes = if whole { run.slice(begin..at) } else { Bytes::copy_from_slice(&run[begin..at]) };
    Ok(Picked { bytes, end, position: at, stopped })
}

/// Checks every batch of `run`, CRC included, and that they ascend.
///
/// # Errors
/// [`BatchError`] says what does not hold.
pub(super) fn verify(run: &[u8]) -> Result<(), BatchError> {
    let (mut rest, mut expected) = (run, Offset::ZERO);
    while !rest.is_empty() {
        let (batch, behind) = RecordBatchView::parse(rest)?;
        if batch.header().base_offset < expected {
            return Err(BatchError::Corrupt { field: "base offset" });
        }
        (rest, expected) = (behind, batch.header().next_offset());
    }
    Ok(())
}

/// Why a lookup inside a run failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum LookupError {
    #[error(transparent)]
    Batch(#[from] BatchError),
    #[error(transparent)]
    Times(#[from] TimesError),
}

/// The first record of `run` at or after `from` with a timestamp of `target` or later.
///
/// # Errors
/// [`LookupError`] if the run is damaged.
pub(super) fn find_timestamp(
    run: &[u8],
    target: Timestamp,
    from: Offset,
) -> Result<Option<OffsetAndTimestamp>, LookupError> {
    let mut rest = run;
    while !rest.is_empty() {
        let (batch, behind) = RecordBatchView::parse_trusted(rest)?;
        let header = batch.header();
        if header.max_timestamp() >= Some(target) && header.last_offset() >= from {
            for time in record_times(&batch)? {
                let RecordTime { offset, timestamp } = time?;
                if timestamp >= target && offset >= from {
                    return Ok(Some(OffsetAndTimestamp { offset, timestamp, leader_epoch: header.leader_epoch }));
                }
            }
        }
        rest = behind;
    }
    Ok(None)
}

/// The first of the records of `run` with an offset in `within` that has the largest timestamp of them.
///
/// # Errors
/// [`LookupError`] if the run is damaged.
pub(super) fn newest(run: &[u8], within: Range<Offset>) -> Result<Option<OffsetAndTimestamp>, LookupError> {
    let (mut rest, mut newest) = (run, None::<OffsetAndTimestamp>);
    while !rest.is_empty() {
        let (batch, behind) = RecordBatchView::parse_trusted(rest)?;
        let header = batch.header();
        if header.base_offset >= within.end {
            break;
        }
        if header.next_offset() > within.start {
            for time in record_times(&batch)? {
                let RecordTime { offset, timestamp } = time?;
                if within.contains(&offset) && newest.is_none_or(|newest| timestamp > newest.timestamp) {
                    newest = Some(OffsetAndTimestamp { offset, timestamp, leader_epoch: header.leader_epoch });
                }
            }
        }
        rest = behind;
    }
    Ok(newest)
}

#[cfg(test)]
mod tests {
    use varve_log::format::{BatchBuilder, RecordContent};

    use super::*;

    fn offset(raw: u64) -> Offset {
        Offset::new(raw).unwrap()
    }

    /// Batches of `count` records from `base`, record i with timestamp `100 * (base + i)`.
    fn run(batches: &[(u64, u64)]) -> Bytes {
        let batch = |(base, count): &(u64, u64)| {
            let mut builder = BatchBuilder::new(offset(*base));
            for index in 0..*count {
                builder.push(RecordContent {
                    timestamp: Timestamp::from_wire((100 * (base + index)) as i64),
                    value: Some(b"v"),
                    ..RecordContent::default()
                });
            }
            builder.build().unwrap()
        };
        batches.iter().flat_map(batch).collect::<Vec<u8>>().into()
    }

    #[test]
    fn whole_batches_from_the_one_that_holds_the_offset() {
        let all = run(&[(0, 5), (5, 5), (20, 5)]);
        let size = run(&[(0, 5)]).len();
        let pick = |from, bound, max| pick(&all, 0, offset(from), offset(bound), max, true).unwrap();
        let summary = |picked: Picked| (picked.bytes.len() / size, picked.end.get(), picked.stopped);
        assert_eq!(summary(pick(0, 100, usize::MAX)), (3, 25, false));
        assert_eq!(summary(pick(7, 100, usize::MAX)), (2, 25, false));
        assert_eq!(summary(pick(12, 100, usize::MAX)), (1, 25, false), "a gap is stepped over");
        assert_eq!(summary(pick(0, 24, usize::MAX)), (2, 10, true), "a batch beyond the bound is not begun");
        assert_eq!(summary(pick(0, 100, 2 * size)), (2, 10, true));
        assert_eq!(summary(pick(0, 100, 1)), (1, 5, true), "one in any case");
        assert_eq!(summary(pick(25, 100, usize::MAX)), (0, 25, false));
        let first = pick(0, 100, 1);
        let next = super::pick(&all, first.position, first.end, offset(100), 1, true).unwrap();
        assert_eq!((next.bytes, next.end), (all.slice(size..2 * size), offset(10)));
    }

    #[test]
    fn damage_is_an_error() {
        let all = run(&[(0, 5)]);
        assert_eq!(pick(&all.slice(..all.len() - 1), 0, offset(0), offset(9), 9, true), Err(BatchError::Truncated));
        let mut flipped = all.to_vec();
        flipped[70] ^= 1;
        assert!(verify(&flipped).is_err() && verify(&all).is_ok());
        assert!(verify(&run(&[(5, 5), (0, 5)])).is_err());
    }

    #[test]
    fn the_first_record_that_is_late_enough() {
        let all = run(&[(0, 5), (5, 5)]);
        let find = |target, from| {
            let found = find_timestamp(&all, Timestamp::from_wire(target).unwrap(), offset(from)).unwrap();
            found.map(|found| (found.offset.get(), found.timestamp.to_wire()))
        };
        assert_eq!(find(0, 0), Some((0, 0)));
        assert_eq!(find(250, 0), Some((3, 300)));
        assert_eq!(find(250, 6), Some((6, 600)));
        assert_eq!(find(901, 0), None);
    }
}
