//! A topic whose archiving is turned off (KIP-950), through restarts.

use kafka_protocol::{
    error::ResponseError,
    messages::{
        IncrementalAlterConfigsRequest,
        incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig},
    },
    protocol::StrBytes,
};
use varve_metadata::model::TopicId;

use super::{
    archive_test::{EAGER, Home, create_topic, eventually, expected, fill_archive, read_all},
    data_test::{fetch_request, list_offset},
    testing::Client,
};

/// Sets settings of topic `t`; the error code.
async fn alter(client: &mut Client, settings: &[(&str, &str)]) -> i16 {
    let text = |text: &str| StrBytes::from_string(text.to_owned());
    let setting = |(name, value): &(&str, &str)| {
        AlterableConfig::default().with_name(text(name)).with_config_operation(0).with_value(Some(text(value)))
    };
    let topic = AlterConfigsResource::default()
        .with_resource_type(2)
        .with_resource_name(text("t"))
        .with_configs(settings.iter().map(setting).collect());
    let request = IncrementalAlterConfigsRequest::default().with_resources(vec![topic]);
    client.ask(1, &request).await.responses.remove(0).error_code
}

fn objects(home: &Home) -> usize {
    let mut folders = vec![home.path("archive/raw"), home.path("archive/tables")];
    let mut found = 0;
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            match entry.path() {
                path if path.is_dir() => folders.push(path),
                _ => found += 1,
            }
        }
    }
    found
}

async fn filled(home: &Home, settings: &[&str]) -> (crate::node::Node, Client, TopicId) {
    let node = home.start(settings).await;
    let mut client = Client::to(node.address()).await;
    let topic = create_topic(&mut client, EAGER).await;
    fill_archive(&mut client, topic, 0..7).await;
    (node, client, topic)
}

#[tokio::test(flavor = "multi_thread")]
async fn turned_off_with_deletion_nothing_is_left_in_the_bucket_and_the_local_part_stays() {
    let home = Home::new();
    let quick = &["varve.archive.grace.ms=10000", "varve.compactor.interval.ms=100"];
    let (node, mut client, topic) = filled(&home, quick).await;
    assert_eq!(
        alter(&mut client, &[("remote.storage.enable", "false")]).await,
        ResponseError::InvalidConfig.code(),
        "nobody said what is to become of the archive"
    );
    assert!(objects(&home) > 0);
    let off = [("remote.storage.enable", "false"), ("remote.log.delete.on.disable", "true")];
    assert_eq!(alter(&mut client, &off).await, 0);
    // The node ends before, or while, it acts on it.
    node.stop().await;
    let node = home.start(quick).await;
    let mut client = Client::to(node.address()).await;
    let mut start = 0;
    eventually("the log starts on the local disk", async || {
        start = list_offset(&mut client, 9, -2).await.offset as usize;
        start > 0
    })
    .await;
    eventually("all objects are gone", async || objects(&home) == 0).await;
    assert_eq!(list_offset(&mut client, 9, -1).await.offset, 7);
    assert_eq!(read_all(&mut client, topic, start as u64).await, expected(start..7));
    let request = fetch_request(12, ("t", topic), &[(0, 0)]);
    let answer = client.ask(12, &request).await.responses.remove(0).partitions.remove(0);
    assert_eq!(answer.error_code, ResponseError::OffsetOutOfRange.code());
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_copying_turned_off_the_archive_stays_readable_after_a_restart() {
    let home = Home::new();
    let (node, mut client, topic) = filled(&home, &[]).await;
    let read_only = [("remote.log.copy.disable", "true"), ("local.retention.ms", "-2")];
    assert_eq!(alter(&mut client, &read_only).await, 0);
    node.stop().await;
    let node = home.start(&[]).await;
    let mut client = Client::to(node.address()).await;
    assert_eq!(read_all(&mut client, topic, 0).await, expected(0..7));
    node.stop().await;
}
