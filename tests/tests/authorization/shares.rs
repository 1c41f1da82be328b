//! What the requests of share groups take.

use anyhow::{Result, ensure};
use kafka_protocol::messages::{
    AlterShareGroupOffsetsRequest, ApiKey, DeleteShareGroupOffsetsRequest, DeleteShareGroupStateRequest,
    DescribeShareGroupOffsetsRequest, FindCoordinatorRequest, InitializeShareGroupStateRequest,
    ReadShareGroupStateRequest, ReadShareGroupStateSummaryRequest, ShareAcknowledgeRequest, ShareFetchRequest,
    ShareGroupDescribeRequest, ShareGroupHeartbeatRequest, WriteShareGroupStateRequest,
    alter_share_group_offsets_request::{AlterShareGroupOffsetsRequestPartition, AlterShareGroupOffsetsRequestTopic},
    delete_share_group_offsets_request::DeleteShareGroupOffsetsRequestTopic,
    delete_share_group_state_request as delete,
    describe_share_group_offsets_request::{
        DescribeShareGroupOffsetsRequestGroup, DescribeShareGroupOffsetsRequestTopic,
    },
    initialize_share_group_state_request as initialize, read_share_group_state_request as read,
    read_share_group_state_summary_request as summary,
    share_acknowledge_request::{AcknowledgePartition, AcknowledgeTopic},
    share_fetch_request::{FetchPartition, FetchTopic},
    write_share_group_state_request as write,
};
use uuid::Uuid;
use varve_metadata::model::acl::Operation::*;
use varve_tests::node::eventually;

use crate::{
    broker::{Broker, Prepared, Resource::*, ask, text},
    clients::{TOPIC, case, group, id_of, topic},
    matrix::{Case, Sign},
};

/// A group that the cases have to themselves.
const SHARES: &str = "shares";
/// A group without members.
const QUIET: &str = "quiet";
/// A member's id as people write UUIDs down.
const MEMBER: &str = "AAAAAAAAAAAAAAAAAAAAAg";
/// The key of a share partition that no topic has.
const KEY: &str = "shares:AAAAAAAAAAAAAAAAAAAAAg:0";

/// No topic's id.
const UNKNOWN: Uuid = Uuid::from_u128(2);

pub(crate) fn cases() -> Vec<Case> {
    [members(), records(), offsets(), keepers()].into_iter().flatten().collect()
}

fn members() -> Vec<Case> {
    vec![
        case(
            "ShareGroupHeartbeat",
            ApiKey::ShareGroupHeartbeat,
            &[(Read, Group(SHARES)), (Describe, Topic(TOPIC))],
            &["/error_code"],
            |_| heartbeat(7),
        ),
        case(
            "ShareGroupDescribe",
            ApiKey::ShareGroupDescribe,
            &[(Describe, Group(SHARES)), (Describe, Topic(TOPIC))],
            &["/groups/0/error_code"],
            |_| ask(1, ShareGroupDescribeRequest::default().with_group_ids(vec![group(SHARES)])),
        )
        .after(|broker| {
            eventually("the member has its partition", || {
                let epoch = broker.administer(&heartbeat(0)?)?["member_epoch"].clone();
                let assigned = broker.administer(&heartbeat(i32::try_from(epoch.as_i64().unwrap_or(0))?)?)?;
                let described = ShareGroupDescribeRequest::default().with_group_ids(vec![group(SHARES)]);
                let described = broker.administer(&ask(1, described)?)?;
                let has_topics = !described["groups"][0]["members"][0]["assignment"]["topic_partitions"][0].is_null();
                Ok((assigned["error_code"] == 0 && has_topics).then_some(()))
            })
        }),
    ]
}

fn heartbeat(epoch: i32) -> Result<Prepared> {
    let member = if epoch == 7 { "unknown" } else { MEMBER };
    let request = ShareGroupHeartbeatRequest::default().with_group_id(group(SHARES)).with_member_id(text(member));
    ask(1, request.with_member_epoch(epoch).with_subscribed_topic_names(Some(vec![topic(TOPIC)])))
}

fn records() -> Vec<Case> {
    let needs = [(Read, Group(SHARES)), (Read, Topic(TOPIC))];
    let fields: &[&str] = &["/error_code", "/responses/0/partitions/0/error_code"];
    vec![
        case("ShareFetch", ApiKey::ShareFetch, &needs, fields, fetch),
        case(
            "ShareAcknowledge",
            ApiKey::ShareAcknowledge,
            &needs,
            &["/error_code", "/responses/0/partitions/0/error_code"],
            |broker| {
                let partition = AcknowledgePartition::default();
                let acknowledged =
                    AcknowledgeTopic::default().with_topic_id(id_of(broker, TOPIC)?).with_partitions(vec![partition]);
                ask(
                    1,
                    ShareAcknowledgeRequest::default()
                        .with_group_id(Some(group(SHARES)))
                        .with_member_id(Some(text(MEMBER)))
                        .with_share_session_epoch(1)
                        .with_topics(vec![acknowledged]),
                )
            },
        )
        .after(|broker| {
            let opened = broker.administer(&fetch(broker)?)?;
            ensure!(opened["error_code"] == 0, "a session: {opened}");
            Ok(())
        }),
    ]
}

fn fetch(broker: &Broker) -> Result<Prepared> {
    let fetched =
        FetchTopic::default().with_topic_id(id_of(broker, TOPIC)?).with_partitions(vec![FetchPartition::default()]);
    ask(
        1,
        ShareFetchRequest::default()
            .with_group_id(Some(group(SHARES)))
            .with_member_id(Some(text(MEMBER)))
            .with_max_bytes(1024)
            .with_max_records(1)
            .with_batch_size(1)
            .with_topics(vec![fetched]),
    )
}

