//! Compaction of local logs in the background: the dirtiest first, a few at a time, at a bounded rate.

use std::{
    collections::{HashMap, HashSet},
    ops::Range,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use futures::{StreamExt, stream::FuturesUnordered};
use parking_lot::Mutex;
use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};
use varve_log::local::{
    CleanLogError, CleanRequest, Cleaned, RemovedFiles,
    cleaner::{Cleanable, CleaningLimits},
    is_no_space,
};
use varve_metadata::{
    config::TopicConfig,
    image::is_internal,
    model::{LastStableOffset, Offset, PartitionId, Timestamp},
};

use super::{Partition, UpkeepMetrics};
use crate::config::CleanerConfig;

/// Longest sleep of a paced round before it looks whether it is to stop.
const NAP: Duration = Duration::from_millis(100);

/// A log that was not due is looked at again after this time, even if nothing happened: records get old.
const LOOK_AGAIN: Duration = Duration::from_secs(5 * 60);

/// A partition of a compacted topic, and where its last round ended.
#[derive(Debug, Clone)]
pub struct CompactedLog {
    /// The partition.
    pub partition: Arc<Partition>,
    /// Its topic's settings.
    pub topic: Arc<TopicConfig>,
    /// Where the last round ended, if there was one.
    pub checkpoint: Option<Offset>,
}

/// What the cleaner does not know by itself.
pub trait CompactedLogs: Send + Sync + 'static {
    /// The compacted logs that are open here.
    fn list(&self) -> impl Future<Output = Vec<CompactedLog>> + Send;

    /// Writes down where a round over `partition` ended. Blocks on the disk.
    fn cleaned(&self, partition: &Partition, end: Offset);

    /// The wall clock.
    fn now(&self) -> Timestamp;
}

/// While all this is the same, another look at a log finds the same, so that nobody has to open its segments.
#[derive(Debug)]
struct Seen {
    /// Where its dirty part may begin and end.
    dirty: Range<Offset>,
    topic: Arc<TopicConfig>,
    at: Instant,
}

impl Seen {
    fn holds(&self, dirty: &Range<Offset>, topic: &Arc<TopicConfig>) -> bool {
        self.dirty == *dirty && Arc::ptr_eq(&self.topic, topic) && self.at.elapsed() < LOOK_AGAIN
    }
}

/// The cleaner of all local logs.
#[derive(Debug)]
pub struct LogCleaner<L> {
    logs: L,
    config: Arc<ArcSwap<CleanerConfig>>,
    metrics: UpkeepMetrics,
    /// What logs looked like that were not due.
    seen: Mutex<HashMap<PartitionId, Seen>>,
    /// Logs under cleaning, and logs that are damaged and are left alone.
    taken: Mutex<HashSet<PartitionId>>,
    stop: CancellationToken,
}

impl<L: CompactedLogs> LogCleaner<L> {
    /// A cleaner that ends its rounds when `stop` is cancelled.
    pub fn new(
        logs: L,
        config: Arc<ArcSwap<CleanerConfig>>,
        metrics: UpkeepMetrics,
        stop: CancellationToken,
    ) -> Arc<LogCleaner<L>> {
        Arc::new(LogCleaner { logs, config, metrics, seen: Mutex::default(), taken: Mutex::default(), stop })
    }

    /// Cleans until `stop` is cancelled.
    pub async fn run(self: Arc<LogCleaner<L>>) {
        if !self.config.load().enabled {
            return;
        }
        let mut rounds = FuturesUnordered::new();
        // Rounds that find nothing to do wait a while; the others are followed by the next at once.
        let round = |cleaner: Arc<LogCleaner<L>>| async move {
            if !cleaner.clone().clean_dirtiest().await {
                tokio::select! {
                    () = cleaner.stop.cancelled() => {}
                    () = tokio::time::sleep(cleaner.config.load().backoff) => {}
                }
            }
        };
        while !self.stop.is_cancelled() {
            // As many at a time as the settings say now.
            while rounds.len() < self.config.load().threads.max(1) as usize {
                rounds.push(round(self.clone()));
            }
            rounds.next().await;
        }
        while rounds.next().await.is_some() {}
    }

