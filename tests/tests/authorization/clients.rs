//! What the requests of producers and consumers take.

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use kafka_protocol::messages::{
    ApiKey, ApiVersionsRequest, CreateTopicsRequest, DeleteTopicsRequest, FetchRequest, FindCoordinatorRequest,
    GetTelemetrySubscriptionsRequest, GroupId, InitProducerIdRequest, ListOffsetsRequest, MetadataRequest,
    OffsetForLeaderEpochRequest, ProduceRequest, PushTelemetryRequest, SaslAuthenticateRequest, SaslHandshakeRequest,
    TopicName, TransactionalId,
    create_topics_request::CreatableTopic,
    fetch_request::{FetchPartition, FetchTopic},
    list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic},
    metadata_request::MetadataRequestTopic,
    offset_for_leader_epoch_request::{OffsetForLeaderPartition, OffsetForLeaderTopic},
    produce_request::{PartitionProduceData, TopicProduceData},
};
use uuid::Uuid;
use varve_log::format::{BatchBuilder, RecordContent};
use varve_metadata::model::{
    Offset, ProducerEpoch, ProducerId, Sequence,
    acl::Operation::{self, *},
};
use varve_tests::node::eventually;

use crate::{
    broker::{
        Broker, Prepared,
        Resource::{self, *},
        Right, ask, text,
    },
    coordinated,
    matrix::{Case, Key, Sign},
};

/// A topic with one partition, a group with a committed offset in it, and a transactional id.
pub(crate) const TOPIC: &str = "t";
pub(crate) const GROUP: &str = "g";
pub(crate) const TRANSACTIONAL_ID: &str = "x";

pub(crate) fn topic(name: &str) -> TopicName {
    TopicName(text(name))
}

pub(crate) fn group(name: &str) -> GroupId {
    GroupId(text(name))
}

pub(crate) fn transactional_id() -> TransactionalId {
    TransactionalId(text(TRANSACTIONAL_ID))
}

pub(crate) fn nothing(_: &mut Broker) -> Result<()> {
    Ok(())
}

/// A case that needs all of `needs`, whose answer has its code in the first of `fields`.
pub(crate) fn case(
    name: &'static str,
    key: impl Into<Key>,
    needs: &[Right],
    fields: &'static [&'static str],
    request: fn(&Broker) -> Result<Prepared>,
) -> Case {
    let needs = if needs.is_empty() { Vec::new() } else { vec![needs.to_vec()] };
    let Key(key) = key.into();
    Case { name, key, needs, sign: Sign::Code(fields), code: None, prepare: nothing, request, only_ours: false }
}

impl Case {
    /// This is enough as well.
    pub(crate) fn or(mut self, operation: Operation, resource: Resource) -> Case {
        self.needs.push(vec![(operation, resource)]);
        self
    }

    pub(crate) fn coded(self, code: i64) -> Case {
        Case { code: Some(code), ..self }
    }

    pub(crate) fn sign(self, sign: Sign) -> Case {
        Case { sign, ..self }
    }

    pub(crate) fn after(self, prepare: fn(&mut Broker) -> Result<()>) -> Case {
        Case { prepare, ..self }
    }
}

/// Makes the topic and commits the offset.
pub(crate) fn prepare(broker: &mut Broker) -> Result<()> {
    create_topic(broker, TOPIC)?;
    eventually("an offset is committed", || {
        broker.administer(&ask(3, FindCoordinatorRequest::default().with_key(text(GROUP)))?)?;
        let answer = broker.administer(&coordinated::commit()?)?;
        Ok((answer["topics"][0]["partitions"][0]["error_code"] == 0).then_some(()))
    })
}

/// Makes a topic unless it is there, and remembers its id.
pub(crate) fn create_topic(broker: &mut Broker, name: &str) -> Result<()> {
    let wanted = CreatableTopic::default().with_name(topic(name)).with_num_partitions(1).with_replication_factor(1);
    let request = CreateTopicsRequest::default().with_topics(vec![wanted]).with_timeout_ms(30_000);
    let made = broker.administer(&ask(7, request)?)?["topics"][0]["error_code"].clone();
    ensure!(made == 0 || made == 36, "{name} is not made: {made}");
    let asked = MetadataRequestTopic::default().with_name(Some(topic(name)));
    let request = ask(12, MetadataRequest::default().with_topics(Some(vec![asked])))?;
    let id = eventually("the topic has a leader", || {
        let found = broker.administer(&request)?["topics"][0].clone();
        let led = found["error_code"] == 0 && found["partitions"][0]["error_code"] == 0;
        Ok(led.then(|| found["topic_id"].clone()))
    })?;
    broker.found.insert(name.to_owned(), id.as_str().context("an id")?.to_owned());
    Ok(())
}

