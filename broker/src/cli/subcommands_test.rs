//! Subcommands over files and buckets made for the purpose, sound and damaged.

use std::path::Path;

use varve_log::format::{BatchBuilder, RecordContent};
use varve_metadata::config::Codec;
use varve_metadata::model::{LeaderEpoch, Offset, PartitionId, PartitionIndex, Timestamp, TopicId, TopicName};
use varve_table::{EncodeOptions, TableMeta};
use varve_tiering::layout::{self, Version};
use varve_tiering::manifest::{Limits, Manifest, ObjectId, ObjectKind, RemoteObject};
use varve_tiering::raw::{
    Attachments, RawBuilder,
    shared::{SharedPart, encode_directory},
};
use varve_tiering::tier::bucket::{Bucket, BucketMetrics, BucketOptions};
use varve_tiering::tier::manifests::ManifestStore;

use super::content::Content;
use super::out::Out;
use super::{dump, tier};

fn offset(raw: u64) -> Offset {
    Offset::new(raw).unwrap()
}

/// A batch of three records from `base` on.
fn batch(base: u64, codec: Codec) -> Vec<u8> {
    let mut builder = BatchBuilder::new(offset(base)).leader_epoch(LeaderEpoch(1)).compression(codec, None);
    for number in 0..3 {
        let (key, value) = (format!("key-{number}"), format!("line {}", base + number));
        builder.push(RecordContent {
            timestamp: Timestamp::from_wire(1_700_000_000_000 + number as i64),
            key: Some(key.as_bytes()),
            value: Some(value.as_bytes()),
            headers: &[(b"host", Some(b"web-1")), (b"gone", None)],
        });
    }
    builder.build().unwrap()
}

fn segment() -> Vec<u8> {
    [batch(0, Codec::None), batch(3, Codec::Zstd), batch(6, Codec::Gzip)].concat()
}

/// What `dump` prints for a file of this name and content, and its error.
async fn dumped(name: &str, content: &[u8], deep: bool) -> (Vec<serde_json::Value>, Option<String>) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(name);
    std::fs::write(&path, content).unwrap();
    dumped_path(&path, deep).await
}

async fn dumped_path(path: &Path, deep: bool) -> (Vec<serde_json::Value>, Option<String>) {
    let name = path.to_str().unwrap();
    let store = crate::config::BrokerConfig::load(&Default::default()).unwrap().config.object_store;
    let content = Content::open(name, &store).await.unwrap();
    let mut out = Out::to(Vec::new(), true);
    let outcome = dump::print(dump::Kind::of(name).unwrap(), &content, name, deep, &mut out).await;
    let printed = String::from_utf8(out.finish().unwrap()).unwrap();
    let lines = printed.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    (lines, outcome.err().map(|error| format!("{error:#}")))
}

#[tokio::test]
async fn a_segment_is_shown_batch_by_batch_and_record_by_record() {
    let (lines, error) = dumped("00000000000000000000.log", &segment(), true).await;
    assert_eq!(error, None);
    assert_eq!(lines.len(), 3 + 9);
    assert_eq!((&lines[4]["base_offset"], &lines[4]["codec"]), (&3.into(), &"zstd".into()));
    let record = &lines[11];
    assert_eq!((&record["offset"], &record["key"], &record["value"]), (&8.into(), &"key-2".into(), &"line 8".into()));
    assert_eq!(record["headers"][0]["value"], "web-1");
    assert!(record["headers"][1]["value"].is_null());
    let (lines, _) = dumped("00000000000000000000.log", &segment(), false).await;
    assert_eq!(lines.len(), 3, "without --deep only the batches");
}

#[tokio::test]
async fn damage_is_reported_after_what_is_sound_before_it() {
    let mut damaged = segment();
    let second = batch(0, Codec::None).len();
    damaged[second + 70] ^= 1;
    let (lines, error) = dumped("00000000000000000000.log", &damaged, false).await;
    assert_eq!((lines.len(), error), (1, Some(format!("batch at position {second}: corrupt record batch: crc"))));
    let (lines, error) = dumped("00000000000000000000.log", &segment()[..second + 20], false).await;
    assert_eq!((lines.len(), error), (1, Some(format!("20 bytes at position {second} are no whole batch"))));
    let padded = [segment(), vec![0; 5000]].concat();
    let (lines, error) = dumped("00000000000000000000.log", &padded, false).await;
    assert_eq!((lines.len(), error), (3, None), "a preallocated segment ends in zeros");
}

