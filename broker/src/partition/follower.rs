//! What a partition does that follows a leader: takes over its records, or cuts its own where they parted.

use std::sync::Arc;

use parking_lot::RwLockReadGuard;
use tracing::{info, warn};
use varve_log::local::{
    AppendContext, AppendError, AppendOrigin, LocalLog, ProducerEntry, ReadError, RemovedFiles, RollError, is_no_space,
};
use varve_metadata::model::{HighWatermark, LeaderEpoch, LogEndOffset, LogStartOffset, Offset, ProducerId};
use varve_replication::follower::{Position, ReplicaLog, truncation};

use super::{Partition, RemoteError, role::Role, storage::wall_clock};

/// Why the leader's answer changed nothing.
#[derive(Debug, thiserror::Error)]
pub enum FollowError {
    /// It is not the leader any more, or this broker leads.
    #[error("the partition is not followed in that epoch any more")]
    Stale,
    /// The log directory failed.
    #[error("the partition's log directory is offline")]
    Offline,
    /// The log does not take the records.
    #[error(transparent)]
    Refused(#[from] AppendError),
    /// The log cannot be cut.
    #[error("the log cannot be cut")]
    Cut(#[source] RollError),
    /// The log's start cannot move.
    #[error("the log's start cannot be moved")]
    Start(#[source] ReadError),
}

/// Where a follower's log goes on, and where it starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FollowerPosition {
    /// Where it goes on.
    pub position: Position,
    /// Where it starts, also after a crash.
    pub log_start: LogStartOffset,
}

/// A local log as the rules see it.
pub(super) struct Replicated<'a>(pub(super) &'a LocalLog);

impl ReplicaLog for Replicated<'_> {
    fn end(&self) -> Offset {
        self.0.end().0
    }
    fn latest_epoch(&self) -> Option<LeaderEpoch> {
        self.0.latest_epoch()
    }
    fn earliest_epoch(&self) -> Option<(LeaderEpoch, Offset)> {
        self.0.earliest_epoch()
    }
    fn end_of_epoch(&self, epoch: LeaderEpoch) -> Option<(LeaderEpoch, Offset)> {
        self.0.end_of_epoch(epoch)
    }
}

impl Partition {
    /// Where the next fetch begins.
    pub fn position(&self) -> FollowerPosition {
        FollowerPosition { position: Position::of(&Replicated(self.log())), log_start: self.log().kept_start() }
    }

    /// Appends what the leader of `epoch` sent, and takes over what is committed and where the log starts. Kept when this
    /// returns, as far as the topic asks for that: the next fetch says that it is. Blocks on the disk.
    ///
    /// # Errors
    /// [`FollowError`].
    pub fn replicate(
        self: &Arc<Self>,
        epoch: LeaderEpoch,
        records: &[u8],
        high_watermark: HighWatermark,
        log_start: LogStartOffset,
    ) -> Result<(), FollowError> {
        let _role = self.following(epoch)?;
        if !records.is_empty() {
            let context = AppendContext { leader_epoch: epoch, now: wall_clock(), origin: AppendOrigin::Replication };
            let appended = self.log().append(records, context).inspect_err(|refused| self.note_failure(refused))?;
            let config = self.note_appended(records.len(), &appended);
            self.note_copied_here(records.len());
            let LogEndOffset(end) = self.log().end();
            if config.flush_messages.is_some_and(|most| end.since(self.log().recovery_point()) >= most.max(1)) {
                self.log().flush(end).map_err(|error| self.cut_failed(error))?;
            }
            if config.flush_interval.is_some() {
                self.note_unflushed();
            }
        }
        let (LogEndOffset(end), HighWatermark(committed)) = (self.log().end(), high_watermark);
        self.advance_high_watermark(committed.min(end));
        if log_start > self.log().start() && log_start.0 <= end {
            self.log().advance_log_start(log_start.0).map_err(FollowError::Start)?;
        }
        Ok(())
    }

    /// Cuts the log where it parted from the leader's: what that has of `known`, the epoch asked for or the largest before it,
    /// ends at `end`. Blocks on the disk.
    ///
    /// # Errors
    /// [`FollowError`].
    pub fn cut(self: &Arc<Self>, epoch: LeaderEpoch, known: LeaderEpoch, end: Offset) -> Result<(), FollowError> {
        let _role = self.following(epoch)?;
        let to = truncation(&Replicated(self.log()), known, end);
        let (before, HighWatermark(committed)) = (self.log().end(), self.high_watermark());
        if to < committed {
            warn!(topic = %self.topic(), partition = %self.id().index, %to, %committed, "cutting below what was committed here: the leader was elected without all records, or a disk lost some");
        }
        let removed = self.log().truncate_to(to, wall_clock()).map_err(|error| self.cut_failed(error))?;
        info!(topic = %self.topic(), partition = %self.id().index, from = %before.0, %to, "log cut where it parted from the leader's");
        self.after_cut(removed)
    }

