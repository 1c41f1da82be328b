//! Who is in sync, who leads, and who may lead next: the rules for one partition (KIP-497, KIP-841, KIP-966).
//!
//! ```text
//! ISR   have every committed record, and those that are being committed
//! ELR   left the ISR while it was smaller than min.insync.replicas: they have every committed record too, because
//!       nothing is committed until the ISR is large enough again, and then the ELR is empty
//! last  who led when both became empty: the best that is left, if it comes back
//! ```
//! A broker that comes back after it may have lost records (a power cut) leaves ISR and ELR before it counts as alive, also
//! if it is the last one. A replica whose log directory failed leaves them at once, though its broker lives, and may not come
//! back to them before its broker has the log again (`offline`, KIP-858). So nobody is elected who lacks a
//! committed record while somebody else may have it.

use crate::{
    image::PartitionImage,
    model::{BrokerId, LeaderEpoch},
};

/// What elections depend on besides the partition.
pub struct Circumstances<'a> {
    /// Whether a broker is registered, not fenced and not about to stop.
    pub is_active: &'a dyn Fn(BrokerId) -> bool,
    /// The topic's `min.insync.replicas`.
    pub min_in_sync: usize,
    /// The topic's `unclean.leader.election.enable`: a replica without all records is better than none.
    pub unclean: bool,
}

impl Circumstances<'_> {
    fn effective_min(&self, partition: &PartitionImage) -> usize {
        effective_min(self.min_in_sync, partition.replicas.len())
    }
}

/// `min.insync.replicas` asks for no more replicas than there are.
pub fn effective_min(min_in_sync: usize, replicas: usize) -> usize {
    min_in_sync.min(replicas)
}

/// The partition after `broker` stopped being active: with another leader, if it led and one can lead. Another leader stays, also one
/// that is about to stop: whoever takes that one out decides. `None`: nothing changes.
pub fn without_broker(
    partition: &PartitionImage,
    broker: BrokerId,
    circumstances: &Circumstances<'_>,
) -> Option<PartitionImage> {
    let isr: Vec<BrokerId> = partition.isr.iter().copied().filter(|member| *member != broker).collect();
    let next = with_isr(partition, isr, circumstances.effective_min(partition));
    changed(partition, led_without(broker, next, circumstances))
}

/// The partition after `broker` came back and may have lost records: it leaves everything that promises it has them.
/// `None`: nothing changes.
pub fn without_trust_in(
    partition: &PartitionImage,
    broker: BrokerId,
    circumstances: &Circumstances<'_>,
) -> Option<PartitionImage> {
    let next = distrusting(partition, broker, circumstances)?;
    changed(partition, led_without(broker, next, circumstances))
}

/// The partition after the log directory with `broker`'s replica failed, in a broker that lives: others lead, and nobody believes
/// that the replica has anything until it is [online](with_online). `None`: nothing changes.
pub fn with_offline(
    partition: &PartitionImage,
    broker: BrokerId,
    circumstances: &Circumstances<'_>,
) -> Option<PartitionImage> {
    if partition.offline.contains(&broker) || !partition.replicas.contains(&broker) {
        return None;
    }
    let mut next = distrusting(partition, broker, circumstances).unwrap_or_else(|| partition.clone());
    next.offline.push(broker);
    next.offline.sort_unstable();
    changed(partition, led_without(broker, next, circumstances))
}

/// The partition after `broker` has its log again, or an empty one in its place, in a later life or in another directory: it may catch
/// up, and whoever has no leader may be led by it. `None`: nothing changes.
pub fn with_online(partition: &PartitionImage, broker: BrokerId) -> Option<PartitionImage> {
    let mut next = partition.clone();
    next.offline.retain(|replica| *replica != broker);
    changed(partition, next)
}

/// The partition without `broker` in what promises that it has every committed record. `None`: it is not in there.
fn distrusting(
    partition: &PartitionImage,
    broker: BrokerId,
    circumstances: &Circumstances<'_>,
) -> Option<PartitionImage> {
    if !partition.isr.contains(&broker) && !partition.elr.contains(&broker) {
        return None;
    }
    let isr: Vec<BrokerId> = partition.isr.iter().copied().filter(|member| *member != broker).collect();
    let mut next = with_isr(partition, isr, circumstances.effective_min(partition));
    next.elr.retain(|member| *member != broker);
    if next.isr.is_empty() && next.elr.is_empty() {
        next.last_leader = Some(broker);
    }
    Some(next)
}

/// The partition after some broker became active, if it lacks a leader and one can lead now. `None`: nothing changes.
pub fn with_leader(partition: &PartitionImage, circumstances: &Circumstances<'_>) -> Option<PartitionImage> {
    if partition.leader.is_some() {
        return None;
    }
    changed(partition, led(partition.clone(), circumstances))
}

