//! Transactions through a socket: both generations of the protocol, against one node.

use bytes::Bytes;
use kafka_protocol::{
    error::ResponseError,
    messages::{
        AddOffsetsToTxnRequest, AddPartitionsToTxnRequest, DescribeProducersRequest, DescribeTransactionsRequest,
        EndTxnRequest, FetchRequest, FindCoordinatorRequest, InitProducerIdRequest, ListTransactionsRequest,
        OffsetFetchRequest, ProduceRequest, TransactionalId, TxnOffsetCommitRequest, WriteTxnMarkersRequest,
        add_partitions_to_txn_request::AddPartitionsToTxnTopic,
        describe_producers_request::TopicRequest,
        fetch_response::PartitionData,
        offset_fetch_request::{OffsetFetchRequestGroup, OffsetFetchRequestTopics},
        offset_fetch_response::OffsetFetchResponsePartitions,
        produce_response::PartitionProduceResponse,
        txn_offset_commit_request::{TxnOffsetCommitRequestPartition, TxnOffsetCommitRequestTopic},
        write_txn_markers_request::{WritableTxnMarker, WritableTxnMarkerTopic},
    },
    protocol::StrBytes,
};
use varve_log::format::{BatchBuilder, RecordContent};
use varve_metadata::model::{Offset, ProducerEpoch, ProducerId, Sequence, TopicId};

use super::{
    Limits,
    data_test::{fetch_request, list_offset, produce_request, values},
    testing::{Client, TestNode},
};

const READ_COMMITTED: i8 = 1;
const ID: &str = "orders";

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

