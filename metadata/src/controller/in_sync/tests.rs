//! The rules, with their numbers.

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
fn an_unclean_election_takes_the_last_leader_before_one_of_whom_nothing_is_known() {
    let now = PartitionImage { last_leader: Some(BrokerId(2)), ..partition(None, &[], &[3]) };
    assert_eq!(with(&[1, 2], false, |active| with_leader(&now, active)), None, "3 may come back");
    let led = with(&[1, 2], true, |active| with_leader(&now, active)).unwrap();
    assert_eq!((led.leader, led.isr, led.elr), (Some(BrokerId(2)), ids(&[2]), ids(&[])));
    let led = with(&[1, 2, 3], true, |active| with_leader(&now, active)).unwrap();
    assert_eq!(led.leader, Some(BrokerId(3)), "it has every record");
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

/// As the store shows it after `broker` came back without its log, and was let in beside `active`.
fn emptied(now: &PartitionImage, broker: u32, active: &[u32]) -> PartitionImage {
    let dirs = [format!("dir-{broker}")];
    let back = with(active, false, |active| with_emptied(now, BrokerId(broker), &dirs, active));
    let back = back.unwrap_or(now.clone());
    let all: Vec<u32> = active.iter().copied().chain([broker]).collect();
    with(&all, false, |active| with_leader(&back, active)).unwrap_or(back)
}

#[test]
fn the_last_replica_in_sync_does_not_lead_without_its_log_until_it_has_that_or_an_operator_allows_it() {
    for (leader, isr, elr, last) in [
        (Some(2), &[2][..], &[][..], None),
        (None, &[], &[2], Some(2)),
        (None, &[2], &[], Some(2)),
        (None, &[], &[], Some(2)),
    ] {
        let now = PartitionImage { last_leader: last.map(BrokerId), ..partition(leader, isr, elr) };
        let next = emptied(&now, 2, &[1]);
        assert_eq!(
            (next.leader, next.isr.clone(), next.elr.clone(), next.last_leader),
            (None, ids(&[]), ids(&[]), None)
        );
        assert_eq!(emptied(&next, 2, &[1]), next, "told again");
        // Another one has something at least, if not all.
        let unclean = |now: &PartitionImage, active: &[u32]| with(active, true, |active| with_leader(now, active));
        let other = unclean(&next, &[2, 3]).unwrap();
        assert_eq!((other.leader, other.isr.clone()), (Some(BrokerId(3)), ids(&[3])));
        assert!(other.emptied.iter().all(|replica| replica.dirs.is_empty()), "its old log counts no more");
        let joined = with_proposed_isr(&other, &ids(&[2, 3]), 2);
        assert_eq!((joined.isr, joined.emptied), (ids(&[2, 3]), vec![]));
        let alone = unclean(&next, &[2]).unwrap();
        assert_eq!((alone.leader, alone.isr, alone.emptied), (Some(BrokerId(2)), ids(&[2]), vec![]));
        // The old disk comes back.
        let found =
            |now: &PartitionImage, dir| with(&[1, 2], false, |active| with_found(now, BrokerId(2), dir, active));
        assert_eq!(found(&next, "dir-1"), None, "another one");
        let back = found(&next, "dir-2").unwrap();
        assert_eq!((back.leader, back.isr, back.emptied), (Some(BrokerId(2)), ids(&[2]), vec![]));
        assert_eq!(found(&other, "dir-2"), None, "somebody has led since");
    }
}

#[test]
fn who_comes_back_without_its_log_takes_nothing_from_others_who_lead_or_can() {
    let led = emptied(&partition(Some(1), &[1, 3], &[]), 2, &[1, 3]);
    assert_eq!((led.leader, led.isr.clone(), led.leader_epoch), (Some(BrokerId(1)), ids(&[1, 3]), LeaderEpoch(0)));
    assert_eq!(led.emptied, [EmptiedReplica { broker: BrokerId(2), dirs: Vec::new() }]);
    // Until it has caught up, anybody else is better.
    let nobody = PartitionImage { leader: None, isr: ids(&[1]), ..led };
    let unclean = with(&[2, 3], true, |active| with_leader(&nobody, active)).unwrap();
    assert_eq!(unclean.leader, Some(BrokerId(3)));
    let in_sync = emptied(&partition(Some(2), &[1, 2, 3], &[]), 2, &[1, 3]);
    assert_eq!(
        (in_sync.leader, in_sync.isr.clone(), in_sync.leader_epoch),
        (Some(BrokerId(1)), ids(&[1, 3]), LeaderEpoch(1))
    );
    let eligible = emptied(&partition(None, &[], &[2, 3]), 2, &[]);
    assert_eq!((eligible.leader, eligible.elr.clone()), (None, ids(&[3])));
    let led = with(&[2, 3], false, |active| with_leader(&eligible, active)).unwrap();
    assert_eq!((led.leader, led.isr), (Some(BrokerId(3)), ids(&[3])));
}

#[test]
fn of_those_without_a_log_the_last_that_was_counted_on_begins_anew() {
    let now = partition(None, &[], &[2, 3]);
    let next = emptied(&emptied(&emptied(&now, 2, &[]), 3, &[2]), 1, &[2, 3]);
    let order: Vec<u32> = next.emptied.iter().map(|replica| replica.broker.0).collect();
    assert_eq!((order, next.leader, next.last_leader), (vec![1, 2, 3], None, None));
    let led = with(&[1, 2, 3], true, |active| with_leader(&next, active)).unwrap();
    assert_eq!(led.leader, Some(BrokerId(3)));
    // One of the two that had all records comes back with them while the other may.
    let next = emptied(&now, 2, &[]);
    let back = with(&[2], false, |active| with_found(&next, BrokerId(2), "dir-2", active)).unwrap();
    assert_eq!((back.leader, back.elr.clone(), back.last_leader), (None, ids(&[3]), Some(BrokerId(2))));
    let back = emptied(&back, 3, &[2]);
    assert_eq!((back.leader, back.isr), (Some(BrokerId(2)), ids(&[2])));
}

#[test]
fn the_only_replica_of_a_partition_begins_anew() {
    let now = PartitionImage { replicas: ids(&[2]), ..partition(None, &[], &[2]) };
    assert_eq!(with(&[1], false, |active| with_emptied(&now, BrokerId(2), &[], active)), None);
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
