//! Partitions of a cluster state that was restored from a backup: who was in sync then may lack what was acknowledged since, so nobody
//! leads before all replicas have told what they have, and whoever has most does (the unclean recovery of KIP-966, with nobody left out).
//!
//! ```text
//! restored ─► no leader, no ISR, a leader epoch far on ─► each replica tells its log ─► all have ─► the greatest log leads
//!                │                                                   └─ one cannot ─► an operator's unclean election: of those that have
//!                └─ who has a log and is no replica, by the backup ─► is one until all of the others are in sync
//! ```
//! Nobody leads before every broker that the backup knows has looked for such stray logs. So no acknowledged record is lost by it, unless
//! only brokers have it that were added since and start later than all of those. Where a replica that was in sync has no log any more, and
//! no stray in its place, an operator is asked.
//!
//! Let E be the newest epoch that any replica knows. Its leader had all that was committed before;
//! what is in a log up to epoch E is what that leader had there, and what was committed in E is in the longest such log. A later epoch,
//! of which no replica knows, has committed nothing. A stray that is left over from some time before does no harm: when a replica leaves,
//! those that stay go on in another epoch, so what was committed since is in one that it lacks.

use uuid::Uuid;

use super::{
    Decision,
    emptied::FoundLogs,
    in_sync::{Circumstances, changed, led},
    tend::{Batches, expect},
};
use crate::{
    image::{ClusterImage, LogExtent, PartitionImage, Recovery, ReplicaLog, record::Key},
    model::{BrokerId, LeaderEpoch, PartitionId, PartitionIndex},
    store::Revision,
};

/// Epochs that a partition may have gone through after the state that is known: who still has a log must not find one of them given
/// anew to somebody else's records.
pub const EPOCHS_SKIPPED: u32 = 1_000;

/// What a replica has to tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// Its log goes so far.
    Log(LogExtent),
    /// There was none when its broker started, and none is known to be lost.
    NoLog,
    /// Nobody can say: it is about to be opened, or cannot be reached.
    Unknown,
}

/// The partition as it is to be after it was restored into the store named `store`. `None`: that was done already.
pub fn with_recovery(partition: &PartitionImage, store: &str) -> Option<PartitionImage> {
    if partition.recovery.as_ref().is_some_and(|recovery| recovery.store == store) {
        return None;
    }
    let PartitionImage { replicas, isr, elr, leader, last_leader, adding, removing, offline, emptied, .. } =
        partition.clone();
    let mut trusted: Vec<BrokerId> = isr.into_iter().chain(elr).chain(leader).chain(last_leader).collect();
    let mut strays = Vec::new();
    if let Some(before) = &partition.recovery {
        trusted.extend(&before.trusted);
        strays.clone_from(&before.strays);
    }
    trusted.retain(|id| replicas.contains(id));
    trusted.sort_unstable();
    trusted.dedup();
    Some(PartitionImage {
        leader_epoch: LeaderEpoch(partition.leader_epoch.0 + EPOCHS_SKIPPED),
        partition_epoch: partition.partition_epoch + EPOCHS_SKIPPED,
        recovery: Some(Recovery { store: store.to_owned(), trusted, strays, told: Vec::new() }),
        replicas,
        adding,
        removing,
        offline,
        emptied,
        ..PartitionImage::default()
    })
}

/// The partition after `broker`, which is no replica of it as far as the backup knows, came with a log: a replica from now on, which goes
/// again by the rules of a move ([`completed`](super::moving::completed)) when all of the others are in sync. `None`: nobody asks, or it is one.
pub fn with_stray(partition: &PartitionImage, broker: BrokerId) -> Option<PartitionImage> {
    let mut next = partition.clone();
    let recovery = next.recovery.as_mut().filter(|_| !partition.replicas.contains(&broker))?;
    recovery.strays.push(broker);
    next.replicas.push(broker);
    next.removing.push(broker);
    next.removing.sort_unstable();
    changed(partition, next)
}

