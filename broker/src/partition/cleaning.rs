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

/// A log that was not due is looked at again after this time, even if nothing happened: the clock may have been set.
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
    /// From then on records are of an age that matters.
    until: Option<Timestamp>,
}

impl Seen {
    fn holds(&self, dirty: &Range<Offset>, topic: &Arc<TopicConfig>, now: Timestamp) -> bool {
        let is_same = self.dirty == *dirty && Arc::ptr_eq(&self.topic, topic);
        is_same && self.at.elapsed() < LOOK_AGAIN && self.until.is_none_or(|until| now < until)
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
        for log in logs.into_iter().filter(|log| can_be_cleaned(&log.partition)) {
            let (partition, request) = (&log.partition, self.request(&log));
            let (active, ..) = partition.log().active();
            let there = partition.log().local_start()..=partition.log().end().0;
            // One that lies outside of the log is another log's.
            let checkpoint = log.checkpoint.filter(|checkpoint| there.contains(checkpoint));
            let dirty = checkpoint.unwrap_or(*there.start())..request.stable.min(active);
            let is_known = || seen.get(&partition.id()).is_some_and(|seen| seen.holds(&dirty, &log.topic, request.now));
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
                let until = found.ok().and_then(|found| found.changes_at);
                let found = Seen { dirty, topic: log.topic.clone(), at: Instant::now(), until };
                seen.insert(partition.id(), found);
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

/// Whether its files can be exchanged now: not in a directory that failed, and not on the way to another one.
fn can_be_cleaned(partition: &Partition) -> bool {
    !partition.log_dir().is_failed() && !partition.log().is_cleaning_paused()
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
mod tests;
