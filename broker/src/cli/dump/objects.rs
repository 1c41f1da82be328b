//! Objects of the archive.

use std::{io::Write, ops::Range};

use anyhow::Context;
use bytes::Bytes;
use serde_json::json;
use varve_log::format::RecordBatchView;
use varve_metadata::model::{LeaderEpoch, Offset};
use varve_table::{Fetched, FooterError, Recompression, TableFooter};
use varve_tiering::manifest::{Leaf, MAX_LEAF_BYTES, MAX_MANIFEST_BYTES, Manifest, RemoteObject};
use varve_tiering::raw::{
    FOOTER_BYTES, RawError, RawFooter, RawMeta, TAIL_GUESS,
    shared::{SHARED_FOOTER_BYTES, SHARED_MAGIC, parse_directory},
};

use super::{batches, indexes};
use crate::cli::content::Content;
use crate::cli::out::{Field, Out};

/// A first read of this many bytes brings the footer of most Parquet objects.
const FOOTER_GUESS: u64 = 256 << 10;

pub(super) async fn manifest<W: Write>(content: &Content, out: &mut Out<W>) -> anyhow::Result<()> {
    let manifest = Manifest::parse(&content.whole(MAX_MANIFEST_BYTES).await?)?;
    out.line(0, &manifest_fields(&manifest))?;
    epochs(manifest.epochs(), out)?;
    for leaf in manifest.leaves() {
        let fields = [
            ("leaf", json!(leaf.id)),
            ("base_offset", json!(leaf.base)),
            ("end_offset", json!(leaf.end)),
            ("objects", json!(leaf.objects)),
            ("bytes", json!(leaf.bytes)),
            ("records", json!(leaf.records)),
        ];
        out.line(1, &fields)?;
    }
    for object in manifest.inline_objects() {
        let mut fields = object_fields(object);
        fields.push(("key", json!(manifest.key_of(object).as_str())));
        out.line(1, &fields)?;
    }
    for removed in manifest.removed() {
        out.line(1, &[("removed", serde_json::to_value(&removed.entry)?), ("at", json!(removed.at))])?;
    }
    for aside in manifest.set_aside() {
        out.line(1, &[("set_aside", serde_json::to_value(&aside.entry)?), ("at", json!(aside.at))])?;
    }
    Ok(())
}

/// What a manifest says of its partition as a whole.
pub(in crate::cli) fn manifest_fields(manifest: &Manifest) -> Vec<Field> {
    vec![
        ("topic", json!(manifest.topic().as_str())),
        ("topic_id", json!(manifest.partition().topic.to_string())),
        ("partition", json!(manifest.partition().index)),
        ("version", json!(manifest.version())),
        ("published_at", json!(manifest.published_at())),
        ("leader_epoch", json!(manifest.leader_epoch())),
        ("log_start", json!(manifest.log_start().0)),
        ("end_offset", json!(manifest.end())),
        ("clean_until", json!(manifest.clean_until())),
        ("objects", json!(manifest.object_count())),
        ("bytes", json!(manifest.bytes())),
        ("log_bytes", json!(manifest.log_bytes())),
        ("records", json!(manifest.records())),
        ("max_timestamp", json!(manifest.max_timestamp())),
        ("deleted_at", json!(manifest.deleted_at())),
    ]
}

/// What a manifest says of one object.
pub(in crate::cli) fn object_fields(object: &RemoteObject) -> Vec<Field> {
    vec![
        ("kind", json!(object.kind)),
        ("base_offset", json!(object.base)),
        ("end_offset", json!(object.end)),
        ("records", json!(object.records)),
        ("bytes", json!(object.bytes)),
        ("log_bytes", json!(object.log_bytes)),
        ("max_timestamp", json!(object.max_timestamp)),
        ("writer_epoch", json!(object.writer_epoch)),
        ("crc32c", json!(object.crc32c)),
        ("shared_at", json!(object.shared_at)),
    ]
}

pub(super) async fn leaf<W: Write>(content: &Content, out: &mut Out<W>) -> anyhow::Result<()> {
    for object in Leaf::parse(&content.whole(MAX_LEAF_BYTES).await?)?.objects() {
        out.line(0, &object_fields(object))?;
    }
    Ok(())
}

fn epochs<W: Write>(epochs: &[(LeaderEpoch, Offset)], out: &mut Out<W>) -> anyhow::Result<()> {
    for (epoch, start) in epochs {
        out.line(1, &[("leader_epoch", json!(epoch)), ("first_offset", json!(start))])?;
    }
    Ok(())
}

