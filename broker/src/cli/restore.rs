//! `varve restore`: a new metadata store from what the bucket has. No node may run.

use std::collections::BTreeMap;
use std::process::ExitCode;

use anyhow::{Context, bail};
use bytes::Bytes;
use clap::Args;
use futures::{StreamExt, TryStreamExt, stream};
use serde_json::json;
use varve_metadata::model::{PartitionId, TopicName, TopicNameError};
use varve_metadata::snapshot::{Archived, ClusterSnapshot, Fate, Revived, Terms, revive};
use varve_metadata::store::Transaction;
use varve_tiering::layout::Version;
use varve_tiering::tier::cluster::read_cluster;
use varve_tiering::tier::manifests::ManifestStore;
use varve_tiering::tier::snapshots::Snapshots;

use super::ConfigurationArgs;
use super::content::open_bucket;
use super::out::Out;
use super::progress::{self, progress_bar};
use crate::config::{BrokerConfig, MetadataUrl};
use crate::coordinator::{OFFSETS_TOPIC, share_state::SHARE_STATE_TOPIC, transactions::TRANSACTIONS_TOPIC};
use crate::node::open_store;
use crate::server::own_topic;

/// Arguments of `varve restore`.
#[derive(Debug, Args)]
#[command(after_long_help = NOTES)]
pub(super) struct RestoreArgs {
    /// Say what would come back, and write nothing.
    #[arg(long)]
    dry_run: bool,
    /// The copy of the state to begin with; the newest if left out. `varve dump meta/…` shows one.
    #[arg(long, value_name = "NUMBER")]
    snapshot: Option<u64>,
    /// One JSON object per line.
    #[arg(long)]
    json: bool,
}

const NOTES: &str = "\
For the day on which every disk is lost: topics with their ids, settings, ACLs and users come back as of the newest copy
of the state in the object store, which is a few seconds older than the end. Topics that only the archive knows of come back with
default settings. Then start the node: every archived record is there, offsets go on behind the archive, and committed offsets
are as of varve.backup.lag.ms before the end. What was acknowledged and not archived yet is gone.

The metadata store must be empty, and nothing of the old cluster may run: it would go on writing to the same bucket, until it is
refused because the leader epochs of all partitions were raised.

Examples:
  varve restore --config server.properties --dry-run    what would come back
  varve restore --config server.properties              do it, then start varve as usual";

/// Manifests read at the same time.
const MANIFESTS_AT_ONCE: usize = 16;
/// Keys of one transaction: no store takes fewer.
const KEYS_AT_ONCE: usize = 100;
/// Written last of all; a store without it is one whose restoration was cut short.
const COMPLETE: &str = "cluster";

pub(super) async fn answer(arguments: RestoreArgs, configuration: &ConfigurationArgs) -> anyhow::Result<ExitCode> {
    let config = configuration.load()?.config;
    let bucket = open_bucket(config.object_store.url.as_str(), &config.object_store).await?;
    let Some(cluster) = read_cluster(&bucket).await? else { bail!("no cluster has used {} yet", bucket.url()) };
    let (version, snapshot) = read_snapshot(&Snapshots::new(bucket.clone()), arguments.snapshot).await?;
    if snapshot.cluster_id != cluster.cluster_id {
        bail!("the state is that of cluster {}, the bucket that of {}", snapshot.cluster_id, cluster.cluster_id);
    }
    let archived = archived(&ManifestStore::new(bucket)).await?;
    let only = matches!(config.metadata, MetadataUrl::Embedded(_)).then_some(config.node);
    let own = [OFFSETS_TOPIC, SHARE_STATE_TOPIC, TRANSACTIONS_TOPIC]
        .map(|name| Ok((TopicName::parse(name)?, own_topic(&config, name))));
    let own = own.into_iter().collect::<Result<_, TopicNameError>>()?;
    let revived = revive(&snapshot, &archived, &Terms { only, own })?;
    if !arguments.dry_run {
        write(&config, &revived.entries).await?;
    }
    tell(&snapshot, version, &revived, &mut Out::new(arguments.json))?;
    Ok(ExitCode::SUCCESS)
}

