//! Share groups (KIP-932) through a socket: what members and administrators ask, against a node.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use kafka_protocol::{
    error::ResponseError,
    messages::{
        AlterShareGroupOffsetsRequest, DeleteGroupsRequest, DeleteShareGroupOffsetsRequest,
        DescribeShareGroupOffsetsRequest, FindCoordinatorRequest, GroupId, ListGroupsRequest,
        ReadShareGroupStateRequest, ShareAcknowledgeRequest, ShareFetchRequest, ShareGroupDescribeRequest,
        ShareGroupHeartbeatRequest, TopicName,
        alter_share_group_offsets_request::{
            AlterShareGroupOffsetsRequestPartition, AlterShareGroupOffsetsRequestTopic,
        },
        delete_share_group_offsets_request::DeleteShareGroupOffsetsRequestTopic,
        describe_share_group_offsets_request::DescribeShareGroupOffsetsRequestGroup,
        read_share_group_state_request,
        share_acknowledge_request::{AcknowledgePartition, AcknowledgeTopic, AcknowledgementBatch},
        share_fetch_request::{self, FetchPartition, FetchTopic},
        share_fetch_response::PartitionData,
    },
    protocol::StrBytes,
};
use tokio::net::TcpSocket;
use varve_log::{
    format::{BatchBuilder, ControlRecord, RecordContent},
    local::{AppendOrigin, TransactionBegin, TransactionTerms},
};
use varve_metadata::{
    controller::{
        AlterRequest, AlterResource, Alteration, ConfigOp, CreationDefaults, ManualPartition, NewTopic, Placement,
    },
    image::{BrokerImage, ConfigResource, Endpoint},
    model::{BrokerId, Offset, PartitionIndex, ProducerEpoch, ProducerId, Sequence, Timestamp, TopicId},
};

use super::{
    Limits, auto_create,
    broker_rules::Rules,
    data_test::{produce, records},
    testing::{Client, TestNode},
};

use crate::coordinator::share_state::SHARE_STATE_TOPIC;

const GROUP: &str = "sharers";
const ACCEPT: i8 = 1;
const RELEASE: i8 = 2;
const REJECT: i8 = 3;
const FEW: [&str; 4] = [
    "offsets.topic.num.partitions=1",
    "share.coordinator.state.topic.num.partitions=1",
    "group.share.assignment.interval.ms=0",
    "group.share.min.record.lock.duration.ms=1000",
];

fn text(value: &str) -> StrBytes {
    StrBytes::from_string(value.to_owned())
}

fn group() -> GroupId {
    GroupId(text(GROUP))
}

struct World {
    node: TestNode,
    topic: TopicId,
}

impl World {
    /// A node with a topic of one partition, and a group that reads all of it and whose settings are these.
    async fn start(settings: &[(&str, &str)]) -> World {
        let node = TestNode::start_configured(Limits::default(), &FEW).await;
        let topic = node.create_topic("t", 1, &[]).await;
        let world = World { node, topic };
        world.set(&[&[("share.auto.offset.reset", "earliest")], settings].concat()).await;
        let mut client = world.node.connect().await;
        let find = FindCoordinatorRequest::default().with_coordinator_keys(vec![text(GROUP)]);
        assert_eq!(client.ask(4, &find).await.coordinators[0].error_code, 0);
        while client.ask(5, &ListGroupsRequest::default()).await.error_code != 0 {
            tokio::task::yield_now().await;
        }
        world
    }

    async fn set(&self, settings: &[(&str, &str)]) {
        let broker = &self.node.broker;
        let set = settings.iter().map(|(name, value)| (name.to_string(), ConfigOp::Set(value.to_string())));
        let request = AlterRequest {
            resource: AlterResource::Other(ConfigResource::Group(GROUP.to_owned())),
            alteration: Alteration::Incremental(set.collect()),
        };
        let image = broker.metadata.image();
        let rules = Rules::of(broker, &image);
        let altered = broker.metadata.alter_configs(&[request], &rules, false).await.unwrap();
        assert!(altered.iter().all(Result::is_ok), "{altered:?}");
    }

    async fn produce(&self, values: &[&str]) {
        let mut client = self.node.connect().await;
        let produced = produce(&mut client, 13, ("t", self.topic), 0, records(values)).await;
        assert_eq!(produced.error_code, 0);
    }

