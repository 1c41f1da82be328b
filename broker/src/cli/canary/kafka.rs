//! The canary as a client of the cluster: as much of one as it takes.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use anyhow::{Context, bail, ensure};
use bytes::Bytes;
use kafka_protocol::{
    error::ResponseError,
    messages::{
        CreateTopicsRequest, FetchRequest, MetadataRequest, ProduceRequest, TopicName,
        create_topics_request::{CreatableTopic, CreatableTopicConfig},
        fetch_request::{FetchPartition, FetchTopic},
        metadata_request::MetadataRequestTopic,
        metadata_response::MetadataResponseTopic,
        produce_request::{PartitionProduceData, TopicProduceData},
    },
    protocol::{Request, StrBytes},
};
use varve_log::format::{BatchBuilder, RecordContent};
use varve_metadata::model::{BrokerId, Offset, PartitionIndex, TopicId};

use crate::{
    links::{Link, LinkLimits},
    security::ListenerSecurity,
    server::wall_clock,
};

const METADATA_VERSION: i16 = 12;
const CREATE_VERSION: i16 = 7;
const PRODUCE_VERSION: i16 = 9;
const FETCH_VERSION: i16 = 12;
/// How long one answer may take; the step has a limit of its own.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);
/// Before what may go by itself is tried again.
const PAUSE: Duration = Duration::from_millis(200);
/// Of a fetch.
const MAX_BYTES: i32 = 1 << 20;
/// Settings of the topic: its records are of no use to anybody for long.
const SETTINGS: &[(&str, &str)] =
    &[("cleanup.policy", "delete"), ("retention.ms", "86400000"), ("varve.archive.lag.ms", "10000")];

/// A cluster in which the topic is there.
pub(super) struct Cluster {
    bootstrap: Vec<(String, u16)>,
    name: String,
    topic: TopicId,
    leaders: BTreeMap<PartitionIndex, BrokerId>,
    brokers: BTreeMap<BrokerId, (String, u16)>,
    links: BTreeMap<BrokerId, Link>,
    security: Arc<ListenerSecurity>,
}

/// What the cluster answered where the next attempt may succeed: another broker leads by now, replicas come back.
#[derive(Debug, thiserror::Error)]
#[error("the cluster answers {0:?}")]
struct Passing(ResponseError);

impl Cluster {
    /// Finds the cluster, and makes the topic if it is missing.
    pub(super) async fn connect(
        bootstrap: &str,
        security: Arc<ListenerSecurity>,
        topic: &str,
        replicas: Option<i16>,
    ) -> anyhow::Result<Cluster> {
        let bootstrap = bootstrap.split(',').map(parse_address).collect::<anyhow::Result<Vec<_>>>()?;
        let mut cluster = Cluster {
            bootstrap,
            name: topic.to_owned(),
            topic: TopicId::random(),
            leaders: BTreeMap::new(),
            brokers: BTreeMap::new(),
            links: BTreeMap::new(),
            security,
        };
        loop {
            match cluster.look().await {
                Ok(()) => return Ok(cluster),
                Err(error) => match error.downcast_ref::<Passing>() {
                    Some(Passing(ResponseError::UnknownTopicOrPartition)) => cluster.make_topic(replicas).await?,
                    Some(_) => tokio::time::sleep(PAUSE).await,
                    None => return Err(error),
                },
            }
        }
    }

    pub(super) fn topic(&self) -> TopicId {
        self.topic
    }

    pub(super) fn partitions(&self) -> Vec<PartitionIndex> {
        self.leaders.keys().copied().collect()
    }