#[tokio::test]
async fn indexes_are_shown_with_whole_offsets() {
    let index: Vec<u8> = [(5_u32, 4096_u32), (9, 8192), (0, 0)]
        .iter()
        .flat_map(|(relative, position)| [relative.to_be_bytes(), position.to_be_bytes()].concat())
        .collect();
    let (lines, error) = dumped("00000000000000000100.index", &index, false).await;
    assert_eq!(error, None);
    assert_eq!((lines.len(), &lines[1]["offset"], &lines[1]["position"]), (2, &109.into(), &8192.into()));
    let backwards = [index[8..16].to_vec(), index[..8].to_vec()].concat();
    let (_, error) = dumped("00000000000000000100.index", &backwards, false).await;
    assert!(error.unwrap().contains("entry 1"));
    let (lines, error) = dumped("leader-epoch-checkpoint", b"0\n2\n0 0\n3 17\n", false).await;
    assert_eq!((error, &lines[1]["leader_epoch"], &lines[1]["first_offset"]), (None, &3.into(), &17.into()));
}

/// A bucket directory with one partition of topic `logs`: offsets 0 to 9 raw, 9 to 18 as Parquet.
struct Archive {
    dir: tempfile::TempDir,
    store: ManifestStore,
    manifest: Manifest,
}

impl Archive {
    async fn new() -> Archive {
        let dir = tempfile::tempdir().unwrap();
        let url = format!("file://{}", dir.path().display());
        let bucket = Bucket::open(&url, BucketOptions::default(), BucketMetrics::new()).await.unwrap();
        let index = PartitionIndex::from_wire(0).unwrap();
        let partition = PartitionId { topic: TopicId::random(), index };
        let manifest = Manifest::new(partition, TopicName::parse("logs").unwrap());
        let manifest = manifest.claimed_by(LeaderEpoch(1)).unwrap();
        let mut archive = Archive { dir, store: ManifestStore::new(bucket), manifest };
        let (raw, object) = archive.raw();
        archive.add(raw, object).await;
        let (table, object) = archive.table();
        archive.add(table, object).await;
        let nonce = ObjectId::random().0;
        archive.manifest = archive.store.publish(Version::NONE, archive.manifest, nonce).await.unwrap();
        archive
    }

    async fn add(&mut self, content: Vec<u8>, object: RemoteObject) {
        let manifest = self.manifest.with(LeaderEpoch(1), object.clone()).unwrap();
        self.store.bucket().create(&manifest.key_of(&object), content.into()).await.unwrap();
        self.manifest = manifest;
    }

    fn raw(&self) -> (Vec<u8>, RemoteObject) {
        let mut builder = RawBuilder::new(offset(0), offset(9));
        let mut content = segment();
        builder.push(&content).unwrap();
        let (behind, summary) = builder.finish(Attachments::default()).unwrap();
        content.extend_from_slice(&behind);
        let object = RemoteObject::raw(ObjectId::random(), LeaderEpoch(1), summary);
        (content, object)
    }

    fn table(&self) -> (Vec<u8>, RemoteObject) {
        let bytes = [batch(9, Codec::Zstd), batch(12, Codec::None), batch(15, Codec::Lz4)].concat();
        let meta = TableMeta {
            partition: self.manifest.partition(),
            base: offset(9),
            end: offset(18),
            leader_epochs: vec![(LeaderEpoch(1), offset(0))],
            aborted: Vec::new(),
            producers: None,
        };
        let batches = varve_log::format::batches(&bytes).map(Result::unwrap);
        let encoded = varve_table::encode(batches, meta, EncodeOptions::default()).unwrap();
        let content = encoded.bytes.to_vec();
        let object = RemoteObject {
            id: ObjectId::random(),
            kind: ObjectKind::Parquet,
            base: offset(9),
            end: offset(18),
            bytes: content.len() as u64,
            log_bytes: bytes.len() as u64,
            records: 9,
            max_timestamp: Timestamp::from_wire(1_700_000_000_002),
            writer_epoch: LeaderEpoch(1),
            leader_epochs: vec![(LeaderEpoch(1), offset(9))],
            crc32c: crc32c::crc32c(&content),
            shared_at: None,
        };
        (content, object)
    }