    /// A member that has been given the partition.
    async fn member(&self, id: &'static str) -> Member {
        let mut member = Member { client: self.node.connect().await, id, topic: self.topic, epoch: 0 };
        let mut epoch = member.beat(0, true).await.0;
        loop {
            let (next, assigned) = member.beat(epoch, false).await;
            epoch = next;
            if assigned {
                return member;
            }
            tokio::task::yield_now().await;
        }
    }
}

struct Member {
    client: Client,
    id: &'static str,
    topic: TopicId,
    /// Of its session.
    epoch: i32,
}

impl Member {
    /// A heartbeat: the epoch that is told, and whether the partition is assigned.
    async fn beat(&mut self, epoch: i32, joins: bool) -> (i32, bool) {
        let topics = Some(vec![TopicName(text("t"))]);
        let request = ShareGroupHeartbeatRequest::default()
            .with_group_id(group())
            .with_member_id(text(self.id))
            .with_member_epoch(epoch)
            .with_subscribed_topic_names(topics.filter(|_| joins || epoch >= 0));
        let told = self.client.ask(1, &request).await;
        assert_eq!((told.error_code, told.error_message), (0, None));
        let assigned = told.assignment.is_some_and(|assignment| !assignment.topic_partitions.is_empty());
        (told.member_epoch, assigned)
    }

    fn request(&self, epoch: i32, said: &[(i64, i64, i8)]) -> ShareFetchRequest {
        let batches = said.iter().map(|(first, last, word)| {
            share_fetch_request::AcknowledgementBatch::default()
                .with_first_offset(*first)
                .with_last_offset(*last)
                .with_acknowledge_types(vec![*word])
        });
        let partition = FetchPartition::default().with_acknowledgement_batches(batches.collect());
        let topic = FetchTopic::default().with_topic_id(self.topic.to_wire()).with_partitions(vec![partition]);
        ShareFetchRequest::default()
            .with_group_id(Some(group()))
            .with_member_id(Some(text(self.id)))
            .with_share_session_epoch(epoch)
            .with_max_wait_ms(10_000)
            .with_min_bytes(1)
            .with_max_bytes(1 << 20)
            .with_max_records(500)
            .with_batch_size(500)
            .with_topics(vec![topic])
    }

    /// Says something of records, and reads on.
    async fn fetch(&mut self, said: &[(i64, i64, i8)]) -> PartitionData {
        let request = self.request(self.epoch, said);
        self.epoch += 1;
        let mut answer = self.client.ask(1, &request).await;
        assert_eq!((answer.error_code, answer.responses.len()), (0, 1), "{answer:?}");
        answer.responses.remove(0).partitions.remove(0)
    }

    /// Says something of records; the code that comes back.
    async fn acknowledge(&mut self, said: &[(i64, i64, i8)]) -> i16 {
        let batches = said.iter().map(|(first, last, word)| {
            AcknowledgementBatch::default()
                .with_first_offset(*first)
                .with_last_offset(*last)
                .with_acknowledge_types(vec![*word])
        });
        let partition = AcknowledgePartition::default().with_acknowledgement_batches(batches.collect());
        let topic = AcknowledgeTopic::default().with_topic_id(self.topic.to_wire()).with_partitions(vec![partition]);
        let request = ShareAcknowledgeRequest::default()
            .with_group_id(Some(group()))
            .with_member_id(Some(text(self.id)))
            .with_share_session_epoch(self.epoch)
            .with_topics(vec![topic]);
        self.epoch += 1;
        let answer = self.client.ask(1, &request).await;
        assert_eq!(answer.error_code, 0);
        answer.responses[0].partitions[0].error_code
    }
}

/// First and last offset, and how often they were delivered.
fn acquired(partition: &PartitionData) -> Vec<(i64, i64, i16)> {
    assert_eq!((partition.error_code, partition.acknowledge_error_code), (0, 0), "{partition:?}");
    let acquired = partition.acquired_records.iter();
    acquired.map(|acquired| (acquired.first_offset, acquired.last_offset, acquired.delivery_count)).collect()
}

