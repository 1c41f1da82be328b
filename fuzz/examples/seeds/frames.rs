//! Requests as a client writes them: each served one in its newest version, with an element in each array that matters.

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::{
    messages::{
        create_topics_request::{CreatableTopic, CreatableTopicConfig},
        fetch_request::{FetchPartition, FetchTopic},
        join_group_request::JoinGroupRequestProtocol,
        list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic},
        metadata_request::MetadataRequestTopic,
        produce_request::{PartitionProduceData, TopicProduceData},
        *,
    },
    protocol::{Encodable, StrBytes},
};

use crate::Seeds;

fn frame<R: Encodable>(key: ApiKey, version: i16, request: &R) -> Vec<u8> {
    let mut out = BytesMut::new();
    out.put_i16(key as i16);
    out.put_i16(version);
    out.put_i32(7);
    out.put_i16(2);
    out.put_slice(b"me");
    if key.request_header_version(version) >= 2 {
        out.put_u8(0);
    }
    request.encode(&mut out, version).expect("a request of a version that has all its fields");
    out.to_vec()
}

macro_rules! empty {
    ($($key:ident $request:ident $version:literal,)*) => {
        vec![$((stringify!($key).to_owned(), frame(ApiKey::$key, $version, &$request::default())),)*]
    };
}

pub(crate) fn frames() -> Seeds {
    let mut seeds = empty! {
        OffsetCommit OffsetCommitRequest 9,
        OffsetFetch OffsetFetchRequest 9,
        FindCoordinator FindCoordinatorRequest 6,
        Heartbeat HeartbeatRequest 4,
        LeaveGroup LeaveGroupRequest 5,
        SyncGroup SyncGroupRequest 5,
        DescribeGroups DescribeGroupsRequest 6,
        ListGroups ListGroupsRequest 5,
        ApiVersions ApiVersionsRequest 4,
        DeleteTopics DeleteTopicsRequest 6,
        DeleteRecords DeleteRecordsRequest 2,
        InitProducerId InitProducerIdRequest 5,
        OffsetForLeaderEpoch OffsetForLeaderEpochRequest 4,
        DescribeConfigs DescribeConfigsRequest 4,
        AlterConfigs AlterConfigsRequest 2,
        DescribeLogDirs DescribeLogDirsRequest 4,
        CreatePartitions CreatePartitionsRequest 3,
        DeleteGroups DeleteGroupsRequest 2,
        DescribeAcls DescribeAclsRequest 3,
        CreateAcls CreateAclsRequest 3,
        DeleteAcls DeleteAclsRequest 3,
        IncrementalAlterConfigs IncrementalAlterConfigsRequest 1,
        OffsetDelete OffsetDeleteRequest 0,
        DescribeCluster DescribeClusterRequest 2,
        DescribeTopicPartitions DescribeTopicPartitionsRequest 0,
    };
    seeds.extend(filled());
    seeds
}

fn text(text: &'static str) -> StrBytes {
    StrBytes::from_static_str(text)
}

fn filled() -> Seeds {
    let topic = || TopicName(text("web.clicks"));
    let records = Bytes::from(crate::stored::batch(0, None, b"value"));
    let partition = PartitionProduceData::default().with_index(1).with_records(Some(records));
    let data = TopicProduceData::default().with_name(topic()).with_partition_data(vec![partition]);
    let produce = ProduceRequest::default().with_acks(-1).with_timeout_ms(1000).with_topic_data(vec![data]);

    let partition = FetchPartition::default().with_fetch_offset(3).with_partition_max_bytes(1 << 20);
    let fetched = FetchTopic::default().with_topic(topic()).with_partitions(vec![partition]);
    let fetch = FetchRequest::default().with_max_wait_ms(500).with_topics(vec![fetched]);

    let partition = ListOffsetsPartition::default().with_timestamp(-1);
    let listed = ListOffsetsTopic::default().with_name(topic()).with_partitions(vec![partition]);
    let list = ListOffsetsRequest::default().with_topics(vec![listed]);

    let asked = MetadataRequestTopic::default().with_name(Some(topic()));
    let metadata = MetadataRequest::default().with_topics(Some(vec![asked]));

    let setting = CreatableTopicConfig::default().with_name(text("retention.ms")).with_value(Some(text("-1")));
    let created = CreatableTopic::default().with_name(topic()).with_num_partitions(3).with_replication_factor(1);
    let create = CreateTopicsRequest::default().with_topics(vec![created.with_configs(vec![setting])]);

    let protocol = JoinGroupRequestProtocol::default().with_name(text("range")).with_metadata(Bytes::from_static(b"x"));
    let join = JoinGroupRequest::default().with_group_id(GroupId(text("g"))).with_protocols(vec![protocol]);
    vec![
        ("Produce-3".into(), frame(ApiKey::Produce, 3, &produce)),
        ("Produce-12".into(), frame(ApiKey::Produce, 12, &produce)),
        ("Fetch-4".into(), frame(ApiKey::Fetch, 4, &fetch)),
        ("Fetch-12".into(), frame(ApiKey::Fetch, 12, &fetch)),
        ("ListOffsets-10".into(), frame(ApiKey::ListOffsets, 10, &list)),
        ("Metadata-1".into(), frame(ApiKey::Metadata, 1, &metadata)),
        ("Metadata-12".into(), frame(ApiKey::Metadata, 12, &metadata)),
        ("CreateTopics-7".into(), frame(ApiKey::CreateTopics, 7, &create)),
        ("JoinGroup-9".into(), frame(ApiKey::JoinGroup, 9, &join)),
    ]
}