/// The partition after `broker` told what it has. `None`: nobody asks, or it is known.
pub fn with_told(partition: &PartitionImage, broker: BrokerId, extent: Extent) -> Option<PartitionImage> {
    let mark = partition.emptied.iter().find(|replica| replica.broker == broker);
    let log = match extent {
        Extent::Log(log) => Some(log),
        Extent::NoLog if mark.is_none() => None,
        Extent::NoLog | Extent::Unknown => return None,
    };
    // What it has is an empty log in another directory than the one that is missing: with that it comes back (`with_found`).
    if mark.is_some_and(|mark| !mark.dirs.is_empty()) {
        return None;
    }
    if !partition.replicas.contains(&broker) || partition.offline.contains(&broker) {
        return None;
    }
    let mut next = partition.clone();
    let told = &mut next.recovery.as_mut()?.told;
    let had_none = told.iter().any(|one| one.broker == broker && one.log.is_none());
    // The next life of a broker finds the empty log that the one before has made meanwhile.
    let log = log.filter(|log| log.epoch.is_some() || !had_none);
    told.retain(|one| one.broker != broker);
    told.push(ReplicaLog { broker, log });
    told.sort_unstable_by_key(|one| one.broker);
    if log.is_some() {
        // What it is missing is here, in whatever directory.
        next.emptied.retain(|replica| replica.broker != broker);
    }
    changed(partition, next)
}

/// Nothing that `broker` told counts any more: its log failed, or may be shorter now.
pub(super) fn forget_told(partition: &mut PartitionImage, broker: BrokerId) {
    if let Some(recovery) = &mut partition.recovery {
        recovery.told.retain(|one| one.broker != broker);
    }
}

/// The partition led by whoever has most. Waits until every replica has told, unless this is `unclean`: then it is the best of those that
/// have and live. `None`: nobody can lead yet, or this is no partition in recovery.
pub fn with_recovered(
    partition: &PartitionImage,
    circumstances: &Circumstances<'_>,
    unclean: bool,
) -> Option<PartitionImage> {
    let recovery = partition.recovery.as_ref()?;
    if !unclean && !is_known(&partition.replicas, recovery) {
        return None;
    }
    let told = &recovery.told;
    let can_lead = |broker: BrokerId| (circumstances.is_active)(broker) && !partition.offline.contains(&broker);
    let extent = |broker: BrokerId| told.iter().find(|one| one.broker == broker).and_then(|one| one.log);
    // The first of the replicas that have as much is the preferred one.
    let logs = partition.replicas.iter().rev().filter_map(|&broker| Some((extent(broker)?, broker)));
    // Records that were deleted or archived were committed: who does not reach as far lacks some.
    let committed = told.iter().filter_map(|one| one.log.filter(|log| log.epoch.is_none())).map(|log| log.end).max();
    let logs = logs.filter(|(log, _)| Some(log.end) >= committed);
    let best = match unclean {
        true => logs.filter(|(_, broker)| can_lead(*broker)).max_by_key(|(log, _)| *log),
        // The best of all, and of those that have as much one that can.
        false => logs.max_by_key(|(log, broker)| (*log, can_lead(*broker))).filter(|(_, broker)| can_lead(*broker)),
    };
    let mut next = PartitionImage { recovery: None, isr: vec![], elr: vec![], last_leader: None, ..partition.clone() };
    match best {
        Some((_, leader)) => {
            next.isr = vec![leader];
            next.leader = Some(leader);
        }
        // Nobody is known to have anything.
        None if unclean => next = led(next, circumstances),
        None => return None,
    }
    next.leader?;
    let newest = told.iter().filter_map(|one| one.log?.epoch).max();
    let mut next = changed(partition, next)?;
    if let Some(LeaderEpoch(newest)) = newest {
        // Somebody who has not told may know later ones: a backup can be restored more than once.
        next.leader_epoch = next.leader_epoch.max(LeaderEpoch(newest + EPOCHS_SKIPPED));
    }
    Some(next)
}

