//! The archiver on a real local log and a bucket in memory, with a clock that the test moves.

mod crash;
mod disabled;
mod lineage;
mod log_start;
mod shared;

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64, AtomicU32, Ordering},
    },
    time::Duration,
};

use parking_lot::RwLock;
use tokio::time::Instant;
use varve_log::{
    format::{BatchBuilder, ControlRecord, RecordContent},
    local::{AppendContext, AppendOrigin, LocalLog, LogConfig, LogDir, LogDirOwner, RecoveryStart},
};
use varve_metadata::{
    config::{TopicConfig, TopicDefaults},
    model::{
        BrokerId, HighWatermark, LastStableOffset, LeaderEpoch, LogStartOffset, Offset, PartitionIndex, ProducerEpoch,
        ProducerId, Sequence, Timestamp,
    },
};

use super::{
    Archiver, ArchiverMetrics, ArchiverOptions, HotPressure, LocalPartition, Sharing,
    slot::Slot,
    tend::{TendError, Tended, Tools},
};
use crate::{
    layout::Version,
    manifest::Manifest,
    manifest::tests::{at, empty, partition},
    tier::{
        bucket::{Bucket, BucketMetrics, BucketOptions},
        manifests::ManifestStore,
        pace::ByteRate,
        partition::RemotePartition,
    },
};

const START: i64 = 1_700_000_000_000;
const HOUR: Duration = Duration::from_secs(3600);

/// One partition on one broker, and its clock.
struct Local {
    _directory: tempfile::TempDir,
    log: LocalLog,
    epoch: AtomicU32,
    is_led: AtomicBool,
    config: RwLock<Arc<TopicConfig>>,
    now: AtomicI64,
    persisted_start: RwLock<Option<LogStartOffset>>,
}

impl Local {
    fn new(settings: &[(&str, &str)]) -> Arc<Local> {
        let directory = tempfile::tempdir().unwrap();
        let config = resolve(settings);
        let log_config = LogConfig::new(&config, HOUR, HOUR);
        let (log, _) =
            LocalLog::open(&directory.path().join("t-0"), Arc::new(log_config), RecoveryStart::NEW, stamp(START))
                .unwrap();
        Arc::new(Local {
            _directory: directory,
            log,
            epoch: AtomicU32::new(1),
            is_led: AtomicBool::new(true),
            config: RwLock::new(Arc::new(config)),
            now: AtomicI64::new(START),
            persisted_start: RwLock::default(),
        })
    }

    fn now(&self) -> Timestamp {
        stamp(self.now.load(Ordering::SeqCst))
    }

    fn pass(&self, time: Duration) {
        self.now.fetch_add(time.as_millis() as i64, Ordering::SeqCst);
    }

    fn set(&self, settings: &[(&str, &str)]) {
        *self.config.write() = Arc::new(resolve(settings));
    }

    /// Appends `count` records of about a kilobyte, stamped with the clock.
    fn append(&self, count: usize) {
        let mut batch = BatchBuilder::new(Offset::ZERO);
        for _ in 0..count {
            batch.push(RecordContent {
                timestamp: Some(self.now()),
                value: Some(&[7; 1000]),
                ..RecordContent::default()
            });
        }
        self.append_batch(&batch.build().unwrap(), AppendOrigin::Client);
    }

    fn append_batch(&self, batch: &[u8], origin: AppendOrigin) {
        let context = AppendContext { leader_epoch: self.leader_epoch(), now: self.now(), origin };
        let end = self.log.append(batch, context).unwrap().end;
        self.log.advance_high_watermark(end.0);
    }

    fn begin_transaction(&self, producer: ProducerId) {
        let epoch = ProducerEpoch::from_wire(0).unwrap();
        let mut batch =
            BatchBuilder::new(Offset::ZERO).producer(producer, epoch, Some(Sequence::default())).transactional();
        batch.push(RecordContent { timestamp: Some(self.now()), ..RecordContent::default() });
        self.append_batch(&batch.build().unwrap(), AppendOrigin::Client);
    }