    /// Writes one record with acks=all; its offset.
    pub(super) async fn produce(&mut self, index: PartitionIndex, key: &[u8], value: &[u8]) -> anyhow::Result<Offset> {
        let mut batch = BatchBuilder::new(Offset::ZERO);
        batch.push(RecordContent { timestamp: Some(wall_clock()), key: Some(key), value: Some(value), headers: &[] });
        let records = Bytes::from(batch.build()?);
        let data = PartitionProduceData::default().with_index(index.to_wire()).with_records(Some(records));
        let topic = TopicProduceData::default().with_name(self.topic_name()).with_partition_data(vec![data]);
        let request = ProduceRequest::default().with_acks(-1).with_timeout_ms(10_000).with_topic_data(vec![topic]);
        let what = format!("produce to partition {index}");
        self.of_leader(index, PRODUCE_VERSION, &request, &what, |answer| {
            let topic = answer.responses.into_iter().next().context("no topic in the answer")?;
            let partition = topic.partition_responses.into_iter().next().context("no partition in the answer")?;
            check(partition.error_code)?;
            Offset::from_wire(partition.base_offset).context("no offset in the answer")
        })
        .await
    }

    /// The batches at and behind `offset`.
    pub(super) async fn fetch(&mut self, index: PartitionIndex, offset: Offset) -> anyhow::Result<Bytes> {
        let partition = FetchPartition::default()
            .with_partition(index.to_wire())
            .with_fetch_offset(offset.to_wire())
            .with_partition_max_bytes(MAX_BYTES);
        let topic = FetchTopic::default().with_topic(self.topic_name()).with_partitions(vec![partition]);
        let request = FetchRequest::default()
            .with_max_wait_ms(500)
            .with_min_bytes(1)
            .with_max_bytes(MAX_BYTES)
            .with_session_epoch(-1)
            .with_topics(vec![topic]);
        let what = format!("fetch from partition {index}");
        self.of_leader(index, FETCH_VERSION, &request, &what, |answer| {
            check(answer.error_code)?;
            let topic = answer.responses.into_iter().next().context("no topic in the answer")?;
            let partition = topic.partitions.into_iter().next().context("no partition in the answer")?;
            check(partition.error_code)?;
            let records = partition.records.unwrap_or_default();
            // Acknowledged, and so it has to come: a follower that leads by now may not know yet that it is committed.
            if records.is_empty() { Err(Passing(ResponseError::OffsetNotAvailable).into()) } else { Ok(records) }
        })
        .await
    }

    /// Asks the partition's leader until the answer is one. Whoever calls has a limit of time.
    async fn of_leader<R: Request, T>(
        &mut self,
        index: PartitionIndex,
        version: i16,
        request: &R,
        what: &str,
        read: impl Fn(R::Response) -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        loop {
            let leader = *self.leaders.get(&index).with_context(|| format!("{what}: no such partition"))?;
            let outcome = match self.ask(leader, version, request).await {
                Ok(answer) => read(answer),
                Err(error) => Err(error),
            };
            let error = match outcome {
                Ok(done) => return Ok(done),
                Err(error) => error,
            };
            let may_pass = error.is::<Passing>() || error.is::<crate::links::LinkError>();
            if !may_pass {
                return Err(error.context(what.to_owned()));
            }
            self.links.remove(&leader);
            tokio::time::sleep(PAUSE).await;
            if let Err(error) = self.look().await
                && !error.is::<Passing>()
            {
                return Err(error.context(what.to_owned()));
            }
        }
    }

    async fn ask<R: Request>(&mut self, to: BrokerId, version: i16, request: &R) -> anyhow::Result<R::Response> {
        if !self.links.contains_key(&to) {
            let (host, port) = self.brokers.get(&to).with_context(|| format!("broker {to} is not known"))?;
            let link = connect(host, *port, self.security.clone()).await?;
            self.links.insert(to, link);
        }
        let link = self.links.get_mut(&to).context("it was put there")?;
        Ok(link.ask(version, request).await?)
    }

    /// Asks any broker who leads the partitions of the topic.
    async fn look(&mut self) -> anyhow::Result<()> {
        let asked = MetadataRequestTopic::default().with_name(Some(self.topic_name()));
        let request = MetadataRequest::default().with_topics(Some(vec![asked])).with_allow_auto_topic_creation(false);
        let answer = self.of_any(METADATA_VERSION, &request).await?;
        let brokers = answer.brokers.into_iter().filter_map(|broker| {
            let id = BrokerId::from_wire(broker.node_id.0)?;
            Some((id, (broker.host.to_string(), u16::try_from(broker.port).ok()?)))
        });
        self.brokers = brokers.collect();
        let topic = answer.topics.into_iter().next().context("the topic is missing from the answer")?;
        check(topic.error_code)?;
        self.topic = TopicId::from_wire(topic.topic_id).context("the topic has no id")?;
        self.leaders = leaders(&topic)?;
        Ok(())
    }

