//! What the requests of administrators and their tools take.

use anyhow::Result;
use kafka_protocol::messages::{
    AlterClientQuotasRequest, AlterConfigsRequest, AlterPartitionReassignmentsRequest, AlterReplicaLogDirsRequest,
    AlterUserScramCredentialsRequest, ApiKey, CreateAclsRequest, CreateDelegationTokenRequest, CreatePartitionsRequest,
    CreateTopicsRequest, DeleteAclsRequest, DeleteRecordsRequest, DeleteTopicsRequest, DescribeAclsRequest,
    DescribeClientQuotasRequest, DescribeClusterRequest, DescribeConfigsRequest, DescribeDelegationTokenRequest,
    DescribeLogDirsRequest, DescribeQuorumRequest, DescribeTopicPartitionsRequest, DescribeUserScramCredentialsRequest,
    ElectLeadersRequest, ExpireDelegationTokenRequest, IncrementalAlterConfigsRequest, ListConfigResourcesRequest,
    ListPartitionReassignmentsRequest, RenewDelegationTokenRequest, UnregisterBrokerRequest, UpdateFeaturesRequest,
    alter_client_quotas_request::{EntityData, EntryData, OpData},
    alter_configs_request::AlterConfigsResource,
    alter_partition_reassignments_request::{ReassignablePartition, ReassignableTopic},
    alter_replica_log_dirs_request::{AlterReplicaLogDir, AlterReplicaLogDirTopic},
    alter_user_scram_credentials_request::ScramCredentialDeletion,
    create_acls_request::AclCreation,
    create_partitions_request::CreatePartitionsTopic,
    create_topics_request::CreatableTopic,
    delete_acls_request::DeleteAclsFilter,
    delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic},
    delete_topics_request::DeleteTopicState,
    describe_configs_request::DescribeConfigsResource,
    describe_quorum_request::{PartitionData as QuorumPartition, TopicData as QuorumTopic},
    describe_topic_partitions_request::TopicRequest as DescribedTopic,
    describe_user_scram_credentials_request::UserName,
    elect_leaders_request::TopicPartitions as ElectedPartitions,
    incremental_alter_configs_request::AlterConfigsResource as IncrementalResource,
    update_features_request::FeatureUpdateKey,
};
use varve_metadata::model::acl::Operation::*;

use crate::{
    broker::{Broker, Prepared, Resource::*, Right, ask, text},
    clients::{GROUP, TOPIC, case, create_topic, id_of, topic},
    matrix::{Case, Sign},
};

const BROKER: &str = "1";

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = topics();
    cases.extend(settings());
    cases.extend(cluster());
    cases.extend(users());
    cases
}

