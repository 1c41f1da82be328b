//! Java's login configuration.
//!
//! Input: text.
#![no_main]

use libfuzzer_sys::fuzz_target;
use varve_broker::security::sasl::{JaasEntry, parse_jaas};
use varve_fuzz::memory::asked_by;

/// A map's node for an option of four bytes.
const PER_BYTE: usize = 512;
const BASE: usize = 16 << 10;

fuzz_target!(|bytes: &[u8]| {
    let text = String::from_utf8_lossy(bytes);
    let (parsed, asked) = asked_by(|| parse_jaas(&text));
    assert!(asked <= BASE + PER_BYTE * bytes.len(), "{} bytes asked for {asked}", bytes.len());
    let Ok(entries) = parsed else { return };
    assert!(!entries.is_empty());
    for entry in &entries {
        assert!(entry.module.ends_with(entry.class()) && entry.users().len() <= entry.options.len());
    }
    let written: String = entries.iter().map(written).collect();
    assert_eq!(parse_jaas(&written).as_ref(), Ok(&entries), "what is quoted is read again: {written}");
});

/// An entry with everything in quotation marks and octal numbers that does not stand for itself.
fn written(entry: &JaasEntry) -> String {
    let quoted = |text: &str| -> String {
        let escaped = text.chars().map(|letter| match letter {
            '"' | '\\' | '\n' | '\r' => format!("\\{:03o}", u32::from(letter)),
            other => other.to_string(),
        });
        format!("\"{}\"", escaped.collect::<String>())
    };
    let options = entry.options.iter().map(|(name, value)| format!(" {}={}", quoted(name), quoted(value.reveal())));
    format!("{} required{};\n", entry.module, options.collect::<String>())
}
