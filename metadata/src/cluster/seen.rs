//! What a broker remembers of the store from one life to the next: it tells a store that was put back under the name that it had, which
//! etcd is where a backup is restored under the token of before.
//!
//! ```text
//! found where it was put back later than was seen, or then, and at a later revision ─► it went on, or others have noticed
//!       earlier ─► the key `store` loses the name ─┬─► taken up as a restoration under another name (recover.rs)
//!                                                  └─► brokers that have seen less, and live by it, end
//! ```
//! A store's revisions only grow. So a broker that saw the state of the backup, and something after it, can tell; one that was down when
//! it was taken cannot, and goes by whoever can. When somebody noticed is in a key of its own, `put-back`: whoever had seen more of the
//! store before that leaves it at that, and where the key is older than somebody has seen it, the store was put back once more.

use std::{
    sync::atomic::Ordering,
    time::{SystemTime, UNIX_EPOCH},
};

use tokio::time::Instant;

use super::{ClusterMetadata, MetadataError, SETTLE_TIMEOUT, recover::read};
use crate::{
    image::{
        ClusterImage,
        record::{self, Key, PutBackRecord, StoreRecord},
    },
    store::{Expect, PutBack, Revision, StoreError, Transaction, Versioned, transact_settled},
};

/// The newest that a broker has seen of the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Whose state it held: another cluster's store may have the same name.
    pub cluster: String,
    /// The store's name for itself.
    pub members: String,
    /// When it was last put back under that name, as far as anybody noticed, in milliseconds since 1970; 0: never.
    pub put_back_ms: u64,
    /// Where it stood.
    pub revision: Revision,
}

impl Seen {
    /// Whether the store of that name, found at a revision, was put back since, and nobody has noticed.
    fn is_behind(&self, put_back: PutBackRecord, now: Revision) -> bool {
        (put_back.ms, now) < (self.put_back_ms, self.revision)
    }
}

pub(super) fn clock_ms() -> u64 {
    let clock = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    u64::try_from(clock).unwrap_or_default()
}

impl ClusterMetadata {
    /// What to remember of the store; `None`: it has no name, or was put back.
    pub fn seen(&self) -> Option<Seen> {
        let image = self.image();
        if image.store_name().is_empty() || self.is_put_back() {
            return None;
        }
        Some(Seen {
            cluster: image.cluster_id().to_owned(),
            members: image.store_name().to_owned(),
            put_back_ms: image.put_back_ms(),
            revision: image.revision(),
        })
    }

    /// The keys `store` and `put-back` as they are at one time.
    pub(super) async fn found(&self) -> Result<(Option<Versioned>, PutBackRecord), MetadataError> {
        let key = Key::PutBack;
        loop {
            let before = self.store.get(&key.text()).await?;
            let store = self.store.get(&Key::Store.text()).await?;
            let after = self.store.get(&key.text()).await?;
            let written = |put_back: &Option<Versioned>| put_back.as_ref().map(|found| found.modified);
            if written(&before) == written(&after) {
                return Ok((store, after.map_or(Ok(PutBackRecord::default()), |found| read(&key, &found))?));
            }
        }
    }

    /// Has everybody know that the store was put back, if that shows by what this broker has `seen` of it. `true`: it does, and the key
    /// `store` is not any more what was `found`.
    pub(super) async fn tell_put_back(
        &self,
        seen: &Seen,
        put_back: PutBackRecord,
        found: &Versioned,
    ) -> Result<bool, MetadataError> {
        let store: StoreRecord = read(&Key::Store, found)?;
        let is_the_same = seen.cluster == self.image().cluster_id() && seen.members == store.members;
        if !is_the_same || !seen.is_behind(put_back, self.found_at) {
            return Ok(false);
        }
        tracing::warn!(
            now = self.found_at.0,
            seen = seen.revision.0,
            "the metadata store was restored from a backup under the name that it had: it holds less than was seen of it"
        );
        let (key, unnamed) = (Key::Store.text(), StoreRecord { members: String::new(), ..store });
        let telling = Transaction::default()
            .put(key.clone(), record::encode(unnamed))
            .expecting(key, Expect::At(found.modified))
            .put(Key::PutBack.text(), record::encode(put_back.or_later(seen.put_back_ms).next(clock_ms())));
        match transact_settled(self.store.as_ref(), telling, Instant::now() + SETTLE_TIMEOUT).await {
            // Others have seen more of it, too.
            Ok(_) | Err(StoreError::Conflict) => Ok(true),
            Err(error) => Err(error.into()),
        }
    }

