//! One round of key compaction over a partition's objects.
//!
//! Pass 1 reads the keys of the dirty part (of Parquet objects only the offset and key columns) into a map of bounded size;
//! where it is full, all keys of the round go through the disk instead ([`crate::spill`]), so that one round suffices. Without
//! room there the round ends where the map is full. Pass 2 walks all objects from the log start: one in which every record is the last
//! of its key, and which holds neither tombstones nor transactions, stays as it is; neighbours of the others become one new
//! object each, published in offset order. So a tombstone goes only after everything older than it is gone, whenever the
//! round is cut short. What stays of a batch is decided by the local cleaner's rules (`varve_log::local::cleaner`).

use std::{collections::HashMap, io, sync::Arc, time::Duration};

use tokio::sync::mpsc;
use varve_log::{
    format::RecordBatchView,
    local::{
        LastRecord,
        cleaner::{
            BatchRules, CleanError, CleanedBatch, CleanedTransactions, CleanerStats, KeyDigest, KeySink, LatestOffsets,
            OffsetMap, clean_batch, index_batch,
        },
        decode_snapshot,
    },
};
use varve_metadata::model::{Offset, ProducerId, Timestamp};
use varve_table::{BatchKind, TableFooter};
use varve_tiering::manifest::RemoteObject;

use crate::{
    options::SpillDisk,
    plan::Round,
    rewrite::{RewriteError, Workshop, aborted_within},
    source::{Inside, Run, Source, end_of, off_thread},
    spill::{Spill, Superseded},
};

/// The rules and the state of pass 2: goes from one rewritten object to the next.
#[derive(Debug)]
pub(crate) struct Cleaning {
    latest: Arc<Latest>,
    last_records: Arc<HashMap<ProducerId, LastRecord>>,
    now: Timestamp,
    delete_retention: Duration,
    round_end: Offset,
    transactions: CleanedTransactions,
    pub(crate) stats: CleanerStats,
}

impl Cleaning {
    /// What stays of the next batch: `None` if nothing, `Some(None)` if all of it, else what takes its place.
    pub(crate) fn clean(&mut self, batch: &RecordBatchView<'_>) -> Result<Option<Option<Vec<u8>>>, CleanError> {
        let rules = BatchRules {
            latest: self.latest.as_ref(),
            now: self.now,
            delete_retention: self.delete_retention,
            unheard_from: Offset::MAX,
            last_records: &self.last_records,
            round_end: self.round_end,
        };
        Ok(match clean_batch(batch, &rules, &mut self.transactions, &mut self.stats)? {
            CleanedBatch::Kept => Some(None),
            CleanedBatch::Dropped => None,
            CleanedBatch::Replaced(bytes) => Some(Some(bytes)),
        })
    }
}

/// Where a round got to, and what is to be rewritten on the way.
#[derive(Debug)]
pub(crate) struct Compaction {
    /// First offset that the round did not look at: the new checkpoint.
    pub(crate) end: Offset,
    pub(crate) cleaning: Cleaning,
    /// Neighbours that become one object each, ascending, with the untouched ones in between.
    pub(crate) steps: Vec<Step>,
}

#[derive(Debug)]
pub(crate) enum Step {
    Rewrite(Vec<Source>),
    Keep(Box<Source>),
}

/// What is known of the keys of a round.
#[derive(Debug)]
enum Latest {
    Map(OffsetMap),
    Spilled(Superseded),
}

impl LatestOffsets for Latest {
    fn is_latest(&self, key: &[u8], offset: Offset) -> bool {
        match self {
            Latest::Map(map) => map.is_latest(key, offset),
            Latest::Spilled(superseded) => superseded.is_latest(key, offset),
        }
    }

    fn end(&self) -> Offset {
        match self {
            Latest::Map(map) => LatestOffsets::end(map),
            Latest::Spilled(superseded) => superseded.end(),
        }
    }
}

/// Limits of a round.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RoundLimits<'a> {
    pub(crate) map_bytes: usize,
    /// Where keys go for which the map has no room; `None`: nowhere.
    pub(crate) spill: Option<&'a SpillDisk>,
    pub(crate) target: u64,
    pub(crate) delete_retention: Duration,
    pub(crate) now: Timestamp,
}

