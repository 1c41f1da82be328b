//! Reads of all partitions: one cache, one budget, one fetch for all who want the same.

use std::{num::NonZeroU64, sync::Arc, time::Instant};

use bytes::Bytes;
use futures::future::try_join_all;
use parking_lot::Mutex;
use varve_metadata::model::{Offset, PartitionId};
use varve_table::{Fetched, FooterError, Recompression, TableFooter};

use super::{
    budget::{Budget, Taken},
    cache::{ColdCache, ColdOpenError, PartKey, Run, RunKey},
    error::{ColdError, Damage},
    flights::Flights,
    metrics::{ColdMetrics, Reason, Source},
    object::{Opened, Stretch, TableObject},
    options::ColdOptions,
    partition::ColdPartition,
    raw,
    streams::{Advice, Streams},
};
use crate::{
    layout::Key,
    manifest::{ObjectKind, RemoteObject},
    tier::{bucket::Bucket, pace::ByteRate, partition::RemotePartition},
};

/// Bytes of an object's end that are read to open it: the footer and what lies before it, of most objects.
const TAIL_BYTES: u64 = 256 << 10;
/// Objects up to this size are read whole when they are opened.
const WHOLE_BYTES: u64 = 512 << 10;
/// What a reader that comes from elsewhere gets fetched at least: a client's usual answer.
const JUMP_BYTES: u64 = 1 << 20;
/// Largest unit expected, for sharing memory among readers: a row group of 16 MiB and a batch over.
const UNIT_BYTES: usize = 17 << 20;

/// Reads the archive, for all partitions of this process; clones share everything.
///
/// A future may be dropped at any time: what it had begun to fetch goes on, and fills the cache.
#[derive(Clone)]
pub struct ColdReader(Arc<Shared>);

struct Shared {
    options: ColdOptions,
    metrics: ColdMetrics,
    cache: ColdCache<Opened>,
    budget: Budget,
    rate: ByteRate,
    opening: Flights<PartKey, Opened>,
    loading: Flights<RunKey, (Bytes, Source)>,
    streams: Mutex<Streams>,
    started: Instant,
}

/// One object of one partition, and where it lies.
#[derive(Clone, Debug)]
pub(super) struct Part {
    pub(super) object: RemoteObject,
    pub(super) key: Key,
    pub(super) bucket: Bucket,
    pub(super) partition: PartitionId,
}

impl Part {
    fn id(&self) -> PartKey {
        PartKey { object: self.object.id.0.as_u128(), position: self.object.shared_at.unwrap_or(0) }
    }
}

impl ColdReader {
    /// Opens the cache; what a former process left on its disk is found again.
    ///
    /// # Errors
    /// [`ColdOpenError`] if the cache directory cannot be used.
    pub async fn open(options: ColdOptions, metrics: ColdMetrics) -> Result<ColdReader, ColdOpenError> {
        let cache = ColdCache::open(&options, Opened::weight).await?;
        Ok(ColdReader(Arc::new(Shared {
            budget: Budget::new(&options, metrics.clone()),
            rate: ByteRate::new(options.read_rate),
            cache,
            opening: Flights::new(),
            loading: Flights::new(),
            streams: Mutex::default(),
            started: Instant::now(),
            options,
            metrics,
        })))
    }

    /// The archived part of one partition.
    pub fn partition(&self, remote: Arc<RemotePartition>) -> ColdPartition {
        ColdPartition::new(self.clone(), remote)
    }

    /// Other bounds on reads from the bucket, from now on.
    pub fn set_limits(&self, in_flight_reads: usize, read_rate: Option<NonZeroU64>) {
        self.0.budget.set_reads(in_flight_reads);
        self.0.rate.set(read_rate);
    }

    /// What cold reads cost.
    pub fn metrics(&self) -> &ColdMetrics {
        &self.0.metrics
    }

    /// Writes to the disk cache what is still on the way there.
    ///
    /// # Errors
    /// [`ColdOpenError`] if the disk failed; nothing is lost but the cache.
    pub async fn close(&self) -> Result<(), ColdOpenError> {
        self.0.cache.close().await
    }

    /// How to serve a reader of `partition` that asks for `from`.
    pub(super) fn advise(&self, partition: PartitionId, from: Offset) -> Advice {
        let Shared { options, started, streams, .. } = &*self.0;
        // Half of the memory is for what readers are inside of and ahead of; the rest for what others come back to.
        let room = options.memory_bytes / 2 / UNIT_BYTES.max(options.raw_unit_bytes as usize);
        streams.lock().advise(partition, from, started.elapsed(), options.read_ahead, room)
    }