    fn abort_transaction(&self, producer: ProducerId) {
        let abort = ControlRecord::Abort { coordinator_epoch: 0 };
        let batch = abort.batch(producer, ProducerEpoch::from_wire(0).unwrap(), self.now());
        self.append_batch(&batch, AppendOrigin::Coordinator);
    }

    /// As the broker does now and then (`log.flush.start.offset.checkpoint.interval.ms`).
    fn write_down_the_start(&self) {
        let home = tempfile::tempdir().unwrap();
        let owner = LogDirOwner { cluster_id: "c".into(), node: BrokerId(1) };
        let directory = LogDir::open(home.path(), &owner).unwrap();
        directory.save_log_starts(&[(empty().topic(), PartitionIndex(0), &self.log)]).unwrap();
    }

    fn segment_files(&self) -> usize {
        let names = std::fs::read_dir(self.log.dir()).unwrap().map(|entry| entry.unwrap().file_name());
        names.filter(|name| name.to_str().unwrap().ends_with(".log")).count()
    }
}

impl LocalPartition for Local {
    fn log(&self) -> &LocalLog {
        &self.log
    }

    fn is_led(&self) -> bool {
        self.is_led.load(Ordering::SeqCst)
    }

    fn leader_epoch(&self) -> LeaderEpoch {
        LeaderEpoch(self.epoch.load(Ordering::SeqCst))
    }

    fn last_stable_offset(&self) -> LastStableOffset {
        let HighWatermark(end) = HighWatermark(self.log.end().0);
        LastStableOffset(self.log.first_unstable().map_or(end, |first| first.min(end)))
    }

    fn topic_config(&self) -> Arc<TopicConfig> {
        self.config.read().clone()
    }

    fn log_start_moved(&self, start: LogStartOffset) {
        *self.persisted_start.write() = Some(start);
    }
}

fn resolve(settings: &[(&str, &str)]) -> TopicConfig {
    let overrides: BTreeMap<String, String> =
        settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    TopicConfig::resolve(&TopicDefaults::default(), &overrides).unwrap()
}

fn stamp(millis: i64) -> Timestamp {
    Timestamp::from_wire(millis).unwrap()
}

fn remote_in(bucket: &Bucket) -> Arc<RemotePartition> {
    let manifest = empty();
    Arc::new(RemotePartition::new(ManifestStore::new(bucket.clone()), partition(), manifest.topic().clone()))
}

fn tools() -> Tools {
    Tools {
        rate: Arc::new(ByteRate::new(None)),
        sharing: Sharing::default(),
        pool: None,
        metrics: ArchiverMetrics::new(),
        regular: HOUR,
        pressure: Arc::new(HotPressure::new(None)),
        claim: None,
    }
}

struct Rig {
    local: Arc<Local>,
    remote: Arc<RemotePartition>,
    tended: Tended,
    tools: Tools,
}

impl Rig {
    fn new(settings: &[(&str, &str)]) -> Rig {
        let (local, remote) = (Local::new(settings), remote_in(&Bucket::memory()));
        let tended = Tended::new(Arc::clone(&local) as Arc<dyn LocalPartition>, Arc::clone(&remote));
        Rig { local, remote, tended, tools: tools() }
    }

    async fn look(&self) -> Duration {
        self.tended.look(&self.tools, &Slot::default(), self.local.now()).await.unwrap()
    }

    fn archived(&self) -> (u64, u64) {
        let bounds = self.remote.bounds();
        (bounds.start.0.get(), bounds.end.get())
    }
}

#[tokio::test]
async fn sealed_segments_are_archived_and_the_active_one_is_not() {
    let rig = Rig::new(&[]);
    rig.local.append(10);
    rig.local.log.roll().unwrap();
    rig.local.append(5);
    rig.look().await;
    assert_eq!(rig.archived(), (0, 10));
    let object = rig.remote.find(at(3)).await.unwrap().unwrap();
    assert_eq!((object.base, object.end, object.records), (at(0), at(10), 10));
    assert_eq!(rig.local.segment_files(), 2, "the local copy stays for its retention");
    rig.look().await;
    assert_eq!(rig.remote.manifest().version(), Version(2), "claimed, published, and nothing twice");
}

