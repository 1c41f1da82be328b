//! The cleaner, over logs without a node around them.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicI64, Ordering},
};

use varve_log::{
    format::{BatchBuilder, RecordContent, batches, records},
    local::{AppendContext, AppendOrigin, LocalLog, LogConfig, RecoveryStart},
};
use varve_metadata::{
    config::TopicDefaults,
    model::{LeaderEpoch, PartitionIndex, TopicId, TopicName},
};

use futures::future::BoxFuture;
use varve_log::local::OffsetAndTimestamp;

use super::*;
use crate::partition::{LogDirHealth, RemoteBatches, RemoteError, RemoteReader};

struct Logs {
    partitions: Vec<Arc<Partition>>,
    topic: Arc<TopicConfig>,
    checkpoints: Mutex<BTreeMap<PartitionId, Offset>>,
    /// Since records were written, in milliseconds.
    passed: AtomicI64,
}

impl CompactedLogs for Arc<Logs> {
    async fn list(&self) -> Vec<CompactedLog> {
        let log = |partition: &Arc<Partition>| CompactedLog {
            partition: partition.clone(),
            topic: self.topic.clone(),
            checkpoint: self.checkpoints.lock().get(&partition.id()).copied(),
        };
        self.partitions.iter().map(log).collect()
    }

    fn cleaned(&self, partition: &Partition, end: Offset) {
        self.checkpoints.lock().insert(partition.id(), end);
    }

    fn now(&self) -> Timestamp {
        Timestamp::from_wire(now().to_wire() + self.passed.load(Ordering::Relaxed)).unwrap()
    }
}

fn now() -> Timestamp {
    Timestamp::from_wire(1_700_000_000_000).unwrap()
}

/// A log with `rounds` sealed segments, each of which has the keys a and b again.
fn partition(dir: &std::path::Path, rounds: usize) -> Arc<Partition> {
    let id = PartitionId { topic: TopicId::random(), index: PartitionIndex(0) };
    let path = dir.join(id.topic.to_string());
    let (log, _) = LocalLog::open(&path, Arc::new(LogConfig::default()), RecoveryStart::NEW, now()).unwrap();
    let context = AppendContext { leader_epoch: LeaderEpoch(0), now: now(), origin: AppendOrigin::Client };
    for _ in 0..rounds {
        let mut batch = BatchBuilder::new(Offset::ZERO);
        for key in ["a", "b"] {
            let (key, value) = (Some(key.as_bytes()), Some(&b"v"[..]));
            batch.push(RecordContent { timestamp: Some(now()), key, value, headers: &[] });
        }
        log.append(&batch.build().unwrap(), context).unwrap();
        log.roll().unwrap();
    }
    let health = LogDirHealth::new(dir.to_owned());
    Partition::new(id, TopicName::parse("t").unwrap(), log, health, LeaderEpoch(0))
}

fn record_count(partition: &Partition) -> usize {
    let log = partition.log();
    let (mut next, mut count) = (log.local_start(), 0);
    while next < log.end().0 {
        let bytes = log.read(next, log.end().0, 1 << 20, true).unwrap().read().unwrap();
        for batch in batches(&bytes) {
            let batch = batch.unwrap();
            count += records(batch.payload(), batch.header().record_count).count();
            next = batch.header().next_offset();
        }
    }
    count
}

fn cleaner(partitions: Vec<Arc<Partition>>, stop: CancellationToken) -> Arc<LogCleaner<Arc<Logs>>> {
    cleaner_of(partitions, &[], stop)
}

fn cleaner_of(
    partitions: Vec<Arc<Partition>>,
    settings: &[(&str, &str)],
    stop: CancellationToken,
) -> Arc<LogCleaner<Arc<Logs>>> {
    let all = [("cleanup.policy", "compact")].iter().chain(settings);
    let overrides = all.map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let topic = TopicConfig::resolve(&TopicDefaults::default(), &overrides).unwrap();
    let logs = Logs { partitions, topic: Arc::new(topic), checkpoints: Mutex::default(), passed: AtomicI64::new(0) };
    let config = CleanerConfig {
        enabled: true,
        threads: 1,
        backoff: Duration::from_secs(1),
        dedupe_buffer_bytes: 1 << 20,
        max_bytes_per_second: None,
    };
    LogCleaner::new(
        Arc::new(logs),
        Arc::new(ArcSwap::from_pointee(config)),
        UpkeepMetrics::new(&crate::metrics::Registry::new()),
        stop,
    )
}

#[tokio::test]
async fn the_dirtiest_log_is_cleaned_first_and_each_only_while_it_is_dirty() {
    let dir = tempfile::tempdir().unwrap();
    let (small, large) = (partition(dir.path(), 2), partition(dir.path(), 9));
    let cleaner = cleaner(vec![small.clone(), large.clone()], CancellationToken::new());
    // Half of the large log is clean already, so the small one is dirtier.
    let half = large.log().sealed_segments(Offset::ZERO).unwrap()[4].base;
    cleaner.logs.cleaned(&large, half);
    assert!(cleaner.clone().clean_dirtiest().await);
    assert_eq!((record_count(&small), record_count(&large)), (2, 18));
    assert!(cleaner.clone().clean_dirtiest().await);
    assert_eq!(record_count(&large), 2);
    assert!(!cleaner.clean_dirtiest().await, "nothing is dirty any more");
}

