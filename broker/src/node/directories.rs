//! Log directories that fail while the node goes on with the others (KIP-112): it says so to those who watch it, notes for its next
//! life that records may be lost, and has the other brokers take over what lay there.
//!
//! ```text
//! a directory fails ─► "unknown" for the next life ─┬─ written ─► its replicas are offline in etcd: others lead ─► goes on
//!                                                   └─ not written, the last directory, or with varve.data.dir in it ─► leaves
//! ```

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};
use uuid::Uuid;
use varve_metadata::{
    cluster::{ClusterMetadata, MetadataError, Told},
    controller::FoundLogs,
    model::BrokerId,
};

use super::{
    last_life::LastLife,
    membership::{LastWord, Place},
};
use crate::{http::Health, partition::Storage};

/// Before what others were told is looked at again: they may have overtaken it.
const AGAIN: Duration = Duration::from_millis(200);
/// Between two looks while a directory is offline, if the cluster changes all the time; and if it does not.
const LOOK_AFTER: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(5));

/// The directories of a node, and whom to tell of them.
pub(super) struct Directories {
    pub(super) storage: Arc<Storage>,
    pub(super) metadata: Arc<ClusterMetadata>,
    pub(super) health: Health,
    /// This node, and this life of it.
    pub(super) us: (BrokerId, Uuid),
    /// Those of `log.dirs` in which `varve.data.dir` lies.
    pub(super) indispensable: Vec<PathBuf>,
    /// One of several brokers: its place, and what its next life is told.
    pub(super) among_others: Option<(Place, LastLife)>,
    /// The logs with which this life began.
    pub(super) found: Arc<FoundLogs>,
}

impl Directories {
    /// Sees to what fails, until `stop` is cancelled or the node has left the others. Among others this begins once this life was
    /// let in.
    pub(super) async fn watch(self, stop: CancellationToken) {
        tokio::select! {
            () = stop.cancelled() => {}
            () = self.watch_on() => {}
        }
    }

    async fn watch_on(self) {
        let mut images = self.metadata.subscribe();
        let (mut known, mut told, mut refused) = (0, Told::Before, None);
        let mut awaited = Vec::new();
        loop {
            images.mark_unchanged();
            let failed = self.storage.failed_dirs();
            if failed.len() > known {
                known = failed.len();
                self.show(&failed);
                self.storage.let_go_of_failed();
                if let Some(word) = self.last_word(&failed).await {
                    return self.leave(&failed, word).await;
                }
            }
            if self.among_others.is_some() {
                let now = tokio::select! {
                    now = self.tell(&mut refused) => now,
                    // What was under way may be taken, or not: the next try shows.
                    () = self.storage.more_failed(known) => Told::Something,
                };
                let before = std::mem::replace(&mut told, now);
                if before == Told::Something && told != before {
                    info!(
                        "others know which replicas here are offline or back, and what those have that they asked for"
                    );
                }
            }
            if told == Told::Before {
                self.show_awaited(&mut awaited);
            }
            let is_settled = known == 0 && told == Told::Settled || self.among_others.is_none();
            tokio::select! {
                () = self.storage.more_failed(known) => {}
                () = next_look(&mut images, told), if !is_settled => {}
            }
        }
    }

    /// Logs for which brokers the partitions in recovery wait, when that changed.
    fn show_awaited(&self, known: &mut Vec<BrokerId>) {
        let now: Vec<BrokerId> = self.metadata.image().awaited().collect();
        if now != *known && !now.is_empty() {
            let brokers = now.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
            warn!(
                %brokers,
                "the metadata store was restored, and these brokers have not looked yet whether they have logs that it does not know of: \
                 nobody leads before they have, or are unregistered (docs/operations/lose-etcd.md)"
            );
        }
        *known = now;
    }

    /// Says so at the node's pages.
    fn show(&self, failed: &[PathBuf]) {
        if self.storage.has_failed() {
            // Kafka ends here, and we say it to whoever restarts us.
            return self.health.broken("every log directory failed");
        }
        let names: Vec<String> = failed.iter().map(|dir| dir.display().to_string()).collect();
        let names = names.join(", ");
        self.health.degraded(&format!("{names} failed: partitions there are offline until this node is started again"));
    }