    async fn make_topic(&mut self, replicas: Option<i16>) -> anyhow::Result<()> {
        let text = |text: &str| StrBytes::from_string(text.to_owned());
        let settings = SETTINGS
            .iter()
            .map(|(name, value)| CreatableTopicConfig::default().with_name(text(name)).with_value(Some(text(value))));
        let topic = CreatableTopic::default()
            .with_name(self.topic_name())
            .with_num_partitions(i32::try_from(self.brokers.len().max(1))?)
            .with_replication_factor(replicas.unwrap_or(-1))
            .with_configs(settings.collect());
        let request = CreateTopicsRequest::default().with_topics(vec![topic]).with_timeout_ms(10_000);
        let answer = self.of_any(CREATE_VERSION, &request).await?;
        let made = answer.topics.into_iter().next().context("no topic in the answer")?;
        match check(made.error_code) {
            Err(error) if made.error_code != ResponseError::TopicAlreadyExists.code() => {
                let why = made.error_message.map(|text| text.to_string()).unwrap_or_default();
                Err(error.context(format!("the topic {} cannot be made: {why}", self.name)))
            }
            _ => {
                tokio::time::sleep(PAUSE).await;
                Ok(())
            }
        }
    }

    /// Asks the first broker that answers.
    async fn of_any<R: Request>(&self, version: i16, request: &R) -> anyhow::Result<R::Response> {
        let known = self.bootstrap.iter().chain(self.brokers.values());
        let mut last = None;
        for (host, port) in known {
            let answer = async {
                Ok::<_, anyhow::Error>(connect(host, *port, self.security.clone()).await?.ask(version, request).await?)
            };
            match answer.await {
                Ok(answer) => return Ok(answer),
                Err(error) => last = Some(error.context(format!("{host}:{port}"))),
            }
        }
        Err(last.context("no address to ask")?)
    }

    fn topic_name(&self) -> TopicName {
        TopicName(StrBytes::from_string(self.name.clone()))
    }
}

fn leaders(topic: &MetadataResponseTopic) -> anyhow::Result<BTreeMap<PartitionIndex, BrokerId>> {
    let mut leaders = BTreeMap::new();
    for partition in &topic.partitions {
        let index = PartitionIndex::from_wire(partition.partition_index).context("a partition without number")?;
        // A record that cannot be written is what the canary is there to find: the step waits for a leader as long as it may.
        let leader = BrokerId::from_wire(partition.leader_id.0).ok_or(Passing(ResponseError::LeaderNotAvailable))?;
        leaders.insert(index, leader);
    }
    ensure!(!leaders.is_empty(), "the topic has no partitions");
    Ok(leaders)
}

fn check(code: i16) -> anyhow::Result<()> {
    match ResponseError::try_from_code(code) {
        None if code == 0 => Ok(()),
        None => bail!("the cluster answers {code}"),
        Some(error) if error.is_retriable() => Err(Passing(error).into()),
        Some(error) => bail!("the cluster answers {error:?}"),
    }
}

fn parse_address(text: &str) -> anyhow::Result<(String, u16)> {
    let (host, port) = text.trim().rsplit_once(':').with_context(|| format!("{text} is not HOST:PORT"))?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    Ok((host.to_owned(), port.parse().with_context(|| format!("{text} is not HOST:PORT"))?))
}

async fn connect(host: &str, port: u16, security: Arc<ListenerSecurity>) -> Result<Link, crate::links::LinkError> {
    let limits = LinkLimits { setup: ANSWER_LIMIT, answer: ANSWER_LIMIT };
    Link::connect(host, port, security, "varve-canary".to_owned(), limits).await
}
