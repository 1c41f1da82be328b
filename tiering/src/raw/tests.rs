//! Raw objects there and back, and damaged ones.

use proptest::{prelude::*, sample::Index};
use varve_log::format::{BatchBuilder, RecordBatchView, RecordContent};
use varve_metadata::model::ProducerId;

use super::*;
use crate::manifest::tests::{at, millis};

/// Batches of `per_batch` records each for offsets `base..end`; a record's timestamp is its offset.
pub(crate) fn log_of(base: u64, end: u64, per_batch: usize) -> Vec<u8> {
    log_with_values(base, end, per_batch, 10)
}

pub(crate) fn log_with_values(base: u64, end: u64, per_batch: usize, value_bytes: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    for first in (base..end).step_by(per_batch) {
        let mut batch = BatchBuilder::new(at(first)).leader_epoch(LeaderEpoch((first / 100) as u32));
        for offset in first..end.min(first + per_batch as u64) {
            let value = vec![offset as u8; value_bytes];
            batch.push(RecordContent {
                timestamp: Some(millis(offset as i64)),
                key: None,
                value: Some(&value),
                headers: &[],
            });
        }
        bytes.extend(batch.build().unwrap());
    }
    bytes
}

fn part(base: u64, end: u64, batches: &[u8], attachments: Attachments) -> (Bytes, RawSummary) {
    let mut builder = RawBuilder::new(at(base), at(end));
    builder.push(batches).unwrap();
    let (tail, summary) = builder.finish(attachments).unwrap();
    (Bytes::from([batches, &tail].concat()), summary)
}

fn aborted() -> AbortedTxn {
    AbortedTxn { producer: ProducerId::from_wire(7).unwrap(), first: at(3), last: at(9), last_stable: at(10) }
}

#[test]
fn what_goes_in_comes_out() {
    let batches = log_of(50, 450, 7);
    let snapshot = Bytes::from_static(b"snapshot");
    let attachments = Attachments { aborted: vec![aborted()], producer_snapshot: snapshot.clone() };
    let (part, summary) = part(50, 460, &batches, attachments);
    assert_eq!((summary.bytes, summary.log_bytes), (part.len() as u64, batches.len() as u64));
    assert_eq!((summary.records, summary.max_timestamp), (400, Some(millis(449))));
    assert_eq!(summary.crc32c, crc32c::crc32c(&part));
    assert_eq!(summary.leader_epochs.iter().map(|(epoch, _)| epoch.0).collect::<Vec<_>>(), [0, 1, 2, 3, 4]);
    let meta = RawMeta::parse(&part, part.len() as u64).unwrap();
    assert_eq!((meta.footer.base, meta.footer.end, meta.footer.records), (at(50), at(460), 400));
    assert_eq!((meta.aborted, meta.producer_snapshot), (vec![aborted()], snapshot));
    assert_eq!(meta.leader_epochs, summary.leader_epochs);
    assert_eq!(meta.footer.log_crc32c, crc32c::crc32c(&batches));
}

#[test]
fn a_short_tail_says_how_much_it_takes() {
    let (part, _) = part(0, 400, &log_of(0, 400, 7), Attachments::default());
    let needed = match RawMeta::parse(&part.slice(part.len() - FOOTER_BYTES..), part.len() as u64) {
        Err(RawError::TailNeeded(needed)) => needed as usize,
        other => panic!("{other:?}"),
    };
    assert!(RawMeta::parse(&part.slice(part.len() - needed..), part.len() as u64).is_ok());
    assert_eq!(RawFooter::parse(b"x", 1), Err(RawError::TailNeeded(FOOTER_BYTES as u64)));
}

