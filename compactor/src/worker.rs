//! Performing the plan: one partition at a time, several partitions side by side.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::SystemTime,
};

use futures::StreamExt;
use parking_lot::{Mutex, RwLock};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, field, trace_span};
use uuid::Uuid;
use varve_metadata::{
    config::{ArchiveFormat, TopicConfig},
    model::{KnownTopics, PartitionId, Timestamp, TopicId, TopicName},
};
use varve_tiering::{
    layout::Version,
    manifest::{Manifest, ManifestError, ObjectKind, RemoteObject, Writer},
    tier::{
        manifests::StoreError,
        pace::ByteRate,
        partition::{RemotePartition, RemotePartitions, UpdateError},
    },
};

use crate::{
    compact::{RoundLimits, Step},
    lease::Leases,
    metrics::CompactorMetrics,
    options::CompactorOptions,
    plan::{self, Round, Situation, Work},
    rewrite::{RewriteError, Rewritten, Workshop},
    source::{Reader, Source},
    sweep::Share,
};

/// A partition that this process looks after.
#[derive(Clone, Debug)]
pub struct Assigned {
    /// Which.
    pub partition: PartitionId,
    /// Its topic.
    pub topic: TopicName,
    /// The topic's settings, read when it is the partition's turn: that may be long after it was assigned, and what was to
    /// expire then may be meant to stay now.
    pub config: Arc<RwLock<Arc<TopicConfig>>>,
    /// Bytes of its local log above the archive; 0 if unknown.
    pub local_bytes: u64,
}

/// What one look at a partition led to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Done {
    /// Manifests published.
    pub published: usize,
    /// Work given up because somebody else was first.
    pub overtaken: usize,
    /// Bytes of raw objects that waited for conversion when it began.
    pub backlog_bytes: u64,
}

/// Why work on a partition stopped. The next look begins anew.
#[derive(Debug, thiserror::Error)]
pub enum WorkError {
    /// The manifest could not be read or published.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The manifest refused a change for a reason that is no race.
    #[error(transparent)]
    Refused(ManifestError),
    /// An object could not be rewritten.
    #[error(transparent)]
    Rewrite(#[from] RewriteError),
}

/// The worker.
#[derive(Debug)]
pub struct Compactor {
    pub(crate) partitions: Arc<RemotePartitions>,
    pub(crate) options: CompactorOptions,
    pub(crate) metrics: CompactorMetrics,
    leases: Leases,
    rate: Arc<ByteRate>,
    /// What was there, and when, the last time that nothing was left to do.
    settled: Mutex<HashMap<PartitionId, Settled>>,
    /// Which objects the next sweep looks at, and what the leaves that the last one met list.
    pub(crate) share: Mutex<Share>,
    pub(crate) leaf_ids: Mutex<HashMap<Uuid, Arc<[Uuid]>>>,
    /// Deleted topics of which the last sweep found nothing that was not buried.
    pub(crate) buried: Mutex<HashSet<TopicId>>,
    /// Unknown topics that were told of.
    pub(crate) told: Mutex<HashSet<TopicId>>,
    /// Partitions on which work failed the last time.
    failed: Mutex<HashMap<PartitionId, Failed>>,
}

#[derive(Clone, Copy, Debug)]
struct Failed {
    /// In a row.
    times: u32,
    /// Until when it is left alone.
    until: Instant,
}

#[derive(Clone, Debug)]
struct Settled {
    version: Version,
    config: Arc<TopicConfig>,
    at: Instant,
}

impl Compactor {
    /// A worker over the bucket of `partitions`.
    pub fn new(partitions: Arc<RemotePartitions>, options: CompactorOptions, metrics: CompactorMetrics) -> Compactor {
        let rate = Arc::new(ByteRate::new(options.read_bytes_per_second));
        Compactor {
            partitions,
            options,
            metrics,
            leases: Leases::default(),
            rate,
            settled: Mutex::default(),
            share: Mutex::new(Share::ALL),
            leaf_ids: Mutex::default(),
            buried: Mutex::default(),
            told: Mutex::default(),
            failed: Mutex::default(),
        }
    }

