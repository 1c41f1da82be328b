//! Requests as a client writes them: each served one in its newest version, with an element in each array that matters.

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::{
    messages::{
        add_partitions_to_txn_request::{AddPartitionsToTxnTopic, AddPartitionsToTxnTransaction},
        alter_client_quotas_request::{EntityData, EntryData, OpData},
        alter_partition_reassignments_request::{ReassignablePartition, ReassignableTopic},
        alter_share_group_offsets_request::{
            AlterShareGroupOffsetsRequestPartition, AlterShareGroupOffsetsRequestTopic,
        },
        alter_user_scram_credentials_request::ScramCredentialUpsertion,
        create_topics_request::{CreatableTopic, CreatableTopicConfig},
        fetch_request::{FetchPartition, FetchTopic},
        join_group_request::JoinGroupRequestProtocol,
        list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic},
        metadata_request::MetadataRequestTopic,
        produce_request::{PartitionProduceData, TopicProduceData},
        write_txn_markers_request::{WritableTxnMarker, WritableTxnMarkerTopic},
        *,
    },
    protocol::{Encodable, Message, StrBytes},
};

use crate::Seeds;

fn frame<R: Encodable + Message>(key: ApiKey, version: i16, request: &R) -> Vec<u8> {
    let mut out = BytesMut::new();
    out.put_i16(key as i16);
    out.put_i16(version);
    out.put_i32(7);
    out.put_i16(2);
    out.put_slice(b"me");
    if key.request_header_version(version) >= 2 {
        out.put_u8(0);
    }
    // Versions that the codec does not know, and that are asked for here, are laid out as the last one that it knows.
    let known = R::VERSIONS.max.min(version);
    request.encode(&mut out, known).expect("a request of a version that has all its fields");
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
        SaslHandshake SaslHandshakeRequest 1,
        SaslAuthenticate SaslAuthenticateRequest 2,
        AddOffsetsToTxn AddOffsetsToTxnRequest 4,
        EndTxn EndTxnRequest 5,
        TxnOffsetCommit TxnOffsetCommitRequest 5,
        AlterReplicaLogDirs AlterReplicaLogDirsRequest 2,
        CreateDelegationToken CreateDelegationTokenRequest 3,
        RenewDelegationToken RenewDelegationTokenRequest 2,
        ExpireDelegationToken ExpireDelegationTokenRequest 2,
        DescribeDelegationToken DescribeDelegationTokenRequest 3,
        ElectLeaders ElectLeadersRequest 2,
        ListPartitionReassignments ListPartitionReassignmentsRequest 0,
        DescribeClientQuotas DescribeClientQuotasRequest 1,
        DescribeQuorum DescribeQuorumRequest 2,
        UpdateFeatures UpdateFeaturesRequest 2,
        DescribeUserScramCredentials DescribeUserScramCredentialsRequest 0,
        UnregisterBroker UnregisterBrokerRequest 0,
        DescribeProducers DescribeProducersRequest 0,
        DescribeTransactions DescribeTransactionsRequest 0,
        ListTransactions ListTransactionsRequest 2,
        ConsumerGroupHeartbeat ConsumerGroupHeartbeatRequest 1,
        ConsumerGroupDescribe ConsumerGroupDescribeRequest 1,
        GetTelemetrySubscriptions GetTelemetrySubscriptionsRequest 0,
        PushTelemetry PushTelemetryRequest 0,
        ListConfigResources ListConfigResourcesRequest 1,
        ShareGroupHeartbeat ShareGroupHeartbeatRequest 1,
        ShareGroupDescribe ShareGroupDescribeRequest 1,
        InitializeShareGroupState InitializeShareGroupStateRequest 0,
        ReadShareGroupState ReadShareGroupStateRequest 0,
        DeleteShareGroupState DeleteShareGroupStateRequest 0,
        ReadShareGroupStateSummary ReadShareGroupStateSummaryRequest 1,
        DescribeShareGroupOffsets DescribeShareGroupOffsetsRequest 1,
        DeleteShareGroupOffsets DeleteShareGroupOffsetsRequest 0,
    };
    seeds.extend(filled());
    seeds.extend(of_streams_groups());
    seeds.extend(filled_of_coordinators_and_controllers());
    seeds.extend(filled_of_shares());
    seeds
}