#[tokio::test]
async fn a_log_that_was_not_due_is_looked_at_again_once_its_records_are_too_old() {
    let dir = tempfile::tempdir().unwrap();
    let log = partition(dir.path(), 5);
    let settings = [("min.cleanable.dirty.ratio", "1.0"), ("max.compaction.lag.ms", "30000")];
    let cleaner = cleaner_of(vec![log.clone()], &settings, CancellationToken::new());
    // Not much of it is dirty.
    cleaner.logs.cleaned(&log, log.log().sealed_segments(Offset::ZERO).unwrap()[3].base);
    assert!(!cleaner.clone().clean_dirtiest().await);
    cleaner.logs.passed.store(30_000, Ordering::Relaxed);
    assert!(!cleaner.clone().clean_dirtiest().await);
    cleaner.logs.passed.store(30_001, Ordering::Relaxed);
    assert!(cleaner.clean_dirtiest().await, "nothing has happened to it but time");
}

#[tokio::test]
async fn a_cleaner_that_is_stopped_ends_and_leaves_logs_whole() {
    let dir = tempfile::tempdir().unwrap();
    let (log, stop) = (partition(dir.path(), 5), CancellationToken::new());
    let cleaner = cleaner(vec![log.clone()], stop.clone());
    stop.cancel();
    cleaner.clone().run().await;
    cleaner.clean_dirtiest().await;
    assert_eq!(record_count(&log), 10);
}

/// An archive that holds the offsets below 6, of which key compaction has seen those below 3.
#[derive(Debug)]
struct Archive;

impl RemoteReader for Archive {
    fn bounds(&self) -> Option<(Offset, Offset)> {
        Some((Offset::ZERO, Offset::new(6)?))
    }

    fn log_start(&self) -> Offset {
        Offset::ZERO
    }

    fn clean_until(&self) -> Offset {
        Offset::new(3).unwrap()
    }

    fn size(&self) -> u64 {
        1
    }

    fn read(&self, _: Offset, _: Offset, _: u32) -> BoxFuture<'static, Result<RemoteBatches, RemoteError>> {
        unreachable!("the cleaner reads nothing")
    }

    fn offset_for_timestamp(
        &self,
        _: Timestamp,
        _: Offset,
    ) -> BoxFuture<'static, Result<Option<OffsetAndTimestamp>, RemoteError>> {
        unreachable!("the cleaner asks for no time")
    }

    fn max_timestamp_offset(&self, _: Offset) -> BoxFuture<'static, Result<Option<OffsetAndTimestamp>, RemoteError>> {
        unreachable!("the cleaner asks for no time")
    }

    fn end_of_epoch(&self, _: LeaderEpoch) -> Option<(LeaderEpoch, Offset)> {
        None
    }

    fn epochs(&self) -> Vec<(LeaderEpoch, Offset)> {
        Vec::new()
    }

    fn epoch_at(&self, _: Offset) -> Option<LeaderEpoch> {
        None
    }
}

#[test]
fn tombstones_stay_until_the_archive_cannot_give_back_what_they_deleted() {
    let dir = tempfile::tempdir().unwrap();
    let partition = partition(dir.path(), 5);
    let cleaner = cleaner(vec![partition.clone()], CancellationToken::new());
    let unheard_from = || {
        let (partition, topic) = (partition.clone(), cleaner.logs.topic.clone());
        cleaner.request(&CompactedLog { partition, topic, checkpoint: None }).unheard_from.get()
    };
    assert_eq!(unheard_from(), Offset::MAX.get(), "without an archive there is nobody to tell");
    partition.set_remote(Arc::new(Archive));
    assert_eq!(unheard_from(), 6, "what is archived is archived with its tombstones");
    partition.log().delete_local_below(Offset::new(4).unwrap()).unwrap().purge().unwrap();
    assert_eq!(unheard_from(), 3, "readers come from the archive, where a key may still have its old value");
}

#[test]
fn an_archived_log_is_compacted_only_where_it_was_archived() {
    let offset = |raw| Offset::new(raw).unwrap();
    let (stable, end) = (offset(9), offset(5));
    assert_eq!(bounds(stable, Some(Some(end)), true), (end, Some(end)));
    assert_eq!(bounds(stable, Some(None), true), (Offset::ZERO, None));
    assert_eq!(bounds(stable, Some(Some(end)), false), (stable, Some(end)), "nothing goes up any more");
    assert_eq!(bounds(stable, None, true), (stable, None), "this node has no archive");
}

#[tokio::test]
async fn a_log_that_is_not_due_is_left_in_peace_until_something_happens() {
    let dir = tempfile::tempdir().unwrap();
    let log = partition(dir.path(), 4);
    let cleaner = cleaner(vec![log.clone()], CancellationToken::new());
    cleaner.logs.cleaned(&log, log.log().sealed_segments(Offset::ZERO).unwrap()[2].base);
    assert!(!cleaner.clone().clean_dirtiest().await, "half of it is clean");
    cleaner.logs.checkpoints.lock().clear();
    assert!(cleaner.clean_dirtiest().await, "all of it is dirty");
}

#[tokio::test]
async fn a_log_that_moves_does_not_keep_the_cleaner_from_the_others() {
    let dir = tempfile::tempdir().unwrap();
    let (small, large) = (partition(dir.path(), 2), partition(dir.path(), 9));
    let cleaner = cleaner(vec![small.clone(), large.clone()], CancellationToken::new());
    // The small one is the dirtiest: of the large one a part is clean already.
    cleaner.logs.cleaned(&large, large.log().sealed_segments(Offset::ZERO).unwrap()[1].base);
    small.log().pause_cleaning();
    assert!(cleaner.clone().clean_dirtiest().await, "the other one");
    assert_eq!((record_count(&small), record_count(&large)), (4, 2));
    assert!(!cleaner.clone().clean_dirtiest().await);
    small.log().resume_cleaning();
    assert!(cleaner.clone().clean_dirtiest().await, "where it went it is as dirty");
    assert_eq!(record_count(&small), 2);
}