    pub(super) fn served(&self, partition: PartitionId, from: Offset, next: Offset) {
        self.0.streams.lock().served(partition, from, next);
    }

    /// The object's footer and index.
    pub(super) async fn opened(&self, part: &Part) -> Result<Opened, ColdError> {
        if let Some(opened) = self.0.cache.opened(&part.id()) {
            return Ok(opened);
        }
        let (reader, part) = (self.clone(), part.clone());
        self.0.opening.join(part.id(), move || async move { reader.open_part(&part).await }).await
    }

    /// A unit of the object, fetched with others of its kind in mind.
    pub(super) async fn unit(
        &self,
        part: &Part,
        opened: &Opened,
        index: u64,
        recompression: Recompression,
    ) -> Result<(Bytes, Source), ColdError> {
        let key = run_key(part, Run::Unit(index), recompression);
        let load = |reader: ColdReader, part: Part, opened: Opened| async move {
            let stretch = opened.unit(index, &part.key)?;
            let taken = reader.0.budget.take(stretch.work_bytes()).await?;
            reader.load(&part, &opened, &stretch, recompression, Reason::Demand, taken).await
        };
        self.cached(key, part, opened, load).await
    }

    /// Batches from the one that holds `from` on, about as many as asked for.
    pub(super) async fn run_from(
        &self,
        part: &Part,
        opened: &Opened,
        from: Offset,
        bytes: u64,
        recompression: Recompression,
    ) -> Result<(Bytes, Source), ColdError> {
        let key = run_key(part, Run::From(from.get()), recompression);
        let load = move |reader: ColdReader, part: Part, opened: Opened| async move {
            let Some(stretch) = opened.stretch_from(from, bytes.max(JUMP_BYTES), &part.key)? else {
                return Ok(Bytes::new());
            };
            let taken = reader.0.budget.take(stretch.work_bytes()).await?;
            reader.load(&part, &opened, &stretch, recompression, Reason::Demand, taken).await
        };
        self.cached(key, part, opened, load).await
    }

    /// What the unit is cached under.
    pub(super) fn unit_key(&self, part: &Part, index: u64, recompression: Recompression) -> RunKey {
        run_key(part, Run::Unit(index), recompression)
    }

    /// The unit, if it can be given out without waiting.
    pub(super) fn unit_in_memory(&self, part: &Part, index: u64, recompression: Recompression) -> Option<Bytes> {
        self.0.cache.in_memory(&run_key(part, Run::Unit(index), recompression))
    }

    /// Starts fetching a unit that nobody waits for yet, if the budget has room. Returns whether it is there or on its way.
    pub(super) fn prefetch(&self, part: &Part, opened: &Opened, index: u64, recompression: Recompression) -> bool {
        let key = run_key(part, Run::Unit(index), recompression);
        if self.0.cache.in_memory(&key).is_some() || self.0.loading.is_under_way(&key) {
            return true;
        }
        let Ok(stretch) = opened.unit(index, &part.key) else { return false };
        let Some(taken) = self.0.budget.try_take(stretch.work_bytes()) else {
            self.0.metrics.skipped();
            return false;
        };
        let (reader, part, opened) = (self.clone(), part.clone(), opened.clone());
        drop(self.0.loading.start(key, move || async move {
            if let Some(run) = reader.0.cache.on_disk(&key).await {
                return Ok((run, Source::Disk));
            }
            let run = reader.load(&part, &opened, &stretch, recompression, Reason::Ahead, taken).await?;
            reader.0.cache.insert(key, run.clone());
            Ok((run, Source::Bucket))
        }));
        true
    }

    /// The run under `key` from memory, from disk, or by `load`: one for all who ask at the same time.
    async fn cached<F>(
        &self,
        key: RunKey,
        part: &Part,
        opened: &Opened,
        load: impl FnOnce(ColdReader, Part, Opened) -> F + Send,
    ) -> Result<(Bytes, Source), ColdError>
    where
        F: Future<Output = Result<Bytes, ColdError>> + Send + 'static,
    {
        if let Some(run) = self.0.cache.in_memory(&key) {
            self.0.metrics.found(Source::Memory);
            return Ok((run, Source::Memory));
        }
        let (reader, loading) = (self.clone(), load(self.clone(), part.clone(), opened.clone()));
        let work = move || async move {
            // Whoever fetched it before may have just landed.
            if let Some(run) = reader.0.cache.in_memory(&key) {
                return Ok((run, Source::Memory));
            }
            if let Some(run) = reader.0.cache.on_disk(&key).await {
                return Ok((run, Source::Disk));
            }
            let run = loading.await?;
            reader.0.cache.insert(key, run.clone());
            Ok((run, Source::Bucket))
        };
        let outcome = self.0.loading.join(key, work).await;
        if let Ok((_, source)) = outcome {
            self.0.metrics.found(source);
        }
        outcome
    }