    /// Looks after the partitions that `assigned` names, until `stop`. Work under way is dropped then; what it uploaded is an
    /// orphan for the sweep. `topics` as [`Compactor::sweep`] takes them; `forget` has the cluster forget deleted topics of which
    /// nothing is left to bury; `sweeps`: whether that is for this process at the moment.
    pub async fn run<T: Future<Output = Option<KnownTopics>>, F: Future<Output = ()>>(
        &self,
        assigned: impl Fn() -> Vec<Assigned>,
        topics: impl Fn() -> T,
        forget: impl Fn(Vec<TopicId>) -> F,
        sweeps: impl Fn() -> bool,
        stop: CancellationToken,
    ) {
        let work = async {
            let mut next_sweep = Instant::now() + self.options.sweep_interval;
            loop {
                self.look_after(assigned()).await;
                if Instant::now() >= next_sweep {
                    if sweeps() {
                        match self.sweep(wall_clock(), &topics).await {
                            Ok(swept) if swept.settled.is_empty() => {}
                            Ok(swept) => forget(swept.settled).await,
                            Err(error) => tracing::warn!(%error, "sweep of the bucket failed, trying again later"),
                        }
                    } else {
                        // Whoever sweeps now counts them.
                        self.metrics.unknown_topics.set(0);
                    }
                    next_sweep = Instant::now() + self.options.sweep_interval;
                }
                tokio::time::sleep(self.options.interval).await;
            }
        };
        tokio::select! {
            () = work => {}
            () = stop.cancelled() => {}
        }
    }

    /// One look at every partition.
    pub async fn look_after(&self, assigned: Vec<Assigned>) {
        let known: HashSet<PartitionId> = assigned.iter().map(|one| one.partition).collect();
        self.settled.lock().retain(|partition, _| known.contains(partition));
        self.failed.lock().retain(|partition, _| known.contains(partition));
        let backlog = futures::stream::iter(assigned)
            .map(|one| async move { self.look_at(&one).await })
            .buffer_unordered(self.options.jobs.max(1))
            .fold(0u64, |sum, bytes| async move { sum.saturating_add(bytes) })
            .await;
        self.metrics.backlog_bytes.set(i64::try_from(backlog).unwrap_or(i64::MAX));
    }

    /// One look at one partition; returns its backlog in bytes.
    async fn look_at(&self, one: &Assigned) -> u64 {
        let handle = self.partitions.get(one.partition, &one.topic);
        let config = Arc::clone(&one.config.read());
        if self.is_settled(one.partition, &config, &handle) || self.failed_lately(one.partition) {
            return 0;
        }
        let outcome = self.look_closer(one, &config, &handle).await;
        self.note_outcome(one.partition, outcome.is_err());
        match outcome {
            Ok(done) if done.published == 0 && done.overtaken == 0 => {
                let version = handle.manifest().version();
                let settled = Settled { version, config, at: Instant::now() };
                self.settled.lock().insert(one.partition, settled);
                done.backlog_bytes
            }
            Ok(done) => done.backlog_bytes,
            Err(error) => {
                let (partition, topic) = (one.partition, &one.topic);
                tracing::warn!(%partition, %topic, %error, "compaction failed, trying again later");
                0
            }
        }
    }

    /// Whether nothing has changed since nothing was left to do, not long ago.
    fn is_settled(&self, partition: PartitionId, config: &Arc<TopicConfig>, handle: &RemotePartition) -> bool {
        self.settled.lock().get(&partition).is_some_and(|settled| {
            settled.version == handle.manifest().version()
                && settled.config == *config
                && settled.at.elapsed() < self.options.idle_interval
        })
    }

    /// Asks the bucket for the manifest only if the known one may be why work failed: it is only the basis of a plan, which
    /// whoever was first refuses, and the sweep tells of what others published.
    async fn look_closer(
        &self,
        one: &Assigned,
        config: &TopicConfig,
        handle: &RemotePartition,
    ) -> Result<Done, WorkError> {
        let Some(_lease) = self.leases.take(handle.partition()) else { return Ok(Done::default()) };
        let has_failed = self.failed.lock().contains_key(&one.partition);
        let manifest = if has_failed { handle.refresh().await? } else { handle.loaded().await? };
        self.work(handle, manifest, config, one.local_bytes, wall_clock()).await
    }

    fn failed_lately(&self, partition: PartitionId) -> bool {
        self.failed.lock().get(&partition).is_some_and(|failed| Instant::now() < failed.until)
    }

