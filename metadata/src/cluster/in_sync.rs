//! What the controller changes in many partitions, and what brokers tell of their replicas.

use futures::{StreamExt, stream};
use tokio::time::Instant;
use uuid::Uuid;

use super::{ClusterMetadata, MetadataError, SETTLE_TIMEOUT};
use crate::{
    controller::{self, Decision, FoundLogs, OfflineReplicas, ReplicaState},
    model::{BrokerId, PartitionId},
    store::{Revision, StoreError, transact_settled},
};

/// Transactions of the controller that are under way at a time.
const PARALLEL: usize = 8;

/// How much there was to tell of a broker's replicas.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Told {
    /// Something was told, and some of it may not have been taken: the next image shows what is left.
    Something,
    /// Nothing new. Some replicas are offline, not decided on, or asked for their logs.
    Before,
    /// Nothing new. All are online, and nobody asks.
    Settled,
}

impl Told {
    pub(super) fn of(is_something: bool, is_settled: bool) -> Told {
        match (is_something, is_settled) {
            (true, _) => Told::Something,
            (false, false) => Told::Before,
            (false, true) => Told::Settled,
        }
    }
}

impl ClusterMetadata {
    /// Does what is due for the controller; `true` if anything was. For whoever holds that office.
    ///
    /// # Errors
    /// [`MetadataError::Store`]: some of it may have happened.
    pub async fn tend(&self) -> Result<bool, MetadataError> {
        self.take_all(controller::tend(&self.image())).await
    }

    /// Lets preferred replicas lead that are in sync; `true` if any did not.
    ///
    /// # Errors
    /// [`MetadataError::Store`]: some of them may lead now.
    pub async fn prefer_leaders(&self) -> Result<bool, MetadataError> {
        self.take_all(controller::prefer_leaders(&self.image())).await
    }

    /// Tells which replicas of `node`, in this `life` of it, its log directories cannot reach (any more); others lead and are in sync
    /// from then on.
    ///
    /// # Errors
    /// [`MetadataError::Store`]: some of it may be told.
    pub async fn tell_offline(
        &self,
        (node, life): (BrokerId, Uuid),
        state: &(dyn Fn(PartitionId) -> ReplicaState + Sync),
    ) -> Result<Told, MetadataError> {
        let OfflineReplicas { decisions, is_settled } =
            controller::offline_replicas(&self.image(), (node, life), state);
        Ok(Told::of(self.take_all(decisions).await?, is_settled))
    }

    /// Tells that `node`, in this `life` of it, has logs again without which it came back before; it leads where nobody else can
    /// who is known to have more. `true` if there was anything to tell.
    ///
    /// # Errors
    /// [`MetadataError::Store`]: some of it may be told.
    pub async fn tell_returned(&self, us: (BrokerId, Uuid), found: &FoundLogs) -> Result<bool, MetadataError> {
        self.take_all(controller::returned_replicas(&self.image(), us, found)).await
    }