    /// From now on this process goes by the store as it is since it was put back then.
    pub(super) fn live_by(&self, put_back: PutBackRecord) {
        self.lives_by_ms.store(put_back.ms, Ordering::Relaxed);
    }

    /// # Errors
    /// Somebody has noticed since that the store was put back: this process is to end.
    pub(super) fn check_lives_by(&self, put_back: PutBackRecord) -> Result<(), MetadataError> {
        if put_back.ms == self.lives_by_ms.load(Ordering::Relaxed) {
            return Ok(());
        }
        self.was_put_back(PutBack::Noticed);
        Err(StoreError::Unavailable("the store was put back to an older state, as others have noticed".into()).into())
    }

    /// Has this process end when somebody notices that the store was put back, which this process, that lives by it, has not. Never
    /// returns.
    pub(super) async fn watch_for_others_notice(&self) {
        let mut images = self.subscribe();
        let is_another = |image: &ClusterImage| image.put_back_ms() != self.lives_by_ms.load(Ordering::Relaxed);
        if images.wait_for(|image| is_another(image)).await.is_ok() {
            self.was_put_back(PutBack::Noticed);
        }
        // The sender lives as long as the metadata.
        std::future::pending().await
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, sync::Arc, time::Duration};

    use tokio::time::timeout;
    use uuid::Uuid;

    use super::*;
    use crate::{
        cluster::{
            Joining, Member,
            member::tests::{LEASE, create},
        },
        controller::FoundLogs,
        image::BrokerImage,
        model::BrokerId,
        store::{MemoryStore, MetadataStore, Snapshot},
    };

    struct Lives {
        metadata: Arc<ClusterMetadata>,
        member: Member,
    }

    impl Lives {
        /// Ends it; what it remembers.
        async fn end(self) -> Seen {
            let seen = self.metadata.seen().unwrap();
            self.member.leave().await;
            seen
        }
    }

    async fn join(store: &Arc<MemoryStore>, id: u32, seen: Option<&Seen>) -> Lives {
        let metadata = ClusterMetadata::start(store.clone(), BrokerId(id), BTreeMap::new()).await.unwrap();
        metadata.recover_if_restored(seen).await.unwrap();
        let life = Uuid::new_v4();
        let broker = BrokerImage { id: BrokerId(id), incarnation: life, ..BrokerImage::default() };
        let joining = Joining { broker, lease: LEASE, may_have_lost_records: false, found: Arc::default() };
        let member = Member::join(metadata.clone(), joining).await.unwrap();
        member.admitted(BrokerId(id), life).await;
        Lives { metadata, member }
    }

    /// Leases of a backup end.
    fn is_kept(key: &str) -> bool {
        !["live/", "controller"].iter().any(|prefix| key.starts_with(prefix))
    }

    /// A cluster of three brokers with a topic, and a backup of then.
    async fn with_backup() -> (Arc<MemoryStore>, [Lives; 3], Snapshot) {
        let store = Arc::new(MemoryStore::new());
        store.rename("the same");
        let lives = [join(&store, 1, None).await, join(&store, 2, None).await, join(&store, 3, None).await];
        create(&lives[0].metadata, "t", 1).await;
        let mut backup = store.range("").await.unwrap();
        backup.entries.retain(|(key, _)| is_kept(key));
        (store, lives, backup)
    }

    fn recovery_name(image: &ClusterImage) -> Option<String> {
        Some(image.topic("t").unwrap().partitions[0].recovery.as_ref()?.store.clone())
    }

