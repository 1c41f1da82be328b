//! `flush.messages` and `flush.ms`: who waits for the disk, and for how long.

use std::time::Duration;

use kafka_protocol::messages::{ApiKey, FetchResponse};
use varve_log::local::AppendOrigin;
use varve_metadata::model::Offset;

use super::{
    data_test::{fetch_request, only, produce, records},
    testing::TestNode,
};

#[tokio::test]
async fn with_flush_messages_an_answer_means_on_disk() {
    let node = TestNode::start().await;
    let topic = ("t", node.create_topic("t", 1, &[("flush.messages", "1")]).await);
    let mut client = node.connect().await;
    let answer = produce(&mut client, 9, topic, 0, records(&["a"])).await;
    assert_eq!((answer.error_code, answer.base_offset), (0, 0));
    let partition = node.broker.partitions.find("t", Default::default()).unwrap();
    assert_eq!(partition.log().recovery_point(), Offset::new(1).unwrap());
    let response = client.ask(12, &fetch_request(12, topic, &[(0, 0)])).await;
    assert_eq!(only(&response).high_watermark, 1);
}

#[tokio::test]
async fn a_long_poll_that_begins_while_records_are_forced_to_disk_is_woken_when_they_are() {
    let node = TestNode::start().await;
    let topic = ("t", node.create_topic("t", 1, &[("flush.messages", "1")]).await);
    let partition = node.broker.partitions.find("t", Default::default()).unwrap();
    let appended = partition.append(&records(&["a"]), AppendOrigin::Client, crate::server::wall_clock()).unwrap();
    let mut reader = node.connect().await;
    let request = fetch_request(12, topic, &[(0, 0)]).with_max_wait_ms(30_000);
    reader.send(12, &request).await;
    while !partition.is_watched() {
        tokio::task::yield_now().await;
    }
    // It has looked, or is about to; in both cases the records come after it began.
    tokio::task::yield_now().await;
    partition.committed(appended.end).await.unwrap();
    let answer = tokio::time::timeout(Duration::from_secs(10), reader.receive::<FetchResponse>(ApiKey::Fetch, 12));
    let (_, response) = answer.await.expect("woken before its time is up");
    assert_eq!(only(&response).high_watermark, 1);
}

#[tokio::test]
async fn records_become_visible_even_if_flush_messages_is_taken_back_meanwhile() {
    let node = TestNode::start().await;
    node.create_topic("t", 1, &[("flush.messages", "1")]).await;
    let partition = node.broker.partitions.find("t", Default::default()).unwrap();
    let appended = partition.append(&records(&["a"]), AppendOrigin::Client, crate::server::wall_clock()).unwrap();
    partition.log().update_config(Default::default());
    assert!(partition.must_wait(appended.end));
    partition.committed(appended.end).await.unwrap();
    assert_eq!(partition.high_watermark().0, Offset::new(1).unwrap());
}

#[tokio::test]
async fn with_flush_ms_records_reach_the_disk_by_themselves() {
    let node = TestNode::start().await;
    let topic = ("t", node.create_topic("t", 1, &[("flush.ms", "0")]).await);
    let stop = tokio_util::sync::CancellationToken::new();
    let flusher =
        crate::partition::flush_when_due(node.broker.partitions.clone(), Duration::from_millis(1), stop.clone());
    let flusher = tokio::spawn(flusher);
    produce(&mut node.connect().await, 9, topic, 0, records(&["a"])).await;
    let partition = node.broker.partitions.find("t", Default::default()).unwrap();
    while partition.log().recovery_point() < Offset::new(1).unwrap() {
        tokio::task::yield_now().await;
    }
    stop.cancel();
    flusher.await.unwrap();
}
