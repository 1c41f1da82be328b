//! One Kafka, one Varve, and what they answer.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Debug,
    net::SocketAddr,
};

use anyhow::{Context, Result, anyhow};
use kafka_protocol::{messages::ApiKey, protocol::Request};
use serde_json::Value;

use super::{
    frames::{decode, frame},
    side::{Answer, Side},
    tree,
};
use crate::node::eventually;

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