fn alter() -> Result<Prepared> {
    let partition = AlterShareGroupOffsetsRequestPartition::default();
    let altered =
        AlterShareGroupOffsetsRequestTopic::default().with_topic_name(topic(TOPIC)).with_partitions(vec![partition]);
    ask(0, AlterShareGroupOffsetsRequest::default().with_group_id(group(QUIET)).with_topics(vec![altered]))
}

/// Sees to it that the group without members has come somewhere.
fn settle(broker: &mut Broker) -> Result<()> {
    eventually("the group has an offset", || {
        let answer = broker.administer(&alter()?)?;
        Ok((answer["error_code"] == 0 && answer["responses"][0]["partitions"][0]["error_code"] == 0).then_some(()))
    })
}

fn describe(topics: Option<Vec<DescribeShareGroupOffsetsRequestTopic>>) -> Result<Prepared> {
    let asked = DescribeShareGroupOffsetsRequestGroup::default().with_group_id(group(QUIET)).with_topics(topics);
    ask(0, DescribeShareGroupOffsetsRequest::default().with_groups(vec![asked]))
}

fn offsets() -> Vec<Case> {
    vec![
        case(
            "DescribeShareGroupOffsets",
            ApiKey::DescribeShareGroupOffsets,
            &[(Describe, Group(QUIET)), (Describe, Topic(TOPIC))],
            &["/groups/0/error_code", "/groups/0/topics/0/partitions/0/error_code"],
            |_| {
                let asked = DescribeShareGroupOffsetsRequestTopic::default()
                    .with_topic_name(topic(TOPIC))
                    .with_partitions(vec![0]);
                describe(Some(vec![asked]))
            },
        )
        .after(settle),
        case(
            "DescribeShareGroupOffsets of everything",
            ApiKey::DescribeShareGroupOffsets,
            &[(Describe, Group(QUIET)), (Describe, Topic(TOPIC))],
            &[],
            |_| describe(None),
        )
        .after(settle)
        .sign(Sign::Empty("/groups/0/topics")),
        case(
            "AlterShareGroupOffsets",
            ApiKey::AlterShareGroupOffsets,
            &[(Read, Group(QUIET)), (Read, Topic(TOPIC))],
            &["/error_code", "/responses/0/partitions/0/error_code"],
            |_| alter(),
        )
        .after(settle),
        case(
            "DeleteShareGroupOffsets",
            ApiKey::DeleteShareGroupOffsets,
            &[(Delete, Group(QUIET)), (Read, Topic(TOPIC))],
            &["/error_code", "/responses/0/error_code"],
            |_| {
                let deleted = DeleteShareGroupOffsetsRequestTopic::default().with_topic_name(topic(TOPIC));
                ask(0, DeleteShareGroupOffsetsRequest::default().with_group_id(group(QUIET)).with_topics(vec![deleted]))
            },
        )
        .after(settle),
    ]
}

/// What brokers ask of those who keep the state of share partitions.
fn keepers() -> Vec<Case> {
    let broker = [(ClusterAction, Cluster)];
    let fields: &[&str] = &["/results/0/partitions/0/error_code"];
    vec![
        case("FindCoordinator of shares", ApiKey::FindCoordinator, &broker, &["/coordinators/0/error_code"], |_| {
            ask(6, FindCoordinatorRequest::default().with_key_type(2).with_coordinator_keys(vec![text(KEY)]))
        }),
        case("InitializeShareGroupState", ApiKey::InitializeShareGroupState, &broker, fields, |_| {
            let asked = initialize::InitializeStateData::default()
                .with_topic_id(UNKNOWN)
                .with_partitions(vec![initialize::PartitionData::default()]);
            ask(0, InitializeShareGroupStateRequest::default().with_group_id(text(SHARES)).with_topics(vec![asked]))
        }),
        case("ReadShareGroupState", ApiKey::ReadShareGroupState, &broker, fields, |_| {
            let asked = read::ReadStateData::default()
                .with_topic_id(UNKNOWN)
                .with_partitions(vec![read::PartitionData::default()]);
            ask(0, ReadShareGroupStateRequest::default().with_group_id(text(SHARES)).with_topics(vec![asked]))
        }),
        case("WriteShareGroupState", ApiKey::WriteShareGroupState, &broker, fields, |_| {
            let asked = write::WriteStateData::default()
                .with_topic_id(UNKNOWN)
                .with_partitions(vec![write::PartitionData::default()]);
            ask(0, WriteShareGroupStateRequest::default().with_group_id(text(SHARES)).with_topics(vec![asked]))
        }),
        case("DeleteShareGroupState", ApiKey::DeleteShareGroupState, &broker, fields, |_| {
            let asked = delete::DeleteStateData::default()
                .with_topic_id(UNKNOWN)
                .with_partitions(vec![delete::PartitionData::default()]);
            ask(0, DeleteShareGroupStateRequest::default().with_group_id(text(SHARES)).with_topics(vec![asked]))
        }),
        case("ReadShareGroupStateSummary", ApiKey::ReadShareGroupStateSummary, &broker, fields, |_| {
            let asked = summary::ReadStateSummaryData::default()
                .with_topic_id(UNKNOWN)
                .with_partitions(vec![summary::PartitionData::default()]);
            ask(0, ReadShareGroupStateSummaryRequest::default().with_group_id(text(SHARES)).with_topics(vec![asked]))
        }),
    ]
}
