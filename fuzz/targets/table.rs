//! Parquet objects as a bucket may hand them to us: footer, plan, batches. Checksums of our blobs count as right here.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use varve_fuzz::memory::bear_caught_panics;
use varve_log::format::batches;
use varve_metadata::model::Offset;
use varve_table::{Fetched, FooterError, Recompression, TableFooter};

/// Plans read from one object, at most.
const PLANS: usize = 40;

fuzz_target!(init: bear_caught_panics(), |bytes: &[u8]| {
    let object = Bytes::copy_from_slice(bytes);
    let object_bytes = object.len() as u64;
    // A short tail first: where the rest begins is the object's word.
    let tail = object.slice(object.len().saturating_sub(64)..);
    if let Err(FooterError::NeedMore { from }) = TableFooter::parse(object_bytes, tail) {
        assert!(from < object_bytes, "more is needed from behind the object's end");
    }
    let Ok(footer) = TableFooter::parse(object_bytes, object.clone()) else { return };
    let fetched = Fetched::whole(object);
    let mut from = Offset::ZERO;
    for turn in 0..PLANS {
        let Ok(Some(plan)) = footer.plan(from, 1000) else { break };
        assert!(plan.end() > from, "a plan goes forward");
        let recompression = if turn % 2 == 0 { Recompression::None } else { Recompression::Producer };
        if let Ok(run) = footer.decode(&plan, &fetched, recompression) {
            let _ = batches(&run).count();
        }
        from = plan.end();
    }
    if let Ok(Some(plan)) = footer.plan_group(footer.base()) {
        let _ = footer.decode(&plan, &fetched, Recompression::None);
    }
});
