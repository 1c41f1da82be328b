//! What requests to coordinators take: groups, their offsets, and transactions.

use anyhow::Result;
use kafka_protocol::{
    messages::{
        AddOffsetsToTxnRequest, AddPartitionsToTxnRequest, ApiKey, ConsumerGroupDescribeRequest,
        ConsumerGroupHeartbeatRequest, DeleteGroupsRequest, DescribeGroupsRequest, DescribeProducersRequest,
        DescribeTransactionsRequest, EndTxnRequest, FindCoordinatorRequest, HeartbeatRequest, JoinGroupRequest,
        LeaveGroupRequest, ListGroupsRequest, ListTransactionsRequest, OffsetCommitRequest, OffsetDeleteRequest,
        OffsetFetchRequest, SyncGroupRequest, TxnOffsetCommitRequest, WriteTxnMarkersRequest,
        add_partitions_to_txn_request::{AddPartitionsToTxnTopic, AddPartitionsToTxnTransaction},
        describe_producers_request::TopicRequest,
        leave_group_request::MemberIdentity,
        offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic},
        offset_delete_request::{OffsetDeleteRequestPartition, OffsetDeleteRequestTopic},
        offset_fetch_request::{OffsetFetchRequestGroup, OffsetFetchRequestTopics},
        txn_offset_commit_request::{TxnOffsetCommitRequestPartition, TxnOffsetCommitRequestTopic},
        write_txn_markers_request::{WritableTxnMarker, WritableTxnMarkerTopic},
    },
    protocol::Request,
};
use varve_metadata::model::acl::Operation::*;
use varve_tests::{
    node::eventually,
    streams_groups::{StreamsGroupDescribeRequest, StreamsGroupHeartbeatRequest, Subtopology, TopicInfo},
};

use crate::{
    broker::{
        Prepared,
        Resource::{self, *},
        ask, text,
    },
    clients::{GROUP, TOPIC, TRANSACTIONAL_ID, case, group, init_producer_id, topic, transactional_id},
    matrix::{Case, Key, Sign},
    shares,
};

pub(crate) fn cases() -> Vec<Case> {
    [groups(), offsets(), transactions(), shares::cases()].into_iter().flatten().collect()
}
fn groups() -> Vec<Case> {
    let read = [(Read, Group(GROUP))];
    vec![
        case("FindCoordinator", ApiKey::FindCoordinator, &[(Describe, Group(GROUP))], &["/error_code"], |_| {
            ask(3, FindCoordinatorRequest::default().with_key(text(GROUP)))
        }),
        case(
            "FindCoordinator of several",
            ApiKey::FindCoordinator,
            &[(Describe, Group(GROUP))],
            &["/coordinators/0/error_code"],
            |_| ask(4, FindCoordinatorRequest::default().with_coordinator_keys(vec![text(GROUP)])),
        ),
        case(
            "FindCoordinator of transactions",
            ApiKey::FindCoordinator,
            &[(Describe, Resource::TransactionalId(TRANSACTIONAL_ID))],
            &["/error_code"],
            |_| ask(3, FindCoordinatorRequest::default().with_key_type(1).with_key(text(TRANSACTIONAL_ID))),
        ),
        // A session timeout that no broker takes: nobody waits for anybody.
        case("JoinGroup", ApiKey::JoinGroup, &read, &["/error_code"], |_| {
            ask(
                5,
                JoinGroupRequest::default()
                    .with_group_id(group(GROUP))
                    .with_session_timeout_ms(1)
                    .with_rebalance_timeout_ms(1)
                    .with_protocol_type(text("consumer")),
            )
        }),
        case("SyncGroup", ApiKey::SyncGroup, &read, &["/error_code"], |_| {
            ask(
                5,
                SyncGroupRequest::default()
                    .with_group_id(group(GROUP))
                    .with_member_id(text("m"))
                    .with_protocol_type(Some(text("consumer")))
                    .with_protocol_name(Some(text("range"))),
            )
        }),
        case("Heartbeat", ApiKey::Heartbeat, &read, &["/error_code"], |_| {
            ask(4, HeartbeatRequest::default().with_group_id(group(GROUP)).with_member_id(text("m")))
        }),
        case("LeaveGroup", ApiKey::LeaveGroup, &read, &["/error_code"], |_| {
            ask(
                5,
                LeaveGroupRequest::default()
                    .with_group_id(group(GROUP))
                    .with_members(vec![MemberIdentity::default().with_member_id(text("m"))]),
            )
        }),
        case(
            "ConsumerGroupHeartbeat",
            ApiKey::ConsumerGroupHeartbeat,
            &[(Read, Group(GROUP)), (Describe, Topic(TOPIC))],
            &["/error_code"],
            |_| {
                ask(
                    0,
                    ConsumerGroupHeartbeatRequest::default()
                        .with_group_id(group(GROUP))
                        .with_member_id(text("unknown"))
                        .with_member_epoch(7)
                        .with_subscribed_topic_names(Some(vec![topic(TOPIC)])),
                )
            },
        ),
        case(
            "StreamsGroupHeartbeat",
            Key(StreamsGroupHeartbeatRequest::KEY),
            &[(Read, Group(GROUP)), (Describe, Topic(TOPIC))],
            &["/error_code"],
            |_| ask(0, of_streams(GROUP, TOPIC)),
        ),
        case(
            "StreamsGroupHeartbeat whose changelog is missing",
            Key(StreamsGroupHeartbeatRequest::KEY),
            &[(Read, Group("streams")), (Describe, Topic(TOPIC)), (Describe, Topic("made"))],
            &["/error_code"],
            |_| ask(0, of_streams("streams", "made")),
        ),
        case(
            "StreamsGroupDescribe",
            Key(StreamsGroupDescribeRequest::KEY),
            &[(Describe, Group(GROUP))],
            &["/groups/0/error_code"],
            |_| {
                let group_ids = vec![GROUP.to_owned()];
                ask(0, StreamsGroupDescribeRequest { group_ids, include_authorized_operations: false })
            },
        ),
        case("DescribeGroups", ApiKey::DescribeGroups, &[(Describe, Group(GROUP))], &["/groups/0/error_code"], |_| {
            ask(5, DescribeGroupsRequest::default().with_groups(vec![group(GROUP)]))
        }),
        case(
            "ConsumerGroupDescribe",
            ApiKey::ConsumerGroupDescribe,
            &[(Describe, Group(GROUP))],
            &["/groups/0/error_code"],
            |_| ask(0, ConsumerGroupDescribeRequest::default().with_group_ids(vec![group(GROUP)])),
        ),
        case("ListGroups", ApiKey::ListGroups, &[(Describe, Group(GROUP))], &[], |_| {
            ask(4, ListGroupsRequest::default())
        })
        .or(Describe, Cluster)
        .sign(Sign::Empty("/groups")),
        case("DeleteGroups", ApiKey::DeleteGroups, &[(Delete, Group("gone"))], &["/results/0/error_code"], |_| {
            ask(2, DeleteGroupsRequest::default().with_groups_names(vec![group("gone")]))
        }),
    ]
}

