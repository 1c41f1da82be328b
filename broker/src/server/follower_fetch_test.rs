//! What a follower's session is told, and when: it looks at what is new only.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use kafka_protocol::messages::{
    FetchRequest, FetchResponse,
    fetch_request::{FetchTopic, ReplicaState},
};
use tokio::time::timeout;
use varve_log::local::AppendOrigin;
use varve_metadata::{
    controller::{CreationDefaults, ManualPartition, NewTopic, Placement},
    image::BrokerImage,
    model::{BrokerId, PartitionIndex, TopicId},
};

use super::{
    data_test::{fetch_request, records},
    testing::{Client, TestNode},
    wall_clock,
};

const VERSION: i16 = 17;
const PARTITIONS: i32 = 3;
/// Longer than any test waits.
const FOR_EVER: i32 = 3_600_000;
const PATIENCE: Duration = Duration::from_secs(60);

/// A topic of partitions that are led here and followed by broker 2.
async fn followed(node: &TestNode) -> TopicId {
    let other = BrokerImage { id: BrokerId(2), fenced: false, ..BrokerImage::default() };
    node.broker.metadata.register(other).await.unwrap();
    let assigned = |index| ManualPartition { index, replicas: vec![1, 2] };
    let placement = Ok(Placement::Manual((0..PARTITIONS).map(assigned).collect()));
    let topic = NewTopic { name: "t".to_owned(), placement, overrides: Default::default() };
    let defaults = CreationDefaults { partitions: 1, replication_factor: 1 };
    let made = node.broker.metadata.create_topics(&[topic], defaults, false, None).await.unwrap().remove(0);
    node.broker.partitions.caught_up(node.broker.metadata.image().revision()).await;
    made.unwrap().id
}

/// Broker 2, on a connection of its own.
struct Follower {
    client: Client,
    topic: TopicId,
    session: (i32, i32),
}

impl Follower {
    /// Begins a session with all partitions, which are empty, and looks once more, so that they rest.
    async fn of(node: &TestNode, topic: TopicId) -> Follower {
        let mut follower = Follower { client: node.connect().await, topic, session: (0, 0) };
        let all: Vec<_> = (0..PARTITIONS).map(|index| (index, 0)).collect();
        follower.fetch(&all, (0, 1)).await;
        assert_ne!(follower.session.0, 0);
        follower.fetch(&[], (0, 1)).await;
        follower
    }

    async fn fetch(&mut self, named: &[(i32, i64)], (max_wait, min_bytes): (i32, i32)) -> FetchResponse {
        let request = self.request(named).with_max_wait_ms(max_wait).with_min_bytes(min_bytes);
        let response = timeout(PATIENCE, self.client.ask(VERSION, &request)).await.expect("an answer");
        assert_eq!(response.error_code, 0);
        self.session = (response.session_id, self.session.1 + 1);
        response
    }

    fn request(&self, named: &[(i32, i64)]) -> FetchRequest {
        let request = fetch_request(VERSION, ("t", self.topic), named);
        let topics: Vec<FetchTopic> = if named.is_empty() { Vec::new() } else { request.topics.clone() };
        request
            .with_topics(topics)
            .with_replica_state(ReplicaState::default().with_replica_id(2.into()))
            .with_session_id(self.session.0)
            .with_session_epoch(self.session.1)
    }
}

fn told(response: &FetchResponse) -> Vec<i32> {
    let mut told: Vec<i32> = response
        .responses
        .iter()
        .flat_map(|topic| &topic.partitions)
        .map(|partition| partition.partition_index)
        .collect();
    told.sort_unstable();
    told
}

fn append(node: &TestNode, index: i32) {
    let partitions = &node.broker.partitions;
    let index = PartitionIndex::from_wire(index).unwrap();
    partitions.find("t", index).unwrap().append(&records(&["a"]), AppendOrigin::Client, wall_clock()).unwrap();
}

#[tokio::test]
async fn a_partition_that_rested_is_told_of_as_soon_as_it_has_records_and_until_it_is_followed_further() {
    let node = TestNode::start().await;
    let topic = followed(&node).await;
    let mut follower = Follower::of(&node, topic).await;
    let waits = tokio::spawn(async move {
        let response = follower.fetch(&[], (FOR_EVER, 1)).await;
        (follower, told(&response))
    });
    append(&node, 1);
    let (mut follower, first) = waits.await.unwrap();
    assert_eq!(first, [1]);
    // It did not take them: it does not say that it stands elsewhere.
    assert_eq!(told(&follower.fetch(&[], (FOR_EVER, 1)).await), [1]);
    append(&node, 2);
    assert_eq!(told(&follower.fetch(&[(1, 1)], (FOR_EVER, 1)).await), [1, 2], "and what is committed of the first");
    append(&node, 0);
    assert_eq!(told(&follower.fetch(&[(2, 1)], (FOR_EVER, 1)).await), [0, 2]);
}

/// What grows all the time, and is not enough.
#[tokio::test(flavor = "multi_thread")]
async fn a_fetch_ends_at_its_deadline_whatever_is_new() {
    let node = TestNode::start().await;
    let topic = followed(&node).await;
    let mut follower = Follower::of(&node, topic).await;
    let done = AtomicBool::new(false);
    let partition = node.broker.partitions.find("t", Default::default()).unwrap();
    tokio::task::block_in_place(|| {
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    partition.append(&records(&["a"]), AppendOrigin::Client, wall_clock()).unwrap();
                }
            });
            let fetch = async { timeout(PATIENCE, follower.fetch(&[], (100, i32::MAX))).await };
            let ended = tokio::runtime::Handle::current().block_on(fetch);
            done.store(true, Ordering::Relaxed);
            assert!(ended.is_ok());
        });
    });
}