    /// Whether [`cut`](Self::cut) would leave nothing of what can be read, and have the log start earlier. Such a log begins anew where
    /// the leader's does: a fetch of ours from before may reach the leader late, and counts for a log that starts no earlier.
    pub fn parts_before_its_start(&self, known: LeaderEpoch, end: Offset) -> bool {
        truncation(&Replicated(self.log()), known, end) < self.log().start().0
    }

    /// Has the archive say what it holds below `local_start`, where this replica is to start over, unless that is known: it may have
    /// been archived since this broker last asked. Who starts over without its epochs can neither tell later where others parted
    /// from it, nor be told.
    ///
    /// # Errors
    /// [`RemoteError`]: it does not answer now.
    pub async fn ask_archive(&self, local_start: Offset, log_start: LogStartOffset) -> Result<(), RemoteError> {
        match self.remote().filter(|_| log_start.0 < local_start) {
            Some(remote) if remote.bounds().is_none_or(|(_, end)| end < local_start) => remote.refreshed().await,
            Some(_) | None => Ok(()),
        }
    }

    /// Empties the log, to go on at `local_start`, where the leader's local part begins: what lies between `log_start` and
    /// there is in the archive, or nowhere. The leader's `producers` are known here, too, from now on: the batches of some are among
    /// what lies before, and those of the others come with the records. Blocks on the disk.
    ///
    /// # Errors
    /// [`FollowError`].
    pub fn start_over(
        self: &Arc<Self>,
        epoch: LeaderEpoch,
        local_start: Offset,
        log_start: LogStartOffset,
        producers: Vec<(ProducerId, ProducerEntry)>,
    ) -> Result<(), FollowError> {
        let _role = self.following(epoch)?;
        let before = self.log().end();
        let removed = self.log().truncate_fully(local_start, log_start.0).map_err(|error| self.cut_failed(error))?;
        self.learn_archived_epochs(local_start);
        if let Err(error) = self.log().learn_producers(producers, wall_clock()) {
            warn!(topic = %self.topic(), partition = %self.id().index, %error, "what producers wrote last is not on the disk");
        }
        info!(topic = %self.topic(), partition = %self.id().index, end = %before.0, start = %local_start, "log begun anew where the leader's begins");
        self.after_cut(removed)
    }

    /// The log is empty and begins at `start`: it answers for the epochs of what lies before, as far as the archive is known to
    /// hold all of that. Of what is deleted it answers for none: the archive's may not be the leader's, if that was elected uncleanly,
    /// which would have us cut our log and begin here again.
    fn learn_archived_epochs(&self, start: Offset) {
        if self.log().start().0 >= start {
            return;
        }
        let Some(remote) = self.remote().filter(|remote| remote.bounds().is_some_and(|(_, end)| end >= start)) else {
            return;
        };
        let before: Vec<_> = remote.epochs().into_iter().filter(|(_, first)| *first < start).collect();
        if let Err(error) = self.log().learn_epochs(&before) {
            warn!(topic = %self.topic(), partition = %self.id().index, %error, "leader epochs are not on the disk");
        }
    }

    fn following(&self, epoch: LeaderEpoch) -> Result<RwLockReadGuard<'_, Role>, FollowError> {
        if self.log_dir().is_failed() || self.is_retired() {
            return Err(FollowError::Offline);
        }
        let role = self.role().read();
        match *role {
            Role::Follower { leader: Some(_) } if self.leader_epoch() == epoch => Ok(role),
            Role::Follower { .. } | Role::Alone | Role::Leader(_) => Err(FollowError::Stale),
        }
    }

    /// Before anything is appended, it has to be on the disk that less of the log is, and that it starts elsewhere: a log that ends
    /// before its start is taken for one whose files are gone.
    fn after_cut(self: &Arc<Self>, removed: RemovedFiles) -> Result<(), FollowError> {
        self.lower_high_watermark(self.log().end().0);
        let dir = self.log_dir();
        let Some(files) = dir.files() else { return Err(FollowError::Offline) };
        let cut = [(self.topic(), self.id().index, self.log())];
        let starts = || if self.log().is_start_kept() { Ok(()) } else { files.save_log_starts(&cut) };
        if let Err(error) = files.save_recovery_points(&cut).and_then(|()| starts()) {
            dir.fail(&error);
            return Err(FollowError::Offline);
        }
        if let Err(error) = removed.purge() {
            warn!(topic = %self.topic(), partition = %self.id().index, %error, "files that were cut off stay until the next start");
        }
        Ok(())
    }

    /// The log is in no state to go on with.
    fn cut_failed(&self, error: RollError) -> FollowError {
        let RollError::Storage(source) = &error;
        if !is_no_space(source) && !self.is_retired() {
            self.log_dir().fail(source);
        }
        FollowError::Cut(error)
    }
}