fn id() -> TransactionalId {
    TransactionalId(text(ID))
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Identity(i64, i16);

struct World {
    _node: TestNode,
    client: Client,
    topic: TopicId,
}

impl World {
    async fn start() -> World {
        World::configured(&[]).await
    }

    async fn configured(settings: &[&str]) -> World {
        let few = ["transaction.state.log.num.partitions=3", "offsets.topic.num.partitions=3"];
        let settings: Vec<&str> = few.into_iter().chain(settings.iter().copied()).collect();
        let node = TestNode::start_configured(Limits::default(), &settings).await;
        let topic = node.create_topic("t", 2, &[]).await;
        let mut client = node.connect().await;
        for key_type in [0, 1] {
            let keys = vec![text(ID)];
            let request = FindCoordinatorRequest::default().with_key_type(key_type).with_coordinator_keys(keys);
            let found = client.ask(4, &request).await.coordinators.remove(0);
            assert_eq!((found.error_code, found.node_id.0), (0, 1), "{found:?}");
        }
        World { _node: node, client, topic }
    }

    async fn init_with(&mut self, version: i16, expected: Identity) -> Result<Identity, ResponseError> {
        let request = InitProducerIdRequest::default()
            .with_transactional_id(Some(id()))
            .with_transaction_timeout_ms(60_000)
            .with_producer_id(expected.0.into())
            .with_producer_epoch(expected.1);
        loop {
            let response = self.client.ask(version, &request).await;
            match ResponseError::try_from_code(response.error_code) {
                None => return Ok(Identity(response.producer_id.0, response.producer_epoch)),
                Some(ResponseError::CoordinatorLoadInProgress) => tokio::task::yield_now().await,
                Some(error) => return Err(error),
            }
        }
    }

    /// A new producer; waits for the transaction of the one before to be aborted.
    async fn init(&mut self) -> Identity {
        loop {
            match self.init_with(5, Identity(-1, -1)).await {
                Ok(identity) => return identity,
                Err(ResponseError::ConcurrentTransactions) => tokio::task::yield_now().await,
                Err(error) => panic!("{error:?}"),
            }
        }
    }

    async fn add(&mut self, producer: Identity, partition: i32) -> i16 {
        let topic = AddPartitionsToTxnTopic::default().with_name(text("t").into()).with_partitions(vec![partition]);
        let request = AddPartitionsToTxnRequest::default()
            .with_v3_and_below_transactional_id(id())
            .with_v3_and_below_producer_id(producer.0.into())
            .with_v3_and_below_producer_epoch(producer.1)
            .with_v3_and_below_topics(vec![topic]);
        let response = self.client.ask(3, &request).await;
        response.results_by_topic_v3_and_below[0].results_by_partition[0].partition_error_code
    }

    fn batch(producer: Identity, sequence: i32, value: &str) -> Bytes {
        let (id, epoch) = (ProducerId::from_wire(producer.0).unwrap(), ProducerEpoch::from_wire(producer.1).unwrap());
        let builder = BatchBuilder::new(Offset::ZERO).producer(id, epoch, Sequence::from_wire(sequence));
        let mut batch = builder.transactional();
        // As of now, like markers: another time would begin another segment.
        let timestamp = Some(crate::server::wall_clock());
        batch.push(RecordContent { timestamp, key: None, value: Some(value.as_bytes()), headers: &[] });
        batch.build().unwrap().into()
    }

    async fn write(
        &mut self,
        version: i16,
        producer: Identity,
        partition: i32,
        sequence: i32,
        value: &str,
    ) -> PartitionProduceResponse {
        let batch = World::batch(producer, sequence, value);
        let request: ProduceRequest = produce_request(version, ("t", self.topic), partition, -1, batch);
        let request = request.with_transactional_id(Some(id()));
        let mut response = self.client.ask(version, &request).await;
        response.responses.remove(0).partition_responses.remove(0)
    }

    async fn end(&mut self, version: i16, producer: Identity, commit: bool) -> Result<Identity, ResponseError> {
        let request = EndTxnRequest::default()
            .with_transactional_id(id())
            .with_producer_id(producer.0.into())
            .with_producer_epoch(producer.1)
            .with_committed(commit);
        let response = self.client.ask(version, &request).await;
        match ResponseError::try_from_code(response.error_code) {
            None => Ok(Identity(response.producer_id.0, response.producer_epoch)),
            Some(error) => Err(error),
        }
    }

    async fn fetch(&mut self, isolation: i8, partition: i32) -> PartitionData {
        let request: FetchRequest = fetch_request(12, ("t", self.topic), &[(partition, 0)]);
        let mut response = self.client.ask(12, &request.with_isolation_level(isolation)).await;
        response.responses.remove(0).partitions.remove(0)
    }

    /// What a read_committed consumer of partition 0 sees, markers and aborted records left out by hand.
    async fn committed(&mut self, partition: i32) -> Vec<String> {
        let data = self.fetch(READ_COMMITTED, partition).await;
        let mut aborted: Vec<(i64, i64)> =
            data.aborted_transactions.iter().flatten().map(|txn| (txn.producer_id.0, txn.first_offset)).collect();
        let mut seen = Vec::new();
        let mut skipping = std::collections::HashSet::new();
        let mut rest: &[u8] = data.records.as_deref().unwrap_or_default();
        while let Ok((batch, behind)) = varve_log::format::RecordBatchView::parse(rest) {
            rest = behind;
            let header = batch.header();
            let producer = header.producer_id.map_or(-1, ProducerId::to_wire);
            // Each is met once: the marker ends it.
            aborted.retain(|(whose, first)| {
                let is_met = *first <= header.last_offset().to_wire();
                if is_met {
                    skipping.insert(*whose);
                }
                !is_met
            });
            if header.attributes.is_control() {
                skipping.remove(&producer);
            } else if !skipping.contains(&producer) {
                seen.extend(values(batch.as_bytes()).into_iter().map(|(_, value)| value));
            }
        }
        seen
    }

    /// Waits until no transaction holds read_committed up.
    async fn stable(&mut self, partition: i32) {
        loop {
            let data = self.fetch(READ_COMMITTED, partition).await;
            if data.last_stable_offset == data.high_watermark {
                return;
            }
            tokio::task::yield_now().await;
        }
    }

    async fn commit_offset(&mut self, version: i16, producer: Identity, offset: i64) -> i16 {
        let partition = TxnOffsetCommitRequestPartition::default().with_committed_offset(offset);
        let topic = TxnOffsetCommitRequestTopic::default().with_name(text("t").into()).with_partitions(vec![partition]);
        let request = TxnOffsetCommitRequest::default()
            .with_transactional_id(id())
            .with_group_id(text(ID).into())
            .with_producer_id(producer.0.into())
            .with_producer_epoch(producer.1)
            .with_topics(vec![topic]);
        loop {
            let response = self.client.ask(version, &request).await;
            let code = response.topics[0].partitions[0].error_code;
            if code != ResponseError::CoordinatorLoadInProgress.code() {
                return code;
            }
            tokio::task::yield_now().await;
        }
    }

    async fn offset(&mut self, require_stable: bool) -> OffsetFetchResponsePartitions {
        let topic = OffsetFetchRequestTopics::default().with_name(text("t").into()).with_partition_indexes(vec![0]);
        let group = OffsetFetchRequestGroup::default().with_group_id(text(ID).into()).with_topics(Some(vec![topic]));
        let request = OffsetFetchRequest::default().with_groups(vec![group]).with_require_stable(require_stable);
        let mut response = self.client.ask(9, &request).await;
        response.groups.remove(0).topics.remove(0).partitions.remove(0)
    }

    async fn state(&mut self) -> String {
        let request = DescribeTransactionsRequest::default().with_transactional_ids(vec![id()]);
        let response = self.client.ask(0, &request).await;
        response.transaction_states[0].transaction_state.to_string()
    }
}

#[tokio::test]
async fn a_transaction_of_the_first_generation_is_seen_once_it_commits() {
    let mut world = World::start().await;
    let producer = world.init().await;
    assert_eq!(world.add(producer, 0).await, 0);
    assert_eq!(world.write(9, producer, 0, 0, "one").await.error_code, 0);
    assert_eq!(world.committed(0).await, [""; 0]);
    assert_eq!(list_offset(&mut world.client, 7, -1).await.offset, 1);
    assert_eq!(world.state().await, "Ongoing");
    assert_eq!(world.end(4, producer, true).await, Ok(Identity(-1, -1)));
    world.stable(0).await;
    assert_eq!(world.committed(0).await, ["one"]);
    assert_eq!(world.state().await, "CompleteCommit");
}

#[tokio::test]
async fn a_transaction_of_the_second_generation_adds_its_partitions_and_raises_its_epoch() {
    let mut world = World::start().await;
    let mut producer = world.init().await;
    for round in 0..3 {
        let value = format!("{round}");
        for partition in 0..2 {
            assert_eq!(world.write(12, producer, partition, 0, &value).await.error_code, 0);
        }
        let commit = round != 1;
        let next = world.end(5, producer, commit).await.unwrap();
        assert_eq!(next, Identity(producer.0, producer.1 + 1));
        // Whoever did not hear the answer asks again, and hears the same.
        loop {
            match world.end(5, producer, commit).await {
                Err(ResponseError::ConcurrentTransactions) => tokio::task::yield_now().await,
                again => break assert_eq!(again, Ok(next)),
            }
        }
        producer = next;
    }
    for partition in 0..2 {
        world.stable(partition).await;
        assert_eq!(world.committed(partition).await, ["0", "2"]);
        assert_eq!(values_of_data(&world.fetch(0, partition).await), ["0", "1", "2"]);
    }
}

fn values_of_data(data: &PartitionData) -> Vec<String> {
    let mut rest: &[u8] = data.records.as_deref().unwrap();
    let mut seen = Vec::new();
    while let Ok((batch, behind)) = varve_log::format::RecordBatchView::parse(rest) {
        rest = behind;
        if !batch.header().attributes.is_control() {
            seen.extend(values(batch.as_bytes()).into_iter().map(|(_, value)| value));
        }
    }
    seen
}

#[tokio::test]
async fn a_partition_that_was_not_added_takes_no_records() {
    let mut world = World::start().await;
    let producer = world.init().await;
    // By what each version of Produce knows of it.
    for (version, expected) in [
        (9, ResponseError::InvalidTxnState),
        (10, ResponseError::InvalidTxnState),
        (11, ResponseError::TransactionAbortable),
    ] {
        let refused = world.write(version, producer, 0, 0, "x").await;
        assert_eq!(refused.error_code, expected.code(), "version {version}");
    }
    let unknown = Identity(producer.0 + 7, 0);
    let refused = world.write(12, unknown, 0, 0, "x").await;
    assert_eq!(refused.error_code, ResponseError::InvalidProducerIdMapping.code());
    assert_eq!(world.fetch(0, 0).await.high_watermark, 0);
}

#[tokio::test]
async fn without_verification_old_producers_are_believed() {
    let mut world = World::configured(&["transaction.partition.verification.enable=false"]).await;
    let producer = world.init().await;
    assert_eq!(world.write(9, producer, 0, 0, "x").await.error_code, 0);
}

#[tokio::test]
async fn a_new_producer_fences_the_old_one_and_aborts_what_it_left() {
    let mut world = World::start().await;
    let old = world.init().await;
    assert_eq!(world.write(12, old, 0, 0, "old").await.error_code, 0);
    let new = world.init().await;
    assert!(new.0 == old.0 && new.1 > old.1);
    let late = world.write(12, old, 0, 1, "late").await;
    assert_eq!(late.error_code, ResponseError::InvalidProducerEpoch.code());
    assert_eq!(world.end(5, old, true).await, Err(ResponseError::ProducerFenced));
    assert_eq!(world.end(1, old, true).await, Err(ResponseError::InvalidProducerEpoch), "older clients");
    world.stable(0).await;
    assert_eq!(world.write(12, new, 0, 0, "new").await.error_code, 0);
    world.end(5, new, true).await.unwrap();
    world.stable(0).await;
    assert_eq!(world.committed(0).await, ["new"]);
}

#[tokio::test]
async fn offsets_count_once_the_transaction_commits_and_never_if_it_aborts() {
    let mut world = World::start().await;
    let mut producer = world.init().await;
    for (commit, expected) in [(true, 5), (false, 5), (true, 15)] {
        let offset = if commit { expected } else { 99 };
        assert_eq!(world.commit_offset(5, producer, offset).await, 0);
        let before = world.offset(false).await;
        assert!(before.error_code == 0 && before.committed_offset != offset);
        assert_eq!(world.offset(true).await.error_code, ResponseError::UnstableOffsetCommit.code());
        producer = world.end(5, producer, commit).await.unwrap();
        let after = loop {
            let found = world.offset(true).await;
            if found.error_code == 0 {
                break found;
            }
            tokio::task::yield_now().await;
        };
        assert_eq!(after.committed_offset, expected);
    }
}

#[tokio::test]
async fn offsets_of_the_first_generation_need_their_group_added() {
    let mut world = World::start().await;
    let producer = world.init().await;
    assert_eq!(world.commit_offset(3, producer, 5).await, ResponseError::InvalidTxnState.code());
    assert_eq!(world.commit_offset(4, producer, 5).await, ResponseError::TransactionAbortable.code());
    let add = AddOffsetsToTxnRequest::default()
        .with_transactional_id(id())
        .with_producer_id(producer.0.into())
        .with_producer_epoch(producer.1)
        .with_group_id(text(ID).into());
    assert_eq!(world.client.ask(3, &add).await.error_code, 0);
    assert_eq!(world.commit_offset(3, producer, 5).await, 0);
    world.end(3, producer, true).await.unwrap();
    while world.offset(true).await.committed_offset != 5 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn transactional_records_need_a_transactional_id() {
    let mut world = World::start().await;
    let producer = world.init().await;
    let batch = World::batch(producer, 0, "x");
    let request = produce_request(9, ("t", world.topic), 0, -1, batch);
    let response = world.client.ask(9, &request).await;
    let code = response.responses[0].partition_responses[0].error_code;
    assert_eq!(code, ResponseError::TransactionalIdAuthorizationFailed.code());
}

#[tokio::test]
async fn an_administrator_sees_and_ends_a_transaction_that_hangs() {
    let mut world = World::configured(&["transaction.partition.verification.enable=false"]).await;
    let producer = world.init().await;
    // The coordinator does not know of it.
    assert_eq!(world.write(9, producer, 1, 0, "hangs").await.error_code, 0);
    let topic = TopicRequest::default().with_name(text("t").into()).with_partition_indexes(vec![1, 9]);
    let request = DescribeProducersRequest::default().with_topics(vec![topic]);
    let response = world.client.ask(0, &request).await;
    let [found, missing] = response.topics[0].partitions.as_slice() else { panic!("{response:?}") };
    assert_eq!(missing.error_code, ResponseError::UnknownTopicOrPartition.code());
    let open = &found.active_producers[0];
    assert_eq!((open.producer_id.0, open.current_txn_start_offset, open.coordinator_epoch), (producer.0, 0, -1));
    let topic = WritableTxnMarkerTopic::default().with_name(text("t").into()).with_partition_indexes(vec![1, 9]);
    let marker = WritableTxnMarker::default()
        .with_producer_id(producer.0.into())
        .with_producer_epoch(producer.1)
        .with_topics(vec![topic]);
    let request = WriteTxnMarkersRequest::default().with_markers(vec![marker]);
    let response = world.client.ask(1, &request).await;
    let codes: Vec<i16> =
        response.markers[0].topics[0].partitions.iter().map(|partition| partition.error_code).collect();
    assert_eq!(codes, [0, ResponseError::UnknownTopicOrPartition.code()]);
    world.stable(1).await;
    assert_eq!(world.committed(1).await, [""; 0]);
}

#[tokio::test]
async fn transactions_are_listed_and_described() {
    let mut world = World::start().await;
    let producer = world.init().await;
    world.write(12, producer, 1, 0, "x").await;
    let request = ListTransactionsRequest::default()
        .with_state_filters(vec![text("Ongoing"), text("Nonsense")])
        .with_transactional_id_pattern(Some(text("ord.*")));
    let listed = world.client.ask(2, &request).await;
    assert_eq!((listed.error_code, listed.unknown_state_filters.len()), (0, 1));
    assert_eq!(listed.transaction_states[0].producer_id.0, producer.0);
    let bad = ListTransactionsRequest::default().with_transactional_id_pattern(Some(text("(")));
    assert_eq!(world.client.ask(2, &bad).await.error_code, ResponseError::InvalidRegularExpression.code());
    let request = DescribeTransactionsRequest::default().with_transactional_ids(vec![
        id(),
        TransactionalId(text("nobody")),
        TransactionalId(text("")),
    ]);
    let described = world.client.ask(0, &request).await.transaction_states;
    assert_eq!(described[0].topics[0].partitions, [1]);
    assert_eq!((described[0].producer_epoch, described[0].transaction_timeout_ms), (producer.1, 60_000));
    let codes = [described[1].error_code, described[2].error_code];
    assert_eq!(codes, [ResponseError::TransactionalIdNotFound.code(), ResponseError::InvalidRequest.code()]);
}

#[tokio::test]
async fn a_transaction_that_takes_too_long_is_aborted() {
    let settings = ["transaction.abort.timed.out.transaction.cleanup.interval.ms=10"];
    let mut world = World::configured(&settings).await;
    let request = InitProducerIdRequest::default()
        .with_transactional_id(Some(id()))
        .with_transaction_timeout_ms(1)
        .with_producer_id((-1).into())
        .with_producer_epoch(-1);
    let producer = loop {
        let response = world.client.ask(5, &request).await;
        if response.error_code == 0 {
            break Identity(response.producer_id.0, response.producer_epoch);
        }
        tokio::task::yield_now().await;
    };
    assert_eq!(world.write(12, producer, 0, 0, "slow").await.error_code, 0);
    world.stable(0).await;
    assert_eq!(world.committed(0).await, [""; 0]);
    assert_eq!(world.end(5, producer, true).await, Err(ResponseError::InvalidTxnState), "it was aborted");
}