/// The partition led by its preferred replica, if that is in sync and does not lead already.
pub fn with_preferred_leader(partition: &PartitionImage, circumstances: &Circumstances<'_>) -> Option<PartitionImage> {
    let preferred = *partition.replicas.first()?;
    let can = partition.isr.contains(&preferred) && (circumstances.is_active)(preferred);
    if partition.leader == Some(preferred) || !can {
        return None;
    }
    changed(partition, PartitionImage { leader: Some(preferred), ..partition.clone() })
}

/// The partition with the ISR that its leader proposes; epochs as they are recorded if the store takes it.
pub fn with_proposed_isr(partition: &PartitionImage, isr: &[BrokerId], min_in_sync: usize) -> PartitionImage {
    // In the order of the replicas, as Kafka keeps it in descriptions.
    let isr = partition.replicas.iter().copied().filter(|replica| isr.contains(replica)).collect();
    let mut next = with_isr(partition, isr, effective_min(min_in_sync, partition.replicas.len()));
    next.partition_epoch = partition.partition_epoch + 1;
    next
}

/// Changes the ISR, and the ELR with it.
fn with_isr(partition: &PartitionImage, isr: Vec<BrokerId>, effective_min: usize) -> PartitionImage {
    let mut next = PartitionImage { isr, ..partition.clone() };
    next.elr = if next.isr.len() >= effective_min {
        Vec::new()
    } else {
        let knew_all = partition.isr.iter().chain(&partition.elr);
        let mut elr: Vec<BrokerId> = knew_all.copied().filter(|member| !next.isr.contains(member)).collect();
        elr.sort_unstable();
        elr.dedup();
        elr
    };
    next
}

/// Elects a leader if there is none, or `broker` led. Another one that cannot be elected just now, because it is aside with a full disk
/// or about to stop, leads on where nobody in sync can take over: to depose it here would lose records.
fn led_without(broker: BrokerId, next: PartitionImage, circumstances: &Circumstances<'_>) -> PartitionImage {
    match next.leader {
        Some(leader) if leader != broker => next,
        _ => led(next, circumstances),
    }
}

/// Elects a leader if the present one cannot go on.
fn led(mut partition: PartitionImage, circumstances: &Circumstances<'_>) -> PartitionImage {
    let offline = partition.offline.clone();
    let can_lead = |broker: BrokerId| (circumstances.is_active)(broker) && !offline.contains(&broker);
    if partition.leader.is_some_and(|leader| partition.isr.contains(&leader) && can_lead(leader)) {
        return partition;
    }
    let among = |members: &[BrokerId]| {
        partition.replicas.iter().copied().find(|replica| members.contains(replica) && can_lead(*replica))
    };
    if let Some(leader) = among(&partition.isr) {
        partition.leader = Some(leader);
        return partition;
    }
    let effective_min = circumstances.effective_min(&partition);
    if let Some(leader) = among(&partition.elr) {
        // The others of the ISR are not active, and know no more than the one elected: they stay eligible.
        let mut next = with_isr(&partition, vec![leader], effective_min);
        next.leader = Some(leader);
        return next;
    }
    let nobody_knows_all = partition.isr.is_empty() && partition.elr.is_empty();
    let last = partition.last_leader.filter(|last| nobody_knows_all && can_lead(*last));
    let any = || among(&partition.replicas).filter(|_| circumstances.unclean);
    if let Some(leader) = last.or_else(any) {
        // Records may be lost: whoever has them is no longer believed.
        partition.isr = vec![leader];
        partition.elr.clear();
        partition.leader = Some(leader);
        return partition;
    }
    if let Some(leader) = partition.leader.take() {
        partition.last_leader = Some(leader);
    }
    partition
}

