//! All that a frame goes through before a handler sees it, in one call: what a fuzzer aims at.

use anyhow::Result;
use bytes::Bytes;
use kafka_protocol::{
    messages::{
        AddOffsetsToTxnRequest, AddPartitionsToTxnRequest, AlterClientQuotasRequest, AlterConfigsRequest,
        AlterPartitionReassignmentsRequest, AlterReplicaLogDirsRequest, AlterShareGroupOffsetsRequest,
        AlterUserScramCredentialsRequest, ApiVersionsRequest, ConsumerGroupDescribeRequest,
        ConsumerGroupHeartbeatRequest, CreateAclsRequest, CreateDelegationTokenRequest, CreatePartitionsRequest,
        CreateTopicsRequest, DeleteAclsRequest, DeleteGroupsRequest, DeleteRecordsRequest,
        DeleteShareGroupOffsetsRequest, DeleteShareGroupStateRequest, DeleteTopicsRequest, DescribeAclsRequest,
        DescribeClientQuotasRequest, DescribeClusterRequest, DescribeConfigsRequest, DescribeDelegationTokenRequest,
        DescribeGroupsRequest, DescribeProducersRequest, DescribeQuorumRequest, DescribeTopicPartitionsRequest,
        DescribeTransactionsRequest, DescribeUserScramCredentialsRequest, ElectLeadersRequest, EndTxnRequest,
        ExpireDelegationTokenRequest, FetchRequest, FindCoordinatorRequest, GetTelemetrySubscriptionsRequest,
        HeartbeatRequest, IncrementalAlterConfigsRequest, InitProducerIdRequest, InitializeShareGroupStateRequest,
        JoinGroupRequest, LeaveGroupRequest, ListConfigResourcesRequest, ListGroupsRequest, ListOffsetsRequest,
        ListPartitionReassignmentsRequest, ListTransactionsRequest, MetadataRequest, OffsetDeleteRequest,
        OffsetForLeaderEpochRequest, ProduceRequest, PushTelemetryRequest, ReadShareGroupStateRequest,
        RenewDelegationTokenRequest, SaslAuthenticateRequest, SaslHandshakeRequest, ShareGroupDescribeRequest,
        ShareGroupHeartbeatRequest, SyncGroupRequest, TxnOffsetCommitRequest, UnregisterBrokerRequest,
        UpdateFeaturesRequest,
    },
    protocol::Decodable,
};

use super::{frame::parse_header, key::ApiKey, later};

/// Takes a frame, without its length, through header, version, shape and decoder, as a connection does. Returns whether a
/// handler would see it. Not for serving: the request is dropped.
#[doc(hidden)]
pub fn check_frame(mut frame: Bytes) -> bool {
    let Ok(header) = parse_header(&mut frame) else { return false };
    header.api.serves(header.version)
        && header.api.shape.check(header.version, &frame).is_ok()
        && decode(header.api.key, header.version, frame).is_ok()
}

