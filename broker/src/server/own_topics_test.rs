//! The cluster's own topics and their copy in the bucket, through disks that are lost or put back.

use kafka_protocol::{
    messages::{
        CreatePartitionsRequest, FindCoordinatorRequest, OffsetCommitRequest, OffsetFetchRequest,
        create_partitions_request::CreatePartitionsTopic,
        offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic},
        offset_fetch_request::OffsetFetchRequestGroup,
    },
    protocol::StrBytes,
};
use varve_metadata::model::Offset;
use varve_tiering::{
    layout::Version,
    manifest::Manifest,
    tier::{
        bucket::{Bucket, BucketMetrics, BucketOptions},
        manifests::ManifestStore,
    },
};

use super::{
    archive_test::{Home, copy, create_topic, eventually},
    testing::Client,
};
use crate::node::Node;

/// Partitions that one commit names.
const COMMITTED: i32 = 250;

const SETTINGS: &[&str] = &[
    "offsets.topic.num.partitions=1",
    "offsets.topic.segment.bytes=1048576",
    "varve.backup.lag.ms=1",
    "group.initial.rebalance.delay.ms=0",
];

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

async fn started(home: &Home, more: &[&str]) -> (Node, Client) {
    let node = home.start(&[SETTINGS, more].concat()).await;
    let client = Client::to(node.address()).await;
    (node, client)
}

/// Commits `offset` for all partitions in one batch that nearly fills a segment. Returns once the coordinator took it.
async fn commit(client: &mut Client, group: &str, offset: i64) {
    let note = text(&"n".repeat(3500));
    let partition = |index| {
        OffsetCommitRequestPartition::default()
            .with_partition_index(index)
            .with_committed_offset(offset)
            .with_committed_metadata(Some(note.clone()))
    };
    let topic = OffsetCommitRequestTopic::default()
        .with_name(text("t").into())
        .with_partitions((0..COMMITTED).map(partition).collect());
    let request = OffsetCommitRequest::default()
        .with_group_id(text(group).into())
        .with_generation_id_or_member_epoch(-1)
        .with_topics(vec![topic]);
    // Makes the topic.
    let find = FindCoordinatorRequest::default().with_coordinator_keys(vec![text(group)]);
    client.ask(4, &find).await;
    eventually("the coordinator takes a commit", async || {
        let answer = client.ask(8, &request).await;
        answer.topics[0].partitions.iter().all(|partition| partition.error_code == 0)
    })
    .await;
}

/// What the group committed, once its coordinator serves.
async fn committed(client: &mut Client, group: &str) -> Vec<i64> {
    let group = OffsetFetchRequestGroup::default().with_group_id(text(group).into()).with_topics(None);
    let request = OffsetFetchRequest::default().with_groups(vec![group]);
    let mut found = Vec::new();
    eventually("the coordinator serves", async || {
        let answer = client.ask(8, &request).await.groups.remove(0);
        found = answer
            .topics
            .iter()
            .flat_map(|topic| topic.partitions.iter().map(|partition| partition.committed_offset))
            .collect();
        answer.error_code == 0
    })
    .await;
    found
}

async fn make_topic(client: &mut Client) {
    create_topic(client, &[]).await;
    let topic =
        CreatePartitionsTopic::default().with_name(text("t").into()).with_count(COMMITTED).with_assignments(None);
    let request = CreatePartitionsRequest::default().with_timeout_ms(9000).with_topics(vec![topic]);
    assert_eq!(client.ask(3, &request).await.results[0].error_code, 0);
}

/// The manifest of the only partition that is copied.
async fn manifest(home: &Home) -> Option<Manifest> {
    let url = format!("file://{}", home.path("archive").display());
    let bucket = Bucket::open(&url, BucketOptions::default(), BucketMetrics::new()).await.unwrap();
    let manifests = ManifestStore::new(bucket);
    let partitions = manifests.partitions().await.unwrap();
    for id in partitions.into_keys() {
        let manifest = manifests.load(id, Version::NONE).await.unwrap().unwrap();
        if manifest.topic().as_str() == "__consumer_offsets" {
            return Some(manifest);
        }
    }
    None
}

async fn is_copied_to(home: &Home, end: u64) -> bool {
    manifest(home).await.is_some_and(|manifest| manifest.end() >= Offset::new(end).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_of_many_segments_comes_back_whole() {
    let home = Home::new();
    let (node, mut client) = started(&home, &[]).await;
    make_topic(&mut client).await;
    let groups = ["one", "two", "three"];
    for group in groups {
        commit(&mut client, group, 7).await;
    }
    eventually("all of it is copied", async || is_copied_to(&home, 3 * COMMITTED as u64).await).await;
    node.stop().await;
    std::fs::remove_dir_all(home.path("log/__consumer_offsets-0")).unwrap();

    let (node, mut client) = started(&home, &[]).await;
    for group in groups {
        assert_eq!(committed(&mut client, group).await, vec![7; COMMITTED as usize], "{group}");
    }
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_was_put_back_to_an_older_state_is_brought_up_to_its_copy() {
    let home = Home::new();
    let (node, mut client) = started(&home, &[]).await;
    make_topic(&mut client).await;
    commit(&mut client, "one", 7).await;
    node.stop().await;
    copy(&home.path("log"), &home.path("backup"));
    let (node, mut client) = started(&home, &[]).await;
    commit(&mut client, "one", 8).await;
    commit(&mut client, "two", 9).await;
    eventually("all of it is copied", async || is_copied_to(&home, 3 * COMMITTED as u64).await).await;
    node.stop().await;
    std::fs::remove_dir_all(home.path("log")).unwrap();
    std::fs::rename(home.path("backup"), home.path("log")).unwrap();

    let (node, mut client) = started(&home, &[]).await;
    for (group, offset) in [("one", 8), ("two", 9)] {
        assert_eq!(committed(&mut client, group).await, vec![offset; COMMITTED as usize], "{group}");
    }
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_is_not_kept_up_any_more_is_emptied() {
    let home = Home::new();
    let (node, mut client) = started(&home, &[]).await;
    make_topic(&mut client).await;
    commit(&mut client, "one", 7).await;
    eventually("it is copied", async || is_copied_to(&home, COMMITTED as u64).await).await;
    node.stop().await;

    let (node, mut client) = started(&home, &["varve.backup.lag.ms=-1"]).await;
    eventually("nothing is in it", async || manifest(&home).await.is_some_and(|manifest| manifest.is_empty())).await;
    assert_eq!(committed(&mut client, "one").await, vec![7; COMMITTED as usize]);
    node.stop().await;
}
