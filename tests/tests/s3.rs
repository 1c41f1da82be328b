//! The bucket on real S3 protocol: an emulator server, directly and through a proxy that fails.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on may panic")]

use std::{
    net::SocketAddr,
    process::Command,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use varve_log::{
    format::{BatchBuilder, RecordContent},
    local::{AppendContext, AppendOrigin, LocalLog, LogConfig, RecoveryStart},
};
use varve_metadata::{
    config::TopicConfig,
    model::{
        LastStableOffset, LeaderEpoch, LogStartOffset, Offset, PartitionId, PartitionIndex, Timestamp, TopicId,
        TopicName,
    },
};
use varve_tests::{
    fault_proxy::{Fault, FaultProxy, weather},
    s3::S3Emulator,
};
use varve_tiering::{
    layout::{self, Version},
    manifest::{ObjectId, ObjectKind, RemoteObject},
    raw::RawMeta,
    tier::{
        archiver::{Archiver, ArchiverMetrics, ArchiverOptions, LocalPartition},
        bucket::{Bucket, BucketError, BucketMetrics, BucketOptions, S3Options},
        conformance,
        manifests::{ManifestStore, StoreError},
        partition::RemotePartition,
    },
};

const KEY: &str = "AWS_ACCESS_KEY_ID";
const EMULATOR: &str = "VARVE_TEST_S3_EMULATOR";

/// Everything that can go wrong on the way, in one list.
const ANY_FAULT: &[Fault] = &[
    Fault::Refuse(500),
    Fault::Refuse(503),
    Fault::CutBefore,
    Fault::DoneButAnswered(500),
    Fault::DoneButCut,
    Fault::CutBody(3),
    Fault::Slow(Duration::from_millis(30)),
];

/// Runs `test` in a process of its own that finds credentials in its environment, as AWS's chain does, and the emulator
/// that all tests here share. `name` is the test's.
fn on_s3(name: &str, test: impl AsyncFnOnce(SocketAddr)) {
    if let Ok(address) = std::env::var(EMULATOR) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        return runtime.block_on(test(address.parse().unwrap()));
    }
    static SHARED: OnceLock<S3Emulator> = OnceLock::new();
    let emulator = SHARED.get_or_init(|| {
        let emulator = S3Emulator::start().expect("the S3 emulator is one of the test tools");
        emulator.make_bucket("varve").unwrap();
        emulator
    });
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture", "--test-threads=1"])
        .env(EMULATOR, emulator.address().to_string())
        .env(KEY, "test")
        .env("AWS_SECRET_ACCESS_KEY", "test")
        .output()
        .unwrap();
    let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(child.status.success(), "{}\n{}", said(&child.stdout), said(&child.stderr));
    assert!(said(&child.stdout).contains("1 passed"), "{name} is not the name of a test");
}

/// The emulator's bucket under a prefix of the test's own, seen through `address`.
async fn bucket_at(address: SocketAddr, prefix: &str) -> Bucket {
    let options = BucketOptions {
        s3: S3Options {
            endpoint: Some(format!("http://{address}")),
            region: Some("us-east-1".into()),
            path_style: None,
        },
        attempts: 12,
        first_pause: Duration::from_millis(1),
        longest_pause: Duration::from_millis(20),
        ..BucketOptions::default()
    };
    Bucket::open(&format!("s3://varve/{prefix}"), options, BucketMetrics::new()).await.unwrap()
}

fn handle(bucket: &Bucket) -> RemotePartition {
    let partition = PartitionId { topic: TopicId::random(), index: PartitionIndex(0) };
    RemotePartition::new(ManifestStore::new(bucket.clone()), partition, TopicName::parse("weather").unwrap())
}

fn object(base: Offset) -> RemoteObject {
    RemoteObject {
        id: ObjectId::random(),
        kind: ObjectKind::Raw,
        base,
        end: base.plus(10),
        bytes: 1,
        log_bytes: 1,
        records: 10,
        max_timestamp: None,
        writer_epoch: LeaderEpoch(0),
        leader_epochs: Vec::new(),
        crc32c: 0,
        shared_at: None,
    }
}

#[test]
fn s3_keeps_the_promises_of_a_bucket() {
    on_s3("s3_keeps_the_promises_of_a_bucket", async |address| {
        conformance::check(&bucket_at(address, "calm/deep").await).await;
    });
}

#[test]
fn s3_keeps_them_in_any_weather() {
    on_s3("s3_keeps_them_in_any_weather", async |address| {
        for seed in 0..3 {
            let proxy = FaultProxy::start(address, weather(seed, 4, ANY_FAULT)).unwrap();
            conformance::check(&bucket_at(proxy.address(), &format!("weather-{seed}")).await).await;
            assert!(proxy.faults() > 10, "{} faults in {} requests", proxy.faults(), proxy.requests());
        }
    });
}

