//! Upkeep of real logs under a clock that the tests move.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::Duration,
};

use tokio_util::sync::CancellationToken;
use varve_log::{
    format::{BatchBuilder, RecordContent},
    local::{AppendError, AppendOrigin, LogDirOwner},
};
use varve_metadata::{
    cluster::ClusterMetadata,
    config::ConfigTable,
    controller::{
        AlterError, AlterRequest, AlterResource, Alteration, BrokerRules, ConfigOp, CreationDefaults, NewTopic,
        Placement,
    },
    image::{BrokerImage, ConfigResource},
    model::{BrokerId, LogStartOffset, Offset, PartitionIndex, Timestamp},
    store::MemoryStore,
};

use super::{tasks::purge, *};
use crate::{
    config::{BrokerConfig, Sources},
    partition::{LookupError, NoKeeper, Partition, PartitionAppendError, Partitions, Storage, StorageSettings},
};

/// No test changes other settings than those of topics.
struct TopicsOnly;

impl BrokerRules for TopicsOnly {
    fn table(&self, _: &ConfigResource) -> &ConfigTable {
        crate::config::broker_table()
    }

    fn check(&self, _: &ConfigResource, _: &BTreeMap<String, String>, _: &[&str]) -> Result<(), AlterError> {
        Ok(())
    }
}

const NOW: i64 = 1_700_000_000_000;

fn at(millis: i64) -> Timestamp {
    Timestamp::from_wire(NOW + millis).unwrap()
}

fn offset(raw: u64) -> Offset {
    Offset::new(raw).unwrap()
}

/// A node's logs and their upkeep, without the tasks.
struct Logs {
    upkeep: Arc<Upkeep>,
    storage: Arc<Storage>,
    stop: CancellationToken,
    dir: tempfile::TempDir,
}

impl Logs {
    async fn new() -> Logs {
        Logs::at(tempfile::tempdir().unwrap()).await
    }

    async fn at(dir: tempfile::TempDir) -> Logs {
        let config = BrokerConfig::load(&Sources { overrides: Vec::new(), ..Sources::default() }).unwrap().config;
        let node = BrokerId(1);
        let metadata = ClusterMetadata::start(Arc::new(MemoryStore::new()), node, Default::default()).await.unwrap();
        let broker = BrokerImage {
            id: node,
            incarnation: uuid::Uuid::nil(),
            endpoints: Default::default(),
            rack: None,
            fenced: false,
            ..BrokerImage::default()
        };
        metadata.register(broker).await.unwrap();
        let partitions = Arc::new(Partitions::default());
        let settings = StorageSettings {
            dirs: vec![dir.path().to_owned()],
            recovery_threads: 2,
            producer_expiry: Duration::from_secs(60),
            max_transaction_timeout: Duration::from_secs(900),
            verify_transactions: false,
        };
        let owner = LogDirOwner { cluster_id: metadata.image().cluster_id().to_owned(), node };
        let storage = Storage::open(&owner, partitions.clone(), settings, Arc::new(NoKeeper)).unwrap();
        let metrics = UpkeepMetrics::new(&crate::metrics::Registry::new());
        let upkeep = Upkeep::new(partitions, metadata, UpkeepSettings::of(&config), metrics);
        Logs { upkeep, storage, stop: CancellationToken::new(), dir }
    }

    async fn create(&self, name: &str, overrides: &[(&str, &str)]) -> Arc<Partition> {
        self.try_create_with(name, overrides).await.unwrap()
    }

    async fn try_create(&self, name: &str) -> Result<Arc<Partition>, LookupError> {
        self.try_create_with(name, &[NO_ARCHIVE]).await
    }

    async fn try_create_with(&self, name: &str, overrides: &[(&str, &str)]) -> Result<Arc<Partition>, LookupError> {
        let topic = NewTopic {
            name: name.to_owned(),
            placement: Ok(Placement::Spread { partitions: Some(1), replication_factor: None }),
            overrides: overrides.iter().map(|(name, value)| (name.to_string(), Some(value.to_string()))).collect(),
        };
        let defaults = CreationDefaults { partitions: 1, replication_factor: 1 };
        let made = self.upkeep.metadata.create_topics(&[topic], defaults, false, None).await.unwrap();
        assert!(made[0].is_ok(), "{made:?}");
        self.follow().await;
        self.upkeep.partitions.find(name, PartitionIndex(0))
    }

    async fn alter(&self, topic: &str, name: &str, value: &str) {
        let change = AlterRequest {
            resource: AlterResource::Topic(topic.to_owned()),
            alteration: Alteration::Incremental([(name.to_owned(), ConfigOp::Set(value.to_owned()))].into()),
        };
        let altered = self.upkeep.metadata.alter_configs(&[change], &TopicsOnly, false).await.unwrap();
        assert_eq!(altered, [Ok(())]);
        self.follow().await;
    }

