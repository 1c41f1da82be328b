//! What the archive knows of producers.

use varve_log::local::{ProducerEntry, decode_snapshot};
use varve_metadata::model::{Offset, ProducerId};

use super::{error::ColdError, metrics::Reason, partition::ColdPartition};

impl ColdPartition {
    /// Who had written what where the archive ends, by the snapshot in its last object; nobody if that has none.
    ///
    /// # Errors
    /// [`ColdError`].
    pub async fn producers(&self) -> Result<Vec<(ProducerId, ProducerEntry)>, ColdError> {
        self.retrying(|| async {
            let end = self.remote().loaded().await?.end();
            let Some(last) = end.get().checked_sub(1).and_then(Offset::new) else { return Ok(Vec::new()) };
            let Some(object) = self.remote().find(last).await? else { return Ok(Vec::new()) };
            let part = self.part(object);
            let opened = self.reader.opened(&part).await?;
            let Some(range) = opened.producers() else { return Ok(Vec::new()) };
            let snapshot = self.reader.get(&part, range, Reason::Index).await?;
            decode_snapshot(&snapshot).map_err(|error| ColdError::corrupt(&part.key, error))
        })
        .await
    }
}