fn decode(key: ApiKey, version: i16, body: Bytes) -> Result<()> {
    fn known<R: Decodable>(key: ApiKey, version: i16, mut body: Bytes) -> Result<()> {
        R::decode(&mut body, later::codec_version(key, version)).map(drop)
    }
    let known = match key {
        ApiKey::Produce => known::<ProduceRequest>,
        ApiKey::Fetch => known::<FetchRequest>,
        ApiKey::ListOffsets => known::<ListOffsetsRequest>,
        ApiKey::OffsetForLeaderEpoch => known::<OffsetForLeaderEpochRequest>,
        ApiKey::ApiVersions => known::<ApiVersionsRequest>,
        ApiKey::Metadata => known::<MetadataRequest>,
        ApiKey::DescribeCluster => known::<DescribeClusterRequest>,
        ApiKey::DescribeTopicPartitions => known::<DescribeTopicPartitionsRequest>,
        ApiKey::CreateTopics => known::<CreateTopicsRequest>,
        ApiKey::DeleteTopics => known::<DeleteTopicsRequest>,
        ApiKey::DeleteRecords => known::<DeleteRecordsRequest>,
        ApiKey::InitProducerId => known::<InitProducerIdRequest>,
        ApiKey::DescribeAcls => known::<DescribeAclsRequest>,
        ApiKey::CreateAcls => known::<CreateAclsRequest>,
        ApiKey::DeleteAcls => known::<DeleteAclsRequest>,
        ApiKey::DescribeConfigs => known::<DescribeConfigsRequest>,
        ApiKey::AlterConfigs => known::<AlterConfigsRequest>,
        ApiKey::CreatePartitions => known::<CreatePartitionsRequest>,
        ApiKey::IncrementalAlterConfigs => known::<IncrementalAlterConfigsRequest>,
        ApiKey::FindCoordinator => known::<FindCoordinatorRequest>,
        ApiKey::JoinGroup => known::<JoinGroupRequest>,
        ApiKey::SyncGroup => known::<SyncGroupRequest>,
        ApiKey::Heartbeat => known::<HeartbeatRequest>,
        ApiKey::LeaveGroup => known::<LeaveGroupRequest>,
        ApiKey::OffsetDelete => known::<OffsetDeleteRequest>,
        ApiKey::DescribeGroups => known::<DescribeGroupsRequest>,
        ApiKey::ListGroups => known::<ListGroupsRequest>,
        ApiKey::DeleteGroups => known::<DeleteGroupsRequest>,
        ApiKey::AlterUserScramCredentials => known::<AlterUserScramCredentialsRequest>,
        ApiKey::CreateDelegationToken => known::<CreateDelegationTokenRequest>,
        ApiKey::DescribeDelegationToken => known::<DescribeDelegationTokenRequest>,
        ApiKey::DescribeUserScramCredentials => known::<DescribeUserScramCredentialsRequest>,
        ApiKey::ExpireDelegationToken => known::<ExpireDelegationTokenRequest>,
        ApiKey::RenewDelegationToken => known::<RenewDelegationTokenRequest>,
        ApiKey::SaslAuthenticate => known::<SaslAuthenticateRequest>,
        ApiKey::SaslHandshake => known::<SaslHandshakeRequest>,
        ApiKey::AddPartitionsToTxn => known::<AddPartitionsToTxnRequest>,
        ApiKey::AddOffsetsToTxn => known::<AddOffsetsToTxnRequest>,
        ApiKey::EndTxn => known::<EndTxnRequest>,
        ApiKey::TxnOffsetCommit => known::<TxnOffsetCommitRequest>,
        ApiKey::DescribeProducers => known::<DescribeProducersRequest>,
        ApiKey::DescribeTransactions => known::<DescribeTransactionsRequest>,
        ApiKey::ListTransactions => known::<ListTransactionsRequest>,
        ApiKey::WriteTxnMarkers => return later::write_txn_markers::decode(version, body).map(drop),
        ApiKey::AlterClientQuotas => known::<AlterClientQuotasRequest>,
        ApiKey::AlterPartitionReassignments => known::<AlterPartitionReassignmentsRequest>,
        ApiKey::AlterReplicaLogDirs => known::<AlterReplicaLogDirsRequest>,
        ApiKey::DescribeClientQuotas => known::<DescribeClientQuotasRequest>,
        ApiKey::DescribeQuorum => known::<DescribeQuorumRequest>,
        ApiKey::ElectLeaders => known::<ElectLeadersRequest>,
        ApiKey::GetTelemetrySubscriptions => known::<GetTelemetrySubscriptionsRequest>,
        ApiKey::ListConfigResources => known::<ListConfigResourcesRequest>,
        ApiKey::ListPartitionReassignments => known::<ListPartitionReassignmentsRequest>,
        ApiKey::PushTelemetry => known::<PushTelemetryRequest>,
        ApiKey::UnregisterBroker => known::<UnregisterBrokerRequest>,
        ApiKey::UpdateFeatures => known::<UpdateFeaturesRequest>,
        ApiKey::ConsumerGroupHeartbeat => known::<ConsumerGroupHeartbeatRequest>,
        ApiKey::ConsumerGroupDescribe => known::<ConsumerGroupDescribeRequest>,
        ApiKey::ShareGroupHeartbeat => known::<ShareGroupHeartbeatRequest>,
        ApiKey::ShareGroupDescribe => known::<ShareGroupDescribeRequest>,
        ApiKey::InitializeShareGroupState => known::<InitializeShareGroupStateRequest>,
        ApiKey::ReadShareGroupState => known::<ReadShareGroupStateRequest>,
        ApiKey::DeleteShareGroupState => known::<DeleteShareGroupStateRequest>,
        ApiKey::AlterShareGroupOffsets => known::<AlterShareGroupOffsetsRequest>,
        ApiKey::DeleteShareGroupOffsets => known::<DeleteShareGroupOffsetsRequest>,
        ApiKey::ShareFetch => return later::share_fetch::decode(version, body).map(drop),
        ApiKey::ShareAcknowledge => return later::share_acknowledge::decode(version, body).map(drop),
        ApiKey::WriteShareGroupState => return later::write_share_group_state::decode(version, body).map(drop),
        ApiKey::ReadShareGroupStateSummary => {
            return later::read_share_group_state_summary::decode(version, body).map(drop);
        }
        ApiKey::DescribeShareGroupOffsets => {
            return later::describe_share_group_offsets::decode(version, body).map(drop);
        }
        ApiKey::DescribeLogDirs => return later::describe_log_dirs::decode(version, body).map(drop),
        ApiKey::OffsetCommit => return later::offset_commit::decode(version, body).map(drop),
        ApiKey::OffsetFetch => return later::offset_fetch::decode(version, body).map(drop),
        ApiKey::StreamsGroupHeartbeat => return later::streams_group_heartbeat::decode(version, body).map(drop),
        ApiKey::StreamsGroupDescribe => return later::streams_group_describe::decode(version, body).map(drop),
    };
    known(key, version, body)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::api::SERVED;

    #[test]
    fn the_fuzzer_begins_with_a_frame_of_every_served_request() {
        let corpus = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus/frame");
        let seeds = std::fs::read_dir(corpus).unwrap().map(|entry| std::fs::read(entry.unwrap().path()).unwrap());
        let seeds: Vec<Vec<u8>> = seeds.collect();
        let has_seed = |key: ApiKey| {
            seeds.iter().any(|seed| seed.starts_with(&(key as i16).to_be_bytes()) && check_frame(seed.clone().into()))
        };
        let missing: Vec<ApiKey> = SERVED.iter().map(|api| api.key).filter(|key| !has_seed(*key)).collect();
        assert!(missing.is_empty(), "add to fuzz/examples/seeds/frames.rs and run it: {missing:?}");
    }

    #[test]
    fn a_frame_that_a_handler_would_see_passes_and_a_cut_one_does_not() {
        // ApiVersions 3 of client "me", software "a" "b".
        let whole = [0, 18, 0, 3, 0, 0, 0, 9, 0, 2, b'm', b'e', 0, 2, b'a', 2, b'b', 0];
        assert!(check_frame(Bytes::copy_from_slice(&whole)));
        assert!(!check_frame(Bytes::copy_from_slice(&whole[..whole.len() - 1])));
    }
}
