//! From a frame to its answer: one `match` over everything that [`api`](crate::wire::api) lists.

use std::{panic::AssertUnwindSafe, time::Duration};

use bytes::{Bytes, BytesMut};
use futures::FutureExt;
use kafka_protocol::{
    error::ResponseError,
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
    protocol::{Decodable, Encodable},
};

use super::{
    Broker, RequestContext,
    handlers::{
        self,
        produce::{Outcome, Produced},
    },
    timed::Timed,
};
use crate::wire::{
    api::Api,
    fetch_response::{self, FetchFrame},
    frame::{self, EncodeError, FrameError},
    key::ApiKey,
    later,
    shape::ShapeError,
};

/// What goes back for one request.
#[derive(Debug)]
pub(super) enum Reply {
    /// A whole frame, length first.
    Frame(BytesMut),
    /// A frame whose records are elsewhere.
    Fetch(FetchFrame),
    /// Nothing: a producer with acks=0.
    Nothing,
    /// One of the others, and then no look at the next request for a while (KIP-219).
    Throttled(Box<Reply>, Duration),
}

impl Reply {
    /// How long the connection's next request is to wait, if it is.
    pub(super) fn pause(&self) -> Option<Duration> {
        if let Reply::Throttled(_, pause) = self { Some(*pause) } else { None }
    }

    /// The same, followed by `pause`.
    fn then(self, pause: Duration) -> Reply {
        if pause.is_zero() { self } else { Reply::Throttled(Box::new(self), pause) }
    }
}

