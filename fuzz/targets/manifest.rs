//! Manifests and their leaves as a bucket may hand them to us.
//!
//! Input: flags (1: the checksum is made to hold) │ bytes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use varve_fuzz::{input::flags, memory::asked_by, seal};
use varve_tiering::manifest::{Leaf, Manifest};

const PER_BYTE: usize = 256;
const BASE: usize = 16 << 10;

fuzz_target!(|bytes: &[u8]| {
    let (flag, rest) = flags(bytes);
    let mut bytes = rest.to_vec();
    if flag & 1 > 0 {
        seal::manifest(&mut bytes);
    }
    let (manifest, asked) = asked_by(|| Manifest::parse(&bytes));
    assert!(asked <= BASE + PER_BYTE * bytes.len(), "{} bytes asked for {asked}", bytes.len());
    if let Ok(manifest) = manifest {
        let again = Manifest::parse(&manifest.encode()).expect("what we write we read");
        assert_eq!(manifest, again);
    }
    if let Ok(leaf) = Leaf::parse(&bytes) {
        assert_eq!(leaf, Leaf::parse(&leaf.encode()).expect("what we write we read"));
    }
});