#[tokio::test]
async fn records_are_one_members_until_it_says_what_became_of_them() {
    let world = World::start(&[]).await;
    world.produce(&["a", "b", "c"]).await;
    let (mut one, mut other) = (world.member("one").await, world.member("other").await);
    let given = one.fetch(&[]).await;
    assert_eq!(acquired(&given), [(0, 2, 1)]);
    assert!(!given.records.unwrap().is_empty());
    // The first goes, the second is to be given to another, and of the third nothing is said yet.
    assert_eq!(one.acknowledge(&[(0, 0, ACCEPT), (1, 1, RELEASE)]).await, 0);
    assert_eq!(acquired(&other.fetch(&[]).await), [(1, 1, 2)]);
    let refused = other.acknowledge(&[(2, 2, ACCEPT)]).await;
    assert_eq!(refused, ResponseError::InvalidRecordState.code(), "it is not that member's");
    assert_eq!(other.acknowledge(&[(1, 1, REJECT)]).await, 0);
    // A word that comes with a fetch counts before that waits.
    world.produce(&["d"]).await;
    assert_eq!(acquired(&one.fetch(&[(2, 2, ACCEPT)]).await), [(3, 3, 1)]);
}

#[tokio::test]
async fn what_a_member_has_is_given_to_others_when_its_session_or_its_connection_ends() {
    let world = World::start(&[]).await;
    world.produce(&["a", "b"]).await;
    let (mut one, mut two, mut three) =
        (world.member("one").await, world.member("two").await, world.member("three").await);
    assert_eq!(acquired(&one.fetch(&[]).await), [(0, 1, 1)]);
    let last = one.request(-1, &[(0, 0, ACCEPT)]).with_max_wait_ms(0);
    assert_eq!(one.client.ask(1, &last).await.error_code, 0);
    assert_eq!(one.client.ask(1, &last).await.error_code, ResponseError::ShareSessionNotFound.code());
    assert_eq!(acquired(&two.fetch(&[]).await), [(1, 1, 2)]);
    drop(two);
    assert_eq!(acquired(&three.fetch(&[]).await), [(1, 1, 3)]);
}

#[tokio::test]
async fn a_lock_that_runs_out_gives_the_record_to_another_until_it_was_delivered_often_enough() {
    let settings = [("share.record.lock.duration.ms", "4000"), ("share.delivery.count.limit", "2")];
    let world = World::start(&settings).await;
    world.produce(&["a"]).await;
    let (mut one, mut other) = (world.member("one").await, world.member("other").await);
    let before = Instant::now();
    assert_eq!(acquired(&one.fetch(&[]).await), [(0, 0, 1)]);
    assert_eq!(acquired(&other.fetch(&[]).await), [(0, 0, 2)]);
    assert!(before.elapsed() >= Duration::from_secs(4), "not before the lock ran out");
    // It was delivered as often as may be: nobody gets it again, and what is behind it is next.
    assert_eq!(other.acknowledge(&[(0, 0, RELEASE)]).await, 0);
    world.produce(&["b"]).await;
    assert_eq!(acquired(&one.fetch(&[]).await), [(1, 1, 1)]);
}

#[tokio::test]
async fn a_group_of_committed_records_is_not_given_those_of_aborted_transactions() {
    let world = World::start(&[("share.isolation.level", "read_committed")]).await;
    let partition = world.node.broker.partitions.led("t", PartitionIndex(0)).unwrap();
    let (producer, epoch) = (ProducerId::from_wire(7).unwrap(), ProducerEpoch(0));
    let now = Timestamp::from_wire(5).unwrap();
    // Past the handler, with the word of a coordinator that was not asked.
    let append = |batch: &[u8]| {
        let begin = TransactionBegin { producer, epoch, base_sequence: None, raises_epoch: false, now };
        let guard = partition.log().begin_transaction(&begin).unwrap();
        let terms = TransactionTerms { guard, raises_epoch: false };
        partition.append_in(batch, AppendOrigin::Coordinator, terms, now).unwrap();
    };
    let write = |value: &str, sequence: i32| {
        let batch = BatchBuilder::new(Offset::ZERO).producer(producer, epoch, Sequence::from_wire(sequence));
        let mut batch = batch.transactional();
        let value = Some(value.as_bytes());
        batch.push(RecordContent { timestamp: Some(now), key: None, value, headers: &[] });
        append(&batch.build().unwrap());
    };
    let end = |marker: ControlRecord| append(&marker.batch(producer, epoch, now));
    write("aborted", 0);
    end(ControlRecord::Abort { coordinator_epoch: 0 });
    write("committed", 1);
    end(ControlRecord::Commit { coordinator_epoch: 0 });
    let mut member = world.member("one").await;
    // The markers are the member's as well: its client passes over them.
    assert_eq!(acquired(&member.fetch(&[]).await), [(1, 3, 1)]);
}