async fn read_snapshot(snapshots: &Snapshots, wanted: Option<u64>) -> anyhow::Result<(Version, ClusterSnapshot)> {
    let versions = snapshots.versions().await.context("the copies of the state cannot be listed")?;
    let version = match wanted {
        Some(number) => versions.iter().copied().find(|version| version.0 == number),
        None => versions.last().copied(),
    };
    let Some(version) = version else {
        let numbers: Vec<String> = versions.iter().map(|version| version.0.to_string()).collect();
        bail!("there is no such copy of the cluster's state; there are: {}", numbers.join(", "));
    };
    let text = snapshots.read(version).await?;
    let snapshot = ClusterSnapshot::parse(&text);
    Ok((
        version,
        snapshot.with_context(|| format!("copy {} is damaged: try an older one, with --snapshot", version.0))?,
    ))
}

async fn archived(manifests: &ManifestStore) -> anyhow::Result<BTreeMap<PartitionId, Archived>> {
    let partitions = manifests.partitions().await.context("the manifests cannot be listed")?;
    let read = |(id, version)| async move {
        let manifest = manifests.read(id, version).await.with_context(|| format!("the manifest of {id}"))?;
        let archived = Archived {
            topic: manifest.topic().clone(),
            leader_epoch: manifest.leader_epoch(),
            is_deleted: manifest.deleted_at().is_some(),
        };
        anyhow::Ok((id, archived))
    };
    let bar = progress_bar(partitions.len() as u64, progress::MANIFESTS);
    let read = stream::iter(partitions).map(read).buffer_unordered(MANIFESTS_AT_ONCE);
    let archived = read.inspect_ok(|_| bar.inc(1)).try_collect().await;
    bar.finish_and_clear();
    archived
}

/// Fills the empty store; `cluster` last, so that what was cut short is begun anew.
async fn write(config: &BrokerConfig, entries: &[(String, Bytes)]) -> anyhow::Result<()> {
    let store = open_store(config).await?;
    let before = store.range("").await?;
    if before.entries.iter().any(|(key, _)| key == COMPLETE) {
        bail!("the metadata store is in use: restore into a new one, or start the node as it is");
    }
    let left_over: Vec<&String> = before.entries.iter().map(|(key, _)| key).collect();
    for keys in left_over.chunks(KEYS_AT_ONCE) {
        let clear = keys.iter().fold(Transaction::default(), |transaction, key| transaction.delete((*key).clone()));
        store.transact(clear).await?;
    }
    for some in entries.chunks(KEYS_AT_ONCE) {
        let put = some
            .iter()
            .fold(Transaction::default(), |transaction, (key, value)| transaction.put(key.clone(), value.clone()));
        store.transact(put).await?;
    }
    Ok(())
}

fn tell(snapshot: &ClusterSnapshot, version: Version, revived: &Revived, out: &mut Out) -> anyhow::Result<()> {
    out.line(
        0,
        &[
            ("cluster_id", json!(snapshot.cluster_id)),
            ("snapshot", json!(version.0)),
            ("taken_ms", json!(snapshot.taken.millis())),
            ("partitions", json!(revived.partitions)),
        ],
    )?;
    for ((name, id), fate) in &revived.topics {
        let fate = match fate {
            Fate::Kept => "restored",
            Fate::Found => "restored with default settings: only the archive knew of it",
            Fate::Dropped => {
                "left out: it was deleted after the snapshot, or a younger topic has its name; its objects go after the grace period"
            }
        };
        out.line(1, &[("topic", json!(name.as_str())), ("id", json!(id.to_string())), ("outcome", json!(fate))])?;
    }
    Ok(out.flush()?)
}
