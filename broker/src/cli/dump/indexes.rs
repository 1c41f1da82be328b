//! The small files beside a segment, in Kafka's formats.

use std::io::Write;

use anyhow::{Context, bail};
use serde_json::json;
use varve_log::local::{AbortedTxn, EpochCache, decode_snapshot};

use crate::cli::content::Content;
use crate::cli::out::Out;

/// Larger than any of these files can be: an index holds at most 2³¹ bytes.
const MAX_BYTES: u64 = 1 << 31;

/// Base offset of the segment that a file belongs to, from its name.
fn base_offset(name: &str) -> anyhow::Result<u64> {
    let file = name.rsplit('/').next().unwrap_or(name);
    let digits = file.split('.').next().unwrap_or_default();
    digits
        .parse()
        .with_context(|| format!("{file} does not begin with a base offset, which its entries are relative to"))
}

/// `.index`: 8 bytes each: offset minus base offset i32 │ position i32. An index that is open is padded with zeros.
pub(super) async fn offsets<W: Write>(content: &Content, name: &str, out: &mut Out<W>) -> anyhow::Result<()> {
    let base = base_offset(name)?;
    let bytes = content.whole(MAX_BYTES).await?;
    let (entries, rest) = bytes.as_chunks::<8>();
    let mut before = None;
    for (number, entry) in entries.iter().enumerate() {
        let [a, b, c, d, e, f, g, h] = *entry;
        let (relative, position) = (u32::from_be_bytes([a, b, c, d]), u32::from_be_bytes([e, f, g, h]));
        if number > 0 && (relative, position) == (0, 0) {
            return Ok(());
        }
        if before.is_some_and(|(offset, at)| relative <= offset || position <= at) {
            bail!("entry {number} does not come after the one before it");
        }
        before = Some((relative, position));
        out.line(0, &[("offset", json!(base + u64::from(relative))), ("position", json!(position))])?;
    }
    whole(rest)
}

/// `.timeindex`: 12 bytes each: timestamp i64 │ offset minus base offset i32.
pub(super) async fn timestamps<W: Write>(content: &Content, name: &str, out: &mut Out<W>) -> anyhow::Result<()> {
    let base = base_offset(name)?;
    let bytes = content.whole(MAX_BYTES).await?;
    let (entries, rest) = bytes.as_chunks::<12>();
    let mut before = None;
    for (number, entry) in entries.iter().enumerate() {
        let [t0, t1, t2, t3, t4, t5, t6, t7, a, b, c, d] = *entry;
        let timestamp = i64::from_be_bytes([t0, t1, t2, t3, t4, t5, t6, t7]);
        let relative = u32::from_be_bytes([a, b, c, d]);
        if number > 0 && (timestamp, relative) == (0, 0) {
            return Ok(());
        }
        if before.is_some_and(|(time, offset)| timestamp < time || relative < offset) {
            bail!("entry {number} goes back");
        }
        before = Some((timestamp, relative));
        out.line(0, &[("timestamp", json!(timestamp)), ("offset", json!(base + u64::from(relative)))])?;
    }
    whole(rest)
}

fn whole(rest: &[u8]) -> anyhow::Result<()> {
    if rest.is_empty() { Ok(()) } else { bail!("{} bytes at the end are no whole entry", rest.len()) }
}

/// `.txnindex`.
pub(super) async fn transactions<W: Write>(content: &Content, out: &mut Out<W>) -> anyhow::Result<()> {
    let bytes = content.whole(MAX_BYTES).await?;
    for aborted in AbortedTxn::parse_all(&bytes)? {
        aborted_line(&aborted, 0, out)?;
    }
    Ok(())
}

pub(super) fn aborted_line<W: Write>(aborted: &AbortedTxn, indent: usize, out: &mut Out<W>) -> anyhow::Result<()> {
    let fields = [
        ("producer_id", json!(aborted.producer)),
        ("first_offset", json!(aborted.first)),
        ("last_offset", json!(aborted.last)),
        ("last_stable_offset", json!(aborted.last_stable)),
    ];
    Ok(out.line(indent, &fields)?)
}

/// `.snapshot`.
pub(super) async fn producers<W: Write>(content: &Content, out: &mut Out<W>) -> anyhow::Result<()> {
    let bytes = content.whole(MAX_BYTES).await?;
    for (producer, entry) in decode_snapshot(&bytes)? {
        let last = entry.last_batch();
        let fields = [
            ("producer_id", json!(producer)),
            ("producer_epoch", json!(entry.epoch)),
            ("last_sequence", json!(last.and_then(|batch| batch.last_sequence))),
            ("last_offset", json!(last.map(|batch| batch.last))),
            ("offset_delta", json!(last.map(|batch| batch.offset_delta))),
            ("last_timestamp", json!(entry.last_timestamp_ms)),
            ("coordinator_epoch", json!(entry.coordinator_epoch)),
            ("open_since", json!(entry.open_since)),
        ];
        out.line(0, &fields)?;
    }
    Ok(())
}

/// `leader-epoch-checkpoint`.
pub(super) async fn epochs<W: Write>(content: &Content, out: &mut Out<W>) -> anyhow::Result<()> {
    let bytes = content.whole(MAX_BYTES).await?;
    let text = std::str::from_utf8(&bytes).context("it is not text")?;
    for (epoch, start) in EpochCache::parse(text)?.entries() {
        out.line(0, &[("leader_epoch", json!(epoch)), ("first_offset", json!(start))])?;
    }
    Ok(())
}