#[tokio::test]
async fn a_session_goes_on_in_order_or_not_at_all() {
    let world = World::start(&[]).await;
    let mut member = world.member("one").await;
    world.produce(&["a"]).await;
    let with_words = member.request(0, &[(0, 0, ACCEPT)]);
    assert_eq!(member.client.ask(1, &with_words).await.error_code, ResponseError::InvalidRequest.code());
    let none = member.request(3, &[]);
    assert_eq!(member.client.ask(1, &none).await.error_code, ResponseError::ShareSessionNotFound.code());
    member.fetch(&[]).await;
    let ahead = member.request(9, &[]);
    assert_eq!(member.client.ask(1, &ahead).await.error_code, ResponseError::InvalidShareSessionEpoch.code());
    let nameless = ahead.clone().with_member_id(None);
    assert_eq!(member.client.ask(1, &nameless).await.error_code, ResponseError::InvalidRequest.code());
    let groupless = ahead.with_group_id(None);
    assert_eq!(member.client.ask(1, &groupless).await.error_code, ResponseError::InvalidRequest.code());
}

/// Where the group has come to, how much is left, and the code of the partition.
async fn described(client: &mut Client) -> (i64, i16) {
    let wanted = DescribeShareGroupOffsetsRequestGroup::default().with_group_id(group()).with_topics(None);
    let answer = client.ask(0, &DescribeShareGroupOffsetsRequest::default().with_groups(vec![wanted])).await;
    assert_eq!(answer.groups[0].error_code, 0);
    let partition = answer.groups[0].topics.first().and_then(|topic| topic.partitions.first());
    partition.map_or((-2, 0), |partition| (partition.start_offset, partition.error_code))
}

#[tokio::test]
async fn an_administrator_sees_moves_and_ends_a_group() {
    let world = World::start(&[]).await;
    world.produce(&["a", "b", "c"]).await;
    let mut member = world.member("one").await;
    member.fetch(&[]).await;
    assert_eq!(member.acknowledge(&[(0, 1, ACCEPT)]).await, 0);
    let mut admin = world.node.connect().await;
    // The start moves with the next record that is settled, as in Kafka.
    assert_eq!(described(&mut admin).await, (0, 0));
    let describe = ShareGroupDescribeRequest::default().with_group_ids(vec![group(), GroupId(text("nobody"))]);
    let groups = admin.ask(1, &describe).await.groups;
    assert_eq!((groups[0].group_state.as_str(), groups[0].assignor_name.as_str()), ("Stable", "simple"));
    assert_eq!(groups[0].members[0].assignment.topic_partitions[0].topic_name.as_str(), "t");
    assert_eq!(groups[1].error_code, ResponseError::GroupIdNotFound.code());
    let listed = admin.ask(5, &ListGroupsRequest::default()).await.groups.remove(0);
    assert_eq!((listed.group_type.as_str(), listed.protocol_type.as_str()), ("share", "share"));

    let to = |offset| {
        let partition = AlterShareGroupOffsetsRequestPartition::default().with_start_offset(offset);
        let unknown = AlterShareGroupOffsetsRequestPartition::default().with_partition_index(7);
        let topic = AlterShareGroupOffsetsRequestTopic::default().with_topic_name(TopicName(text("t")));
        let topic = topic.with_partitions(vec![partition, unknown]);
        AlterShareGroupOffsetsRequest::default().with_group_id(group()).with_topics(vec![topic])
    };
    let not_empty = ResponseError::NonEmptyGroup.code();
    let delete = DeleteGroupsRequest::default().with_groups_names(vec![group()]);
    assert_eq!(admin.ask(0, &to(1)).await.error_code, not_empty);
    assert_eq!(admin.ask(2, &delete).await.results[0].error_code, not_empty);
    member.beat(-1, false).await;
    let last = member.request(-1, &[]);
    assert_eq!(member.client.ask(1, &last).await.error_code, 0);
    let altered = admin.ask(0, &to(1)).await;
    let codes: Vec<i16> = altered.responses[0].partitions.iter().map(|partition| partition.error_code).collect();
    assert_eq!(codes, [0, ResponseError::UnknownTopicOrPartition.code()]);
    assert_eq!(described(&mut admin).await, (1, 0));
    let mut member = world.member("two").await;
    assert_eq!(acquired(&member.fetch(&[]).await), [(1, 2, 1)], "it begins where it was told to");
    member.beat(-1, false).await;
    drop(member);

    let forget = |topic: &str| {
        let topic = DeleteShareGroupOffsetsRequestTopic::default().with_topic_name(TopicName(text(topic)));
        DeleteShareGroupOffsetsRequest::default().with_group_id(group()).with_topics(vec![topic])
    };
    assert_eq!(admin.ask(0, &forget("t")).await.responses[0].error_code, 0);
    assert_eq!(described(&mut admin).await, (-2, 0));
    let unknown = ResponseError::UnknownTopicOrPartition.code();
    assert_eq!(admin.ask(0, &forget("t")).await.responses[0].error_code, unknown);
    assert_eq!(admin.ask(2, &delete).await.results[0].error_code, 0);
    assert_eq!(admin.ask(2, &delete).await.results[0].error_code, ResponseError::GroupIdNotFound.code());
    let read = read_share_group_state_request::PartitionData::default();
    let read = read_share_group_state_request::ReadStateData::default()
        .with_topic_id(world.topic.to_wire())
        .with_partitions(vec![read]);
    let read = ReadShareGroupStateRequest::default().with_group_id(text(GROUP)).with_topics(vec![read]);
    let forgotten = admin.ask(0, &read).await.results[0].partitions[0].error_code;
    assert_eq!(forgotten, ResponseError::InvalidRequest.code(), "its keeper has nothing of it");
}