    /// Runs one round over the log that needs it most. Returns whether there was one to clean.
    pub async fn clean_dirtiest(self: Arc<LogCleaner<L>>) -> bool {
        let logs = self.logs.list().await;
        let this = self.clone();
        let cleaned = spawn_blocking(move || {
            let (log, request) = this.take_dirtiest(logs)?;
            let partition = &log.partition;
            let outcome = partition.log().clean_paced(&request, &this.pace());
            let damaged = matches!(outcome, Err(CleanLogError::Corrupt(_) | CleanLogError::Records(_)));
            let removed = this.note(partition, outcome);
            if !damaged {
                this.taken.lock().remove(&partition.id());
            }
            Some((removed?, log.topic.file_delete_delay))
        });
        match cleaned.await {
            Ok(Some((removed, delay))) => {
                self.purge_later(removed, delay);
                true
            }
            Ok(None) => false,
            Err(panic) => {
                error!(%panic, "cleaning a log panicked");
                false
            }
        }
    }

    /// The log that is due and has the largest share of dirty bytes, taken for this round.
    fn take_dirtiest(&self, logs: Vec<CompactedLog>) -> Option<(CompactedLog, CleanRequest)> {
        let (mut taken, mut seen) = (self.taken.lock(), self.seen.lock());
        let open: HashSet<PartitionId> = logs.iter().map(|log| log.partition.id()).collect();
        taken.retain(|id| open.contains(id));
        seen.retain(|id, _| open.contains(id));
        let mut dirtiest: Option<(f64, CompactedLog, CleanRequest)> = None;
        for log in logs.into_iter().filter(|log| !log.partition.log_dir().is_failed()) {
            let (partition, request) = (&log.partition, self.request(&log));
            let (active, ..) = partition.log().active();
            let there = partition.log().local_start()..=partition.log().end().0;
            // One that lies outside of the log is another log's.
            let checkpoint = log.checkpoint.filter(|checkpoint| there.contains(checkpoint));
            let dirty = checkpoint.unwrap_or(*there.start())..request.stable.min(active);
            let is_known = || seen.get(&partition.id()).is_some_and(|seen| seen.holds(&dirty, &log.topic));
            if taken.contains(&partition.id()) || dirty.is_empty() || is_known() {
                continue;
            }
            let found = partition.log().cleanable(&request);
            let due = found.as_ref().ok().filter(|found| found.is_due(&request.limits)).map(Cleanable::dirty_ratio);
            if let Err(error) = &found
                && !partition.is_retired()
            {
                warn!(topic = %partition.topic(), partition = %partition.id().index, %error, "cannot be looked at");
            }
            let Some(ratio) = due else {
                seen.insert(partition.id(), Seen { dirty, topic: log.topic.clone(), at: Instant::now() });
                continue;
            };
            if dirtiest.as_ref().is_none_or(|(most, _, _)| ratio > *most) {
                dirtiest = Some((ratio, log, request));
            }
        }
        self.metrics.max_dirty_ratio.set(dirtiest.as_ref().map_or(0.0, |(ratio, ..)| *ratio));
        let (_, log, request) = dirtiest?;
        taken.insert(log.partition.id());
        Some((log, request))
    }

    fn request(&self, log: &CompactedLog) -> CleanRequest {
        let partition = &log.partition;
        let LastStableOffset(stable) = partition.last_stable_offset();
        let archive = partition.remote().map(|archive| archive.bounds().map(|(_, end)| end));
        let (stable, border) = bounds(stable, archive, goes_up(log));
        let memory = self.config.load().dedupe_buffer_bytes / u64::from(self.config.load().threads.max(1));
        CleanRequest {
            checkpoint: log.checkpoint,
            stable,
            limits: CleaningLimits::of(&log.topic),
            memory_bytes: usize::try_from(memory).unwrap_or(usize::MAX),
            border,
            unheard_from: unheard_from(log),
            now: self.logs.now(),
        }
    }

    /// Says `false` once the cleaner is to stop; sleeps where bytes come faster than they may.
    fn pace(&self) -> impl Fn(u64) -> bool + use<L> {
        let (stop, started, read) = (self.stop.clone(), Instant::now(), std::cell::Cell::new(0.0));
        // Bytes are read, and at most as many written.
        let rate = self
            .config
            .load()
            .max_bytes_per_second
            .map(|rate| rate / 2.0 / f64::from(self.config.load().threads.max(1)));
        move |bytes| {
            read.set(read.get() + bytes as f64);
            while let Some(rate) = rate.filter(|rate| *rate > 0.0)
                && let ahead = read.get() / rate - started.elapsed().as_secs_f64()
                && ahead > 0.0
                && !stop.is_cancelled()
            {
                thread::sleep(NAP.min(Duration::try_from_secs_f64(ahead).unwrap_or(NAP)));
            }
            !stop.is_cancelled()
        }
    }

