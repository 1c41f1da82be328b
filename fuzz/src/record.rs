//! Records of coordinators: what holds for each kind of them.

use std::fmt::Debug;

use varve_broker::coordinator::LogRecord;

use crate::{input::flags, memory::asked_by};

/// A protocol of a classic member in a consumer group is 56 bytes for three, and the list that holds it grows.
const PER_BYTE: usize = 128;
const BASE: usize = 16 << 10;

/// Decodes a record out of flags (1: there is a value) │ length of the key, u8 │ key │ value: no more memory than the bytes
/// account for, and what was read is written alike.
pub fn try_record<R: LogRecord + Debug + PartialEq>(bytes: &[u8]) {
    let (flag, rest) = flags(bytes);
    let (key_bytes, rest) = flags(rest);
    let (key, value) = rest.split_at(usize::from(key_bytes).min(rest.len()));
    let value = (flag & 1 > 0).then_some(value);
    let (decoded, asked) = asked_by(|| R::decode(key, value));
    assert!(asked <= BASE + PER_BYTE * bytes.len(), "{} bytes asked for {asked}", bytes.len());
    if let Ok(record) = decoded
        && let Ok(again) = record.encode()
    {
        let decoded = R::decode(&again.key, again.value.as_deref()).expect("what we write we read");
        assert_eq!(decoded.encode().as_ref(), Ok(&again), "what was read is written alike");
    }
}
