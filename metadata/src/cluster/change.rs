//! How a change is made: decided on the newest image, bound to all that it was decided on, written, and seen in the image.

use std::time::Duration;

use futures::{StreamExt, stream};
use tokio::time::{Instant, sleep, timeout_at};
use uuid::Uuid;

use super::{ATTEMPTS, ClusterMetadata, MetadataError, SETTLE_TIMEOUT};
use crate::{
    controller::Decision,
    image::{ClusterImage, record::Key},
    store::{Expect, Revision, StoreError, Transaction, TransactionLimits, transact_settled},
};

/// Keys that are looked up in the store at the same time.
const READS: usize = 16;

impl ClusterMetadata {
    /// Decides on the newest image, writes, and waits until the image shows it; anew if another writer was first.
    pub(super) async fn change<T>(
        &self,
        deadline: Option<Instant>,
        validate_only: bool,
        mut decide: impl FnMut(&ClusterImage) -> (T, Decision),
    ) -> Result<T, MetadataError> {
        let _turn = match deadline {
            // A free turn would be taken without a look at the clock.
            Some(deadline) if deadline <= Instant::now() => return Err(MetadataError::TimedOut),
            Some(deadline) => timeout_at(deadline, self.turn.lock()).await.map_err(|_| MetadataError::TimedOut)?,
            None => self.turn.lock().await,
        };
        for attempt in 0..ATTEMPTS {
            let image = self.image();
            let (result, mut decision) = decide(&image);
            if validate_only || decision.is_empty() {
                return Ok(result);
            }
            let anchor = decision.anchor.take();
            if let Some(transaction) = self.guarded(decision, &image).await? {
                let is_large = !self.store.limits().allow(&transaction);
                match self.write(transaction, anchor).await {
                    Ok(revision) => {
                        self.follow_to(revision).await?;
                        return Ok(result);
                    }
                    // Who writes the same in parts as well must not begin together with us again.
                    Err(StoreError::Conflict) if is_large => sleep(some_time(attempt)).await,
                    Err(StoreError::Conflict) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            // Somebody wrote after the image that we decided on.
            self.follow_to(Revision(image.revision().0 + 1)).await?;
        }
        Err(StoreError::Conflict.into())
    }

    /// As [`change`](Self::change) for several things: together where the store takes that, else in parts that it takes. Each
    /// part is a change of its own: one that conflicts must not be decided anew with those that have happened. After an error
    /// the parts before it have happened.
    pub(super) async fn change_each<I, T>(
        &self,
        items: &[I],
        deadline: Option<Instant>,
        validate_only: bool,
        mut decide: impl FnMut(&ClusterImage, &[I]) -> (Vec<T>, Decision),
    ) -> Result<Vec<T>, MetadataError> {
        let limits = self.store.limits();
        let mut results = Vec::with_capacity(items.len());
        // The next one last.
        let mut parts = vec![items];
        while let Some(part) = parts.pop() {
            let is_small = validate_only || part.len() <= 1;
            if !is_small && !decide(&self.image(), part).1.fits(limits) {
                let (first, second) = part.split_at(part.len() / 2);
                parts.extend([second, first]);
                continue;
            }
            results.extend(self.change(deadline, validate_only, |image| decide(image, part)).await?);
        }
        Ok(results)
    }

    /// Writes, in as many transactions as the store asks for, each bound to what the first one wrote at `anchor`, and finds out what
    /// became of one whose answer was lost.
    async fn write(&self, transaction: Transaction, anchor: Option<Key>) -> Result<Revision, StoreError> {
        let settled = |part| transact_settled(self.store.as_ref(), part, Instant::now() + SETTLE_TIMEOUT);
        let mut limits = self.store.limits();
        if limits.allow(&transaction) {
            return settled(transaction).await;
        }
        let mut anchor = anchor.map(|key| key.text());
        if let Some(key) = &anchor {
            limits = TransactionLimits { operations: limits.operations - 1, bytes: limits.bytes - key.len() };
        }
        let (mut newest, mut held) = (Revision(0), None);
        for mut part in transaction.split(limits) {
            part.expect.extend(held.clone());
            let writes: Vec<String> = part.writes.iter().map(|write| write.key().to_owned()).collect();
            newest = settled(part).await?;
            held = held.or_else(|| Some((anchor.take().filter(|key| writes.contains(key))?, Expect::At(newest))));
        }
        Ok(newest)
    }

    /// The decision's writes, bound to the state that it was decided on; `None` if that is the past already.
    async fn guarded(&self, decision: Decision, image: &ClusterImage) -> Result<Option<Transaction>, StoreError> {
        let Decision { mut transaction, rewrites, .. } = decision;
        let mut guards = stream::iter(rewrites).map(|key| self.guard(key, image)).buffered(READS);
        while let Some(guard) = guards.next().await {
            let Some(guard) = guard? else { return Ok(None) };
            transaction.expect.push(guard);
        }
        Ok(Some(transaction))
    }

    /// What the store must say of `key` if a decision made on `image` is to count; `None`: it says something else already.
    async fn guard(&self, key: Key, image: &ClusterImage) -> Result<Option<(String, Expect)>, StoreError> {
        let text = key.text();
        let expect = match image.written(&key) {
            // Of partitions a request may name thousands.
            Some(revision) => Expect::At(revision),
            None => match self.store.get(&text).await? {
                Some(found) if found.modified > image.revision() => return Ok(None),
                Some(found) => Expect::At(found.modified),
                // Deleted since: what was made of it must not bring it back.
                None if image.shows(&key) => return Ok(None),
                None => Expect::Absent,
            },
        };
        Ok(Some((text, expect)))
    }
}

/// A moment by chance, longer with each attempt.
fn some_time(attempt: usize) -> Duration {
    let chance = Uuid::new_v4().as_u128() as u64;
    Duration::from_millis(chance % (100 << attempt.min(6)))
}

#[cfg(test)]
mod tests {
    use std::{
        collections::{BTreeMap, BTreeSet},
        sync::Arc,
    };

    use super::*;
    use crate::{
        cluster::{
            member::tests::{create, etcd_like, join},
            tests::{cluster, create as create_alone},
        },
        controller::{self, AlterQuota, Election, GrowError, GrowTopic, QuotaError, Reassignment, ScramChange},
        image::PartitionImage,
        model::{
            BrokerId, ScramCredential, ScramMechanism,
            acl::{Acl, AclFilter, Operation, PatternType, Permission, ResourcePattern, ResourceType},
        },
        store::{MemoryStore, MetadataStore},
    };

    const MANY: usize = 500;

    fn partitions(metadata: &ClusterMetadata, topic: &str) -> Vec<PartitionImage> {
        metadata.image().topic(topic).unwrap().partitions.clone()
    }

    fn acl(principal: &str, topic: &str) -> Acl {
        let (resource_type, pattern_type) = (ResourceType::Topic, PatternType::Literal);
        let pattern = ResourcePattern { resource_type, pattern_type, name: topic.into() };
        let (operation, permission) = (Operation::Read, Permission::Allow);
        Acl { pattern, principal: principal.into(), host: "*".into(), operation, permission }
    }

    /// Transactions that the store has taken.
    async fn taken(store: &Arc<dyn MetadataStore>) -> u64 {
        store.range("").await.unwrap().revision.0
    }

    #[tokio::test(start_paused = true)]
    async fn leaders_and_replicas_of_more_partitions_than_the_store_takes_at_once_are_changed_in_few_parts() {
        let store = etcd_like();
        let (one, _first, _) = join(&store, 1, false).await;
        let (_two, _second, _) = join(&store, 2, false).await;
        let (_three, _third, _) = join(&store, 3, false).await;
        create(&one, "wide", MANY as u32).await;
        // The same brokers in another order: another one is preferred.
        let wanted = |partition: &PartitionImage| {
            let mut replicas = partition.replicas.clone();
            replicas.rotate_left(1);
            replicas
        };
        let wanted: Vec<Vec<BrokerId>> = partitions(&one, "wide").iter().map(wanted).collect();
        let asked: Vec<Reassignment> = wanted
            .iter()
            .zip(0..)
            .map(|(replicas, index)| {
                let replicas = Some(replicas.iter().map(|id| id.to_wire()).collect());
                Reassignment { topic: "wide".into(), index, replicas }
            })
            .collect();
        let before = taken(&store).await;
        let results = one.reassign_partitions(&asked, true, None).await.unwrap();
        assert!(results.len() == MANY && results.iter().all(Result::is_ok), "{results:?}");
        let placed: Vec<Vec<BrokerId>> = partitions(&one, "wide").into_iter().map(|one| one.replicas).collect();
        assert_eq!(placed, wanted);

        let asked: Vec<(String, i32)> = (0..MANY as i32).map(|index| ("wide".into(), index)).collect();
        let results = one.elect_leaders(Election::Preferred, &asked, None).await.unwrap();
        assert!(results.len() == MANY && results.iter().all(Result::is_ok), "{results:?}");
        assert!(partitions(&one, "wide").iter().all(|one| one.leader.as_ref() == one.replicas.first()));
        let written = taken(&store).await - before;
        assert!(written <= 16, "{written} transactions for twice {MANY} partitions");
    }

    #[tokio::test]
    async fn rules_users_and_quotas_may_be_more_than_the_store_takes_at_once() {
        let store = etcd_like();
        let metadata = cluster(Arc::clone(&store)).await;
        let before = taken(&store).await;
        let acls: Vec<Acl> = (0..MANY).map(|number| acl(&format!("User:{number:03}"), "t")).collect();
        metadata.create_acls(&acls).await.unwrap();
        assert_eq!(metadata.image().acls().len(), MANY);
        let one = AclFilter { principal: Some("User:007".into()), ..AclFilter::default() };
        let deleted = metadata.delete_acls(&[AclFilter::default(), one]).await.unwrap();
        assert_eq!(deleted, [acls.clone(), vec![acls[7].clone()]]);
        assert!(metadata.image().acls().is_empty());

        let credential = ScramCredential { salt: vec![1], stored_key: vec![2], server_key: vec![3], iterations: 4096 };
        let users = |credential: Option<&ScramCredential>| -> Vec<ScramChange> {
            let mechanism = ScramMechanism::Sha256;
            let change = |user| ScramChange { user, mechanism, credential: credential.cloned() };
            (0..MANY).map(|number| change(format!("u{number}"))).collect()
        };
        for changes in [users(Some(&credential)), users(None)] {
            assert_eq!(metadata.alter_scram_credentials(&changes).await.unwrap(), [true; MANY]);
        }
        assert!(metadata.image().scram_credentials().is_empty());

        let quota = |user: String, rate: f64| AlterQuota {
            entity: BTreeMap::from([("user".into(), Some(user))]),
            changes: vec![("producer_byte_rate".into(), Some(rate))],
        };
        let mut quotas: Vec<AlterQuota> = (0..MANY).map(|number| quota(format!("u{number}"), 1.0)).collect();
        // Far from the first: which of its changes is made does not depend on parts.
        quotas.push(quota("u0".into(), 2.0));
        let results = metadata.alter_client_quotas(&quotas, &BTreeSet::new(), false).await.unwrap();
        let refused: Vec<_> = results.values().filter_map(|result| result.as_ref().err()).collect();
        assert!(results.len() == MANY && matches!(refused.as_slice(), [QuotaError::Repeated(_)]), "{refused:?}");
        let image = metadata.image();
        assert_eq!(image.quotas().iter().count(), MANY);
        assert!(image.quotas().iter().all(|(_, quotas)| quotas.values().eq([&1.0])));
        let written = taken(&store).await - before;
        assert!(written <= 5 * 8, "{written} transactions for five times {MANY} things");
    }

    #[tokio::test]
    async fn what_was_deleted_while_a_change_was_decided_does_not_come_back() {
        let store: Arc<dyn MetadataStore> = Arc::new(MemoryStore::new());
        let metadata = cluster(Arc::clone(&store)).await;
        let id = create_alone(&metadata, "t", 1).await.unwrap();
        let old = acl("User:a", "t");
        metadata.create_acls(std::slice::from_ref(&old)).await.unwrap();
        // Another broker's deletions, of which the image here does not show anything yet.
        let (_, topic) = controller::delete_topics(&metadata.image(), &[id]);
        store.transact(topic.transaction).await.unwrap();
        let grown = GrowTopic { name: "t".into(), count: 2, assignments: None };
        assert_eq!(metadata.create_partitions(&[grown], false, None).await.unwrap(), [Err(GrowError::UnknownTopic)]);
        assert!(store.range("topics/").await.unwrap().entries.is_empty());

        let (_, rule) = controller::remove_acls(&metadata.image(), std::slice::from_ref(&old));
        store.transact(rule.transaction).await.unwrap();
        // It would stand in the same record.
        let new = Acl { host: "::1".into(), ..old };
        metadata.create_acls(std::slice::from_ref(&new)).await.unwrap();
        assert_eq!(metadata.image().acls().find(&AclFilter::default()), [new]);
    }
}