#[test]
fn a_publication_whose_answer_was_lost_counts_once() {
    on_s3("a_publication_whose_answer_was_lost_counts_once", async |address| {
        for lost in [Fault::DoneButAnswered(500), Fault::DoneButAnswered(503), Fault::DoneButCut] {
            // Every other PUT succeeds without the writer hearing of it.
            let decide = move |request: &varve_tests::fault_proxy::Request| {
                if request.method == "PUT" && request.number.is_multiple_of(2) { lost } else { Fault::None }
            };
            let proxy = FaultProxy::start(address, decide).unwrap();
            let remote = handle(&bucket_at(proxy.address(), "lost").await);
            for _ in 0..20 {
                remote.update(|manifest| manifest.with(LeaderEpoch(0), object(manifest.end()))).await.unwrap();
            }
            let calm = RemotePartition::new(
                ManifestStore::new(bucket_at(address, "lost").await),
                remote.partition(),
                remote.topic().clone(),
            );
            let manifest = calm.refresh().await.unwrap();
            assert_eq!((manifest.version(), manifest.object_count(), manifest.end().get()), (Version(20), 20, 200));
            assert!(proxy.faults() >= 5, "{}", proxy.faults());
        }
    });
}

#[test]
fn a_listing_of_all_manifests_that_breaks_off_is_begun_again() {
    on_s3("a_listing_of_all_manifests_that_breaks_off_is_begun_again", async |address| {
        let calm = bucket_at(address, "all").await;
        for _ in 0..2 {
            handle(&calm).update(|manifest| manifest.with(LeaderEpoch(0), object(manifest.end()))).await.unwrap();
        }
        for fault in [Fault::Refuse(503), Fault::CutBefore, Fault::DoneButCut] {
            let broken = AtomicU32::new(0);
            let decide = move |_: &varve_tests::fault_proxy::Request| {
                if broken.fetch_add(1, Ordering::SeqCst) < 3 { fault } else { Fault::None }
            };
            let proxy = FaultProxy::start(address, decide).unwrap();
            let store = ManifestStore::new(bucket_at(proxy.address(), "all").await);
            assert_eq!(store.all_versions().await.unwrap().len(), 2, "{fault:?}");
            assert_eq!(proxy.faults(), 3);
        }
    });
}

#[test]
fn writers_that_race_in_bad_weather_lose_no_update() {
    on_s3("writers_that_race_in_bad_weather_lose_no_update", async |address| {
        let proxy = FaultProxy::start(address, weather(11, 5, ANY_FAULT)).unwrap();
        let bucket = bucket_at(proxy.address(), "race").await;
        let first = handle(&bucket);
        let writers: Vec<Arc<RemotePartition>> = (0..3)
            .map(|_| Arc::new(RemotePartition::new(first.store().clone(), first.partition(), first.topic().clone())))
            .collect();
        let mut tasks = tokio::task::JoinSet::new();
        for writer in writers {
            tasks.spawn(async move {
                for _ in 0..8 {
                    writer.update(|manifest| manifest.with(LeaderEpoch(0), object(manifest.end()))).await.unwrap();
                }
            });
        }
        while let Some(done) = tasks.join_next().await {
            done.unwrap();
        }
        let manifest = first.refresh().await.unwrap();
        assert_eq!((manifest.version(), manifest.object_count(), manifest.end().get()), (Version(24), 24, 240));
    });
}

#[test]
fn a_large_object_arrives_though_its_parts_and_its_end_are_answered_with_errors() {
    on_s3("a_large_object_arrives_though_its_parts_and_its_end_are_answered_with_errors", async |address| {
        for fault in [Fault::DoneButAnswered(500), Fault::DoneButCut, Fault::Refuse(503), Fault::CutBefore] {
            let decide = move |request: &varve_tests::fault_proxy::Request| {
                let multipart = request.target.contains("uploadId");
                if multipart && request.number.is_multiple_of(2) { fault } else { Fault::None }
            };
            let proxy = FaultProxy::start(address, decide).unwrap();
            let bucket = bucket_at(proxy.address(), "large").await;
            let key = layout::shared(uuid::Uuid::new_v4());
            let content: Bytes = (0..40_000_000_u32).map(|at| (at >> 12) as u8 ^ at as u8).collect::<Vec<_>>().into();
            let mut writer = bucket.writer(key.clone());
            for piece in content.chunks(3_000_000) {
                writer.write(content.slice_ref(piece)).await.unwrap();
            }
            writer.finish().await.unwrap();
            assert!(bucket_at(address, "large").await.get(&key, 64 << 20).await.unwrap() == content, "{fault:?}");
        }
    });
}

