//! Quotas, features, reassignments, elections and the end of a broker.

use std::collections::BTreeSet;

use super::*;
use crate::{
    image::{PartitionImage, record::PartitionRecord},
    model::{Feature, LeaderEpoch, PartitionIndex, QuotaEntity, QuotaKey, QuotaName},
};

fn quota(entity: &[(&str, Option<&str>)], changes: &[(&str, Option<f64>)]) -> AlterQuota {
    AlterQuota {
        entity: entity.iter().map(|(kind, name)| ((*kind).to_owned(), name.map(str::to_owned))).collect(),
        changes: changes.iter().map(|(key, value)| ((*key).to_owned(), *value)).collect(),
    }
}

/// The one result of one change, which is then made.
fn alter_quota(
    cluster: &mut Cluster,
    entity: &[(&str, Option<&str>)],
    changes: &[(&str, Option<f64>)],
) -> Result<(), QuotaError> {
    let (results, decision) = alter_client_quotas(cluster.image(), &[quota(entity, changes)], &BTreeSet::new());
    cluster.take(decision);
    results.into_values().next().expect("one entity, one result")
}

#[test]
fn quotas_are_set_changed_and_removed_with_their_last_value() {
    let mut cluster = Cluster::of(&[(1, false)]);
    let alice = QuotaEntity::User(QuotaName::Named("alice".into()));
    let of = |cluster: &Cluster| cluster.image().quotas().get(&alice).cloned();
    let entity = [("user", Some("alice"))];
    alter_quota(&mut cluster, &entity, &[("producer_byte_rate", Some(1024.0)), ("request_percentage", Some(12.5))])
        .unwrap();
    alter_quota(&mut cluster, &entity, &[("producer_byte_rate", Some(2048.0))]).unwrap();
    let expected = [(QuotaKey::ProducerByteRate, 2048.0), (QuotaKey::RequestPercentage, 12.5)];
    assert_eq!(of(&cluster), Some(expected.into()));
    alter_quota(&mut cluster, &entity, &[("producer_byte_rate", None), ("request_percentage", None)]).unwrap();
    assert_eq!(of(&cluster), None);
    assert!(!cluster.stored.keys().any(|key| key.starts_with("quotas/")));
}

#[test]
fn quotas_that_cannot_be_are_refused_in_kafkas_words() {
    let mut cluster = Cluster::of(&[(1, false)]);
    let user = [("user", Some("u"))];
    let ip = [("ip", Some("10.0.0.1"))];
    let rate = "producer_byte_rate";
    let mut refused = |entity: &[(&str, Option<&str>)], key: &str, value: f64| {
        alter_quota(&mut cluster, entity, &[(key, Some(value))]).unwrap_err().to_string()
    };
    assert_eq!(refused(&[], rate, 1.0), "Invalid empty client quota entity");
    assert_eq!(refused(&[("group", Some("g"))], rate, 1.0), "Unhandled client quota entity type: group");
    assert_eq!(refused(&[("client-id", Some(""))], rate, 1.0), "Empty client-id not supported");
    assert!(refused(&[("ip", None), ("user", None)], rate, 1.0).starts_with("Invalid quota entity combination"));
    assert_eq!(refused(&user, "connection_creation_rate", 1.0), "Invalid configuration key connection_creation_rate");
    assert_eq!(refused(&ip, rate, 1.0), "Invalid configuration key producer_byte_rate");
    assert_eq!(refused(&user, rate, 0.0), "Quota producer_byte_rate must be greater than 0");
    assert_eq!(refused(&user, rate, f64::NAN), "Quota producer_byte_rate must be greater than 0");
    assert_eq!(refused(&user, rate, 1.5), "producer_byte_rate cannot be a fractional value.");
    assert_eq!(refused(&user, rate, 1e30), "Proposed value for producer_byte_rate is too large for a LONG.");
    assert_eq!(
        refused(&ip, "connection_creation_rate", 3e9),
        "Proposed value for connection_creation_rate is too large for an INT."
    );
    let none = ["x".to_owned()].into();
    let (results, _) = alter_client_quotas(cluster.image(), &[quota(&[("ip", Some("x"))], &[])], &none);
    assert_eq!(results.into_values().next(), Some(Err(QuotaError::NoAddress("x".into()))));
}

#[test]
fn an_entity_that_is_named_twice_is_changed_once() {
    let mut cluster = Cluster::of(&[(1, false)]);
    let one = quota(&[("user", None)], &[("producer_byte_rate", Some(1.0))]);
    let two = quota(&[("user", None)], &[("producer_byte_rate", Some(2.0))]);
    let (results, decision) = alter_client_quotas(cluster.image(), &[one, two], &BTreeSet::new());
    cluster.take(decision);
    let text = "Ignoring duplicate entity ClientQuotaEntity(entries={user=null})";
    assert_eq!(results.into_values().map(|result| result.unwrap_err().to_string()).collect::<Vec<_>>(), [text]);
    let quotas = cluster.image().quotas().get(&QuotaEntity::User(QuotaName::Default)).cloned();
    assert_eq!(quotas, Some([(QuotaKey::ProducerByteRate, 1.0)].into()));
}