    /// With what this node leaves the others; `None`: it goes on among them. Its next life has to know what happened.
    async fn last_word(&self, failed: &[PathBuf]) -> Option<LastWord> {
        let (_, last_life) = self.among_others.as_ref()?;
        if self.storage.has_failed() || failed.iter().any(|dir| self.indispensable.contains(dir)) {
            return Some(LastWord::MayHaveLost);
        }
        let error = last_life.in_time(LastLife::failed).await.err()?;
        error!(%error, "varve.data.dir cannot be written to, either");
        Some(LastWord::Unheard)
    }

    async fn leave(&self, failed: &[PathBuf], word: LastWord) {
        let Some((place, _)) = &self.among_others else { return };
        // Whoever asks for the place finds it empty meanwhile, and does not wait for a disk that hangs.
        let taken = place.lock().await.take();
        if let Some(membership) = taken {
            error!(?failed, "nothing is left to go on with: this node leaves the others until it is started again");
            if !self.storage.has_failed() {
                self.health.broken("a log directory failed with varve.data.dir, and this node has left the others");
            }
            membership.leave(word).await;
        }
    }

    async fn tell_now(&self) -> Result<Told, MetadataError> {
        if self.metadata.tell_returned(self.us, &self.found).await? {
            info!(
                "a disk is back that was missing: partitions that nobody has led without it are led from there again"
            );
            return Ok(Told::Something);
        }
        let state = |id| self.storage.replica_state(id);
        let offline = self.metadata.tell_offline(self.us, &state).await?;
        let asked = self.metadata.tell_logs(self.us, &|id| self.storage.extent(id, &self.found)).await?;
        Ok(offline.min(asked))
    }

    /// Has others know which replicas are out of reach, and which are there again. `refused`: why they do not know yet, which is
    /// logged once. Cancel-safe.
    async fn tell(&self, refused: &mut Option<String>) -> Told {
        match self.tell_now().await {
            Ok(told) => {
                *refused = None;
                told
            }
            Err(error) => {
                let reason = error.to_string();
                if refused.as_ref() != Some(&reason) {
                    warn!(%error, "others do not know which replicas are offline here, trying again");
                    *refused = Some(reason);
                }
                // Whether it was taken shows with the next try.
                Told::Something
            }
        }
    }
}

/// There may be something to tell again.
async fn next_look(images: &mut tokio::sync::watch::Receiver<Arc<varve_metadata::image::ClusterImage>>, told: Told) {
    if told == Told::Something {
        return sleep(AGAIN).await;
    }
    let (least, most) = LOOK_AFTER;
    sleep(least).await;
    // The sender lives as long as the metadata.
    let _ = timeout(most, images.changed()).await;
}

/// Those of `dirs` in which `data_dir` lies. To be asked while all of them work: one that failed may not answer.
pub(super) fn indispensable(dirs: &[PathBuf], data_dir: &Path) -> Vec<PathBuf> {
    let absolute = |path: &Path| path.canonicalize().or_else(|_| std::path::absolute(path)).unwrap_or(path.to_owned());
    let data_dir = absolute(data_dir);
    dirs.iter().filter(|dir| data_dir.starts_with(absolute(dir))).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_cannot_do_without_the_directory_in_which_it_keeps_what_is_its_own() {
        let root = tempfile::tempdir().unwrap();
        let dir = |name: &str| root.path().join(name);
        std::fs::create_dir_all(dir("logs/data")).unwrap();
        std::fs::create_dir_all(dir("logs-2")).unwrap();
        std::os::unix::fs::symlink(dir("logs"), dir("link")).unwrap();
        let dirs = [dir("logs"), dir("logs-2")];
        for (data_dir, expected) in [
            ("logs", &dirs[..1]),
            ("logs/data", &dirs[..1]),
            ("link/data", &dirs[..1]),
            ("logs-2/made-later", &dirs[1..]),
            ("", &[]),
        ] {
            assert_eq!(indispensable(&dirs, &dir(data_dir)), expected, "{data_dir}");
        }
    }
}