/// A request about a topic that is read and one that keeps state, or about the first alone.
fn of_streams(name: &str, changelog: &str) -> StreamsGroupHeartbeatRequest {
    let changelog = TopicInfo { name: changelog.to_owned(), ..TopicInfo::default() };
    let subtopology = Subtopology {
        id: "0".to_owned(),
        source_topics: vec![TOPIC.to_owned()],
        changelogs: if changelog.name == TOPIC { vec![] } else { vec![changelog] },
        ..Subtopology::default()
    };
    StreamsGroupHeartbeatRequest {
        group_id: name.to_owned(),
        member_id: "m".to_owned(),
        // Refused for this once it is allowed, so that no group comes into being.
        member_epoch: 7,
        topology: Some((0, vec![subtopology])),
        ..StreamsGroupHeartbeatRequest::default()
    }
}

pub(crate) fn commit() -> Result<Prepared> {
    let partition =
        OffsetCommitRequestPartition::default().with_committed_offset(1).with_committed_metadata(Some(text("")));
    let committed = OffsetCommitRequestTopic::default().with_name(topic(TOPIC)).with_partitions(vec![partition]);
    let request = OffsetCommitRequest::default()
        .with_group_id(group(GROUP))
        .with_generation_id_or_member_epoch(-1)
        .with_topics(vec![committed]);
    ask(8, request)
}

fn fetch_offsets(topics: Option<Vec<OffsetFetchRequestTopics>>) -> Result<Prepared> {
    let asked = OffsetFetchRequestGroup::default().with_group_id(group(GROUP)).with_topics(topics);
    ask(8, OffsetFetchRequest::default().with_groups(vec![asked]))
}

fn offsets() -> Vec<Case> {
    vec![
        case(
            "OffsetCommit",
            ApiKey::OffsetCommit,
            &[(Read, Group(GROUP)), (Read, Topic(TOPIC))],
            &["/topics/0/partitions/0/error_code"],
            |_| commit(),
        ),
        case(
            "OffsetFetch",
            ApiKey::OffsetFetch,
            &[(Describe, Group(GROUP)), (Describe, Topic(TOPIC))],
            &["/groups/0/error_code", "/groups/0/topics/0/partitions/0/error_code"],
            |_| {
                let asked = OffsetFetchRequestTopics::default().with_name(topic(TOPIC)).with_partition_indexes(vec![0]);
                fetch_offsets(Some(vec![asked]))
            },
        ),
        case(
            "OffsetFetch of everything",
            ApiKey::OffsetFetch,
            &[(Describe, Group(GROUP)), (Describe, Topic(TOPIC))],
            &[],
            |_| fetch_offsets(None),
        )
        .sign(Sign::Empty("/groups/0/topics")),
        case(
            "OffsetDelete",
            ApiKey::OffsetDelete,
            &[(Delete, Group(GROUP)), (Read, Topic(TOPIC))],
            &["/error_code", "/topics/0/partitions/0/error_code"],
            |_| {
                // A partition that does not exist: the offset is needed by others.
                let partition = OffsetDeleteRequestPartition::default().with_partition_index(9);
                let asked =
                    OffsetDeleteRequestTopic::default().with_name(topic(TOPIC)).with_partitions(vec![partition]);
                ask(0, OffsetDeleteRequest::default().with_group_id(group(GROUP)).with_topics(vec![asked]))
            },
        ),
    ]
}

