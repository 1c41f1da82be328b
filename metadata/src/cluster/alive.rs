//! Whether a broker lives: it says so itself by renewing its lease, and others may know sooner that it does not.
//!
//! ```text
//! live/<id> under a lease ─┬─ the lease ends ─────────────────────────────────┬─► gone ─► fenced, others lead
//!          ▲               └─ another broker declares it dead, once a life ───┘    │
//!          ├────── it goes on, later than its lease lasts: a new lease ◄───────────┤
//! live/<id> {returned} ◄── it is not dead: a new lease, and only leases end it now ┘
//! ```
//! Neither has to be right (docs/adr/0022): who is in sync and who leads is decided by compare-and-set and leader epochs, whatever
//! the one that is missed believes. A wrong word costs a moment in which others lead.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout},
};
use uuid::Uuid;

use super::{ClusterMetadata, SETTLE_TIMEOUT, member::RETRY};
use crate::{
    image::record::{self, BrokerRecord, ControllerRecord, Key, LifeRecord},
    model::BrokerId,
    store::{Expect, LeaseId, StoreError, Transaction, transact_settled},
};

/// What became of a broker that somebody declared dead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It counts as dead from now on, unless it says otherwise.
    Dead,
    /// That life is not there any more.
    Gone,
    /// It was declared dead before, and was not: nothing but its lease tells.
    Doubted,
}

/// Whose life is to go on.
pub(super) struct Life {
    pub(super) id: BrokerId,
    pub(super) incarnation: Uuid,
    /// Its lease.
    pub(super) ttl: Duration,
    /// Nobody needs to come back any more.
    pub(super) is_ending: Arc<AtomicBool>,
}

/// Longest time without a word to etcd and back. It closes a silent connection that is asked for a sign of life more often than each five
/// seconds (`--grpc-keepalive-min-time`), and that breaks the watch on it.
const QUIET_LIMIT: Duration = Duration::from_secs(3);

/// How long to wait before a lease is renewed.
pub(super) fn renewal(ttl: Duration) -> Duration {
    (ttl / 3).min(QUIET_LIMIT)
}

/// Renews the lease; gets a new one when it has ended, or when others took us for dead. Returns when another process has
/// registered as this broker.
pub(super) async fn stay_alive(metadata: Arc<ClusterMetadata>, life: Life, leases: watch::Sender<LeaseId>) {
    let Life { id, incarnation, ttl, is_ending } = life;
    let mut images = metadata.subscribe();
    let (mut pause, mut is_doubted) = (renewal(ttl), false);
    loop {
        let may_end = is_ending.load(Ordering::Relaxed);
        let is_missed = match may_end {
            false => {
                let missed = images.wait_for(|image| image.membership().live(id) != Some(incarnation));
                timeout(pause, missed).await.is_ok()
            }
            true => {
                sleep(pause).await;
                false
            }
        };
        let lease = *leases.borrow();
        // One member of etcd that hangs must leave time for another one.
        let renewed = timeout(ttl / 4, metadata.store.renew(lease)).await;
        pause = if matches!(renewed, Ok(Ok(_))) { renewal(ttl) } else { RETRY };
        let has_lease = match renewed {
            Ok(Ok(has_lease)) => has_lease,
            failed => {
                match failed {
                    Ok(Err(error)) => {
                        tracing::warn!(broker = %id, %error, "our lease could not be renewed, trying again");
                    }
                    _ => tracing::warn!(broker = %id, "our lease was not renewed in time, trying again"),
                }
                if is_missed {
                    sleep(RETRY).await;
                }
                continue;
            }
        };
        if (has_lease && !is_missed) || is_ending.load(Ordering::Relaxed) {
            continue;
        }
        // Whose lease has ended was missed with reason. Others were wrong about who has it still.
        is_doubted |= has_lease;
        match has_lease {
            true => tracing::warn!(broker = %id, "others do not count us as alive, asking for a new lease"),
            false => tracing::warn!(broker = %id, "our lease has ended, asking for a new one"),
        }
        loop {
            let returned = match metadata.store.grant(ttl).await {
                Ok(lease) => {
                    let life = LifeRecord { returned: is_doubted, ..LifeRecord::of(incarnation) };
                    metadata.return_alive(id, life, lease).await.map(|ours| (ours, lease))
                }
                Err(error) => Err(error),
            };
            match returned {
                Ok((true, lease)) => {
                    leases.send_replace(lease);
                    break;
                }
                // A store that was put back to an older state knows an earlier life of ours, and is no witness: where others have
                // registered the image comes to show them.
                Ok((false, _))
                    if metadata.image().brokers().get(&id).is_some_and(|us| us.incarnation == incarnation) => {}
                Ok((false, _)) => {
                    tracing::error!(broker = %id, "another process has registered as this broker");
                    return;
                }
                Err(error) => tracing::warn!(broker = %id, %error, "not known to be alive yet, trying again"),
            }
            sleep(RETRY).await;
        }
    }
}

