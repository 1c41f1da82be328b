//! A copy of the cluster's state. Values stay unprinted: credentials are among them.

use std::io::Write;

use anyhow::Context;
use serde_json::json;
use varve_metadata::snapshot::ClusterSnapshot;
use varve_tiering::tier::snapshots::decompress;

use super::{Content, Out};

pub(super) async fn snapshot<W: Write>(content: &Content, out: &mut Out<W>) -> anyhow::Result<()> {
    let compressed = content.read(0..content.len()).await?;
    let text = decompress(&compressed).context("it does not decompress")?;
    let snapshot = ClusterSnapshot::parse(&text)?;
    out.line(
        0,
        &[
            ("cluster_id", json!(snapshot.cluster_id)),
            ("taken_ms", json!(snapshot.taken.millis())),
            ("revision", json!(snapshot.revision.0)),
            ("keys", json!(snapshot.entries.len())),
        ],
    )?;
    for (key, value) in &snapshot.entries {
        out.line(1, &[("key", json!(key)), ("bytes", json!(value.len()))])?;
    }
    Ok(())
}