    fn path_of(&self, kind: ObjectKind) -> std::path::PathBuf {
        let object = self.manifest.inline_objects().find(|object| object.kind == kind).unwrap();
        self.dir.path().join(self.manifest.key_of(object).as_str())
    }

    /// Problems that `varve tier verify` finds, and whether its exit code is 0.
    async fn verified(&self) -> (Vec<String>, bool) {
        let mut out = Out::to(Vec::new(), true);
        let code = tier::verify(&self.store, Some("logs"), &mut out).await.unwrap();
        let printed = String::from_utf8(out.finish().unwrap()).unwrap();
        let lines: Vec<serde_json::Value> = printed.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let (summary, problems) = lines.split_last().unwrap();
        assert_eq!(summary["problems"], problems.len());
        let problems = problems.iter().map(|line| line["problem"].as_str().unwrap().to_owned()).collect();
        (problems, format!("{code:?}") == format!("{:?}", std::process::ExitCode::SUCCESS))
    }
}

#[tokio::test]
async fn a_sound_archive_verifies() {
    assert_eq!(Archive::new().await.verified().await, (vec![], true));
}

#[tokio::test]
async fn a_changed_byte_a_missing_object_and_a_cut_one_are_found() {
    let archive = Archive::new().await;
    let raw = archive.path_of(ObjectKind::Raw);
    let mut content = std::fs::read(&raw).unwrap();
    content[100] ^= 1;
    std::fs::write(&raw, &content).unwrap();
    let (problems, sound) = archive.verified().await;
    assert!(!sound && problems.len() == 1 && problems[0].starts_with("checksum "), "{problems:?}");
    std::fs::write(&raw, &content[..content.len() - 1]).unwrap();
    let (problems, _) = archive.verified().await;
    assert!(problems.len() == 1 && problems[0].contains("bytes, expected"), "{problems:?}");
    std::fs::remove_file(&raw).unwrap();
    std::fs::remove_file(archive.path_of(ObjectKind::Parquet)).unwrap();
    assert_eq!(archive.verified().await, (vec!["the object is missing".into(); 2], false));
}

#[tokio::test]
async fn a_leaf_is_an_orphan_if_no_manifest_names_it() {
    let archive = Archive::new().await;
    let bucket = archive.store.bucket().clone();
    // The older of the two objects goes into a leaf, which the manifest names.
    let paged = ManifestStore::with_limits(bucket.clone(), Limits { inline: 1, keep: 1, leaf: 5 });
    let next = archive.manifest.claimed_by(LeaderEpoch(2)).unwrap();
    let next = paged.publish(archive.manifest.version(), next, ObjectId::random().0).await.unwrap();
    let partition = next.partition();
    let orphans = async || {
        let mut out = Out::to(Vec::new(), true);
        tier::verify(&archive.store, None, &mut out).await.unwrap();
        let printed = String::from_utf8(out.finish().unwrap()).unwrap();
        serde_json::from_str::<serde_json::Value>(printed.lines().last().unwrap()).unwrap()["orphans"].clone()
    };
    assert_eq!((next.leaves().count(), orphans().await), (1, 0.into()));
    let leaf = bucket.get(&layout::leaf(partition, next.leaves().next().unwrap().id), 1 << 20).await.unwrap();
    bucket.create(&layout::leaf(partition, ObjectId::random().0), leaf).await.unwrap();
    assert_eq!(orphans().await, 1);
}