#[tokio::test]
async fn a_quiet_partition_reaches_the_archive_within_its_lag() {
    let rig = Rig::new(&[("varve.archive.lag.ms", "60000")]);
    let mut waited = Duration::ZERO;
    let mut next = rig.look().await;
    rig.local.pass(Duration::from_millis(1));
    rig.local.append(1);
    while rig.archived().1 == 0 {
        assert!(next >= Duration::from_millis(100) && waited < Duration::from_secs(60), "{next:?} after {waited:?}");
        rig.local.pass(next);
        waited += next;
        next = rig.look().await;
    }
    assert!(waited <= Duration::from_secs(50), "{waited:?}");
}

#[tokio::test]
async fn nothing_undecided_goes_up_and_aborted_ranges_go_with_the_object() {
    let rig = Rig::new(&[]);
    let producer = ProducerId::from_wire(9).unwrap();
    rig.local.append(2);
    rig.local.begin_transaction(producer);
    rig.local.log.roll().unwrap();
    let again = rig.look().await;
    assert_eq!(rig.archived(), (0, 0));
    assert!(again <= Duration::from_secs(5), "it comes back soon");
    rig.local.abort_transaction(producer);
    rig.look().await;
    assert_eq!(rig.archived(), (0, 3));
    // The marker lies in the next segment; the object tells of the abort all the same.
    let object = rig.remote.find(at(2)).await.unwrap().unwrap();
    let key = rig.remote.manifest().key_of(&object);
    let bytes = rig.remote.bucket().get(&key, 1 << 20).await.unwrap();
    let meta = crate::raw::RawMeta::parse(&bytes, object.bytes).unwrap();
    assert_eq!(meta.aborted.iter().map(|aborted| (aborted.first, aborted.last)).collect::<Vec<_>>(), [(at(2), at(3))]);
}

#[tokio::test]
async fn local_retention_gives_up_only_what_the_manifest_covers() {
    let rig = Rig::new(&[("remote.log.copy.disable", "true"), ("retention.ms", "-1")]);
    rig.local.append(10);
    rig.local.log.roll().unwrap();
    rig.local.pass(HOUR);
    rig.local.append(10);
    rig.look().await;
    assert_eq!(rig.local.log.local_start(), at(0));
    rig.local.set(&[("local.retention.ms", "1000"), ("retention.ms", "-1")]);
    rig.look().await;
    assert_eq!((rig.archived(), rig.local.log.local_start()), ((0, 10), at(10)));
    assert_eq!(rig.local.log.start(), LogStartOffset(at(0)), "the records are still there, in the archive");
    assert_eq!(rig.tools.metrics.deleted_local_segments.get(), 1);
    // The files stay for file.delete.delay.ms.
    let names = || {
        std::fs::read_dir(rig.local.log.dir())
            .unwrap()
            .filter(|e| e.as_ref().unwrap().file_name().to_str().unwrap().ends_with(".deleted"))
            .count()
    };
    assert!(names() > 0);
    rig.local.pass(Duration::from_secs(61));
    rig.look().await;
    assert_eq!(names(), 0);
}

#[tokio::test]
async fn total_retention_by_time_counts_both_tiers() {
    let rig = Rig::new(&[("retention.ms", "7200000"), ("local.retention.ms", "1000")]);
    for _ in 0..3 {
        rig.local.append(10);
        rig.local.log.roll().unwrap();
        rig.look().await;
        rig.local.pass(HOUR);
    }
    rig.look().await;
    assert_eq!((rig.archived(), rig.local.log.start().0), ((10, 30), at(10)));
    assert_eq!(*rig.local.persisted_start.read(), Some(LogStartOffset(at(10))));
    assert_eq!(rig.remote.manifest().removed().len(), 1, "the object goes after the grace period");
    rig.local.pass(10 * HOUR);
    rig.look().await;
    assert_eq!((rig.archived(), rig.local.log.start().0), ((30, 30), at(30)));
}

