//! Requests as a socket may hand them to us: header, version, shape and decoder.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use varve_broker::check_frame;
use varve_fuzz::memory::asked_by;

/// Bytes of memory that a frame's byte may cost: an array's element takes a byte or more there, and up to about 150 here.
const PER_BYTE: usize = 256;
/// What any frame may cost, an error with its text included.
const BASE: usize = 16 << 10;

fuzz_target!(|bytes: &[u8]| {
    let frame = Bytes::copy_from_slice(bytes);
    let (_, asked) = asked_by(|| check_frame(frame));
    assert!(asked <= BASE + PER_BYTE * bytes.len(), "a frame of {} bytes asked for {asked}", bytes.len());
});
