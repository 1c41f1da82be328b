//! `varve dump --json` shows every kind of file and object that a node leaves behind, line by line as JSON.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use serde_json::{Value, json};
use uuid::Uuid;
use varve_log::format::{BatchBuilder, RecordContent};
use varve_metadata::model::{LeaderEpoch, Offset, PartitionId, PartitionIndex, Timestamp, TopicId, TopicName};
use varve_tests::{
    asked::Asked,
    client::Client,
    node::{Node, eventually},
    transactions,
};
use varve_tiering::{
    manifest::Limits,
    tier::{
        bucket::{Bucket, BucketMetrics, BucketOptions},
        manifests::ManifestStore,
        partition::RemotePartition,
    },
};

/// Everything is archived at once, and the cluster's state is copied.
const EAGER: [&str; 5] = [
    "log.retention.check.interval.ms=100",
    "varve.compactor.interval.ms=100",
    "varve.backup.lag.ms=300",
    "transaction.state.log.num.partitions=1",
    "offsets.topic.num.partitions=1",
];
const FIRST_TIME: i64 = 1_790_000_000_000;
const SEGMENTS: i64 = 3;

fn batch(number: i64) -> Result<Bytes> {
    let mut batch = BatchBuilder::new(Offset::ZERO);
    let timestamp = Timestamp::from_wire(FIRST_TIME + number);
    batch.push(RecordContent { timestamp, key: Some(b"k"), value: Some(b"v"), headers: &[(b"h", Some(b"1"))] });
    Ok(batch.build()?.into())
}

/// The only file with that ending.
fn file(folder: &Path, ending: &str) -> Result<PathBuf> {
    let mut found = files(folder, ending)?;
    ensure!(found.len() == 1, "{}: {} files that end in {ending}", folder.display(), found.len());
    found.pop().context("one file")
}

/// All files below `folder` with that ending, by name.
fn files(folder: &Path, ending: &str) -> Result<Vec<PathBuf>> {
    let (mut found, mut folders) = (Vec::new(), vec![folder.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).with_context(|| folder.display().to_string())? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.to_string_lossy().ends_with(ending) {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}

/// A folder as a node leaves it: `local` with a transaction that was aborted in one segment, `raw` and `table` archived.
struct Left {
    folder: tempfile::TempDir,
    raw: Uuid,
}

impl Left {
    fn new() -> Result<Left> {
        let folder = tempfile::tempdir()?;
        let node = Node::start(folder.path(), &EAGER)?;
        let mut client = Client::connect(node.address)?;
        let local = [
            ("remote.storage.enable", "false"),
            ("index.interval.bytes", "1"),
            ("retention.ms", "-1"),
            ("segment.ms", "9000000000000"),
        ];
        client.create_topic("local", 1, &local)?;
        // Each batch begins a segment, by its time.
        let archived = [("segment.ms", "1"), ("retention.ms", "-1"), ("varve.archive.lag.ms", "300")];
        client.create_topic("raw", 1, &[&archived[..], &[("varve.archive.format", "raw")]].concat())?;
        client.create_topic("table", 1, &archived)?;
        for number in 0..SEGMENTS {
            for topic in ["local", "raw", "table"] {
                client.produce(topic, 0, batch(number * 10)?)?;
            }
        }
        client.find_coordinators("writer")?;
        let producer = client.init_producer("writer", 60_000)?;
        client.produce_in_transaction("local", 0, 12, "writer", transactions::batch(producer, 0, None, "undone")?)?;
        client.end_transaction("writer", producer, false)?;
        // The marker is on its way when the producer is answered.
        eventually(
            "the marker is written",
            || Ok((client.list_offset("local", 0, -1)? == SEGMENTS + 2).then_some(())),
        )?;
        let raw = client.topic_id("raw")?.context("a topic")?;
        let asked = Asked::of(folder.path());
        for (topic, kind) in [("raw", "raw_objects"), ("table", "parquet_objects")] {
            eventually(&format!("{topic} is archived"), || {
                // Before the first object there is nothing to describe, and varve says so.
                let Ok(described) = asked.ask(&["tier", "describe", topic]) else { return Ok(None) };
                let done = described[0]["end_offset"] == SEGMENTS && described[0][kind] == described[0]["objects"];
                Ok(done.then_some(()))
            })?;
        }
        eventually("the cluster's state is copied", || {
            let archive = folder.path().join("varve-data/archive");
            Ok((!files(&archive, ".jsonl.zst")?.is_empty()).then_some(()))
        })?;
        node.stop()?;
        Ok(Left { folder, raw })
    }

    fn log(&self) -> PathBuf {
        self.folder.path().join("varve-data/log/local-0")
    }

    fn archive(&self) -> PathBuf {
        self.folder.path().join("varve-data/archive")
    }

    fn dump(&self, path: &Path, flags: &[&str]) -> Result<Vec<Value>> {
        let name = path.display().to_string();
        let lines = Asked::of(self.folder.path()).ask(&[&["dump", name.as_str()], flags].concat())?;
        ensure!(!lines.is_empty(), "nothing is shown of {name}");
        Ok(lines)
    }

    /// Moves entries of the manifest of `raw` into a leaf, as happens once it has a thousand; where the leaf lies.
    fn make_a_leaf(&self) -> Result<PathBuf> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let url = format!("file://{}", self.archive().display());
            let bucket = Bucket::open(&url, BucketOptions::default(), BucketMetrics::new()).await?;
            let topic = TopicId::from_wire(self.raw).context("a topic's id")?;
            let partition = PartitionId { topic, index: PartitionIndex(0) };
            let store = ManifestStore::with_limits(bucket, Limits { inline: 1, keep: 1, leaf: 10 });
            let remote = RemotePartition::new(store, partition, TopicName::parse("raw")?);
            let epoch = LeaderEpoch(remote.refresh().await?.leader_epoch().0 + 1);
            remote.update(|manifest| manifest.claimed_by(epoch)).await?;
            anyhow::Ok(())
        })?;
        let leaves = files(&self.archive().join("index"), "")?;
        ensure!(leaves.len() == 1, "{leaves:?}");
        leaves.into_iter().next().context("a leaf")
    }
}

