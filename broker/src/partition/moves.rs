//! Logs on their way to another directory of this node (KIP-113), while they are read and written.
//!
//! ```text
//! from/t-0          ─► from/t-0 with `moved-to`  ─► from/t-0 with `moved-to`  ─► from/t-0.…-delete ─► gone
//! to/t-0.…-future   ─► to/t-0.…-future, complete ─► to/t-0: counts from here on
//! ```
//! A crash in any of these states leaves one log that counts: with a mark and without a log in the directory that it names, the
//! move had not happened; with both, it had ([`finish_moves`]). With a mark, and a log without one in a third directory, it had, too:
//! the log has moved on while the directory of the mark was offline.

use std::{
    collections::HashMap,
    io,
    path::Path,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use tokio::{sync::Semaphore, task::spawn_blocking};
use tracing::{error, info, warn};
use varve_log::local::{FutureLog, LogDir, RelocateError};
use varve_metadata::model::{LogEndOffset, PartitionId};

use super::{LogDirHealth, Partition, Partitions, removal::delete_closed, storage::wall_clock, throttle::Throttle};

/// With so little left to copy, writers are made to wait for it.
const LITTLE_BYTES: u64 = 1 << 20;
/// After so many rounds writers wait for whatever is left: they write faster than the disk copies.
const ROUNDS: usize = 50;
/// Longest sleep of a throttled move before it looks whether it is to end.
const NAP: Duration = Duration::from_millis(100);
/// Logs that move at the same time, unless `num.replica.alter.log.dirs.threads` says otherwise.
pub(super) const AT_A_TIME: usize = 4;

/// Why a log does not move.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MoveError {
    /// Not one of `log.dirs`.
    #[error("the directory is not one of log.dirs")]
    NoSuchDir,
    /// The directory failed, or the one in which the log is.
    #[error("the log directory is offline")]
    Offline,
    /// No directory can have a name so long.
    #[error("the topic's name is too long")]
    NameTooLong,
}

/// A log on its way.
#[derive(Debug)]
pub struct Move {
    /// Where it goes.
    pub to: Arc<LogDirHealth>,
    bytes: AtomicU64,
    end: AtomicU64,
    is_cancelled: AtomicBool,
}

impl Move {
    /// Bytes that are there already.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// How many offsets the copy is behind `end`.
    pub fn lag(&self, end: LogEndOffset) -> u64 {
        end.0.get().saturating_sub(self.end.load(Ordering::Relaxed))
    }

    fn cancel(&self) {
        self.is_cancelled.store(true, Ordering::Release);
    }

    fn goes_on(&self, partition: &Partition) -> bool {
        !self.is_cancelled.load(Ordering::Acquire) && !partition.is_retired()
    }
}

/// All of them.
#[derive(Debug)]
pub struct Moves {
    moves: Mutex<HashMap<PartitionId, Arc<Move>>>,
    /// Bytes per second, all moves together; 0: as fast as the disks are.
    rate: AtomicU64,
    throttle: Mutex<Throttle>,
    turns: OnceLock<Arc<Semaphore>>,
    /// The node stops: what is not moved yet is not.
    are_stopped: AtomicBool,
}

impl Default for Moves {
    fn default() -> Moves {
        let throttle = Mutex::new(Throttle::new(Instant::now()));
        Moves {
            moves: Mutex::default(),
            rate: AtomicU64::new(0),
            throttle,
            turns: OnceLock::new(),
            are_stopped: AtomicBool::new(false),
        }
    }
}

impl Moves {
    /// At most `threads` logs move at the same time; said once, before the first.
    pub fn set_threads(&self, threads: usize) {
        let _ = self.turns.set(Arc::new(Semaphore::new(threads.clamp(1, Semaphore::MAX_PERMITS))));
    }

    /// All moves together copy no more than this per second (`replica.alter.log.dirs.io.max.bytes.per.second`).
    pub fn set_bytes_per_second(&self, rate: Option<u64>) {
        self.rate.store(rate.unwrap_or(0), Ordering::Relaxed);
    }

    /// What is under way, in no order.
    pub fn list(&self) -> Vec<(PartitionId, Arc<Move>)> {
        self.moves.lock().iter().map(|(id, moving)| (*id, Arc::clone(moving))).collect()
    }

    pub(super) fn turns(&self) -> Arc<Semaphore> {
        Arc::clone(self.turns.get_or_init(|| Arc::new(Semaphore::new(AT_A_TIME))))
    }

    /// Waits until the rate allows for `bytes` that were copied, or `goes_on` says no.
    fn pay(&self, bytes: u64, goes_on: impl Fn() -> bool) {
        let rate = || self.rate.load(Ordering::Relaxed);
        let due = self.throttle.lock().note(bytes, rate(), Instant::now());
        while goes_on() {
            let wait = self.throttle.lock().wait(due, rate(), Instant::now());
            if wait.is_zero() {
                return;
            }
            thread::sleep(wait.min(NAP));
        }
    }