fn topics() -> Vec<Case> {
    let doomed = || {
        case("", ApiKey::DeleteTopics, &[(Delete, Topic("doomed"))], &["/responses/0/error_code"], |_| {
            ask(5, DeleteTopicsRequest::default().with_topic_names(vec![topic("doomed")]).with_timeout_ms(30_000))
        })
    };
    vec![
        case("CreateTopics", ApiKey::CreateTopics, &[(Create, Topic("fresh"))], &["/topics/0/error_code"], |_| {
            let wanted =
                CreatableTopic::default().with_name(topic("fresh")).with_num_partitions(1).with_replication_factor(1);
            ask(
                7,
                CreateTopicsRequest::default()
                    .with_topics(vec![wanted])
                    .with_timeout_ms(30_000)
                    .with_validate_only(true),
            )
        })
        .or(Create, Cluster),
        case(
            "CreateTopics with the topic's settings",
            ApiKey::CreateTopics,
            &[(Create, Topic("fresh")), (DescribeConfigs, Topic("fresh"))],
            &["/topics/0/error_code", "/topics/0/topic_config_error_code"],
            |_| {
                let wanted = CreatableTopic::default()
                    .with_name(topic("fresh"))
                    .with_num_partitions(1)
                    .with_replication_factor(1);
                ask(
                    7,
                    CreateTopicsRequest::default()
                        .with_topics(vec![wanted])
                        .with_timeout_ms(30_000)
                        .with_validate_only(true),
                )
            },
        ),
        Case { name: "DeleteTopics", ..doomed() }.or(Delete, Cluster).after(|broker| create_topic(broker, "doomed")),
        Case {
            name: "DeleteTopics by id",
            request: |broker| {
                let state = DeleteTopicState::default().with_name(None).with_topic_id(id_of(broker, "doomed")?);
                ask(6, DeleteTopicsRequest::default().with_topics(vec![state]).with_timeout_ms(30_000))
            },
            ..doomed()
        }
        .or(Delete, Cluster)
        .after(|broker| create_topic(broker, "doomed")),
        case(
            "CreatePartitions",
            ApiKey::CreatePartitions,
            &[(Alter, Topic(TOPIC))],
            &["/results/0/error_code"],
            |_| {
                let grown =
                    CreatePartitionsTopic::default().with_name(topic(TOPIC)).with_count(2).with_assignments(None);
                ask(
                    2,
                    CreatePartitionsRequest::default()
                        .with_topics(vec![grown])
                        .with_timeout_ms(30_000)
                        .with_validate_only(true),
                )
            },
        ),
        case(
            "DeleteRecords",
            ApiKey::DeleteRecords,
            &[(Delete, Topic(TOPIC))],
            &["/topics/0/partitions/0/error_code"],
            |_| {
                let asked = DeleteRecordsTopic::default()
                    .with_name(topic(TOPIC))
                    .with_partitions(vec![DeleteRecordsPartition::default()]);
                ask(2, DeleteRecordsRequest::default().with_topics(vec![asked]).with_timeout_ms(30_000))
            },
        ),
        case(
            "DescribeTopicPartitions",
            ApiKey::DescribeTopicPartitions,
            &[(Describe, Topic(TOPIC))],
            &["/topics/0/error_code"],
            |_| {
                ask(
                    0,
                    DescribeTopicPartitionsRequest::default()
                        .with_topics(vec![DescribedTopic::default().with_name(topic(TOPIC))]),
                )
            },
        ),
        case(
            "DescribeTopicPartitions of all topics",
            ApiKey::DescribeTopicPartitions,
            &[(Describe, Topic(TOPIC))],
            &[],
            |_| ask(0, DescribeTopicPartitionsRequest::default()),
        )
        .sign(Sign::Empty("/topics")),
        case("ElectLeaders", ApiKey::ElectLeaders, &[(Alter, Cluster)], &["/error_code"], |_| {
            let asked = ElectedPartitions::default().with_topic(topic("no-such-topic")).with_partitions(vec![0]);
            ask(2, ElectLeadersRequest::default().with_topic_partitions(Some(vec![asked])).with_timeout_ms(30_000))
        }),
        case(
            "AlterPartitionReassignments",
            ApiKey::AlterPartitionReassignments,
            &[(Alter, Cluster)],
            &["/error_code"],
            |_| {
                let moved = ReassignableTopic::default()
                    .with_name(topic("no-such-topic"))
                    .with_partitions(vec![ReassignablePartition::default().with_replicas(None)]);
                ask(0, AlterPartitionReassignmentsRequest::default().with_topics(vec![moved]).with_timeout_ms(30_000))
            },
        ),
        case(
            "ListPartitionReassignments",
            ApiKey::ListPartitionReassignments,
            &[(Describe, Cluster)],
            &["/error_code"],
            |_| ask(0, ListPartitionReassignmentsRequest::default().with_topics(None).with_timeout_ms(30_000)),
        ),
    ]
}

/// Numbers of the kinds of resources that have settings, and the right over each.
const TOPICS: i8 = 2;
const BROKERS: i8 = 4;
const LOGGERS: i8 = 8;
const CLIENT_METRICS: i8 = 16;
const GROUPS: i8 = 32;

fn describe(kind: i8, name: &str) -> Result<Prepared> {
    let resource = DescribeConfigsResource::default()
        .with_resource_type(kind)
        .with_resource_name(text(name))
        .with_configuration_keys(None);
    ask(4, DescribeConfigsRequest::default().with_resources(vec![resource]))
}

fn alter(kind: i8, name: &str) -> Result<Prepared> {
    let resource = AlterConfigsResource::default().with_resource_type(kind).with_resource_name(text(name));
    ask(2, AlterConfigsRequest::default().with_resources(vec![resource]).with_validate_only(true))
}

fn alter_some(kind: i8, name: &str) -> Result<Prepared> {
    let resource = IncrementalResource::default().with_resource_type(kind).with_resource_name(text(name));
    ask(1, IncrementalAlterConfigsRequest::default().with_resources(vec![resource]).with_validate_only(true))
}

