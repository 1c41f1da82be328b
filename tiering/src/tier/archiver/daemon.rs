//! The tasks of the archiver.

use std::{
    collections::HashMap,
    num::NonZeroU64,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use parking_lot::{Mutex, RwLock};
use tokio::{sync::Notify, task::JoinHandle, time::Instant};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use uuid::Uuid;
use varve_metadata::model::{PartitionId, Timestamp};

use super::{
    metrics::ArchiverMetrics,
    pressure::{HotPressure, Pressure},
    schedule::Schedule,
    share::{Pool, Sharing},
    slot::Slot,
    tend::{LocalPartition, TendError, Tended, Tools},
};
use crate::{
    layout::Version,
    tier::{
        cluster::Claim,
        pace::{ByteRate, Places},
        partition::{RemotePartition, UpdateError},
        wall_clock,
    },
};

/// First pause after a failure; doubles up to [`LONGEST_PAUSE`], and the pause taken is random in its upper half.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// Between two measurements of hot data and lag without a limit for hot data, and with one.
const MEASURE_EVERY: Duration = Duration::from_secs(5);
const MEASURE_LIMITED_EVERY: Duration = Duration::from_millis(500);

/// How an archiver works.
#[derive(Clone)]
pub struct ArchiverOptions {
    /// Partitions worked on at once.
    pub workers: usize,
    /// Bytes per second that go up, all partitions together.
    pub upload_rate: Option<NonZeroU64>,
    /// Time between two looks at a partition for retention (`log.retention.check.interval.ms`).
    pub check_interval: Duration,
    /// Bytes of local log that all partitions together may have.
    pub hot_limit: Option<u64>,
    /// How small segments share objects.
    pub sharing: Sharing,
    /// Asked before the first upload; `None`: the bucket is ours.
    pub claim: Option<Arc<Claim>>,
    /// The wall clock.
    pub clock: Arc<dyn Fn() -> Timestamp + Send + Sync>,
}

impl Default for ArchiverOptions {
    fn default() -> ArchiverOptions {
        ArchiverOptions {
            workers: 4,
            upload_rate: None,
            check_interval: Duration::from_secs(5 * 60),
            hot_limit: None,
            sharing: Sharing::default(),
            claim: None,
            clock: Arc::new(wall_clock),
        }
    }
}

/// The daemon. Dropping it stops it without waiting; [`Archiver::stop`] waits.
pub struct Archiver {
    shared: Arc<Shared>,
    stop: CancellationToken,
    dispatcher: Mutex<Vec<JoinHandle<()>>>,
}

struct Shared {
    schedule: Mutex<Schedule>,
    care: RwLock<HashMap<PartitionId, Arc<Care>>>,
    /// Rung when something may have become due earlier than the dispatcher knows.
    bell: Notify,
    started: Instant,
    clock: Arc<dyn Fn() -> Timestamp + Send + Sync>,
    tools: Tools,
    /// A place for each partition that is worked on at once.
    workers: Places,
    /// What producers were told last, so that a change is logged once.
    told: Mutex<Pressure>,
}

/// What is to be done for a partition.
struct Care {
    work: Work,
    failures: AtomicU32,
}

enum Work {
    Tend(Box<Tended>),
    /// Its topic was deleted: the manifest must say so.
    Bury(Arc<RemotePartition>),
}

impl Archiver {
    /// Starts the tasks on the current runtime.
    pub fn start(options: ArchiverOptions, metrics: ArchiverMetrics) -> Archiver {
        let (rate, pool) = (Arc::new(ByteRate::new(options.upload_rate)), Arc::new(Pool::new()));
        let tools = Tools {
            rate: Arc::clone(&rate),
            sharing: options.sharing,
            pool: Some(Arc::clone(&pool)),
            metrics,
            regular: options.check_interval,
            pressure: Arc::new(HotPressure::new(options.hot_limit)),
            claim: options.claim,
        };
        let shared = Arc::new(Shared {
            schedule: Mutex::default(),
            care: RwLock::default(),
            bell: Notify::new(),
            started: Instant::now(),
            clock: options.clock,
            tools,
            workers: Places::new(options.workers),
            told: Mutex::new(Pressure::Fine),
        });
        let stop = CancellationToken::new();
        let dispatcher = tokio::spawn(Arc::clone(&shared).dispatch(stop.clone()));
        let meter = tokio::spawn(Arc::clone(&shared).measure(stop.clone()));
        let (metrics, stopped) = (shared.tools.metrics.clone(), stop.clone());
        let sharer = tokio::spawn(async move { pool.run(options.sharing, rate, metrics, stopped).await });
        Archiver { shared, stop, dispatcher: Mutex::new(vec![dispatcher, meter, sharer]) }
    }

    /// Takes a partition that this broker leads into its care. `spread` delays the first look by a random part of it, so
    /// that the partitions of a starting node do not all ask the bucket at once.
    pub fn add(&self, local: Arc<dyn LocalPartition>, remote: Arc<RemotePartition>, spread: Duration) {
        let partition = remote.partition();
        let shared = Arc::downgrade(&self.shared);
        local.log().on_seal(move || {
            if let Some(shared) = shared.upgrade() {
                shared.wake(partition, Duration::ZERO);
            }
        });
        self.shared.take_care(partition, Work::Tend(Box::new(Tended::new(local, remote))), spread.mul_f64(random()));
    }

    /// Lets go of a partition: it is closed, or another broker leads it. Work under way ends by itself.
    pub fn remove(&self, partition: PartitionId) {
        self.shared.care.write().remove(&partition);
        self.shared.schedule.lock().remove(partition);
        self.shared.count();
    }

    /// Removes everything remote of a partition whose topic was deleted: the manifest says so as soon as the bucket takes
    /// it, and the sweep deletes objects after the grace period.
    pub fn delete(&self, remote: Arc<RemotePartition>) {
        self.shared.take_care(remote.partition(), Work::Bury(remote), Duration::ZERO);
    }

    /// Looks at a partition now: its log start moved, its settings changed, or its leader epoch did.
    pub fn wake(&self, partition: PartitionId) {
        if self.shared.care.read().contains_key(&partition) {
            self.shared.wake(partition, Duration::ZERO);
        }
    }

    /// Other bounds on the work, from now on.
    pub fn set_limits(&self, workers: usize, upload_rate: Option<NonZeroU64>) {
        self.shared.workers.set(workers);
        self.shared.tools.rate.set(upload_rate);
    }

    /// How full the hot tier is. Producers ask it.
    pub fn pressure(&self) -> &Arc<HotPressure> {
        &self.shared.tools.pressure
    }

    /// What it does, in numbers.
    pub fn metrics(&self) -> &ArchiverMetrics {
        &self.shared.tools.metrics
    }

    /// Stops, and waits until nothing is under way. Uploads in the middle are given up; the next start repeats them.
    pub async fn stop(&self) {
        self.stop.cancel();
        let tasks = std::mem::take(&mut *self.dispatcher.lock());
        for task in tasks {
            if let Err(error) = task.await
                && error.is_panic()
            {
                tracing::error!(%error, "a task of the archiver panicked");
            }
        }
    }
}

impl Drop for Archiver {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Shared {
    /// Monotonic time since the start.
    fn now(&self) -> Duration {
        self.started.elapsed()
    }

    fn take_care(&self, partition: PartitionId, work: Work, after: Duration) {
        let care = Arc::new(Care { work, failures: AtomicU32::new(0) });
        self.care.write().insert(partition, care);
        self.wake(partition, after);
        self.count();
    }

    fn wake(&self, partition: PartitionId, after: Duration) {
        self.schedule.lock().wake(partition, self.now() + after);
        self.bell.notify_one();
    }

    fn count(&self) {
        self.tools.metrics.partitions.set(self.care.read().len() as i64);
    }

    async fn dispatch(self: Arc<Shared>, stop: CancellationToken) {
        let free = self.workers.free();
        let tasks = TaskTracker::new();
        loop {
            // The work first: a place held while nothing is due is one that a look with its upload done may wait for.
            let Some(partition) = self.next(&stop).await else { break };
            let permit = tokio::select! {
                () = stop.cancelled() => break,
                permit = Arc::clone(free).acquire_owned() => permit.expect("never closed"),
            };
            let (shared, stop) = (Arc::clone(&self), stop.clone());
            // Given back also if the work panics: one broken partition must not take the others' worker.
            let slot = Slot::new(Arc::clone(free), permit);
            tasks.spawn(async move {
                tokio::select! {
                    () = stop.cancelled() => {}
                    () = shared.work_on(partition, &slot) => {}
                }
            });
        }
        tasks.close();
        tasks.wait().await;
    }

    /// Waits for a partition that is due; `None` when it is time to stop.
    async fn next(&self, stop: &CancellationToken) -> Option<PartitionId> {
        loop {
            let rung = self.bell.notified();
            let due = {
                let mut schedule = self.schedule.lock();
                if let Some(partition) = schedule.take(self.now()) {
                    return Some(partition);
                }
                schedule.next_due()
            };
            let sleep = async {
                match due {
                    Some(due) => tokio::time::sleep_until(self.started + due).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = stop.cancelled() => return None,
                () = rung => {}
                () = sleep => {}
            }
        }
    }

    async fn work_on(&self, partition: PartitionId, slot: &Slot) {
        let Some(care) = self.care.read().get(&partition).cloned() else { return };
        let outcome = match &care.work {
            Work::Tend(tended) => tended.look(&self.tools, slot, (self.clock)()).await,
            Work::Bury(remote) => match self.bury(remote).await {
                // Nothing is left to do, as after a look that finds the topic deleted.
                Ok(()) => Err(TendError::Deleted),
                Err(error) => Err(error),
            },
        };
        let again = match outcome {
            Ok(again) => {
                care.failures.store(0, Ordering::Relaxed);
                again
            }
            Err(TendError::Deleted) => {
                self.finish(partition, &care);
                return;
            }
            Err(error) => self.after_failure(partition, &care, &error),
        };
        let now = self.now();
        self.schedule.lock().give_back(partition, now.saturating_add(again), now);
        self.bell.notify_one();
    }

    fn after_failure(&self, partition: PartitionId, care: &Care, error: &TendError) -> Duration {
        self.tools.metrics.failures.inc();
        let failures = care.failures.fetch_add(1, Ordering::Relaxed);
        let error: &dyn std::error::Error = error;
        let chain = std::iter::successors(Some(error), |error| error.source()).map(ToString::to_string);
        let error_text = chain.collect::<Vec<_>>().join(": ");
        let tend_error = error.downcast_ref::<TendError>();
        if tend_error.is_some_and(TendError::is_damage) {
            self.tools.metrics.damaged.inc();
        }
        if tend_error.is_some_and(|error| !error.is_weather()) {
            tracing::error!(%partition, error = error_text, "the archive of this partition needs attention");
            return self.tools.regular;
        }
        tracing::warn!(%partition, failures, error = error_text, "archiving failed, trying again");
        let pause = FIRST_PAUSE.saturating_mul(1 << failures.min(10)).min(LONGEST_PAUSE);
        pause.mul_f64(0.5 + random() / 2.0)
    }

    async fn bury(&self, remote: &RemotePartition) -> Result<(), TendError> {
        self.tools.check_claim().await?;
        let manifest = remote.refresh().await.map_err(UpdateError::Store)?;
        if manifest.version() != Version::NONE && manifest.deleted_at().is_none() {
            let now = (self.clock)();
            remote.update(|manifest| Ok(manifest.deleted(now))).await?;
        }
        Ok(())
    }

    /// Nothing is left to do for `care`, unless other work took its place meanwhile.
    fn finish(&self, partition: PartitionId, done: &Arc<Care>) {
        let mut care = self.care.write();
        if care.get(&partition).is_some_and(|current| Arc::ptr_eq(current, done)) {
            care.remove(&partition);
            self.schedule.lock().remove(partition);
            drop(care);
            self.count();
        }
    }

    async fn measure(self: Arc<Shared>, stop: CancellationToken) {
        let limited = self.tools.pressure.limit().is_some();
        let mut ticks = tokio::time::interval(if limited { MEASURE_LIMITED_EVERY } else { MEASURE_EVERY });
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = ticks.tick() => self.measure_once(),
            }
        }
    }

    fn measure_once(&self) {
        let care: Vec<Arc<Care>> = self.care.read().values().cloned().collect();
        let now = (self.clock)();
        let (mut hot, mut pending, mut lag) = (0, 0, Duration::ZERO);
        for tended in
            care.iter().filter_map(|care| if let Work::Tend(tended) = &care.work { Some(tended) } else { None })
        {
            hot += tended.local.log().size();
            let (bytes, waiting) = tended.pending(now);
            pending += bytes;
            lag = lag.max(waiting);
        }
        let pressure = &self.tools.pressure;
        pressure.measure(hot, self.now());
        self.tell(pressure);
        if pressure.needs_room() {
            self.make_room(&care);
        }
        let metrics = &self.tools.metrics;
        metrics.hot_bytes.set(hot as i64);
        metrics.hot_limit_bytes.set(pressure.limit().unwrap_or(0) as i64);
        metrics.pending_bytes.set(pending as i64);
        metrics.lag_seconds.set(lag.as_secs() as i64);
        metrics.time_to_full_seconds.set(pressure.time_to_full().map_or(-1, |left| left.as_secs() as i64));
    }
}

impl Shared {
    /// Logs what producers begin to feel, or no longer do.
    fn tell(&self, pressure: &HotPressure) {
        let now = pressure.now();
        let before = std::mem::replace(&mut *self.told.lock(), now);
        let (bytes, limit) = (pressure.bytes(), pressure.limit().unwrap_or(0));
        let failing = self.tools.metrics.failures.get();
        match (before, now) {
            (Pressure::Refuse, Pressure::Refuse) | (Pressure::Throttle(_), Pressure::Throttle(_)) => {}
            (Pressure::Fine, Pressure::Fine) => {}
            (_, Pressure::Fine) => tracing::info!(bytes, limit, "the hot tier has room again: producers are free"),
            (_, Pressure::Throttle(_)) => tracing::warn!(
                bytes,
                limit,
                failing,
                seconds_to_full = pressure.time_to_full().map(|left| left.as_secs()),
                "the hot tier fills faster than the archive takes it: producers are slowed down"
            ),
            (_, Pressure::Refuse) => tracing::error!(
                bytes,
                limit,
                failing,
                "the hot tier is full and the archive does not take it: producers are refused"
            ),
        }
    }

    /// Has partitions looked at whose archived records may leave. Those that fail wait for their pause all the same.
    fn make_room(&self, care: &[Arc<Care>]) {
        let may_help = |care: &&Arc<Care>| care.failures.load(Ordering::Relaxed) == 0;
        for care in care.iter().filter(may_help) {
            if let Work::Tend(tended) = &care.work
                && tended.may_make_room()
            {
                self.wake(tended.remote.partition(), Duration::ZERO);
            }
        }
    }
}

/// A random number from 0 to 1.
fn random() -> f64 {
    let random = u32::from_le_bytes(*Uuid::new_v4().as_bytes().first_chunk().expect("16 bytes"));
    f64::from(random) / f64::from(u32::MAX)
}
