//! One of `log.dirs`: what is known of it on disk, and how it is doing.

use std::{
    error::Error,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use tokio::sync::{Notify, Semaphore, SemaphorePermit};
use tracing::{error, info};
use varve_log::local::LogDir;

use super::removal::Remover;

/// A disk is called full for this long after the last refusal: small appends may fit where others do not.
const FULL_FOR: Duration = Duration::from_secs(10);
/// With so many bytes free there is room, or with this part of the disk if that is less.
const ROOM_BYTES: u64 = 64 << 20;
const ROOM_PART: u64 = 20;

/// One of `log.dirs`. When it fails, only the partitions in it go offline.
#[derive(Debug)]
pub struct LogDirHealth {
    /// Where it is.
    pub path: PathBuf,
    /// `None` if it could not even be opened.
    files: Option<LogDir>,
    /// Logs that may still be opened at the same time.
    turns: Semaphore,
    failed: AtomicBool,
    /// Rung when it fails.
    bell: Notify,
    full: AtomicBool,
    /// It gets no new logs while another one can take them (KIP-1066).
    cordoned: AtomicBool,
    last_refusal: Mutex<Option<Instant>>,
    /// What was deleted in it.
    remover: Remover,
}

impl LogDirHealth {
    /// A directory that works, without its checkpoints.
    pub fn new(path: PathBuf) -> Arc<LogDirHealth> {
        LogDirHealth::with(path, None, 1)
    }

    /// A directory that was opened, in which `threads` logs may be opened at the same time.
    pub(super) fn opened(files: LogDir, threads: u32) -> Arc<LogDirHealth> {
        LogDirHealth::with(files.path().to_owned(), Some(files), threads)
    }

    fn with(path: PathBuf, files: Option<LogDir>, threads: u32) -> Arc<LogDirHealth> {
        let turns = Semaphore::new((threads.max(1) as usize).min(Semaphore::MAX_PERMITS));
        let (failed, full, cordoned) = (AtomicBool::new(false), AtomicBool::new(false), AtomicBool::new(false));
        let bell = Notify::new();
        let (last_refusal, remover) = (Mutex::default(), Remover::default());
        Arc::new(LogDirHealth { path, files, turns, failed, bell, full, cordoned, last_refusal, remover })
    }

    /// Waits until the disk has time for one more log to be opened.
    pub(super) async fn turn(&self) -> SemaphorePermit<'_> {
        self.turns.acquire().await.expect("nobody closes it")
    }

    /// What is in it and what its checkpoints say; `None` if it failed.
    pub(super) fn files(&self) -> Option<&LogDir> {
        self.files.as_ref().filter(|_| !self.is_failed())
    }

    /// Who removes what was set aside in it.
    pub(super) fn remover(&self) -> &Remover {
        &self.remover
    }

    /// Whether it failed; what lies in it is answered with KAFKA_STORAGE_ERROR until a restart.
    pub fn is_failed(&self) -> bool {
        self.failed.load(Ordering::SeqCst)
    }

    /// Takes the directory offline. Logged once.
    pub fn fail(&self, reason: &dyn Error) {
        if !self.failed.swap(true, Ordering::SeqCst) {
            error!(dir = %self.path.display(), %reason, "log directory failed; its partitions are offline");
            self.bell.notify_waiters();
        }
    }

    /// `after` logs may be opened at the same time, where `before` might until now.
    pub(super) async fn resize(&self, before: u32, after: u32) {
        if self.files.is_none() {
            return;
        }
        let permits = |threads: u32| (threads as usize).min(Semaphore::MAX_PERMITS);
        match permits(after).checked_sub(permits(before)) {
            Some(more) => self.turns.add_permits(more),
            None => {
                let fewer = self.turns.acquire_many(before.saturating_sub(after)).await;
                fewer.expect("nobody closes it").forget();
            }
        }
    }

    /// Returns once it failed. Cancel-safe.
    pub(super) async fn failed(&self) {
        // Made before the look: what rings between the two is heard.
        let rung = self.bell.notified();
        if !self.is_failed() {
            rung.await;
        }
    }

    /// Whether it gets no new logs (`cordoned.log.dirs`).
    pub fn is_cordoned(&self) -> bool {
        self.cordoned.load(Ordering::Relaxed)
    }

    pub(super) fn set_cordoned(&self, is_cordoned: bool) {
        self.cordoned.store(is_cordoned, Ordering::Relaxed);
    }

    /// Whether its disk had no room of late. Appends are tried all the same, and each that finds room succeeds.
    pub fn is_full(&self) -> bool {
        self.full.load(Ordering::Relaxed)
    }

    /// There was no room for something. Logged once until there is room again.
    pub(super) fn note_full(&self, reason: &dyn Error) {
        *self.last_refusal.lock() = Some(Instant::now());
        if !self.full.swap(true, Ordering::Relaxed) {
            error!(dir = %self.path.display(), %reason, "disk full; appends are refused until there is room");
        }
    }

    /// Looks whether there is room again where nobody appends.
    pub(super) fn look_for_room(&self) {
        if !self.is_full() {
            return;
        }
        if let Ok(space) = rustix::fs::statvfs(&self.path) {
            let bytes = |blocks: u64| blocks.saturating_mul(space.f_frsize);
            if bytes(space.f_bavail) >= ROOM_BYTES.min(bytes(space.f_blocks) / ROOM_PART) {
                self.note_room();
            }
        }
    }

    /// There was room for something.
    pub(super) fn note_room(&self) {
        let is_over = self.last_refusal.lock().is_none_or(|refusal| refusal.elapsed() >= FULL_FOR);
        if is_over && self.full.swap(false, Ordering::Relaxed) {
            info!(dir = %self.path.display(), "there is room on the disk again");
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use varve_log::local::LogDirOwner;
    use varve_metadata::model::BrokerId;

    use super::*;

    #[tokio::test]
    async fn more_logs_or_fewer_are_opened_at_the_same_time_from_now_on() {
        let dir = tempfile::tempdir().unwrap();
        let owner = LogDirOwner { cluster_id: "c".to_owned(), node: BrokerId(1) };
        let dir = LogDirHealth::opened(LogDir::open(dir.path(), &owner).unwrap(), 2);
        let (first, _second) = (dir.turn().await, dir.turn().await);
        assert!(dir.turn().now_or_never().is_none(), "two have their turn");
        dir.resize(2, 3).await;
        let third = dir.turn().now_or_never().expect("a third one");
        let mut fewer = Box::pin(dir.resize(3, 1));
        assert!(fewer.as_mut().now_or_never().is_none(), "those that have it go on");
        drop((first, third));
        fewer.await;
        assert!(dir.turn().now_or_never().is_none(), "one is left, and has it");
    }
}
