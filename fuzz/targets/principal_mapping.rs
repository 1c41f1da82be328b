//! `ssl.principal.mapping.rules`, and the subjects of certificates that they are asked about.
//!
//! Input: the rules │ line feed │ a subject.
#![no_main]

use libfuzzer_sys::fuzz_target;
use varve_broker::security::mapping::PrincipalMapping;
use varve_fuzz as _; // its allocator

/// A pattern may take megabytes. Rules are the operator's own, and few.
const RULES: usize = 4;

fuzz_target!(|bytes: &[u8]| {
    let text = String::from_utf8_lossy(bytes);
    let (rules, subject) = text.split_once('\n').unwrap_or((&text, "CN=alice,O=Example"));
    if rules.matches("RULE:").count() > RULES {
        return;
    }
    match PrincipalMapping::parse(rules) {
        Ok(mapping) => drop(mapping.name(subject)),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
});
