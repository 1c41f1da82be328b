//! Transactions whose records are in the archive, and whose end is not.

use kafka_protocol::messages::{
    TransactionalId, WriteTxnMarkersRequest,
    write_txn_markers_request::{WritableTxnMarker, WritableTxnMarkerTopic},
};
use kafka_protocol::protocol::StrBytes;
use varve_log::format::{BatchBuilder, ControlRecord, RecordContent, batches, records};
use varve_metadata::model::{Offset, ProducerEpoch, ProducerId, Sequence, TopicId};

use super::{
    archive_test::{EAGER, Home, create_topic, eventually, large},
    data_test::{fetch_request, list_offset, produce, produce_request},
    testing::Client,
};

const PRODUCERS: [i64; 2] = [7, 8];

async fn write(client: &mut Client, topic: TopicId, producer: i64, value: &str) -> i64 {
    let id = ProducerId::from_wire(producer).unwrap();
    let builder = BatchBuilder::new(Offset::ZERO).producer(id, ProducerEpoch(0), Sequence::from_wire(0));
    let mut batch = builder.transactional();
    let timestamp = Some(crate::server::wall_clock());
    batch.push(RecordContent { timestamp, key: None, value: Some(value.as_bytes()), headers: &[] });
    let request = produce_request(9, ("t", topic), 0, -1, batch.build().unwrap().into());
    let request = request.with_transactional_id(Some(TransactionalId(StrBytes::from_static_str("x"))));
    let answer = client.ask(9, &request).await.responses.remove(0).partition_responses.remove(0);
    assert_eq!(answer.error_code, 0, "{answer:?}");
    answer.base_offset
}

async fn end(client: &mut Client, producer: i64, commits: bool) {
    let topic = WritableTxnMarkerTopic::default()
        .with_name(StrBytes::from_static_str("t").into())
        .with_partition_indexes(vec![0]);
    let marker = WritableTxnMarker::default()
        .with_producer_id(producer.into())
        .with_producer_epoch(0)
        .with_transaction_result(commits)
        .with_topics(vec![topic]);
    let request = WriteTxnMarkersRequest::default().with_markers(vec![marker]);
    let answer = client.ask(1, &request).await;
    assert_eq!(answer.markers[0].topics[0].partitions[0].error_code, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_decided_of_archived_transactions_is_said_again_where_the_disk_lost_it() {
    let home = Home::new();
    let settings = &["transaction.partition.verification.enable=false"];
    let node = home.start(settings).await;
    let mut client = Client::to(node.address()).await;
    let topic = create_topic(&mut client, EAGER).await;
    // The third record has no room in the segment of the first two, and their ends come behind it.
    for (offset, producer) in PRODUCERS.into_iter().enumerate() {
        assert_eq!(write(&mut client, topic, producer, &large(offset)).await, offset as i64);
    }
    let mut filler = BatchBuilder::new(Offset::ZERO);
    // As of now, like markers: another time would begin another segment.
    let timestamp = Some(crate::server::wall_clock());
    filler.push(RecordContent { timestamp, value: Some(large(2).as_bytes()), ..RecordContent::default() });
    let produced = produce(&mut client, 9, ("t", topic), 0, filler.build().unwrap().into()).await;
    assert_eq!((produced.error_code, produced.base_offset), (0, 2));
    end(&mut client, 7, false).await;
    end(&mut client, 8, true).await;
    eventually("it is archived", async || list_offset(&mut client, 9, -5).await.offset == 1).await;
    node.stop().await;
    std::fs::remove_dir_all(home.path("log")).unwrap();

    let node = home.start(settings).await;
    let mut client = Client::to(node.address()).await;
    assert_eq!(list_offset(&mut client, 9, -1).await.offset, 4);
    let fetch = fetch_request(12, ("t", topic), &[(0, 2)]).with_max_wait_ms(5000);
    let answer = client.ask(12, &fetch).await.responses.remove(0).partitions.remove(0);
    let run = answer.records.unwrap();
    let mut found: Vec<_> = batches(&run)
        .map(|batch| {
            let batch = batch.unwrap();
            let record = records(batch.payload(), 1).next().unwrap().unwrap();
            let is_commit = matches!(ControlRecord::parse(&record).unwrap(), Some(ControlRecord::Commit { .. }));
            assert!(batch.header().attributes.is_control());
            (batch.header().producer_id.unwrap().to_wire(), is_commit)
        })
        .collect();
    found.sort_unstable();
    assert_eq!(found, [(7, false), (8, true)]);
    node.stop().await;
}