#[tokio::test]
async fn total_retention_by_size_counts_each_record_once() {
    let rig = Rig::new(&[("retention.bytes", "25000"), ("retention.ms", "-1")]);
    for _ in 0..4 {
        rig.local.append(10);
        rig.local.log.roll().unwrap();
        rig.look().await;
    }
    // Four segments of a little more than 10000 bytes, in the archive and locally: two stay, and one that would make the rest
    // smaller than the limit.
    assert_eq!((rig.archived(), rig.local.log.start().0), ((10, 40), at(10)));
}

#[tokio::test]
async fn retention_also_takes_what_never_reached_the_archive() {
    let rig = Rig::new(&[("retention.ms", "1000"), ("varve.archive.lag.ms", "-1")]);
    rig.local.append(10);
    rig.local.pass(HOUR);
    rig.look().await;
    assert_eq!((rig.local.log.start().0, rig.local.log.end().0), (at(10), at(10)));
    rig.local.append(10);
    rig.local.log.roll().unwrap();
    rig.look().await;
    assert_eq!(rig.archived(), (10, 20), "what follows begins where the log does");
}

#[tokio::test]
async fn a_topic_without_the_archive_has_local_retention_alone() {
    let settings = [("remote.storage.enable", "false"), ("retention.ms", "3600000")];
    let rig = Rig::new(&settings);
    rig.local.append(10);
    rig.local.log.roll().unwrap();
    rig.local.append(10);
    rig.look().await;
    assert_eq!((rig.archived(), rig.remote.manifest().version()), ((0, 0), Version::NONE));
    rig.local.pass(2 * HOUR);
    rig.local.append(1);
    rig.look().await;
    assert_eq!((rig.local.log.start().0, rig.local.segment_files()), (at(10), 2));
    rig.local.write_down_the_start();
    rig.look().await;
    assert_eq!(rig.local.segment_files(), 1, "a restart does not bring the log start back before them");
}

#[tokio::test]
async fn a_compacted_topic_loses_nothing_by_time() {
    let rig = Rig::new(&[("cleanup.policy", "compact"), ("retention.ms", "1000"), ("local.retention.ms", "1000")]);
    let mut batch = BatchBuilder::new(Offset::ZERO);
    batch.push(RecordContent { timestamp: Some(rig.local.now()), key: Some(b"k"), ..RecordContent::default() });
    rig.local.append_batch(&batch.build().unwrap(), AppendOrigin::Client);
    rig.local.log.roll().unwrap();
    rig.local.pass(100 * HOUR);
    rig.look().await;
    assert_eq!((rig.archived(), rig.local.log.local_start()), ((0, 1), at(0)));
}

#[tokio::test]
async fn a_deposed_leader_stops() {
    let rig = Rig::new(&[]);
    rig.remote.update(|manifest| manifest.claimed_by(LeaderEpoch(2))).await.unwrap();
    rig.local.append(10);
    rig.local.log.roll().unwrap();
    let outcome = rig.tended.look(&rig.tools, &Slot::default(), rig.local.now()).await;
    assert!(matches!(outcome, Err(TendError::Deposed)), "{outcome:?}");
    rig.local.epoch.store(3, Ordering::SeqCst);
    rig.look().await;
    assert_eq!(rig.archived(), (0, 10));
}

#[tokio::test]
async fn an_archive_beyond_the_local_log_is_left_alone() {
    let (first, second) = (Rig::new(&[]), Local::new(&[]));
    first.local.append(10);
    first.local.log.roll().unwrap();
    first.look().await;
    let lost = Tended::new(second.clone() as Arc<dyn LocalPartition>, Arc::clone(&first.remote));
    let outcome = lost.look(&first.tools, &Slot::default(), second.now()).await;
    assert!(matches!(outcome, Err(TendError::LocalLogLost { .. })), "{outcome:?}");
}

