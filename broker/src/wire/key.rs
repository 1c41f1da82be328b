//! Kafka's numbers and names of requests: those of `kafka-protocol`, and those that it does not know yet.

use kafka_protocol::messages::ApiKey as Known;

macro_rules! keys {
    ($($name:ident)*; $($own:ident = $number:literal)*) => {
        /// A request that this broker serves.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(i16)]
        pub(crate) enum ApiKey {
            $(
                #[doc = concat!("`", stringify!($name), "`")]
                $name = Known::$name as i16,
            )*
            $(
                #[doc = concat!("`", stringify!($own), "`")]
                $own = $number,
            )*
        }

        impl ApiKey {
            /// The request as `kafka-protocol` names it, if it does.
            fn known(self) -> Option<Known> {
                match self {
                    $(ApiKey::$name => Some(Known::$name),)*
                    $(ApiKey::$own => None,)*
                }
            }
        }
    };
}

keys! {
    Produce Fetch ListOffsets Metadata OffsetCommit OffsetFetch FindCoordinator JoinGroup Heartbeat LeaveGroup SyncGroup
    DescribeGroups ListGroups SaslHandshake ApiVersions CreateTopics DeleteTopics DeleteRecords InitProducerId
    OffsetForLeaderEpoch AddPartitionsToTxn AddOffsetsToTxn EndTxn WriteTxnMarkers TxnOffsetCommit DescribeAcls CreateAcls
    DeleteAcls DescribeConfigs AlterConfigs AlterReplicaLogDirs DescribeLogDirs SaslAuthenticate CreatePartitions
    CreateDelegationToken RenewDelegationToken ExpireDelegationToken DescribeDelegationToken DeleteGroups ElectLeaders
    IncrementalAlterConfigs AlterPartitionReassignments ListPartitionReassignments OffsetDelete DescribeClientQuotas
    AlterClientQuotas DescribeUserScramCredentials AlterUserScramCredentials DescribeQuorum UpdateFeatures DescribeCluster
    DescribeProducers UnregisterBroker DescribeTransactions ListTransactions ConsumerGroupHeartbeat ConsumerGroupDescribe
    GetTelemetrySubscriptions PushTelemetry ListConfigResources DescribeTopicPartitions ShareGroupHeartbeat ShareGroupDescribe
    ShareFetch ShareAcknowledge InitializeShareGroupState ReadShareGroupState WriteShareGroupState DeleteShareGroupState
    ReadShareGroupStateSummary DescribeShareGroupOffsets AlterShareGroupOffsets DeleteShareGroupOffsets;
    StreamsGroupHeartbeat = 88 StreamsGroupDescribe = 89
}

impl ApiKey {
    /// Whether the header of a response in that version ends in tagged fields. Never for ApiVersions: its asker does not know
    /// yet what the broker speaks (KIP-511).
    pub(crate) fn has_flexible_response_header(self, version: i16) -> bool {
        match self.known() {
            Some(Known::ApiVersions) => false,
            Some(known) => known.response_header_version(version.min(known.valid_versions().max)) >= 1,
            // Requests that are so new have no other form.
            None => true,
        }
    }
}

#[cfg(test)]
impl ApiKey {
    /// Which versions Kafka's definitions know, as far as `kafka-protocol` does. The requests of our own exist in their first.
    pub(crate) fn valid_versions(self) -> kafka_protocol::protocol::VersionRange {
        let first = kafka_protocol::protocol::VersionRange { min: 0, max: 0 };
        self.known().map_or(first, |known| known.valid_versions())
    }
}