#[tokio::test]
async fn the_keeper_of_a_share_partition_is_found_by_its_name() {
    let world = World::start(&[]).await;
    let mut client = world.node.connect().await;
    let mut find = async |key: &str| {
        let request = FindCoordinatorRequest::default().with_key_type(2).with_coordinator_keys(vec![text(key)]);
        client.ask(6, &request).await.coordinators.remove(0).error_code
    };
    assert_eq!(find("g:h:AAAAAAAAAAAAAAAAAAAAAQ:0").await, 0, "the group may have a colon in its name");
    for bad in
        ["", "g", "g:AAAAAAAAAAAAAAAAAAAAAQ", " :AAAAAAAAAAAAAAAAAAAAAQ:0", "g:short:0", "g:AAAAAAAAAAAAAAAAAAAAAQ:x"]
    {
        assert_eq!(find(bad).await, ResponseError::InvalidRequest.code(), "{bad}");
    }
}

#[tokio::test]
async fn while_the_keeper_cannot_be_reached_readers_are_told_to_ask_again() {
    let node = TestNode::start_configured(Limits::default(), &FEW).await;
    let topic = node.create_topic("t", 1, &[]).await;
    // A broker that is gone, which nobody noticed yet, and which keeps the state of all groups. Nobody else gets its port.
    let gone = TcpSocket::new_v4().unwrap();
    gone.bind(([127, 0, 0, 1], 0).into()).unwrap();
    let endpoint = Endpoint { host: "127.0.0.1".to_owned(), port: gone.local_addr().unwrap().port() };
    let metadata = &node.broker.metadata;
    let keeper = BrokerImage {
        id: BrokerId(2),
        endpoints: BTreeMap::from([("PLAINTEXT".to_owned(), endpoint)]),
        ..BrokerImage::default()
    };
    metadata.register(keeper).await.unwrap();
    let state = NewTopic {
        name: SHARE_STATE_TOPIC.to_owned(),
        placement: Ok(Placement::Manual(vec![ManualPartition { index: 0, replicas: vec![2] }])),
        overrides: auto_create::own_topic(&node.broker.config, SHARE_STATE_TOPIC)
            .overrides
            .into_iter()
            .map(|(name, value)| (name, Some(value)))
            .collect(),
    };
    let defaults = CreationDefaults { partitions: 1, replication_factor: 1 };
    let made = metadata.create_topics(&[state], defaults, false, None).await.unwrap();
    assert!(made[0].is_ok(), "{made:?}");
    let mut member = Member { client: node.connect().await, id: "one", topic, epoch: 0 };
    let told = member.fetch(&[]).await;
    assert_eq!(told.error_code, ResponseError::OffsetNotAvailable.code(), "{told:?}");
    assert!(told.acquired_records.is_empty() && told.records.is_none_or(|records| records.is_empty()));
}
