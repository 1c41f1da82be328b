//! A cluster state that was restored from a backup into another store: before anybody joins, it is told from one that went on.
//!
//! ```text
//! store/members = this etcd ─► nothing to do, unless more was seen of it than it holds (seen.rs)
//!               = another   ─► every partition in recovery (controller/recovery.rs), in parts ─► producer ids skipped, members = this etcd
//!                              and every broker that is registered awaited ─► each looks for logs that the backup does not know of, tells of
//!                              them, and is awaited no more
//! ```
//! Etcd's name for its members is another one after they were made anew, while the key in the backup has the one of before. Several
//! brokers may do this at the same time, or one after another's end: each part is done once, and none after the last.

use std::{collections::BTreeSet, time::Duration};

use tokio::time::{Instant, sleep, timeout};
use uuid::Uuid;

use super::{ClusterMetadata, MetadataError, SETTLE_TIMEOUT, Seen, Told, member::RETRY, seen::clock_ms};
use crate::{
    controller::{self, FoundLogs, RecoveryLogs, RecoveryStart, recovery::Extent},
    image::{
        ImageError,
        record::{self, Key, ProducerIdsRecord, PutBackRecord, StoreRecord},
    },
    model::{BrokerId, PartitionId},
    snapshot::PRODUCER_IDS_SKIPPED,
    store::{Expect, StoreError, Transaction, Versioned, transact_settled},
};

/// How long brokers are waited for that live by a restored state: a restored lease ends by itself.
const LEASES_END: Duration = Duration::from_secs(120);

/// Before what was told of stray logs is looked at again.
const AGAIN: Duration = Duration::from_millis(20);

impl ClusterMetadata {
    /// Finds out whether the state was restored since it was last in use, by its name for the store and by what this broker has `seen` of
    /// that in the life before, and has nobody lead on the word of a backup. To be done before a broker [joins](super::Member::join).
    ///
    /// # Errors
    /// [`MetadataError`]: part of it may be done; nobody may join before all is.
    pub async fn recover_if_restored(&self, seen: Option<&Seen>) -> Result<(), MetadataError> {
        let Some(members) = self.store.identity() else { return Ok(()) };
        let (mut is_told, given_up) = (false, Instant::now() + LEASES_END);
        loop {
            let (found, put_back) = self.found().await?;
            let before = match &found {
                Some(found) => Some(read::<StoreRecord>(&Key::Store, found)?.members),
                None => None,
            };
            if let (true, Some(found)) = (before.as_ref() == Some(&members), &found) {
                if let Some(seen) = seen
                    && self.tell_put_back(seen, put_back, found).await?
                {
                    continue;
                }
                // What somebody else has done is in the image, for whoever goes by that.
                self.follow_to(found.modified).await?;
                self.live_by(put_back);
                return Ok(());
            }
            // Another name each time that it was put back under the one that it had: an earlier time may have left partitions in recovery.
            let name = match &before {
                Some(before) if before.is_empty() => format!("{members}.{}", put_back.ms),
                _ => members.clone(),
            };
            if let (Some(before), Some(found)) = (&before, &found) {
                let mut images = self.subscribe();
                if !images.borrow_and_update().membership().live.is_empty() {
                    if Instant::now() >= given_up {
                        return Err(self.lived_in());
                    }
                    // It may be a restored lease, or somebody who has done all of this meanwhile, and joined.
                    let _ = timeout(RETRY, images.changed()).await;
                    continue;
                }
                // What others have done is in the image before we look for what is left.
                self.caught_up().await?;
                let image = self.image();
                let RecoveryStart { decisions, partitions } =
                    controller::recovery_starts(&image, &name, found.modified);
                if !std::mem::replace(&mut is_told, true) {
                    tracing::warn!(
                        %before, now = %members, partitions,
                        "the metadata store was restored from a backup, or moved: nobody leads a partition before all its replicas have \
                         told what they have (docs/operations/lose-etcd.md)"
                    );
                }
                if self.take_all(decisions).await? {
                    continue;
                }
            }
            let named = match &found {
                Some(found) => self.name_restored(&members, found).await,
                None => self.name_new(&members, put_back.or_later(seen.map_or(0, |seen| seen.put_back_ms))).await,
            };
            match named {
                // The next look is the last.
                Ok(()) => {}
                Err(MetadataError::Store(StoreError::Conflict)) => sleep(RETRY).await,
                Err(error) => return Err(error),
            }
        }
    }

