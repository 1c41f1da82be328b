//! What a partition asks of the archive. The tiering floor's reader stands behind it.

use std::fmt::Debug;

use bytes::Bytes;
use futures::future::BoxFuture;
use varve_log::local::{AbortedTxn, OffsetAndTimestamp};
use varve_metadata::model::{LeaderEpoch, Offset, Timestamp};

/// Why the archive did not answer.
#[derive(Debug, Clone, thiserror::Error)]
pub enum RemoteError {
    /// The archive does not hold that offset (any more).
    #[error("the archive does not hold that offset")]
    OutOfRange,
    /// The bucket cannot be reached, or answered with an error: ask again later.
    #[error("the archive cannot be read now: {0}")]
    Unavailable(String),
    /// So many wait for the archive that no other may: ask again later.
    #[error("too many reads of the archive wait for their turn")]
    Busy,
    /// An object is not what its manifest says.
    #[error("an object of the archive is damaged: {0}")]
    Corrupt(String),
}

/// Whole batches out of the archive.
#[derive(Debug, Clone, Default)]
pub struct RemoteBatches {
    /// The first batch holds the offset asked for, or is the first after it; the last lies below the bound. Pieces follow
    /// each other without a gap in their bytes.
    pub pieces: Vec<Bytes>,
    /// One past the last offset of the last batch.
    pub end: Offset,
    /// Aborted transactions that a read_committed reader meets in these batches.
    pub aborted: Vec<AbortedTxn>,
}

impl RemoteBatches {
    /// Bytes of all pieces.
    pub fn len(&self) -> usize {
        self.pieces.iter().map(Bytes::len).sum()
    }

    /// Whether there is no batch.
    pub fn is_empty(&self) -> bool {
        self.pieces.iter().all(Bytes::is_empty)
    }
}

/// Reads the archived part of one partition. Every future runs to its end even if the asker stops waiting: what was
/// fetched stays in the cache for the next attempt.
pub trait RemoteReader: Send + Sync + Debug {
    /// Waits until the archive has been asked once since the start: what is answered from memory is right from then on.
    fn loaded(&self) -> BoxFuture<'static, Result<(), RemoteError>> {
        Box::pin(std::future::ready(Ok(())))
    }

    /// Asks the archive anew: what is answered from memory is what it held at some moment after this call.
    fn refreshed(&self) -> BoxFuture<'static, Result<(), RemoteError>> {
        Box::pin(std::future::ready(Ok(())))
    }

    /// First offset in the archive, and the offset behind its last one (both from the cached manifest); `None` while
    /// nothing was archived.
    fn bounds(&self) -> Option<(Offset, Offset)>;

    /// Where the log starts by the cached manifest: the compactor moves it too, and the local log hears of it later.
    fn log_start(&self) -> Offset;

    /// First offset in the archive that key compaction has not looked at: what lies before is rid of all that a tombstone
    /// below it deletes.
    fn clean_until(&self) -> Offset;

    /// Bytes in the archive.
    fn size(&self) -> u64;

    /// Whole batches from the one that holds `from`, all of whose offsets lie below `bound`: of at most `max_bytes`, or
    /// else one batch. Empty only if the archive holds nothing in `from..bound`.
    fn read(
        &self,
        from: Offset,
        bound: Offset,
        max_bytes: u32,
    ) -> BoxFuture<'static, Result<RemoteBatches, RemoteError>>;

    /// First record at or after `from` with a timestamp of `target` or later.
    fn offset_for_timestamp(
        &self,
        target: Timestamp,
        from: Offset,
    ) -> BoxFuture<'static, Result<Option<OffsetAndTimestamp>, RemoteError>>;

    /// The first record that has the largest timestamp of those in the archive at or after `from`.
    fn max_timestamp_offset(&self, from: Offset)
    -> BoxFuture<'static, Result<Option<OffsetAndTimestamp>, RemoteError>>;

    /// The largest archived epoch not above `epoch`, and the offset behind its last archived record.
    fn end_of_epoch(&self, epoch: LeaderEpoch) -> Option<(LeaderEpoch, Offset)>;

    /// The archived epochs with the first offset of each, oldest first.
    fn epochs(&self) -> Vec<(LeaderEpoch, Offset)>;

    /// Epoch of the archived record at `offset`.
    fn epoch_at(&self, offset: Offset) -> Option<LeaderEpoch>;
}