fn transactions() -> Vec<Case> {
    let id = Resource::TransactionalId(TRANSACTIONAL_ID);
    vec![
        case(
            "AddPartitionsToTxn",
            ApiKey::AddPartitionsToTxn,
            &[(Write, id), (Write, Topic(TOPIC))],
            &["/results_by_topic_v3_and_below/0/results_by_partition/0/partition_error_code"],
            |_| {
                let added = AddPartitionsToTxnTopic::default().with_name(topic(TOPIC)).with_partitions(vec![0]);
                ask(
                    3,
                    AddPartitionsToTxnRequest::default()
                        .with_v3_and_below_transactional_id(transactional_id())
                        .with_v3_and_below_producer_id(1.into())
                        .with_v3_and_below_topics(vec![added]),
                )
            },
        ),
        case(
            "AddPartitionsToTxn of a broker",
            ApiKey::AddPartitionsToTxn,
            &[(ClusterAction, Cluster)],
            &["/error_code"],
            |_| {
                let added = AddPartitionsToTxnTopic::default().with_name(topic(TOPIC)).with_partitions(vec![0]);
                let transaction = AddPartitionsToTxnTransaction::default()
                    .with_transactional_id(transactional_id())
                    .with_producer_id(1.into())
                    .with_verify_only(true)
                    .with_topics(vec![added]);
                ask(4, AddPartitionsToTxnRequest::default().with_transactions(vec![transaction]))
            },
        ),
        case(
            "AddOffsetsToTxn",
            ApiKey::AddOffsetsToTxn,
            &[(Write, id), (Read, Group(GROUP))],
            &["/error_code"],
            |_| {
                ask(
                    3,
                    AddOffsetsToTxnRequest::default()
                        .with_transactional_id(transactional_id())
                        .with_producer_id(1.into())
                        .with_group_id(group(GROUP)),
                )
            },
        ),
        case("EndTxn", ApiKey::EndTxn, &[(Write, id)], &["/error_code"], |_| {
            ask(3, EndTxnRequest::default().with_transactional_id(transactional_id()).with_producer_id(1.into()))
        }),
        case(
            "TxnOffsetCommit",
            ApiKey::TxnOffsetCommit,
            &[(Write, id), (Read, Group(GROUP)), (Read, Topic(TOPIC))],
            &["/topics/0/partitions/0/error_code"],
            |_| {
                let partition = TxnOffsetCommitRequestPartition::default()
                    .with_committed_offset(1)
                    .with_committed_metadata(Some(text("")));
                let committed =
                    TxnOffsetCommitRequestTopic::default().with_name(topic(TOPIC)).with_partitions(vec![partition]);
                ask(
                    3,
                    TxnOffsetCommitRequest::default()
                        .with_transactional_id(transactional_id())
                        .with_group_id(group(GROUP))
                        .with_producer_id(1.into())
                        .with_generation_id(-1)
                        .with_topics(vec![committed]),
                )
            },
        ),
        case(
            "WriteTxnMarkers",
            ApiKey::WriteTxnMarkers,
            &[(Alter, Cluster)],
            &["/markers/0/topics/0/partitions/0/error_code"],
            |_| {
                let marked =
                    WritableTxnMarkerTopic::default().with_name(topic("no-such-topic")).with_partition_indexes(vec![0]);
                let marker = WritableTxnMarker::default().with_producer_id(1.into()).with_topics(vec![marked]);
                ask(1, WriteTxnMarkersRequest::default().with_markers(vec![marker]))
            },
        )
        .or(ClusterAction, Cluster),
        case(
            "DescribeProducers",
            ApiKey::DescribeProducers,
            &[(Read, Topic(TOPIC))],
            &["/topics/0/partitions/0/error_code"],
            |_| {
                let asked = TopicRequest::default().with_name(topic(TOPIC)).with_partition_indexes(vec![0]);
                ask(0, DescribeProducersRequest::default().with_topics(vec![asked]))
            },
        ),
        case(
            "DescribeTransactions",
            ApiKey::DescribeTransactions,
            &[(Describe, id)],
            &["/transaction_states/0/error_code"],
            |_| ask(0, DescribeTransactionsRequest::default().with_transactional_ids(vec![transactional_id()])),
        ),
        case("ListTransactions", ApiKey::ListTransactions, &[(Describe, id)], &[], |_| {
            ask(1, ListTransactionsRequest::default().with_duration_filter(-1))
        })
        .after(|broker| {
            eventually("there is a transactional id", || {
                let answer = broker.administer(&init_producer_id(Some(transactional_id()))?)?;
                Ok((answer["error_code"] == 0).then_some(()))
            })
        })
        .sign(Sign::Empty("/transaction_states")),
    ]
}