    fn are_stopped(&self) -> bool {
        self.are_stopped.load(Ordering::Acquire)
    }

    fn ended(&self, id: PartitionId, ended: &Arc<Move>) {
        let mut moves = self.moves.lock();
        if moves.get(&id).is_some_and(|known| Arc::ptr_eq(known, ended)) {
            moves.remove(&id);
        }
    }
}

impl Partitions {
    /// Has the log of `partition` moved to the directory `to`, in the background. If it is there, or on its way there, nothing
    /// happens; if it is on its way elsewhere, it is not any more.
    ///
    /// # Errors
    /// [`MoveError`].
    pub fn move_log(self: &Arc<Partitions>, partition: &Arc<Partition>, to: &Path) -> Result<(), MoveError> {
        let dirs = self.log_dirs();
        let is_it = |dir: &&Arc<LogDirHealth>| std::path::absolute(&dir.path).is_ok_and(|path| path == to);
        let target = dirs.iter().find(is_it).cloned().ok_or(MoveError::NoSuchDir)?;
        if target.is_failed() {
            return Err(MoveError::Offline);
        }
        let Some(files) = target.files() else { return Err(MoveError::Offline) };
        if files.future_path(partition.topic(), partition.id().index).is_none() {
            return Err(MoveError::NameTooLong);
        }
        let mut moves = self.moves().moves.lock();
        match moves.get(&partition.id()) {
            Some(under_way) if Arc::ptr_eq(&under_way.to, &target) => return Ok(()),
            Some(under_way) => under_way.cancel(),
            None => {}
        }
        moves.remove(&partition.id());
        if Arc::ptr_eq(&partition.log_dir(), &target) {
            return Ok(());
        }
        if partition.log_dir().is_failed() {
            return Err(MoveError::Offline);
        }
        let moving = Arc::new(Move {
            to: target,
            bytes: AtomicU64::new(0),
            end: AtomicU64::new(0),
            is_cancelled: AtomicBool::new(false),
        });
        moves.insert(partition.id(), Arc::clone(&moving));
        drop(moves);
        tokio::spawn(run(Arc::clone(self), Arc::clone(partition), moving));
        Ok(())
    }

    /// No log changes its place any more, and when this returns none is about to. Copies that are not complete stay where they
    /// are: the next start begins their moves anew. Blocks until the steps that are under way are on disk.
    pub(super) fn stop_moves(&self) {
        self.moves().are_stopped.store(true, Ordering::Release);
        self.all().iter().for_each(|partition| drop(partition.moving().lock()));
    }
}

async fn run(partitions: Arc<Partitions>, partition: Arc<Partition>, moving: Arc<Move>) {
    let turns = partitions.moves().turns();
    let _turn = turns.acquire().await.expect("nobody closes it");
    let (all, of, this) = (Arc::clone(&partitions), Arc::clone(&partition), Arc::clone(&moving));
    let outcome = spawn_blocking(move || {
        // One that was cancelled for this one may still be at it.
        let _alone = of.moving().lock();
        move_now(&of, &this, all.moves())
    })
    .await;
    partitions.moves().ended(partition.id(), &moving);
    let (topic, index, to) = (partition.topic(), partition.id().index, moving.to.path.display());
    match outcome {
        Ok(Ok(bytes)) => info!(%topic, partition = %index, %to, bytes, "log moved"),
        Ok(Err(RelocateError::Ended)) => info!(%topic, partition = %index, %to, "log not moved: ended early"),
        Ok(Err(error @ RelocateError::Lost(_))) => {
            error!(%topic, partition = %index, %to, %error, "a log that was moved is offline until a restart");
            moving.to.fail(&error);
        }
        Ok(Err(error)) => warn!(%topic, partition = %index, %to, %error, "log not moved"),
        Err(panic) => error!(%topic, partition = %index, %panic, "moving a log panicked"),
    }
}

