//! What leaders and the controller change: compare-and-set on single partitions, and batches of them.

use futures::{StreamExt, stream};
use tokio::time::Instant;
use uuid::Uuid;

use super::{ClusterMetadata, MetadataError, SETTLE_TIMEOUT};
use crate::{
    controller::{self, Decision, FoundLogs, OfflineReplicas, ReplicaState},
    image::{
        ClusterImage, PartitionImage,
        record::{self, Key, PartitionRecord},
    },
    model::{BrokerId, PartitionId},
    store::{Expect, Revision, StoreError, Transaction, transact_settled},
};

/// Transactions of the controller that are under way at a time.
const PARALLEL: usize = 8;

/// A leader's wish for another ISR.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IsrProposal {
    /// The partition.
    pub partition: PartitionId,
    /// The partition epoch that it replaces.
    pub base: u32,
    /// The partition as it shall be.
    pub next: PartitionImage,
    /// The broker that joins, in the life in which it caught up: another life of it does not join.
    pub joins: Option<(BrokerId, Uuid)>,
}

/// What became of an [`IsrProposal`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProposalOutcome {
    /// It is in force.
    Taken,
    /// It is not and will not be; the partition is as it was.
    Refused,
    /// Somebody else changed the partition: this is what it is like now. `None`: it was deleted.
    Overtaken(Option<Box<PartitionImage>>),
    /// Nobody knows.
    Unknown,
}

/// How much there was to tell of a broker's replicas.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// Something was told, and some of it may not have been taken: the next image shows what is left.
    Something,
    /// Nothing new. Some replicas are offline, or not decided on.
    Before,
    /// Nothing new. All are online.
    Settled,
}

impl ClusterMetadata {
    /// Puts a leader's proposal to the store.
    pub async fn propose_isr(&self, proposal: &IsrProposal) -> ProposalOutcome {
        let Some(transaction) = guarded_proposal(&self.image(), proposal) else {
            return self.read_fate(proposal.partition, proposal.base).await;
        };
        match transact_settled(self.store.as_ref(), transaction, Instant::now() + SETTLE_TIMEOUT).await {
            Ok(_) => ProposalOutcome::Taken,
            Err(StoreError::Conflict) => self.read_fate(proposal.partition, proposal.base).await,
            Err(StoreError::Unavailable(_)) => ProposalOutcome::Refused,
            Err(StoreError::Unknown(_)) => ProposalOutcome::Unknown,
        }
    }

    /// What became of a proposal that cannot be taken any more: after a conflict, or when the life that would join has ended.
    /// It may have been before: the store tells.
    pub async fn read_fate(&self, partition: PartitionId, base: u32) -> ProposalOutcome {
        match self.store.get(&Key::Partition(partition).text()).await {
            Ok(None) => ProposalOutcome::Overtaken(None),
            Ok(Some(found)) => match record::decode::<PartitionRecord>(&found.value) {
                Ok(found) => {
                    let now = found.into_image();
                    match now.partition_epoch == base {
                        true => ProposalOutcome::Refused,
                        false => ProposalOutcome::Overtaken(Some(Box::new(now))),
                    }
                }
                Err(error) => {
                    tracing::error!(%partition, %error, "a partition's state was not understood");
                    ProposalOutcome::Unknown
                }
            },
            Err(_) => ProposalOutcome::Unknown,
        }
    }

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
        Ok(match (self.take_all(decisions).await?, is_settled) {
            (true, _) => Told::Something,
            (false, false) => Told::Before,
            (false, true) => Told::Settled,
        })
    }

    /// Tells that `node`, in this `life` of it, has logs again without which it came back before; it leads where nobody else can
    /// who is known to have more. `true` if there was anything to tell.
    ///
    /// # Errors
    /// [`MetadataError::Store`]: some of it may be told.
    pub async fn tell_returned(&self, us: (BrokerId, Uuid), found: &FoundLogs) -> Result<bool, MetadataError> {
        self.take_all(controller::returned_replicas(&self.image(), us, found)).await
    }

    /// Decisions that are independent of each other. One that comes too late is dropped: it is made anew if it is still due.
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
            Some(error) => Err(error.into()),
            None => {
                self.follow_to(newest).await?;
                Ok(true)
            }
        }
    }
}

/// `None` if the image shows already that the proposal cannot be taken.
fn guarded_proposal(image: &ClusterImage, proposal: &IsrProposal) -> Option<Transaction> {
    let id = proposal.partition;
    let topic = image.topic_by_id(id.topic)?;
    let place = id.index.0 as usize;
    let (now, written) = (topic.partitions.get(place)?, topic.written.get(place)?);
    if now.partition_epoch != proposal.base {
        return None;
    }
    let key = Key::Partition(id).text();
    let value = record::encode(PartitionRecord::of(&proposal.next));
    let transaction = Transaction::default().put(key.clone(), value).expecting(key, Expect::At(*written));
    let Some((broker, life)) = proposal.joins else { return Some(transaction) };
    let is_same_life = image.in_service(broker) == Some(life);
    let registered = image.membership().registered(broker).filter(|_| is_same_life)?;
    Some(transaction.expecting(Key::Broker(broker).text(), Expect::At(registered)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        cluster::member::tests::{create, etcd_like, eventually, join},
        controller::in_sync::with_proposed_isr,
        model::PartitionIndex,
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
}