/// `next` with the epochs that tell it from `now`; `None` if it is the same.
fn changed(now: &PartitionImage, mut next: PartitionImage) -> Option<PartitionImage> {
    if next == *now {
        return None;
    }
    if next.leader != now.leader {
        next.leader_epoch = LeaderEpoch(now.leader_epoch.0 + 1);
    }
    if next.leader.is_some() {
        next.last_leader = None;
    }
    next.partition_epoch = now.partition_epoch + 1;
    Some(next)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(ids: &[u32]) -> Vec<BrokerId> {
        ids.iter().copied().map(BrokerId).collect()
    }

    fn partition(leader: Option<u32>, isr: &[u32], elr: &[u32]) -> PartitionImage {
        PartitionImage {
            replicas: ids(&[1, 2, 3]),
            isr: ids(isr),
            leader: leader.map(BrokerId),
            elr: ids(elr),
            ..PartitionImage::default()
        }
    }

    /// With `min.insync.replicas=2` and these brokers active.
    fn with<T>(active: &[u32], unclean: bool, act: impl FnOnce(&Circumstances<'_>) -> T) -> T {
        let is_active = |broker: BrokerId| active.contains(&broker.0);
        act(&Circumstances { is_active: &is_active, min_in_sync: 2, unclean })
    }

    #[test]
    fn a_leader_that_goes_is_followed_by_the_first_replica_in_sync() {
        let now = partition(Some(1), &[1, 2, 3], &[]);
        let next = with(&[2, 3], false, |now_active| without_broker(&now, BrokerId(1), now_active)).unwrap();
        assert_eq!((next.leader, next.isr, next.elr), (Some(BrokerId(2)), ids(&[2, 3]), ids(&[])));
        assert_eq!((next.leader_epoch, next.partition_epoch), (LeaderEpoch(1), 1));
    }

    #[test]
    fn a_follower_that_goes_leaves_leader_and_leader_epoch_as_they_are() {
        let now = partition(Some(1), &[1, 2, 3], &[]);
        let next = with(&[1, 2], false, |active| without_broker(&now, BrokerId(3), active)).unwrap();
        assert_eq!((next.leader, &next.isr, next.leader_epoch), (Some(BrokerId(1)), &ids(&[1, 2]), LeaderEpoch(0)));
        assert_eq!(with(&[1, 2], false, |active| without_broker(&next, BrokerId(3), active)), None);
    }

    #[test]
    fn who_leaves_an_isr_below_the_minimum_stays_eligible() {
        let now = partition(Some(1), &[1, 2], &[]);
        let alone = with(&[1], false, |active| without_broker(&now, BrokerId(2), active)).unwrap();
        assert_eq!((alone.isr.clone(), alone.elr.clone()), (ids(&[1]), ids(&[2])));
        let nobody = with(&[], false, |active| without_broker(&alone, BrokerId(1), active)).unwrap();
        assert_eq!((nobody.leader, nobody.isr.clone(), nobody.elr.clone()), (None, ids(&[]), ids(&[1, 2])));
        // The one that comes back first leads, and the other is still believed.
        let back = with(&[2], false, |active| with_leader(&nobody, active)).unwrap();
        assert_eq!((back.leader, back.isr, back.elr), (Some(BrokerId(2)), ids(&[2]), ids(&[1])));
        assert_eq!(back.leader_epoch, LeaderEpoch(2));
    }

    #[test]
    fn who_may_have_lost_records_is_not_believed_while_another_may_have_them() {
        let now = partition(None, &[], &[1, 2]);
        let next = with(&[], false, |active| without_trust_in(&now, BrokerId(1), active)).unwrap();
        assert_eq!((next.leader, next.elr.clone()), (None, ids(&[2])));
        assert_eq!(with(&[1], false, |active| with_leader(&next, active)), None, "2 may come back");
        // The last one is the best there is.
        let last = with(&[], false, |active| without_trust_in(&next, BrokerId(2), active)).unwrap();
        assert_eq!((last.isr.clone(), last.elr.clone(), last.last_leader), (ids(&[]), ids(&[]), Some(BrokerId(2))));
        assert_eq!(with(&[1], false, |active| with_leader(&last, active)), None);
        let led = with(&[1, 2], false, |active| with_leader(&last, active)).unwrap();
        assert_eq!((led.leader, led.isr, led.last_leader), (Some(BrokerId(2)), ids(&[2]), None));
    }

    #[test]
    fn a_replica_whose_directory_failed_is_believed_no_more_and_leads_only_once_it_is_there_again() {
        let now = partition(Some(1), &[1, 2, 3], &[]);
        let fail = |now: &PartitionImage, broker, unclean| {
            with(&[1, 2, 3], unclean, |active| with_offline(now, BrokerId(broker), active))
        };
        let next = fail(&now, 1, false).unwrap();
        assert_eq!((next.leader, next.isr.clone(), next.offline.clone()), (Some(BrokerId(2)), ids(&[2, 3]), ids(&[1])));
        assert_eq!((next.leader_epoch, next.partition_epoch), (LeaderEpoch(1), 1));
        assert_eq!(fail(&next, 1, false), None);
        let follower = fail(&next, 3, false).unwrap();
        assert_eq!((follower.leader, follower.leader_epoch), (Some(BrokerId(2)), LeaderEpoch(1)));
        assert_eq!((follower.isr.clone(), follower.elr.clone()), (ids(&[2]), ids(&[])), "it may have lost records");
        // The last one is the best there is, and leads when it is back; nobody else may, unless that is allowed.
        let nobody = fail(&follower, 2, false).unwrap();
        assert_eq!((nobody.leader, nobody.last_leader), (None, Some(BrokerId(2))));
        assert_eq!((nobody.isr.clone(), nobody.offline.clone()), (ids(&[]), ids(&[1, 2, 3])));
        let third = with_online(&nobody, BrokerId(3)).unwrap();
        assert_eq!(with(&[1, 2, 3], false, |active| with_leader(&third, active)), None);
        let unclean = with(&[1, 2, 3], true, |active| with_leader(&third, active)).unwrap();
        assert_eq!((unclean.leader, unclean.isr), (Some(BrokerId(3)), ids(&[3])));
        let back = with_online(&third, BrokerId(2)).unwrap();
        let led = with(&[1, 2, 3], false, |active| with_leader(&back, active)).unwrap();
        assert_eq!((led.leader, led.isr, led.offline), (Some(BrokerId(2)), ids(&[2]), ids(&[1])));
        assert_eq!(with_online(&back, BrokerId(2)), None);
    }

    #[test]
    fn a_leader_that_is_only_aside_stays_whoever_else_goes() {
        // Alone in sync, with a full disk: nobody can take over.
        let now = partition(Some(1), &[1], &[]);
        for unclean in [false, true] {
            for act in [with_offline, without_broker, without_trust_in] {
                let next = with(&[2], unclean, |active| act(&now, BrokerId(3), active)).unwrap_or(now.clone());
                assert_eq!((next.leader, &next.isr, next.leader_epoch), (now.leader, &now.isr, now.leader_epoch));
            }
        }
        // One who leaves the ISR with it takes the leader no more than that.
        let now = partition(Some(1), &[1, 3], &[]);
        for act in [with_offline, without_broker, without_trust_in] {
            let next = with(&[2], true, |active| act(&now, BrokerId(3), active)).unwrap();
            assert_eq!((next.leader, next.isr, next.leader_epoch), (now.leader, ids(&[1]), now.leader_epoch));
        }
    }

    #[test]
    fn a_replica_that_was_eligible_is_not_any_more_when_its_directory_fails() {
        let now = partition(None, &[], &[1, 2]);
        let next = with(&[], false, |active| with_offline(&now, BrokerId(2), active)).unwrap();
        assert_eq!((next.elr.clone(), next.last_leader), (ids(&[1]), None));
        let led = with(&[1, 2], false, |active| with_leader(&next, active)).unwrap();
        assert_eq!((led.leader, led.isr, led.elr), (Some(BrokerId(1)), ids(&[1]), ids(&[])));
        // Who was believed by nobody takes no place by it.
        let last = PartitionImage { last_leader: Some(BrokerId(3)), ..partition(None, &[], &[]) };
        let next = with(&[1, 2], false, |active| with_offline(&last, BrokerId(2), active)).unwrap();
        assert_eq!(next.last_leader, Some(BrokerId(3)));
        assert_eq!(with(&[1], false, |active| with_offline(&last, BrokerId(9), active)), None, "no replica");
    }

    #[test]
    fn only_where_it_is_allowed_does_a_replica_without_all_records_lead() {
        let now = partition(None, &[], &[1]);
        assert_eq!(with(&[3], false, |active| with_leader(&now, active)), None);
        let next = with(&[3], true, |active| with_leader(&now, active)).unwrap();
        assert_eq!((next.leader, next.isr, next.elr), (Some(BrokerId(3)), ids(&[3]), ids(&[])));
    }

    #[test]
    fn an_isr_that_grows_to_the_minimum_needs_no_others_any_more() {
        let now = partition(Some(1), &[1], &[2]);
        let next = with_proposed_isr(&now, &ids(&[3, 1]), 2);
        assert_eq!((next.isr, next.elr, next.partition_epoch), (ids(&[1, 3]), ids(&[]), 1));
        let shrunk = with_proposed_isr(&partition(Some(1), &[1, 2], &[]), &ids(&[1]), 2);
        assert_eq!((shrunk.isr, shrunk.elr), (ids(&[1]), ids(&[2])));
    }

    #[test]
    fn the_preferred_replica_leads_again_once_it_is_in_sync() {
        let now = partition(Some(2), &[2, 3], &[]);
        assert_eq!(with(&[1, 2, 3], false, |active| with_preferred_leader(&now, active)), None);
        let in_sync = PartitionImage { isr: ids(&[1, 2]), ..now };
        let next = with(&[1, 2, 3], false, |active| with_preferred_leader(&in_sync, active)).unwrap();
        assert_eq!((next.leader, next.leader_epoch), (Some(BrokerId(1)), LeaderEpoch(1)));
    }
}