/// Whether every replica has told, and nobody else is to be expected who has more.
fn is_known(replicas: &[BrokerId], Recovery { trusted, strays, told, .. }: &Recovery) -> bool {
    let is_stray = |one: &&ReplicaLog| strays.contains(&one.broker);
    let has_told = |replica: &BrokerId| told.iter().any(|one| one.broker == *replica);
    // Who was in sync and has no log: what it had was moved or lost, and somebody else may have more. A stray may be whom it was moved
    // to, and stands for one of them. It had a log itself.
    let lack = told.iter().filter(|one| one.log.is_none() && trusted.contains(&one.broker)).count();
    let stand_in = told.iter().filter(is_stray).filter(|one| one.log.is_some()).count();
    let has_lost = told.iter().filter(is_stray).any(|one| one.log.is_none());
    replicas.iter().all(has_told) && lack <= stand_in && !has_lost
}

/// How a restored state is taken up.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RecoveryStart {
    /// Each is independent of the others, and none counts once somebody has done all of them.
    pub decisions: Vec<Decision>,
    /// Of so many partitions.
    pub partitions: usize,
}

/// What is left to do before a state that was restored into the store named `store` is taken up; `written`: the revision of the key that
/// names the store before.
pub fn recovery_starts(image: &ClusterImage, store: &str, written: Revision) -> RecoveryStart {
    let (mut batches, mut partitions) = (Batches::default(), 0);
    for topic in image.topics().values() {
        for (partition, index) in topic.partitions.iter().zip(0..) {
            if let Some(next) = with_recovery(partition, store) {
                batches.put(topic, index, &next);
                partitions += 1;
            }
        }
    }
    let mut decisions = batches.done();
    for decision in &mut decisions {
        expect(decision, &Key::Store, Some(written));
    }
    RecoveryStart { decisions, partitions }
}

/// What there is to tell of the logs that were `found` when `node` started, of partitions of which it is no replica by the restored state.
/// Each is independent of the others. None of them may be opened or set aside before this is told.
pub fn strays(image: &ClusterImage, node: BrokerId, found: &FoundLogs) -> Vec<Decision> {
    let mut batches = Batches::default();
    for topic in image.topics().values() {
        for (partition, index) in topic.partitions.iter().zip(0..) {
            let id = PartitionId { topic: topic.id, index: PartitionIndex(index) };
            if partition.recovery.is_some()
                && found.logs.contains_key(&id)
                && let Some(next) = with_stray(partition, node)
            {
                batches.put(topic, index, &next);
            }
        }
    }
    batches.done()
}

/// What the cluster is to be told of one broker's logs.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RecoveryLogs {
    /// Each is independent of the others.
    pub decisions: Vec<Decision>,
    /// Nobody is asked, in no partition.
    pub is_settled: bool,
}