pub(crate) fn id_of(broker: &Broker, name: &str) -> Result<Uuid> {
    Ok(Uuid::parse_str(broker.found.get(name).context("a topic that was made")?)?)
}

fn delete_topic(broker: &mut Broker, name: &str) -> Result<()> {
    let request = DeleteTopicsRequest::default().with_topic_names(vec![topic(name)]).with_timeout_ms(30_000);
    broker.administer(&ask(5, request)?)?;
    let asked = MetadataRequestTopic::default().with_name(Some(topic(name)));
    let request = MetadataRequest::default().with_topics(Some(vec![asked])).with_allow_auto_topic_creation(false);
    let request = ask(12, request)?;
    eventually("the topic is gone", || Ok((broker.administer(&request)?["topics"][0]["error_code"] == 3).then_some(())))
}

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = vec![
        case("ApiVersions", ApiKey::ApiVersions, &[], &["/error_code"], |_| {
            ask(
                3,
                ApiVersionsRequest::default()
                    .with_client_software_name(text("a"))
                    .with_client_software_version(text("1")),
            )
        }),
        case("SaslHandshake", ApiKey::SaslHandshake, &[], &["/error_code"], |_| {
            ask(1, SaslHandshakeRequest::default().with_mechanism(text("PLAIN")))
        }),
        case("SaslAuthenticate", ApiKey::SaslAuthenticate, &[], &["/error_code"], |_| {
            ask(2, SaslAuthenticateRequest::default())
        }),
        case("GetTelemetrySubscriptions", ApiKey::GetTelemetrySubscriptions, &[], &["/error_code"], |_| {
            ask(0, GetTelemetrySubscriptionsRequest::default())
        }),
        case("PushTelemetry", ApiKey::PushTelemetry, &[], &["/error_code"], |_| {
            ask(0, PushTelemetryRequest::default())
        }),
    ];
    cases.extend(data());
    cases.extend(metadata());
    cases.extend(coordinated::cases());
    cases
}

fn data() -> Vec<Case> {
    let fetched: &[&str] = &["/responses/0/partitions/0/error_code"];
    vec![
        case(
            "Produce",
            ApiKey::Produce,
            &[(Write, Topic(TOPIC))],
            &["/responses/0/partition_responses/0/error_code"],
            |_| produce(9, Uuid::nil()),
        ),
        case(
            "Produce by id",
            ApiKey::Produce,
            &[(Write, Topic(TOPIC))],
            &["/responses/0/partition_responses/0/error_code"],
            |broker| produce(13, id_of(broker, TOPIC)?),
        ),
        case(
            "Produce in a transaction",
            ApiKey::Produce,
            &[(Write, Resource::TransactionalId(TRANSACTIONAL_ID)), (Write, Topic(TOPIC))],
            &["/responses/0/partition_responses/0/error_code"],
            |_| produce_in_transaction(),
        ),
        case("Fetch", ApiKey::Fetch, &[(Read, Topic(TOPIC))], fetched, |_| fetch(12, Uuid::nil(), -1)),
        case("Fetch by id", ApiKey::Fetch, &[(Read, Topic(TOPIC))], fetched, |broker| {
            fetch(13, id_of(broker, TOPIC)?, -1)
        }),
        case("Fetch of a follower", ApiKey::Fetch, &[(ClusterAction, Cluster)], fetched, |_| fetch(12, Uuid::nil(), 7))
            .coded(29),
        case(
            "ListOffsets",
            ApiKey::ListOffsets,
            &[(Describe, Topic(TOPIC))],
            &["/topics/0/partitions/0/error_code"],
            |_| {
                let partition = ListOffsetsPartition::default().with_timestamp(-1).with_current_leader_epoch(-1);
                let asked = ListOffsetsTopic::default().with_name(topic(TOPIC)).with_partitions(vec![partition]);
                ask(7, ListOffsetsRequest::default().with_replica_id((-1).into()).with_topics(vec![asked]))
            },
        ),
        case(
            "OffsetForLeaderEpoch",
            ApiKey::OffsetForLeaderEpoch,
            &[(Describe, Topic(TOPIC))],
            &["/topics/0/partitions/0/error_code"],
            |_| {
                let partition = OffsetForLeaderPartition::default().with_current_leader_epoch(-1);
                let asked = OffsetForLeaderTopic::default().with_topic(topic(TOPIC)).with_partitions(vec![partition]);
                ask(4, OffsetForLeaderEpochRequest::default().with_replica_id((-1).into()).with_topics(vec![asked]))
            },
        )
        .or(ClusterAction, Cluster),
        case("InitProducerId", ApiKey::InitProducerId, &[(IdempotentWrite, Cluster)], &["/error_code"], |_| {
            init_producer_id(None)
        })
        .or(Write, Topic(TOPIC)),
        case(
            "InitProducerId of a transaction",
            ApiKey::InitProducerId,
            &[(Write, Resource::TransactionalId(TRANSACTIONAL_ID))],
            &["/error_code"],
            |_| init_producer_id(Some(transactional_id())),
        ),
    ]
}

