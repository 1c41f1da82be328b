//! Who leads a partition, who coordinates a group: asked anew each time, of whichever broker answers.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use kafka_protocol::{
    error::ResponseError,
    messages::{MetadataRequest, TopicName, metadata_request::MetadataRequestTopic},
    protocol::StrBytes,
};

use crate::{
    client::{Client, Refusal},
    history::Place,
};

/// Longest time that a cluster may be without somebody who does what is asked.
const PATIENCE: Duration = Duration::from_secs(60);
/// Longest wait for one answer: a broker that hangs is as good as one that is gone.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);

/// The brokers of a cluster.
#[derive(Clone, Debug)]
pub struct Routes {
    bootstrap: Vec<SocketAddr>,
}

impl Routes {
    /// A cluster by the addresses of some of its brokers.
    pub fn new(bootstrap: Vec<SocketAddr>) -> Routes {
        Routes { bootstrap }
    }

    /// A connection to the leader of `place`.
    ///
    /// # Errors
    /// There is none now: nobody answers, or nobody leads.
    pub fn to_leader(&self, place: &Place) -> Result<Client> {
        let name = TopicName(StrBytes::from_string(place.topic.clone()));
        let topic = MetadataRequestTopic::default().with_name(Some(name));
        let request = MetadataRequest::default().with_topics(Some(vec![topic])).with_allow_auto_topic_creation(false);
        let answer = self.to_any()?.ask(9, &request)?;
        let topic = answer.topics.first().context("one topic")?;
        Refusal::check("Metadata", topic.error_code, None)?;
        let partitions = topic.partitions.iter();
        let found = partitions.clone().find(|found| found.partition_index == place.partition);
        let found = found.ok_or_else(|| missing(ResponseError::UnknownTopicOrPartition))?;
        Refusal::check("Metadata", found.error_code, None)?;
        let leader = answer.brokers.iter().find(|broker| broker.node_id == found.leader_id);
        let leader = leader.ok_or_else(|| missing(ResponseError::LeaderNotAvailable))?;
        connect(format!("{}:{}", leader.host.as_str(), leader.port).parse()?)
    }

    /// A connection to the coordinator of `group`.
    ///
    /// # Errors
    /// There is none now.
    pub fn to_coordinator(&self, group: &str) -> Result<Client> {
        connect(self.to_any()?.find_coordinator(group)?)
    }

    /// A connection to any broker.
    ///
    /// # Errors
    /// None listens.
    pub fn to_any(&self) -> Result<Client> {
        let mut last = anyhow::anyhow!("no brokers are known");
        for address in &self.bootstrap {
            match connect(*address) {
                Ok(client) => return Ok(client),
                Err(error) => last = error,
            }
        }
        Err(last)
    }
}

/// What an answer lacks, as the refusal that another broker would say instead.
fn missing(what: ResponseError) -> Refusal {
    Refusal { request: "Metadata", code: what.code(), message: None }
}

fn connect(address: SocketAddr) -> Result<Client> {
    let client = Client::connect(address)?;
    client.wait_at_most(ANSWER_LIMIT)?;
    Ok(client)
}

/// Tries again and again until `attempt` succeeds or fails for good.
///
/// # Errors
/// A fault (see [`is_weather`]), or a minute without success.
pub(super) fn persist<T>(what: &str, mut attempt: impl FnMut() -> Result<T>) -> Result<T> {
    let started = Instant::now();
    loop {
        match attempt() {
            Ok(value) => return Ok(value),
            Err(error) if !is_weather(&error) => return Err(error.context(what.to_owned())),
            Err(error) if started.elapsed() > PATIENCE => {
                bail!("{what}: not within {PATIENCE:?}, at last because of {error:#}")
            }
            Err(_) => std::thread::park_timeout(Duration::from_millis(5)),
        }
    }
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