    /// Somebody lives by a restored state who has not noticed, and leads on: a version that does not look.
    fn lived_in(&self) -> MetadataError {
        let live: Vec<String> = self.image().membership().live.keys().map(ToString::to_string).collect();
        let why = format!(
            "the metadata store was restored, or moved, and brokers {} go on as if it were the one of before: stop all brokers, then \
             start them (docs/operations/lose-etcd.md)",
            live.join(", ")
        );
        StoreError::Unavailable(why.into()).into()
    }

    /// From now on this is the store in which the state is, which was `found` under another name: producer ids go on where nobody has
    /// been, and everybody is to look for logs.
    async fn name_restored(&self, members: &str, found: &Versioned) -> Result<(), MetadataError> {
        let awaited = self.image().brokers().keys().copied().collect();
        let (key, ids_key) = (Key::Store.text(), Key::ProducerIds);
        let ids = self.store.get(&ids_key.text()).await?;
        let next = match &ids {
            Some(ids) => read::<ProducerIdsRecord>(&ids_key, ids)?.next,
            None => 0,
        };
        // By the clock as well: a backup can be restored more than once, and nobody gives out an id each millisecond.
        let skipped = ProducerIdsRecord { next: clock_ms().max(next + PRODUCER_IDS_SKIPPED) };
        let store = StoreRecord { members: members.to_owned(), awaited };
        let naming = Transaction::default()
            .put(key.clone(), record::encode(store))
            .expecting(key, Expect::At(found.modified))
            .put(ids_key.text(), record::encode(skipped))
            .expecting(ids_key.text(), ids.as_ref().map_or(Expect::Absent, |ids| Expect::At(ids.modified)));
        self.carry_out(naming).await
    }

    /// Of a state that says nothing: it is new, or made of the bucket's copy, or no version with the key has written it. It is taken at
    /// its word, also by those who saw more of the store before.
    async fn name_new(&self, members: &str, put_back: PutBackRecord) -> Result<(), MetadataError> {
        let (key, put_back_key) = (Key::Store.text(), Key::PutBack.text());
        let store = StoreRecord { members: members.to_owned(), awaited: BTreeSet::new() };
        let naming = Transaction::default()
            .put(key.clone(), record::encode(store))
            .expecting(key, Expect::Absent)
            .put(put_back_key, record::encode(put_back.next(clock_ms())));
        self.carry_out(naming).await
    }

    async fn carry_out(&self, change: Transaction) -> Result<(), MetadataError> {
        let done = transact_settled(self.store.as_ref(), change, Instant::now() + SETTLE_TIMEOUT).await?;
        Ok(self.follow_to(done).await?)
    }

    /// Has others know, before `id` opens a log or sets one aside, which of those that were `found` are of partitions in recovery of which
    /// it is no replica by the restored state: it becomes one. From then on nobody waits for it to look.
    ///
    /// # Errors
    /// [`MetadataError`]: some of it may be told.
    pub async fn tell_strays(&self, id: BrokerId, found: &FoundLogs) -> Result<(), MetadataError> {
        // What is overtaken is decided on anew.
        while self.take_all(controller::strays(&self.image(), id, found)).await? {
            sleep(AGAIN).await;
        }
        if found.some_failed {
            if self.image().awaited().any(|awaited| awaited == id) {
                tracing::warn!(
                    "a log directory cannot be read, and may have logs that the restored metadata store does not know of: nobody \
                     leads before it can, or is taken out of log.dirs (docs/operations/lose-etcd.md)"
                );
            }
            return Ok(());
        }
        self.has_looked(id).await
    }

