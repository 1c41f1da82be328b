//! Who leads a partition, who coordinates a group: asked anew each time, of whichever broker answers.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use kafka_protocol::{
    error::ResponseError,
    messages::{FindCoordinatorRequest, MetadataRequest, TopicName, metadata_request::MetadataRequestTopic},
    protocol::{Request, StrBytes},
};

use super::Complaints;
use crate::{
    client::{Client, Refusal},
    history::Place,
};

/// Longest time that a cluster may be without somebody who does what is asked.
const PATIENCE: Duration = Duration::from_secs(300);
/// Longest wait for one answer: a broker that hangs is as good as one that is gone.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);

/// Longest wait for a connection: others are asked then.
const CONNECT_LIMIT: Duration = Duration::from_secs(1);

/// The brokers of a cluster.
#[derive(Clone, Debug)]
pub struct Routes {
    bootstrap: Vec<SocketAddr>,
    /// Who is asked first: whoever answered last.
    first: Arc<AtomicUsize>,
    answer_limit: Duration,
    complaints: Complaints,
}

impl Routes {
    /// A cluster by the addresses of some of its brokers.
    pub fn new(bootstrap: Vec<SocketAddr>) -> Routes {
        Routes { bootstrap, first: Arc::default(), answer_limit: ANSWER_LIMIT, complaints: Complaints::default() }
    }

    /// The same for a client that waits no longer than `limit` for an answer, and has its own mind about whom to ask first.
    #[must_use]
    pub fn waiting_at_most(&self, limit: Duration) -> Routes {
        Routes { first: Arc::default(), answer_limit: limit, ..self.clone() }
    }

    /// What clients that go this way were told: of all of them.
    pub fn complaints(&self) -> &Complaints {
        &self.complaints
    }

    /// A connection to the leader of `place`.
    ///
    /// # Errors
    /// There is none now: nobody answers, or nobody leads.
    pub fn to_leader(&self, place: &Place) -> Result<Client> {
        let name = TopicName(StrBytes::from_string(place.topic.clone()));
        let topic = MetadataRequestTopic::default().with_name(Some(name));
        let request = MetadataRequest::default().with_topics(Some(vec![topic])).with_allow_auto_topic_creation(false);
        let answer = self.ask_any(9, &request)?;
        let topic = answer.topics.first().context("one topic")?;
        Refusal::check("Metadata", topic.error_code, None)?;
        let partitions = topic.partitions.iter();
        let found = partitions.clone().find(|found| found.partition_index == place.partition);
        let found = found.ok_or_else(|| missing(ResponseError::UnknownTopicOrPartition))?;
        Refusal::check("Metadata", found.error_code, None)?;
        let leader = answer.brokers.iter().find(|broker| broker.node_id == found.leader_id);
        let leader = leader.ok_or_else(|| missing(ResponseError::LeaderNotAvailable))?;
        self.connect(format!("{}:{}", leader.host.as_str(), leader.port).parse()?)
    }

    /// A connection to the coordinator of `group`.
    ///
    /// # Errors
    /// There is none now.
    pub fn to_coordinator(&self, group: &str) -> Result<Client> {
        self.to_coordinator_of(0, group)
    }

    /// A connection to the coordinator of a transactional id.
    ///
    /// # Errors
    /// There is none now.
    pub fn to_transaction_coordinator(&self, id: &str) -> Result<Client> {
        self.to_coordinator_of(1, id)
    }

    fn to_coordinator_of(&self, kind: i8, name: &str) -> Result<Client> {
        let key = StrBytes::from_string(name.to_owned());
        let found = self.ask_any(3, &FindCoordinatorRequest::default().with_key_type(kind).with_key(key))?;
        Refusal::check("FindCoordinator", found.error_code, found.error_message)?;
        self.connect(format!("{}:{}", found.host.as_str(), found.port).parse()?)
    }

    /// Asks whichever broker answers.
    ///
    /// # Errors
    /// None does, or the last one asked hangs: then another one is the first to be asked next time.
    pub fn ask_any<Q: Request>(&self, version: i16, request: &Q) -> Result<Q::Response> {
        let mut client = self.to_any()?;
        client.ask(version, request).inspect_err(|_| self.turn_to_another())
    }

    /// Asks somebody else first from now on: whoever answered may not know what has happened.
    pub fn turn_to_another(&self) {
        self.first.fetch_add(1, Ordering::Relaxed);
    }

    /// A connection to any broker.
    ///
    /// # Errors
    /// None listens.
    pub fn to_any(&self) -> Result<Client> {
        let mut last = anyhow::anyhow!("no brokers are known");
        for _ in &self.bootstrap {
            let first = self.first.load(Ordering::Relaxed);
            match self.connect(self.bootstrap[first % self.bootstrap.len()]) {
                Ok(client) => return Ok(client),
                Err(error) => last = error,
            }
            self.first.store(first.wrapping_add(1), Ordering::Relaxed);
        }
        Err(last)
    }

    fn connect(&self, address: SocketAddr) -> Result<Client> {
        let client = Client::connect_within(address, CONNECT_LIMIT)?;
        client.wait_at_most(self.answer_limit)?;
        Ok(client)
    }

    /// Tries again and again until `attempt` succeeds or fails for good.
    ///
    /// # Errors
    /// A fault (see [`is_weather`]), or five minutes without success.
    pub(super) fn persist<T>(&self, what: &str, attempt: impl FnMut() -> Result<T>) -> Result<T> {
        self.persist_through(is_weather, what, attempt)
    }

    /// The same of whom only what `passes` says does not keep from trying again.
    ///
    /// # Errors
    /// One that does not pass, or five minutes without success.
    pub(super) fn persist_through<T>(
        &self,
        passes: impl Fn(&anyhow::Error) -> bool,
        what: &str,
        mut attempt: impl FnMut() -> Result<T>,
    ) -> Result<T> {
        let started = Instant::now();
        loop {
            match attempt() {
                Ok(value) => return Ok(value),
                Err(error) if !passes(&error) => return Err(error.context(what.to_owned())),
                Err(error) if started.elapsed() > PATIENCE => {
                    bail!("{what}: not within {PATIENCE:?}, at last because of {error:#}")
                }
                Err(error) => {
                    self.complaints.note(what, &error);
                    std::thread::park_timeout(Duration::from_millis(5));
                }
            }
        }
    }
}

/// What an answer lacks, as the refusal that another broker would say instead.
fn missing(what: ResponseError) -> Refusal {
    Refusal { request: "Metadata", code: what.code(), message: None }
}

/// Whether an error may come while brokers fail and come back: broken connections, and refusals that clients answer by
/// asking again. Anything else is a fault of the broker.
pub(super) fn is_weather(error: &anyhow::Error) -> bool {
    use ResponseError::*;
    let Some(refusal) = Refusal::of(error) else {
        return error.chain().any(|cause| cause.is::<std::io::Error>());
    };
    matches!(
        refusal.name(),
        NotLeaderOrFollower
            | LeaderNotAvailable
            | ReplicaNotAvailable
            | UnknownTopicOrPartition
            | RequestTimedOut
            | NotEnoughReplicas
            | NotEnoughReplicasAfterAppend
            | CoordinatorLoadInProgress
            | CoordinatorNotAvailable
            | NotCoordinator
            | FencedLeaderEpoch
            | UnknownLeaderEpoch
            | KafkaStorageError
            | OffsetNotAvailable
            | NetworkException
            | UnstableOffsetCommit
    )
}
