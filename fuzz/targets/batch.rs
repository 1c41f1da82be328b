//! Record batches as a producer, a disk or a bucket may hand them to us.
#![no_main]

use libfuzzer_sys::fuzz_target;
use varve_fuzz as _; // its allocator
use varve_log::format::{RecordBatchView, TimesError, compression::decompress, record_times, records};

/// Most bytes that records may decompress to here.
const LIMIT: usize = 1 << 20;
/// Most records of a batch whose times are looked at here: an empty one takes seven bytes, which compress well.
const TIMES: usize = 10_000;

fuzz_target!(|bytes: &[u8]| {
    // Both doors: with the CRC, which random bytes seldom pass, and without, as for bytes that were checked before.
    for parse in [RecordBatchView::parse, RecordBatchView::parse_trusted] {
        let mut rest = bytes;
        while let Ok((batch, after)) = parse(rest) {
            assert!(after.len() < rest.len(), "a batch takes up room");
            rest = after;
            let header = batch.header();
            if let Ok(plain) = decompress(header.attributes.compression(), batch.payload(), LIMIT) {
                assert!(plain.len() <= LIMIT);
                let mut sound = 0;
                for record in records(&plain, header.record_count) {
                    let Ok(record) = record else { break };
                    let _ = record.headers().count();
                    sound += 1;
                }
                // Looking at times alone goes as far at least, unless records have none.
                let timed: Result<Vec<_>, TimesError> = record_times(&batch).and_then(Iterator::collect);
                let all_sound = sound == header.record_count;
                assert!(!all_sound || timed.is_ok(), "{timed:?}");
            } else if let Ok(times) = record_times(&batch) {
                let _ = times.take(TIMES).count();
            }
        }
    }
});