impl Workshop {
    /// Pass 1, and what pass 2 has to do. `None` if the map cannot hold even the first piece of the dirty part.
    pub(crate) async fn survey(
        &self,
        round: &Round,
        newest: &RemoteObject,
        limits: RoundLimits<'_>,
    ) -> Result<Option<Compaction>, RewriteError> {
        let sources = self.open(&round.objects).await?;
        let latest = self.latest(&sources, round, limits).await?;
        let end = latest.end().min(round.end);
        if end <= round.first_dirty {
            return Ok(None);
        }
        let latest = Arc::new(latest);
        let mut transactions = CleanedTransactions::default();
        transactions.announce(aborted_within(&sources, Offset::ZERO, end_of(&round.objects)));
        let cleaning = Cleaning {
            latest: Arc::clone(&latest),
            last_records: Arc::new(self.last_records(newest).await?),
            now: limits.now,
            delete_retention: limits.delete_retention,
            round_end: end,
            transactions,
            stats: CleanerStats::default(),
        };
        let mut steps: Vec<Step> = Vec::new();
        let mut bytes = 0;
        for source in sources.into_iter().filter(|source| source.object.base < end) {
            if !self.is_touched(&source, &latest).await? {
                steps.push(Step::Keep(Box::new(source)));
                continue;
            }
            match steps.last_mut() {
                Some(Step::Rewrite(run)) if bytes + source.object.log_bytes <= limits.target => {
                    bytes += source.object.log_bytes;
                    run.push(source);
                }
                _ => {
                    bytes = source.object.log_bytes;
                    steps.push(Step::Rewrite(vec![source]));
                }
            }
        }
        Ok(Some(Compaction { end, cleaning, steps }))
    }

    /// The keys of the dirty part, in memory if there is room.
    async fn latest(&self, sources: &[Source], round: &Round, limits: RoundLimits<'_>) -> Result<Latest, RewriteError> {
        let map = self.index(sources, round.first_dirty, OffsetMap::new(limits.map_bytes)).await?;
        let Some(disk) = limits.spill.filter(|_| map.end() < round.end) else { return Ok(Latest::Map(map)) };
        // The other way needs as much memory again.
        drop(map);
        match self.spilled(sources, disk, limits.map_bytes).await? {
            Ok(superseded) => Ok(Latest::Spilled(superseded)),
            Err(error) => {
                tracing::warn!(partition = %self.partition, %error, directory = %disk.directory.display(),
                    "keys cannot be spilled to the disk: compacting as far as memory reaches");
                let map = OffsetMap::new(limits.map_bytes);
                Ok(Latest::Map(self.index(sources, round.first_dirty, map).await?))
            }
        }
    }

    /// All keys through the disk: those of the part that is clean, too, since what supersedes them is not in memory then.
    async fn spilled(
        &self,
        sources: &[Source],
        disk: &SpillDisk,
        map_bytes: usize,
    ) -> Result<io::Result<Superseded>, RewriteError> {
        let records = sources.iter().map(|source| source.object.records).fold(0, u64::saturating_add);
        let spill = match Spill::new(disk, records, map_bytes) {
            Ok(spill) => self.index(sources, Offset::ZERO, spill).await?,
            Err(error) => return Ok(Err(error)),
        };
        Ok(off_thread(move || spill.resolve(map_bytes)).await)
    }

