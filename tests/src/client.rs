//! A blocking client with the fewest possible instructions per byte.

mod groups;
mod refusal;

pub use groups::{Joined, Membership};
pub use refusal::Refusal;

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use bytes::{Buf, Bytes, BytesMut};
use kafka_protocol::{
    error::ResponseError,
    messages::{
        ApiKey, ApiVersionsRequest, ApiVersionsResponse, CreateTopicsRequest, CreateTopicsResponse,
        DeleteTopicsRequest, FetchRequest, FetchResponse, InitProducerIdRequest, InitProducerIdResponse,
        ListOffsetsRequest, ListOffsetsResponse, MetadataRequest, ProduceRequest, ProduceResponse, RequestHeader,
        TopicName,
        create_topics_request::{CreatableTopic, CreatableTopicConfig},
        delete_topics_request::DeleteTopicState,
        fetch_request::{FetchPartition, FetchTopic},
        list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic},
        metadata_request::MetadataRequestTopic,
        produce_request::{PartitionProduceData, TopicProduceData},
    },
    protocol::{Decodable, Encodable, Request, StrBytes},
};
use uuid::Uuid;
use varve_log::format::HEADER_BYTES;
use varve_metadata::model::{ProducerEpoch, ProducerId};

/// Both brokers serve these; older than the newest, so that no feature of one side is measured.
pub const PRODUCE_VERSION: i16 = 9;
const FETCH_VERSION: i16 = 12;
/// A coordinator that does not answer otherwise within this time is broken.
const PATIENCE: Duration = Duration::from_secs(300);
/// Longest wait for an answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(180);
/// Longest wait for a connection.
const CONNECT_LIMIT: Duration = Duration::from_secs(20);

/// One connection.
pub struct Client {
    stream: TcpStream,
    frame: Vec<u8>,
    /// How long a request of a transaction is made again while the broker says that it will be possible soon.
    pub patience: Duration,
}

/// Offset of the correlation id in a frame: length, api key, version.
const CORRELATION_AT: usize = 8;

impl Client {
    /// Connects, without any request.
    ///
    /// # Errors
    /// Nobody listens there.
    pub fn connect(address: SocketAddr) -> Result<Client> {
        Client::connect_within(address, CONNECT_LIMIT)
    }

