//! The tiering floor's reader as a partition asks it.

use bytes::Bytes;
use futures::{FutureExt, future::BoxFuture};
use varve_log::local::OffsetAndTimestamp;
use varve_metadata::model::{LeaderEpoch, Offset, Timestamp};
use varve_tiering::tier::cold::{ColdBatches, ColdError, ColdPartition};

use super::{RemoteBatches, RemoteError, RemoteReader};

impl RemoteReader for ColdPartition {
    fn loaded(&self) -> BoxFuture<'static, Result<(), RemoteError>> {
        let remote = self.remote().clone();
        async move {
            let loaded = remote.loaded().await;
            loaded.map(drop).map_err(|error| RemoteError::Unavailable(error.to_string()))
        }
        .boxed()
    }

    fn refreshed(&self) -> BoxFuture<'static, Result<(), RemoteError>> {
        let remote = self.remote().clone();
        async move {
            let newest = remote.refresh().await;
            newest.map(drop).map_err(|error| RemoteError::Unavailable(error.to_string()))
        }
        .boxed()
    }

    fn bounds(&self) -> Option<(Offset, Offset)> {
        ColdPartition::bounds(self)
    }

    fn log_start(&self) -> Offset {
        self.remote().manifest().log_start().0
    }

    fn clean_until(&self) -> Offset {
        self.remote().manifest().clean_until()
    }

    fn size(&self) -> u64 {
        ColdPartition::size(self)
    }

    fn read(
        &self,
        from: Offset,
        bound: Offset,
        max_bytes: u32,
    ) -> BoxFuture<'static, Result<RemoteBatches, RemoteError>> {
        let partition = self.clone();
        async move {
            let ColdBatches { pieces, end, aborted } = ColdPartition::read(&partition, from, bound, max_bytes).await?;
            debug_assert!(pieces.iter().all(|piece: &Bytes| !piece.is_empty()));
            Ok(RemoteBatches { pieces, end, aborted })
        }
        .boxed()
    }

    fn offset_for_timestamp(
        &self,
        target: Timestamp,
        from: Offset,
    ) -> BoxFuture<'static, Result<Option<OffsetAndTimestamp>, RemoteError>> {
        let partition = self.clone();
        async move { Ok(ColdPartition::offset_for_timestamp(&partition, target, from).await?) }.boxed()
    }

    fn max_timestamp_offset(
        &self,
        from: Offset,
    ) -> BoxFuture<'static, Result<Option<OffsetAndTimestamp>, RemoteError>> {
        let partition = self.clone();
        async move { Ok(ColdPartition::max_timestamp_offset(&partition, from).await?) }.boxed()
    }

    fn end_of_epoch(&self, epoch: LeaderEpoch) -> Option<(LeaderEpoch, Offset)> {
        ColdPartition::end_of_epoch(self, epoch)
    }

    fn epochs(&self) -> Vec<(LeaderEpoch, Offset)> {
        ColdPartition::epochs(self)
    }

    fn epoch_at(&self, offset: Offset) -> Option<LeaderEpoch> {
        ColdPartition::epoch_at(self, offset)
    }
}

impl From<ColdError> for RemoteError {
    fn from(error: ColdError) -> RemoteError {
        let text = match std::error::Error::source(&error) {
            Some(source) => format!("{error}: {source}"),
            None => error.to_string(),
        };
        match error {
            ColdError::OutOfRange(_) => RemoteError::OutOfRange,
            ColdError::Busy => RemoteError::Busy,
            ColdError::Unavailable(_) => RemoteError::Unavailable(text),
            ColdError::Vanished(_) | ColdError::Corrupt { .. } => RemoteError::Corrupt(text),
        }
    }
}
