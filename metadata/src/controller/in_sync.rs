//! Who is in sync, who leads, and who may lead next: the rules for one partition (KIP-497, KIP-841, KIP-966).
//!
//! ```text
//! ISR   have every committed record, and those that are being committed
//! ELR   left the ISR while it was smaller than min.insync.replicas: they have every committed record too, because
//!       nothing is committed until the ISR is large enough again, and then the ELR is empty
//! last  who led when both became empty: the best that is left, if it comes back with its log
//! ```
//! A broker that comes back after it may have lost records (a power cut) leaves ISR and ELR before it counts as alive, also
//! if it is the last one. A replica whose log directory failed leaves them at once, though its broker lives, and may not come
//! back to them before its broker has the log again (`offline`, KIP-858). One whose broker comes back without the log (`emptied`)
//! leaves them as well, and is not the last leader either: it is the worst that is left. So nobody is elected who lacks a
//! committed record while somebody else may have it. Where the state was restored from a backup nobody is elected by these rules at
//! all (`recovery.rs`).

use super::recovery::forget_told;
use crate::{
    image::{EmptiedReplica, PartitionImage},
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
    pub(super) fn effective_min(&self, partition: &PartitionImage) -> usize {
        effective_min(partition, self.min_in_sync)
    }
}

/// `min.insync.replicas` asks for no more replicas than there are. Those that a move adds are not there yet: a topic of one replica
/// takes records while that one moves.
pub fn effective_min(partition: &PartitionImage, min_in_sync: usize) -> usize {
    min_in_sync.min(partition.replicas.len().saturating_sub(partition.adding.len()))
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
    let mut next = distrusting(partition, broker, circumstances).unwrap_or_else(|| partition.clone());
    forget_told(&mut next, broker);
    if next == *partition {
        return None;
    }
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
    forget_told(&mut next, broker);
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

/// The partition after `broker` came back without its log, which was in one of `dirs`: where it was counted on, others lead, or
/// nobody does before it is back [with that log](with_found) or an operator allows an unclean election. A partition of a single
/// replica is as it was: nobody can have more than that one. `None`: nothing changes.
pub fn with_emptied(
    partition: &PartitionImage,
    broker: BrokerId,
    dirs: &[String],
    circumstances: &Circumstances<'_>,
) -> Option<PartitionImage> {
    let PartitionImage { replicas, isr, elr, leader, last_leader, emptied, .. } = partition;
    if !replicas.contains(&broker) || replicas.len() == 1 {
        return None;
    }
    let is_counted_on = isr.contains(&broker)
        || elr.contains(&broker)
        || *leader == Some(broker)
        || *last_leader == Some(broker)
        || partition.recovery.is_some();
    let is_known = emptied.iter().any(|replica| replica.broker == broker);
    if is_known && (!is_counted_on || partition.recovery.is_some()) {
        return None;
    }
    let mut next = distrusting(partition, broker, circumstances).unwrap_or_else(|| partition.clone());
    forget_told(&mut next, broker);
    next.leader = next.leader.filter(|leader| *leader != broker);
    // Also where it has just become that because nobody else was left.
    next.last_leader = last_leader.filter(|last| *last != broker);
    next.emptied.retain(|replica| replica.broker != broker);
    match is_counted_on {
        true => next.emptied.push(EmptiedReplica { broker, dirs: dirs.to_vec() }),
        false => next.emptied.insert(0, EmptiedReplica { broker, dirs: Vec::new() }),
    }
    changed(partition, led_without(broker, next, circumstances))
}

/// The partition after `broker`, let in again, found the log that it was missing in the directory `dir`: it is the best that is left,
/// if nobody has led meanwhile. `None`: nothing changes.
pub fn with_found(
    partition: &PartitionImage,
    broker: BrokerId,
    dir: &str,
    circumstances: &Circumstances<'_>,
) -> Option<PartitionImage> {
    let mark = partition.emptied.iter().find(|replica| replica.broker == broker)?;
    if !mark.dirs.iter().any(|lost| lost == dir) {
        return None;
    }
    let mut next = partition.clone();
    next.emptied.retain(|replica| replica.broker != broker);
    if next.leader.is_none() {
        next.last_leader = next.last_leader.or(Some(broker));
        next = led(next, circumstances);
    }
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
    let mut next = with_isr(partition, isr, effective_min(partition, min_in_sync));
    forget_emptied(&mut next);
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
pub(super) fn led(mut partition: PartitionImage, circumstances: &Circumstances<'_>) -> PartitionImage {
    if partition.recovery.is_some() {
        return partition;
    }
    let (offline, emptied) = (partition.offline.clone(), partition.emptied.clone());
    let can_lead = |broker: BrokerId| (circumstances.is_active)(broker) && !offline.contains(&broker);
    let has_its_log = |broker: BrokerId| emptied.iter().all(|replica| replica.broker != broker);
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
    // Of those of whom nothing is known, whoever led last lacks least.
    let is_best = nobody_knows_all || circumstances.unclean;
    let last = partition.last_leader.filter(|last| is_best && can_lead(*last) && has_its_log(*last));
    let any = || {
        let behind = partition.replicas.iter().copied().find(|replica| can_lead(*replica) && has_its_log(*replica));
        // Nobody has a record. Whose log was the last that counted knows best where its archive ends.
        let empty = || emptied.iter().rev().map(|replica| replica.broker).find(|replica| can_lead(*replica));
        behind.or_else(empty)
    };
    if let Some(leader) = last.or_else(|| if circumstances.unclean { any() } else { None }) {
        // Records may be lost: whoever has them is no longer believed.
        partition.isr = vec![leader];
        partition.elr.clear();
        partition.leader = Some(leader);
        return partition;
    }
    if let Some(leader) = partition.leader.take() {
        partition.last_leader = Some(leader).filter(|leader| partition.replicas.contains(leader));
    }
    partition
}

/// `next` with the epochs that tell it from `now`; `None` if it is the same.
pub(super) fn changed(now: &PartitionImage, mut next: PartitionImage) -> Option<PartitionImage> {
    forget_emptied(&mut next);
    if next == *now {
        return None;
    }
    // A replica that left must not go on as a follower of the same epoch: if it comes back, it has nothing of what it had fetched.
    let has_left = now.replicas.iter().any(|replica| !next.replicas.contains(replica));
    if next.leader != now.leader || has_left {
        next.leader_epoch = LeaderEpoch(now.leader_epoch.0 + 1);
    }
    if next.leader.is_some() {
        next.last_leader = None;
    }
    next.partition_epoch = now.partition_epoch + 1;
    Some(next)
}

/// Whoever is in sync has all again, and once somebody leads, no log of before counts any more.
pub(super) fn forget_emptied(partition: &mut PartitionImage) {
    let PartitionImage { isr, leader, replicas, emptied, .. } = partition;
    emptied.retain(|replica| replicas.contains(&replica.broker) && !isr.contains(&replica.broker));
    if leader.is_some() {
        emptied.iter_mut().for_each(|replica| replica.dirs.clear());
    }
}

#[cfg(test)]
mod tests;