/// What there is to tell of the logs of `node`, once its present `life` was let in. Nothing, if another life has registered.
pub fn recovery_logs(
    image: &ClusterImage,
    (node, life): (BrokerId, Uuid),
    extent: &dyn Fn(PartitionId) -> Extent,
) -> RecoveryLogs {
    let broker = image.brokers().get(&node).filter(|broker| broker.incarnation == life && !broker.fenced);
    if broker.is_none() {
        return RecoveryLogs::default();
    }
    let (mut batches, mut is_settled) = (Batches::default(), true);
    for topic in image.topics().values() {
        for (partition, index) in topic.partitions.iter().zip(0..) {
            if partition.recovery.is_none() {
                continue;
            }
            // A move may ask others.
            is_settled = false;
            let extent = || extent(PartitionId { topic: topic.id, index: PartitionIndex(index) });
            if partition.replicas.contains(&node)
                && let Some(next) = with_told(partition, node, extent())
            {
                batches.put(topic, index, &next);
            }
        }
    }
    let mut decisions = batches.done();
    for decision in &mut decisions {
        expect(decision, &Key::Broker(node), image.membership().registered(node));
    }
    RecoveryLogs { decisions, is_settled }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Offset;

    const STORE: &str = "another";

    fn log(epoch: u32, end: u64) -> Extent {
        Extent::Log(LogExtent { epoch: Some(LeaderEpoch(epoch)), end: Offset::new(end).unwrap() })
    }

    /// Led by 1, as the backup has it.
    fn restored() -> PartitionImage {
        let replicas: Vec<BrokerId> = (1..=3).map(BrokerId).collect();
        PartitionImage {
            isr: replicas.clone(),
            replicas,
            leader: Some(BrokerId(1)),
            leader_epoch: LeaderEpoch(4),
            partition_epoch: 9,
            ..PartitionImage::default()
        }
    }

    fn told(logs: &[(u32, Extent)]) -> PartitionImage {
        let begun = with_recovery(&restored(), STORE).unwrap();
        logs.iter().fold(begun, |now, (broker, extent)| with_told(&now, BrokerId(*broker), *extent).unwrap())
    }

    fn recovered(partition: &PartitionImage, active: &[u32], unclean: bool) -> Option<PartitionImage> {
        let is_active = |id: BrokerId| active.contains(&id.0);
        let circumstances = Circumstances { is_active: &is_active, min_in_sync: 2, unclean: true };
        with_recovered(partition, &circumstances, unclean)
    }

    #[test]
    fn whoever_has_most_leads_once_all_have_told_and_in_an_epoch_that_nobody_had() {
        let begun = with_recovery(&restored(), STORE).unwrap();
        assert_eq!((begun.leader, begun.isr.len(), begun.leader_epoch), (None, 0, LeaderEpoch(1004)));
        assert_eq!(with_recovery(&begun, STORE), None, "once");
        assert!(with_recovery(&begun, "a third one").is_some());

        let two = told(&[(1, log(4, 900)), (2, log(6, 700))]);
        assert_eq!(recovered(&two, &[1, 2, 3], false), None, "of the third nobody knows");
        let all = with_told(&two, BrokerId(3), log(6, 650)).unwrap();
        let led = recovered(&all, &[1, 2, 3], false).unwrap();
        assert_eq!((led.leader, led.isr, led.recovery), (Some(BrokerId(2)), vec![BrokerId(2)], None));
        assert_eq!(led.leader_epoch, LeaderEpoch(1006));
        assert_eq!(recovered(&all, &[1, 3], false), None, "it is waited for, also if it ends after it told");

        // Restored once more from the same backup.
        let far_on = told(&[(1, log(1007, 900)), (2, log(6, 700)), (3, log(6, 700))]);
        let led = recovered(&far_on, &[1, 2, 3], false).unwrap();
        assert_eq!((led.leader, led.leader_epoch), (Some(BrokerId(1)), LeaderEpoch(2007)), "others may know of 1010");
    }

    #[test]
    fn a_log_that_the_backup_does_not_know_of_counts_and_its_replica_goes_when_the_others_have_caught_up() {
        use crate::controller::{in_sync::with_proposed_isr, moving::completed};
        let two = told(&[(1, log(4, 900)), (2, log(4, 900))]);
        assert_eq!(with_stray(&two, BrokerId(2)), None, "it is a replica");
        let stray = with_stray(&two, BrokerId(7)).unwrap();
        let ids = |ids: &[u32]| ids.iter().copied().map(BrokerId).collect::<Vec<_>>();
        assert_eq!((&stray.replicas, &stray.removing), (&ids(&[1, 2, 3, 7]), &ids(&[7])));
        let told_by_three = with_told(&stray, BrokerId(3), log(4, 900)).unwrap();
        assert_eq!(recovered(&told_by_three, &[1, 2, 3, 7], false), None, "it has not told");
        let all = with_told(&told_by_three, BrokerId(7), log(5, 950)).unwrap();
        let led = recovered(&all, &[1, 2, 3, 7], false).unwrap();
        assert_eq!((led.leader, led.leader_epoch), (Some(BrokerId(7)), LeaderEpoch(1005)));
        assert_eq!(with_stray(&led, BrokerId(8)), None, "too late");

        let is_active = |_| true;
        let circumstances = Circumstances { is_active: &is_active, min_in_sync: 2, unclean: false };
        let most = with_proposed_isr(&led, &ids(&[1, 2, 7]), 2);
        assert_eq!(completed(&most, &circumstances), None);
        let done = completed(&with_proposed_isr(&most, &ids(&[1, 2, 3, 7]), 2), &circumstances).unwrap();
        assert_eq!((done.replicas, done.removing, done.leader), (ids(&[1, 2, 3]), ids(&[]), Some(BrokerId(1))));

        // Left over from some time before.
        let stale = with_told(&told_by_three, BrokerId(7), log(3, 950)).unwrap();
        assert_eq!(recovered(&stale, &[1, 2, 3, 7], false).unwrap().leader, Some(BrokerId(1)));
        // It had a log when it started.
        let lost = with_told(&told_by_three, BrokerId(7), Extent::NoLog).unwrap();
        assert_eq!(recovered(&lost, &[1, 2, 3, 7], false), None);
        let again = with_recovery(&stray, "a third one").unwrap();
        assert_eq!((again.replicas, again.recovery.unwrap().strays), (ids(&[1, 2, 3, 7]), ids(&[7])));
    }

    #[test]
    fn a_stray_stands_for_one_that_was_in_sync_and_has_no_log_any_more() {
        let moved = told(&[(1, log(4, 900)), (2, log(4, 900)), (3, Extent::NoLog)]);
        assert_eq!(recovered(&moved, &[1, 2, 3, 7], false), None);
        let seven = with_told(&with_stray(&moved, BrokerId(7)).unwrap(), BrokerId(7), log(5, 950)).unwrap();
        assert_eq!(recovered(&seven, &[1, 2, 3, 7], false).unwrap().leader, Some(BrokerId(7)));
        let two_moved = told(&[(1, log(4, 900)), (2, Extent::NoLog), (3, Extent::NoLog)]);
        let seven = with_told(&with_stray(&two_moved, BrokerId(7)).unwrap(), BrokerId(7), log(5, 950)).unwrap();
        assert_eq!(recovered(&seven, &[1, 2, 3, 7], false), None, "where is the other?");
        assert_eq!(recovered(&seven, &[1, 2, 3, 7], true).unwrap().leader, Some(BrokerId(7)));
    }

    #[test]
    fn of_those_that_have_as_much_the_preferred_one_leads_if_it_can() {
        let all = told(&[(1, log(6, 700)), (2, log(6, 700)), (3, log(6, 700))]);
        assert_eq!(recovered(&all, &[1, 2, 3], false).unwrap().leader, Some(BrokerId(1)));
        assert_eq!(recovered(&all, &[2, 3], false).unwrap().leader, Some(BrokerId(2)));
    }

    #[test]
    fn an_operator_may_go_on_without_those_that_cannot_tell() {
        let two = told(&[(1, log(4, 900)), (2, log(6, 700))]);
        assert_eq!(recovered(&two, &[1, 2], true).unwrap().leader, Some(BrokerId(2)));
        assert_eq!(recovered(&two, &[1, 3], true).unwrap().leader, Some(BrokerId(1)));
        assert_eq!(recovered(&two, &[3], true).unwrap().leader, Some(BrokerId(3)), "better than nobody");
        assert_eq!(recovered(&two, &[], true), None);
    }

    #[test]
    fn where_nobody_has_a_log_somebody_else_may_have_one() {
        let none = told(&[(1, Extent::NoLog), (2, Extent::NoLog), (3, Extent::NoLog)]);
        assert_eq!(recovered(&none, &[1, 2, 3], false), None);
        assert!(recovered(&none, &[1, 2, 3], true).is_some());
    }

    #[test]
    fn a_disk_that_is_lost_tells_nothing_until_it_is_back() {
        use crate::controller::in_sync::with_emptied;
        let begun = with_recovery(&restored(), STORE).unwrap();
        let is_active = |_| true;
        let circumstances = Circumstances { is_active: &is_active, min_in_sync: 2, unclean: true };
        let emptied = with_emptied(&begun, BrokerId(3), &["d".to_owned()], &circumstances).unwrap();
        assert_eq!(emptied.leader, None, "no election before all have told, wherever it is allowed to lose records");
        assert_eq!(with_told(&emptied, BrokerId(3), Extent::NoLog), None);
        // The next life finds the log that this one has made.
        let empty = Extent::Log(LogExtent { epoch: None, end: Offset::ZERO });
        assert_eq!(with_told(&emptied, BrokerId(3), empty), None);
        let found = crate::controller::in_sync::with_found(&emptied, BrokerId(3), "d", &circumstances).unwrap();
        assert_eq!(found.leader, None);
        assert!(with_told(&found, BrokerId(3), log(6, 700)).is_some(), "its disk is back");
    }

    #[test]
    fn who_was_in_sync_and_has_no_log_any_more_is_for_an_operator_to_judge() {
        let empty = Extent::Log(LogExtent { epoch: None, end: Offset::ZERO });
        let moved = told(&[(1, log(4, 900)), (2, Extent::NoLog), (3, log(4, 900))]);
        assert_eq!(recovered(&moved, &[1, 2, 3], false), None, "somebody else may have had it since");
        assert_eq!(recovered(&moved, &[1, 2, 3], true).unwrap().leader, Some(BrokerId(1)));
        // The next life finds the log that this one has made.
        assert_eq!(with_told(&moved, BrokerId(2), empty), None);
        let new = told(&[(1, empty), (2, empty), (3, empty)]);
        assert_eq!(recovered(&new, &[1, 2, 3], false).unwrap().leader, Some(BrokerId(1)), "nobody ever wrote to it");
        let outside = PartitionImage { isr: vec![BrokerId(1)], ..restored() };
        let begun = with_recovery(&outside, STORE).unwrap();
        let all = [(1, log(4, 900)), (2, Extent::NoLog), (3, log(4, 700))]
            .iter()
            .fold(begun, |now, (broker, extent)| with_told(&now, BrokerId(*broker), *extent).unwrap());
        assert_eq!(recovered(&all, &[1, 2, 3], false).unwrap().leader, Some(BrokerId(1)), "nobody counted on it");
    }

    /// Retention has deleted all, and after a restart such a log knows no epoch.
    #[test]
    fn who_ends_before_what_was_deleted_does_not_lead() {
        let emptied = |end| Extent::Log(LogExtent { epoch: None, end: Offset::new(end).unwrap() });
        let all = told(&[(1, log(4, 20)), (2, emptied(30)), (3, emptied(30))]);
        for unclean in [false, true] {
            let led = recovered(&all, &[1, 2, 3], unclean).unwrap();
            assert_eq!((led.leader, led.leader_epoch), (Some(BrokerId(2)), LeaderEpoch(1005)));
        }
        let further = told(&[(1, log(4, 40)), (2, emptied(30)), (3, emptied(30))]);
        assert_eq!(recovered(&further, &[1, 2, 3], false).unwrap().leader, Some(BrokerId(1)));
    }

    #[test]
    fn what_was_told_by_who_may_have_lost_records_since_does_not_count() {
        use crate::controller::in_sync::{with_offline, without_trust_in};
        let all = told(&[(1, log(4, 900)), (2, log(6, 700)), (3, log(6, 650))]);
        let is_active = |_| true;
        let circumstances = Circumstances { is_active: &is_active, min_in_sync: 2, unclean: true };
        for next in [
            without_trust_in(&all, BrokerId(2), &circumstances).unwrap(),
            with_offline(&all, BrokerId(2), &circumstances).unwrap(),
        ] {
            assert_eq!((next.leader, recovered(&next, &[1, 2, 3], false)), (None, None));
        }
    }
}
