//! Taking part in a cluster: a registration, a lease that is kept alive, and the controller's office for whoever holds it.
//!
//! ```text
//! join ─► brokers/<id> fenced, live/<id> under a lease ─► the controller lets us in ─► renewed every third of its time
//!  └─ with another disk than before: first its logs are told to be gone (`controller/emptied.rs`)
//!                                                                │
//!     the lease ended while etcd was away, or others  ◄──────────┘  a new lease, the same life: nothing was lost
//!     took us for dead (`alive.rs`)
//! ```
//! Whoever finds the office of the controller empty takes it (`office.rs`).

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{Instant, timeout, timeout_at},
};
use uuid::Uuid;

use super::{
    ClusterMetadata, MetadataError, SETTLE_TIMEOUT,
    alive::{Life, stay_alive},
    office::hold_office,
};
use crate::{
    controller::FoundLogs,
    image::{
        BrokerImage, ClusterImage,
        record::{self, Key, LifeRecord},
    },
    model::BrokerId,
    store::{LeaseId, StoreError, Transaction, transact_settled},
};

/// Pause before something that failed is tried again.
pub(super) const RETRY: Duration = Duration::from_millis(200);

/// How a broker enters.
#[derive(Clone, Debug)]
pub struct Joining {
    /// What others are to know of it.
    pub broker: BrokerImage,
    /// How long it counts as alive without a sign of life (`broker.session.timeout.ms`).
    pub lease: Duration,
    /// Records may have been lost since its last life: its machine went down without forcing them to disk.
    pub may_have_lost_records: bool,
    /// The logs with which it begins.
    pub found: Arc<FoundLogs>,
}

/// This broker's part in the cluster, until it is dropped or [leaves](Member::leave).
pub struct Member {
    metadata: Arc<ClusterMetadata>,
    lease: watch::Receiver<LeaseId>,
    is_replaced: watch::Receiver<bool>,
    is_ending: Arc<AtomicBool>,
    part: Task,
}

