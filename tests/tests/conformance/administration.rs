//! Quotas, reassignments, elections, moves between log directories, features, the quorum, and the list of what can have settings.

use anyhow::Result;
use kafka_protocol::messages::{
    AlterClientQuotasRequest, AlterPartitionReassignmentsRequest, AlterReplicaLogDirsRequest, BrokerId,
    DescribeClientQuotasRequest, DescribeQuorumRequest, ElectLeadersRequest, GetTelemetrySubscriptionsRequest,
    ListConfigResourcesRequest, ListPartitionReassignmentsRequest, PushTelemetryRequest, UnregisterBrokerRequest,
    UpdateFeaturesRequest,
    alter_client_quotas_request::{EntityData, EntryData, OpData},
    alter_partition_reassignments_request::{ReassignablePartition, ReassignableTopic},
    alter_replica_log_dirs_request::{AlterReplicaLogDir, AlterReplicaLogDirTopic},
    describe_client_quotas_request::ComponentData,
    describe_quorum_request::{PartitionData, TopicData},
    elect_leaders_request::TopicPartitions,
    list_partition_reassignments_request::ListPartitionReassignmentsTopics,
    update_features_request::FeatureUpdateKey,
};
use uuid::Uuid;
use varve_tests::differential::Pair;

use super::{
    request::{text, topic, versions},
    topics::{catch_up, make, new},
};

pub(crate) fn script(pair: &mut Pair) -> Result<()> {
    make(pair, new("moves", 2, 1))?;
    alter_quotas(pair)?;
    catch_up(pair, "quotas-altered")?;
    describe_quotas(pair)?;
    reassignments(pair)?;
    elections(pair)?;
    log_dirs(pair)?;
    features(pair)?;
    cluster(pair)?;
    telemetry(pair)
}

type Entity<'a> = &'a [(&'a str, Option<&'a str>)];
/// Name, value, whether it is removed.
type Op<'a> = (&'a str, f64, bool);

fn quota(entity: Entity<'_>, ops: &[Op<'_>]) -> EntryData {
    let parts = entity
        .iter()
        .map(|(kind, name)| EntityData::default().with_entity_type(text(kind)).with_entity_name(name.map(text)));
    let ops = ops
        .iter()
        .map(|(key, value, remove)| OpData::default().with_key(text(key)).with_value(*value).with_remove(*remove));
    EntryData::default().with_entity(parts.collect()).with_ops(ops.collect())
}

fn alter_quotas(pair: &mut Pair) -> Result<()> {
    const RATE: &str = "producer_byte_rate";
    let user: Entity<'_> = &[("user", Some("u"))];
    let cases: &[(&str, Entity<'_>, &[Op<'_>])] = &[
        ("user", user, &[(RATE, 1e9, false), ("request_percentage", 12.5, false)]),
        ("default-user", &[("user", None)], &[(RATE, 2e9, false)]),
        ("client", &[("client-id", Some("c"))], &[("consumer_byte_rate", 3e9, false)]),
        ("both", &[("user", Some("u")), ("client-id", None)], &[("controller_mutation_rate", 1e6, false)]),
        ("ip", &[("ip", Some("10.1.2.3"))], &[("connection_creation_rate", 1000.0, false)]),
        ("again", user, &[(RATE, 1e9, false)]),
        ("nothing", user, &[]),
        ("remove", user, &[("request_percentage", 0.0, true)]),
        ("remove-missing", user, &[("consumer_byte_rate", 0.0, true)]),
        ("remove-unknown", user, &[("no_such_rate", 0.0, true)]),
        ("unknown-key", user, &[("no_such_rate", 1.0, false)]),
        ("ip-key-of-user", user, &[("connection_creation_rate", 1.0, false)]),
        ("user-key-of-ip", &[("ip", None)], &[(RATE, 1.0, false)]),
        ("zero", user, &[(RATE, 0.0, false)]),
        ("negative", user, &[(RATE, -5.0, false)]),
        ("fraction", user, &[(RATE, 1.5, false)]),
        ("too-large", user, &[(RATE, 1e30, false)]),
        ("too-large-int", &[("ip", None)], &[("connection_creation_rate", 3e9, false)]),
        ("empty-entity", &[], &[(RATE, 1.0, false)]),
        ("unknown-type", &[("group", Some("g"))], &[(RATE, 1.0, false)]),
        ("empty-name", &[("user", Some(""))], &[(RATE, 1.0, false)]),
        ("ip-and-user", &[("ip", Some("10.0.0.1")), ("user", Some("u"))], &[(RATE, 1.0, false)]),
        ("twice-key", user, &[(RATE, 1e9, false), (RATE, 2e9, false)]),
    ];
    for (name, entity, ops) in cases {
        pair.ask(&format!("alter-quota-{name}"), &versions(0, 1), |_, _| {
            AlterClientQuotasRequest::default().with_entries(vec![quota(entity, ops)])
        })?;
    }
    pair.ask("alter-quota-validate", &versions(0, 1), |_, _| {
        let entry = quota(&[("user", Some("only-asked"))], &[(RATE, 1.0, false)]);
        AlterClientQuotasRequest::default().with_entries(vec![entry]).with_validate_only(true)
    })?;
    pair.ask("alter-quota-twice", &versions(0, 1), |_, _| {
        let entry = |rate| quota(&[("user", Some("twice"))], &[(RATE, rate, false)]);
        AlterClientQuotasRequest::default().with_entries(vec![entry(1e9), entry(2e9)])
    })?;
    pair.ask("alter-quota-none", &versions(0, 1), |_, _| AlterClientQuotasRequest::default())?;
    Ok(())
}