/// Why a connection is closed instead of answered.
#[derive(Debug, thiserror::Error)]
pub(super) enum DispatchError {
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error("{key:?} version {version}: {reason}")]
    Shape { key: ApiKey, version: i16, reason: ShapeError },
    #[error("{key:?} version {version} cannot be decoded: {reason}")]
    Decode { key: ApiKey, version: i16, reason: String },
    #[error(transparent)]
    Encode(#[from] EncodeError),
    #[error("records cannot be read: {0}")]
    Records(#[from] std::io::Error),
    #[error("produce with acks=0 failed")]
    Unanswerable,
    #[error("the handler of {key:?} panicked")]
    Panic { key: ApiKey },
}

/// Answers one request.
///
/// # Errors
/// [`DispatchError`]: nothing can be answered; the connection is closed, as Kafka does.
pub(super) async fn answer(
    broker: &Broker,
    api: &'static Api,
    context: &RequestContext,
    body: Bytes,
) -> Result<Reply, DispatchError> {
    let key = api.key;
    if !api.serves(context.api_version) {
        return match key {
            ApiKey::ApiVersions => {
                let refused = handlers::api_versions::refusal(ResponseError::UnsupportedVersion);
                encode(key, 0, context.correlation_id, &refused)
            }
            _ => Err(FrameError::Version { key, version: context.api_version }.into()),
        };
    }
    api.shape.check(context.api_version, &body).map_err(|reason| DispatchError::Shape {
        key,
        version: context.api_version,
        reason,
    })?;
    // A bug in one handler costs its connection, not the node. What a handler may leave behind is guarded by locks
    // that do not poison and is only ever changed in whole steps.
    match AssertUnwindSafe(route(broker, key, context, body)).catch_unwind().await {
        Ok(reply) => reply,
        Err(_) => Err(DispatchError::Panic { key }),
    }
}

/// Decodes, handles and encodes one request. An answer that tells its client to wait, because the handler says so or because
/// of the time it took (KIP-124), is followed by a pause. With a module of [`later`] at the end, that module is the codec;
/// `unthrottled` is an answer without a place for it; with such a module, one to a broker, whose time no quota counts.
macro_rules! serve {
    ($broker:ident, $key:ident, $context:ident, $body:ident, $request:ty, $handler:ident) => {{
        let version = later::codec_version($key, $context.api_version);
        let request: $request = decode($key, version, $body)?;
        let response = serve!(@handled $broker, $context, request, $handler);
        let pause = serve!(@pause response);
        encode($key, version, $context.correlation_id, &response).map(|reply| reply.then(pause))
    }};
    ($broker:ident, $key:ident, $context:ident, $body:ident, $handler:ident by later) => {{
        let version = $context.api_version;
        let request = decoded($key, version, later::$handler::decode(version, $body))?;
        let response = serve!(@handled $broker, $context, request, $handler);
        let pause = serve!(@pause response);
        let mut out = BytesMut::with_capacity(256);
        let start = frame::begin_response(&mut out, $key, version, $context.correlation_id);
        encoded($key, version, later::$handler::encode(&mut out, version, &response))?;
        frame::finish_response(&mut out, start, 0);
        Ok(Reply::Frame(out).then(pause))
    }};
    ($broker:ident, $key:ident, $context:ident, $body:ident, $handler:ident by later unthrottled) => {{
        let version = $context.api_version;
        let request = decoded($key, version, later::$handler::decode(version, $body))?;
        let response = handlers::$handler::handle($broker, $context, request).await;
        let mut out = BytesMut::with_capacity(256);
        let start = frame::begin_response(&mut out, $key, version, $context.correlation_id);
        encoded($key, version, later::$handler::encode(&mut out, version, &response))?;
        frame::finish_response(&mut out, start, 0);
        Ok(Reply::Frame(out))
    }};
    ($broker:ident, $key:ident, $context:ident, $body:ident, $request:ty, $handler:ident unthrottled) => {{
        let version = later::codec_version($key, $context.api_version);
        let request: $request = decode($key, version, $body)?;
        let (response, spent) = Timed::new(handlers::$handler::handle($broker, $context, request)).await;
        let pause = $broker.quotas.note_time($context, spent);
        encode($key, version, $context.correlation_id, &response).map(|reply| reply.then(pause))
    }};
    (@handled $broker:ident, $context:ident, $decoded:ident, $handler:ident) => {{
        let (mut response, spent) = Timed::new(handlers::$handler::handle($broker, $context, $decoded)).await;
        let wait = $broker.quotas.note_time($context, spent).as_millis() as i32;
        response.throttle_time_ms = response.throttle_time_ms.max(wait);
        response
    }};
    (@pause $response:ident) => {
        Duration::from_millis(u64::try_from($response.throttle_time_ms).unwrap_or(0))
    };
}

async fn route(broker: &Broker, key: ApiKey, context: &RequestContext, body: Bytes) -> Result<Reply, DispatchError> {
    match key {
        ApiKey::Produce => produce(broker, context, body).await,
        ApiKey::Fetch => fetch(broker, context, body).await,
        ApiKey::ListOffsets => serve!(broker, key, context, body, ListOffsetsRequest, list_offsets),
        ApiKey::OffsetForLeaderEpoch => {
            serve!(broker, key, context, body, OffsetForLeaderEpochRequest, offset_for_leader_epoch)
        }
        ApiKey::ApiVersions => serve!(broker, key, context, body, ApiVersionsRequest, api_versions),
        ApiKey::Metadata => serve!(broker, key, context, body, MetadataRequest, metadata),
        ApiKey::DescribeCluster => serve!(broker, key, context, body, DescribeClusterRequest, describe_cluster),
        ApiKey::DescribeTopicPartitions => {
            serve!(broker, key, context, body, DescribeTopicPartitionsRequest, describe_topic_partitions)
        }
        ApiKey::CreateTopics => serve!(broker, key, context, body, CreateTopicsRequest, create_topics),
        ApiKey::DeleteTopics => serve!(broker, key, context, body, DeleteTopicsRequest, delete_topics),
        ApiKey::DeleteRecords => serve!(broker, key, context, body, DeleteRecordsRequest, delete_records),
        ApiKey::InitProducerId => serve!(broker, key, context, body, InitProducerIdRequest, init_producer_id),
        ApiKey::DescribeAcls => serve!(broker, key, context, body, DescribeAclsRequest, describe_acls),
        ApiKey::CreateAcls => serve!(broker, key, context, body, CreateAclsRequest, create_acls),
        ApiKey::DeleteAcls => serve!(broker, key, context, body, DeleteAclsRequest, delete_acls),
        ApiKey::DescribeConfigs => serve!(broker, key, context, body, DescribeConfigsRequest, describe_configs),
        ApiKey::AlterConfigs => serve!(broker, key, context, body, AlterConfigsRequest, alter_configs),
        ApiKey::CreatePartitions => serve!(broker, key, context, body, CreatePartitionsRequest, create_partitions),
        ApiKey::IncrementalAlterConfigs => {
            serve!(broker, key, context, body, IncrementalAlterConfigsRequest, incremental_alter_configs)
        }
        ApiKey::AlterReplicaLogDirs => {
            serve!(broker, key, context, body, AlterReplicaLogDirsRequest, alter_replica_log_dirs)
        }
        ApiKey::DescribeLogDirs => serve!(broker, key, context, body, describe_log_dirs by later),
        ApiKey::FindCoordinator => serve!(broker, key, context, body, FindCoordinatorRequest, find_coordinator),
        ApiKey::JoinGroup => serve!(broker, key, context, body, JoinGroupRequest, join_group),
        ApiKey::SyncGroup => serve!(broker, key, context, body, SyncGroupRequest, sync_group),
        ApiKey::Heartbeat => serve!(broker, key, context, body, HeartbeatRequest, heartbeat),
        ApiKey::LeaveGroup => serve!(broker, key, context, body, LeaveGroupRequest, leave_group),
        ApiKey::OffsetCommit => serve!(broker, key, context, body, offset_commit by later),
        ApiKey::OffsetFetch => serve!(broker, key, context, body, offset_fetch by later),
        ApiKey::OffsetDelete => serve!(broker, key, context, body, OffsetDeleteRequest, offset_delete),
        ApiKey::DescribeGroups => serve!(broker, key, context, body, DescribeGroupsRequest, describe_groups),
        ApiKey::ListGroups => serve!(broker, key, context, body, ListGroupsRequest, list_groups),
        ApiKey::DeleteGroups => serve!(broker, key, context, body, DeleteGroupsRequest, delete_groups),
        ApiKey::ElectLeaders => serve!(broker, key, context, body, ElectLeadersRequest, elect_leaders),
        ApiKey::AlterPartitionReassignments => {
            serve!(broker, key, context, body, AlterPartitionReassignmentsRequest, alter_partition_reassignments)
        }
        ApiKey::ListPartitionReassignments => {
            serve!(broker, key, context, body, ListPartitionReassignmentsRequest, list_partition_reassignments)
        }
        ApiKey::DescribeClientQuotas => {
            serve!(broker, key, context, body, DescribeClientQuotasRequest, describe_client_quotas)
        }
        ApiKey::AlterClientQuotas => serve!(broker, key, context, body, AlterClientQuotasRequest, alter_client_quotas),
        ApiKey::DescribeQuorum => {
            serve!(broker, key, context, body, DescribeQuorumRequest, describe_quorum unthrottled)
        }
        ApiKey::UpdateFeatures => serve!(broker, key, context, body, UpdateFeaturesRequest, update_features),
        ApiKey::UnregisterBroker => serve!(broker, key, context, body, UnregisterBrokerRequest, unregister_broker),
        ApiKey::GetTelemetrySubscriptions => {
            serve!(broker, key, context, body, GetTelemetrySubscriptionsRequest, get_telemetry_subscriptions)
        }
        ApiKey::PushTelemetry => serve!(broker, key, context, body, PushTelemetryRequest, push_telemetry),
        ApiKey::ConsumerGroupHeartbeat => {
            serve!(broker, key, context, body, ConsumerGroupHeartbeatRequest, consumer_group_heartbeat)
        }
        ApiKey::ConsumerGroupDescribe => {
            serve!(broker, key, context, body, ConsumerGroupDescribeRequest, consumer_group_describe)
        }
        ApiKey::ShareGroupHeartbeat => {
            serve!(broker, key, context, body, ShareGroupHeartbeatRequest, share_group_heartbeat)
        }
        ApiKey::ShareGroupDescribe => {
            serve!(broker, key, context, body, ShareGroupDescribeRequest, share_group_describe)
        }
        ApiKey::ShareFetch => share_fetch(broker, context, body).await,
        ApiKey::ShareAcknowledge => share_acknowledge(broker, context, body).await,
        ApiKey::InitializeShareGroupState => {
            serve!(broker, key, context, body, InitializeShareGroupStateRequest, initialize_share_group_state unthrottled)
        }
        ApiKey::ReadShareGroupState => {
            serve!(broker, key, context, body, ReadShareGroupStateRequest, read_share_group_state unthrottled)
        }
        ApiKey::WriteShareGroupState => {
            serve!(broker, key, context, body, write_share_group_state by later unthrottled)
        }
        ApiKey::DeleteShareGroupState => {
            serve!(broker, key, context, body, DeleteShareGroupStateRequest, delete_share_group_state unthrottled)
        }
        ApiKey::ReadShareGroupStateSummary => {
            serve!(broker, key, context, body, read_share_group_state_summary by later unthrottled)
        }
        ApiKey::DescribeShareGroupOffsets => {
            serve!(broker, key, context, body, describe_share_group_offsets by later)
        }
        ApiKey::AlterShareGroupOffsets => {
            serve!(broker, key, context, body, AlterShareGroupOffsetsRequest, alter_share_group_offsets)
        }
        ApiKey::DeleteShareGroupOffsets => {
            serve!(broker, key, context, body, DeleteShareGroupOffsetsRequest, delete_share_group_offsets)
        }
        ApiKey::StreamsGroupHeartbeat => serve!(broker, key, context, body, streams_group_heartbeat by later),
        ApiKey::StreamsGroupDescribe => serve!(broker, key, context, body, streams_group_describe by later),
        ApiKey::ListConfigResources => {
            serve!(broker, key, context, body, ListConfigResourcesRequest, list_config_resources)
        }
        ApiKey::SaslHandshake => serve!(broker, key, context, body, SaslHandshakeRequest, sasl_handshake unthrottled),
        ApiKey::SaslAuthenticate => {
            serve!(broker, key, context, body, SaslAuthenticateRequest, sasl_authenticate unthrottled)
        }
        ApiKey::DescribeUserScramCredentials => {
            serve!(broker, key, context, body, DescribeUserScramCredentialsRequest, describe_user_scram_credentials)
        }
        ApiKey::AlterUserScramCredentials => {
            serve!(broker, key, context, body, AlterUserScramCredentialsRequest, alter_user_scram_credentials)
        }
        ApiKey::CreateDelegationToken => {
            serve!(broker, key, context, body, CreateDelegationTokenRequest, create_delegation_token)
        }
        ApiKey::RenewDelegationToken => {
            serve!(broker, key, context, body, RenewDelegationTokenRequest, renew_delegation_token)
        }
        ApiKey::ExpireDelegationToken => {
            serve!(broker, key, context, body, ExpireDelegationTokenRequest, expire_delegation_token)
        }
        ApiKey::DescribeDelegationToken => {
            serve!(broker, key, context, body, DescribeDelegationTokenRequest, describe_delegation_token)
        }
        ApiKey::AddPartitionsToTxn => {
            serve!(broker, key, context, body, AddPartitionsToTxnRequest, add_partitions_to_txn)
        }
        ApiKey::AddOffsetsToTxn => serve!(broker, key, context, body, AddOffsetsToTxnRequest, add_offsets_to_txn),
        ApiKey::EndTxn => serve!(broker, key, context, body, EndTxnRequest, end_txn),
        ApiKey::WriteTxnMarkers => serve!(broker, key, context, body, write_txn_markers by later unthrottled),
        ApiKey::TxnOffsetCommit => serve!(broker, key, context, body, TxnOffsetCommitRequest, txn_offset_commit),
        ApiKey::DescribeProducers => serve!(broker, key, context, body, DescribeProducersRequest, describe_producers),
        ApiKey::DescribeTransactions => {
            serve!(broker, key, context, body, DescribeTransactionsRequest, describe_transactions)
        }
        ApiKey::ListTransactions => serve!(broker, key, context, body, ListTransactionsRequest, list_transactions),
    }
}

async fn produce(broker: &Broker, context: &RequestContext, body: Bytes) -> Result<Reply, DispatchError> {
    let (key, version) = (ApiKey::Produce, context.api_version);
    let request: ProduceRequest = decode(key, version, body)?;
    let (Outcome { produced, pause }, spent) = Timed::new(handlers::produce::handle(broker, context, request)).await;
    let by_bytes = broker.quotas.note_produced(context, context.bytes);
    // A producer without answers cannot be told, so its time is not held against it.
    let by_time = match &produced {
        Produced::Answer(_) => broker.quotas.note_time(context, spent),
        Produced::Nothing | Produced::Close => Duration::ZERO,
    };
    let pause = pause.max(by_bytes).max(by_time);
    let reply = match produced {
        Produced::Answer(mut response) => {
            response.throttle_time_ms = pause.as_millis() as i32;
            broker.answers.note_produced(&response);
            encode(key, version, context.correlation_id, &response)?
        }
        Produced::Nothing => Reply::Nothing,
        Produced::Close => return Err(DispatchError::Unanswerable),
    };
    Ok(reply.then(pause))
}

async fn fetch(broker: &Broker, context: &RequestContext, body: Bytes) -> Result<Reply, DispatchError> {
    let (key, version) = (ApiKey::Fetch, context.api_version);
    let request: FetchRequest = decode(key, version, body)?;
    let prepared = Timed::new(handlers::fetch::prepare(broker, context, request)).await;
    let answer = handlers::fetch::finish(broker, context, prepared);
    let pause = answer.throttle;
    broker.answers.note_fetched(&answer);
    Ok(Reply::Fetch(fetch_response::encode(version, context.correlation_id, answer)?).then(pause))
}

/// What was found goes out in any case, as it is the member's now: who is above a quota is told to wait afterwards.
async fn share_fetch(broker: &Broker, context: &RequestContext, body: Bytes) -> Result<Reply, DispatchError> {
    let (key, version) = (ApiKey::ShareFetch, context.api_version);
    let request = decoded(key, version, later::share_fetch::decode(version, body))?;
    let (mut answer, spent) = Timed::new(handlers::share_fetch::handle(broker, context, request)).await;
    let by_bytes = broker.quotas.note_fetched(context, handlers::share_fetch::record_bytes(&answer));
    let pause = by_bytes.max(broker.quotas.note_time(context, spent));
    answer.throttle_ms = pause.as_millis() as i32;
    Ok(Reply::Fetch(later::share_fetch::encode(version, context.correlation_id, answer)?).then(pause))
}

async fn share_acknowledge(broker: &Broker, context: &RequestContext, body: Bytes) -> Result<Reply, DispatchError> {
    let (key, version) = (ApiKey::ShareAcknowledge, context.api_version);
    let request = decoded(key, version, later::share_acknowledge::decode(version, body))?;
    let (mut response, spent) = Timed::new(handlers::share_acknowledge::handle(broker, context, request)).await;
    let pause = broker.quotas.note_time(context, spent);
    response.known.throttle_time_ms = pause.as_millis() as i32;
    let mut out = BytesMut::with_capacity(256);
    let start = frame::begin_response(&mut out, key, version, context.correlation_id);
    encoded(key, version, later::share_acknowledge::encode(&mut out, version, &response))?;
    frame::finish_response(&mut out, start, 0);
    Ok(Reply::Frame(out).then(pause))
}

fn decode<R: Decodable>(key: ApiKey, version: i16, mut body: Bytes) -> Result<R, DispatchError> {
    decoded(key, version, R::decode(&mut body, version))
}

fn decoded<R>(key: ApiKey, version: i16, outcome: anyhow::Result<R>) -> Result<R, DispatchError> {
    outcome.map_err(|error| DispatchError::Decode { key, version, reason: error.to_string() })
}

fn encoded(key: ApiKey, version: i16, outcome: anyhow::Result<()>) -> Result<(), EncodeError> {
    outcome.map_err(|error| EncodeError { key, version, reason: error.to_string() })
}

fn encode<R: Encodable>(key: ApiKey, version: i16, correlation_id: i32, body: &R) -> Result<Reply, DispatchError> {
    let mut out = BytesMut::with_capacity(256);
    frame::encode_response(&mut out, key, version, correlation_id, body)?;
    Ok(Reply::Frame(out))
}
