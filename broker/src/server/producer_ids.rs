//! Producer ids, handed out from blocks that the store has written off.

use tokio::sync::Mutex;
use varve_metadata::{
    cluster::{ClusterMetadata, MetadataError, ProducerIdBlock},
    model::ProducerId,
};

/// This node's current block. A kill loses what is left of it; no id is handed out twice.
#[derive(Debug, Default)]
pub(crate) struct ProducerIds {
    block: Mutex<Option<ProducerIdBlock>>,
}

impl ProducerIds {
    /// An id that nobody has. Waits for the store once per block.
    ///
    /// # Errors
    /// [`MetadataError`] if a new block is needed and cannot be had.
    pub(crate) async fn next(&self, metadata: &ClusterMetadata) -> Result<ProducerId, MetadataError> {
        // Held while a block is fetched: whoever comes meanwhile needs the same block.
        let mut current = self.block.lock().await;
        let mut block = match current.take() {
            Some(block) => block,
            None => metadata.next_producer_id_block().await?,
        };
        let id = block.take();
        *current = (block.count > 0).then_some(block);
        Ok(id)
    }
}

#[cfg(test)]
mod tests {
    use std::{
        collections::{BTreeMap, HashSet},
        sync::Arc,
    };

    use varve_metadata::{model::BrokerId, store::MemoryStore};

    use super::*;

    #[tokio::test]
    async fn no_id_is_handed_out_twice_across_blocks_and_restarts() {
        let store = Arc::new(MemoryStore::new());
        let mut seen = HashSet::new();
        for _restart in 0..3 {
            let metadata = ClusterMetadata::start(store.clone(), BrokerId(1), BTreeMap::new()).await.unwrap();
            let ids = ProducerIds::default();
            for _ in 0..1200 {
                assert!(seen.insert(ids.next(&metadata).await.unwrap()));
            }
        }
    }
}