    /// Writes down how a round ended. The replaced files if it ended well.
    fn note(&self, partition: &Partition, outcome: Result<Option<Cleaned>, CleanLogError>) -> Option<RemovedFiles> {
        let (topic, index) = (partition.topic(), partition.id().index);
        match outcome {
            Ok(Some(Cleaned { end, stats, removed })) => {
                self.logs.cleaned(partition, end);
                self.metrics.cleaned_logs.inc();
                self.metrics.cleaned_bytes.with_label_values(&["read"]).inc_by(stats.bytes_read);
                self.metrics.cleaned_bytes.with_label_values(&["kept"]).inc_by(stats.bytes_kept);
                info!(
                    %topic, partition = %index, %end, bytes_before = stats.bytes_read, bytes_after = stats.bytes_kept,
                    records_before = stats.records_read, records_after = stats.records_kept, "log cleaned"
                );
                return Some(removed);
            }
            Ok(None) | Err(CleanLogError::Stopped) => {}
            Err(_) if partition.is_retired() => {}
            Err(CleanLogError::Storage(error)) => {
                if is_no_space(&error) {
                    partition.storage_failed(&error);
                }
                warn!(%topic, partition = %index, %error, "a log could not be cleaned, trying again later");
            }
            Err(error @ (CleanLogError::Corrupt(_) | CleanLogError::Records(_))) => {
                self.metrics.uncleanable_logs.inc();
                error!(%topic, partition = %index, %error, "a log is damaged and is not cleaned until the next start");
            }
        }
        None
    }

    /// Deletes replaced files once no slow reader can need them. What is cut short by a stop goes at the next start.
    fn purge_later(&self, removed: RemovedFiles, delay: Duration) {
        if removed.paths.is_empty() {
            return;
        }
        let stop = self.stop.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(delay) => {}
            }
            if let Ok(Err(error)) = spawn_blocking(move || removed.purge()).await {
                warn!(%error, "replaced files could not be deleted");
            }
        });
    }
}

/// Whether the log's segments go to its archive, if it has one. Internal topics do not say so themselves.
fn goes_up(log: &CompactedLog) -> bool {
    log.topic.remote_storage || is_internal(log.partition.topic().as_str())
}

/// Below which offset a log may be compacted, and what no rewritten segment reaches across. `archive`: of a partition that has
/// one, where it ends, if anything is in it.
///
/// Of an archived topic only what was archived is touched: a segment that waits for its upload, or is being read for it, must
/// not become another one. The archive compacts its own copy.
fn bounds(stable: Offset, archive: Option<Option<Offset>>, is_archived: bool) -> (Offset, Option<Offset>) {
    match archive {
        Some(end) if is_archived => (stable.min(end.unwrap_or(Offset::ZERO)), end),
        Some(end) => (stable, end),
        None => (stable, None),
    }
}

/// Where the tombstones begin that must outlive their time: the archive would give deleted keys back. Where all that it
/// holds is still here, too, it need only have the tombstones; else it must also have acted on them, since readers come to the
/// local log from there.
fn unheard_from(log: &CompactedLog) -> Offset {
    let Some(archive) = log.partition.remote() else { return Offset::MAX };
    match archive.bounds() {
        Some((start, end)) if log.partition.log().local_start() <= start => end,
        Some(_) => archive.clean_until(),
        // Perhaps the bucket has not answered yet, or the first upload is on its way.
        None if goes_up(log) => Offset::ZERO,
        None => Offset::MAX,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

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
            now()
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
        let overrides = BTreeMap::from([("cleanup.policy".to_owned(), "compact".to_owned())]);
        let topic = TopicConfig::resolve(&TopicDefaults::default(), &overrides).unwrap();
        let logs = Logs { partitions, topic: Arc::new(topic), checkpoints: Mutex::default() };
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
            UpkeepMetrics::new(&prometheus::Registry::new()),
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

        fn max_timestamp_offset(&self) -> BoxFuture<'static, Result<Option<OffsetAndTimestamp>, RemoteError>> {
            unreachable!("the cleaner asks for no time")
        }

        fn end_of_epoch(&self, _: LeaderEpoch) -> Option<(LeaderEpoch, Offset)> {
            None
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
}