/// Blocks on the disks until the log is moved; returns how large it is.
fn move_now(partition: &Arc<Partition>, moving: &Move, moves: &Moves) -> Result<u64, RelocateError> {
    // It may have waited for long. Whoever deletes a topic waits for the move that is at it: before the end of this one no
    // other topic has the name.
    if !moving.goes_on(partition) {
        return Err(RelocateError::Ended);
    }
    let source = partition.log_dir();
    let (topic, index) = (partition.topic(), partition.id().index);
    let gone = || RelocateError::Storage(io::Error::other("a log directory failed"));
    let (from, to) = (source.files().ok_or_else(gone)?, moving.to.files().ok_or_else(gone)?);
    let copy = to.future_path(topic, index).ok_or_else(gone)?;
    if let Some(stale) = to.find(topic, index) {
        if stale.topic_id == Some(partition.id().topic) {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, "the directory has a log of it").into());
        }
        moving.to.remover().remove(to.delete_log(topic, index)?);
    }
    partition.log().pause_cleaning();
    let outcome = loop {
        let outcome = FutureLog::create(&copy, partition.id().topic)
            .map_err(RelocateError::from)
            .and_then(|future| copy_and_swap(partition, moving, (from, to), future, moves));
        if !matches!(outcome, Err(RelocateError::Cut)) {
            break outcome;
        }
        // A follower's log parted from its leader's.
        moving.bytes.store(0, Ordering::Relaxed);
        moving.end.store(0, Ordering::Relaxed);
        match to.set_copy_aside(&copy) {
            Ok(aside) => moving.to.remover().remove(aside),
            Err(error) => break Err(error.into()),
        }
    };
    partition.log().resume_cleaning();
    match &outcome {
        Ok(_) => {
            let cleaned = from.cleaned_below(topic, index);
            if let Err(error) = to.set_cleaned_below(topic, index, cleaned) {
                warn!(%topic, partition = %index, %error, "the cleaner's checkpoint could not be written");
            }
            delete_closed(&source, topic, partition.id().topic, &[index]);
        }
        // The copy counts.
        Err(RelocateError::Lost(_)) => {}
        // The next start sees by it that the log is to move.
        Err(_) if moves.are_stopped() && moving.goes_on(partition) => {}
        // Whoever deletes the topic waits for this: the files go later.
        Err(_) => match to.set_copy_aside(&copy) {
            Ok(aside) => moving.to.remover().remove(aside),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => warn!(copy = %copy.display(), %error, "an unfinished copy stays until a restart"),
        },
    }
    outcome
}

fn copy_and_swap(
    partition: &Arc<Partition>,
    moving: &Move,
    (from, to): (&LogDir, &LogDir),
    mut future: FutureLog,
    moves: &Moves,
) -> Result<u64, RelocateError> {
    let (topic, index) = (partition.topic(), partition.id().index);
    let goes_on = || moving.goes_on(partition) && !moves.are_stopped();
    let pace = |bytes: u64| {
        moving.bytes.fetch_add(bytes, Ordering::Relaxed);
        // The disk belongs to clients first.
        moves.pay(bytes, goes_on);
        goes_on()
    };
    for _ in 0..ROUNDS {
        let copied = partition.log().copy_to(&mut future, &pace)?;
        moving.bytes.store(future.size(), Ordering::Relaxed);
        moving.end.store(future.end().get(), Ordering::Relaxed);
        if copied <= LITTLE_BYTES {
            break;
        }
    }
    if !goes_on() {
        return Err(RelocateError::Ended);
    }
    partition.log().relocate(future, wall_clock(), |copy, log_start, end| {
        from.mark_moved(topic, index, Some(to))?;
        match to.promote(copy, topic, index, (log_start.0, end)) {
            Ok(place) => {
                // While appends wait, so that whoever deletes the topic next deletes the right files.
                partition.set_log_dir(Arc::clone(&moving.to));
                Ok(place)
            }
            Err(error) => {
                if let Err(error) = from.mark_moved(topic, index, None) {
                    // A start with that mark and without the log over there takes it back.
                    warn!(%topic, partition = %index, %error, "the mark of a move stays until a restart");
                }
                Err(error)
            }
        }
    })?;
    Ok(partition.log().size())
}

/// At the start, before any log is opened: what the end of the process before left of moves is brought to an end.
pub(super) fn finish_moves(dirs: &[Arc<LogDirHealth>]) {
    for dir in dirs {
        let Some(files) = dir.files() else { continue };
        let found = match files.partitions() {
            Ok(found) => found,
            Err(error) => {
                dir.fail(&error);
                continue;
            }
        };
        for left in found {
            let Some(target) = &left.moved_to else { continue };
            let there = dirs.iter().filter_map(|dir| dir.files()).find(|files| files.directory_id() == target);
            let (topic, index, path) = (&left.topic, left.index, left.path.display());
            let is_elsewhere = |files: &LogDir| {
                let log = files.find(topic, index);
                files.directory_id() != target
                    && log.is_some_and(|log| log.topic_id == left.topic_id && log.moved_to.is_none())
            };
            let has_moved_on = left.topic_id.is_some() && dirs.iter().filter_map(|dir| dir.files()).any(is_elsewhere);
            let outcome = match there {
                // Its next place may be gone by now, and what is there has been written to since.
                _ if has_moved_on => files.set_stray_aside(&left).map(|aside| {
                    warn!(from = %path, to = %aside.display(), "the log moved on while its directory was offline: set aside");
                }),
                // Which of the two counts can only be told when the other one is back; `place` keeps the partition offline.
                None => {
                    error!(%path, target, "the log may have moved to a directory that is not there; it stays offline");
                    continue;
                }
                Some(there) if there.find(topic, index).is_some_and(|log| log.topic_id == left.topic_id) => {
                    info!(%path, "removing what a moved log left behind");
                    files.delete_log(topic, index).map(|aside| dir.remover().remove(aside))
                }
                Some(_) => files.mark_moved(topic, index, None),
            };
            if let Err(error) = outcome {
                dir.fail(&error);
            }
        }
    }
}