    async fn follow(&self) {
        self.storage.apply(&self.upkeep.metadata.image()).await;
    }

    fn sweep(&self, now: Timestamp) {
        self.upkeep.sweep(&self.upkeep.metadata.image(), now, &self.stop);
    }

    /// Names of the files in a partition's directory that end in `suffix`.
    fn files(&self, partition: &str, suffix: &str) -> Vec<PathBuf> {
        let all = std::fs::read_dir(self.dir.path().join(partition)).unwrap();
        all.map(|entry| entry.unwrap().path()).filter(|path| path.to_string_lossy().ends_with(suffix)).collect()
    }
}

fn append(partition: &Arc<Partition>, millis: i64, key: &str) {
    let mut batch = BatchBuilder::new(Offset::ZERO);
    let (key, value) = (Some(key.as_bytes()), Some([7; 100].as_slice()));
    batch.push(RecordContent { timestamp: Some(at(millis)), key, value, headers: &[] });
    partition.append(&batch.build().unwrap(), AppendOrigin::Client, at(millis)).unwrap();
}

const NO_ARCHIVE: (&str, &str) = ("remote.storage.enable", "false");

#[tokio::test]
async fn a_topic_without_archive_loses_what_is_older_than_retention_ms() {
    let logs = Logs::new().await;
    let log = logs.create("t", &[NO_ARCHIVE, ("retention.ms", "1000"), ("segment.ms", "100")]).await;
    for millis in [0, 200, 1500] {
        append(&log, millis, "k");
    }
    logs.sweep(at(1201));
    assert_eq!((log.log_start(), log.log().local_start()), (LogStartOffset(offset(2)), offset(2)));
    assert_eq!(logs.files("t-0", ".log").len(), 1);
    assert_eq!(logs.files("t-0", ".log.deleted").len(), 2, "they stay for file.delete.delay.ms");
    let (none, next) = logs.upkeep.removed.take(Duration::from_secs(30));
    assert!(none.is_empty() && next.is_some());
    logs.upkeep.removed.take(Duration::from_secs(90)).0.into_iter().for_each(purge);
    assert!(logs.files("t-0", ".deleted").is_empty());
    assert_eq!(logs.upkeep.metrics.expired_segments.get(), 2);
}

#[tokio::test]
async fn a_quiet_topic_is_sealed_by_segment_ms_and_its_last_records_expire() {
    let logs = Logs::new().await;
    let log = logs.create("t", &[NO_ARCHIVE, ("retention.ms", "1000"), ("segment.ms", "100")]).await;
    append(&log, 0, "k");
    logs.sweep(at(50));
    assert_eq!(log.log().active().0, offset(0));
    logs.sweep(at(101));
    assert_eq!((log.log().active().0, log.log().local_start()), (offset(1), offset(0)));
    logs.sweep(at(1001));
    assert_eq!((log.log().size(), log.log_start()), (0, LogStartOffset(offset(1))));
}

#[tokio::test]
async fn an_archived_topic_is_left_to_the_archiver() {
    let logs = Logs::new().await;
    let log = logs.create("t", &[("retention.ms", "1000"), ("local.retention.ms", "10"), ("segment.ms", "100")]).await;
    for millis in [0, 200] {
        append(&log, millis, "k");
    }
    logs.sweep(at(100_000));
    assert_eq!((log.log_start(), log.log().local_start()), (LogStartOffset(offset(0)), offset(0)));
    assert_eq!(log.log().active().0, offset(2), "but sealed");
}

#[tokio::test]
async fn retention_that_is_changed_holds_at_the_next_look() {
    let logs = Logs::new().await;
    let log = logs.create("t", &[NO_ARCHIVE, ("segment.ms", "100")]).await;
    append(&log, 0, "k");
    append(&log, 200, "k");
    logs.sweep(at(5000));
    assert_eq!(log.log().local_start(), offset(0));
    logs.alter("t", "retention.bytes", "1").await;
    logs.sweep(at(5000));
    assert_eq!(log.log().local_start(), offset(1), "the last segment is not wholly in front of the newest byte");
}

#[tokio::test]
async fn files_below_a_log_start_that_was_moved_by_a_client_go() {
    let logs = Logs::new().await;
    let log = logs.create("t", &[NO_ARCHIVE, ("segment.ms", "100")]).await;
    append(&log, 0, "k");
    append(&log, 200, "k");
    log.delete_records(Some(offset(1))).unwrap();
    logs.sweep(at(300));
    assert_eq!(logs.files("t-0", ".log").len(), 1);
}

#[tokio::test]
async fn what_is_sealed_is_flushed() {
    let logs = Logs::new().await;
    let log = logs.create("t", &[("segment.ms", "100")]).await;
    append(&log, 0, "k");
    logs.sweep(at(50));
    assert_eq!(log.log().recovery_point(), offset(0));
    logs.sweep(at(500));
    assert_eq!(log.log().recovery_point(), offset(1));
}