    /// The same for somebody who does not wait longer than `limit` for the connection.
    ///
    /// # Errors
    /// Nobody listens there.
    pub fn connect_within(address: SocketAddr, limit: Duration) -> Result<Client> {
        let stream = TcpStream::connect_timeout(&address, limit)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(ANSWER_LIMIT))?;
        Ok(Client { stream, frame: Vec::new(), patience: PATIENCE })
    }

    /// From now on an answer that does not come within `limit` is an error.
    ///
    /// # Errors
    /// The limit is zero.
    pub fn wait_at_most(&self, limit: Duration) -> Result<()> {
        Ok(self.stream.set_read_timeout(Some(limit))?)
    }

    /// A second handle on the same connection, for a reader beside the writer.
    ///
    /// # Errors
    /// The kernel refuses another handle.
    pub fn split(&self) -> Result<Client> {
        Ok(Client { stream: self.stream.try_clone()?, frame: Vec::new(), patience: self.patience })
    }

    /// Asks which requests are served: the first sign of life.
    ///
    /// # Errors
    /// No answer, or an error in it.
    pub fn api_versions(&mut self) -> Result<()> {
        let mut answer = self.call(ApiKey::ApiVersions, 0, &ApiVersionsRequest::default())?;
        let versions = ApiVersionsResponse::decode(&mut answer, 0)?;
        Refusal::check("ApiVersions", versions.error_code, None)
    }

    /// Creates a topic with one replica.
    ///
    /// # Errors
    /// The broker's error code and message.
    pub fn create_topic(&mut self, name: &str, partitions: i32, configs: &[(&str, &str)]) -> Result<()> {
        self.create_replicated(name, partitions, 1, configs)
    }

    /// Creates a topic.
    ///
    /// # Errors
    /// The broker's error code and message.
    pub fn create_replicated(
        &mut self,
        name: &str,
        partitions: i32,
        replicas: i16,
        configs: &[(&str, &str)],
    ) -> Result<()> {
        let configs = configs
            .iter()
            .map(|(name, value)| CreatableTopicConfig::default().with_name(text(name)).with_value(Some(text(value))));
        let topic = CreatableTopic::default()
            .with_name(TopicName(text(name)))
            .with_num_partitions(partitions)
            .with_replication_factor(replicas)
            .with_configs(configs.collect());
        let request = CreateTopicsRequest::default().with_topics(vec![topic]).with_timeout_ms(30_000);
        let mut answer = self.call(ApiKey::CreateTopics, 5, &request)?;
        for topic in CreateTopicsResponse::decode(&mut answer, 5)?.topics {
            Refusal::check("CreateTopics", topic.error_code, topic.error_message)?;
        }
        Ok(())
    }

    /// Deletes a topic.
    ///
    /// # Errors
    /// The connection breaks (it may be gone), or the broker's error code and message.
    pub fn delete_topic(&mut self, name: &str) -> Result<()> {
        let topic = DeleteTopicState::default().with_name(Some(TopicName(text(name))));
        let request = DeleteTopicsRequest::default().with_topics(vec![topic]).with_timeout_ms(30_000);
        for topic in self.ask(6, &request)?.responses {
            Refusal::check("DeleteTopics", topic.error_code, topic.error_message)?;
        }
        Ok(())
    }

    /// The id of a topic, which no other topic of that name ever had; `None` if there is none.
    ///
    /// # Errors
    /// The broker's error code.
    pub fn topic_id(&mut self, name: &str) -> Result<Option<Uuid>> {
        let topic = MetadataRequestTopic::default().with_name(Some(TopicName(text(name))));
        let request = MetadataRequest::default().with_topics(Some(vec![topic])).with_allow_auto_topic_creation(false);
        let topic = self.ask(12, &request)?.topics.into_iter().next().context("one topic")?;
        if ResponseError::try_from_code(topic.error_code) == Some(ResponseError::UnknownTopicOrPartition) {
            return Ok(None);
        }
        Refusal::check("Metadata", topic.error_code, None)?;
        Ok(Some(topic.topic_id))
    }

    /// The offset for a ListOffsets timestamp (-1 latest, -2 earliest, -4 earliest local, -5 latest tiered).
    pub fn list_offset(&mut self, topic: &str, partition: i32, timestamp: i64) -> Result<i64> {
        let partition = ListOffsetsPartition::default()
            .with_partition_index(partition)
            .with_current_leader_epoch(-1)
            .with_timestamp(timestamp);
        let topic = ListOffsetsTopic::default().with_name(TopicName(text(topic))).with_partitions(vec![partition]);
        let request = ListOffsetsRequest::default().with_replica_id((-1).into()).with_topics(vec![topic]);
        let mut answer = self.call(ApiKey::ListOffsets, 9, &request)?;
        let response = ListOffsetsResponse::decode(&mut answer, 9)?;
        let found = response.topics.first().and_then(|topic| topic.partitions.first()).context("one partition")?;
        Refusal::check("ListOffsets", found.error_code, None)?;
        Ok(found.offset)
    }

    /// A producer id for idempotent batches, and its epoch.
    ///
    /// # Errors
    /// The broker's error code.
    pub fn init_producer_id(&mut self) -> Result<(ProducerId, ProducerEpoch)> {
        let request = InitProducerIdRequest::default().with_transactional_id(None).with_transaction_timeout_ms(60_000);
        let mut answer = self.call(ApiKey::InitProducerId, 4, &request)?;
        let given = InitProducerIdResponse::decode(&mut answer, 4)?;
        Refusal::check("InitProducerId", given.error_code, None)?;
        let id = ProducerId::from_wire(given.producer_id.0).context("a producer id")?;
        Ok((id, ProducerEpoch::from_wire(given.producer_epoch).context("a producer epoch")?))
    }

    /// Sends one batch with acks=all; the offset of its first record.
    ///
    /// # Errors
    /// The connection breaks (the batch may have been written), or the broker's error code and message.
    pub fn produce(&mut self, topic: &str, partition: i32, batch: Bytes) -> Result<i64> {
        self.send_frame(&produce_frame(topic, &[(partition, batch)])?)?;
        self.receive_produced()
    }

    /// The answer to a [`produce_frame`] of one batch: the offset of its first record.
    ///
    /// # Errors
    /// As [`Client::produce`].
    pub fn receive_produced(&mut self) -> Result<i64> {
        let mut answer = Bytes::copy_from_slice(self.receive()?);
        ensure!(answer.len() > 5, "a produce answer of {} bytes", answer.len());
        answer.advance(5);
        let response = ProduceResponse::decode(&mut answer, PRODUCE_VERSION)?;
        let found = response.responses.first().and_then(|topic| topic.partition_responses.first());
        let found = found.context("one partition")?;
        Refusal::check("Produce", found.error_code, found.error_message.clone())?;
        Ok(found.base_offset)
    }

    /// Sends a frame that was built beforehand, with its own correlation id.
    pub fn send_frame(&mut self, frame: &[u8]) -> Result<()> {
        self.stream.write_all(frame).context("sending a request")
    }

    /// Reads one answer into the connection's own buffer; the first 4 bytes are the correlation id.
    pub fn receive(&mut self) -> Result<&[u8]> {
        let mut length = [0; 4];
        self.stream.read_exact(&mut length).context("waiting for an answer")?;
        let length = usize::try_from(i32::from_be_bytes(length)).context("a negative length")?;
        self.frame.resize(length, 0);
        self.stream.read_exact(&mut self.frame).context("reading an answer")?;
        Ok(&self.frame)
    }

    /// One fetch of one partition; the record bytes, whole batches first.
    pub fn fetch(&mut self, request: &FetchSpec<'_>, offset: i64) -> Result<Bytes> {
        let partition = FetchPartition::default()
            .with_partition(request.partition)
            .with_current_leader_epoch(-1)
            .with_fetch_offset(offset)
            .with_last_fetched_epoch(-1)
            .with_log_start_offset(-1)
            .with_partition_max_bytes(request.max_bytes);
        let topic = FetchTopic::default().with_topic(TopicName(text(request.topic))).with_partitions(vec![partition]);
        let fetch = FetchRequest::default()
            .with_replica_id((-1).into())
            .with_max_wait_ms(request.max_wait_ms)
            .with_min_bytes(1)
            .with_max_bytes(50 << 20)
            .with_session_id(0)
            .with_session_epoch(-1)
            .with_topics(vec![topic]);
        let mut answer = self.call(ApiKey::Fetch, FETCH_VERSION, &fetch)?;
        let response = FetchResponse::decode(&mut answer, FETCH_VERSION)?;
        Refusal::check("Fetch", response.error_code, None)?;
        let found = response.responses.into_iter().next().and_then(|topic| topic.partitions.into_iter().next());
        let found = found.context("one partition")?;
        Refusal::check("Fetch", found.error_code, None).with_context(|| format!("at {offset}"))?;
        Ok(found.records.unwrap_or_default())
    }

    /// Asks anything; the answer, whatever errors it holds.
    ///
    /// # Errors
    /// The version cannot carry the request, the connection breaks, or the answer cannot be decoded.
    pub fn ask<Q: Request>(&mut self, version: i16, request: &Q) -> Result<Q::Response> {
        let key = ApiKey::try_from(Q::KEY).ok().context("a known request")?;
        let mut answer = self.call(key, version, request)?;
        Q::Response::decode(&mut answer, version)
    }

    pub(crate) fn call(&mut self, key: ApiKey, version: i16, request: &impl Encodable) -> Result<Bytes> {
        let frame = encode(key, version, request)?;
        self.send_frame(&frame)?;
        self.receive()?;
        let mut answer = Bytes::from(std::mem::take(&mut self.frame));
        let header_version = key.response_header_version(version);
        ensure!(answer.len() >= 5, "an answer of {} bytes", answer.len());
        answer.advance(4);
        if header_version >= 1 {
            let tags = answer.get_u8();
            if tags != 0 {
                bail!("tagged fields in a response header");
            }
        }
        Ok(answer)
    }
}

