//! The controller clears away what changes left behind that did not come to their end (`controller/leftovers.rs`).

use std::time::Duration;

use tokio::time::Instant;

use super::{ClusterMetadata, MetadataError, SETTLE_TIMEOUT};
use crate::{
    controller::leftovers::Leftovers,
    image::record::{self, Key, TopicRecord},
    model::PartitionId,
    store::{Expect, StoreError, Transaction, transact_settled},
};

impl ClusterMetadata {
    /// Clears away some partitions that no topic counts, if any have been there for long; `true` if it did. `now`: monotonic.
    ///
    /// # Errors
    /// [`MetadataError::Store`]: they may be there still.
    pub(super) async fn clear_leftovers(
        &self,
        leftovers: &mut Leftovers,
        now: Duration,
    ) -> Result<bool, MetadataError> {
        let due = leftovers.due(self.builder.lock().uncounted(), now);
        let Some((topic, partitions)) = due else { return Ok(false) };
        // The store's own word on what counts: an image may be older, or of a version that cannot read the topic.
        let key = Key::Topic(topic).text();
        let (counted, guard) = match self.store.get(&key).await? {
            None => (0, Expect::Absent),
            Some(found) => {
                let record = record::decode::<TopicRecord>(&found.value);
                (record.map_or(u32::MAX, |record| record.partitions), Expect::At(found.modified))
            }
        };
        let mut clear = Transaction::default().expecting(key, guard);
        for (index, written) in partitions.into_iter().filter(|(index, _)| index.0 >= counted) {
            let key = Key::Partition(PartitionId { topic, index }).text();
            clear = clear.delete(key.clone()).expecting(key, Expect::At(written));
        }
        let cleared = clear.writes.len();
        if cleared == 0 {
            leftovers.put_off(topic, now);
            return Ok(false);
        }
        match transact_settled(self.store.as_ref(), clear, Instant::now() + SETTLE_TIMEOUT).await {
            Ok(revision) => {
                tracing::info!(%topic, partitions = cleared, "cleared away what was left of a change that was not finished");
                self.follow_to(revision).await?;
                Ok(true)
            }
            Err(StoreError::Conflict) => {
                leftovers.put_off(topic, now);
                Ok(false)
            }
            Err(error) => Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, sync::Arc};

    use tokio::{
        sync::{Notify, Semaphore},
        time::timeout,
    };

    use super::*;
    use crate::{
        cluster::member::tests::{create, etcd_like, eventually, join},
        controller::{self, CreationDefaults, Decision, GrowTopic, NewTopic, Placement, leftovers::QUIET},
        model::{BrokerId, TopicId},
        store::{
            MetadataStore, Revision, StoreFuture,
            steered::{Steered, Steering},
        },
    };

    async fn keys(store: &Arc<dyn MetadataStore>) -> usize {
        store.range("partitions/").await.unwrap().entries.len()
    }

    /// Waits until the store has keys of so many partitions.
    async fn until_left(store: &Arc<dyn MetadataStore>, metadata: &ClusterMetadata, wanted: usize) {
        let mut images = metadata.subscribe();
        let is_so = async {
            while keys(store).await != wanted {
                images.changed().await.unwrap();
            }
        };
        if timeout(QUIET * 2, is_so).await.is_err() {
            panic!("{} keys are left", keys(store).await);
        }
    }

    fn new_topic(name: &str, partitions: u32) -> NewTopic {
        let placement = Ok(Placement::Spread { partitions: Some(partitions), replication_factor: Some(3) });
        NewTopic { name: name.to_owned(), placement, overrides: BTreeMap::new() }
    }

    /// The first transaction of a change, whose maker dies before the next one; keys of partitions that are left then.
    async fn begun(store: &Arc<dyn MetadataStore>, decision: Decision) -> usize {
        let mut parts = decision.transaction.split(store.limits());
        assert!(parts.len() > 1, "it fits into one");
        store.transact(parts.remove(0)).await.unwrap();
        keys(store).await
    }

    #[tokio::test(start_paused = true)]
    async fn what_changes_left_behind_that_did_not_come_to_their_end_is_cleared_away_and_nothing_else() {
        let store = etcd_like();
        let (one, _first, _) = join(&store, 1, false).await;
        let (_two, _second, _) = join(&store, 2, false).await;
        let (_three, _third, _) = join(&store, 3, false).await;
        create(&one, "grows", 200).await;
        create(&one, "goes", 500).await;
        let image = one.image();
        let defaults = CreationDefaults { partitions: 1, replication_factor: 1 };
        let new = [new_topic("new", 300)];
        let (_, made) = controller::create_topics(&image, &new, defaults, &mut TopicId::random, 0);
        let grown = GrowTopic { name: "grows".into(), count: 500, assignments: None };
        let (_, grown) = controller::create_partitions(&image, &[grown], 0);
        let (_, deleted) = controller::delete_topics(&image, &[image.topic("goes").unwrap().id]);
        let after = [begun(&store, made).await, begun(&store, grown).await, begun(&store, deleted).await];
        assert_eq!(after, [700 + 128, 700 + 256, 700 + 256 - 125], "the topic, its name and a remark on it go first");

        until_left(&store, &one, 200).await;
        let image = one.image();
        assert!(image.topics().len() == 1 && image.topic("grows").unwrap().partitions.len() == 200);
        assert_eq!(one.builder.lock().uncounted().count(), 0);
        // Nothing is in the way of who tries again.
        create(&one, "new", 300).await;
        let grown = GrowTopic { name: "grows".into(), count: 500, assignments: None };
        assert_eq!(one.create_partitions(&[grown], false, None).await.unwrap(), [Ok(())]);
        // The clock is the test's own.
        tokio::time::sleep(QUIET * 2).await;
        assert_eq!(keys(&store).await, 800, "what counts stays");
    }

    /// A store whose transactions wait while it is closed, but for so many.
    struct Gated {
        store: Arc<dyn MetadataStore>,
        open: Semaphore,
        waits: Notify,
    }

    impl Steering for Gated {
        fn behind(&self) -> &dyn MetadataStore {
            self.store.as_ref()
        }

        fn transact(&self, transaction: Transaction) -> StoreFuture<'_, Revision> {
            Box::pin(async move {
                if self.open.available_permits() == 0 {
                    self.waits.notify_one();
                }
                self.open.acquire().await.unwrap().forget();
                self.store.transact(transaction).await
            })
        }
    }

