//! The small files beside a segment: leader epochs, aborted transactions, producer snapshots.
#![no_main]

use libfuzzer_sys::fuzz_target;
use varve_fuzz::seal;
use varve_log::local::{AbortedTxn, EpochCache, decode_snapshot};

fuzz_target!(|bytes: &[u8]| {
    let _ = decode_snapshot(bytes);
    let mut sealed = bytes.to_vec();
    seal::snapshot(&mut sealed);
    let _ = decode_snapshot(&sealed);
    let _ = AbortedTxn::parse_all(bytes);
    if let Ok(text) = std::str::from_utf8(bytes)
        && let Ok(epochs) = EpochCache::parse(text)
    {
        assert_eq!(EpochCache::parse(&epochs.render()).expect("what we write we read"), epochs);
    }
});
