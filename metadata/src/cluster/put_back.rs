//! A store that was put back to an older state under those who follow it, or that another one took the place of.
//!
//! Nobody is shown what it holds: a topic that is missing there was deleted by nobody, and whoever follows images would delete its
//! logs and bury its archive. The process is to end; the next one begins with what the store has then, and sets aside what that does
//! not know.

use super::ClusterMetadata;
use crate::store::{PutBack, Snapshot};

impl ClusterMetadata {
    /// Returns when the store is not the one any more that was followed, and says how that shows: whoever runs it has to end then,
    /// for the image stays as it was. Cancel-safe.
    pub async fn put_back(&self) -> PutBack {
        let mut told = self.put_back.subscribe();
        let how = told.wait_for(Option::is_some).await.ok().and_then(|how| *how);
        match how {
            Some(how) => how,
            // The sender lives as long as the metadata.
            None => std::future::pending().await,
        }
    }

    /// Whether the image follows the store no more, because of that.
    pub fn is_put_back(&self) -> bool {
        self.put_back.borrow().is_some()
    }

    pub(super) fn was_put_back(&self, how: PutBack) {
        tracing::error!(%how, "the metadata store was put back to an older state, or is another one: it is followed no more");
        self.put_back.send_if_modified(|known| match known {
            Some(_) => false,
            None => {
                *known = Some(how);
                true
            }
        });
    }

    /// Shows `snapshot`, if the store that it is of can be the one that was followed.
    ///
    /// # Errors
    /// It cannot, and nobody is shown it.
    pub(super) fn take_anew(&self, snapshot: &Snapshot) -> Result<(), PutBack> {
        let mut outcome = Ok(());
        self.advance(|builder| {
            outcome = builder.reload(snapshot)?;
            Ok(())
        });
        outcome
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, sync::Arc, time::Duration};

    use tokio::time::timeout;
    use uuid::Uuid;

    use super::*;
    use crate::{
        cluster::{Joining, Member},
        controller::{CreationDefaults, NewTopic, Placement},
        image::{
            BrokerImage,
            record::{self, DeletedTopicRecord, Key},
        },
        model::BrokerId,
        store::{MemoryStore, MetadataStore, Revision, StoreError, Versioned},
    };

    const LIMIT: Duration = Duration::from_secs(60);

    async fn started(store: &Arc<MemoryStore>) -> Arc<ClusterMetadata> {
        ClusterMetadata::start(store.clone(), BrokerId(1), BTreeMap::new()).await.unwrap()
    }

    async fn with_topic(metadata: &ClusterMetadata, name: &str) {
        let placement = Ok(Placement::Spread { partitions: Some(1), replication_factor: None });
        let topic = NewTopic { name: name.to_owned(), placement, overrides: BTreeMap::new() };
        let defaults = CreationDefaults { partitions: 1, replication_factor: 1 };
        metadata.create_topics(&[topic], defaults, false, None).await.unwrap().remove(0).unwrap();
    }

    /// A cluster with one topic that its backup has, and one that it lacks.
    async fn with_backup() -> (Arc<MemoryStore>, Arc<ClusterMetadata>, Snapshot) {
        let store = Arc::new(MemoryStore::new());
        let metadata = started(&store).await;
        metadata.register(BrokerImage { id: BrokerId(1), ..BrokerImage::default() }).await.unwrap();
        with_topic(&metadata, "before").await;
        let backup = store.range("").await.unwrap();
        // One that starts again, as brokers do.
        metadata
            .register(BrokerImage { id: BrokerId(1), rack: Some("a".into()), ..BrokerImage::default() })
            .await
            .unwrap();
        with_topic(&metadata, "after").await;
        (store, metadata, backup)
    }

    async fn noticed(metadata: &ClusterMetadata) -> PutBack {
        let how = timeout(LIMIT, metadata.put_back()).await.expect("it is noticed");
        assert!(metadata.is_put_back());
        assert_eq!(metadata.image().topics().len(), 2, "nobody is shown a topic as deleted");
        how
    }

    #[tokio::test(start_paused = true)]
    async fn a_store_that_was_put_back_to_an_older_state_is_shown_to_nobody() {
        let (store, metadata, backup) = with_backup().await;
        let (seen, now) = (metadata.image().revision(), backup.revision);
        store.restore(backup);
        assert_eq!(noticed(&metadata).await, PutBack::Behind { seen, now });
    }