    /// What fails again and again costs reads and uploads each time, so it is tried less and less often.
    fn note_outcome(&self, partition: PartitionId, is_failure: bool) {
        let mut failed = self.failed.lock();
        if !is_failure {
            failed.remove(&partition);
            return;
        }
        let times = failed.get(&partition).map_or(0, |failed| failed.times);
        let pause = self.options.interval.saturating_mul(1 << times.min(16)).min(self.options.idle_interval);
        failed.insert(partition, Failed { times: times.saturating_add(1), until: Instant::now() + pause });
    }

    /// Does what is due for one partition. Does nothing if somebody in this process is at it.
    ///
    /// Cancel-safe: dropped half-way, it leaves orphans at most.
    ///
    /// # Errors
    /// [`WorkError`].
    pub async fn work_on(
        &self,
        handle: &RemotePartition,
        config: &TopicConfig,
        local_bytes: u64,
        now: Timestamp,
    ) -> Result<Done, WorkError> {
        let Some(_lease) = self.leases.take(handle.partition()) else { return Ok(Done::default()) };
        let manifest = handle.refresh().await?;
        self.work(handle, manifest, config, local_bytes, now).await
    }

    async fn work(
        &self,
        handle: &RemotePartition,
        manifest: Arc<Manifest>,
        config: &TopicConfig,
        local_bytes: u64,
        now: Timestamp,
    ) -> Result<Done, WorkError> {
        if manifest.is_empty() || manifest.deleted_at().is_some() {
            return Ok(Done::default());
        }
        let everything = handle.objects(&manifest, manifest.log_start().0, manifest.end()).await?;
        let limits = &self.options.limits;
        let situation = Situation {
            manifest: &manifest,
            objects: &everything,
            config,
            limits,
            local_bytes,
            may_compact: true,
            now,
        };
        let mut done = Done { backlog_bytes: plan::backlog(&situation), ..Done::default() };
        let outcome = self.perform(handle, &situation, plan::plan(&situation), &mut done).await;
        if let Err(WorkError::Rewrite(RewriteError::Clean(error))) = outcome {
            // As Kafka's cleaner leaves such a log alone; it is archived all the same.
            tracing::warn!(partition = %handle.partition(), %error, "partition cannot be compacted by key");
            let work = plan::plan(&Situation { may_compact: false, ..situation });
            self.perform(handle, &situation, work, &mut done).await?;
            return Ok(done);
        }
        outcome.map(|()| done)
    }

    async fn perform(
        &self,
        handle: &RemotePartition,
        situation: &Situation<'_>,
        work: Vec<Work>,
        done: &mut Done,
    ) -> Result<(), WorkError> {
        let workshop = Workshop {
            bucket: handle.bucket().clone(),
            reader: Reader { bucket: handle.bucket().clone(), rate: Arc::clone(&self.rate) },
            kind: match situation.config.archive_format {
                ArchiveFormat::Parquet => ObjectKind::Parquet,
                ArchiveFormat::Raw => ObjectKind::Raw,
            },
            partition: handle.partition(),
            topic: situation.manifest.topic().clone(),
            encode: self.options.encode.clone(),
            metrics: self.metrics.clone(),
            patience: self.options.grace / 2,
        };
        for item in work {
            let kind = match &item {
                Work::Expire(_) => "expire",
                Work::Compact(_) => "compact",
                Work::Rewrite(_) => "rewrite",
            };
            let before = done.overtaken;
            let span = trace_span!(
                target: "varve_trace::root", "rewrite the archive", otel.name = format!("{kind} the archive"),
                messaging.destination.name = workshop.topic.as_str(), partition = %handle.partition(),
                outcome = field::Empty,
            );
            let performing = async {
                match item {
                    Work::Expire(start) => {
                        self.publish(handle, done, |manifest| manifest.expire(Writer::Compactor, start, situation.now))
                            .await
                    }
                    Work::Rewrite(objects) => self.rewrite(&workshop, handle, &objects, situation.now, done).await,
                    Work::Compact(round) => self.compact(&workshop, handle, &round, situation, done).await,
                }
            };
            let outcome = performing.instrument(span.clone()).await;
            let label = match &outcome {
                Ok(()) if done.overtaken == before => "done",
                Ok(()) => "overtaken",
                Err(_) => "failed",
            };
            span.record("outcome", label);
            self.metrics.work.with_label_values(&[kind, label]).inc();
            outcome?;
        }
        Ok(())
    }