#[tokio::test]
async fn where_a_list_of_objects_is_gone_the_others_are_looked_at_and_nothing_is_called_an_orphan() {
    let archive = Archive::new().await;
    let paged = ManifestStore::with_limits(archive.store.bucket().clone(), Limits { inline: 1, keep: 1, leaf: 5 });
    let next = archive.manifest.claimed_by(LeaderEpoch(2)).unwrap();
    let next = paged.publish(archive.manifest.version(), next, ObjectId::random().0).await.unwrap();
    let leaf = layout::leaf(next.partition(), next.leaves().next().unwrap().id);
    std::fs::remove_file(archive.dir.path().join(leaf.as_str())).unwrap();
    std::fs::remove_file(archive.path_of(ObjectKind::Parquet)).unwrap();
    // It knows no leaf from before.
    let store = ManifestStore::new(archive.store.bucket().clone());
    let lines = |out: Out<Vec<u8>>| -> Vec<serde_json::Value> {
        let printed = String::from_utf8(out.finish().unwrap()).unwrap();
        printed.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };

    let mut out = Out::to(Vec::new(), true);
    tier::verify(&store, None, &mut out).await.unwrap();
    let verified = lines(out);

    assert_eq!(verified.len(), 3, "{verified:?}");
    assert!(verified[0]["problem"].as_str().unwrap().contains("is not in the bucket"), "{verified:?}");
    assert_eq!(verified[1]["problem"], "the object is missing");
    assert_eq!((&verified[2]["problems"], &verified[2]["objects"]), (&2.into(), &1.into()));
    assert!(verified[2]["orphans"].is_null());

    let mut out = Out::to(Vec::new(), true);
    let code = tier::describe(&store, "logs", true, &mut out).await.unwrap();
    let described = lines(out);
    assert_eq!((described.len(), &described[1]["kind"]), (2, &"parquet".into()), "{described:?}");
    assert_eq!(format!("{code:?}"), format!("{:?}", std::process::ExitCode::FAILURE));
}

#[tokio::test]
async fn archived_objects_and_their_manifest_are_shown() {
    let archive = Archive::new().await;
    let (lines, error) = dumped_path(&archive.path_of(ObjectKind::Raw), false).await;
    assert_eq!(
        (error, &lines[0]["end_offset"], lines.last().unwrap()["base_offset"].as_u64()),
        (None, &9.into(), Some(6))
    );
    let (lines, error) = dumped_path(&archive.path_of(ObjectKind::Parquet), true).await;
    assert_eq!((error, &lines[0]["rows"]), (None, &9.into()));
    let values: Vec<_> = lines.iter().filter_map(|line| line["value"].as_str()).collect();
    assert_eq!((values.len(), values[0], values[8]), (9, "line 9", "line 17"));
    let key = varve_tiering::layout::manifest(archive.manifest.partition(), archive.manifest.version());
    let (lines, error) = dumped_path(&archive.dir.path().join(key.as_str()), false).await;
    assert_eq!((error, &lines[0]["topic"], &lines[0]["objects"]), (None, &"logs".into(), &2.into()));
}

#[tokio::test]
async fn a_topic_is_described_by_partition() {
    let archive = Archive::new().await;
    let mut out = Out::to(Vec::new(), true);
    tier::describe(&archive.store, "logs", true, &mut out).await.unwrap();
    let printed = String::from_utf8(out.finish().unwrap()).unwrap();
    let lines: Vec<serde_json::Value> = printed.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((lines.len(), &lines[0]["raw_objects"], &lines[0]["parquet_objects"]), (3, &1.into(), &1.into()));
    assert_eq!(lines[2]["kind"], "parquet");
    let error = tier::describe(&archive.store, "other", false, &mut Out::to(Vec::new(), true)).await.unwrap_err();
    assert!(error.to_string().contains("nothing is archived of a topic other"));
}

#[tokio::test]
async fn every_part_of_a_shared_object_is_shown_with_its_owner() {
    let (mut object, mut parts) = (Vec::new(), Vec::new());
    for number in 0..2 {
        let id = PartitionId { topic: TopicId::random(), index: PartitionIndex(number) };
        let mut builder = RawBuilder::new(offset(0), offset(9));
        builder.push(&segment()).unwrap();
        let (tail, _) = builder.finish(Attachments::default()).unwrap();
        let start = object.len() as u64;
        object.extend([segment(), tail].concat());
        let range = start..object.len() as u64;
        parts.push(SharedPart { partition: id, base: offset(0), end: offset(9), range });
    }
    object.extend(encode_directory(&parts));
    let key = layout::shared(ObjectId::random().0);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(key.as_str());
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(&path, &object).unwrap();
    let (lines, error) = dumped_path(&path, false).await;
    assert_eq!(error, None);
    let owners: Vec<_> = lines.iter().filter(|line| !line["shared_at"].is_null()).collect();
    assert_eq!(owners.len(), 2);
    assert_eq!(owners[1]["topic_id"], parts[1].partition.topic.to_string());
    assert_eq!(lines.iter().filter(|line| line["end_offset"] == 9).count(), 2, "{lines:?}");
    std::fs::write(&path, [&object[..20], &[255], &object[21..]].concat()).unwrap();
    assert!(dumped_path(&path, false).await.1.is_some(), "damage in a part is told");
}
