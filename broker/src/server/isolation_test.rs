//! read_committed and read_uncommitted beside open, aborted and committed transactions (KIP-98).

use kafka_protocol::messages::fetch_response::PartitionData;
use varve_log::{
    format::{BatchBuilder, ControlRecord, RecordContent},
    local::{AppendOrigin, TransactionBegin, TransactionTerms},
};
use varve_metadata::model::{Offset, PartitionIndex, ProducerEpoch, ProducerId, Sequence, Timestamp, TopicId};

use super::{
    data_test::{fetch_request, list_offset, produce, records, values},
    testing::{Client, TestNode},
};

const READ_COMMITTED: i8 = 1;

struct Transactions {
    node: TestNode,
    client: Client,
    topic: TopicId,
}

impl Transactions {
    async fn start() -> Transactions {
        let node = TestNode::start().await;
        let topic = node.create_topic("t", 1, &[]).await;
        let client = node.connect().await;
        Transactions { node, client, topic }
    }

    /// Appends past the handler, with the word of a coordinator that was not asked.
    fn append(&self, producer: ProducerId, batch: &[u8]) {
        let partition = self.node.broker.partitions.find("t", PartitionIndex(0)).unwrap();
        let now = Timestamp::from_wire(5).unwrap();
        let (epoch, base_sequence) = (ProducerEpoch(0), None);
        let begin = TransactionBegin { producer, epoch, base_sequence, raises_epoch: false, now };
        let guard = partition.log().begin_transaction(&begin).unwrap();
        let terms = TransactionTerms { guard, raises_epoch: false };
        partition.append_in(batch, AppendOrigin::Coordinator, terms, now).unwrap();
    }

    fn write(&self, producer: i64, sequence: i32, value: &str) {
        let id = ProducerId::from_wire(producer).unwrap();
        let mut batch = BatchBuilder::new(Offset::ZERO)
            .producer(id, ProducerEpoch(0), Sequence::from_wire(sequence))
            .transactional();
        let timestamp = Timestamp::from_wire(5);
        batch.push(RecordContent { timestamp, key: None, value: Some(value.as_bytes()), headers: &[] });
        self.append(id, &batch.build().unwrap());
    }

    fn end(&self, producer: i64, with: ControlRecord) {
        let id = ProducerId::from_wire(producer).unwrap();
        self.append(id, &with.batch(id, ProducerEpoch(0), Timestamp::from_wire(5).unwrap()));
    }

    async fn fetch(&mut self, isolation: i8, from: i64) -> PartitionData {
        let request = fetch_request(12, ("t", self.topic), &[(0, from)]).with_isolation_level(isolation);
        self.client.ask(12, &request).await.responses.remove(0).partitions.remove(0)
    }
}

#[tokio::test]
async fn an_open_transaction_holds_read_committed_up_and_nobody_else() {
    let mut log = Transactions::start().await;
    produce(&mut log.client, 9, ("t", log.topic), 0, records(&["before"])).await;
    log.write(7, 0, "open");
    produce(&mut log.client, 9, ("t", log.topic), 0, records(&["after"])).await;
    let committed = log.fetch(READ_COMMITTED, 0).await;
    assert_eq!((committed.high_watermark, committed.last_stable_offset), (3, 1));
    assert_eq!(values(committed.records.as_ref().unwrap()), [(0, "before".to_owned())]);
    assert_eq!(committed.aborted_transactions.as_deref(), Some([].as_slice()));
    let all = log.fetch(0, 0).await;
    assert_eq!(values(all.records.as_ref().unwrap()).len(), 3);
    assert_eq!(all.aborted_transactions, None);
    assert_eq!(list_offset(&mut log.client, 9, -1).await.offset, 3);
}

#[tokio::test]
async fn aborted_transactions_are_named_to_those_who_meet_them() {
    let mut log = Transactions::start().await;
    log.write(7, 0, "aborted");
    log.end(7, ControlRecord::Abort { coordinator_epoch: 0 });
    log.write(7, 1, "committed");
    log.end(7, ControlRecord::Commit { coordinator_epoch: 0 });
    produce(&mut log.client, 9, ("t", log.topic), 0, records(&["plain"])).await;
    let met = log.fetch(READ_COMMITTED, 0).await;
    assert_eq!(met.last_stable_offset, 5);
    let aborted = met.aborted_transactions.unwrap();
    assert_eq!(
        aborted.iter().map(|aborted| (aborted.producer_id.0, aborted.first_offset)).collect::<Vec<_>>(),
        [(7, 0)]
    );
    let passed = log.fetch(READ_COMMITTED, 4).await;
    assert_eq!(passed.aborted_transactions.as_deref(), Some([].as_slice()));
}

#[tokio::test]
async fn a_waiting_reader_of_committed_records_is_woken_by_the_marker() {
    let mut log = Transactions::start().await;
    log.write(7, 0, "late");
    let request = fetch_request(12, ("t", log.topic), &[(0, 0)]).with_isolation_level(READ_COMMITTED);
    log.client.send(12, &request.with_max_wait_ms(30_000)).await;
    // The reader is answered only after this, whether it waits by now or comes later.
    log.end(7, ControlRecord::Commit { coordinator_epoch: 0 });
    let (_, response): (i32, kafka_protocol::messages::FetchResponse) =
        log.client.receive(kafka_protocol::messages::ApiKey::Fetch, 12).await;
    assert!(response.responses[0].partitions[0].records.as_ref().is_some_and(|records| records.len() > 61));
}
