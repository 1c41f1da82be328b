//! `varve tier`: what the archive holds, and whether it is whole. Read from the bucket alone: no node needs to run, but for
//! `lineage`, which asks the leaders; `forget` tells the metadata store.

mod forget;
mod lineage;

use std::collections::{BTreeMap, HashSet};
use std::process::ExitCode;

use anyhow::{Context, bail};
use bytes::Bytes;
use clap::Subcommand;
use futures::{StreamExt, TryStreamExt, stream};
use indicatif::ProgressBar;
use serde_json::json;
use varve_metadata::model::PartitionId;
use varve_table::{FooterError, TableFooter};
use varve_tiering::layout::{self, Key, LEAVES, RAW, TABLES};
use varve_tiering::manifest::{LeafRef, Manifest, ObjectKind, RemoteObject, RemovedEntry};
use varve_tiering::raw::{FOOTER_BYTES, RawFooter};
use varve_tiering::tier::bucket::{Bucket, BucketError};
use varve_tiering::tier::manifests::{ManifestStore, StoreError};

use super::ConfigurationArgs;
use super::content::open_bucket;
use super::dump::objects::{manifest_fields, object_fields};
use super::out::{Out, is_closed_pipe};
use super::progress::{self, progress_bar};

/// Subcommands of `varve tier`.
#[derive(Debug, Subcommand)]
pub(super) enum TierCommand {
    /// Show what the archive holds of a topic: per partition its offsets, sizes and objects.
    Describe {
        /// The topic's name.
        topic: String,
        /// List every object too.
        #[arg(long)]
        objects: bool,
        /// One JSON object per line.
        #[arg(long)]
        json: bool,
    },
    /// Show where an archive and its leader's log parted, and have the archive go on with the leader's.
    Lineage(lineage::LineageArgs),
    /// Give up the archive of a topic that the cluster does not know.
    Forget(forget::ForgetArgs),
    /// Read every object and compare it with the size and checksum in its manifest. Exit code 1 if anything is damaged.
    Verify {
        /// The topic's name; all topics if left out.
        topic: Option<String>,
        /// One JSON object per line: each problem, then a summary.
        #[arg(long)]
        json: bool,
    },
}

/// Objects read at the same time.
const OBJECTS_AT_ONCE: usize = 4;
/// Read at a time of one object.
const PIECE_BYTES: u64 = 8 << 20;
/// Kept of an object's end to check its footer.
const TAIL_BYTES: usize = 1 << 20;

pub(super) async fn answer(command: TierCommand, configuration: &ConfigurationArgs) -> anyhow::Result<ExitCode> {
    let store = configuration.load()?.config.object_store;
    let manifests = ManifestStore::new(open_bucket(store.url.as_str(), &store).await?);
    let answered = match command {
        TierCommand::Describe { topic, objects, json } => {
            describe(&manifests, &topic, objects, &mut Out::new(json)).await
        }
        TierCommand::Forget(asked) => forget::forget(&manifests, &asked, configuration).await,
        TierCommand::Lineage(asked) => lineage::lineage(&manifests, &asked, configuration).await,
        TierCommand::Verify { topic, json } => verify(&manifests, topic.as_deref(), &mut Out::new(json)).await,
    };
    match answered {
        Err(error) if is_closed_pipe(&error) => Ok(ExitCode::SUCCESS),
        other => other,
    }
}

/// The newest manifests of `topic` (of all topics if `None`), by topic name and partition, and those that cannot be read.
async fn manifests_of(
    store: &ManifestStore,
    topic: Option<&str>,
) -> anyhow::Result<(Vec<Manifest>, Vec<(PartitionId, String)>)> {
    let partitions: BTreeMap<_, _> = store.partitions().await.context("the manifests cannot be listed")?;
    let read = |(partition, version)| async move { (partition, store.read(partition, version).await) };
    let read: Vec<_> = stream::iter(partitions).map(read).buffered(OBJECTS_AT_ONCE * 4).collect().await;
    let (mut manifests, mut broken) = (Vec::new(), Vec::new());
    for (partition, outcome) in read {
        match outcome {
            Ok(manifest) if topic.is_none_or(|topic| manifest.topic().as_str() == topic) => manifests.push(manifest),
            Ok(_) => {}
            Err(error) => broken.push((partition, format!("{:#}", anyhow::Error::from(error)))),
        }
    }
    manifests.sort_by(|a, b| (a.topic(), a.partition()).cmp(&(b.topic(), b.partition())));
    Ok((manifests, broken))
}

/// All objects of a manifest, those in leaves too, in offset order; and what is wrong with leaves that cannot be read.
async fn objects_of(store: &ManifestStore, manifest: &Manifest) -> (Vec<RemoteObject>, Vec<String>) {
    let mut objects: Vec<RemoteObject> = manifest.inline_objects().cloned().collect();
    let mut problems = Vec::new();
    for reference in manifest.leaves() {
        match store.leaf(manifest.partition(), reference).await {
            Ok(leaf) => objects.extend_from_slice(leaf.objects()),
            Err(error) => problems.push(format!(
                "the list of offsets {} to {}: {:#}",
                reference.base,
                reference.end,
                anyhow::Error::from(error)
            )),
        }
    }
    objects.sort_unstable_by_key(|object| object.base);
    (objects, problems)
}