fn settings() -> Vec<Case> {
    let described = |name, right: Right, request: fn(&Broker) -> Result<Prepared>| {
        case(name, ApiKey::DescribeConfigs, &[right], &["/results/0/error_code"], request)
    };
    let altered = |name, right: Right, request: fn(&Broker) -> Result<Prepared>| {
        case(name, ApiKey::AlterConfigs, &[right], &["/responses/0/error_code"], request)
    };
    let some = |name, right: Right, request: fn(&Broker) -> Result<Prepared>| {
        case(name, ApiKey::IncrementalAlterConfigs, &[right], &["/responses/0/error_code"], request)
    };
    vec![
        described("DescribeConfigs of a topic", (DescribeConfigs, Topic(TOPIC)), |_| describe(TOPICS, TOPIC)),
        described("DescribeConfigs of a broker", (DescribeConfigs, Cluster), |_| describe(BROKERS, BROKER)),
        described("DescribeConfigs of loggers", (DescribeConfigs, Cluster), |_| describe(LOGGERS, BROKER)),
        described("DescribeConfigs of client metrics", (DescribeConfigs, Cluster), |_| describe(CLIENT_METRICS, "m")),
        described("DescribeConfigs of a group", (DescribeConfigs, Group(GROUP)), |_| describe(GROUPS, GROUP)),
        altered("AlterConfigs of a topic", (AlterConfigs, Topic(TOPIC)), |_| alter(TOPICS, TOPIC)),
        altered("AlterConfigs of a broker", (AlterConfigs, Cluster), |_| alter(BROKERS, BROKER)),
        some("IncrementalAlterConfigs of a topic", (AlterConfigs, Topic(TOPIC)), |_| alter_some(TOPICS, TOPIC)),
        some("IncrementalAlterConfigs of a broker", (AlterConfigs, Cluster), |_| alter_some(BROKERS, BROKER)),
        some("IncrementalAlterConfigs of loggers", (AlterConfigs, Cluster), |_| alter_some(LOGGERS, BROKER)),
        some("IncrementalAlterConfigs of client metrics", (AlterConfigs, Cluster), |_| alter_some(CLIENT_METRICS, "m")),
        some("IncrementalAlterConfigs of a group", (AlterConfigs, Group(GROUP)), |_| alter_some(GROUPS, GROUP)),
        case(
            "ListConfigResources",
            ApiKey::ListConfigResources,
            &[(DescribeConfigs, Cluster)],
            &["/error_code"],
            |_| ask(1, ListConfigResourcesRequest::default()),
        ),
    ]
}

fn cluster() -> Vec<Case> {
    vec![
        case("DescribeCluster", ApiKey::DescribeCluster, &[], &["/error_code"], |_| {
            ask(0, DescribeClusterRequest::default())
        }),
        case("DescribeCluster with its operations", ApiKey::DescribeCluster, &[(Describe, Cluster)], &[], |_| {
            ask(0, DescribeClusterRequest::default().with_include_cluster_authorized_operations(true))
        })
        .sign(Sign::Zero("/cluster_authorized_operations")),
        case("DescribeLogDirs", ApiKey::DescribeLogDirs, &[(Describe, Cluster)], &["/error_code"], |_| {
            ask(4, DescribeLogDirsRequest::default().with_topics(None))
        }),
        case(
            "AlterReplicaLogDirs",
            ApiKey::AlterReplicaLogDirs,
            &[(Alter, Cluster)],
            &["/results/0/partitions/0/error_code"],
            |_| {
                let moved =
                    AlterReplicaLogDirTopic::default().with_name(topic("no-such-topic")).with_partitions(vec![0]);
                let dir = AlterReplicaLogDir::default().with_path(text("/no/such/directory")).with_topics(vec![moved]);
                ask(2, AlterReplicaLogDirsRequest::default().with_dirs(vec![dir]))
            },
        ),
        case("DescribeQuorum", ApiKey::DescribeQuorum, &[(Describe, Cluster)], &["/error_code"], |_| {
            let asked = QuorumTopic::default()
                .with_topic_name(topic("__cluster_metadata"))
                .with_partitions(vec![QuorumPartition::default()]);
            ask(1, DescribeQuorumRequest::default().with_topics(vec![asked]))
        }),
        case("UnregisterBroker", ApiKey::UnregisterBroker, &[(Alter, Cluster)], &["/error_code"], |_| {
            ask(0, UnregisterBrokerRequest::default().with_broker_id(99.into()))
        }),
        case("UpdateFeatures", ApiKey::UpdateFeatures, &[(Alter, Cluster)], &["/error_code"], |_| {
            let update = FeatureUpdateKey::default()
                .with_feature(text("no.such.feature"))
                .with_max_version_level(1)
                .with_upgrade_type(1);
            ask(
                1,
                UpdateFeaturesRequest::default()
                    .with_feature_updates(vec![update])
                    .with_validate_only(true)
                    .with_timeout_ms(30_000),
            )
        }),
    ]
}