/// A raw object of one partition, or all parts of a shared one.
pub(super) async fn raw<W: Write>(content: &Content, deep: bool, out: &mut Out<W>) -> anyhow::Result<()> {
    let end = tail(content, SHARED_FOOTER_BYTES as u64).await?;
    if !end.ends_with(SHARED_MAGIC) {
        return raw_part(content, 0..content.len(), deep, out).await;
    }
    let parts = match parse_directory(&end, content.len()) {
        Err(RawError::TailNeeded(bytes)) => parse_directory(&tail(content, bytes).await?, content.len())?,
        outcome => outcome?,
    };
    for part in parts {
        let fields = [
            ("shared_at", json!(part.range.start)),
            ("topic_id", json!(part.partition.topic.to_string())),
            ("partition", json!(part.partition.index)),
            ("bytes", json!(part.range.end - part.range.start)),
        ];
        out.line(0, &fields)?;
        raw_part(content, part.range, deep, out).await?;
    }
    Ok(())
}

async fn raw_part<W: Write>(content: &Content, range: Range<u64>, deep: bool, out: &mut Out<W>) -> anyhow::Result<()> {
    let bytes = range.end - range.start;
    let tail = |length: u64| content.read(range.end.saturating_sub(length).max(range.start)..range.end);
    let footer = RawFooter::parse(&tail(FOOTER_BYTES as u64).await?, bytes)?;
    let meta = RawMeta::parse(&tail(footer.meta_bytes().max(TAIL_GUESS)).await?, bytes)?;
    let fields = [
        ("base_offset", json!(footer.base)),
        ("end_offset", json!(footer.end)),
        ("records", json!(footer.records)),
        ("log_bytes", json!(footer.log_bytes)),
        ("max_timestamp", json!(footer.max_timestamp)),
        ("index_entries", json!(meta.index.len())),
        ("producer_snapshot_bytes", json!(meta.producer_snapshot.len())),
    ];
    out.line(0, &fields)?;
    epochs(&meta.leader_epochs, out)?;
    for aborted in &meta.aborted {
        indexes::aborted_line(aborted, 1, out)?;
    }
    batches::segment(content, range.start..range.start + footer.log_bytes, deep, out).await
}

pub(super) async fn parquet<W: Write>(content: &Content, deep: bool, out: &mut Out<W>) -> anyhow::Result<()> {
    let footer = table_footer(content).await?;
    let fields = [
        ("topic_id", json!(footer.partition().topic.to_string())),
        ("partition", json!(footer.partition().index)),
        ("base_offset", json!(footer.base())),
        ("end_offset", json!(footer.end())),
        ("rows", json!(footer.rows())),
        ("max_timestamp", json!(footer.max_timestamp())),
        ("bytes", json!(footer.object_bytes())),
        ("groups", json!(footer.groups().len())),
        ("producer_state", json!(footer.producers().is_some())),
        ("tag_filter", json!(footer.tags().is_some())),
    ];
    out.line(0, &fields)?;
    epochs(footer.leader_epochs(), out)?;
    for aborted in footer.aborted() {
        indexes::aborted_line(aborted, 1, out)?;
    }
    for group in footer.groups() {
        let fields = [
            ("group", json!(group.row_group)),
            ("base_offset", json!(group.base)),
            ("end_offset", json!(group.end)),
            ("batches", json!(group.batches)),
            ("rows", json!(group.rows)),
            ("frame_bytes", json!(group.frame_bytes)),
            ("raw_bytes", json!(group.raw_bytes)),
        ];
        out.line(1, &fields)?;
        rebuilt(content, &footer, group.base, deep, out).await?;
    }
    Ok(())
}

/// The batches of the group that begins at `from`, rebuilt from its columns; none if there is no such group.
pub(in crate::cli) async fn rebuilt_batches(
    content: &Content,
    footer: &TableFooter,
    from: Offset,
) -> anyhow::Result<Bytes> {
    let Some(plan) = footer.plan_group(from)? else { return Ok(Bytes::new()) };
    let mut fetched = Fetched::new(content.len());
    for range in plan.ranges() {
        fetched.add(range.start, content.read(range.clone()).await?);
    }
    Ok(footer.decode(&plan, &fetched, Recompression::None)?)
}

/// Prints the batches of the group that begins at `from`.
async fn rebuilt<W: Write>(
    content: &Content,
    footer: &TableFooter,
    from: Offset,
    deep: bool,
    out: &mut Out<W>,
) -> anyhow::Result<()> {
    let bytes = rebuilt_batches(content, footer, from).await?;
    let mut rest = &bytes[..];
    while !rest.is_empty() {
        let (batch, behind) = RecordBatchView::parse(rest).context("a rebuilt batch")?;
        batches::print(&batch, None, deep, out)?;
        rest = behind;
    }
    Ok(())
}

/// The footer of a Parquet object, with as many reads as it takes.
pub(in crate::cli) async fn table_footer(content: &Content) -> anyhow::Result<TableFooter> {
    let mut bytes = FOOTER_GUESS;
    loop {
        match TableFooter::parse(content.len(), tail(content, bytes).await?) {
            Err(FooterError::NeedMore { from }) if content.len() - from.min(content.len()) > bytes => {
                bytes = content.len() - from;
            }
            other => return Ok(other?),
        }
    }
}

async fn tail(content: &Content, bytes: u64) -> anyhow::Result<Bytes> {
    content.read(content.len().saturating_sub(bytes)..content.len()).await
}
