//! One of two brokers: connections, and what only it can know.

use std::{
    collections::BTreeMap,
    io::{ErrorKind, Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use anyhow::{Context, Result, anyhow};
use bytes::Bytes;
use kafka_protocol::{
    error::ResponseError,
    messages::{ApiKey, MetadataRequest, MetadataResponse, metadata_request::MetadataRequestTopic},
    protocol::StrBytes,
};
use serde_json::Value;

use super::{
    frames::{decode, frame},
    tree,
};
use crate::node::eventually;

/// Longest wait for an answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(60);

/// What came back.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// A decoded answer, without what two brokers cannot have in common.
    Tree(Value),
    /// The connection was closed instead.
    Closed,
    /// Nothing came.
    Silence,
}

/// One of the two brokers.
pub struct Side {
    pub(super) address: SocketAddr,
    is_kafka: bool,
    /// Connections by number.
    pub(super) lanes: BTreeMap<u8, TcpStream>,
    /// Values that only this broker has, and what to call them: member ids, topic ids.
    pub(super) own: BTreeMap<String, String>,
    /// Whether all topic ids count as equal.
    pub(super) any_ids: bool,
    /// What `own` calls by that name.
    named: BTreeMap<String, String>,
}

impl Side {
    pub(super) fn new(address: SocketAddr, is_kafka: bool) -> Side {
        let (lanes, own, named) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        Side { address, is_kafka, lanes, any_ids: false, own, named }
    }

    /// Whether this is Apache Kafka.
    pub fn is_kafka(&self) -> bool {
        self.is_kafka
    }

    /// From now on `value` counts as equal to what the other broker calls `name`.
    pub fn call(&mut self, value: &str, name: &str) {
        self.own.insert(value.to_owned(), format!("<{name}>"));
        self.named.insert(name.to_owned(), value.to_owned());
    }

    /// Keeps `value` under `name`, without a say in what counts as equal.
    pub fn remember(&mut self, name: &str, value: &str) {
        self.named.insert(name.to_owned(), value.to_owned());
    }

    /// What this broker has under `name`; empty if it has nothing.
    pub fn value(&self, name: &str) -> &str {
        self.named.get(name).map_or("", String::as_str)
    }

    pub(super) fn learn(&mut self, answer: &Value) {
        for topic in answer["topics"].as_array().into_iter().flatten() {
            if let (Some(name), Some(id)) = (topic["name"].as_str(), topic["topic_id"].as_str())
                && !id.starts_with("00000000-")
            {
                self.call(id, &format!("id of {name}"));
            }
        }
    }

    /// Waits until the broker's metadata has the topic with a leader for every partition.
    ///
    /// # Errors
    /// It does not come, or the broker is gone.
    pub fn wait_for_topic(&mut self, name: &str) -> Result<()> {
        let topic = MetadataRequestTopic::default().with_name(Some(StrBytes::from_string(name.to_owned()).into()));
        let request = MetadataRequest::default().with_topics(Some(vec![topic])).with_allow_auto_topic_creation(false);
        let frame = frame(12, &request)?;
        eventually(&format!("a leader for every partition of {name}"), || {
            self.send(0, &frame)?;
            let answer = self.receive(0)?.map_err(|missing| anyhow!("{missing:?}"))?;
            let answer = decode::<MetadataResponse>(ApiKey::Metadata as i16, 12, answer)?;
            self.learn(&answer);
            let topic = &answer["topics"][0];
            let partitions = topic["partitions"].as_array().map_or(&[][..], Vec::as_slice);
            let led = topic["error_code"] == 0 && partitions.iter().all(|partition| partition["error_code"] == 0);
            Ok(led.then_some(()))
        })
    }

    fn lane(&mut self, lane: u8) -> Result<&mut TcpStream> {
        if !self.lanes.contains_key(&lane) {
            let stream = TcpStream::connect(self.address)?;
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(ANSWER_LIMIT))?;
            self.lanes.insert(lane, stream);
        }
        self.lanes.get_mut(&lane).context("just opened")
    }

    /// Sends bytes as they are.
    ///
    /// # Errors
    /// There is no connection to be had. One that is closed meanwhile is seen when the answer is awaited.
    pub fn send(&mut self, lane: u8, frame: &[u8]) -> Result<()> {
        let stream = self.lane(lane)?;
        // The other end may refuse before it has all.
        let _ = stream.write_all(frame);
        Ok(())
    }

    /// The next frame, without its length; why there is none otherwise.
    ///
    /// # Errors
    /// There is no connection to be had.
    pub fn receive(&mut self, lane: u8) -> Result<Result<Bytes, Answer>> {
        let stream = self.lane(lane)?;
        let mut length = [0; 4];
        let read = stream.read_exact(&mut length).and_then(|()| {
            let length = usize::try_from(i32::from_be_bytes(length)).map_err(|_| ErrorKind::InvalidData)?;
            let mut frame = vec![0; length];
            stream.read_exact(&mut frame)?;
            Ok(frame)
        });
        let missing = match read {
            Ok(frame) => return Ok(Ok(frame.into())),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => Answer::Silence,
            Err(_) => Answer::Closed,
        };
        self.lanes.remove(&lane);
        Ok(Err(missing))
    }

    pub(super) fn normalise(&self, value: Value) -> Value {
        match value {
            Value::Array(items) => items.into_iter().map(|item| self.normalise(item)).collect(),
            Value::Object(fields) => {
                fields.into_iter().map(|(name, value)| (name.clone(), self.field(&name, value))).collect()
            }
            Value::String(text) => Value::String(self.renamed(text)),
            other => other,
        }
    }

    fn renamed(&self, mut text: String) -> String {
        for (value, name) in &self.own {
            if text.contains(value) {
                text = text.replace(value, name);
            }
        }
        if let Some(at) = text.find("The timestamp should be within [") {
            text.truncate(at);
        }
        let port = format!(":{}", self.address.port());
        text.replace(&port, ":<port>")
    }

    fn field(&self, name: &str, value: Value) -> Value {
        let number = value.as_i64();
        match name {
            "port" if number == Some(self.address.port().into()) => "<port>".into(),
            "log_dir" => match value.as_str() {
                Some(archive) if archive.starts_with("remote:") => "<archive>".into(),
                _ => "<directory>".into(),
            },
            "total_bytes" | "usable_bytes" if number.is_some_and(|bytes| bytes > 0) => "<bytes>".into(),
            "cluster_id" if !value.is_null() => "<cluster>".into(),
            "topic_id" if self.any_ids && value.as_str().is_some_and(|id| !id.starts_with("00000000-")) => {
                "<id>".into()
            }
            "producer_id" if number.is_some_and(|id| id >= 0) => "<producer>".into(),
            "transaction_start_time_ms" | "last_timestamp" | "last_fetch_timestamp" | "last_caught_up_timestamp"
                if number.is_some_and(|time| time > 1_000_000) =>
            {
                "<now>".into()
            }
            "log_append_time_ms" if number.is_some_and(|time| time > 1_000_000) => "<now>".into(),
            "session_id" if number.is_some_and(|id| id > 0) => "<session>".into(),
            "records" => value.as_str().map(|printed| batches(&tree::bytes(printed))).map_or(value, Value::from),
            "error_code" => match number {
                Some(0) => "NONE".into(),
                Some(code) => match ResponseError::try_from_code(code as i16) {
                    Some(ResponseError::Unknown(_)) | None => value,
                    Some(known) => format!("{known:?} ({code})").into(),
                },
                None => value,
            },
            _ => self.normalise(value),
        }
    }
}

/// Each whole batch in hexadecimal digits. Kafka cuts the last one where the size limit is, which readers pass over.
fn batches(mut records: &[u8]) -> Vec<String> {
    let mut found = Vec::new();
    while let Some(length) = records.get(8..12) {
        let length = length.iter().fold(0, |all, byte| all << 8 | usize::from(*byte));
        let Some((batch, rest)) = records.split_at_checked(12 + length) else { break };
        found.push(batch.iter().map(|byte| format!("{byte:02x}")).collect());
        records = rest;
    }
    found
}