    /// Decisions that are independent of each other. One that comes too late is dropped: it is made anew if it is still due, by an image
    /// that shows what came before it.
    pub(super) async fn take_all(&self, decisions: Vec<Decision>) -> Result<bool, MetadataError> {
        if decisions.is_empty() {
            return Ok(false);
        }
        let deadline = Instant::now() + SETTLE_TIMEOUT;
        let mut taken = stream::iter(decisions)
            .map(|decision| transact_settled(self.store.as_ref(), decision.transaction, deadline))
            .buffer_unordered(PARALLEL);
        let mut newest = Revision(0);
        let mut failed = None;
        while let Some(outcome) = taken.next().await {
            match outcome {
                Ok(revision) => newest = newest.max(revision),
                Err(StoreError::Conflict) => {}
                Err(error) => failed = Some(error),
            }
        }
        match failed {
            Some(error) => return Err(error.into()),
            // Nothing was taken: what these were decided on is old, and to decide by it again at once would only be the same again.
            None if newest == Revision(0) => self.caught_up().await?,
            None => self.follow_to(newest).await?,
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use std::{
        collections::BTreeMap,
        sync::{
            Arc,
            atomic::{AtomicBool, Ordering},
        },
    };

    use parking_lot::Mutex;

    use super::*;
    use crate::{
        cluster::{
            IsrProposal, ProposalOutcome,
            member::tests::{create, etcd_like, eventually, join},
        },
        controller::in_sync::with_proposed_isr,
        image::{ClusterImage, PartitionImage},
        model::PartitionIndex,
        store::{
            MetadataStore, StoreFuture, Transaction, Watch,
            steered::{Steered, Steering},
        },
    };

    const ONE: BrokerId = BrokerId(1);

    fn partitions(image: &ClusterImage) -> &[PartitionImage] {
        &image.topic("t").unwrap().partitions
    }

    /// One of three directories of a broker, so to speak.
    fn is_in_it(id: PartitionId) -> bool {
        id.index.0.is_multiple_of(3)
    }

    #[tokio::test(start_paused = true)]
    async fn a_directory_that_fails_takes_its_replicas_out_and_no_others_until_another_life_has_them() {
        let store = etcd_like();
        let (one, member, life) = join(&store, 1, false).await;
        let (two, _member_two, _) = join(&store, 2, false).await;
        let (_three, _member_three, _) = join(&store, 3, false).await;
        create(&two, "t", 1000).await;
        let before = two.image();
        let state = |id| if is_in_it(id) { ReplicaState::Offline } else { ReplicaState::Online };
        assert_eq!(one.tell_offline((ONE, Uuid::new_v4()), &state).await.unwrap(), Told::Before, "another life's word");
        assert_eq!(one.tell_offline((ONE, life), &state).await.unwrap(), Told::Something);
        assert_eq!(one.tell_offline((ONE, life), &state).await.unwrap(), Told::Before, "all is told");
        let id = |image: &ClusterImage, index| PartitionId {
            topic: image.topic("t").unwrap().id,
            index: PartitionIndex(index),
        };
        let is_out = move |image: &ClusterImage| {
            partitions(image).iter().zip(0..).all(|(now, index)| match is_in_it(id(image, index)) {
                true => {
                    let is_led = now.leader.is_some_and(|leader| leader != ONE);
                    is_led && now.isr.len() == 2 && !now.isr.contains(&ONE) && now.offline == [ONE]
                }
                false => *now == partitions(&before)[index as usize],
            })
        };
        eventually(&two, is_out).await;
        assert!(two.image().in_service(ONE).is_some(), "it goes on with the others");

        // It may not be let in again by a leader that has not heard of it.
        let image = two.image();
        let now = image.partition(id(&image, 0)).unwrap();
        let stale = PartitionImage { offline: Vec::new(), partition_epoch: now.partition_epoch - 1, ..now.clone() };
        let next = with_proposed_isr(&stale, &[ONE, BrokerId(2), BrokerId(3)], 2);
        let (partition, base) = (id(&image, 0), stale.partition_epoch);
        let proposal = IsrProposal { partition, base, next, joins: Some((ONE, life)) };
        assert!(matches!(two.propose_isr(&proposal).await, ProposalOutcome::Overtaken(Some(_))));

        // In the next life the directory is there again: not before its logs are open.
        drop(member);
        let (one, _member, life) = join(&store, 1, true).await;
        let undecided = |_| ReplicaState::Undecided;
        assert_eq!(one.tell_offline((ONE, life), &undecided).await.unwrap(), Told::Before);
        assert!(partitions(&one.image()).iter().any(|now| now.offline == [ONE]));
        let online = |_| ReplicaState::Online;
        assert_eq!(one.tell_offline((ONE, life), &online).await.unwrap(), Told::Something);
        assert_eq!(one.tell_offline((ONE, life), &online).await.unwrap(), Told::Settled);
        let is_back = |now: &PartitionImage| now.offline.is_empty() && !now.isr.contains(&ONE);
        assert!(partitions(&one.image()).iter().all(is_back), "it has to catch up first");
    }

    /// A store on a line that is slow at times: what is put to it about partitions gets no answer, and arrives when the test says so;
    /// or nothing gets through.
    struct SlowLine {
        store: Arc<dyn MetadataStore>,
        is_slow: AtomicBool,
        is_cut: AtomicBool,
        under_way: Mutex<Vec<Transaction>>,
    }

    impl Steering for SlowLine {
        fn behind(&self) -> &dyn MetadataStore {
            self.store.as_ref()
        }

        fn transact(&self, transaction: Transaction) -> StoreFuture<'_, Revision> {
            let is_about_partitions = transaction.writes.iter().any(|write| write.key().starts_with("partitions/"));
            if is_about_partitions && self.is_cut.load(Ordering::SeqCst) {
                return Box::pin(async { Err(StoreError::Unavailable("cut off".into())) });
            }
            if is_about_partitions && self.is_slow.load(Ordering::SeqCst) {
                self.under_way.lock().push(transaction);
                return Box::pin(async { Err(StoreError::Unknown("no answer".into())) });
            }
            self.store.transact(transaction)
        }
    }

    /// A store that takes everything, and is silent about what others change.
    struct Silent(Arc<dyn MetadataStore>);

    impl Steering for Silent {
        fn behind(&self) -> &dyn MetadataStore {
            self.0.as_ref()
        }

        fn watch(&self, _: &str, after: Revision) -> Watch {
            self.0.watch("nobody/", after)
        }
    }

    /// Else it would decide the same again at once, and again, at the cost of whoever waits for etcd.
    #[tokio::test(start_paused = true)]
    async fn who_decides_on_an_old_image_waits_for_the_next_one() {
        let store = etcd_like();
        let (one, _member, life) = join(&store, 1, false).await;
        let (two, _member_two, _) = join(&store, 2, false).await;
        let (_three, _member_three, _) = join(&store, 3, false).await;
        create(&two, "t", 300).await;
        let behind = Arc::new(Steered(Silent(store.clone())));
        let behind = ClusterMetadata::start(behind, BrokerId(4), BTreeMap::new()).await.unwrap();
        let state = |_| ReplicaState::Offline;
        assert_eq!(one.tell_offline((ONE, life), &state).await.unwrap(), Told::Something);
        assert!(behind.tell_offline((ONE, life), &state).await.is_err(), "there is no next one");
    }

    /// A leader that hears "refused" goes on without who would have joined.
    #[tokio::test(start_paused = true)]
    async fn nothing_is_refused_that_may_still_arrive() {
        let etcd = etcd_like();
        let line = Arc::new(Steered(SlowLine {
            store: etcd.clone(),
            is_slow: AtomicBool::new(false),
            is_cut: AtomicBool::new(false),
            under_way: Mutex::default(),
        }));
        let slow: Arc<dyn MetadataStore> = line.clone();
        let (one, _member_one, _) = join(&slow, 1, false).await;
        let (two, member_two, life) = join(&etcd, 2, false).await;
        let (_three, _member_three, _) = join(&etcd, 3, false).await;
        create(&two, "t", 1).await;
        // 2 is out, and is back: its full disk has room again.
        assert!(member_two.step_aside(BrokerId(2), life, true).await.unwrap());
        eventually(&one, |image| !partitions(image)[0].isr.contains(&BrokerId(2))).await;
        assert!(member_two.step_aside(BrokerId(2), life, false).await.unwrap());
        eventually(&one, |image| image.in_service(BrokerId(2)) == Some(life)).await;
        let image = one.image();
        let partition = PartitionId { topic: image.topic("t").unwrap().id, index: PartitionIndex(0) };
        let now = image.partition(partition).unwrap();
        let next = with_proposed_isr(now, &[1, 2, 3].map(BrokerId), 2);
        let base = now.partition_epoch;
        let proposal = IsrProposal { partition, base, next, joins: Some((BrokerId(2), life)) };

        line.is_slow.store(true, Ordering::SeqCst);
        assert_eq!(one.propose_isr(&proposal).await, ProposalOutcome::Unknown);
        line.is_cut.store(true, Ordering::SeqCst);
        assert_eq!(one.propose_isr(&proposal).await, ProposalOutcome::Unsent);
        line.is_cut.store(false, Ordering::SeqCst);
        // It is about to stop, which nothing that is under way looks at.
        assert!(member_two.step_aside(BrokerId(2), life, true).await.unwrap());
        eventually(&one, |image| image.in_service(BrokerId(2)).is_none()).await;
        assert_eq!(one.propose_isr(&proposal).await, ProposalOutcome::Unknown);
        line.is_slow.store(false, Ordering::SeqCst);
        let late = line.under_way.lock().first().cloned().unwrap();
        assert!(etcd.transact(late).await.is_ok(), "it is taken");
        assert!(matches!(one.propose_isr(&proposal).await, ProposalOutcome::Overtaken(Some(_))));
    }
}
