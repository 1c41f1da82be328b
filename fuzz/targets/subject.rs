//! The subject of a client's certificate.
//!
//! Input: flags (1: the rest is a subject, to be put into a certificate) │ a certificate.
#![no_main]

use libfuzzer_sys::fuzz_target;
use varve_broker::security::{mapping::PrincipalMapping, subject_text};
use varve_fuzz::{certificate, input::flags, memory::asked_by};

/// Each byte of a value that has no keyword is printed as two letters, in strings that double; an empty name is a vector.
const PER_BYTE: usize = 256;
const BASE: usize = 16 << 10;

fuzz_target!(|bytes: &[u8]| {
    let (flag, rest) = flags(bytes);
    let der = if flag & 1 > 0 { certificate::around(rest) } else { rest.to_vec() };
    let (text, asked) = asked_by(|| subject_text(&der));
    assert!(asked <= BASE + PER_BYTE * der.len(), "{} bytes asked for {asked}", der.len());
    if let Ok(text) = text {
        assert_eq!(PrincipalMapping::default().name(&text), Some(text), "by default a user is called like the subject");
    }
});