    async fn has_looked(&self, id: BrokerId) -> Result<(), MetadataError> {
        let key = Key::Store;
        while let (Some(found), put_back) = self.found().await? {
            // It has looked for what the state of before lacks.
            self.check_lives_by(put_back)?;
            let mut store: StoreRecord = read(&key, &found)?;
            if !store.awaited.remove(&id) {
                break;
            }
            let told = Transaction::default().put(key.text(), record::encode(store));
            let told = told.expecting(key.text(), Expect::At(found.modified));
            match transact_settled(self.store.as_ref(), told, Instant::now() + SETTLE_TIMEOUT).await {
                Ok(revision) => return Ok(self.follow_to(revision).await?),
                // Others look as well.
                Err(StoreError::Conflict) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Tells what the logs of `node` hold, in this `life` of it, of partitions whose replicas are asked.
    ///
    /// # Errors
    /// [`MetadataError::Store`]: some of it may be told.
    pub async fn tell_logs(
        &self,
        us: (BrokerId, Uuid),
        extent: &(dyn Fn(PartitionId) -> Extent + Sync),
    ) -> Result<Told, MetadataError> {
        let RecoveryLogs { decisions, is_settled } = controller::recovery_logs(&self.image(), us, extent);
        Ok(Told::of(self.take_all(decisions).await?, is_settled))
    }
}

pub(super) fn read<T: serde::de::DeserializeOwned>(key: &Key, found: &Versioned) -> Result<T, MetadataError> {
    let decoded = record::decode(&found.value).map_err(|error| ImageError::Record { key: key.text(), error });
    Ok(decoded?)
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, sync::Arc};

    use super::*;
    use crate::{
        cluster::{
            Joining, Member,
            member::tests::{LEASE, create, eventually},
        },
        controller::{CreationDefaults, Election, ManualPartition, NewTopic, Placement},
        image::{BrokerImage, ClusterImage, LogExtent, PartitionImage},
        model::{LeaderEpoch, Offset, PartitionIndex},
        store::{MemoryStore, MetadataStore, Snapshot, TransactionLimits},
    };

    const PARTITIONS: u32 = 250;

    fn store() -> Arc<MemoryStore> {
        let store = MemoryStore::with_limits(TransactionLimits { operations: 128, bytes: 1 << 20 });
        store.rename("before");
        Arc::new(store)
    }

    async fn start(store: &Arc<MemoryStore>, id: u32) -> Arc<ClusterMetadata> {
        ClusterMetadata::start(store.clone(), BrokerId(id), BTreeMap::new()).await.unwrap()
    }

    async fn join(store: &Arc<MemoryStore>, id: u32) -> (Arc<ClusterMetadata>, Member, Uuid) {
        join_with(store, id, &FoundLogs::default()).await
    }

    async fn join_with(store: &Arc<MemoryStore>, id: u32, found: &FoundLogs) -> (Arc<ClusterMetadata>, Member, Uuid) {
        let metadata = start(store, id).await;
        metadata.recover_if_restored(None).await.unwrap();
        metadata.tell_strays(BrokerId(id), found).await.unwrap();
        let life = Uuid::new_v4();
        let broker = BrokerImage { id: BrokerId(id), incarnation: life, ..BrokerImage::default() };
        let joining = Joining { broker, lease: LEASE, may_have_lost_records: false, found: Arc::default() };
        let member = Member::join(metadata.clone(), joining).await.unwrap();
        member.admitted(BrokerId(id), life).await;
        (metadata, member, life)
    }

    /// What a backup has of it; leases end by themselves.
    async fn backup(store: &MemoryStore) -> Snapshot {
        let mut backup = store.range("").await.unwrap();
        backup.entries.retain(|(key, _)| !["live/", "controller"].iter().any(|prefix| key.starts_with(prefix)));
        backup
    }

    fn partitions(image: &ClusterImage) -> &[PartitionImage] {
        &image.topic("t").unwrap().partitions
    }

    fn extent(epoch: u32, end: u64) -> Extent {
        Extent::Log(LogExtent { epoch: Some(LeaderEpoch(epoch)), end: Offset::new(end).unwrap() })
    }

    async fn tell(metadata: &ClusterMetadata, us: (BrokerId, Uuid), extent: Extent) {
        while metadata.tell_logs(us, &move |_| extent).await.unwrap() == Told::Something {}
    }

    #[tokio::test(start_paused = true)]
    async fn after_a_restoration_nobody_leads_before_all_have_told_and_then_whoever_has_most() {
        let store = store();
        let (one, member_one, _) = join(&store, 1).await;
        let (_two, member_two, _) = join(&store, 2).await;
        let (_three, member_three, _) = join(&store, 3).await;
        create(&one, "t", PARTITIONS).await;
        let ids = one.next_producer_id_block().await.unwrap().first;
        let backup = backup(&store).await;
        for member in [member_one, member_two, member_three] {
            member.leave().await;
        }
        store.rename("after");
        store.restore(backup);

        // One that ends in the middle of it.
        let half = start(&store, 1).await;
        let written = half.store.get(&Key::Store.text()).await.unwrap().unwrap().modified;
        let mut starts = controller::recovery_starts(&half.image(), "after", written);
        assert_eq!((starts.partitions, starts.decisions.len()), (PARTITIONS as usize, 3));
        starts.decisions.truncate(1);
        half.take_all(starts.decisions).await.unwrap();

        let (one, _member_one, life_one) = join(&store, 1).await;
        let (two, _member_two, life_two) = join(&store, 2).await;
        let (three, _member_three, life_three) = join(&store, 3).await;
        let begun = one.image();
        assert!(partitions(&begun).iter().all(|now| now.leader.is_none() && now.isr.is_empty()));
        assert!(partitions(&begun).iter().all(|now| now.recovery.as_ref().unwrap().trusted.len() == 3));
        let epochs: Vec<u32> = partitions(&begun).iter().map(|now| now.leader_epoch.0).collect();
        assert!(epochs.iter().all(|epoch| *epoch == 1000), "each once: {epochs:?}");
        let next = one.next_producer_id_block().await.unwrap().first;
        assert!(next.to_wire() >= ids.to_wire() + PRODUCER_IDS_SKIPPED as i64);

        tell(&one, (BrokerId(1), life_one), extent(0, 900)).await;
        tell(&two, (BrokerId(2), life_two), extent(3, 700)).await;
        assert!(partitions(&one.image()).iter().all(|now| now.leader.is_none()));
        tell(&three, (BrokerId(3), life_three), extent(3, 650)).await;
        let by_two = |now: &PartitionImage| now.leader == Some(BrokerId(2)) && now.leader_epoch == LeaderEpoch(1003);
        eventually(&one, |image| partitions(image).iter().all(by_two)).await;
        assert_eq!(one.tell_logs((BrokerId(1), life_one), &|_| Extent::Unknown).await.unwrap(), Told::Settled);

        // The next start finds that all is done.
        let again = start(&store, 3).await;
        let before = again.image().revision();
        again.recover_if_restored(None).await.unwrap();
        assert_eq!(again.image().revision(), before);
    }

    /// A cluster of brokers 1 to 3, of which the first two hold a partition, restored under another name while nobody runs.
    async fn restored_with_two_replicas() -> (Arc<MemoryStore>, PartitionId) {
        let store = store();
        let (one, member_one, _) = join(&store, 1).await;
        let (_two, member_two, _) = join(&store, 2).await;
        let (_three, member_three, _) = join(&store, 3).await;
        let placement = Ok(Placement::Manual(vec![ManualPartition { index: 0, replicas: vec![1, 2] }]));
        let topic = NewTopic { name: "t".to_owned(), placement, overrides: BTreeMap::new() };
        let defaults = CreationDefaults { partitions: 1, replication_factor: 1 };
        one.create_topics(&[topic], defaults, false, None).await.unwrap().remove(0).unwrap();
        let id = PartitionId { topic: one.image().topic("t").unwrap().id, index: PartitionIndex(0) };
        let backup = backup(&store).await;
        for member in [member_one, member_two, member_three] {
            member.leave().await;
        }
        store.rename("after");
        store.restore(backup);
        (store, id)
    }

    fn with_log_of(id: PartitionId) -> FoundLogs {
        FoundLogs { logs: [(id, vec!["dir".to_owned()])].into(), ..FoundLogs::default() }
    }

    #[tokio::test(start_paused = true)]
    async fn replicas_that_were_added_since_the_backup_are_waited_for_and_asked() {
        let (store, id) = restored_with_two_replicas().await;
        let (one, _member_one, life_one) = join(&store, 1).await;
        let (two, _member_two, life_two) = join(&store, 2).await;
        tell(&one, (BrokerId(1), life_one), extent(3, 700)).await;
        tell(&two, (BrokerId(2), life_two), extent(3, 700)).await;
        tokio::time::sleep(10 * LEASE).await;
        assert_eq!(partitions(&one.image())[0].leader, None, "the third one may have more");

        // One that the backup does not know.
        let (four, _member_four, life_four) = join_with(&store, 4, &with_log_of(id)).await;
        // A directory that cannot be read may have a log as well as not.
        let some_failed = FoundLogs { some_failed: true, ..FoundLogs::default() };
        let (_three, member_three, _) = join_with(&store, 3, &some_failed).await;
        assert_eq!(one.image().awaited().collect::<Vec<_>>(), [BrokerId(3)]);
        member_three.leave().await;
        let (three, _member_three, life_three) = join_with(&store, 3, &with_log_of(id)).await;
        assert_eq!(three.image().awaited().count(), 0);
        let ids = |ids: &[u32]| ids.iter().copied().map(BrokerId).collect::<Vec<_>>();
        let now = partitions(&three.image())[0].clone();
        assert_eq!((now.replicas, now.removing, now.leader), (ids(&[1, 2, 4, 3]), ids(&[3, 4]), None));
        tell(&four, (BrokerId(4), life_four), extent(3, 900)).await;
        tell(&three, (BrokerId(3), life_three), extent(5, 800)).await;
        eventually(&one, |image| partitions(image)[0].leader == Some(BrokerId(3))).await;
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_unregistered_is_waited_for_no_more() {
        let (store, _) = restored_with_two_replicas().await;
        let (one, _member_one, life_one) = join(&store, 1).await;
        let (two, _member_two, life_two) = join(&store, 2).await;
        tell(&one, (BrokerId(1), life_one), extent(3, 900)).await;
        tell(&two, (BrokerId(2), life_two), extent(3, 700)).await;
        eventually(&one, |image| image.brokers()[&BrokerId(3)].fenced).await;
        assert_eq!(partitions(&one.image())[0].leader, None);
        one.unregister_broker(3).await.unwrap().unwrap();
        eventually(&one, |image| partitions(image)[0].leader == Some(BrokerId(1))).await;
    }

    #[tokio::test(start_paused = true)]
    async fn brokers_that_go_on_by_a_restored_state_are_stopped_first() {
        let store = store();
        // One that does not look.
        let (_old, old_member, _) =
            crate::cluster::member::tests::join(&(store.clone() as Arc<dyn MetadataStore>), 1, false).await;
        let metadata = start(&store, 2).await;
        metadata.recover_if_restored(None).await.unwrap();
        store.rename("after");
        let refused = metadata.recover_if_restored(None).await.unwrap_err().to_string();
        let refused = format!("{refused}: {:?}", metadata.recover_if_restored(None).await);
        assert!(refused.contains("stop all brokers"), "{refused}");
        old_member.leave().await;
        metadata.recover_if_restored(None).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn who_has_recovered_it_and_joined_holds_up_nobody_who_began_beside_it() {
        let store = store();
        let (one, _member, _) = join(&store, 1).await;
        store.rename("after");
        let two = start(&store, 2).await;
        let named = async {
            tokio::time::sleep(LEASES_END / 2).await;
            let found = store.get(&Key::Store.text()).await.unwrap();
            one.name_restored("after", found.as_ref().unwrap()).await.unwrap();
        };
        let (recovered, ()) = tokio::join!(two.recover_if_restored(None), named);
        recovered.unwrap();
        assert!(two.image().membership().live(BrokerId(1)).is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_replica_that_is_gone_an_operator_has_the_best_of_the_others_lead() {
        let store = store();
        let (one, member_one, _) = join(&store, 1).await;
        let (_two, member_two, _) = join(&store, 2).await;
        let (_three, member_three, _) = join(&store, 3).await;
        create(&one, "t", 1).await;
        let backup = backup(&store).await;
        for member in [member_one, member_two, member_three] {
            member.leave().await;
        }
        store.rename("after");
        store.restore(backup);
        let (one, _member_one, life_one) = join(&store, 1).await;
        let (two, _member_two, life_two) = join(&store, 2).await;
        tell(&one, (BrokerId(1), life_one), extent(0, 900)).await;
        tell(&two, (BrokerId(2), life_two), extent(3, 700)).await;
        tokio::time::sleep(10 * LEASE).await;
        assert_eq!(partitions(&one.image())[0].leader, None);
        let elected = one.elect_leaders(Election::Unclean, &[("t".to_owned(), 0)], None).await.unwrap();
        assert_eq!((elected, partitions(&one.image())[0].leader), (vec![Ok(())], Some(BrokerId(2))));
    }

    #[tokio::test(start_paused = true)]
    async fn a_store_that_stayed_the_same_and_one_without_a_name_are_left_alone() {
        let store = store();
        let (one, member, _) = join(&store, 1).await;
        let (two, _member_two, _) = join(&store, 2).await;
        let (_three, _member_three, _) = join(&store, 3).await;
        create(&one, "t", 1).await;
        member.leave().await;
        let (_one, _member, _) = join(&store, 1).await;
        let image = two.image();
        let now = &partitions(&image)[0];
        assert!(now.recovery.is_none() && now.leader.is_some());

        let nameless = Arc::new(MemoryStore::new());
        let metadata = start(&nameless, 1).await;
        let revision = metadata.image().revision();
        metadata.recover_if_restored(None).await.unwrap();
        assert_eq!(metadata.image().revision(), revision);
    }
}