impl ClusterMetadata {
    /// Says under a new lease that the same life goes on. `false`: another life has registered meanwhile.
    async fn return_alive(&self, id: BrokerId, life: LifeRecord, lease: LeaseId) -> Result<bool, StoreError> {
        let found = self.store.get(&Key::Broker(id).text()).await?;
        let Some(found) = found else { return Ok(false) };
        let is_us = record::decode::<BrokerRecord>(&found.value)
            .is_ok_and(|registered| registered.into_image(id).incarnation == life.incarnation);
        if !is_us {
            return Ok(false);
        }
        let alive = Transaction::default()
            .put_leased(Key::Live(id).text(), record::encode(life), lease)
            .expecting(Key::Broker(id).text(), Expect::At(found.modified));
        // A conflict: the controller has just fenced us. To be read anew.
        let revision = transact_settled(self.store.as_ref(), alive, Instant::now() + SETTLE_TIMEOUT).await?;
        self.follow_to(revision).await?;
        Ok(true)
    }

    /// Has a broker in this life of it count as dead at once, without waiting for the end of its lease: somebody knows that its
    /// process has ended. It gives up the controller's office, too.
    ///
    /// # Errors
    /// [`StoreError`]: not known to be so; [`StoreError::Conflict`] if something changed meanwhile.
    pub async fn declare_dead(&self, id: BrokerId, incarnation: Uuid) -> Result<Verdict, StoreError> {
        let (live, office) = (Key::Live(id).text(), Key::Controller.text());
        let Some(found) = self.store.get(&live).await? else { return Ok(Verdict::Gone) };
        // What a later version writes there is for its lease to end.
        let Ok(life) = record::decode::<LifeRecord>(&found.value) else { return Ok(Verdict::Doubted) };
        if life.incarnation != incarnation {
            return Ok(Verdict::Gone);
        }
        if life.returned {
            return Ok(Verdict::Doubted);
        }
        let mut ends = Transaction::default().expecting(&live, Expect::At(found.modified)).delete(live);
        ends = ends.delete(Key::Leaving(id).text());
        if let Some(found) = self.store.get(&office).await?
            && record::decode::<ControllerRecord>(&found.value).is_ok_and(|held| held.broker == id)
        {
            ends = ends.expecting(&office, Expect::At(found.modified)).delete(office);
        }
        transact_settled(self.store.as_ref(), ends, Instant::now() + SETTLE_TIMEOUT).await?;
        Ok(Verdict::Dead)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{
        Member,
        member::tests::{LEASE, create, etcd_like, eventually, join, lease_of},
    };
    use super::*;
    use crate::image::ClusterImage;

    fn leads(image: &ClusterImage, id: BrokerId) -> bool {
        image.topic("t").unwrap().partitions.iter().any(|one| one.leader == Some(id))
    }

    /// Three brokers with a topic; the first is the controller. Its life with its part.
    async fn three() -> (Vec<Arc<ClusterMetadata>>, Vec<Member>, Uuid) {
        let store = etcd_like();
        let (one, member_one, life) = join(&store, 1, false).await;
        let (two, member_two, _) = join(&store, 2, false).await;
        let (three, member_three, _) = join(&store, 3, false).await;
        create(&one, "t", 30).await;
        (vec![one, two, three], vec![member_one, member_two, member_three], life)
    }

    #[test]
    fn a_lease_is_renewed_in_time_and_etcd_never_left_in_silence() {
        assert_eq!(renewal(Duration::from_secs(6)), Duration::from_secs(2));
        assert_eq!(renewal(Duration::from_secs(9)), Duration::from_secs(3));
        assert_eq!(renewal(Duration::from_secs(3600)), Duration::from_secs(3));
    }

    #[tokio::test(start_paused = true)]
    async fn others_lead_and_hold_the_office_at_once_when_a_broker_is_declared_dead() {
        let (brokers, mut members, life) = three().await;
        drop(members.remove(0));
        let began = Instant::now();
        assert_eq!(brokers[1].declare_dead(BrokerId(1), life).await.unwrap(), Verdict::Dead);
        let decides = |image: &ClusterImage| image.membership().controller().is_some_and(|id| id != BrokerId(1));
        eventually(&brokers[1], |image| !leads(image, BrokerId(1)) && decides(image)).await;
        assert!(began.elapsed() < LEASE / 10, "{:?}", began.elapsed());
        assert_eq!(brokers[2].declare_dead(BrokerId(1), life).await.unwrap(), Verdict::Gone);
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_wrongly_declared_dead_comes_back_and_is_not_declared_dead_again() {
        let (brokers, members, life) = three().await;
        assert_eq!(brokers[1].declare_dead(BrokerId(1), life).await.unwrap(), Verdict::Dead);
        let began = Instant::now();
        let again = async {
            loop {
                match brokers[2].declare_dead(BrokerId(1), life).await.unwrap() {
                    Verdict::Gone => sleep(Duration::from_millis(1)).await,
                    other => return other,
                }
            }
        };
        assert_eq!(timeout(LEASE, again).await.unwrap(), Verdict::Doubted);
        eventually(&brokers[1], |image| image.in_service(BrokerId(1)) == Some(life)).await;
        assert!(began.elapsed() < LEASE / 2, "{:?}", began.elapsed());
        assert!(!*members[0].is_replaced().borrow());
        // Its new lease is renewed.
        tokio::time::sleep(2 * LEASE).await;
        assert_eq!(brokers[1].image().membership().live(BrokerId(1)), Some(life));
    }

    #[tokio::test(start_paused = true)]
    async fn whose_lease_ended_meanwhile_can_be_declared_dead_when_its_process_ends() {
        let (brokers, members, life) = three().await;
        let comes_back = async |lease| {
            while lease_of(&members[0]) == lease {
                sleep(Duration::from_millis(1)).await;
            }
            eventually(&brokers[1], |image| image.in_service(BrokerId(1)) == Some(life)).await;
        };
        let lease = lease_of(&members[0]);
        brokers[1].store.revoke(lease).await.unwrap();
        comes_back(lease).await;
        let lease = lease_of(&members[0]);
        assert_eq!(brokers[1].declare_dead(BrokerId(1), life).await.unwrap(), Verdict::Dead);
        comes_back(lease).await;
        // That was wrong, and stays known through later ends of its lease.
        let lease = lease_of(&members[0]);
        brokers[1].store.revoke(lease).await.unwrap();
        comes_back(lease).await;
        assert_eq!(brokers[1].declare_dead(BrokerId(1), life).await.unwrap(), Verdict::Doubted);
    }

    #[tokio::test(start_paused = true)]
    async fn another_life_is_not_declared_dead_for_the_one_before() {
        let (brokers, _members, life) = three().await;
        assert_eq!(brokers[1].declare_dead(BrokerId(1), Uuid::new_v4()).await.unwrap(), Verdict::Gone);
        assert_eq!(brokers[1].image().in_service(BrokerId(1)), Some(life));
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_about_to_end_stays_dead_once_declared_so() {
        let (brokers, members, life) = three().await;
        members[0].ends();
        assert_eq!(brokers[1].declare_dead(BrokerId(1), life).await.unwrap(), Verdict::Dead);
        tokio::time::sleep(2 * LEASE).await;
        assert_eq!(brokers[1].image().membership().live(BrokerId(1)), None);
    }
}