/// What stays the same from fetch to fetch.
pub struct FetchSpec<'a> {
    /// The topic.
    pub topic: &'a str,
    /// Its partition.
    pub partition: i32,
    /// Most bytes of one answer.
    pub max_bytes: i32,
    /// Longest wait for the first byte.
    pub max_wait_ms: i32,
}

/// A whole frame for one batch to each of `partitions`, with acks=all.
pub fn produce_frame(topic: &str, batches: &[(i32, Bytes)]) -> Result<Vec<u8>> {
    let partitions = batches
        .iter()
        .map(|(index, batch)| PartitionProduceData::default().with_index(*index).with_records(Some(batch.clone())));
    let topic = TopicProduceData::default().with_name(TopicName(text(topic))).with_partition_data(partitions.collect());
    let request = ProduceRequest::default().with_acks(-1).with_timeout_ms(30_000).with_topic_data(vec![topic]);
    encode(ApiKey::Produce, PRODUCE_VERSION, &request)
}

/// Gives a frame built beforehand its correlation id.
pub fn set_correlation(frame: &mut [u8], id: i32) {
    frame[CORRELATION_AT..CORRELATION_AT + 4].copy_from_slice(&id.to_be_bytes());
}

fn encode(key: ApiKey, version: i16, request: &impl Encodable) -> Result<Vec<u8>> {
    let header = RequestHeader::default()
        .with_request_api_key(key as i16)
        .with_request_api_version(version)
        .with_client_id(Some(text("varve-bench")));
    let mut frame = BytesMut::zeroed(4);
    header.encode(&mut frame, key.request_header_version(version))?;
    request.encode(&mut frame, version)?;
    let length = i32::try_from(frame.len() - 4)?;
    frame[..4].copy_from_slice(&length.to_be_bytes());
    Ok(frame.to_vec())
}

fn text(value: &str) -> StrBytes {
    StrBytes::from_string(value.to_owned())
}

/// The offset after the last whole batch in `records`, and the bytes up to its end.
pub fn after_last_batch(records: &[u8], from: i64) -> (i64, usize) {
    let mut at = 0;
    let mut next = from;
    while let Some(header) = records.get(at..at + HEADER_BYTES) {
        let number =
            |range: std::ops::Range<usize>| header[range].iter().fold(0i64, |all, byte| all << 8 | *byte as i64);
        let length = number(8..12) as usize + 12;
        if records.len() - at < length {
            break;
        }
        next = number(0..8) + number(23..27) + 1;
        at += length;
    }
    (next, at)
}