#[test]
fn feature_levels_move_only_where_they_may() {
    let cluster = Cluster::of(&[(1, false)]);
    let Feature { name, max, .. } = Feature::METADATA_VERSION;
    let max = max as i16;
    let update = |name: &str, level, direction| {
        let update = FeatureUpdate { name: name.to_owned(), level, direction };
        update_features(cluster.image(), &[update], BrokerId(1)).0.map_err(|error| error.to_string())
    };
    assert_eq!(update(name, max, FeatureMove::Upgrade), Ok(()));
    let refused = |outcome: Result<(), String>| outcome.unwrap_err();
    assert_eq!(
        refused(update(name, max + 1, FeatureMove::Upgrade)),
        "Invalid update version 31 for feature metadata.version. Local controller 1 only supports versions 7-30"
    );
    assert!(refused(update(name, max - 1, FeatureMove::Upgrade)).contains("Can't downgrade the version"));
    assert!(refused(update(name, max - 1, FeatureMove::SafeDowngrade)).contains("might delete metadata"));
    assert!(refused(update(name, max - 1, FeatureMove::UnsafeDowngrade)).contains("not supported in this version"));
    assert!(refused(update(name, -1, FeatureMove::Upgrade)).contains("less than 0"));
    assert!(refused(update(name, max, FeatureMove::Unknown)).contains("does not support the given upgrade type"));
    assert!(refused(update("nothing.version", 1, FeatureMove::Upgrade)).contains("does not support this feature"));
    assert_eq!(cluster.image().feature_level(name), 30);
    assert_eq!(cluster.image().feature_level("nothing.version"), 0);
}

/// A cluster of four brokers, the last of which is down, with a topic of one partition.
fn moving_cluster(replicas: &[u32], isr: &[u32], adding: &[u32], removing: &[u32]) -> Cluster {
    let mut cluster = Cluster::of(&[(1, false), (2, false), (3, false), (4, true)]).with_topic("t", 1, 1);
    let ids = |ids: &[u32]| -> Vec<BrokerId> { ids.iter().copied().map(BrokerId).collect() };
    let partition = PartitionImage {
        replicas: ids(replicas),
        isr: ids(isr),
        leader: isr.first().copied().map(BrokerId),
        leader_epoch: LeaderEpoch(5),
        partition_epoch: 9,
        adding: ids(adding),
        removing: ids(removing),
        ..PartitionImage::default()
    };
    let (id, _) = cluster.image().topic("t").unwrap().partition(PartitionIndex(0)).unwrap();
    let mut decision = Decision::default();
    decision.put(&Key::Partition(id), crate::image::record::encode(PartitionRecord::of(&partition)));
    cluster.take(decision);
    cluster
}

fn reassign(cluster: &mut Cluster, replicas: Option<&[i32]>) -> Result<(), ReassignError> {
    let asked = Reassignment { topic: "t".into(), index: 0, replicas: replicas.map(<[i32]>::to_vec) };
    let (mut results, decision) = reassign_partitions(cluster.image(), &[asked], false);
    cluster.take(decision);
    results.remove(0)
}

/// Replicas, ISR, those being added and removed, leader, leader epoch.
type Shown = (Vec<u32>, Vec<u32>, Vec<u32>, Vec<u32>, Option<u32>, u32);

fn partition(cluster: &Cluster) -> Shown {
    let (_, found) = cluster.image().topic("t").unwrap().partition(PartitionIndex(0)).unwrap();
    let ids = |ids: &[BrokerId]| ids.iter().map(|id| id.0).collect();
    (
        ids(&found.replicas),
        ids(&found.isr),
        ids(&found.adding),
        ids(&found.removing),
        found.leader.map(|id| id.0),
        found.leader_epoch.0,
    )
}

#[test]
fn a_replica_that_must_catch_up_is_added_and_waited_for() {
    let mut cluster = moving_cluster(&[1, 2], &[1, 2], &[], &[]);
    reassign(&mut cluster, Some(&[2, 3])).unwrap();
    assert_eq!(partition(&cluster), (vec![2, 3, 1], vec![1, 2], vec![3], vec![1], Some(1), 5));
    reassign(&mut cluster, None).unwrap();
    assert_eq!(partition(&cluster), (vec![2, 1], vec![1, 2], vec![], vec![], Some(1), 6));
    assert_eq!(reassign(&mut cluster, None), Err(ReassignError::NothingInProgress));
}

#[test]
fn a_change_without_new_replicas_is_complete_at_once() {
    let mut cluster = moving_cluster(&[1, 2, 3], &[1, 2, 3], &[], &[]);
    reassign(&mut cluster, Some(&[3, 2, 1])).unwrap();
    assert_eq!(partition(&cluster), (vec![3, 2, 1], vec![1, 2, 3], vec![], vec![], Some(1), 5));
    reassign(&mut cluster, Some(&[3, 2])).unwrap();
    assert_eq!(partition(&cluster), (vec![3, 2], vec![2, 3], vec![], vec![], Some(3), 6));
    reassign(&mut cluster, Some(&[3, 2])).unwrap();
    assert_eq!(partition(&cluster).5, 6, "nothing to change, nothing changed");
}

