//! What leaders and the controller change: compare-and-set on single partitions, and batches of them.

use futures::{StreamExt, stream};
use tokio::time::Instant;
use uuid::Uuid;

use super::{ClusterMetadata, MetadataError, SETTLE_TIMEOUT};
use crate::{
    controller::{self, Decision},
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

    /// Decisions that are independent of each other. One that comes too late is dropped: it is made anew if it is still due.
    async fn take_all(&self, decisions: Vec<Decision>) -> Result<bool, MetadataError> {
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
