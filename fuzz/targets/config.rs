//! Configuration as a file, the environment and a command line may hand it to us.
//!
//! Input: text. A line that begins with `@` is an override, one with `$` a variable of the environment; the rest is the file.
#![no_main]

use libfuzzer_sys::fuzz_target;
use varve_broker::config::{BrokerConfig, Sources, parse_properties};
use varve_fuzz as _; // its allocator

fuzz_target!(|bytes: &[u8]| {
    let text = String::from_utf8_lossy(bytes);
    let _ = parse_properties("fuzzed", &text);
    let mut sources = Sources::default();
    let mut file = String::new();
    for line in text.split_inclusive('\n') {
        if let Some(given) = line.strip_prefix('@') {
            sources.overrides.push(given.trim_end_matches('\n').to_owned());
        } else if let Some(given) = line.strip_prefix('$') {
            let (name, value) = given.split_once('=').unwrap_or((given, ""));
            sources.environment.push((name.to_owned(), value.trim_end_matches('\n').to_owned()));
        } else {
            file.push_str(line);
        }
    }
    sources.file = Some(("fuzzed".into(), file));
    if let Err(errors) = BrokerConfig::load(&sources) {
        assert!(!errors.to_string().is_empty());
    }
});