#[test]
fn an_offset_is_found_within_one_index_interval() {
    let batches = log_with_values(1000, 3000, 2, 500);
    let (part, _) = part(1000, 3000, &batches, Attachments::default());
    let meta = RawMeta::parse(&part, part.len() as u64).unwrap();
    assert!(meta.index.len() > 10);
    for offset in [1000, 1001, 1777, 2999] {
        let range = meta.batches_from(at(offset));
        let mut rest = &part[range.start as usize..range.end as usize];
        let mut skipped = 0;
        let found = loop {
            let (batch, behind) = RecordBatchView::parse(rest).unwrap();
            if batch.header().last_offset() >= at(offset) {
                break batch.header().base_offset;
            }
            skipped += rest.len() - behind.len();
            rest = behind;
        };
        assert!(found <= at(offset) && skipped as u64 <= INDEX_INTERVAL + 2000, "{offset}: {found}, {skipped}");
        let range = meta.batches_at(millis(offset as i64)).unwrap();
        assert!(range.start <= meta.batches_from(at(offset)).start + 2 * INDEX_INTERVAL);
    }
    assert!(meta.batches_from(at(3000)).is_empty());
    assert_eq!(meta.batches_at(millis(3000)), None);
}

#[test]
fn damage_and_disorder_are_refused_on_the_way_in() {
    let batches = log_of(0, 30, 10);
    let push = |bytes: &[u8], base, end| {
        let mut builder = RawBuilder::new(at(base), at(end));
        builder.push(bytes).and_then(|()| builder.finish(Attachments::default())).map(drop)
    };
    assert_eq!(push(&batches, 0, 30), Ok(()));
    assert_eq!(push(&batches, 9, 30), Ok(()), "the first batch holds offset 9");
    assert!(matches!(push(&batches, 10, 30), Err(RawError::Offset(_))));
    assert!(matches!(push(&batches, 0, 29), Err(RawError::Offset(_))));
    let twice = [&batches[..], &batches].concat();
    assert!(matches!(push(&twice, 0, 30), Err(RawError::Offset(_))));
    let cut = push(&batches[..batches.len() - 1], 0, 30);
    assert!(matches!(cut, Err(RawError::Batch { source: BatchError::Truncated, .. })), "{cut:?}");
    let mut flipped = batches.clone();
    *flipped.last_mut().unwrap() ^= 1;
    assert!(matches!(push(&flipped, 0, 30), Err(RawError::Batch { .. })));
}

proptest! {
    #[test]
    fn pieces_of_any_size_make_the_same_object(cuts in prop::collection::vec(any::<Index>(), 0..20)) {
        let batches = log_of(0, 60, 7);
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(batches.len())).collect();
        cuts.sort_unstable();
        let mut builder = RawBuilder::new(at(0), at(60));
        let mut from = 0;
        for cut in cuts.into_iter().chain([batches.len()]) {
            builder.push(&batches[from..cut]).unwrap();
            from = cut;
        }
        let (tail, summary) = builder.finish(Attachments::default()).unwrap();
        let (whole, expected) = part(0, 60, &batches, Attachments::default());
        prop_assert_eq!((&tail[..], summary), (&whole[batches.len()..], expected));
    }

    #[test]
    fn no_tail_panics_the_parser(
        flips in prop::collection::vec((any::<Index>(), any::<u8>()), 0..4), cut in any::<Index>(), size in any::<u64>()
    ) {
        let (part, _) = part(0, 60, &log_of(0, 60, 7), Attachments { aborted: vec![aborted()], ..Attachments::default() });
        let mut bytes = part[cut.index(part.len())..].to_vec();
        for (place, bits) in flips {
            let place = place.index(bytes.len());
            bytes[place] ^= bits;
        }
        // With a right checksum the parser itself has to hold.
        if bytes.len() >= FOOTER_BYTES {
            let footer = bytes.len() - FOOTER_BYTES;
            let crc_at = bytes.len() - 12;
            let crc = crc32c::crc32c(&bytes[footer..crc_at]).to_be_bytes();
            bytes[crc_at..crc_at + 4].copy_from_slice(&crc);
        }
        let bytes = Bytes::from(bytes);
        let _ = RawMeta::parse(&bytes, part.len() as u64);
        let _ = RawMeta::parse(&bytes, size);
    }
}