    /// The keys from `first_dirty` on, as far as `map` has room.
    async fn index<S: KeySink + Send + 'static>(
        &self,
        sources: &[Source],
        first_dirty: Offset,
        mut map: S,
    ) -> Result<S, RewriteError> {
        let mut transactions = CleanedTransactions::default();
        transactions.announce(aborted_within(sources, Offset::ZERO, Offset::MAX));
        for source in sources.iter().filter(|source| source.object.end > first_dirty) {
            let full;
            (map, transactions, full) = match &source.inside {
                Inside::Table(footer) => {
                    let (map, full) = self.index_table(source, footer, first_dirty, map).await?;
                    (map, transactions, full)
                }
                Inside::Raw(_) => self.index_raw(source, first_dirty, map, transactions).await?,
            };
            if full {
                break;
            }
            // Coverage has no gaps, and what lies between the last batch and the end is nothing.
            map.cover(source.object.end);
        }
        Ok(map)
    }

    async fn index_table<S: KeySink + Send + 'static>(
        &self,
        source: &Source,
        footer: &TableFooter,
        from: Offset,
        mut map: S,
    ) -> Result<(S, bool), RewriteError> {
        for (index, group) in footer.groups().iter().enumerate().filter(|(_, group)| group.end > from) {
            if let Some(plan) = footer.plan_keys(index) {
                let fetched = self.fetch(source, plan.ranges()).await?;
                let footer = footer.clone();
                let full;
                (map, full) = off_thread(move || {
                    let mut full = false;
                    let note = |offset: Offset, key: Option<&[u8]>| {
                        if let Some(key) = key.filter(|_| offset >= from && !full) {
                            full = !map.put(KeyDigest::of(key), offset);
                        }
                    };
                    footer.decode_keys(&plan, &fetched, note).map(|()| (map, full))
                })
                .await
                .map_err(|error| source.undecodable(error))?;
                if full {
                    return Ok((map, true));
                }
            }
            map.cover(group.end);
        }
        Ok((map, false))
    }

    async fn index_raw<S: KeySink + Send + 'static>(
        &self,
        source: &Source,
        from: Offset,
        mut map: S,
        mut transactions: CleanedTransactions,
    ) -> Result<(S, CleanedTransactions, bool), RewriteError> {
        let (runs, mut taken) = mpsc::channel::<Run>(1);
        let index = off_thread(move || {
            let mut full = false;
            while let Some(run) = taken.blocking_recv() {
                run.each(|_, batch, _| {
                    full = full || !index_batch(&batch, from, &mut transactions, &mut map)?;
                    Ok::<(), RewriteError>(())
                })?;
                if full {
                    break;
                }
            }
            Ok((map, transactions, full))
        });
        let feed = async move { source.send_runs(&self.reader, &runs).await.map_err(RewriteError::from) };
        let ((), indexed) = futures::try_join!(feed, index)?;
        Ok(indexed)
    }

    /// Whether anything of an object may go or has to be noted. Raw objects become Parquet on the way.
    async fn is_touched(&self, source: &Source, latest: &Arc<Latest>) -> Result<bool, RewriteError> {
        let Inside::Table(footer) = &source.inside else { return Ok(true) };
        if !footer.aborted().is_empty() {
            return Ok(true);
        }
        for index in 0..footer.groups().len() {
            let batches = footer.batches(index).map_err(|error| source.undecodable(error))?;
            let special = batches.iter().any(|batch| {
                batch.kind == BatchKind::Raw
                    || batch.header.attributes.has_delete_horizon()
                    || batch.header.record_count == 0
            });
            if special || footer.may_have_tombstones(index) || self.has_dead_rows(source, footer, index, latest).await?
            {
                return Ok(true);
            }
        }
        Ok(false)
    }

    async fn has_dead_rows(
        &self,
        source: &Source,
        footer: &TableFooter,
        group: usize,
        latest: &Arc<Latest>,
    ) -> Result<bool, RewriteError> {
        let Some(plan) = footer.plan_keys(group) else { return Ok(false) };
        let fetched = self.fetch(source, plan.ranges()).await?;
        let (footer, latest) = (footer.clone(), Arc::clone(latest));
        let look = move || {
            let mut dead = false;
            let each = |offset: Offset, key: Option<&[u8]>| {
                dead = dead || (offset < latest.end() && !key.is_some_and(|key| latest.is_latest(key, offset)));
            };
            footer.decode_keys(&plan, &fetched, each).map(|()| dead)
        };
        off_thread(look).await.map_err(|error| source.undecodable(error).into())
    }

    /// The last record of every producer that is known at the archive's end. Their batches stay, if need be empty, so that
    /// the state can be rebuilt from the archive.
    async fn last_records(&self, newest: &RemoteObject) -> Result<HashMap<ProducerId, LastRecord>, RewriteError> {
        let key = newest.key(self.partition, &self.topic);
        let source = Source::open(&self.reader, key, newest.clone()).await?;
        let Some(snapshot) = source.producers(&self.reader).await? else { return Ok(HashMap::new()) };
        match decode_snapshot(&snapshot) {
            Ok(producers) => Ok(producers
                .into_iter()
                .map(|(id, entry)| {
                    let last_data = entry.last_batch().map(|batch| batch.last);
                    (id, LastRecord { last_data, epoch: entry.epoch })
                })
                .collect()),
            Err(error) => {
                tracing::warn!(partition = %self.partition, %error, "producer snapshot in the archive cannot be read");
                Ok(HashMap::new())
            }
        }
    }

    async fn fetch(
        &self,
        source: &Source,
        ranges: &[std::ops::Range<u64>],
    ) -> Result<varve_table::Fetched, RewriteError> {
        Ok(source.fetch(&self.reader, ranges).await?)
    }
}

impl Cleaning {
    /// Passes over an object that stays as it is: its transactions keep their markers.
    pub(crate) fn pass_over(&mut self, source: &Source) -> Result<(), RewriteError> {
        let Inside::Table(footer) = &source.inside else { return Ok(()) };
        for index in 0..footer.groups().len() {
            let batches = footer.batches(index).map_err(|error| source.undecodable(error))?;
            for batch in batches {
                self.transactions.meet_data(&batch.header);
            }
        }
        Ok(())
    }
}
