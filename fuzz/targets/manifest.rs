//! Manifests and their leaves as a bucket may hand them to us.
#![no_main]

use libfuzzer_sys::fuzz_target;
use varve_tiering::manifest::{Leaf, Manifest};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(manifest) = Manifest::parse(bytes) {
        let again = Manifest::parse(&manifest.encode()).expect("what we write we read");
        assert_eq!(manifest, again);
    }
    if let Ok(leaf) = Leaf::parse(bytes) {
        assert_eq!(leaf, Leaf::parse(&leaf.encode()).expect("what we write we read"));
    }
});