/// Requests that `kafka-protocol` does not know (KIP-1071), byte by byte.
fn of_streams_groups() -> Seeds {
    let frame = |key: u8, body: &[u8]| [&[0, key, 0, 0, 0, 0, 0, 7, 0, 2, b'm', b'e', 0][..], body].concat();
    let joins: &[u8] = &[
        2, b'g', 2, b'm', 0, 0, 0, 0, 0, 0, 0, 7, 0, 2, b'r', 0, 0, 0x17, 0x70, 1, 0, 0, 0, 0, 2, 2, b'0', 2, 2, b's',
        1, 2, 2, b'c', 0, 0, 0, 0, 0, 1, 2, 2, b'k', 2, b'v', 0, 0, 2, 2, b'p', 2, 2, b'q', 0, 0, 0, 3, 0, 0, 1, 0, 2,
        2, 0, 0, 1, 2, 0, 0, 0, 0, 0, 1, 1, 0, 2, b'i', 1, 2, b'h', 0xff, 0xff, 0, 2, 2, b't', 2, b'u', 0, 0, 0, 1, 0,
    ];
    let goes_on: &[u8] = &[
        2, b'g', 2, b'm', 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 2, b'0', 2, 0, 0, 0, 1, 0, 1,
        1, 0, 0xff, 0, 2, 2, b'0', 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 0,
    ];
    vec![
        ("StreamsGroupHeartbeat".into(), frame(88, joins)),
        ("StreamsGroupHeartbeat-later".into(), frame(88, goes_on)),
        ("StreamsGroupDescribe".into(), frame(89, &[2, 2, b'g', 1, 0])),
    ]
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

fn filled_of_coordinators_and_controllers() -> Seeds {
    let topic = || TopicName(text("web.clicks"));
    let added = AddPartitionsToTxnTopic::default().with_name(topic()).with_partitions(vec![0, 3]);
    let transaction = AddPartitionsToTxnTransaction::default()
        .with_transactional_id(TransactionalId(text("t")))
        .with_producer_id(ProducerId(9))
        .with_topics(vec![added]);
    let add = AddPartitionsToTxnRequest::default().with_transactions(vec![transaction]);

    let marked = WritableTxnMarkerTopic::default().with_name(topic()).with_partition_indexes(vec![1]);
    let marker = WritableTxnMarker::default().with_producer_id(ProducerId(9)).with_topics(vec![marked]);
    let mark = WriteTxnMarkersRequest::default().with_markers(vec![marker]);

    let entity = EntityData::default().with_entity_type(text("user")).with_entity_name(Some(text("ann")));
    let operation = OpData::default().with_key(text("producer_byte_rate")).with_value(1e6);
    let entry = EntryData::default().with_entity(vec![entity]).with_ops(vec![operation]);
    let quotas = AlterClientQuotasRequest::default().with_entries(vec![entry]);

    let partition = ReassignablePartition::default().with_replicas(Some(vec![BrokerId(1)]));
    let moved = ReassignableTopic::default().with_name(topic()).with_partitions(vec![partition]);
    let reassign = AlterPartitionReassignmentsRequest::default().with_topics(vec![moved]);

    let credential = ScramCredentialUpsertion::default()
        .with_name(text("ann"))
        .with_mechanism(1)
        .with_iterations(4096)
        .with_salt(Bytes::from_static(b"salt"))
        .with_salted_password(Bytes::from_static(&[7; 32]));
    let scram = AlterUserScramCredentialsRequest::default().with_upsertions(vec![credential]);
    vec![
        ("AddPartitionsToTxn".into(), frame(ApiKey::AddPartitionsToTxn, 5, &add)),
        ("WriteTxnMarkers".into(), frame(ApiKey::WriteTxnMarkers, 1, &mark)),
        ("AlterClientQuotas".into(), frame(ApiKey::AlterClientQuotas, 1, &quotas)),
        ("AlterPartitionReassignments".into(), frame(ApiKey::AlterPartitionReassignments, 1, &reassign)),
        ("AlterUserScramCredentials".into(), frame(ApiKey::AlterUserScramCredentials, 0, &scram)),
    ]
}

fn filled_of_shares() -> Seeds {
    let id = uuid::Uuid::from_u128(0x1234_5678_9abc_4def_8123_4567_89ab_cdef);
    let (group, member) = (|| Some(GroupId(text("s"))), || Some(text("AAAAAAAAAAAAAAAAAAAAAQ")));
    let said = share_fetch_request::AcknowledgementBatch::default().with_last_offset(2).with_acknowledge_types(vec![1]);
    let partition = share_fetch_request::FetchPartition::default().with_acknowledgement_batches(vec![said]);
    let fetched = share_fetch_request::FetchTopic::default().with_topic_id(id).with_partitions(vec![partition]);
    let fetch = ShareFetchRequest::default().with_group_id(group()).with_member_id(member()).with_topics(vec![fetched]);

    let said = share_acknowledge_request::AcknowledgementBatch::default()
        .with_last_offset(2)
        .with_acknowledge_types(vec![1, 2, 3]);
    let partition = share_acknowledge_request::AcknowledgePartition::default().with_acknowledgement_batches(vec![said]);
    let settled =
        share_acknowledge_request::AcknowledgeTopic::default().with_topic_id(id).with_partitions(vec![partition]);
    let acknowledge =
        ShareAcknowledgeRequest::default().with_group_id(group()).with_member_id(member()).with_topics(vec![settled]);

    let batch = write_share_group_state_request::StateBatch::default().with_last_offset(2).with_delivery_state(2);
    let partition = write_share_group_state_request::PartitionData::default().with_state_batches(vec![batch]);
    let written =
        write_share_group_state_request::WriteStateData::default().with_topic_id(id).with_partitions(vec![partition]);
    let write = WriteShareGroupStateRequest::default().with_group_id(text("s")).with_topics(vec![written]);

    let partition = AlterShareGroupOffsetsRequestPartition::default().with_start_offset(7);
    let altered = AlterShareGroupOffsetsRequestTopic::default()
        .with_topic_name(TopicName(text("web.clicks")))
        .with_partitions(vec![partition]);
    let alter = AlterShareGroupOffsetsRequest::default().with_group_id(GroupId(text("s"))).with_topics(vec![altered]);
    vec![
        ("ShareFetch".into(), frame(ApiKey::ShareFetch, 1, &fetch)),
        ("ShareAcknowledge".into(), frame(ApiKey::ShareAcknowledge, 1, &acknowledge)),
        ("WriteShareGroupState".into(), frame(ApiKey::WriteShareGroupState, 0, &write)),
        ("AlterShareGroupOffsets".into(), frame(ApiKey::AlterShareGroupOffsets, 0, &alter)),
    ]
}
