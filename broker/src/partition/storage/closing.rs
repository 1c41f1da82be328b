//! What is written of logs beside them: checkpoints while they are open, and the mark of a clean end.

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};
use varve_log::local::Checkpointed;

use super::Storage;
use crate::partition::{LogDirHealth, Partition};

impl Storage {
    /// Writes each directory's recovery points, log starts and high watermarks every `interval` until `stop` is
    /// cancelled.
    pub async fn checkpoint_every(self: Arc<Storage>, interval: Duration, stop: CancellationToken) {
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(interval) => {}
            }
            let storage = self.clone();
            if let Err(panic) = spawn_blocking(move || storage.checkpoint()).await {
                error!(%panic, "writing checkpoints panicked");
            }
        }
    }

    fn checkpoint(&self) {
        for (dir, partitions) in self.partitions_by_dir() {
            let logs: Vec<_> = partitions.iter().map(|partition| checkpointed(partition)).collect();
            if let Some(files) = dir.files()
                && let Err(error) = files.checkpoint(&logs)
            {
                warn!(dir = %dir.path.display(), %error, "checkpoints could not be written");
            }
        }
    }

    /// Closes every log and marks the directories as cleanly shut down. Blocks on the disk. Nothing may be appended any
    /// more. Logs that are on their way to another directory stay where they are. Returns whether every directory is so marked.
    pub fn close(&self) -> bool {
        self.partitions.stop_moves();
        let mut is_whole = true;
        for (dir, partitions) in self.partitions_by_dir() {
            let Some(files) = dir.files() else {
                is_whole = false;
                continue;
            };
            let clean = close_logs(&partitions, self.recovery_threads.load(Ordering::Relaxed));
            let logs: Vec<_> = partitions.iter().map(|partition| checkpointed(partition)).collect();
            let marked = if clean { files.mark_clean(&logs) } else { files.checkpoint(&logs) };
            if let Err(error) = marked {
                warn!(dir = %dir.path.display(), %error, "the directory is not marked as cleanly shut down");
                is_whole = false;
            }
            is_whole &= clean;
        }
        is_whole
    }

    fn partitions_by_dir(&self) -> Vec<(Arc<LogDirHealth>, Vec<Arc<Partition>>)> {
        let mut by_path: HashMap<PathBuf, Vec<Arc<Partition>>> = HashMap::new();
        for partition in self.partitions.all() {
            by_path.entry(partition.log_dir().path.clone()).or_default().push(partition);
        }
        let of = |dir: &Arc<LogDirHealth>| (dir.clone(), by_path.remove(&dir.path).unwrap_or_default());
        self.dirs.iter().map(of).collect()
    }
}

/// Closes logs, up to `threads` at a time. Returns whether all of them are.
fn close_logs(partitions: &[Arc<Partition>], threads: u32) -> bool {
    let share = partitions.len().div_ceil(threads.max(1) as usize).max(1);
    let close = |partition: &Arc<Partition>| match partition.log().close() {
        Ok(()) => true,
        Err(error) => {
            error!(topic = %partition.topic(), partition = %partition.id().index, %error, "a log was not closed");
            false
        }
    };
    // Every log is closed, also behind one that was not.
    let close_all = |logs: &[Arc<Partition>]| logs.iter().map(close).fold(true, |all, closed| all & closed);
    std::thread::scope(|scope| {
        let shares: Vec<_> = partitions.chunks(share).map(|logs| scope.spawn(move || close_all(logs))).collect();
        shares.into_iter().map(|share| share.join().unwrap_or(false)).fold(true, |all, closed| all & closed)
    })
}

fn checkpointed(partition: &Partition) -> Checkpointed<'_> {
    Checkpointed {
        topic: partition.topic(),
        index: partition.id().index,
        log: partition.log(),
        high_watermark: partition.high_watermark().0,
    }
}