fn users() -> Vec<Case> {
    vec![
        case("DescribeAcls", ApiKey::DescribeAcls, &[(Describe, Cluster)], &["/error_code"], |_| {
            ask(
                3,
                DescribeAclsRequest::default()
                    .with_resource_type_filter(1)
                    .with_pattern_type_filter(1)
                    .with_operation(1)
                    .with_permission_type(1)
                    .with_resource_name_filter(None)
                    .with_principal_filter(None)
                    .with_host_filter(None),
            )
        }),
        case("CreateAcls", ApiKey::CreateAcls, &[(Alter, Cluster)], &["/results/0/error_code"], |_| {
            let rule = AclCreation::default()
                .with_resource_type(2)
                .with_resource_name(text("of-the-matrix"))
                .with_resource_pattern_type(3)
                .with_principal(text("User:nobody"))
                .with_host(text("*"))
                .with_operation(3)
                .with_permission_type(3);
            ask(3, CreateAclsRequest::default().with_creations(vec![rule]))
        }),
        case("DeleteAcls", ApiKey::DeleteAcls, &[(Alter, Cluster)], &["/filter_results/0/error_code"], |_| {
            let filter = DeleteAclsFilter::default()
                .with_resource_type_filter(2)
                .with_resource_name_filter(Some(text("no-such-name")))
                .with_pattern_type_filter(3)
                .with_operation(1)
                .with_permission_type(1)
                .with_principal_filter(None)
                .with_host_filter(None);
            ask(3, DeleteAclsRequest::default().with_filters(vec![filter]))
        }),
        case(
            "DescribeClientQuotas",
            ApiKey::DescribeClientQuotas,
            &[(DescribeConfigs, Cluster)],
            &["/error_code"],
            |_| ask(1, DescribeClientQuotasRequest::default()),
        ),
        case(
            "AlterClientQuotas",
            ApiKey::AlterClientQuotas,
            &[(AlterConfigs, Cluster)],
            &["/entries/0/error_code"],
            |_| {
                let entity =
                    EntityData::default().with_entity_type(text("user")).with_entity_name(Some(text("nobody")));
                let op = OpData::default().with_key(text("producer_byte_rate")).with_value(1.0);
                let entry = EntryData::default().with_entity(vec![entity]).with_ops(vec![op]);
                ask(1, AlterClientQuotasRequest::default().with_entries(vec![entry]).with_validate_only(true))
            },
        ),
        case(
            "DescribeUserScramCredentials",
            ApiKey::DescribeUserScramCredentials,
            &[(Describe, Cluster)],
            &["/error_code"],
            |_| {
                ask(
                    0,
                    DescribeUserScramCredentialsRequest::default()
                        .with_users(Some(vec![UserName::default().with_name(text("nobody"))])),
                )
            },
        ),
        case(
            "AlterUserScramCredentials",
            ApiKey::AlterUserScramCredentials,
            &[(Alter, Cluster)],
            &["/results/0/error_code"],
            |_| {
                let deletion = ScramCredentialDeletion::default().with_name(text("nobody")).with_mechanism(1);
                ask(0, AlterUserScramCredentialsRequest::default().with_deletions(vec![deletion]))
            },
        ),
        // Nobody who has not logged in has to do with tokens, whatever the rights.
        case("CreateDelegationToken", ApiKey::CreateDelegationToken, &[], &["/error_code"], |_| {
            ask(3, CreateDelegationTokenRequest::default())
        }),
        case("RenewDelegationToken", ApiKey::RenewDelegationToken, &[], &["/error_code"], |_| {
            ask(2, RenewDelegationTokenRequest::default())
        }),
        case("ExpireDelegationToken", ApiKey::ExpireDelegationToken, &[], &["/error_code"], |_| {
            ask(2, ExpireDelegationTokenRequest::default())
        }),
        case("DescribeDelegationToken", ApiKey::DescribeDelegationToken, &[], &["/error_code"], |_| {
            ask(3, DescribeDelegationTokenRequest::default().with_owners(None))
        }),
    ]
}
