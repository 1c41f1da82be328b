//! DeleteRecords, through a socket.

use kafka_protocol::{
    error::ResponseError,
    messages::{
        DeleteRecordsRequest,
        delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic},
    },
};

use super::{
    admin_test::{name, node_with},
    configs_test::{TOPIC, alter},
};
use crate::server::data_test::{produce, records};

#[tokio::test]
async fn records_of_unknown_and_internal_partitions_are_not_deleted() {
    let (_node, mut client) = node_with(&[("t", 1), ("__consumer_offsets", 1)]).await;
    let topic = |topic: &str, index: i32| {
        let partition = DeleteRecordsPartition::default().with_partition_index(index).with_offset(-1);
        DeleteRecordsTopic::default().with_name(name(topic)).with_partitions(vec![partition])
    };
    let request = DeleteRecordsRequest::default()
        .with_topics(vec![topic("t", 9), topic("u", 0), topic("__consumer_offsets", 0)])
        .with_timeout_ms(1000);
    let response = client.ask(2, &request).await;
    let told: Vec<(i16, i64)> = response
        .topics
        .iter()
        .map(|topic| (topic.partitions[0].error_code, topic.partitions[0].low_watermark))
        .collect();
    assert_eq!(told, [(3, -1), (3, -1), (17, -1)]);
}

#[tokio::test]
async fn records_are_deleted_up_to_an_offset_or_to_the_high_watermark() {
    let (node, mut client) = node_with(&[("t", 1)]).await;
    let id = node.broker.metadata.image().topic("t").unwrap().id;
    produce(&mut client, 9, ("t", id), 0, records(&["a", "b", "c", "d"])).await;
    let up_to = |offset: i64| {
        let partition = DeleteRecordsPartition::default().with_partition_index(0).with_offset(offset);
        let topic = DeleteRecordsTopic::default().with_name(name("t")).with_partitions(vec![partition]);
        DeleteRecordsRequest::default().with_topics(vec![topic]).with_timeout_ms(1000)
    };
    let out_of_range = ResponseError::OffsetOutOfRange.code();
    // Deleting what is deleted already changes nothing; what is not yet written, or no offset at all, is refused.
    let cases =
        [(2, (0, 2)), (1, (0, 2)), (5, (out_of_range, -1)), (-2, (out_of_range, -1)), (-1, (0, 4)), (4, (0, 4))];
    for (offset, expected) in cases {
        let response = client.ask(2, &up_to(offset)).await;
        let result = &response.topics[0].partitions[0];
        assert_eq!((result.error_code, result.low_watermark), expected, "up to {offset}");
        if result.error_code == 0 {
            let dir = &node.broker.config.logs.dirs[0];
            let saved = std::fs::read_to_string(dir.join("log-start-offset-checkpoint")).unwrap();
            assert_eq!(saved, format!("0\n1\nt 0 {}\n", expected.1), "a crash changes nothing about it");
        }
    }
    assert_eq!(alter(&mut client, TOPIC, "t", &[("cleanup.policy", 0, Some("compact"))]).await.0, 0);
    let refused = client.ask(2, &up_to(-1)).await;
    assert_eq!(refused.topics[0].partitions[0].error_code, ResponseError::PolicyViolation.code());
}
