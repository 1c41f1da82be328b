//! How a broker registers for one life, before others let it in.

use tokio::time::{Instant, sleep, timeout};
use uuid::Uuid;

use super::{
    ClusterMetadata, MetadataError, SETTLE_TIMEOUT,
    member::{Joining, RETRY},
};
use crate::{
    controller::{self, EmptiedReplicas, FoundLogs},
    image::{
        BrokerImage,
        record::{self, BrokerRecord, Key, LifeRecord},
    },
    model::{BrokerId, PartitionIndex, TopicName},
    store::{Expect, LeaseId, Revision, StoreError, Transaction, transact_settled},
};

/// Partitions that one line of the log names.
const NAMED: usize = 20;

impl ClusterMetadata {
    /// Has others know, before `id` opens or makes any log in its new `life`, which logs it has no more. Waits for the lease of an
    /// earlier life to end if there is anything to tell.
    ///
    /// # Errors
    /// [`MetadataError::Store`]: some of it may be told.
    pub async fn tell_lost_logs(&self, (id, life): (BrokerId, Uuid), found: &FoundLogs) -> Result<(), MetadataError> {
        loop {
            let mut images = self.subscribe();
            let image = self.image();
            let before = image.brokers().get(&id);
            let Some(before) = before.filter(|before| found.may_lack_logs(before)) else { return Ok(()) };
            if image.membership().live(id).is_some() {
                self.wait_until_nobody_lives_as(id).await;
                continue;
            }
            match self.tell_emptied((id, life), before, image.membership().registered(id), found).await {
                Ok(_) => return Ok(()),
                Err(MetadataError::Store(StoreError::Conflict)) => {
                    let _ = timeout(RETRY, images.changed()).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Registers, fenced.
    ///
    /// # Errors
    /// [`MetadataError::Store`]. A conflict: somebody else has registered or lives as this broker, or the image is behind.
    pub(super) async fn enter(&self, joining: &Joining) -> Result<LeaseId, MetadataError> {
        let id = joining.broker.id;
        let image = self.image();
        let before = image.brokers().get(&id);
        let mut registered = image.membership().registered(id);
        if let Some(before) = before.filter(|before| joining.found.may_lack_logs(before)) {
            // Others may have counted on a log meanwhile.
            registered =
                self.tell_emptied((id, joining.broker.incarnation), before, registered, &joining.found).await?;
        }
        let lease = self.store.grant(joining.lease).await?;
        let log_dir_ids = joining.found.registered_after(before);
        let registration = BrokerImage { fenced: true, log_dir_ids, ..joining.broker.clone() };
        let life = LifeRecord::of(registration.incarnation);
        let mut entering = Transaction::default()
            .put(Key::Broker(id).text(), record::encode(BrokerRecord::of(&registration)))
            .put_leased(Key::Live(id).text(), record::encode(&life), lease)
            .expecting(Key::Broker(id).text(), registered.map_or(Expect::Absent, Expect::At))
            .expecting(Key::Live(id).text(), Expect::Absent);
        if joining.may_have_lost_records {
            entering = entering.put(Key::Distrusted(id).text(), record::encode(&life));
        }
        let revision = transact_settled(self.store.as_ref(), entering, Instant::now() + SETTLE_TIMEOUT).await?;
        self.follow_to(revision).await?;
        Ok(lease)
    }

    /// Has others know which logs are gone with a directory that was registered `before`, before anybody lets this life in. Returns
    /// the revision of the registration under which they know it: it still names that directory.
    async fn tell_emptied(
        &self,
        (id, life): (BrokerId, Uuid),
        before: &BrokerImage,
        registered: Option<Revision>,
        found: &FoundLogs,
    ) -> Result<Option<Revision>, MetadataError> {
        let registration = BrokerImage { incarnation: life, fenced: true, ..before.clone() };
        let registering = Transaction::default()
            .put(Key::Broker(id).text(), record::encode(BrokerRecord::of(&registration)))
            .expecting(Key::Broker(id).text(), registered.map_or(Expect::Absent, Expect::At))
            .expecting(Key::Live(id).text(), Expect::Absent);
        let revision = transact_settled(self.store.as_ref(), registering, Instant::now() + SETTLE_TIMEOUT).await?;
        self.follow_to(revision).await?;
        let mut rounds = 0_u32;
        loop {
            if rounds > 1 {
                sleep(RETRY).await;
            }
            let image = self.image();
            let told = controller::emptied_replicas(&image, (id, life), before, found);
            let EmptiedReplicas { decisions, leaderless } = told.ok_or(StoreError::Conflict)?;
            if !leaderless.is_empty() {
                warn_of(id, &leaderless);
            }
            if !self.take_all(decisions).await? {
                return Ok(image.membership().registered(id));
            }
            // Whatever was overtaken is decided on anew.
            rounds += 1;
        }
    }
}

fn warn_of(id: BrokerId, leaderless: &[(TopicName, PartitionIndex)]) {
    let named = leaderless.iter().take(NAMED).map(|(topic, index)| format!("{topic}-{index}"));
    let named = named.collect::<Vec<_>>().join(", ");
    tracing::warn!(
        broker = %id, partitions = leaderless.len(), %named,
        "this broker came back without the logs that were the last ones in sync: nobody leads these partitions before it has its \
         disk again, or an operator allows an unclean election"
    );
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, HashMap};

    use super::*;
    use crate::{
        cluster::member::tests::{etcd_like, eventually, join_with},
        controller::{CreationDefaults, ManualPartition, NewTopic, Placement},
        image::{ClusterImage, EmptiedReplica, PartitionImage},
        model::PartitionId,
    };

    const TWO: BrokerId = BrokerId(2);

    /// One directory, with a log of the partition or none.
    fn disk(dir: &str, has_log_of: Option<PartitionId>) -> FoundLogs {
        let logs: HashMap<_, _> = has_log_of.into_iter().map(|id| (id, vec![dir.to_owned()])).collect();
        let dirs = [dir.to_owned()].into();
        FoundLogs {
            new_dirs: if logs.is_empty() { [dir.to_owned()].into() } else { [].into() },
            dirs,
            some_failed: false,
            logs,
        }
    }

    fn partition(image: &ClusterImage) -> &PartitionImage {
        &image.topic("t").unwrap().partitions[0]
    }

    #[tokio::test(start_paused = true)]
    async fn who_comes_back_without_its_log_is_not_let_in_before_others_know_and_leads_when_it_has_the_log_again() {
        let store = etcd_like();
        let (one, _member_one, _) = join_with(&store, 1, false, disk("one", None)).await;
        let (_two, member_two, _) = join_with(&store, 2, false, disk("old", None)).await;
        let (_three, member_three, _) = join_with(&store, 3, false, disk("three", None)).await;
        let placement = Ok(Placement::Manual(vec![ManualPartition { index: 0, replicas: vec![2, 3] }]));
        let topic = NewTopic { name: "t".to_owned(), placement, overrides: BTreeMap::new() };
        let defaults = CreationDefaults { partitions: 1, replication_factor: 1 };
        one.create_topics(&[topic], defaults, false, None).await.unwrap().remove(0).unwrap();
        let id = PartitionId { topic: one.image().topic("t").unwrap().id, index: PartitionIndex(0) };
        member_three.leave().await;
        eventually(&one, |image| partition(image).isr == [TWO]).await;
        member_two.leave().await;
        eventually(&one, |image| partition(image).leader.is_none()).await;

        // A life that ends before it is let in: others know, and what it had is still registered.
        one.tell_lost_logs((TWO, Uuid::new_v4()), &disk("new", None)).await.unwrap();
        let emptied = EmptiedReplica { broker: TWO, dirs: vec!["old".to_owned()] };
        let now = partition(&one.image()).clone();
        assert_eq!((now.leader, now.isr, now.elr, now.emptied), (None, vec![], vec![], vec![emptied.clone()]));
        assert_eq!(one.image().brokers()[&TWO].log_dir_ids, ["old".to_owned()].into());

        // The next one has made an empty log by then.
        let (_two, member_two, _) = join_with(&store, 2, true, disk("new", Some(id))).await;
        let (_three, _member_three, _) = join_with(&store, 3, false, disk("three", Some(id))).await;
        assert_eq!(one.image().brokers()[&TWO].log_dir_ids, ["new".to_owned()].into());
        let now = partition(&one.image()).clone();
        assert_eq!((now.leader, now.last_leader, now.emptied), (None, None, vec![emptied]));
        member_two.leave().await;

        // The old disk.
        let old = disk("old", Some(id));
        let (two, _member_two, life) = join_with(&store, 2, false, old.clone()).await;
        assert_eq!(partition(&two.image()).leader, None, "not by itself");
        assert!(!two.tell_returned((TWO, life), &disk("new", Some(id))).await.unwrap(), "not what it has there");
        assert!(two.tell_returned((TWO, life), &old).await.unwrap());
        eventually(&one, |image| partition(image).leader == Some(TWO)).await;
        assert!(!two.tell_returned((TWO, life), &old).await.unwrap());
    }
}
