//! The tail of a raw object as a bucket may hand it to us, and batches on their way into one.
//!
//! Input: flags (1: checksums are made to hold) │ bytes of the part before the tail, u16 │ tail.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use varve_fuzz::{input::flags, memory::asked_by, seal};
use varve_metadata::model::{Offset, Timestamp};
use varve_tiering::raw::{Attachments, RawBuilder, RawFooter, RawMeta};

const PER_BYTE: usize = 16;
const BASE: usize = 16 << 10;

fuzz_target!(|bytes: &[u8]| {
    let (flag, rest) = flags(bytes);
    let (high, rest) = flags(rest);
    let (low, rest) = flags(rest);
    let mut tail = rest.to_vec();
    if flag & 1 > 0 {
        seal::raw_object(&mut tail);
    }
    let part_bytes = u64::from(u16::from_be_bytes([high, low])) + tail.len() as u64;
    let tail = Bytes::from(tail);
    let _ = RawFooter::parse(&tail, part_bytes);
    let (meta, asked) = asked_by(|| RawMeta::parse(&tail, part_bytes));
    assert!(asked <= BASE + PER_BYTE * bytes.len(), "a tail of {} bytes asked for {asked}", bytes.len());
    if let Ok(meta) = meta {
        for offset in [Offset::ZERO, meta.footer.base, meta.footer.end, Offset::MAX] {
            let range = meta.batches_from(offset);
            assert!(range.start <= range.end && range.end <= part_bytes);
        }
        let newest = meta.footer.max_timestamp.unwrap_or_default();
        for timestamp in [Timestamp::default(), newest] {
            assert!(meta.batches_at(timestamp).is_none_or(|range| range.start <= range.end));
        }
    }
    build(&tail, flag & 1 > 0);
});

/// Takes `batches`, in pieces, into an object, which must be one that reads back.
fn build(batches: &[u8], sealed: bool) {
    let mut batches = batches.to_vec();
    if sealed {
        seal::batches(&mut batches);
    }
    let mut builder = RawBuilder::new(Offset::ZERO, Offset::MAX);
    if batches.chunks(100).try_for_each(|piece| builder.push(piece)).is_ok()
        && let Ok((tail, summary)) = builder.finish(Attachments::default())
    {
        let meta = RawMeta::parse(&tail.into(), summary.bytes).expect("what we write we read");
        assert_eq!((meta.footer.records, meta.footer.log_bytes), (summary.records, summary.log_bytes));
    }
}
