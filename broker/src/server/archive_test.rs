//! A whole node and its archive, through restarts and with a bucket that comes and goes.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use kafka_protocol::{
    error::ResponseError,
    messages::{
        CreateTopicsRequest,
        create_topics_request::{CreatableTopic, CreatableTopicConfig},
    },
    protocol::StrBytes,
};
use varve_metadata::model::TopicId;

use super::{
    LogLevels,
    data_test::{fetch_request, list_offset, produce, produce_request, records, values},
    testing::Client,
};
use crate::{
    config::{BrokerConfig, Sources},
    node::{Node, StartError},
};

/// Longest wait for what happens in the background.
const LIMIT: Duration = Duration::from_secs(60);

/// A folder in which nodes live one after the other.
struct Home(tempfile::TempDir);

impl Home {
    fn new() -> Home {
        Home(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    async fn try_start(&self, settings: &[&str]) -> Result<Node, StartError> {
        let own = [
            format!("varve.data.dir={}", self.0.path().display()),
            "listeners=PLAINTEXT://127.0.0.1:0".to_owned(),
            "varve.http.listener=".to_owned(),
            "log.retention.check.interval.ms=100".to_owned(),
            "varve.object.store.request.attempts=1".to_owned(),
        ];
        let overrides = own.into_iter().chain(settings.iter().map(|setting| (*setting).to_owned())).collect();
        let config = BrokerConfig::load(&Sources { overrides, ..Sources::default() }).unwrap().config;
        Node::start(Arc::new(config), LogLevels::default()).await
    }

    async fn start(&self, settings: &[&str]) -> Node {
        self.try_start(settings).await.unwrap()
    }

    /// Takes the bucket away, as an outage does: a file in its place refuses everything.
    fn take_bucket(&self) {
        std::fs::rename(self.path("archive"), self.path("away")).unwrap();
        std::fs::write(self.path("archive"), b"").unwrap();
    }

    fn give_bucket_back(&self) {
        std::fs::remove_file(self.path("archive")).unwrap();
        std::fs::rename(self.path("away"), self.path("archive")).unwrap();
    }
}

/// Makes topic `t` with one partition.
async fn create_topic(client: &mut Client, settings: &[(&str, &str)]) -> TopicId {
    let text = |text: &str| StrBytes::from_string(text.to_owned());
    let settings = settings
        .iter()
        .map(|(name, value)| CreatableTopicConfig::default().with_name(text(name)).with_value(Some(text(value))));
    let topic = CreatableTopic::default()
        .with_name(text("t").into())
        .with_num_partitions(1)
        .with_replication_factor(1)
        .with_configs(settings.collect());
    let request = CreateTopicsRequest::default().with_topics(vec![topic]).with_timeout_ms(9000);
    let made = client.ask(7, &request).await.topics.remove(0);
    assert_eq!(made.error_code, 0, "{:?}", made.error_message);
    TopicId::from_wire(made.topic_id).unwrap()
}

async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let started = Instant::now();
    while !holds().await {
        assert!(started.elapsed() < LIMIT, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// All records of `t` from offset `from` on.
async fn read_all(client: &mut Client, topic: TopicId, from: u64) -> Vec<(u64, String)> {
    let (mut found, mut next) = (Vec::new(), from);
    loop {
        let request = fetch_request(12, ("t", topic), &[(0, next as i64)]).with_max_wait_ms(5000);
        let answer = client.ask(12, &request).await.responses.remove(0).partitions.remove(0);
        assert_eq!(answer.error_code, 0, "fetch at {next}");
        let batches = values(answer.records.as_deref().unwrap_or_default());
        found.extend(batches.into_iter().filter(|(offset, _)| *offset >= next));
        next = found.last().map_or(next, |(offset, _)| offset + 1);
        if next >= answer.high_watermark as u64 {
            return found;
        }
    }
}

/// Segments that hold two of the records of [`large`], and leave the local disk once they are archived.
const EAGER: &[(&str, &str)] =
    &[("segment.bytes", "40000"), ("local.retention.ms", "1"), ("file.delete.delay.ms", "0"), ("retention.ms", "-1")];

fn large(number: usize) -> String {
    format!("{number:016}").repeat(1000)
}

/// Appends `numbers` and returns once all but the newest lie in the archive alone.
async fn fill_archive(client: &mut Client, topic: TopicId, numbers: std::ops::Range<usize>) {
    let end = numbers.end as i64;
    for number in numbers {
        let answer = produce(client, 9, ("t", topic), 0, records(&[&large(number)])).await;
        assert_eq!((answer.error_code, answer.base_offset), (0, number as i64));
    }
    eventually("old records left the disk", async || list_offset(client, 9, -4).await.offset >= end - 2).await;
}

fn expected(numbers: std::ops::Range<usize>) -> Vec<(u64, String)> {
    numbers.map(|number| (number as u64, large(number))).collect()
}

#[expect(dead_code, reason = "for tests to come")]
fn is_there(path: &Path) -> bool {
    path.exists()
}

#[tokio::test(flavor = "multi_thread")]
async fn producers_feel_a_bucket_that_is_away_before_the_disk_is_full_and_lose_nothing() {
    let home = Home::new();
    let node = home.start(&["varve.local.max.bytes=1000000"]).await;
    let mut client = Client::to(node.address()).await;
    let topic = create_topic(&mut client, EAGER).await;
    fill_archive(&mut client, topic, 0..4).await;
    home.take_bucket();
    let (mut next, mut throttled, started) = (4, 0, Instant::now());
    let refused = loop {
        assert!(started.elapsed() < LIMIT, "never refused; at {next}");
        let asked = Instant::now();
        let request = produce_request(9, ("t", topic), 0, -1, records(&[&large(next)]));
        let answer = client.ask(9, &request).await;
        assert!(asked.elapsed() < LIMIT);
        let pause = answer.throttle_time_ms;
        let partition = answer.responses[0].partition_responses[0].clone();
        if partition.error_code != 0 {
            assert!(pause > 0);
            break partition;
        }
        assert_eq!(partition.base_offset, next as i64);
        next += 1;
        throttled += usize::from(pause > 0);
        if pause == 0 {
            // As a producer that shares its node with others: the limit is looked at twice a second.
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    assert_eq!(refused.error_code, ResponseError::KafkaStorageError.code());
    assert!(refused.error_message.unwrap().contains("the object store cannot be reached"));
    assert!(throttled > 0, "slowed down before it was refused");
    // What is there can still be read.
    assert_eq!(read_all(&mut client, topic, 8).await.len(), next - 8);
    home.give_bucket_back();
    let mut base = -1;
    eventually("the node takes records again", async || {
        let answer = produce(&mut client, 9, ("t", topic), 0, records(&[&large(next)])).await;
        base = answer.base_offset;
        answer.error_code == 0
    })
    .await;
    assert_eq!(base, next as i64);
    assert_eq!(read_all(&mut client, topic, 0).await, expected(0..next + 1));
    node.stop().await;
}