fn produce(version: i16, id: Uuid) -> Result<Prepared> {
    let mut batch = BatchBuilder::new(Offset::ZERO);
    batch.push(RecordContent { timestamp: None, key: None, value: Some(b"v"), headers: &[] });
    let records: Bytes = batch.build()?.into();
    let partition = PartitionProduceData::default().with_index(0).with_records(Some(records));
    let data = TopicProduceData::default().with_partition_data(vec![partition]);
    let data = if id.is_nil() { data.with_name(topic(TOPIC)) } else { data.with_topic_id(id) };
    ask(version, ProduceRequest::default().with_acks(1).with_timeout_ms(30_000).with_topic_data(vec![data]))
}

/// A batch of a transaction that never began: whoever may write it hears of that.
fn produce_in_transaction() -> Result<Prepared> {
    let (id, epoch) = (ProducerId::from_wire(1), ProducerEpoch::from_wire(0));
    let mut batch = BatchBuilder::new(Offset::ZERO)
        .producer(id.context("an id")?, epoch.context("an epoch")?, Sequence::from_wire(0))
        .transactional();
    batch.push(RecordContent { timestamp: None, key: None, value: Some(b"v"), headers: &[] });
    let partition = PartitionProduceData::default().with_index(0).with_records(Some(batch.build()?.into()));
    let data = TopicProduceData::default().with_name(topic(TOPIC)).with_partition_data(vec![partition]);
    let request = ProduceRequest::default()
        .with_transactional_id(Some(transactional_id()))
        .with_acks(-1)
        .with_timeout_ms(30_000)
        .with_topic_data(vec![data]);
    ask(9, request)
}

fn fetch(version: i16, id: Uuid, replica: i32) -> Result<Prepared> {
    let partition = FetchPartition::default()
        .with_current_leader_epoch(-1)
        .with_last_fetched_epoch(-1)
        .with_log_start_offset(-1)
        .with_partition_max_bytes(1024);
    let wanted = FetchTopic::default().with_partitions(vec![partition]);
    let wanted = if id.is_nil() { wanted.with_topic(topic(TOPIC)) } else { wanted.with_topic_id(id) };
    let request = FetchRequest::default()
        .with_replica_id(replica.into())
        .with_max_bytes(1024)
        .with_session_epoch(-1)
        .with_topics(vec![wanted]);
    ask(version, request)
}

pub(crate) fn init_producer_id(id: Option<TransactionalId>) -> Result<Prepared> {
    let request = InitProducerIdRequest::default()
        .with_transactional_id(id)
        .with_transaction_timeout_ms(60_000)
        .with_producer_id((-1).into())
        .with_producer_epoch(-1);
    ask(4, request)
}

fn metadata() -> Vec<Case> {
    let describe = [(Describe, Topic(TOPIC))];
    let mut creating = case(
        "Metadata that makes a topic",
        ApiKey::Metadata,
        &[(Describe, Topic("auto")), (Create, Topic("auto"))],
        &["/topics/0/error_code"],
        |_| {
            let asked = MetadataRequestTopic::default().with_name(Some(topic("auto")));
            ask(12, MetadataRequest::default().with_topics(Some(vec![asked])).with_allow_auto_topic_creation(true))
        },
    )
    .after(|broker| delete_topic(broker, "auto"));
    creating.needs.push(vec![(Describe, Topic("auto")), (Create, Cluster)]);
    // Kafka makes the topic some time after its answer.
    creating.only_ours = true;
    vec![
        case("Metadata", ApiKey::Metadata, &describe, &["/topics/0/error_code"], |_| {
            let asked = MetadataRequestTopic::default().with_name(Some(topic(TOPIC)));
            ask(12, MetadataRequest::default().with_topics(Some(vec![asked])))
        }),
        case("Metadata by id", ApiKey::Metadata, &describe, &["/topics/0/error_code"], |broker| {
            let asked = MetadataRequestTopic::default().with_name(None).with_topic_id(id_of(broker, TOPIC)?);
            ask(12, MetadataRequest::default().with_topics(Some(vec![asked])))
        }),
        case("Metadata of all topics", ApiKey::Metadata, &describe, &[], |_| {
            ask(12, MetadataRequest::default().with_topics(None))
        })
        .sign(Sign::Empty("/topics")),
        creating,
        case("Metadata with the cluster's operations", ApiKey::Metadata, &[(Describe, Cluster)], &[], |_| {
            ask(
                10,
                MetadataRequest::default()
                    .with_topics(Some(Vec::new()))
                    .with_include_cluster_authorized_operations(true),
            )
        })
        .sign(Sign::Zero("/cluster_authorized_operations")),
    ]
}
