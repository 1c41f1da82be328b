//! When the records of a batch were made, without unpacking the batch as a whole.

use varve_metadata::{
    config::TimestampType,
    model::{Offset, Timestamp},
};

use super::{
    BatchHeader, RecordBatchView, RecordError,
    compression::{CodecError, Unpacking},
    record::Front,
};

/// Why the times of a batch cannot be told.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TimesError {
    /// The records do not decompress.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// They are not records.
    #[error(transparent)]
    Record(#[from] RecordError),
}

/// Offset and time of one record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordTime {
    /// Its offset.
    pub offset: Offset,
    /// When it was made, or appended where the batch says so.
    pub timestamp: Timestamp,
}

/// The records of `batch` that have a time, in order. Unpacks no further than it is asked for and holds little of that at a
/// time; keys and values are stepped over unseen. Ends after the first error.
///
/// # Errors
/// [`TimesError`] if the batch does not begin as its codec's payloads do.
pub fn record_times<'a>(batch: &RecordBatchView<'a>) -> Result<RecordTimes<'a>, TimesError> {
    let header = *batch.header();
    // A batch of which compaction left nothing may still name a codec.
    let payload = match header.record_count {
        0 => None,
        _ => Some(Unpacking::new(header.attributes.compression(), batch.payload())?),
    };
    Ok(RecordTimes { remaining: header.record_count, header, payload })
}

/// Iterator of [`record_times`].
pub struct RecordTimes<'a> {
    header: BatchHeader,
    remaining: u32,
    payload: Option<Unpacking<'a>>,
}

impl RecordTimes<'_> {
    fn step(&mut self) -> Result<Option<RecordTime>, TimesError> {
        let (Some(payload), header) = (&mut self.payload, &self.header) else { return Ok(None) };
        let front = Front::parse(payload.peek(Front::MOST_BYTES)?)?;
        if !payload.skip(front.record_bytes)? {
            return Err(RecordError::Truncated.into());
        }
        let timestamp_ms = match header.attributes.timestamp_type() {
            TimestampType::CreateTime => header.base_timestamp_ms.saturating_add(front.timestamp_delta),
            TimestampType::LogAppendTime => header.max_timestamp_ms,
        };
        let offset = header.base_offset.plus(u64::try_from(front.offset_delta).unwrap_or(0));
        Ok(Timestamp::from_wire(timestamp_ms).map(|timestamp| RecordTime { offset, timestamp }))
    }
}

impl Iterator for RecordTimes<'_> {
    type Item = Result<RecordTime, TimesError>;

    fn next(&mut self) -> Option<Self::Item> {
        while let Some(remaining) = self.remaining.checked_sub(1) {
            let taken = self.step();
            self.remaining = if taken.is_ok() { remaining } else { 0 };
            if let Some(item) = taken.transpose() {
                return Some(item);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use varve_metadata::config::Codec;

    use super::*;
    use crate::format::{BatchBuilder, RecordContent, records};

    /// A batch of `count` records from offset 7 with times 0, 10, 20 ..., of `bytes` that compress well.
    fn batch(codec: Codec, count: i64, bytes: usize) -> Vec<u8> {
        let mut builder = BatchBuilder::new(Offset::new(7).unwrap());
        for place in 0..count {
            let value: Vec<u8> = (0..bytes).map(|at| (at / 100) as u8).collect();
            let timestamp = Timestamp::from_wire(place * 10);
            builder.push(RecordContent { timestamp, value: Some(&value), ..RecordContent::default() });
        }
        let plain = builder.build().unwrap();
        let (view, _) = RecordBatchView::parse(&plain).unwrap();
        let header = BatchHeader { attributes: view.header().attributes.with_compression(codec), ..*view.header() };
        header.encode_batch(&super::super::compression::compress(codec, None, view.payload()).unwrap())
    }

    fn times(batch: &[u8]) -> Result<Vec<(u64, i64)>, TimesError> {
        let (view, _) = RecordBatchView::parse_trusted(batch).unwrap();
        record_times(&view)?.map(|time| time.map(|time| (time.offset.get(), time.timestamp.to_wire()))).collect()
    }

    #[test]
    fn every_record_has_its_offset_and_time_whatever_the_codec_and_size() {
        for codec in Codec::ALL {
            // Less than a piece, some pieces, records larger than blocks.
            for (count, bytes) in [(3, 5), (5000, 40), (40, 200_000)] {
                let expected: Vec<(u64, i64)> = (0..count).map(|place| (7 + place as u64, place * 10)).collect();
                assert_eq!(times(&batch(codec, count, bytes)).unwrap(), expected, "{codec}, {count} of {bytes}");
            }
        }
    }

    #[test]
    fn a_payload_that_ends_early_or_is_none_is_an_error_and_the_end() {
        for codec in Codec::ALL {
            let whole = batch(codec, 50, 3000);
            let (view, _) = RecordBatchView::parse(&whole).unwrap();
            for kept in [0, 1, 20, view.payload().len() / 2, view.payload().len() - 30] {
                let cut = view.header().encode_batch(&view.payload()[..kept]);
                let (cut, _) = RecordBatchView::parse(&cut).unwrap();
                let Ok(mut seen) = record_times(&cut) else { continue };
                assert!(seen.by_ref().take(51).any(|time| time.is_err()), "{codec} cut at {kept}");
                assert_eq!(seen.next(), None);
            }
        }
    }

    #[test]
    fn what_is_not_asked_for_is_not_unpacked() {
        let whole = batch(Codec::Lz4, 50, 200_000);
        let (view, _) = RecordBatchView::parse(&whole).unwrap();
        let damaged = view.header().encode_batch(&view.payload()[..view.payload().len() / 2]);
        let (damaged, _) = RecordBatchView::parse(&damaged).unwrap();
        assert_eq!(record_times(&damaged).unwrap().take(3).filter(Result::is_ok).count(), 3);
    }

    #[test]
    fn a_batch_without_records_has_no_times() {
        let whole = batch(Codec::Zstd, 1, 10);
        let (view, _) = RecordBatchView::parse(&whole).unwrap();
        let emptied = BatchHeader { record_count: 0, ..*view.header() }.encode_batch(&[]);
        assert_eq!(times(&emptied).unwrap(), []);
    }

    #[test]
    fn the_front_of_a_record_says_what_the_whole_says() {
        let whole = batch(Codec::None, 5000, 3);
        let (view, _) = RecordBatchView::parse(&whole).unwrap();
        for record in records(view.payload(), 5000) {
            let record = record.unwrap();
            let front = Front::parse(record.as_bytes()).unwrap();
            assert_eq!(front.record_bytes, record.as_bytes().len());
            assert_eq!((front.offset_delta, front.timestamp_delta), (record.offset_delta, record.timestamp_delta));
        }
    }
}
