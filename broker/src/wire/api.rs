//! Which requests are served, and in which versions.

use super::{key::ApiKey, shape::Shape, shapes};

/// One served request.
pub(crate) struct Api {
    /// Kafka's number and name for it.
    pub(crate) key: ApiKey,
    /// Smallest version that ApiVersions lists.
    pub(crate) advertised_min: i16,
    /// Smallest version that is answered.
    pub(crate) min: i16,
    /// Largest version, listed and answered.
    pub(crate) max: i16,
    /// Layout of its body.
    pub(crate) shape: &'static Shape,
}

const fn api(key: ApiKey, min: i16, max: i16, shape: &'static Shape) -> Api {
    Api { key, advertised_min: min, min, max, shape }
}

/// Everything this broker answers, in the order of the keys. What is not here is not advertised, and a connection that
/// sends it is closed, as Kafka does. The versions are those of Kafka 4.3.
pub(crate) static SERVED: &[Api] = &[
    // librdkafka and its bindings look for version 0 before they trust a broker with anything (KAFKA-18659).
    Api { key: ApiKey::Produce, advertised_min: 0, min: 3, max: 13, shape: &shapes::PRODUCE },
    api(ApiKey::Fetch, 4, 18, &shapes::FETCH),
    api(ApiKey::ListOffsets, 1, 11, &shapes::LIST_OFFSETS),
    api(ApiKey::Metadata, 0, 13, &shapes::METADATA),
    api(ApiKey::OffsetCommit, 2, 10, &shapes::OFFSET_COMMIT),
    api(ApiKey::OffsetFetch, 1, 10, &shapes::OFFSET_FETCH),
    api(ApiKey::FindCoordinator, 0, 6, &shapes::FIND_COORDINATOR),
    api(ApiKey::JoinGroup, 0, 9, &shapes::JOIN_GROUP),
    api(ApiKey::Heartbeat, 0, 4, &shapes::HEARTBEAT),
    api(ApiKey::LeaveGroup, 0, 5, &shapes::LEAVE_GROUP),
    api(ApiKey::SyncGroup, 0, 5, &shapes::SYNC_GROUP),
    api(ApiKey::DescribeGroups, 0, 6, &shapes::DESCRIBE_GROUPS),
    api(ApiKey::ListGroups, 0, 5, &shapes::LIST_GROUPS),
    api(ApiKey::SaslHandshake, 0, 1, &shapes::SASL_HANDSHAKE),
    api(ApiKey::ApiVersions, 0, 4, &shapes::API_VERSIONS),
    api(ApiKey::CreateTopics, 2, 7, &shapes::CREATE_TOPICS),
    api(ApiKey::DeleteTopics, 1, 6, &shapes::DELETE_TOPICS),
    api(ApiKey::DeleteRecords, 0, 2, &shapes::DELETE_RECORDS),
    api(ApiKey::InitProducerId, 0, 5, &shapes::INIT_PRODUCER_ID),
    api(ApiKey::OffsetForLeaderEpoch, 2, 4, &shapes::OFFSET_FOR_LEADER_EPOCH),
    api(ApiKey::AddPartitionsToTxn, 0, 5, &shapes::ADD_PARTITIONS_TO_TXN),
    api(ApiKey::AddOffsetsToTxn, 0, 4, &shapes::ADD_OFFSETS_TO_TXN),
    api(ApiKey::EndTxn, 0, 5, &shapes::END_TXN),
    api(ApiKey::WriteTxnMarkers, 1, 2, &shapes::WRITE_TXN_MARKERS),
    api(ApiKey::TxnOffsetCommit, 0, 5, &shapes::TXN_OFFSET_COMMIT),
    api(ApiKey::DescribeAcls, 1, 3, &shapes::DESCRIBE_ACLS),
    api(ApiKey::CreateAcls, 1, 3, &shapes::CREATE_ACLS),
    api(ApiKey::DeleteAcls, 1, 3, &shapes::DELETE_ACLS),
    api(ApiKey::DescribeConfigs, 1, 4, &shapes::DESCRIBE_CONFIGS),
    api(ApiKey::AlterConfigs, 0, 2, &shapes::ALTER_CONFIGS),
    api(ApiKey::AlterReplicaLogDirs, 1, 2, &shapes::ALTER_REPLICA_LOG_DIRS),
    api(ApiKey::DescribeLogDirs, 1, 5, &shapes::DESCRIBE_LOG_DIRS),
    api(ApiKey::SaslAuthenticate, 0, 2, &shapes::SASL_AUTHENTICATE),
    api(ApiKey::CreatePartitions, 0, 3, &shapes::CREATE_PARTITIONS),
    api(ApiKey::CreateDelegationToken, 1, 3, &shapes::CREATE_DELEGATION_TOKEN),
    api(ApiKey::RenewDelegationToken, 1, 2, &shapes::RENEW_DELEGATION_TOKEN),
    api(ApiKey::ExpireDelegationToken, 1, 2, &shapes::EXPIRE_DELEGATION_TOKEN),
    api(ApiKey::DescribeDelegationToken, 1, 3, &shapes::DESCRIBE_DELEGATION_TOKEN),
    api(ApiKey::DeleteGroups, 0, 2, &shapes::DELETE_GROUPS),
    api(ApiKey::ElectLeaders, 0, 2, &shapes::ELECT_LEADERS),
    api(ApiKey::IncrementalAlterConfigs, 0, 1, &shapes::INCREMENTAL_ALTER_CONFIGS),
    api(ApiKey::AlterPartitionReassignments, 0, 1, &shapes::ALTER_PARTITION_REASSIGNMENTS),
    api(ApiKey::ListPartitionReassignments, 0, 0, &shapes::LIST_PARTITION_REASSIGNMENTS),
    api(ApiKey::OffsetDelete, 0, 0, &shapes::OFFSET_DELETE),
    api(ApiKey::DescribeClientQuotas, 0, 1, &shapes::DESCRIBE_CLIENT_QUOTAS),
    api(ApiKey::AlterClientQuotas, 0, 1, &shapes::ALTER_CLIENT_QUOTAS),
    api(ApiKey::DescribeQuorum, 0, 2, &shapes::DESCRIBE_QUORUM),
    api(ApiKey::UpdateFeatures, 0, 2, &shapes::UPDATE_FEATURES),
    api(ApiKey::DescribeUserScramCredentials, 0, 0, &shapes::DESCRIBE_USER_SCRAM_CREDENTIALS),
    api(ApiKey::AlterUserScramCredentials, 0, 0, &shapes::ALTER_USER_SCRAM_CREDENTIALS),
    api(ApiKey::DescribeCluster, 0, 2, &shapes::DESCRIBE_CLUSTER),
    api(ApiKey::UnregisterBroker, 0, 0, &shapes::UNREGISTER_BROKER),
    api(ApiKey::DescribeProducers, 0, 0, &shapes::DESCRIBE_PRODUCERS),
    api(ApiKey::DescribeTransactions, 0, 0, &shapes::DESCRIBE_TRANSACTIONS),
    api(ApiKey::ListTransactions, 0, 2, &shapes::LIST_TRANSACTIONS),
    api(ApiKey::ConsumerGroupHeartbeat, 0, 1, &shapes::CONSUMER_GROUP_HEARTBEAT),
    api(ApiKey::ConsumerGroupDescribe, 0, 1, &shapes::CONSUMER_GROUP_DESCRIBE),
    api(ApiKey::GetTelemetrySubscriptions, 0, 0, &shapes::GET_TELEMETRY_SUBSCRIPTIONS),
    api(ApiKey::PushTelemetry, 0, 0, &shapes::PUSH_TELEMETRY),
    api(ApiKey::ListConfigResources, 0, 1, &shapes::LIST_CONFIG_RESOURCES),
    api(ApiKey::DescribeTopicPartitions, 0, 0, &shapes::DESCRIBE_TOPIC_PARTITIONS),
    api(ApiKey::ShareGroupHeartbeat, 1, 1, &shapes::SHARE_GROUP_HEARTBEAT),
    api(ApiKey::ShareGroupDescribe, 1, 1, &shapes::SHARE_GROUP_DESCRIBE),
    api(ApiKey::ShareFetch, 1, 2, &shapes::SHARE_FETCH),
    api(ApiKey::ShareAcknowledge, 1, 2, &shapes::SHARE_ACKNOWLEDGE),
    api(ApiKey::InitializeShareGroupState, 0, 0, &shapes::INITIALIZE_SHARE_GROUP_STATE),
    api(ApiKey::ReadShareGroupState, 0, 0, &shapes::READ_SHARE_GROUP_STATE),
    api(ApiKey::WriteShareGroupState, 0, 1, &shapes::WRITE_SHARE_GROUP_STATE),
    api(ApiKey::DeleteShareGroupState, 0, 0, &shapes::DELETE_SHARE_GROUP_STATE),
    api(ApiKey::ReadShareGroupStateSummary, 0, 1, &shapes::READ_SHARE_GROUP_STATE_SUMMARY),
    api(ApiKey::StreamsGroupHeartbeat, 0, 0, &shapes::STREAMS_GROUP_HEARTBEAT),
    api(ApiKey::StreamsGroupDescribe, 0, 0, &shapes::STREAMS_GROUP_DESCRIBE),
    api(ApiKey::DescribeShareGroupOffsets, 0, 1, &shapes::DESCRIBE_SHARE_GROUP_OFFSETS),
    api(ApiKey::AlterShareGroupOffsets, 0, 0, &shapes::ALTER_SHARE_GROUP_OFFSETS),
    api(ApiKey::DeleteShareGroupOffsets, 0, 0, &shapes::DELETE_SHARE_GROUP_OFFSETS),
];

/// The served request with that number.
pub(crate) fn find_api(key: i16) -> Option<&'static Api> {
    SERVED.iter().find(|api| api.key as i16 == key)
}

impl Api {
    /// Whether a request of that version is answered.
    pub(crate) fn serves(&self, version: i16) -> bool {
        (self.min..=self.max).contains(&version)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_version_range_is_one_that_kafka_serves() {
        for api in SERVED {
            let known = api.key.valid_versions();
            let newest = match api.key {
                ApiKey::ListOffsets => 11,
                ApiKey::DescribeLogDirs => 5,
                // Version 6 (KIP-939) is unstable in Kafka 4.3 and not offered.
                ApiKey::InitProducerId => 5,
                ApiKey::WriteTxnMarkers => 2,
                ApiKey::ShareFetch | ApiKey::ShareAcknowledge => 2,
                ApiKey::WriteShareGroupState
                | ApiKey::ReadShareGroupStateSummary
                | ApiKey::DescribeShareGroupOffsets => 1,
                _ => known.max,
            };
            assert_eq!((api.min, api.max), (known.min, newest), "{:?}", api.key);
        }
    }
}
