//! Processes that rewrite the archive and serve nobody: who of them is there, and which share of the work is whose.
//!
//! ```text
//! enroll ─► compactors/<uuid> under a lease ─► everybody sees who is there ─► each partition is one's, by hash
//! ```
//! A share is no right: the next version of a manifest is created by one writer alone, whoever thinks that the partition is
//! his. It only keeps two from doing the same work. Who ends without a word is missed when its lease has ended.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};
use uuid::Uuid;

use super::{ClusterMetadata, MetadataError, SETTLE_TIMEOUT, alive::renewal};
use crate::{
    image::record::{self, Key, LifeRecord},
    model::PartitionId,
    store::{LeaseId, StoreError, Transaction, transact_settled},
};

/// Pause before something that failed is tried again.
const RETRY: Duration = Duration::from_millis(200);

/// This process among those that rewrite the archive, until it is dropped or [leaves](CompactorMember::leave).
pub struct CompactorMember {
    metadata: Arc<ClusterMetadata>,
    id: Uuid,
    lease: watch::Receiver<LeaseId>,
    alive: JoinHandle<()>,
}

impl CompactorMember {
    /// Makes this process known under a lease of `ttl`, and keeps it known.
    ///
    /// # Errors
    /// [`MetadataError::Store`]: it is not known to be.
    pub async fn enroll(metadata: Arc<ClusterMetadata>, ttl: Duration) -> Result<CompactorMember, MetadataError> {
        let id = Uuid::new_v4();
        let lease = metadata.enroll_compactor(id, ttl).await?;
        let (leases, lease) = watch::channel(lease);
        let alive = tokio::spawn(stay_enrolled(metadata.clone(), id, ttl, leases));
        Ok(CompactorMember { metadata, id, lease, alive })
    }

    /// Whether a partition is this process's to look after. Everybody's while nobody is known to be there.
    pub fn works_on(&self, partition: PartitionId) -> bool {
        owner(self.metadata.image().membership().compactors(), partition).is_none_or(|owner| owner == self.id)
    }

    /// Whether what only one has to do is for this process.
    pub fn is_first(&self) -> bool {
        self.metadata.image().membership().compactors().first().is_none_or(|first| *first == self.id)
    }

    /// Gives the lease back: others take over at once.
    pub async fn leave(self) {
        let lease = *self.lease.borrow();
        self.alive.abort();
        if let Err(error) = self.metadata.store.revoke(lease).await {
            tracing::warn!(%error, "the lease was not given back, it ends by itself");
        }
    }
}

impl Drop for CompactorMember {
    fn drop(&mut self) {
        self.alive.abort();
    }
}

impl ClusterMetadata {
    async fn enroll_compactor(&self, id: Uuid, ttl: Duration) -> Result<LeaseId, StoreError> {
        let lease = self.store.grant(ttl).await?;
        let life = record::encode(LifeRecord::of(id));
        let enroll = Transaction::default().put_leased(Key::Compactor(id).text(), life, lease);
        let revision = transact_settled(self.store.as_ref(), enroll, Instant::now() + SETTLE_TIMEOUT).await?;
        self.follow_to(revision).await?;
        Ok(lease)
    }
}

/// Renews the lease, and gets a new one when it has ended.
async fn stay_enrolled(metadata: Arc<ClusterMetadata>, id: Uuid, ttl: Duration, leases: watch::Sender<LeaseId>) {
    let mut pause = renewal(ttl);
    loop {
        sleep(pause).await;
        let lease = *leases.borrow();
        // One member of etcd that hangs must leave time for another one.
        match timeout(ttl / 4, metadata.store.renew(lease)).await {
            Ok(Ok(true)) => pause = renewal(ttl),
            Ok(Ok(false)) => {
                tracing::warn!(compactor = %id, "our lease has ended, asking for a new one");
                pause = RETRY;
                if let Ok(lease) = metadata.enroll_compactor(id, ttl).await {
                    leases.send_replace(lease);
                    pause = renewal(ttl);
                }
            }
            Ok(Err(_)) | Err(_) => {
                tracing::warn!(compactor = %id, "our lease was not renewed, trying again");
                pause = RETRY;
            }
        }
    }
}