/// A task that ends with whoever holds this.
struct Task(JoinHandle<()>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Member {
    /// Registers, and stays alive from then on. Waits for the lease of an earlier life of the same broker to end.
    ///
    /// # Errors
    /// [`MetadataError::Store`]: it is not known to be registered.
    pub async fn join(metadata: Arc<ClusterMetadata>, joining: Joining) -> Result<Member, MetadataError> {
        let (id, incarnation) = (joining.broker.id, joining.broker.incarnation);
        let lease = loop {
            metadata.wait_until_nobody_lives_as(id).await;
            let mut images = metadata.subscribe();
            match metadata.enter(&joining).await {
                Ok(lease) => break lease,
                // An earlier life was quicker to renew, or a double is; or the controller has just fenced the earlier one.
                Err(MetadataError::Store(StoreError::Conflict)) => {
                    let _ = timeout(RETRY, images.changed()).await;
                }
                Err(error) => return Err(error),
            }
        };
        let (leases, lease) = watch::channel(lease);
        let (replaced, is_replaced) = watch::channel(false);
        let is_ending = Arc::new(AtomicBool::new(false));
        let life = Life { id, incarnation, ttl: joining.lease, is_ending: is_ending.clone() };
        let alive = stay_alive(metadata.clone(), life, leases);
        let office = Task(tokio::spawn(hold_office(metadata.clone(), id, lease.clone())));
        let follower = metadata.clone();
        let part = Task(tokio::spawn(async move {
            tokio::select! {
                () = alive => {}
                () = follower.watch_for_others_notice() => {}
            }
            // The office is for the one that others know.
            drop(office);
            replaced.send_replace(true);
        }));
        Ok(Member { metadata, lease, is_replaced, is_ending, part })
    }

    /// Becomes true when another process has registered as this broker: this one is nobody any more, and should end.
    pub fn is_replaced(&self) -> watch::Receiver<bool> {
        self.is_replaced.clone()
    }

    /// Waits until the controller has let this broker in: from then on it may lead and be in sync.
    pub async fn admitted(&self, id: BrokerId, incarnation: Uuid) {
        let mut images = self.metadata.subscribe();
        let is_in = |broker: &BrokerImage| broker.incarnation == incarnation && !broker.fenced;
        // The sender lives as long as the metadata.
        let _ = images.wait_for(|image| image.brokers().get(&id).is_some_and(is_in)).await;
    }

    /// Hands leadership over and leaves every ISR, while this broker still serves; returns how many partitions it leads
    /// none the less, because nobody else can, or because `limit` has passed. To be followed by [`leave`](Self::leave).
    ///
    /// # Errors
    /// [`MetadataError::Store`]: others do not know that it is about to stop.
    pub async fn drain(&self, id: BrokerId, incarnation: Uuid, limit: Duration) -> Result<usize, MetadataError> {
        let deadline = Instant::now() + limit;
        let life = record::encode(LifeRecord::of(incarnation));
        let leaving = Transaction::default().put_leased(Key::Leaving(id).text(), life, *self.lease.borrow());
        transact_settled(self.metadata.store.as_ref(), leaving, deadline).await?;
        let mut images = self.metadata.subscribe();
        let has_handed_over =
            images.wait_for(|image| image.membership().leaving(id).is_some() && !can_hand_over(image, id));
        // Either way the newest image tells what is left.
        let _ = timeout_at(deadline, has_handed_over).await;
        Ok(led_by(&self.metadata.image(), id))
    }

    /// Leads only where nobody else can, and is in no ISR that has others, while `is_aside`; as before after that. `false`: it
    /// was so already, as the image shows it. To be said again and again: a new lease does not keep it.
    ///
    /// # Errors
    /// [`MetadataError::Store`]: others do not know of it.
    pub async fn step_aside(&self, id: BrokerId, incarnation: Uuid, is_aside: bool) -> Result<bool, MetadataError> {
        if (self.metadata.image().membership().leaving(id) == Some(incarnation)) == is_aside {
            return Ok(false);
        }
        let (key, life) = (Key::Leaving(id).text(), record::encode(LifeRecord::of(incarnation)));
        let said = match is_aside {
            true => Transaction::default().put_leased(key, life, *self.lease.borrow()),
            false => Transaction::default().delete(key),
        };
        let revision = transact_settled(self.metadata.store.as_ref(), said, Instant::now() + SETTLE_TIMEOUT).await?;
        self.metadata.follow_to(revision).await?;
        Ok(true)
    }

    /// From now on it is all the same whether others take this broker for dead: it is about to refuse connections, and does not
    /// come back when they do. To be followed by [`leave`](Self::leave).
    pub fn ends(&self) {
        self.is_ending.store(true, Ordering::Relaxed);
    }

    /// Gives the lease back: others learn at once that this broker is gone.
    pub async fn leave(self) {
        drop(self.part);
        let lease = *self.lease.borrow();
        if let Err(error) = self.metadata.store.revoke(lease).await {
            tracing::warn!(%error, "the lease was not given back, it ends by itself");
        }
    }
}

/// Whether it leads a partition that another broker could lead.
fn can_hand_over(image: &ClusterImage, id: BrokerId) -> bool {
    let partitions = image.topics().values().flat_map(|topic| &topic.partitions);
    let mut led = partitions.filter(|partition| partition.leader == Some(id));
    led.any(|partition| partition.isr.iter().any(|member| *member != id && image.in_service(*member).is_some()))
}

fn led_by(image: &ClusterImage, id: BrokerId) -> usize {
    let partitions = image.topics().values().flat_map(|topic| &topic.partitions);
    partitions.filter(|partition| partition.leader == Some(id)).count()
}

impl ClusterMetadata {
    pub(super) async fn wait_until_nobody_lives_as(&self, id: BrokerId) {
        let mut images = self.subscribe();
        if images.borrow().membership().live(id).is_some() {
            tracing::info!(broker = %id, "waiting for the lease of an earlier life of this broker to end");
        }
        let _ = images.wait_for(|image| image.membership().live(id).is_none()).await;
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::{
        cluster::{IsrProposal, ProposalOutcome},
        controller::{CreationDefaults, NewTopic, Placement, in_sync::with_proposed_isr},
        image::{Elections, PartitionImage},
        model::{PartitionId, PartitionIndex},
        store::{MemoryStore, MetadataStore, TransactionLimits},
    };

    pub(in crate::cluster) const LEASE: Duration = Duration::from_secs(3);

    fn broker(id: u32) -> BrokerImage {
        BrokerImage {
            id: BrokerId(id),
            incarnation: Uuid::new_v4(),
            endpoints: BTreeMap::new(),
            rack: None,
            fenced: false,
            ..BrokerImage::default()
        }
    }

    pub(in crate::cluster) async fn join(
        store: &Arc<dyn MetadataStore>,
        id: u32,
        lost: bool,
    ) -> (Arc<ClusterMetadata>, Member, Uuid) {
        join_with(store, id, lost, FoundLogs::default()).await
    }

    pub(in crate::cluster) async fn join_with(
        store: &Arc<dyn MetadataStore>,
        id: u32,
        lost: bool,
        found: FoundLogs,
    ) -> (Arc<ClusterMetadata>, Member, Uuid) {
        let metadata = ClusterMetadata::start(store.clone(), BrokerId(id), BTreeMap::new()).await.unwrap();
        let broker = broker(id);
        let life = broker.incarnation;
        let joining = Joining { broker, lease: LEASE, may_have_lost_records: lost, found: Arc::new(found) };
        let member = Member::join(metadata.clone(), joining).await.unwrap();
        member.admitted(BrokerId(id), life).await;
        (metadata, member, life)
    }

    pub(in crate::cluster) async fn create(metadata: &ClusterMetadata, name: &str, partitions: u32) {
        let placement = Ok(Placement::Spread { partitions: Some(partitions), replication_factor: Some(3) });
        let overrides = BTreeMap::from([("min.insync.replicas".to_owned(), Some("2".to_owned()))]);
        let topic = NewTopic { name: name.to_owned(), placement, overrides };
        let defaults = CreationDefaults { partitions: 1, replication_factor: 1 };
        metadata.create_topics(&[topic], defaults, false, None).await.unwrap().remove(0).unwrap();
    }

    pub(in crate::cluster) fn etcd_like() -> Arc<dyn MetadataStore> {
        Arc::new(MemoryStore::with_limits(TransactionLimits { operations: 128, bytes: 1 << 20 }))
    }

    pub(in crate::cluster) fn lease_of(member: &Member) -> LeaseId {
        *member.lease.borrow()
    }

    pub(in crate::cluster) async fn eventually(
        metadata: &ClusterMetadata,
        is_so: impl Fn(&crate::image::ClusterImage) -> bool,
    ) {
        let mut images = metadata.subscribe();
        let seen = timeout(Duration::from_secs(60), images.wait_for(|image| is_so(image))).await;
        assert!(seen.is_ok(), "{:?}", metadata.image().topics().values().next());
    }

    #[tokio::test(start_paused = true)]
    async fn leaders_of_a_broker_that_goes_are_followed_by_others_in_batches() {
        let store = etcd_like();
        let (_one, member, _) = join(&store, 1, false).await;
        let (two, _member_two, _) = join(&store, 2, false).await;
        let (_three, _member_three, _) = join(&store, 3, false).await;
        create(&two, "wide", 3000).await;
        let before = store.range("").await.unwrap().revision;
        let begun = Instant::now();
        // The process dies: nobody gives the lease back.
        drop(member);
        eventually(&two, |image| {
            let topic = image.topic("wide").unwrap();
            let gone = BrokerId(1);
            topic
                .partitions
                .iter()
                .all(|one| one.leader.is_some_and(|leader| leader != gone) && !one.isr.contains(&gone))
        })
        .await;
        assert!(begun.elapsed() < LEASE + Duration::from_secs(1), "{:?}", begun.elapsed());
        let written = store.range("").await.unwrap().revision.0 - before.0;
        assert!(written < 60, "{written} transactions for 3000 partitions");
        let led: Vec<u32> =
            two.image().topic("wide").unwrap().partitions.iter().map(|one| one.leader_epoch.0).collect();
        assert_eq!(
            led.iter().filter(|epoch| **epoch == 1).count(),
            1000,
            "only its own partitions changed their leader"
        );
        let Elections { clean, unclean } = two.image().elections();
        assert_eq!((clean, unclean), (1000, 0), "each is seen once");
    }

    #[tokio::test(start_paused = true)]
    async fn a_broker_that_leaves_is_missed_at_once_and_comes_back_as_a_follower() {
        let store = etcd_like();
        let (one, _member_one, _) = join(&store, 1, false).await;
        let (_two, member_two, _) = join(&store, 2, false).await;
        let (_three, _member_three, _) = join(&store, 3, false).await;
        create(&one, "t", 6).await;
        let begun = Instant::now();
        member_two.leave().await;
        let without_two = |image: &crate::image::ClusterImage| {
            image
                .topic("t")
                .unwrap()
                .partitions
                .iter()
                .all(|one| !one.isr.contains(&BrokerId(2)) && one.leader.is_some())
        };
        eventually(&one, without_two).await;
        assert!(begun.elapsed() < Duration::from_millis(500), "{:?}", begun.elapsed());
        let (_two, _member, life) = join(&store, 2, true).await;
        let image = one.image();
        assert!(without_two(&image) && !image.membership().is_distrusted(BrokerId(2)), "let in, and not in sync yet");

        // A leader lets it join, in this life and no other.
        let id = PartitionId { topic: image.topic("t").unwrap().id, index: PartitionIndex(0) };
        let now = image.partition(id).unwrap();
        let isr: Vec<BrokerId> = now.isr.iter().copied().chain([BrokerId(2)]).collect();
        let next = with_proposed_isr(now, &isr, 2);
        let proposal = |joins| IsrProposal { partition: id, base: now.partition_epoch, next: next.clone(), joins };
        let other_life = proposal(Some((BrokerId(2), Uuid::new_v4())));
        assert_eq!(one.propose_isr(&other_life).await, ProposalOutcome::Refused);
        let ours = proposal(Some((BrokerId(2), life)));
        assert_eq!(one.propose_isr(&ours).await, ProposalOutcome::Taken);
        eventually(&one, |image| image.partition(id).unwrap().isr.len() == 3).await;
        assert_eq!(one.propose_isr(&ours).await, ProposalOutcome::Overtaken(Some(Box::new(next.clone()))));
        // So learns whoever lost the answer, and has nobody to propose any more.
        assert_eq!(one.read_fate(id, now.partition_epoch).await, ProposalOutcome::Overtaken(Some(Box::new(next))));
    }

    #[tokio::test(start_paused = true)]
    async fn who_may_have_lost_records_leads_only_if_nobody_else_may_have_them() {
        let store = etcd_like();
        let (one, _member_one, _) = join(&store, 1, false).await;
        let (_two, member_two, _) = join(&store, 2, false).await;
        let (_three, member_three, _) = join(&store, 3, false).await;
        let placement =
            Ok(Placement::Manual(vec![crate::controller::ManualPartition { index: 0, replicas: vec![2, 3] }]));
        let overrides = BTreeMap::from([("min.insync.replicas".to_owned(), Some("2".to_owned()))]);
        let topic = NewTopic { name: "t".to_owned(), placement, overrides };
        let defaults = CreationDefaults { partitions: 1, replication_factor: 1 };
        one.create_topics(&[topic], defaults, false, None).await.unwrap().remove(0).unwrap();
        let partition = |image: &crate::image::ClusterImage| image.topic("t").unwrap().partitions[0].clone();
        member_three.leave().await;
        eventually(&one, |image| partition(image).isr == [BrokerId(2)]).await;
        member_two.leave().await;
        eventually(&one, |image| partition(image).isr.is_empty()).await;
        assert_eq!(partition(&one.image()).elr, [BrokerId(2), BrokerId(3)]);
        let (_two, _member_two, _) = join(&store, 2, true).await;
        assert_eq!((partition(&one.image()).leader, partition(&one.image()).elr), (None, vec![BrokerId(3)]));
        let (_three, _member_three, _) = join(&store, 3, false).await;
        eventually(&one, |image| partition(image).leader == Some(BrokerId(3))).await;
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_about_to_stop_hands_over_first_and_keeps_what_nobody_else_can_lead() {
        let store = etcd_like();
        let (one, member_one, life) = join(&store, 1, false).await;
        let (two, _member_two, _) = join(&store, 2, false).await;
        let (_three, _member_three, _) = join(&store, 3, false).await;
        create(&one, "t", 30).await;
        let alone = Ok(Placement::Manual(vec![crate::controller::ManualPartition { index: 0, replicas: vec![1] }]));
        let alone = NewTopic { name: "alone".to_owned(), placement: alone, overrides: BTreeMap::new() };
        let defaults = CreationDefaults { partitions: 1, replication_factor: 1 };
        one.create_topics(&[alone], defaults, false, None).await.unwrap().remove(0).unwrap();
        let left = member_one.drain(BrokerId(1), life, Duration::from_secs(5)).await.unwrap();
        let image = one.image();
        assert_eq!((left, image.topic("alone").unwrap().partitions[0].leader), (1, Some(BrokerId(1))));
        let handed_over = |one: &PartitionImage| one.leader.is_some() && !one.isr.contains(&BrokerId(1));
        assert!(image.topic("t").unwrap().partitions.iter().all(handed_over));
        assert!(image.is_active(BrokerId(1)), "it serves to its end");
        member_one.leave().await;
        eventually(&two, |image| image.topic("alone").unwrap().partitions[0].leader.is_none()).await;
        let (_one, _member, _) = join(&store, 1, false).await;
        eventually(&two, |image| image.topic("alone").unwrap().partitions[0].leader == Some(BrokerId(1))).await;
    }

    #[tokio::test(start_paused = true)]
    async fn who_steps_aside_is_followed_by_others_and_may_be_in_sync_again_after_that() {
        let store = etcd_like();
        let (one, member_one, life) = join(&store, 1, false).await;
        let (two, _member_two, _) = join(&store, 2, false).await;
        let (_three, _member_three, _) = join(&store, 3, false).await;
        create(&one, "t", 30).await;
        assert!(member_one.step_aside(BrokerId(1), life, true).await.unwrap());
        assert!(!member_one.step_aside(BrokerId(1), life, true).await.unwrap(), "it did");
        let without_one = |one: &PartitionImage| one.leader.is_some() && !one.isr.contains(&BrokerId(1));
        eventually(&two, |image| image.topic("t").unwrap().partitions.iter().all(without_one)).await;
        assert_eq!(two.image().in_service(BrokerId(1)), None);
        assert!(member_one.step_aside(BrokerId(1), life, false).await.unwrap());
        eventually(&two, |image| image.in_service(BrokerId(1)) == Some(life)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_reassignment_ends_when_the_new_replica_is_in_sync_and_the_leader_moves_with_it() {
        let store = etcd_like();
        let (one, _member_one, _) = join(&store, 1, false).await;
        let (_two, _member_two, _) = join(&store, 2, false).await;
        let (_three, _member_three, life) = join(&store, 3, false).await;
        let placement =
            Ok(Placement::Manual(vec![crate::controller::ManualPartition { index: 0, replicas: vec![1, 2] }]));
        let topic = NewTopic { name: "t".to_owned(), placement, overrides: BTreeMap::new() };
        let defaults = CreationDefaults { partitions: 1, replication_factor: 1 };
        one.create_topics(&[topic], defaults, false, None).await.unwrap().remove(0).unwrap();
        let asked = crate::controller::Reassignment { topic: "t".to_owned(), index: 0, replicas: Some(vec![2, 3]) };
        assert_eq!(one.reassign_partitions(&[asked], true, None).await.unwrap(), [Ok(())]);
        let image = one.image();
        let now = &image.topic("t").unwrap().partitions[0];
        assert_eq!((now.leader, now.adding.as_slice()), (Some(BrokerId(1)), [BrokerId(3)].as_slice()));
        let id = PartitionId { topic: image.topic("t").unwrap().id, index: PartitionIndex(0) };
        let isr = [1, 2, 3].map(BrokerId);
        let next = with_proposed_isr(now, &isr, 1);
        let joins = Some((BrokerId(3), life));
        let proposal = IsrProposal { partition: id, base: now.partition_epoch, next, joins };
        assert_eq!(one.propose_isr(&proposal).await, ProposalOutcome::Taken);
        let is_moved = |image: &crate::image::ClusterImage| {
            let moved = &image.topic("t").unwrap().partitions[0];
            moved.replicas == [2, 3].map(BrokerId) && moved.leader == Some(BrokerId(2)) && moved.adding.is_empty()
        };
        eventually(&one, is_moved).await;
    }

    /// Its lease ended while it did not look, and a double was let in: it learns that, and leaves the office alone.
    #[tokio::test(start_paused = true)]
    async fn who_is_replaced_by_a_double_is_told_and_holds_no_office_any_more() {
        let store = etcd_like();
        let (one, member_one, life) = join(&store, 1, false).await;
        let lease = *member_one.lease.borrow();
        assert_eq!(one.image().membership().controller(), Some(BrokerId(1)));
        let mut is_replaced = member_one.is_replaced();
        store.revoke(lease).await.unwrap();
        let (_double, member, other) = join(&store, 1, false).await;
        timeout(LEASE, is_replaced.wait_for(|is_so| *is_so)).await.unwrap().unwrap();
        eventually(&one, |image| image.membership().controller() == Some(BrokerId(1))).await;
        assert_eq!(one.image().membership().live(BrokerId(1)), Some(other));
        assert_ne!(other, life);
        // Nobody is left to take it when the double goes.
        drop(member);
        eventually(&one, |image| image.membership().controller().is_none()).await;
        assert!(
            timeout(LEASE, one.subscribe().wait_for(|image| image.membership().controller().is_some())).await.is_err()
        );
    }

    #[tokio::test(start_paused = true)]
    async fn the_office_passes_on_and_a_double_has_to_wait() {
        let store = etcd_like();
        let (_one, member_one, _) = join(&store, 1, false).await;
        let (two, _member_two, _) = join(&store, 2, false).await;
        assert_eq!(two.image().membership().controller(), Some(BrokerId(1)));
        let double = join(&store, 1, false);
        let double = timeout(Duration::from_secs(30), double).await;
        assert!(double.is_err(), "the first one lives");
        drop(member_one);
        eventually(&two, |image| image.membership().controller() == Some(BrokerId(2))).await;
        join(&store, 1, false).await;
    }
}
