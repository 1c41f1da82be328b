//! Which topics there are, for who removes what belongs to none of them.

use std::collections::HashSet;

use super::ClusterMetadata;
use crate::{model::TopicId, store::StoreError};

impl ClusterMetadata {
    /// The ids of all topics that were in the store when this was called and are there still. What an image shows without that
    /// question may be long out of date: while the store cannot be reached, others may make topics that it does not have.
    ///
    /// # Errors
    /// [`StoreError`]: nobody can say now which topics there are not.
    pub async fn topic_ids(&self) -> Result<HashSet<TopicId>, StoreError> {
        self.caught_up().await?;
        Ok(self.image().topics().values().map(|topic| topic.id).collect())
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, sync::Arc, time::Duration};

    use super::*;
    use crate::{
        controller::{CreationDefaults, NewTopic, Placement},
        image::BrokerImage,
        model::BrokerId,
        store::{LeaseId, MemoryStore, MetadataStore, Revision, Snapshot, StoreFuture, Transaction, Versioned, Watch},
    };

    /// A store that answers, and of whose changes nobody hears.
    struct Silent(Arc<MemoryStore>);

    impl MetadataStore for Silent {
        fn get<'a>(&'a self, key: &'a str) -> StoreFuture<'a, Option<Versioned>> {
            self.0.get(key)
        }

        fn range<'a>(&'a self, prefix: &'a str) -> StoreFuture<'a, Snapshot> {
            self.0.range(prefix)
        }

        fn transact(&self, transaction: Transaction) -> StoreFuture<'_, Revision> {
            self.0.transact(transaction)
        }

        fn grant(&self, ttl: Duration) -> StoreFuture<'_, LeaseId> {
            self.0.grant(ttl)
        }

        fn renew(&self, lease: LeaseId) -> StoreFuture<'_, bool> {
            self.0.renew(lease)
        }

        fn revoke(&self, lease: LeaseId) -> StoreFuture<'_, ()> {
            self.0.revoke(lease)
        }

        fn watch(&self, _prefix: &str, after: Revision) -> Watch {
            self.0.watch("no key begins like this", after)
        }
    }

    async fn started(store: Arc<dyn MetadataStore>) -> Arc<ClusterMetadata> {
        ClusterMetadata::start(store, BrokerId(1), BTreeMap::new()).await.unwrap()
    }

    async fn with_topic(store: Arc<dyn MetadataStore>) -> TopicId {
        let metadata = started(store).await;
        metadata.register(BrokerImage { id: BrokerId(1), ..BrokerImage::default() }).await.unwrap();
        let placement = Ok(Placement::Spread { partitions: Some(1), replication_factor: None });
        let topic = NewTopic { name: "t".to_owned(), placement, overrides: BTreeMap::new() };
        let defaults = CreationDefaults { partitions: 1, replication_factor: 1 };
        metadata.create_topics(&[topic], defaults, false, None).await.unwrap().remove(0).unwrap().id
    }

    #[tokio::test(start_paused = true)]
    async fn who_does_not_hear_of_new_topics_does_not_say_that_there_are_none() {
        let store = Arc::new(MemoryStore::new());
        let (deaf, hearing) = (started(Arc::new(Silent(store.clone()))).await, started(store.clone()).await);
        assert!(hearing.topic_ids().await.unwrap().is_empty());

        let topic = with_topic(store).await;

        assert!(deaf.image().topics().is_empty(), "its image knows of none");
        assert!(deaf.topic_ids().await.is_err(), "and it does not take that for the truth");
        assert_eq!(hearing.topic_ids().await.unwrap(), [topic].into());
    }
}
