//! One Kafka, one Varve, and what they answer.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Debug,
    io::{ErrorKind, Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use anyhow::{Context, Result, anyhow};
use bytes::Bytes;
use kafka_protocol::{
    error::ResponseError,
    messages::{ApiKey, MetadataRequest, MetadataResponse, metadata_request::MetadataRequestTopic},
    protocol::{Request, StrBytes},
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

/// A request whose answers differ.
#[derive(Debug)]
pub struct Difference {
    /// What the script calls the request.
    pub name: String,
    /// Its version, where it has one.
    pub version: Option<i16>,
    /// Where the answers differ.
    pub lines: Vec<String>,
}

/// One of the two brokers.
pub struct Side {
    address: SocketAddr,
    is_kafka: bool,
    /// Connections by number.
    lanes: BTreeMap<u8, TcpStream>,
    /// Values that only this broker has, and what to call them: member ids, topic ids.
    own: BTreeMap<String, String>,
    /// Whether all topic ids count as equal.
    any_ids: bool,
    /// What `own` calls by that name.
    named: BTreeMap<String, String>,
}

/// The two brokers, asked the same.
pub struct Pair {
    /// Apache Kafka.
    pub kafka: Side,
    /// Varve.
    pub varve: Side,
    /// What was found so far.
    pub differences: Vec<Difference>,
    /// Requests sent to each.
    pub asked: usize,
    /// Keys and versions of which at least one answer was compared.
    pub compared: BTreeSet<(i16, i16)>,
    /// The first frame that was sent of each key and version, to Apache Kafka and to Varve.
    pub samples: BTreeMap<(i16, i16), [Vec<u8>; 2]>,
    learning: bool,
}

impl Side {
    fn new(address: SocketAddr, is_kafka: bool) -> Side {
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

    fn learn(&mut self, answer: &Value) {
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

    fn normalise(&self, value: Value) -> Value {
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

/// What a frame asks, and in which version; behind its length.
fn key_and_version(frame: &[u8]) -> Option<(i16, i16)> {
    let [key, key_low, version, version_low] = *frame.get(4..8)?.first_chunk()?;
    Some((i16::from_be_bytes([key, key_low]), i16::from_be_bytes([version, version_low])))
}

/// Whether an answer, or the first coordinator in it, has an error code.
fn is_failed(answer: &Value) -> bool {
    let codes = [&answer["error_code"], &answer["coordinators"][0]["error_code"]];
    codes.iter().any(|code| !code.is_null() && **code != 0)
}

impl Pair {
    /// Two brokers that are up.
    pub fn new(kafka: SocketAddr, varve: SocketAddr) -> Pair {
        Pair {
            kafka: Side::new(kafka, true),
            varve: Side::new(varve, false),
            differences: Vec::new(),
            asked: 0,
            compared: BTreeSet::new(),
            samples: BTreeMap::new(),
            learning: false,
        }
    }

    /// Both brokers.
    pub fn sides(&mut self) -> [&mut Side; 2] {
        [&mut self.kafka, &mut self.varve]
    }

    /// Sends the request to both in each of `versions`, and compares. Versions that cannot carry it are left out.
    /// Returns the answers to the last one.
    ///
    /// # Errors
    /// A broker is gone, or its answer cannot be decoded.
    pub fn ask<Q: Request>(
        &mut self,
        name: &str,
        versions: &[i16],
        build: impl Fn(i16, &Side) -> Q,
    ) -> Result<[Value; 2]>
    where
        Q::Response: Debug,
    {
        let mut last = [Value::Null, Value::Null];
        for &version in versions {
            if self.send(0, version, &build)? {
                last = self.finish::<Q>(name, 0, version)?;
            }
        }
        Ok(last)
    }

    /// As [`Pair::ask`] in one version, and learns the ids of the topics in the answers first.
    ///
    /// # Errors
    /// As [`Pair::ask`].
    pub fn ask_learning<Q: Request>(
        &mut self,
        name: &str,
        version: i16,
        build: impl Fn(i16, &Side) -> Q,
    ) -> Result<[Value; 2]>
    where
        Q::Response: Debug,
    {
        self.send(0, version, build)?;
        self.learning = true;
        let answers = self.finish::<Q>(name, 0, version);
        self.learning = false;
        answers
    }

    /// Asks each broker again and again until its answer has no error code, without comparing.
    ///
    /// # Errors
    /// One goes on answering with errors, or is gone.
    pub fn until_no_error<Q: Request>(&mut self, version: i16, build: impl Fn(i16, &Side) -> Q) -> Result<()>
    where
        Q::Response: Debug,
    {
        self.until(version, build, |answer| !is_failed(answer))
    }

    /// The same until the answer has an error code.
    ///
    /// # Errors
    /// One goes on answering without, or is gone.
    pub fn until_error<Q: Request>(&mut self, version: i16, build: impl Fn(i16, &Side) -> Q) -> Result<()>
    where
        Q::Response: Debug,
    {
        self.until(version, build, is_failed)
    }

    /// The same until an answer is as `enough` wants it.
    ///
    /// # Errors
    /// One goes on answering otherwise, or is gone.
    pub fn until<Q: Request>(
        &mut self,
        version: i16,
        build: impl Fn(i16, &Side) -> Q,
        enough: impl Fn(&Value) -> bool,
    ) -> Result<()>
    where
        Q::Response: Debug,
    {
        let key = Q::KEY;
        for side in [&mut self.kafka, &mut self.varve] {
            let frame = frame(version, &build(version, side))?;
            eventually(&format!("another answer to request {key}"), || {
                side.send(0, &frame)?;
                let answer = side.receive(0)?.map_err(|missing| anyhow!("{missing:?}"))?;
                let answer = decode::<Q::Response>(key, version, answer)?;
                Ok(enough(&answer).then_some(()))
            })?;
        }
        Ok(())
    }

    /// Sends without waiting, on the connection `lane`; whether this version can carry the request.
    ///
    /// # Errors
    /// A broker is gone.
    pub fn send<Q: Request>(&mut self, lane: u8, version: i16, build: impl Fn(i16, &Side) -> Q) -> Result<bool> {
        let mut frames = Vec::new();
        for side in [&mut self.kafka, &mut self.varve] {
            let Ok(frame) = frame(version, &build(version, side)) else { return Ok(false) };
            side.send(lane, &frame)?;
            frames.push(frame);
        }
        let [kafka, varve] = [frames.remove(0), frames.remove(0)];
        self.samples.entry((Q::KEY, version)).or_insert([kafka, varve]);
        Ok(true)
    }

    /// Awaits the answers on that connection, and compares them. Returns them as they came.
    ///
    /// # Errors
    /// A broker is gone, or its answer cannot be decoded.
    pub fn finish<Q: Request>(&mut self, name: &str, lane: u8, version: i16) -> Result<[Value; 2]>
    where
        Q::Response: Debug,
    {
        let key = Q::KEY;
        let mut raw = Vec::new();
        let mut answers = Vec::new();
        for side in [&mut self.kafka, &mut self.varve] {
            let received = side.receive(lane)?;
            let answer = match received {
                Err(missing) => (Value::Null, missing),
                Ok(frame) => {
                    let refused = key == ApiKey::ApiVersions as i16 && frame.get(4..6) == Some(&[0, 35]);
                    let value = decode::<Q::Response>(key, if refused { 0 } else { version }, frame.clone())
                        .with_context(|| format!("{name} v{version} from {}: {frame:x?}", side.address))?;
                    if self.learning {
                        side.learn(&value);
                    }
                    (value.clone(), Answer::Tree(side.normalise(value)))
                }
            };
            raw.push(answer.0);
            answers.push(answer.1);
        }
        let [kafka, varve] = [answers.remove(0), answers.remove(0)];
        self.compared.insert((Q::KEY, version));
        self.compare(name, Some(version), kafka, varve);
        Ok([raw.remove(0), raw.remove(0)])
    }

    /// Whether all topic ids are to count as equal: those of topics that are new.
    pub fn accept_any_ids(&mut self, any: bool) {
        self.sides().into_iter().for_each(|side| side.any_ids = any);
    }

    /// Closes every connection to both.
    pub fn hang_up(&mut self) {
        self.sides().into_iter().for_each(|side| side.lanes.clear());
    }

    /// Sends bytes to both and compares the bytes that come back; ids that are known by name count as equal.
    ///
    /// # Errors
    /// A broker is gone.
    pub fn ask_bytes(&mut self, name: &str, build: impl Fn(&Side) -> Result<Vec<u8>>) -> Result<()> {
        let mut answers = Vec::new();
        let mut frames = Vec::new();
        for side in [&mut self.kafka, &mut self.varve] {
            let frame = build(side)?;
            side.send(0, &frame)?;
            answers.push(match side.receive(0)? {
                Err(missing) => missing,
                Ok(answer) => {
                    let mut hex: String = answer.iter().map(|byte| format!("{byte:02x}")).collect();
                    for (value, name) in &side.own {
                        hex = hex.replace(&value.replace('-', ""), name);
                    }
                    Answer::Tree(hex.into())
                }
            });
            frames.push(frame);
        }
        let [kafka, varve] = [answers.remove(0), answers.remove(0)];
        if let (Answer::Tree(_), Answer::Tree(_)) = (&kafka, &varve)
            && let Some(asked) = key_and_version(&frames[0])
        {
            self.compared.insert(asked);
            self.samples.entry(asked).or_insert([frames.remove(0), frames.remove(0)]);
        }
        self.compare(name, None, kafka, varve);
        Ok(())
    }

    /// Sends bytes to both and compares whether an answer comes back, or the connection ends.
    ///
    /// # Errors
    /// A broker is gone.
    pub fn ask_outcome(&mut self, name: &str, build: impl Fn(&Side) -> Vec<u8>) -> Result<()> {
        let mut outcomes = Vec::new();
        for side in [&mut self.kafka, &mut self.varve] {
            side.send(0, &build(side))?;
            outcomes.push(side.receive(0)?.map_or_else(|missing| missing, |_| Answer::Tree("an answer".into())));
        }
        let [kafka, varve] = [outcomes.remove(0), outcomes.remove(0)];
        self.compare(name, None, kafka, varve);
        Ok(())
    }

    /// Notes where two answers differ.
    pub fn compare(&mut self, name: &str, version: Option<i16>, kafka: Answer, varve: Answer) {
        self.asked += 1;
        if std::env::var_os("VARVE_CONFORMANCE_TRACE").is_some() {
            eprintln!("{name} {version:?}\n  {kafka:?}");
        }
        let mut lines = Vec::new();
        match (&kafka, &varve) {
            (Answer::Tree(left), Answer::Tree(right)) => {
                tree::differences("", &tree::sorted(left), &tree::sorted(right), &mut lines);
                if lines.is_empty() && left != right {
                    lines.push(format!("in another order: Kafka {left}, Varve {right}"));
                }
            }
            (left, right) if left != right => lines.push(format!("Kafka {left:?}\n    Varve {right:?}")),
            _ => {}
        }
        if !lines.is_empty() {
            self.differences.push(Difference { name: name.to_owned(), version, lines });
        }
    }
}