/// Whose a partition is: the one that draws the highest number for it, so that one more or less moves only its own share.
fn owner(compactors: &BTreeSet<Uuid>, partition: PartitionId) -> Option<Uuid> {
    let topic = partition.topic.to_wire().as_u128();
    let draw = |id: &Uuid| {
        let halves = [topic as u64, (topic >> 64) as u64, u64::from(partition.index.0), id.as_u128() as u64];
        halves.into_iter().chain([(id.as_u128() >> 64) as u64]).fold(0, |mixed: u64, part| mix(mixed ^ part))
    };
    compactors.iter().copied().max_by_key(|id| (draw(id), *id))
}

/// SplitMix64's last steps: every bit of what goes in changes about half of what comes out.
fn mix(number: u64) -> u64 {
    let mut mixed = number.wrapping_add(0x9E37_79B9_7F4A_7C15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::{
        model::{BrokerId, PartitionIndex, TopicId},
        store::{MemoryStore, MetadataStore},
    };

    fn partition(index: u32) -> PartitionId {
        let topic = TopicId::from_wire(Uuid::from_u128(7)).unwrap();
        PartitionId { topic, index: PartitionIndex(index) }
    }

    #[test]
    fn each_partition_is_ones_and_the_end_of_one_moves_only_what_was_its() {
        let all: BTreeSet<Uuid> = (1..=4).map(Uuid::from_u128).collect();
        let owners: Vec<Uuid> = (0..400).map(|index| owner(&all, partition(index)).unwrap()).collect();
        for id in &all {
            let share = owners.iter().filter(|owner| *owner == id).count();
            assert!((60..=140).contains(&share), "{id} has {share}");
        }
        let gone = Uuid::from_u128(2);
        let left: BTreeSet<Uuid> = all.iter().copied().filter(|id| *id != gone).collect();
        for (index, before) in (0..).zip(owners) {
            let now = owner(&left, partition(index)).unwrap();
            assert!(now == before || before == gone, "{index}");
        }
        assert_eq!(owner(&BTreeSet::new(), partition(0)), None);
    }

    #[tokio::test(start_paused = true)]
    async fn who_ends_without_a_word_is_missed_and_its_share_is_taken_over() {
        let store: Arc<dyn MetadataStore> = Arc::new(MemoryStore::new());
        let ttl = Duration::from_secs(3);
        let start = async |id| {
            let metadata = ClusterMetadata::start(store.clone(), BrokerId(id), BTreeMap::new()).await.unwrap();
            CompactorMember::enroll(metadata, ttl).await.unwrap()
        };
        let (one, other) = (start(1).await, start(2).await);
        let mut images = one.metadata.subscribe();
        images.wait_for(|image| image.membership().compactors().len() == 2).await.unwrap();
        other.metadata.follow_to(one.metadata.image().revision()).await.unwrap();
        for index in 0..50 {
            assert!(one.works_on(partition(index)) ^ other.works_on(partition(index)), "{index}");
        }
        assert!(one.is_first() ^ other.is_first());
        // Longer than the lease: both renew it.
        sleep(ttl * 3).await;
        assert_eq!(one.metadata.image().membership().compactors().len(), 2);
        drop(other);
        images.wait_for(|image| image.membership().compactors().len() == 1).await.unwrap();
        assert!((0..50).all(|index| one.works_on(partition(index))) && one.is_first());
        let (metadata, mut images) = (one.metadata.clone(), one.metadata.subscribe());
        one.leave().await;
        images.wait_for(|image| image.membership().compactors().is_empty()).await.unwrap();
        drop(metadata);
    }
}
