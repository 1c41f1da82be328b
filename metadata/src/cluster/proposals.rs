//! What leaders change: other ISRs, by compare-and-set on each partition.

use futures::future::join_all;
use tokio::time::Instant;
use uuid::Uuid;

use super::{ClusterMetadata, SETTLE_TIMEOUT};
use crate::{
    image::{
        ClusterImage, PartitionImage,
        record::{self, Key, PartitionRecord},
    },
    model::{BrokerId, PartitionId},
    store::{Expect, StoreError, Transaction, transact_settled},
};

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
    /// This attempt did not reach the store. One before it, whose outcome is unknown, may still.
    Unsent,
    /// Somebody else changed the partition: this is what it is like now. `None`: it was deleted.
    Overtaken(Option<Box<PartitionImage>>),
    /// Nobody knows.
    Unknown,
}

impl ClusterMetadata {
    /// Puts a leader's proposals to the store, at most one for each partition. As many as its limits allow are one transaction, and one
    /// that cannot be taken holds up none of the others.
    pub async fn propose_isrs(&self, proposals: &[IsrProposal]) -> Vec<ProposalOutcome> {
        if let [alone] = proposals {
            return vec![self.propose_isr(alone).await];
        }
        let image = self.image();
        let guarded: Vec<_> = proposals.iter().map(|proposal| guarded_proposal(&image, proposal)).collect();
        let whole = guarded.iter().flatten().cloned().reduce(Transaction::and);
        let whole = whole.filter(|whole| self.store.limits().allow(whole));
        let outcome = match whole {
            Some(whole) => self.put(whole).await,
            None => None,
        };
        let each = proposals.iter().zip(guarded).map(async |(proposal, guarded)| match (&outcome, guarded) {
            (_, None) => self.read_fate(proposal.partition, proposal.base).await,
            (Some(outcome), Some(_)) => outcome.clone(),
            (None, Some(_)) => self.propose_isr(proposal).await,
        });
        join_all(each).await
    }

    /// Puts one proposal to the store.
    pub async fn propose_isr(&self, proposal: &IsrProposal) -> ProposalOutcome {
        let outcome = match guarded_proposal(&self.image(), proposal) {
            Some(transaction) => self.put(transaction).await,
            None => None,
        };
        match outcome {
            Some(outcome) => outcome,
            None => self.read_fate(proposal.partition, proposal.base).await,
        }
    }

    /// `None`: something that it expects is not so.
    async fn put(&self, transaction: Transaction) -> Option<ProposalOutcome> {
        match transact_settled(self.store.as_ref(), transaction, Instant::now() + SETTLE_TIMEOUT).await {
            Ok(_) => Some(ProposalOutcome::Taken),
            Err(StoreError::Conflict) => None,
            Err(StoreError::Unavailable(_)) => Some(ProposalOutcome::Unsent),
            Err(StoreError::Unknown(_)) => Some(ProposalOutcome::Unknown),
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
}

/// `None` if the image shows already that the proposal cannot be taken, neither now nor by an attempt that is under way still: what
/// that expects has been written again. So it is with a broker that was fenced or has another life. That one is about to stop is written
/// elsewhere, and turns no earlier attempt away: it may join, and others take it out again.
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
    image.brokers().get(&broker).filter(|broker| !broker.fenced && broker.incarnation == life)?;
    let registered = image.membership().registered(broker)?;
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

    const COUNT: u32 = 50;

    fn without_two(image: &ClusterImage, index: u32) -> IsrProposal {
        let partition = PartitionId { topic: image.topic("t").unwrap().id, index: PartitionIndex(index) };
        let now = image.partition(partition).unwrap();
        let isr: Vec<BrokerId> = now.isr.iter().copied().filter(|one| *one != BrokerId(2)).collect();
        let next = with_proposed_isr(now, &isr, 2);
        IsrProposal { partition, base: now.partition_epoch, next, joins: None }
    }

    #[tokio::test(start_paused = true)]
    async fn many_proposals_are_one_transaction_and_one_that_comes_late_holds_up_no_other() {
        let store = etcd_like();
        let (one, _member_one, _) = join(&store, 1, false).await;
        let (_two, _member_two, _) = join(&store, 2, false).await;
        let (_three, _member_three, _) = join(&store, 3, false).await;
        create(&one, "t", 2 * COUNT).await;
        let image = one.image();
        let proposals: Vec<_> = (0..COUNT).map(|index| without_two(&image, index)).collect();
        let before = store.range("").await.unwrap().revision;
        let outcomes = one.propose_isrs(&proposals).await;
        assert!(outcomes.iter().all(|outcome| *outcome == ProposalOutcome::Taken), "{outcomes:?}");
        assert_eq!(store.range("").await.unwrap().revision.0 - before.0, 1);

        // What the image shows as done is not asked again, and the others are taken with it.
        eventually(&one, |image| image.topic("t").unwrap().partitions[0].isr.len() == 2).await;
        let again = [proposals[0].clone(), without_two(&image, COUNT)];
        let done = ProposalOutcome::Overtaken(Some(Box::new(proposals[0].next.clone())));
        assert_eq!(one.propose_isrs(&again).await, [done, ProposalOutcome::Taken]);

        // Nor is one in the way of others that somebody wrote before the image shows it.
        let late = without_two(&image, COUNT + 1);
        let key = Key::Partition(late.partition).text();
        let theirs =
            PartitionImage { partition_epoch: late.base + 1, ..image.partition(late.partition).unwrap().clone() };
        let written = record::encode(PartitionRecord::of(&theirs));
        let stale = [late, without_two(&image, COUNT + 2)];
        let outcomes =
            tokio::join!(store.transact(Transaction::default().put(key, written)), one.propose_isrs(&stale)).1;
        assert_eq!(outcomes, [ProposalOutcome::Overtaken(Some(Box::new(theirs))), ProposalOutcome::Taken]);
    }
}
