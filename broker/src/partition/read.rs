//! What a reader of a partition may see, and where it lies.

use std::sync::Arc;

use varve_log::local::{AbortedTxn, LogSlice, ReadError};
use varve_metadata::model::{
    BrokerId, HighWatermark, LastStableOffset, LeaderEpoch, LogEndOffset, LogStartOffset, Offset,
};
use varve_replication::{
    follower::Position,
    lineage::{self, Lineage},
};

use super::{Partition, RemoteReader, Replica, StaleEpoch, follower::Replicated, role::Role};

/// Which records a reader asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Isolation {
    /// All below the high watermark.
    Uncommitted,
    /// All below the last stable offset, with the aborted transactions among them (KIP-98).
    Committed,
}

/// One partition of one fetch.
#[derive(Debug, Clone, Copy)]
pub struct ReadRequest {
    /// First offset wanted.
    pub from: Offset,
    /// The leader epoch that the reader believes in.
    pub current_epoch: Option<LeaderEpoch>,
    /// Epoch of the last record the reader has: if the log disagrees, it learns where (KIP-595).
    pub last_fetched_epoch: Option<LeaderEpoch>,
    /// Which records.
    pub isolation: Isolation,
    /// Most bytes.
    pub max_bytes: u32,
    /// The first batch is given even if it is larger than `max_bytes`.
    pub at_least_one: bool,
    /// The reader knows of followers (KIP-392): one that follows gives what it knows to be committed.
    pub may_follow: bool,
}

/// The offsets that a reader learns with every answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadBounds {
    /// First readable offset in any tier.
    pub log_start: LogStartOffset,
    /// First uncommitted offset.
    pub high_watermark: HighWatermark,
    /// First offset that read_committed does not see.
    pub last_stable: LastStableOffset,
}

/// Where the records are.
#[derive(Debug)]
pub enum PartitionRead {
    /// In a local segment (`len` 0: nothing yet), with the aborted transactions met there if
    /// [`Isolation::Committed`].
    Local {
        /// The records, as they lie in the segment.
        slice: LogSlice,
        /// For [`Isolation::Committed`]; else empty.
        aborted: Vec<AbortedTxn>,
    },
    /// In the archive: ask `reader` for at most `max_bytes` from `from`, below `bound`.
    Remote {
        /// Reads this partition's archive.
        reader: Arc<dyn RemoteReader>,
        /// First offset wanted.
        from: Offset,
        /// First offset that may not be given.
        bound: Offset,
        /// Most bytes, unless one batch is larger.
        max_bytes: u32,
    },
    /// The reader's log parted from ours: epoch and end offset of what both have.
    Diverged {
        /// The largest epoch of ours that is not newer than the reader's.
        epoch: LeaderEpoch,
        /// The offset behind that epoch's last record.
        end: Offset,
    },
}