#[tokio::test]
async fn the_internal_topics_are_not_archived() {
    let logs = Logs::new().await;
    let log = logs.create("__consumer_offsets", &[("retention.ms", "1000")]).await;
    append(&log, 0, "k");
    assert!(!logs.upkeep.metadata.image().topic("__consumer_offsets").unwrap().config.remote_storage);
    logs.sweep(at(1001));
    assert_eq!(log.log_start(), LogStartOffset(offset(1)));
}

#[tokio::test]
async fn work_on_a_deleted_topic_touches_neither_its_successor_nor_the_directory() {
    let logs = Logs::new().await;
    let settings = [NO_ARCHIVE, ("cleanup.policy", "compact,delete"), ("segment.ms", "100")];
    let old = logs.create("t", &settings).await;
    append(&old, 0, "k");
    append(&old, 200, "k");
    let id = logs.upkeep.metadata.image().topic("t").unwrap().id;
    logs.upkeep.metadata.delete_topics(&[id], None).await.unwrap();
    logs.follow().await;
    let new = logs.create("t", &settings).await;
    append(&new, 0, "k");
    let config = logs.upkeep.metadata.image().topic("t").unwrap().config.clone();
    let removed = sweep::sweep(&old, &config, false, at(100_000_000_000));
    assert!(removed.paths.is_empty());
    let refused = old.append(&[], AppendOrigin::Client, at(300));
    assert!(refused.is_err() || old.log().size() > 0);
    assert!(!new.log_dir().is_failed());
    assert_eq!(logs.files("t-0", ".log").len(), 1);
    assert_eq!(new.log().size(), std::fs::metadata(&logs.files("t-0", ".log")[0]).unwrap().len());
}

#[tokio::test]
async fn silent_producers_are_forgotten() {
    let logs = Logs::new().await;
    let log = logs.create("t", &[]).await;
    let mut batch = BatchBuilder::new(Offset::ZERO).producer(
        varve_metadata::model::ProducerId::from_wire(5).unwrap(),
        Default::default(),
        Some(Default::default()),
    );
    batch.push(RecordContent { timestamp: Some(at(0)), key: None, value: None, headers: &[] });
    log.append(&batch.build().unwrap(), AppendOrigin::Client, at(0)).unwrap();
    logs.upkeep.expire_producers(at(59_000));
    assert_eq!(log.log().producer_count(), 1);
    logs.upkeep.expire_producers(at(61_000));
    assert_eq!((log.log().producer_count(), logs.upkeep.metrics.expired_producers.get()), (0, 1));
}

/// A disk of one MiB; `None` where tests may not mount.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(path: &Path) -> Option<SmallDisk> {
        let mount = Command::new("mount").args(["-t", "tmpfs", "-o", "size=1m", "tmpfs"]).arg(path).output();
        mount.ok()?.status.success().then(|| SmallDisk(path.to_owned()))
    }

    fn fill(&self) {
        let error = std::fs::write(self.0.join("filler"), vec![0; 2 << 20]).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::StorageFull);
    }

    fn empty(&self) {
        std::fs::remove_file(self.0.join("filler")).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).output();
    }
}

#[tokio::test]
async fn a_full_disk_refuses_what_needs_room_and_takes_nothing_offline() {
    let dir = tempfile::tempdir().unwrap();
    let Some(disk) = SmallDisk::mount(dir.path()) else {
        eprintln!("skipped: mounting a small disk needs root");
        return;
    };
    let logs = Logs::at(dir).await;
    let log = logs.create("t", &[NO_ARCHIVE, ("segment.ms", "100")]).await;
    let produce = |log: &Arc<Partition>| {
        let mut batch = BatchBuilder::new(Offset::ZERO);
        let value = vec![7; 10_000];
        batch.push(RecordContent { timestamp: Some(at(0)), key: None, value: Some(&value), headers: &[] });
        log.append(&batch.build().unwrap(), AppendOrigin::Client, at(0)).map(|appended| appended.base)
    };
    assert_eq!(produce(&log).unwrap(), offset(0));

    disk.fill();
    let refused = produce(&log).unwrap_err();
    assert!(
        matches!(refused, PartitionAppendError::Refused(AppendError::Storage { no_space: true, .. })),
        "{refused:?}"
    );
    logs.sweep(at(1000));
    assert!(logs.try_create("u").await.is_err(), "there is no room for its files");
    assert!(log.log_dir().is_full() && !log.log_dir().is_failed());
    assert_eq!(log.log().read(offset(0), offset(1), 1 << 20, true).unwrap().first, offset(0), "reads go on");

    disk.empty();
    assert_eq!(produce(&log).unwrap(), offset(1));
    logs.storage.open_waiting().await;
    let other = logs.upkeep.partitions.find("u", PartitionIndex(0)).unwrap();
    assert_eq!(produce(&other).unwrap(), offset(0));
}