async fn until(what: &str, mut met: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(600);
    while !met() {
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn options(local: &Arc<Local>) -> ArchiverOptions {
    let clock = Arc::clone(local);
    ArchiverOptions { clock: Arc::new(move || clock.now()), ..ArchiverOptions::default() }
}

#[tokio::test(start_paused = true)]
async fn a_roll_wakes_the_daemon() {
    let (local, remote) = (Local::new(&[("varve.archive.lag.ms", "-1")]), remote_in(&Bucket::memory()));
    let archiver = Archiver::start(options(&local), ArchiverMetrics::new());
    archiver.add(local.clone(), remote.clone(), Duration::ZERO);
    until("first look", || remote.is_loaded()).await;
    let before = Instant::now();
    local.append(10);
    local.log.roll().unwrap();
    until("the segment is archived", || remote.bounds().end == at(10)).await;
    assert!(before.elapsed() < Duration::from_secs(5), "it did not wait for the regular look");
    archiver.stop().await;
}

#[tokio::test(start_paused = true)]
async fn when_the_bucket_is_down_hot_data_stays_and_goes_up_later() {
    let directory = tempfile::tempdir().unwrap();
    let url = format!("file://{}/bucket", directory.path().display());
    let patient = BucketOptions { attempts: 2, ..BucketOptions::default() };
    let bucket = Bucket::open(&url, patient, BucketMetrics::new()).await.unwrap();
    let (local, remote) = (Local::new(&[("local.retention.ms", "1")]), remote_in(&bucket));
    remote.refresh().await.unwrap();
    // A file in the place of the staging directory makes every write fail.
    let staging = directory.path().join("bucket/.staging");
    std::fs::remove_dir_all(&staging).unwrap();
    std::fs::write(&staging, b"in the way").unwrap();
    let archiver = Archiver::start(options(&local), ArchiverMetrics::new());
    archiver.add(local.clone(), remote.clone(), Duration::ZERO);
    local.append(10);
    local.log.roll().unwrap();
    local.pass(HOUR);
    until("failures", || archiver.metrics().failures.get() >= 3).await;
    assert_eq!(local.log.local_start(), at(0));
    std::fs::remove_file(&staging).unwrap();
    std::fs::create_dir(&staging).unwrap();
    until("archived and given up locally", || local.log.local_start() == at(10)).await;
    assert_eq!(remote.bounds().end, at(10));
    archiver.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_deleted_topic_leaves_a_manifest_that_says_so() {
    let (local, remote) = (Local::new(&[]), remote_in(&Bucket::memory()));
    let archiver = Archiver::start(options(&local), ArchiverMetrics::new());
    archiver.add(local.clone(), remote.clone(), Duration::ZERO);
    local.append(10);
    local.log.roll().unwrap();
    until("archived", || remote.bounds().end == at(10)).await;
    archiver.delete(remote.clone());
    until("buried", || remote.manifest().deleted_at().is_some()).await;
    until("let go of", || archiver.metrics().partitions.get() == 0).await;
    assert_eq!(remote.manifest().removed().len(), 1);
    archiver.stop().await;
}

#[tokio::test(start_paused = true)]
async fn hot_bytes_press_on_producers_at_the_limit() {
    let (local, remote) = (Local::new(&[("varve.archive.lag.ms", "-1")]), remote_in(&Bucket::memory()));
    let limited = ArchiverOptions { hot_limit: Some(20_000), ..options(&local) };
    let archiver = Archiver::start(limited, ArchiverMetrics::new());
    archiver.add(local.clone(), remote, Duration::ZERO);
    local.append(30);
    until("pressure", || archiver.pressure().now() == super::Pressure::Refuse).await;
    assert!(archiver.metrics().hot_bytes.get() > 30_000);
    assert_eq!(archiver.metrics().time_to_full_seconds.get(), 0);
    archiver.stop().await;
}