    async fn rewrite(
        &self,
        workshop: &Workshop,
        handle: &RemotePartition,
        objects: &[RemoteObject],
        now: Timestamp,
        done: &mut Done,
    ) -> Result<(), WorkError> {
        let sources = workshop.open(objects).await.map_err(RewriteError::from)?;
        let (rewritten, _) = workshop.rewrite(&sources, None).await?;
        self.replace(handle, &sources, rewritten, now, done).await
    }

    async fn compact(
        &self,
        workshop: &Workshop,
        handle: &RemotePartition,
        round: &Round,
        situation: &Situation<'_>,
        done: &mut Done,
    ) -> Result<(), WorkError> {
        let limits = RoundLimits {
            map_bytes: self.options.map_bytes,
            spill: self.options.spill.as_ref(),
            target: self.options.limits.target,
            delete_retention: situation.config.delete_retention,
            now: situation.now,
        };
        let Some(newest) = situation.objects.last() else { return Ok(()) };
        let Some(compaction) = workshop.survey(round, newest, limits).await? else {
            tracing::warn!(partition = %handle.partition(), "memory for keys is too small for one row group of keys");
            return Ok(());
        };
        let overtaken = done.overtaken;
        let mut cleaning = compaction.cleaning;
        for step in compaction.steps {
            match step {
                Step::Keep(source) => cleaning.pass_over(&source)?,
                Step::Rewrite(sources) => {
                    let (rewritten, back) = workshop.rewrite(&sources, Some(cleaning)).await?;
                    cleaning = back.expect("handed in");
                    self.replace(handle, &sources, rewritten, situation.now, done).await?;
                    // Later objects may go by what earlier ones no longer hold, so nothing goes on without this one.
                    if done.overtaken > overtaken {
                        return Ok(());
                    }
                }
            }
        }
        self.publish(handle, done, |manifest| manifest.cleaned(compaction.end)).await
    }

    /// Publishes a new object in the place of its sources.
    async fn replace(
        &self,
        handle: &RemotePartition,
        sources: &[Source],
        rewritten: Rewritten,
        now: Timestamp,
        done: &mut Done,
    ) -> Result<(), WorkError> {
        let old: Vec<RemoteObject> = sources.iter().map(|source| source.object.clone()).collect();
        if let Err(too_slow) = rewritten.check_age() {
            self.discard(handle, &rewritten.object).await;
            return Err(too_slow.into());
        }
        let before = done.overtaken;
        let object = rewritten.object;
        let outcome = self.publish(handle, done, |manifest| manifest.replace(&old, vec![object.clone()], now)).await;
        if done.overtaken > before || matches!(outcome, Err(WorkError::Refused(_))) {
            self.discard(handle, &object).await;
        }
        outcome
    }

    /// Deletes an object that was not published, so that nobody can know of it: the sweep would find it, this is sooner.
    async fn discard(&self, handle: &RemotePartition, object: &RemoteObject) {
        let key = object.key(handle.partition(), handle.topic());
        if let Err(error) = handle.bucket().delete(&key).await {
            tracing::debug!(%key, %error, "an object that nobody needs is left to the sweep");
        }
    }

    async fn publish(
        &self,
        handle: &RemotePartition,
        done: &mut Done,
        change: impl FnMut(&Manifest) -> Result<Manifest, ManifestError>,
    ) -> Result<(), WorkError> {
        match handle.update(change).await {
            Ok(_) => done.published += 1,
            Err(UpdateError::Refused(ManifestError::Gone(_) | ManifestError::Coverage | ManifestError::Deleted)) => {
                done.overtaken += 1;
            }
            Err(UpdateError::Refused(refused)) => return Err(WorkError::Refused(refused)),
            Err(UpdateError::Store(error)) => return Err(error.into()),
        }
        Ok(())
    }
}

/// The wall clock, as manifests carry it.
pub(crate) fn wall_clock() -> Timestamp {
    let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since_epoch.as_millis()).ok().and_then(Timestamp::from_wire).unwrap_or_default()
}