/// Why nothing can be read.
#[derive(Debug, thiserror::Error)]
pub enum PartitionReadError {
    /// The log directory failed.
    #[error("the partition's log directory is offline")]
    Offline,
    /// The reader's leader epoch is not ours.
    #[error(transparent)]
    Epoch(#[from] StaleEpoch),
    /// Another broker leads.
    #[error("this broker does not lead the partition")]
    NotLeader,
    /// Who asks as a follower is none, as far as is known here (yet).
    #[error("broker {0} is no replica of the partition")]
    NotAReplica(BrokerId),
    /// What a follower asks for is not on the local disk any more, but in the archive.
    #[error("offset {from} is in the archive only")]
    Tiered {
        /// The offset asked for.
        from: Offset,
    },
    /// The offset lies outside of the log, or no epoch is known where the reader's should end.
    #[error("offset {from} is outside of the log")]
    OutOfRange {
        /// The offset asked for.
        from: Offset,
    },
    /// The local log could not be read.
    #[error("local log cannot be read")]
    Failed(#[source] ReadError),
}

impl Partition {
    /// The offsets that every answer carries.
    pub fn bounds(&self) -> ReadBounds {
        ReadBounds {
            log_start: self.log_start(),
            high_watermark: self.high_watermark(),
            last_stable: self.last_stable_offset(),
        }
    }

    /// Finds what `request` asks for, without waiting for it.
    ///
    /// # Errors
    /// [`PartitionReadError`].
    pub fn read(&self, request: &ReadRequest) -> Result<(ReadBounds, PartitionRead), PartitionReadError> {
        if self.log_dir().is_failed() {
            return Err(PartitionReadError::Offline);
        }
        self.check_epoch(request.current_epoch)?;
        // Also who names no epoch is to look for the leader, and not to wait here for what does not come.
        if !(self.is_leader() || request.may_follow && self.is_replica()) {
            return Err(PartitionReadError::NotLeader);
        }
        let out_of_range = || PartitionReadError::OutOfRange { from: request.from };
        let bounds = self.bounds();
        if let Some(parted) = self.parted(request, bounds.log_start)? {
            return Ok((bounds, parted));
        }
        let bound = match request.isolation {
            Isolation::Uncommitted => bounds.high_watermark.0,
            Isolation::Committed => bounds.last_stable.0,
        };
        match self.read_local(request, bound) {
            Ok(read) => Ok((bounds, read)),
            Err(ReadError::OutOfRange { local_start, .. }) if request.from < local_start => {
                let reader = self.remote().ok_or_else(out_of_range)?;
                let read = PartitionRead::Remote { reader, from: request.from, bound, max_bytes: request.max_bytes };
                Ok((bounds, read))
            }
            Err(ReadError::OutOfRange { .. }) => Err(out_of_range()),
            Err(failed) => Err(PartitionReadError::Failed(failed)),
        }
    }

    /// Finds what a follower asks for, committed or not, and notes what it has.
    ///
    /// # Errors
    /// [`PartitionReadError`].
    pub fn read_for(
        self: &Arc<Self>,
        replica: Replica,
        replica_start: Offset,
        request: &ReadRequest,
    ) -> Result<(ReadBounds, PartitionRead), PartitionReadError> {
        if self.log_dir().is_failed() {
            return Err(PartitionReadError::Offline);
        }
        let role = self.role().read();
        if matches!(*role, Role::Follower { .. }) {
            return Err(PartitionReadError::NotLeader);
        }
        self.check_epoch(request.current_epoch)?;
        if !self.is_followed_by(&role, replica.id) {
            // Who names no epoch may be behind in everything, as in Kafka.
            return Err(match request.current_epoch {
                Some(_) => PartitionReadError::NotAReplica(replica.id),
                None => PartitionReadError::NotLeader,
            });
        }
        if let Some(parted) = self.parted(request, self.log_start())? {
            return Ok((self.bounds(), parted));
        }
        if request.from < self.log().local_start() {
            return Err(PartitionReadError::Tiered { from: request.from });
        }
        // It has what lies before, in our version. What is committed by that is in the answer.
        self.note_fetch(&role, replica, request.from, replica_start);
        let (bounds, LogEndOffset(end)) = (self.bounds(), self.log().end());
        match self.read_local(request, end) {
            Ok(read) => Ok((bounds, read)),
            Err(ReadError::OutOfRange { .. }) => Err(PartitionReadError::Tiered { from: request.from }),
            Err(failed) => Err(PartitionReadError::Failed(failed)),
        }
    }

    /// Where the reader's log parted from ours, if it says what it has and did.
    fn parted(
        &self,
        request: &ReadRequest,
        log_start: LogStartOffset,
    ) -> Result<Option<PartitionRead>, PartitionReadError> {
        let out_of_range = || PartitionReadError::OutOfRange { from: request.from };
        if request.from < log_start.0 {
            return Err(out_of_range());
        }
        let position = Position { from: request.from, last_epoch: request.last_fetched_epoch };
        let archived = |epoch| self.archived_end_of_epoch(epoch);
        match lineage::compare(&Replicated(self.log()), self.leader_epoch(), position, archived) {
            Lineage::Agrees => Ok(None),
            Lineage::Parted { epoch, end } => Ok(Some(PartitionRead::Diverged { epoch, end })),
            Lineage::OutOfRange => Err(out_of_range()),
        }
    }

    fn read_local(&self, request: &ReadRequest, bound: Offset) -> Result<PartitionRead, ReadError> {
        let ReadRequest { from, max_bytes, at_least_one, .. } = *request;
        let (slice, aborted) = match request.isolation {
            Isolation::Committed => self.log().read_committed(from, bound, max_bytes, at_least_one)?,
            Isolation::Uncommitted => (self.log().read(from, bound, max_bytes, at_least_one)?, Vec::new()),
        };
        Ok(PartitionRead::Local { slice, aborted })
    }

    /// The largest epoch not above `epoch` in any tier, and the offset behind its last record (KIP-279). `None` if all
    /// known epochs are newer.
    pub fn end_of_epoch(&self, epoch: LeaderEpoch) -> Option<(LeaderEpoch, Offset)> {
        let archived = || self.archived_end_of_epoch(epoch);
        lineage::end_of_epoch(&Replicated(self.log()), self.leader_epoch(), epoch, archived)
    }

    /// Asked only where something can be read in the archive alone: this broker may know it from long ago, and would have others cut
    /// what came after.
    fn archived_end_of_epoch(&self, epoch: LeaderEpoch) -> Option<(LeaderEpoch, Offset)> {
        let begins_there = self.log_start().0 < self.log().local_start();
        self.remote().filter(|_| begins_there).and_then(|remote| remote.end_of_epoch(epoch))
    }
}