pub(super) async fn describe<W: std::io::Write>(
    store: &ManifestStore,
    topic: &str,
    objects: bool,
    out: &mut Out<W>,
) -> anyhow::Result<ExitCode> {
    let (manifests, broken) = manifests_of(store, Some(topic)).await?;
    for (partition, problem) in &broken {
        eprintln!("the manifest of partition {partition} cannot be read: {problem}");
    }
    if manifests.is_empty() {
        bail!("nothing is archived of a topic {topic} in {}", store.bucket().url());
    }
    let mut is_whole = broken.is_empty();
    for manifest in &manifests {
        let (listed, problems) = objects_of(store, manifest).await;
        for problem in &problems {
            eprintln!("objects of partition {} are not shown: {problem}", manifest.partition().index);
        }
        is_whole &= problems.is_empty();
        let of = |kind| listed.iter().filter(move |object| object.kind == kind);
        let mut fields = manifest_fields(manifest);
        fields.push(("raw_objects", json!(of(ObjectKind::Raw).count())));
        fields.push(("raw_bytes", json!(of(ObjectKind::Raw).map(|object| object.bytes).sum::<u64>())));
        fields.push(("parquet_objects", json!(of(ObjectKind::Parquet).count())));
        fields.push(("parquet_bytes", json!(of(ObjectKind::Parquet).map(|object| object.bytes).sum::<u64>())));
        fields.push(("awaiting_deletion", json!(manifest.removed().len())));
        fields.push(("set_aside", json!(manifest.set_aside().len())));
        out.line(0, &fields)?;
        for object in listed.iter().filter(|_| objects) {
            let mut fields = object_fields(object);
            fields.push(("key", json!(manifest.key_of(object).as_str())));
            out.line(1, &fields)?;
        }
    }
    out.flush()?;
    Ok(if is_whole { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

pub(super) async fn verify<W: std::io::Write>(
    store: &ManifestStore,
    topic: Option<&str>,
    out: &mut Out<W>,
) -> anyhow::Result<ExitCode> {
    let (manifests, broken) = manifests_of(store, topic).await?;
    if let Some(topic) = topic.filter(|_| manifests.is_empty() && broken.is_empty()) {
        bail!("nothing is archived of a topic {topic} in {}", store.bucket().url());
    }
    let mut problems = broken.len();
    for (partition, problem) in broken {
        out.line(0, &[("partition_id", json!(partition.to_string())), ("problem", json!(problem))])?;
    }
    let mut work = Vec::new();
    for manifest in &manifests {
        let (objects, unlisted) = objects_of(store, manifest).await;
        work.extend(objects.into_iter().map(|object| (manifest, object)));
        problems += unlisted.len();
        for problem in unlisted {
            problem_line(manifest, None, &problem, out)?;
        }
    }
    let is_listed = problems == 0;
    let (objects, bytes) = (work.len(), work.iter().map(|(_, object)| object.bytes).sum::<u64>());
    let bar = progress_bar(bytes, progress::BYTES);
    let check = |(manifest, object): (_, RemoteObject)| {
        let bar = bar.clone();
        async move { (manifest, check(store.bucket(), manifest, &object, &bar).await, object) }
    };
    let mut checks = stream::iter(work).map(check).buffer_unordered(OBJECTS_AT_ONCE);
    while let Some((manifest, outcome, object)) = checks.next().await {
        if let Err(problem) = outcome {
            problems += 1;
            bar.suspend(|| problem_line(manifest, Some(&object), &problem, out))?;
        }
    }
    bar.finish_and_clear();
    // Of one topic alone nobody can say what no manifest names, and not where one cannot be read.
    let orphans = match topic {
        None if is_listed => orphans(store, &manifests).await?,
        None | Some(_) => None,
    };
    let fields = [
        ("partitions", json!(manifests.len())),
        ("objects", json!(objects)),
        ("bytes", json!(bytes)),
        ("orphans", json!(orphans)),
        ("problems", json!(problems)),
    ];
    out.line(0, &fields)?;
    out.flush()?;
    Ok(if problems == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Objects and leaves that no manifest names, neither as its own nor as one that waits for its deletion. A crash leaves
/// them, and the compactor's sweep takes them after the grace period; an upload under way looks the same. `None`: a list of what is
/// named cannot be read.
async fn orphans(store: &ManifestStore, manifests: &[Manifest]) -> anyhow::Result<Option<usize>> {
    let mut named = HashSet::new();
    for manifest in manifests {
        let (objects, unlisted) = objects_of(store, manifest).await;
        if !unlisted.is_empty() {
            return Ok(None);
        }
        named.extend(objects.iter().map(|object| manifest.key_of(object).as_str().to_owned()));
        let key_of_leaf = |leaf: &LeafRef| layout::leaf(manifest.partition(), leaf.id).as_str().to_owned();
        named.extend(manifest.leaves().map(key_of_leaf));
        for removed in manifest.removed().iter().chain(manifest.set_aside()) {
            match &removed.entry {
                RemovedEntry::Object(object) => drop(named.insert(manifest.key_of(object).as_str().to_owned())),
                // One that the sweep has half done is gone already, and what it listed is going.
                RemovedEntry::Leaf(leaf) => match store.leaf(manifest.partition(), leaf).await {
                    Ok(listed) => {
                        named.insert(key_of_leaf(leaf));
                        named.extend(listed.objects().iter().map(|object| manifest.key_of(object).as_str().to_owned()));
                    }
                    Err(StoreError::Bucket(BucketError::NotFound(_))) => {}
                    Err(StoreError::Format { .. }) => return Ok(None),
                    Err(error) => return Err(error.into()),
                },
            }
        }
    }
    let mut orphans = 0;
    for prefix in [RAW, TABLES, LEAVES] {
        let listed = store.bucket().list(prefix, None).await?;
        orphans += listed.iter().filter(|object| !named.contains(&object.key)).count();
    }
    Ok(Some(orphans))
}

fn problem_line<W: std::io::Write>(
    manifest: &Manifest,
    object: Option<&RemoteObject>,
    problem: &str,
    out: &mut Out<W>,
) -> anyhow::Result<()> {
    let key = object.map(|object| manifest.key_of(object).as_str().to_owned());
    let fields = [
        ("topic", json!(manifest.topic().as_str())),
        ("partition", json!(manifest.partition().index)),
        ("base_offset", json!(object.map(|object| object.base))),
        ("end_offset", json!(object.map(|object| object.end))),
        ("key", json!(key)),
        ("problem", json!(problem)),
    ];
    out.line(0, &fields)?;
    Ok(out.flush()?)
}

/// Reads one object to its end and compares it with its manifest; the error says what differs.
async fn check(bucket: &Bucket, manifest: &Manifest, object: &RemoteObject, bar: &ProgressBar) -> Result<(), String> {
    let key = manifest.key_of(object);
    let (crc, tail) = read_through(bucket, &key, object, bar).await.map_err(|error| match error {
        BucketError::NotFound(_) => "the object is missing".to_owned(),
        other => format!("{:#}", anyhow::Error::from(other)),
    })?;
    if crc != object.crc32c {
        return Err(format!("checksum {crc:08x}, but the manifest says {:08x}", object.crc32c));
    }
    check_footer(manifest.partition(), object, tail)
}

/// CRC-32C of the object (or its part of a shared one), and its last bytes.
async fn read_through(
    bucket: &Bucket,
    key: &Key,
    object: &RemoteObject,
    bar: &ProgressBar,
) -> Result<(u32, Bytes), BucketError> {
    let range = object.range();
    let found = bucket.head(key).await?.bytes;
    if found < range.end || (object.shared_at.is_none() && found != range.end) {
        return Err(BucketError::Size { key: key.clone(), found, expected: range.end });
    }
    let pieces = (range.start..range.end).step_by(PIECE_BYTES as usize).map(|at| at..range.end.min(at + PIECE_BYTES));
    let read = |piece| bucket.get_range(key, piece);
    let start = (0, Vec::new());
    let (crc, tail) = stream::iter(pieces)
        .map(read)
        .buffered(2)
        .try_fold(start, |(crc, mut tail): (u32, Vec<u8>), piece| {
            bar.inc(piece.len() as u64);
            let kept = &piece[piece.len().saturating_sub(TAIL_BYTES)..];
            tail.extend_from_slice(kept);
            tail.drain(..tail.len().saturating_sub(TAIL_BYTES));
            let crc = crc32c::crc32c_append(crc, &piece);
            async move { Ok((crc, tail)) }
        })
        .await?;
    Ok((crc, tail.into()))
}

/// The object says of itself what the manifest says of it.
fn check_footer(partition: PartitionId, object: &RemoteObject, tail: Bytes) -> Result<(), String> {
    let differs = |what: &str| Err(format!("its footer names another {what} than the manifest"));
    match object.kind {
        ObjectKind::Raw => {
            let footer = &tail[tail.len().saturating_sub(FOOTER_BYTES)..];
            let footer = RawFooter::parse(footer, object.bytes).map_err(|error| error.to_string())?;
            match (footer.base, footer.end) == (object.base, object.end) {
                true => Ok(()),
                false => differs("offset range"),
            }
        }
        ObjectKind::Parquet => match TableFooter::parse(object.bytes, tail) {
            // Longer than what was kept of the end: the checksum has to do.
            Err(FooterError::NeedMore { .. }) => Ok(()),
            Err(error) => Err(error.to_string()),
            Ok(footer) if footer.partition() != partition => differs("partition"),
            Ok(footer) if (footer.base(), footer.end()) != (object.base, object.end) => differs("offset range"),
            Ok(_) => Ok(()),
        },
    }
}