#[test]
fn a_bucket_that_does_not_answer_is_given_up_in_time() {
    on_s3("a_bucket_that_does_not_answer_is_given_up_in_time", async |address| {
        let proxy = FaultProxy::start(address, |_| Fault::Stall).unwrap();
        let endpoint = Some(format!("http://{}", proxy.address()));
        let options = BucketOptions {
            s3: S3Options { endpoint, region: Some("us-east-1".into()), path_style: None },
            attempts: 2,
            attempt_timeout: Duration::from_millis(300),
            ..BucketOptions::default()
        };
        let bucket = Bucket::open("s3://varve/stalled", options, BucketMetrics::new()).await.unwrap();
        let given_up = async {
            let read = bucket.get(&layout::cluster(), 100).await;
            assert!(matches!(read, Err(BucketError::Unavailable { .. })), "{read:?}");
            let written = bucket.create(&layout::cluster(), Bytes::from_static(b"x")).await;
            assert!(matches!(written, Err(BucketError::Unknown { .. })), "{written:?}");
            let listed = ManifestStore::new(bucket.clone()).all_versions().await;
            assert!(matches!(listed, Err(StoreError::Bucket(BucketError::Unavailable { .. }))), "{listed:?}");
        };
        // The proxy never answers.
        tokio::time::timeout(Duration::from_secs(120), given_up).await.expect("nobody waits for ever");
        assert_eq!(bucket.metrics().requests("get", "error"), 2);
    });
}

/// A partition of this process whose log seals often.
struct Local {
    log: LocalLog,
    config: Arc<TopicConfig>,
}

impl LocalPartition for Local {
    fn log(&self) -> &LocalLog {
        &self.log
    }

    fn leader_epoch(&self) -> LeaderEpoch {
        LeaderEpoch(3)
    }

    fn last_stable_offset(&self) -> LastStableOffset {
        LastStableOffset(self.log.end().0)
    }

    fn topic_config(&self) -> Arc<TopicConfig> {
        Arc::clone(&self.config)
    }

    fn log_start_moved(&self, _: LogStartOffset) {}
}

#[test]
fn what_was_appended_reaches_the_bucket_byte_for_byte_in_any_weather() {
    on_s3("what_was_appended_reaches_the_bucket_byte_for_byte_in_any_weather", async |address| {
        let directory = tempfile::tempdir().unwrap();
        let now = Timestamp::from_wire(1_700_000_000_000).unwrap();
        let config = LogConfig { segment_bytes: 100_000, ..LogConfig::default() };
        let (log, _) = LocalLog::open(directory.path(), Arc::new(config), RecoveryStart::NEW, now).unwrap();
        let local = Arc::new(Local { log, config: Arc::new(TopicConfig::default()) });
        let proxy = FaultProxy::start(address, weather(77, 4, ANY_FAULT)).unwrap();
        let bucket = bucket_at(proxy.address(), "archiver").await;
        let remote = Arc::new(handle(&bucket));
        let options = ArchiverOptions { clock: Arc::new(move || now), ..ArchiverOptions::default() };
        let archiver = Archiver::start(options, ArchiverMetrics::new());
        archiver.add(local.clone(), Arc::clone(&remote), Duration::ZERO);

        let context = AppendContext { leader_epoch: LeaderEpoch(3), now, origin: AppendOrigin::Client };
        for nth in 0..200_u32 {
            let mut batch = BatchBuilder::new(Offset::ZERO);
            for _ in 0..10 {
                let value = [nth as u8; 700];
                batch.push(RecordContent { timestamp: Some(now), value: Some(&value), ..RecordContent::default() });
            }
            local.log.append(&batch.build().unwrap(), context).unwrap();
        }
        let sealed_end = local.log.active().0;
        let mut news = remote.subscribe();
        tokio::time::timeout(Duration::from_secs(300), async {
            while remote.bounds().end < sealed_end {
                news.changed().await.unwrap();
            }
        })
        .await
        .expect("all sealed segments are archived");
        archiver.stop().await;

        // Read back without the proxy, by a reader that knows nothing but the partition's id.
        let bucket = bucket_at(address, "archiver").await;
        let reader =
            RemotePartition::new(ManifestStore::new(bucket.clone()), remote.partition(), remote.topic().clone());
        let manifest = reader.refresh().await.unwrap();
        let objects = reader.objects(&manifest, Offset::ZERO, sealed_end).await.unwrap();
        assert!(objects.len() >= 10, "{} objects", objects.len());
        let mut archived = Vec::new();
        for object in &objects {
            let bytes = bucket.get_range(&manifest.key_of(object), object.range()).await.unwrap();
            assert_eq!(crc32c::crc32c(&bytes), object.crc32c);
            let meta = RawMeta::parse(&bytes, object.bytes).unwrap();
            archived.extend_from_slice(&bytes[..meta.footer.log_bytes as usize]);
        }
        let sealed = local.log.sealed_segments(Offset::ZERO).unwrap();
        let local_bytes: Vec<u8> =
            sealed.iter().flat_map(|segment| std::fs::read(&segment.log_path).unwrap()).collect();
        assert!(archived == local_bytes);
        assert!(proxy.faults() > 5, "{} faults in {} requests", proxy.faults(), proxy.requests());
    });
}