#[test]
fn impossible_assignments_are_refused() {
    let mut cluster = moving_cluster(&[1], &[1], &[], &[]);
    let mut refused = |replicas: &[i32]| reassign(&mut cluster, Some(replicas)).unwrap_err().to_string();
    assert!(refused(&[]).contains("empty replica list"));
    assert!(refused(&[9]).contains("no such broker is registered"));
    assert!(refused(&[1, 1]).contains("more than once"));
    let two = Reassignment { topic: "t".into(), index: 0, replicas: Some(vec![1, 2]) };
    let (results, _) = reassign_partitions(cluster.image(), std::slice::from_ref(&two), true);
    assert_eq!(results, [Err(ReassignError::ReplicationFactor { from: 1, to: 2 })]);
    let elsewhere = |topic: &str, index| Reassignment { topic: topic.into(), index, ..two.clone() };
    let (results, _) = reassign_partitions(cluster.image(), &[elsewhere("x", 0), elsewhere("t", 7)], false);
    assert!(matches!(results[..], [Err(ReassignError::UnknownTopic(_)), Err(ReassignError::UnknownPartition { .. })]));
}

#[test]
fn a_reassignment_whose_old_replicas_lost_records_is_not_cancelled() {
    let mut cluster = moving_cluster(&[2, 1], &[2], &[2], &[1]);
    let refused = reassign(&mut cluster, None).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "Unable to revert partition assignment for t:0 because it would require an unclean leader election."
    );
}

#[test]
fn a_reassignment_is_not_cancelled_where_too_few_would_have_what_was_acknowledged() {
    let mut cluster = moving_cluster(&[3, 2, 1], &[1, 3], &[3], &[1]);
    cluster.alter(AlterResource::Topic("t".into()), &[("min.insync.replicas", ConfigOp::Set("2".into()))]).unwrap();
    let refused = reassign(&mut cluster, None).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "Unable to revert partition assignment for t:0 because fewer than min.insync.replicas would be in sync."
    );
    assert_eq!(partition(&cluster).0, vec![3, 2, 1]);
    reassign(&mut cluster, Some(&[1, 3])).unwrap();
    assert_eq!(partition(&cluster), (vec![1, 3], vec![1, 3], vec![], vec![], Some(1), 6));
}

#[test]
fn elections_make_the_preferred_replica_lead_if_it_can() {
    let elect = |cluster: &mut Cluster, election, index| {
        let (mut results, decision) = elect_leaders(cluster.image(), election, &[("t".to_owned(), index)]);
        cluster.take(decision);
        results.remove(0)
    };
    let mut cluster = moving_cluster(&[2, 1], &[1, 2], &[], &[]);
    assert_eq!(elect(&mut cluster, Election::Preferred, 0), Ok(()));
    assert_eq!((partition(&cluster).4, partition(&cluster).5), (Some(2), 6));
    assert_eq!(elect(&mut cluster, Election::Preferred, 0), Err(ElectError::NotNeeded));
    assert_eq!(elect(&mut cluster, Election::Unclean, 0), Err(ElectError::NotNeeded));
    assert!(matches!(elect(&mut cluster, Election::Preferred, 4), Err(ElectError::UnknownPartition { .. })));
    let mut cluster = moving_cluster(&[4, 1], &[1], &[], &[]);
    assert_eq!(elect(&mut cluster, Election::Preferred, 0), Err(ElectError::PreferredNotAvailable));
    let mut cluster = moving_cluster(&[4, 1], &[], &[], &[]);
    assert_eq!(elect(&mut cluster, Election::Unclean, 0), Ok(()));
    assert_eq!(partition(&cluster), (vec![4, 1], vec![1], vec![], vec![], Some(1), 6));
    let mut cluster = moving_cluster(&[4], &[], &[], &[]);
    assert_eq!(elect(&mut cluster, Election::Unclean, 0), Err(ElectError::NoneEligible));
}

#[test]
fn only_a_broker_that_is_down_is_forgotten() {
    let mut cluster = Cluster::of(&[(1, false), (2, true)]);
    assert_eq!(unregister_broker(cluster.image(), 3).0, Err(UnregisterError::NotRegistered(3)));
    assert_eq!(unregister_broker(cluster.image(), -1).0, Err(UnregisterError::NotRegistered(-1)));
    assert_eq!(unregister_broker(cluster.image(), 1).0, Err(UnregisterError::Running(BrokerId(1))));
    let (result, decision) = unregister_broker(cluster.image(), 2);
    cluster.take(decision);
    assert_eq!(result, Ok(()));
    assert!(!cluster.image().brokers().contains_key(&BrokerId(2)));
}
