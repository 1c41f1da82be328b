//! From a frame to its answer: one `match` over everything that [`api`](crate::wire::api) lists.

use std::{panic::AssertUnwindSafe, time::Duration};

use bytes::{Bytes, BytesMut};
use futures::FutureExt;
use kafka_protocol::{
    error::ResponseError,
    messages::{
        AlterConfigsRequest, ApiKey, ApiVersionsRequest, CreatePartitionsRequest, CreateTopicsRequest,
        DeleteGroupsRequest, DeleteRecordsRequest, DeleteTopicsRequest, DescribeClusterRequest, DescribeConfigsRequest,
        DescribeGroupsRequest, DescribeTopicPartitionsRequest, FetchRequest, FindCoordinatorRequest, HeartbeatRequest,
        IncrementalAlterConfigsRequest, InitProducerIdRequest, JoinGroupRequest, LeaveGroupRequest, ListGroupsRequest,
        ListOffsetsRequest, MetadataRequest, OffsetDeleteRequest, OffsetForLeaderEpochRequest, ProduceRequest,
        SyncGroupRequest,
    },
    protocol::{Decodable, Encodable},
};
use tracing::error;

use super::{
    Broker, RequestContext,
    handlers::{
        self,
        produce::{Outcome, Produced},
    },
};
use crate::wire::{
    api::Api,
    fetch_response::{self, FetchFrame},
    frame::{self, EncodeError, FrameError},
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
    /// The same, or nothing, and then no look at the next request for a while (KIP-219).
    Throttled(Option<BytesMut>, Duration),
}

impl Reply {
    /// How long the connection's next request is to wait, if it is.
    pub(super) fn pause(&self) -> Option<Duration> {
        if let Reply::Throttled(_, pause) = self { Some(*pause) } else { None }
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

/// Decodes, handles and encodes one request. The future is boxed so that the largest handler does not decide what
/// every idle connection weighs. With a module of [`later`] at the end, that module is the codec.
#[allow(unused_macros, reason = "the second form waits for its handlers")]
macro_rules! serve {
    ($broker:ident, $key:ident, $context:ident, $body:ident, $request:ty, $handler:ident) => {{
        let version = later::codec_version($key, $context.api_version);
        let request: $request = decode($key, version, $body)?;
        let response = Box::pin(handlers::$handler::handle($broker, $context, request)).await;
        encode($key, version, $context.correlation_id, &response)
    }};
    ($broker:ident, $key:ident, $context:ident, $body:ident, $handler:ident by later) => {{
        let version = $context.api_version;
        let request = decoded($key, version, later::$handler::decode(version, $body))?;
        let response = Box::pin(handlers::$handler::handle($broker, $context, request)).await;
        let mut out = BytesMut::with_capacity(256);
        let start = frame::begin_response(&mut out, $key, version, $context.correlation_id);
        encoded($key, version, later::$handler::encode(&mut out, version, &response))?;
        frame::finish_response(&mut out, start, 0);
        Ok(Reply::Frame(out))
    }};
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
        ApiKey::DescribeConfigs => serve!(broker, key, context, body, DescribeConfigsRequest, describe_configs),
        ApiKey::AlterConfigs => serve!(broker, key, context, body, AlterConfigsRequest, alter_configs),
        ApiKey::CreatePartitions => serve!(broker, key, context, body, CreatePartitionsRequest, create_partitions),
        ApiKey::IncrementalAlterConfigs => {
            serve!(broker, key, context, body, IncrementalAlterConfigsRequest, incremental_alter_configs)
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
        // `find_api` lets nothing else in; a line missing here is a mistake that closes the connection.
        other => {
            error!(key = ?other, "a request is listed as served and has no handler");
            Err(FrameError::Key { key: other as i16 }.into())
        }
    }
}

async fn produce(broker: &Broker, context: &RequestContext, body: Bytes) -> Result<Reply, DispatchError> {
    let (key, version) = (ApiKey::Produce, context.api_version);
    let request: ProduceRequest = decode(key, version, body)?;
    let Outcome { produced, pause } = handlers::produce::handle(broker, context, request).await;
    let reply = match produced {
        Produced::Answer(response) => encode(key, version, context.correlation_id, &response)?,
        Produced::Nothing => Reply::Nothing,
        Produced::Close => return Err(DispatchError::Unanswerable),
    };
    Ok(match reply {
        Reply::Frame(frame) if !pause.is_zero() => Reply::Throttled(Some(frame), pause),
        Reply::Nothing if !pause.is_zero() => Reply::Throttled(None, pause),
        reply => reply,
    })
}

async fn fetch(broker: &Broker, context: &RequestContext, body: Bytes) -> Result<Reply, DispatchError> {
    let (key, version) = (ApiKey::Fetch, context.api_version);
    let request: FetchRequest = decode(key, version, body)?;
    let answer = handlers::fetch::handle(broker, context, request).await;
    Ok(Reply::Fetch(fetch_response::encode(version, context.correlation_id, answer)?))
}

fn decode<R: Decodable>(key: ApiKey, version: i16, mut body: Bytes) -> Result<R, DispatchError> {
    decoded(key, version, R::decode(&mut body, version))
}

fn decoded<R>(key: ApiKey, version: i16, outcome: anyhow::Result<R>) -> Result<R, DispatchError> {
    outcome.map_err(|error| DispatchError::Decode { key, version, reason: error.to_string() })
}

#[allow(dead_code, reason = "used by the second form of `serve!`")]
fn encoded(key: ApiKey, version: i16, outcome: anyhow::Result<()>) -> Result<(), EncodeError> {
    outcome.map_err(|error| EncodeError { key, version, reason: error.to_string() })
}

fn encode<R: Encodable>(key: ApiKey, version: i16, correlation_id: i32, body: &R) -> Result<Reply, DispatchError> {
    let mut out = BytesMut::with_capacity(256);
    frame::encode_response(&mut out, key, version, correlation_id, body)?;
    Ok(Reply::Frame(out))
}