/// Whether a line has these fields with these values.
fn has(line: &Value, fields: &Value) -> Result<()> {
    for (name, value) in fields.as_object().context("fields")? {
        ensure!(&line[name] == value, "{name} is {}, not {value}: {line}", line[name]);
    }
    Ok(())
}

#[test]
fn every_kind_of_file_and_object_is_shown_as_json() -> Result<()> {
    let left = Left::new()?;
    files_of_a_log(&left)?;
    objects_of_the_archive(&left)
}

fn files_of_a_log(left: &Left) -> Result<()> {
    let log = left.log();
    let records = SEGMENTS + 2;
    let batches = left.dump(&file(&log, ".log")?, &[])?;
    ensure!(batches.len() as i64 == records, "{batches:?}");
    has(&batches[1], &json!({ "base_offset": 1, "records": 1, "codec": "none", "base_timestamp": FIRST_TIME + 10 }))?;
    has(&batches[3], &json!({ "transactional": true, "control": false, "base_sequence": 0 }))?;
    has(&batches[4], &json!({ "control": true, "last_offset": 4 }))?;
    let deep = left.dump(&file(&log, ".log")?, &["--deep"])?;
    ensure!(deep.len() as i64 == 2 * records, "{deep:?}");
    has(&deep[1], &json!({ "offset": 0, "key": "k", "value": "v", "headers": [{ "key": "h", "value": "1" }] }))?;
    ensure!(deep[9]["marker"]["abort"].is_u64(), "{}", deep[9]);

    let index = left.dump(&file(&log, ".index")?, &[])?;
    ensure!(index.iter().all(|entry| entry["position"].as_u64() > Some(0)), "{index:?}");
    has(&index[0], &json!({ "offset": 1 }))?;
    let times = left.dump(&file(&log, ".timeindex")?, &[])?;
    ensure!(times.iter().any(|entry| entry["timestamp"] == FIRST_TIME + 10 && entry["offset"] == 1), "{times:?}");
    let aborted = left.dump(&file(&log, ".txnindex")?, &[])?;
    has(&aborted[0], &json!({ "first_offset": 3, "last_offset": 4, "last_stable_offset": 5 }))?;
    // Of the newest: the one that a stop leaves.
    let snapshots = files(&log, ".snapshot")?;
    let producers = left.dump(snapshots.last().context("a snapshot")?, &[])?;
    has(&producers[0], &json!({ "producer_id": aborted[0]["producer_id"], "open_since": null }))?;
    let epochs = left.dump(&log.join("leader-epoch-checkpoint"), &[])?;
    has(&epochs[0], &json!({ "leader_epoch": 0, "first_offset": 0 }))
}

fn objects_of_the_archive(left: &Left) -> Result<()> {
    let archive = left.archive();
    let leaf = left.dump(&left.make_a_leaf()?, &[])?;
    has(&leaf[0], &json!({ "kind": "raw", "base_offset": 0 }))?;
    let manifests = files(&archive.join("manifests"), "")?;
    let shown = manifests.iter().map(|path| left.dump(path, &[])).collect::<Result<Vec<_>>>()?;
    let newest = |topic: &str| {
        let ours = shown.iter().filter(|lines| lines[0]["topic"] == topic);
        ours.max_by_key(|lines| lines[0]["version"].as_u64()).with_context(|| format!("a manifest of {topic}"))
    };
    let raw = newest("raw")?;
    has(
        &raw[0],
        &json!({ "topic_id": TopicId::from_wire(left.raw).context("an id")?.to_string(), "end_offset": SEGMENTS }),
    )?;
    ensure!(raw.iter().any(|line| line["leaf"].is_string() && line["objects"] == leaf.len()), "{raw:?}");
    let tables = newest("table")?;
    has(&tables[0], &json!({ "partition": 0, "records": SEGMENTS, "deleted_at": null }))?;

    // Small segments of one or more partitions in one object, each part with its batches.
    let raws = files(&archive.join("raw"), "")?;
    let shown = raws.iter().map(|path| left.dump(path, &["--deep"])).collect::<Result<Vec<_>>>()?;
    let lines = || shown.iter().flatten();
    ensure!(lines().any(|line| line["log_bytes"].is_u64() && line["end_offset"].is_u64()), "{shown:?}");
    ensure!(lines().any(|line| line["value"] == "v" && line["timestamp"] == FIRST_TIME), "{shown:?}");

    let keys = tables.iter().filter_map(|line| line["key"].as_str());
    let mut rows = Vec::new();
    for key in keys {
        let lines = left.dump(&archive.join(key), &["--deep"])?;
        has(&lines[0], &json!({ "partition": 0, "topic_id": tables[0]["topic_id"] }))?;
        rows.extend(lines.into_iter().filter(|line| line["value"] == "v").map(|line| line["offset"].clone()));
    }
    ensure!(rows == (0..SEGMENTS).map(Value::from).collect::<Vec<_>>(), "{rows:?}");

    let copies = files(&archive.join("meta"), ".jsonl.zst")?;
    let state = left.dump(copies.last().context("a copy")?, &[])?;
    ensure!(state[0]["keys"] == state.len() - 1 && state[0]["cluster_id"].is_string(), "{}", state[0]);
    ensure!(state[1..].iter().all(|line| line["key"].is_string() && line["bytes"].is_u64()), "{state:?}");
    Ok(())
}
