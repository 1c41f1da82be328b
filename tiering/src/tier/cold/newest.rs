//! The record with the largest timestamp (KIP-734). What manifests and indexes say of times may count records that are gone: they
//! lie below the log start, or compaction took them.

use std::cmp::Reverse;

use varve_log::local::OffsetAndTimestamp;
use varve_metadata::model::Offset;

use super::{error::ColdError, partition::ColdPartition, select};
use crate::manifest::Manifest;

impl ColdPartition {
    /// The first record that has the largest timestamp of all that are archived at or after `from`.
    ///
    /// # Errors
    /// [`ColdError`].
    pub async fn max_timestamp_offset(&self, from: Offset) -> Result<Option<OffsetAndTimestamp>, ColdError> {
        self.retrying(|| async {
            let manifest = self.remote().loaded().await?;
            let from = from.max(manifest.log_start().0);
            let Some(largest) = manifest.max_timestamp() else { return Ok(None) };
            match self.try_timestamp(largest, from).await? {
                Some(found) => Ok(Some(found)),
                None => self.newest_from(&manifest, from).await,
            }
        })
        .await
    }

    /// The same by a look at the batches themselves, those first that may hold it.
    async fn newest_from(&self, manifest: &Manifest, from: Offset) -> Result<Option<OffsetAndTimestamp>, ColdError> {
        let mut objects = self.remote().objects(manifest, from, manifest.end()).await?;
        objects.retain(|object| object.max_timestamp.is_some());
        objects.sort_by_key(|object| (Reverse(object.max_timestamp), object.base));
        let mut newest: Option<OffsetAndTimestamp> = None;
        for object in objects {
            if newest.is_some_and(|newest| object.max_timestamp < Some(newest.timestamp)) {
                break;
            }
            let part = self.part(object);
            let opened = self.reader.opened(&part).await?;
            for (largest, offsets) in opened.by_time(from, &part.key)? {
                if newest.is_some_and(|newest| largest < newest.timestamp) {
                    break;
                }
                let within = offsets.start.max(from)..offsets.end.min(part.object.end);
                let (run, _) = self.reader.run_from(&part, &opened, within.start, 0, self.recompression()).await?;
                let found = select::newest(&run, within).map_err(|error| ColdError::corrupt(&part.key, error))?;
                newest = [newest, found].into_iter().flatten().max_by_key(|one| (one.timestamp, Reverse(one.offset)));
            }
        }
        Ok(newest)
    }
}