fn describe_quotas(pair: &mut Pair) -> Result<()> {
    /// Type, kind of match, name.
    type Part<'a> = (&'a str, i8, Option<&'a str>);
    let cases: &[(&str, &[Part<'_>], bool)] = &[
        ("all", &[], false),
        ("all-strict", &[], true),
        ("user", &[("user", 0, Some("u"))], false),
        ("user-strict", &[("user", 0, Some("u"))], true),
        ("default", &[("user", 1, None)], false),
        ("any", &[("user", 2, None)], false),
        ("both", &[("user", 2, None), ("client-id", 1, None)], true),
        ("ip", &[("ip", 2, None)], false),
        ("nobody", &[("user", 0, Some("nobody"))], false),
        ("empty-type", &[("", 0, Some("u"))], false),
        ("twice", &[("user", 2, None), ("user", 1, None)], false),
        ("unknown-type", &[("group", 2, None)], false),
        ("exact-null", &[("user", 0, None)], false),
        ("default-name", &[("user", 1, Some("u"))], false),
        ("any-name", &[("user", 2, Some("u"))], false),
        ("unknown-match", &[("user", 3, None)], false),
        ("ip-and-user", &[("ip", 2, None), ("user", 2, None)], false),
    ];
    for (name, parts, strict) in cases {
        pair.ask(&format!("describe-quotas-{name}"), &versions(0, 1), |_, _| {
            let parts = parts.iter().map(|(kind, how, name)| {
                ComponentData::default().with_entity_type(text(kind)).with_match_type(*how).with_match(name.map(text))
            });
            DescribeClientQuotasRequest::default().with_components(parts.collect()).with_strict(*strict)
        })?;
    }
    Ok(())
}

fn reassignments(pair: &mut Pair) -> Result<()> {
    let cases: &[(&str, &str, i32, Option<&[i32]>)] = &[
        ("same", "moves", 0, Some(&[1])),
        ("cancel", "moves", 0, None),
        ("nobody", "moves", 0, Some(&[7])),
        ("empty", "moves", 0, Some(&[])),
        ("twice", "moves", 0, Some(&[1, 1])),
        ("negative", "moves", 0, Some(&[-1])),
        ("no-partition", "moves", 9, Some(&[1])),
        ("negative-partition", "moves", -1, Some(&[1])),
        ("no-topic", "nobody", 0, Some(&[1])),
        ("no-topic-cancel", "nobody", 0, None),
    ];
    for (name, topic_name, index, replicas) in cases {
        for allow in [true, false] {
            pair.ask(&format!("alter-reassignment-{name}-{allow}"), &versions(i16::from(!allow), 1), |_, _| {
                let replicas = replicas.map(|ids| ids.iter().copied().map(BrokerId).collect());
                let partition = ReassignablePartition::default().with_partition_index(*index).with_replicas(replicas);
                let wanted = ReassignableTopic::default().with_name(topic(topic_name)).with_partitions(vec![partition]);
                AlterPartitionReassignmentsRequest::default()
                    .with_timeout_ms(10_000)
                    .with_allow_replication_factor_change(allow)
                    .with_topics(vec![wanted])
            })?;
        }
    }
    for (name, asked) in [("all", None), ("named", Some("moves")), ("unknown", Some("nobody"))] {
        pair.ask(&format!("list-reassignments-{name}"), &[0], |_, _| {
            let topics = asked.map(|name| {
                let wanted = ListPartitionReassignmentsTopics::default().with_name(topic(name));
                vec![wanted.with_partition_indexes(vec![0, 9, -1])]
            });
            ListPartitionReassignmentsRequest::default().with_timeout_ms(10_000).with_topics(topics)
        })?;
    }
    Ok(())
}

fn elections(pair: &mut Pair) -> Result<()> {
    for (name, kind, topic_name, partitions) in [
        ("preferred", 0, "moves", vec![0, 1]),
        ("unclean", 1, "moves", vec![0]),
        ("unknown-kind", 5, "moves", vec![0]),
        ("no-partition", 0, "moves", vec![7, -1]),
        ("no-topic", 0, "nobody", vec![0]),
        ("none", 0, "moves", vec![]),
    ] {
        pair.ask(&format!("elect-{name}"), &versions(0, 2), |version, _| {
            let wanted = TopicPartitions::default().with_topic(topic(topic_name)).with_partitions(partitions.clone());
            ElectLeadersRequest::default()
                .with_election_type(if version == 0 { 0 } else { kind })
                .with_topic_partitions(Some(vec![wanted]))
                .with_timeout_ms(10_000)
        })?;
    }
    Ok(())
}

fn log_dirs(pair: &mut Pair) -> Result<()> {
    for (name, topic_name, index) in [("known", "moves", 0), ("no-topic", "nobody", 0), ("no-partition", "moves", 9)] {
        pair.ask(&format!("alter-log-dirs-nowhere-{name}"), &versions(1, 2), |_, _| {
            let wanted = AlterReplicaLogDirTopic::default().with_name(topic(topic_name)).with_partitions(vec![index]);
            let dir = AlterReplicaLogDir::default().with_path(text("/no/such/directory")).with_topics(vec![wanted]);
            AlterReplicaLogDirsRequest::default().with_dirs(vec![dir])
        })?;
    }
    pair.ask("alter-log-dirs-none", &versions(1, 2), |_, _| AlterReplicaLogDirsRequest::default())?;
    Ok(())
}

fn features(pair: &mut Pair) -> Result<()> {
    for (name, feature, level, kind) in [
        ("same", "metadata.version", 30, 1),
        ("above", "metadata.version", 31, 1),
        ("down-as-upgrade", "metadata.version", 29, 1),
        ("down-safe", "metadata.version", 29, 2),
        ("down-unsafe", "metadata.version", 29, 3),
        ("up-as-downgrade", "metadata.version", 30, 2),
        ("unknown-kind", "metadata.version", 30, 9),
        ("below", "metadata.version", 1, 2),
        ("negative", "metadata.version", -1, 1),
        ("unknown", "nothing.version", 1, 1),
    ] {
        pair.ask(&format!("update-feature-{name}"), &versions(0, 2), |version, _| {
            let update = FeatureUpdateKey::default().with_feature(text(feature)).with_max_version_level(level);
            let update = if version == 0 {
                update.with_allow_downgrade(kind > 1).with_upgrade_type(1)
            } else {
                update.with_upgrade_type(kind)
            };
            UpdateFeaturesRequest::default().with_timeout_ms(10_000).with_feature_updates(vec![update])
        })?;
    }
    Ok(())
}

fn cluster(pair: &mut Pair) -> Result<()> {
    let quorum = |name: &str, partitions: &[i32]| {
        let partitions = partitions.iter().map(|index| PartitionData::default().with_partition_index(*index));
        let wanted = TopicData::default().with_topic_name(topic(name)).with_partitions(partitions.collect());
        DescribeQuorumRequest::default().with_topics(vec![wanted])
    };
    pair.ask("quorum", &versions(0, 2), |_, _| quorum("__cluster_metadata", &[0]))?;
    for (name, topic_name, partitions) in [
        ("other-topic", "moves", &[0][..]),
        ("other-partition", "__cluster_metadata", &[1]),
        ("two-partitions", "__cluster_metadata", &[0, 1]),
    ] {
        pair.ask(&format!("describe-quorum-{name}"), &versions(0, 2), |_, _| quorum(topic_name, partitions))?;
    }
    for id in [77, -1] {
        pair.ask(&format!("unregister-{id}"), &[0], |_, _| {
            UnregisterBrokerRequest::default().with_broker_id(BrokerId(id))
        })?;
    }
    for (name, kinds) in
        [("none", &[][..]), ("metrics", &[16]), ("topics", &[2]), ("brokers", &[4, 8]), ("unknown", &[2, 99])]
    {
        pair.ask(&format!("list-resources-{name}"), &versions(i16::from(name != "none"), 1), |version, _| {
            let kinds = if version == 0 { Vec::new() } else { kinds.to_vec() };
            ListConfigResourcesRequest::default().with_resource_types(kinds)
        })?;
    }
    Ok(())
}

/// Kafka serves these two only with a reporter, which is a Java class; that they are served here is meant.
fn telemetry(pair: &mut Pair) -> Result<()> {
    pair.ask("telemetry-get", &[0], |_, _| {
        GetTelemetrySubscriptionsRequest::default().with_client_instance_id(Uuid::from_u128(77))
    })?;
    pair.ask("telemetry-push", &[0], |_, _| {
        PushTelemetryRequest::default().with_client_instance_id(Uuid::from_u128(77)).with_subscription_id(1)
    })?;
    Ok(())
}