    /// It is not dead: it goes on after its first transactions were cleared away, and must not count them.
    #[tokio::test(start_paused = true)]
    async fn who_was_frozen_in_the_midst_of_a_change_begins_it_anew() {
        const ENOUGH: usize = 1000;
        let store = etcd_like();
        let (one, _first, _) = join(&store, 1, false).await;
        let (_two, _second, _) = join(&store, 2, false).await;
        let (_three, _third, _) = join(&store, 3, false).await;
        let gated = Gated { store: store.clone(), open: Semaphore::new(0), waits: Notify::new() };
        let gated = Arc::new(Steered(gated));
        let frozen = ClusterMetadata::start(gated.clone(), BrokerId(4), BTreeMap::new()).await.unwrap();
        let count = |image: &crate::image::ClusterImage| image.topic("t").map(|topic| topic.partitions.len());
        for (before, wanted) in [(0, 400), (400, 900)] {
            gated.open.forget_permits(ENOUGH);
            gated.open.add_permits(2);
            let maker = frozen.clone();
            let change = tokio::spawn(async move {
                if before == 0 {
                    create(&maker, "t", wanted as u32).await;
                    return;
                }
                let grown = GrowTopic { name: "t".into(), count: wanted, assignments: None };
                assert_eq!(maker.create_partitions(&[grown], false, None).await.unwrap(), [Ok(())]);
            });
            gated.waits.notified().await;
            assert!(keys(&store).await > before, "something of it is there");
            until_left(&store, &one, before).await;
            gated.open.add_permits(ENOUGH);
            change.await.unwrap();
            eventually(&one, |image| count(image) == Some(wanted as usize)).await;
            assert_eq!(keys(&store).await, wanted as usize);
        }
    }
}