    /// Fetches and decodes a stretch within the budget that was `taken` for it.
    async fn load(
        &self,
        part: &Part,
        opened: &Opened,
        stretch: &Stretch,
        recompression: Recompression,
        reason: Reason,
        taken: Taken,
    ) -> Result<Bytes, ColdError> {
        let mut fetched = Fetched::new(part.object.range().end);
        match opened.whole() {
            Some(whole) => fetched.add(part.object.range().start, whole.clone()),
            None => {
                let get = |range: std::ops::Range<u64>| async move {
                    let bytes = self.get(part, range.clone(), reason).await?;
                    Ok::<_, ColdError>((range.start, bytes))
                };
                for (position, bytes) in try_join_all(stretch.ranges.iter().cloned().map(get)).await? {
                    fetched.add(position, bytes);
                }
            }
        }
        if !opened.decodes() {
            return opened.decode(stretch, fetched, recompression, &part.key);
        }
        let turn = self.0.budget.decoder().await;
        let (opened, stretch, key) = (opened.clone(), stretch.clone(), part.key.clone());
        let decode = move || {
            // Both are held by the thread, which does not stop when nobody waits for it any more.
            let _held = (turn, taken);
            opened.decode(&stretch, fetched, recompression, &key)
        };
        let stopped = |_| ColdError::Unavailable(Arc::new(Damage("the thread that decoded was stopped")));
        tokio::task::spawn_blocking(decode).await.unwrap_or_else(|error| Err(stopped(error)))
    }

    async fn open_part(&self, part: &Part) -> Result<Opened, ColdError> {
        let range = part.object.range();
        let size = range.end - range.start;
        let whole = size <= WHOLE_BYTES;
        let mut from = if whole { range.start } else { range.end - TAIL_BYTES };
        let _taken = self.0.budget.take(range.end - from).await?;
        let mut tail = self.get(part, from..range.end, Reason::Index).await?;
        let opened = loop {
            let needed = match part.object.kind {
                ObjectKind::Raw => match raw::open(part, &tail, self.0.options.raw_unit_bytes)? {
                    raw::Attempt::Opened(opened) => break *opened,
                    raw::Attempt::Needs(bytes) => range.end.saturating_sub(bytes),
                },
                ObjectKind::Parquet => match TableFooter::parse(size, tail.clone()) {
                    Ok(footer) => {
                        check_identity(part, &footer)?;
                        break Opened::Table(TableObject { footer, whole: whole.then(|| tail.clone()) });
                    }
                    Err(FooterError::NeedMore { from }) => range.start + from,
                    Err(error) => return Err(ColdError::corrupt(&part.key, error)),
                },
            };
            if needed >= from {
                // It asks for less than it had: it would be read over and over.
                return Err(ColdError::corrupt(&part.key, Damage("its footer lies about its size")));
            }
            from = needed;
            tail = self.get(part, from..range.end, Reason::Index).await?;
        };
        self.0.cache.insert_opened(part.id(), opened.clone());
        Ok(opened)
    }

    /// Bytes `range` of the stored object.
    pub(super) async fn get(
        &self,
        part: &Part,
        range: std::ops::Range<u64>,
        reason: Reason,
    ) -> Result<Bytes, ColdError> {
        let allowed = part.object.range();
        if range.start < allowed.start || range.end > allowed.end || range.start > range.end {
            return Err(ColdError::corrupt(&part.key, Damage("its index points out of it")));
        }
        self.0.rate.take(range.end - range.start).await;
        let bytes = part.bucket.get_range(&part.key, range).await?;
        self.0.metrics.fetched(reason, bytes.len() as u64);
        Ok(bytes)
    }
}

fn run_key(part: &Part, run: Run, recompression: Recompression) -> RunKey {
    RunKey { part: part.id(), run, recompressed: recompression == Recompression::Producer }
}

/// An object that is whole, but another one than the manifest means, is as bad as a damaged one.
fn check_identity(part: &Part, footer: &TableFooter) -> Result<(), ColdError> {
    let object = &part.object;
    if footer.partition() == part.partition && footer.base() == object.base && footer.end() == object.end {
        return Ok(());
    }
    Err(ColdError::corrupt(&part.key, Damage("it holds other offsets than the manifest says")))
}

impl std::fmt::Debug for ColdReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ColdReader").field("options", &self.0.options).finish_non_exhaustive()
    }
}
