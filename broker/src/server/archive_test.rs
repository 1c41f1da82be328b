//! A whole node and its archive, through restarts and with a bucket that comes and goes.

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use kafka_protocol::{
    error::ResponseError,
    messages::{
        CreateTopicsRequest, DeleteRecordsRequest, DeleteTopicsRequest, OffsetForLeaderEpochRequest,
        create_topics_request::{CreatableTopic, CreatableTopicConfig},
        delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic},
        offset_for_leader_epoch_request::{OffsetForLeaderPartition, OffsetForLeaderTopic},
    },
    protocol::StrBytes,
};
use varve_metadata::model::TopicId;
use varve_tiering::{
    layout::Version,
    tier::{
        bucket::{Bucket, BucketMetrics, BucketOptions},
        manifests::ManifestStore,
    },
};

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
pub(super) const LIMIT: Duration = Duration::from_secs(300);

/// A folder in which nodes live one after the other.
pub(super) struct Home(tempfile::TempDir);

impl Home {
    pub(super) fn new() -> Home {
        Home(tempfile::tempdir().unwrap())
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    async fn try_start(&self, settings: &[&str]) -> Result<Node, StartError> {
        let own = [
            format!("varve.data.dir={}", self.0.path().display()),
            "listeners=PLAINTEXT://127.0.0.1:0".to_owned(),
            "varve.http.listener=".to_owned(),
            "log.retention.check.interval.ms=100".to_owned(),
            "remote.log.manager.task.interval.ms=100".to_owned(),
            "varve.object.store.request.attempts=1".to_owned(),
        ];
        let overrides = own.into_iter().chain(settings.iter().map(|setting| (*setting).to_owned())).collect();
        let config = BrokerConfig::load(&Sources { overrides, ..Sources::default() }).unwrap().config;
        Node::start(Arc::new(config), LogLevels::default()).await
    }

    pub(super) async fn start(&self, settings: &[&str]) -> Node {
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
pub(super) async fn create_topic(client: &mut Client, settings: &[(&str, &str)]) -> TopicId {
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

pub(super) async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let started = Instant::now();
    while !holds().await {
        assert!(started.elapsed() < LIMIT, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// All records of `t` from offset `from` on.
pub(super) async fn read_all(client: &mut Client, topic: TopicId, from: u64) -> Vec<(u64, String)> {
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

/// Segments that hold two of the records of [`large`] and leave the local disk once they are archived.
pub(super) const EAGER: &[(&str, &str)] =
    &[("segment.bytes", "1048576"), ("local.retention.ms", "1"), ("file.delete.delay.ms", "0"), ("retention.ms", "-1")];

pub(super) fn large(number: usize) -> String {
    format!("{number:016}").repeat(25_000)
}

/// Appends `numbers` and returns once all but the newest lie in the archive alone.
pub(super) async fn fill_archive(client: &mut Client, topic: TopicId, numbers: std::ops::Range<usize>) {
    let end = numbers.end as i64;
    for number in numbers {
        let answer = produce(client, 9, ("t", topic), 0, records(&[&large(number)])).await;
        assert_eq!((answer.error_code, answer.base_offset), (0, number as i64));
    }
    eventually("old records left the disk", async || list_offset(client, 9, -4).await.offset >= end - 2).await;
}

pub(super) fn expected(numbers: std::ops::Range<usize>) -> Vec<(u64, String)> {
    numbers.map(|number| (number as u64, large(number))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn producers_feel_a_bucket_that_is_away_before_the_disk_is_full_and_lose_nothing() {
    let home = Home::new();
    let node = home.start(&["varve.local.max.bytes=40000000"]).await;
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
            // As a producer that shares its node with others: the limit is looked at twice a second, and on a busy machine less
            // often. Near it there have to be some looks between the first pause and the refusal.
            let is_near = next as u64 * large(0).len() as u64 > 28_000_000;
            tokio::time::sleep(Duration::from_millis(if is_near { 300 } else { 50 })).await;
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

#[tokio::test(flavor = "multi_thread")]
async fn right_after_a_restart_the_archive_answers_before_it_was_looked_at() {
    let home = Home::new();
    let node = home.start(&[]).await;
    let mut client = Client::to(node.address()).await;
    let topic = create_topic(&mut client, EAGER).await;
    fill_archive(&mut client, topic, 0..7).await;
    let tiered = list_offset(&mut client, 9, -5).await.offset;
    assert!(tiered >= 4);
    node.stop().await;
    // First looks are far away: what is asked now is found by asking alone.
    let node = home.start(&["remote.log.manager.task.interval.ms=3600000"]).await;
    let mut client = Client::to(node.address()).await;
    assert_eq!(list_offset(&mut client, 9, -5).await.offset, tiered);
    assert_eq!(list_offset(&mut client, 9, -2).await.offset, 0);
    assert_eq!(read_all(&mut client, topic, 0).await, expected(0..7));
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_disk_goes_on_where_the_archive_ends_and_knows_its_epochs() {
    let home = Home::new();
    let node = home.start(&[]).await;
    let mut client = Client::to(node.address()).await;
    let topic = create_topic(&mut client, EAGER).await;
    fill_archive(&mut client, topic, 0..7).await;
    let archived = list_offset(&mut client, 9, -5).await.offset as usize + 1;
    node.stop().await;
    std::fs::remove_dir_all(home.path("log")).unwrap();
    for round in 0..2 {
        let node = home.start(&["remote.log.manager.task.interval.ms=3600000"]).await;
        let mut client = Client::to(node.address()).await;
        let end = archived + round;
        assert_eq!(list_offset(&mut client, 9, -1).await.offset, end as i64);
        assert_eq!(read_all(&mut client, topic, 0).await, expected(0..end));
        // A consumer that read the last archived record, in epoch 0, is told that it did not diverge.
        let asked = OffsetForLeaderPartition::default().with_current_leader_epoch(-1).with_leader_epoch(0);
        let name = StrBytes::from_static_str("t").into();
        let asked = OffsetForLeaderTopic::default().with_topic(name).with_partitions(vec![asked]);
        let request = OffsetForLeaderEpochRequest::default().with_replica_id((-1).into()).with_topics(vec![asked]);
        let answer = client.ask(4, &request).await.topics.remove(0).partitions.remove(0);
        assert_eq!((answer.error_code, answer.leader_epoch, answer.end_offset), (0, 0, end as i64));
        let mut fetch = fetch_request(12, ("t", topic), &[(0, archived as i64 - 1)]).with_max_wait_ms(5000);
        fetch.topics[0].partitions[0].last_fetched_epoch = 0;
        let answer = client.ask(12, &fetch).await.responses.remove(0).partitions.remove(0);
        assert_eq!((answer.error_code, answer.diverging_epoch.epoch), (0, -1));
        let answer = produce(&mut client, 9, ("t", topic), 0, records(&[&large(end)])).await;
        assert_eq!((answer.error_code, answer.base_offset), (0, end as i64));
        node.stop().await;
    }
}

/// All files below `from`, as they are, below `to`.
pub(super) fn copy(from: &std::path::Path, to: &std::path::Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        let to = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &to);
        } else {
            std::fs::copy(entry.path(), to).unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_was_put_back_to_an_older_state_goes_on_where_the_archive_ends() {
    let home = Home::new();
    let node = home.start(&[]).await;
    let mut client = Client::to(node.address()).await;
    let topic = create_topic(&mut client, EAGER).await;
    fill_archive(&mut client, topic, 0..3).await;
    node.stop().await;
    copy(&home.path("log"), &home.path("backup"));
    let node = home.start(&[]).await;
    let mut client = Client::to(node.address()).await;
    fill_archive(&mut client, topic, 3..9).await;
    let archived = list_offset(&mut client, 9, -5).await.offset as usize + 1;
    assert!(archived > 3);
    node.stop().await;
    std::fs::remove_dir_all(home.path("log")).unwrap();
    std::fs::rename(home.path("backup"), home.path("log")).unwrap();
    let node = home.start(&[]).await;
    let mut client = Client::to(node.address()).await;
    let answer = produce(&mut client, 9, ("t", topic), 0, records(&[&large(archived)])).await;
    assert_eq!((answer.error_code, answer.base_offset), (0, archived as i64));
    assert_eq!(read_all(&mut client, topic, 0).await, expected(0..archived + 1));
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_crash_the_first_offset_is_that_of_the_archive_and_can_be_read() {
    let home = Home::new();
    let node = home.start(&[]).await;
    let mut client = Client::to(node.address()).await;
    let topic = create_topic(&mut client, &[EAGER, &[("retention.bytes", "2000000")]].concat()).await;
    fill_archive(&mut client, topic, 0..12).await;
    eventually("old records expired", async || list_offset(&mut client, 9, -2).await.offset > 3).await;
    node.stop().await;
    // As a crash leaves it: written before anything expired.
    std::fs::write(home.path("log/log-start-offset-checkpoint"), "0\n1\nt 0 0\n").unwrap();
    // Nothing looks at the archive but for reading.
    let node = home.start(&["varve.roles=broker"]).await;
    let mut client = Client::to(node.address()).await;
    let earliest = list_offset(&mut client, 9, -2).await.offset as u64;
    assert!(earliest > 3);
    assert_eq!(read_all(&mut client, topic, earliest).await, expected(earliest as usize..12));
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archive_whose_topic_was_deleted_right_before_a_crash_is_buried() {
    let home = Home::new();
    let node = home.start(&[]).await;
    let mut client = Client::to(node.address()).await;
    let topic = create_topic(&mut client, EAGER).await;
    fill_archive(&mut client, topic, 0..7).await;
    node.stop().await;
    // A node that deletes the topic and does not come to tell the bucket.
    let node = home.start(&["remote.log.storage.system.enable=false"]).await;
    let mut client = Client::to(node.address()).await;
    let request = DeleteTopicsRequest::default()
        .with_topic_names(vec![StrBytes::from_static_str("t").into()])
        .with_timeout_ms(9000);
    assert_eq!(client.ask(5, &request).await.responses[0].error_code, 0);
    node.stop().await;
    let url = format!("file://{}", home.path("archive").display());
    let bucket = Bucket::open(&url, BucketOptions::default(), BucketMetrics::new()).await.unwrap();
    let manifests = ManifestStore::new(bucket);
    let is_buried = async || {
        let (partition, _) = manifests.partitions().await.unwrap().pop_first().unwrap();
        assert_eq!(partition.topic, topic);
        manifests.load(partition, Version::NONE).await.unwrap().unwrap().deleted_at().is_some()
    };
    assert!(!is_buried().await);
    let node = home.start(&[]).await;
    eventually("the manifest says that the topic is gone", is_buried).await;
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_starts_without_its_bucket_and_archives_once_it_is_there() {
    let home = Home::new();
    let node = home.start(&[]).await;
    let mut client = Client::to(node.address()).await;
    let topic = create_topic(&mut client, EAGER).await;
    fill_archive(&mut client, topic, 0..7).await;
    let tiered = list_offset(&mut client, 9, -5).await.offset;
    node.stop().await;
    let (mark, aside) = (home.path("archive/cluster.json"), home.path("cluster.json"));
    std::fs::rename(&mark, &aside).unwrap();
    std::fs::create_dir(&mark).unwrap();
    let node = home.start(&[]).await;
    let mut client = Client::to(node.address()).await;
    // Hot data is served and grows; nothing goes up.
    assert_eq!(read_all(&mut client, topic, tiered as u64 + 1).await.len(), 7 - tiered as usize - 1);
    for number in 7..12 {
        assert_eq!(produce(&mut client, 9, ("t", topic), 0, records(&[&large(number)])).await.error_code, 0);
    }
    assert_eq!(list_offset(&mut client, 9, -5).await.offset, tiered);
    std::fs::remove_dir(&mark).unwrap();
    std::fs::rename(&aside, &mark).unwrap();
    eventually("new records go up", async || list_offset(&mut client, 9, -5).await.offset > tiered).await;
    assert_eq!(read_all(&mut client, topic, 0).await, expected(0..12));
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_its_disk_and_its_bucket_a_partition_waits_and_gives_no_offset_twice() {
    let home = Home::new();
    let node = home.start(&[]).await;
    let mut client = Client::to(node.address()).await;
    let topic = create_topic(&mut client, EAGER).await;
    fill_archive(&mut client, topic, 0..7).await;
    let archived = list_offset(&mut client, 9, -5).await.offset + 1;
    node.stop().await;
    std::fs::remove_dir_all(home.path("log")).unwrap();
    let (mark, aside) = (home.path("archive/cluster.json"), home.path("cluster.json"));
    std::fs::rename(&mark, &aside).unwrap();
    std::fs::create_dir(&mark).unwrap();
    let node = home.start(&[]).await;
    let mut client = Client::to(node.address()).await;
    let refused = produce(&mut client, 9, ("t", topic), 0, records(&["x"])).await;
    assert_eq!(refused.error_code, ResponseError::KafkaStorageError.code());
    std::fs::remove_dir(&mark).unwrap();
    std::fs::rename(&aside, &mark).unwrap();
    let mut base = -1;
    eventually("the partition is back", async || {
        let answer = produce(&mut client, 9, ("t", topic), 0, records(&["x"])).await;
        base = answer.base_offset;
        answer.error_code == 0
    })
    .await;
    assert_eq!(base, archived);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shortened_log_without_its_bucket_waits_and_gives_no_offset_twice() {
    let home = Home::new();
    let node = home.start(&[]).await;
    let mut client = Client::to(node.address()).await;
    let topic = create_topic(&mut client, EAGER).await;
    fill_archive(&mut client, topic, 0..3).await;
    node.stop().await;
    copy(&home.path("log"), &home.path("backup"));
    let node = home.start(&[]).await;
    let mut client = Client::to(node.address()).await;
    fill_archive(&mut client, topic, 3..9).await;
    let archived = list_offset(&mut client, 9, -5).await.offset as usize + 1;
    assert!(archived > 3);
    node.stop().await;
    std::fs::remove_dir_all(home.path("log")).unwrap();
    std::fs::rename(home.path("backup"), home.path("log")).unwrap();
    let (mark, aside) = (home.path("archive/cluster.json"), home.path("cluster.json"));
    std::fs::rename(&mark, &aside).unwrap();
    std::fs::create_dir(&mark).unwrap();
    // It does not know more at the second start.
    for _ in 0..2 {
        let node = home.start(&[]).await;
        let mut client = Client::to(node.address()).await;
        let refused = produce(&mut client, 9, ("t", topic), 0, records(&["x"])).await;
        assert_eq!(refused.error_code, ResponseError::KafkaStorageError.code());
        node.stop().await;
    }
    let node = home.start(&[]).await;
    let mut client = Client::to(node.address()).await;
    std::fs::remove_dir(&mark).unwrap();
    std::fs::rename(&aside, &mark).unwrap();
    let mut base = -1;
    eventually("the partition is back", async || {
        let answer = produce(&mut client, 9, ("t", topic), 0, records(&[&large(archived)])).await;
        base = answer.base_offset;
        answer.error_code == 0
    })
    .await;
    assert_eq!(base, archived as i64);
    assert_eq!(read_all(&mut client, topic, 0).await, expected(0..archived + 1));
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_deleted_stays_so_where_the_log_goes_on_behind_an_archive_that_was_not_told() {
    let home = Home::new();
    let node = home.start(&[]).await;
    let mut client = Client::to(node.address()).await;
    let topic = create_topic(&mut client, EAGER).await;
    fill_archive(&mut client, topic, 0..7).await;
    let archived = list_offset(&mut client, 9, -5).await.offset as usize + 1;
    home.take_bucket();
    let before = DeleteRecordsPartition::default().with_offset(3);
    let asked = DeleteRecordsTopic::default().with_name(StrBytes::from_static_str("t").into());
    let request = DeleteRecordsRequest::default().with_topics(vec![asked.with_partitions(vec![before])]);
    let answer = client.ask(2, &request).await.topics.remove(0).partitions.remove(0);
    assert_eq!((answer.error_code, answer.low_watermark), (0, 3));
    node.stop().await;
    home.give_bucket_back();
    for entry in std::fs::read_dir(home.path("log/t-0")).unwrap().map(Result::unwrap) {
        if entry.path().extension().is_some_and(|suffix| suffix == "log") {
            std::fs::remove_file(entry.path()).unwrap();
        }
    }
    let node = home.start(&[]).await;
    let mut client = Client::to(node.address()).await;
    assert_eq!(list_offset(&mut client, 9, -2).await.offset, 3);
    assert_eq!(read_all(&mut client, topic, 3).await, expected(3..archived));
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_bucket_of_another_cluster_is_refused_with_both_names() {
    let (home, other) = (Home::new(), Home::new());
    home.start(&[]).await.stop().await;
    other.start(&[]).await.stop().await;
    std::fs::remove_dir_all(home.path("archive")).unwrap();
    copy(&other.path("archive"), &home.path("archive"));
    let refused = home.try_start(&[]).await.unwrap_err();
    let chain = std::iter::successors(Some(&refused as &dyn std::error::Error), |error| error.source());
    let told: Vec<String> = chain.map(ToString::to_string).collect();
    assert!(told.iter().any(|line| line.contains("belongs to cluster")), "{told:?}");
}