    #[tokio::test(start_paused = true)]
    async fn a_store_that_is_put_back_under_its_name_is_noticed_once_by_those_who_have_seen_more() {
        let (store, [one, two, three], backup) = with_backup().await;
        create(&one.metadata, "later", 1).await;
        let mut later = store.range("").await.unwrap();
        later.entries.retain(|(key, _)| is_kept(key));
        let seen = [one.end().await, two.end().await, three.end().await];
        // It went on.
        let one = join(&store, 1, Some(&seen[0])).await;
        assert_eq!(recovery_name(&one.metadata.image()), None);
        let seen = [one.end().await, seen[1].clone(), seen[2].clone()];

        store.restore(backup.clone());
        let one = join(&store, 1, Some(&seen[0])).await;
        let name = recovery_name(&one.metadata.image()).expect("it is in recovery");
        assert!(name.starts_with("the same."), "{name}");
        let two = join(&store, 2, Some(&seen[1])).await;
        assert_eq!(recovery_name(&two.metadata.image()), Some(name.clone()));
        let seen = [one.end().await, two.end().await, seen[2].clone()];

        // From the same backup once more, and now by one that knows of no time before.
        store.restore(backup);
        let three = join(&store, 3, Some(&seen[2])).await;
        let again = recovery_name(&three.metadata.image()).unwrap();
        assert!(again.starts_with("the same."), "{again}");
        let one = three.end().await;

        // A newer one, that is from before anybody noticed none the less.
        let newer = Snapshot { revision: Revision(one.revision.0 + 1000), ..later };
        store.restore(newer);
        let one = join(&store, 1, Some(&one)).await;
        let last = recovery_name(&one.metadata.image()).expect("it is in recovery");
        assert!(![name, again].contains(&last), "{last}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_broker_that_has_seen_less_and_lives_by_it_ends_when_another_one_notices() {
        let (store, [one, two, three], backup) = with_backup().await;
        let (two, three) = (two.end().await, three.end().await);
        // More than those do who come back before it.
        for _ in 0..50 {
            one.metadata.caught_up().await.unwrap();
        }
        let one = one.end().await;
        store.restore(backup);
        let unaware = join(&store, 2, None).await;
        assert_eq!(recovery_name(&unaware.metadata.image()), None);
        let late = Seen { revision: Revision(1), ..three };
        let also = join(&store, 3, Some(&late)).await;
        let ends = async {
            for lives in [unaware, also] {
                let how = timeout(Duration::from_secs(60), lives.metadata.put_back()).await.expect("it is noticed");
                assert_eq!(how, PutBack::Noticed);
                lives.member.leave().await;
            }
        };
        let (one, ()) = tokio::join!(join(&store, 1, Some(&one)), ends);
        assert!(recovery_name(&one.metadata.image()).is_some());
        let two = join(&store, 2, Some(&two)).await;
        assert_eq!(recovery_name(&two.metadata.image()), recovery_name(&one.metadata.image()));
    }
    /// Its look came before somebody else's that noticed, its joining after all that followed.
    #[tokio::test(start_paused = true)]
    async fn a_broker_that_looked_before_another_one_noticed_and_joins_later_ends() {
        let (store, [one, two, three], backup) = with_backup().await;
        create(&one.metadata, "later", 1).await;
        let (_, _) = (two.end().await, three.end().await);
        let one = one.end().await;
        store.restore(backup);
        let unaware = ClusterMetadata::start(store.clone(), BrokerId(2), BTreeMap::new()).await.unwrap();
        unaware.recover_if_restored(None).await.unwrap();
        let _one = join(&store, 1, Some(&one)).await;
        unaware.follow_to(store.range("").await.unwrap().revision).await.unwrap();
        let broker = BrokerImage { id: BrokerId(2), incarnation: Uuid::new_v4(), ..BrokerImage::default() };
        let joining = Joining { broker, lease: LEASE, may_have_lost_records: false, found: Arc::default() };
        let _member = Member::join(unaware.clone(), joining).await.unwrap();
        assert_eq!(timeout(LEASE * 10, unaware.put_back()).await.expect("it ends"), PutBack::Noticed);
        // Nor does it count as one that has looked: that was before.
        assert!(unaware.tell_strays(BrokerId(2), &FoundLogs::default()).await.is_err());
        assert!(unaware.image().awaited().any(|id| id == BrokerId(2)), "it is waited for");
    }

    /// `varve restore` makes the state of a store that brokers have seen more of, which it had lost.
    #[tokio::test(start_paused = true)]
    async fn a_state_that_says_nothing_of_its_store_is_taken_at_its_word() {
        let (store, [one, two, three], backup) = with_backup().await;
        let seen = [one.end().await, two.end().await, three.end().await];
        let entries = backup.entries.into_iter().filter(|(key, _)| !record::is_ephemeral(key)).collect();
        store.restore(Snapshot { revision: Revision(100), entries });
        let seen = seen.map(|seen| Seen { revision: Revision(1_000_000), ..seen });
        for (id, seen) in (1..).zip(&seen) {
            let lives = join(&store, id, Some(seen)).await;
            assert_eq!(recovery_name(&lives.metadata.image()), None);
            lives.end().await;
        }
        // Nor does what was seen of another cluster say anything of this one.
        let other = Seen { cluster: "another".to_owned(), put_back_ms: u64::MAX, ..seen[0].clone() };
        assert_eq!(recovery_name(&join(&store, 1, Some(&other)).await.metadata.image()), None);
    }
}
