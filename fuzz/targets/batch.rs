//! Record batches as a producer, a disk or a bucket may hand them to us.
#![no_main]

use libfuzzer_sys::fuzz_target;
use varve_fuzz as _; // its allocator
use varve_log::format::{RecordBatchView, compression::decompress, records};

/// Most bytes that records may decompress to here.
const LIMIT: usize = 1 << 20;

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
                for record in records(&plain, header.record_count) {
                    let Ok(record) = record else { break };
                    let _ = record.headers().count();
                }
            }
        }
    }
});