    #[tokio::test(start_paused = true)]
    async fn a_store_that_came_back_empty_is_shown_to_nobody() {
        let (store, metadata, _) = with_backup().await;
        let seen = metadata.image().revision();
        store.restore(Snapshot { revision: Revision(1), entries: Vec::new() });
        assert!(matches!(metadata.caught_up().await, Err(StoreError::Unavailable(_))), "it knows of no topic");
        assert_eq!(noticed(&metadata).await, PutBack::Behind { seen, now: Revision(1) });
    }

    /// `etcdctl snapshot restore --bump-revision`, or others who wrote much to it.
    #[tokio::test(start_paused = true)]
    async fn an_older_state_at_a_later_revision_is_known_by_what_was_written_later() {
        let (store, metadata, backup) = with_backup().await;
        let seen = metadata.image().revision();
        store.restore(Snapshot { revision: Revision(seen.0 + 1_000_000), ..backup });
        assert_eq!(noticed(&metadata).await, PutBack::Older { seen });
    }

    #[tokio::test(start_paused = true)]
    async fn an_older_state_of_which_nothing_was_written_anew_is_known_by_the_topic_that_nobody_deleted() {
        let store = Arc::new(MemoryStore::new());
        let metadata = started(&store).await;
        metadata.register(BrokerImage { id: BrokerId(1), ..BrokerImage::default() }).await.unwrap();
        with_topic(&metadata, "before").await;
        let backup = store.range("").await.unwrap();
        with_topic(&metadata, "after").await;
        let seen = metadata.image().revision();
        store.restore(Snapshot { revision: Revision(seen.0 + 1_000_000), ..backup });
        assert_eq!(noticed(&metadata).await, PutBack::Older { seen });
    }

    #[tokio::test(start_paused = true)]
    async fn the_state_of_another_cluster_is_shown_to_nobody() {
        let (store, metadata, _) = with_backup().await;
        let other = Arc::new(MemoryStore::new());
        let _other_cluster = started(&other).await;
        let state = Snapshot { revision: Revision(1_000_000), ..other.range("").await.unwrap() };
        store.restore(state);
        assert_eq!(noticed(&metadata).await, PutBack::OtherCluster);
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_asks_whether_it_has_caught_up_finds_out_as_well() {
        let (store, metadata, backup) = with_backup().await;
        // Nobody reads the watch meanwhile: this is one thread.
        store.restore(backup);
        assert!(metadata.caught_up().await.is_err());
        noticed(&metadata).await;
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_only_missed_is_read_anew() {
        let (store, metadata, _) = with_backup().await;
        let state = store.range("").await.unwrap();
        let gone: Vec<&str> =
            state.entries.iter().map(|(key, _)| key.as_str()).filter(|key| key.starts_with("topic")).collect();
        assert_eq!(gone.len(), 4, "two topics and their names");
        let mut entries: Vec<_> =
            state.entries.iter().filter(|(key, _)| !gone.contains(&key.as_str())).cloned().collect();
        let revision = Revision(state.revision.0 + 1);
        for topic in metadata.image().topics().values() {
            let value = record::encode(DeletedTopicRecord { name: topic.name.clone() });
            entries.push((Key::DeletedTopic(topic.id).text(), Versioned { value, modified: revision }));
        }
        entries.sort_by(|one, other| one.0.cmp(&other.0));
        store.restore(Snapshot { revision: Revision(state.revision.0 + 2), entries });
        let mut images = metadata.subscribe();
        timeout(LIMIT, images.wait_for(|image| image.topics().is_empty())).await.unwrap().unwrap();
        assert!(!metadata.is_put_back());
    }

    /// It knows an earlier life of the broker, or none: that is no other process.
    #[tokio::test(start_paused = true)]
    async fn a_broker_is_not_taken_for_replaced_by_a_store_that_forgot_it() {
        let store = Arc::new(MemoryStore::new());
        let metadata = started(&store).await;
        let life = Uuid::new_v4();
        let broker = BrokerImage { id: BrokerId(1), incarnation: life, ..BrokerImage::default() };
        let backup = store.range("").await.unwrap();
        let joining =
            Joining { broker, lease: Duration::from_secs(3), may_have_lost_records: false, found: Arc::default() };
        let member = Member::join(metadata.clone(), joining).await.unwrap();
        member.admitted(BrokerId(1), life).await;
        store.restore(backup);
        timeout(LIMIT, metadata.put_back()).await.expect("it is noticed");
        tokio::time::sleep(Duration::from_secs(30)).await;
        assert!(!*member.is_replaced().borrow());
    }
}
