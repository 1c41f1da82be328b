//! What is known of topics, for who removes what belongs to none of them.

use super::ClusterMetadata;
use crate::{
    image::record::{self, DeletedTopicRecord, Key},
    model::{KnownTopics, TopicId, TopicName},
    store::{Expect, MetadataStore, StoreError, Transaction},
};

/// Keys of one transaction: no store takes fewer.
const KEYS_AT_ONCE: usize = 100;

impl ClusterMetadata {
    /// All topics that were in the store when this was called and are there still, and all that were deleted. What an image shows without that
    /// question may be long out of date: while the store cannot be reached, others may make topics that it does not have.
    ///
    /// # Errors
    /// [`StoreError`]: nobody can say now which topics there are not.
    pub async fn known_topics(&self) -> Result<KnownTopics, StoreError> {
        self.caught_up().await?;
        let image = self.image();
        let alive = image.topics().values().map(|topic| topic.id).collect();
        Ok(KnownTopics { alive, deleted: image.deleted_topics().keys().copied().collect() })
    }

    /// Forgets topics that were deleted: nothing is left of them.
    ///
    /// # Errors
    /// [`StoreError`]: some may not be forgotten.
    pub async fn forget_deleted(&self, ids: &[TopicId]) -> Result<(), StoreError> {
        for ids in ids.chunks(KEYS_AT_ONCE) {
            let forget = ids.iter().fold(Transaction::default(), |all, id| all.delete(Key::DeletedTopic(*id).text()));
            self.store.transact(forget).await?;
        }
        Ok(())
    }
}

/// Says in `store` that the topic `name`, which the cluster does not know, was deleted: whoever sweeps the archive buries what is left
/// of it.
///
/// # Errors
/// [`StoreError::Conflict`]: the cluster has that topic. Otherwise it is not known to be said.
pub async fn give_up(store: &dyn MetadataStore, id: TopicId, name: &TopicName) -> Result<(), StoreError> {
    let record = DeletedTopicRecord { name: name.clone() };
    let said = Transaction::default().put(Key::DeletedTopic(id).text(), record::encode(record));
    store.transact(said.expecting(Key::Topic(id).text(), Expect::Absent)).await.map(drop)
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, sync::Arc};

    use super::*;
    use crate::{
        controller::{CreationDefaults, NewTopic, Placement},
        image::BrokerImage,
        model::BrokerId,
        store::{
            MemoryStore, MetadataStore, Revision, Watch,
            steered::{Steered, Steering},
        },
    };

    /// A store that answers, and of whose changes nobody hears.
    struct Silent(Arc<MemoryStore>);

    impl Steering for Silent {
        fn behind(&self) -> &dyn MetadataStore {
            self.0.as_ref()
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
        let (deaf, hearing) = (started(Arc::new(Steered(Silent(store.clone())))).await, started(store.clone()).await);
        assert_eq!(hearing.known_topics().await.unwrap(), KnownTopics::default());

        let topic = with_topic(store).await;

        assert!(deaf.image().topics().is_empty(), "its image knows of none");
        assert!(deaf.known_topics().await.is_err(), "and it does not take that for the truth");
        assert_eq!(hearing.known_topics().await.unwrap().alive, [topic].into());
    }

    #[tokio::test(start_paused = true)]
    async fn a_topic_was_deleted_when_somebody_said_so_until_nothing_is_left_of_it() {
        let store = Arc::new(MemoryStore::new());
        let topic = with_topic(store.clone()).await;
        let metadata = started(store.clone()).await;
        let name = TopicName::parse("t").unwrap();
        assert!(matches!(give_up(store.as_ref(), topic, &name).await, Err(StoreError::Conflict)), "it is there");
        metadata.delete_topics(&[topic], None).await.unwrap();
        let lost = TopicId::random();
        assert!(metadata.known_topics().await.unwrap().is_unknown(lost));
        give_up(store.as_ref(), lost, &name).await.unwrap();
        let known = metadata.known_topics().await.unwrap();
        assert!(known.is_deleted(topic) && known.is_deleted(lost));
        metadata.forget_deleted(&[topic, lost]).await.unwrap();
        let known = metadata.known_topics().await.unwrap();
        assert!(known.is_unknown(topic) && known.is_unknown(lost));
    }
}
