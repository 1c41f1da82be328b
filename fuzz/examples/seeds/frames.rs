//! Requests as a client writes them: each served one in its newest version, with an element in each array that matters.

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::{
    messages::{
        add_partitions_to_txn_request::{AddPartitionsToTxnTopic, AddPartitionsToTxnTransaction},
        alter_client_quotas_request::{EntityData, EntryData, OpData},
        alter_partition_reassignments_request::{ReassignablePartition, ReassignableTopic},
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
    };
    seeds.extend(filled());
    seeds.extend(filled_of_coordinators_and_controllers());
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
