//! Produce, Fetch and the questions about offsets, through real sockets, in every version.

use std::time::{Duration, Instant};

use bytes::Bytes;
use kafka_protocol::{
    error::ResponseError,
    messages::{
        FetchRequest, FetchResponse, ListOffsetsRequest, OffsetForLeaderEpochRequest, ProduceRequest,
        fetch_request::{FetchPartition, FetchTopic},
        fetch_response::PartitionData,
        list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic},
        list_offsets_response::ListOffsetsPartitionResponse,
        offset_for_leader_epoch_request::{OffsetForLeaderPartition, OffsetForLeaderTopic},
        produce_request::{PartitionProduceData, TopicProduceData},
        produce_response::PartitionProduceResponse,
    },
    protocol::StrBytes,
};
use varve_log::format::{BatchBuilder, RecordBatchView, RecordContent};
use varve_metadata::{
    config::Codec,
    model::{Offset, ProducerEpoch, ProducerId, Sequence, Timestamp, TopicId},
};

use super::testing::{Client, TestNode};

fn batch_of(values: &[&str]) -> BatchBuilder {
    let mut batch = BatchBuilder::new(Offset::ZERO);
    for (value, time) in values.iter().zip(1_700_000_000_000..) {
        batch.push(RecordContent {
            timestamp: Timestamp::from_wire(time),
            key: Some(b"k"),
            value: Some(value.as_bytes()),
            headers: &[],
        });
    }
    batch
}

pub(super) fn records(values: &[&str]) -> Bytes {
    batch_of(values).build().unwrap().into()
}

pub(super) fn produce_request(
    version: i16,
    topic: (&str, TopicId),
    partition: i32,
    acks: i16,
    records: Bytes,
) -> ProduceRequest {
    let data = PartitionProduceData::default().with_index(partition).with_records(Some(records));
    let data = TopicProduceData::default().with_partition_data(vec![data]);
    let data = if version >= 13 {
        data.with_topic_id(topic.1.to_wire())
    } else {
        data.with_name(StrBytes::from_string(topic.0.to_owned()).into())
    };
    ProduceRequest::default().with_acks(acks).with_timeout_ms(5000).with_topic_data(vec![data])
}

pub(super) async fn produce(
    client: &mut Client,
    version: i16,
    topic: (&str, TopicId),
    partition: i32,
    records: Bytes,
) -> PartitionProduceResponse {
    let request = produce_request(version, topic, partition, -1, records);
    let mut response = client.ask(version, &request).await;
    response.responses.remove(0).partition_responses.remove(0)
}

/// What to fetch: partitions of one topic, each with its offset.
pub(super) fn fetch_request(version: i16, topic: (&str, TopicId), partitions: &[(i32, i64)]) -> FetchRequest {
    let partitions = partitions.iter().map(|&(partition, offset)| {
        FetchPartition::default()
            .with_partition(partition)
            .with_fetch_offset(offset)
            .with_current_leader_epoch(-1)
            .with_last_fetched_epoch(-1)
            .with_log_start_offset(-1)
            .with_partition_max_bytes(1 << 20)
    });
    let wanted = FetchTopic::default().with_partitions(partitions.collect());
    let wanted = if version >= 13 {
        wanted.with_topic_id(topic.1.to_wire())
    } else {
        wanted.with_topic(StrBytes::from_string(topic.0.to_owned()).into())
    };
    FetchRequest::default()
        .with_replica_id((-1).into())
        .with_max_wait_ms(0)
        .with_min_bytes(1)
        .with_max_bytes(50 << 20)
        .with_session_epoch(-1)
        .with_topics(vec![wanted])
}

/// What a fetch of one partition was answered.
pub(super) fn only(response: &FetchResponse) -> &PartitionData {
    let [topic] = response.responses.as_slice() else { panic!("{response:?}") };
    let [partition] = topic.partitions.as_slice() else { panic!("{topic:?}") };
    partition
}

/// What ListOffsets says about partition 0 of topic `t`.
pub(super) async fn list_offset(client: &mut Client, version: i16, timestamp: i64) -> ListOffsetsPartitionResponse {
    let asked = ListOffsetsPartition::default().with_current_leader_epoch(-1).with_timestamp(timestamp);
    let name = StrBytes::from_static_str("t").into();
    let asked = ListOffsetsTopic::default().with_name(name).with_partitions(vec![asked]);
    let request = ListOffsetsRequest::default().with_replica_id((-1).into()).with_topics(vec![asked]);
    let mut response = client.ask_as(version, version.min(10), &request).await;
    response.topics.remove(0).partitions.remove(0)
}

/// The values of all records in fetched batches, with their offsets.
pub(super) fn values(records: &[u8]) -> Vec<(u64, String)> {
    let mut rest = records;
    let mut values = Vec::new();
    while !rest.is_empty() {
        let (batch, behind) = RecordBatchView::parse(rest).unwrap();
        let base = batch.header().base_offset.get();
        for record in varve_log::format::records(batch.payload(), batch.header().record_count) {
            let record = record.unwrap();
            let value = String::from_utf8(record.value.unwrap().to_vec()).unwrap();
            values.push((base + record.offset_delta as u64, value));
        }
        rest = behind;
    }
    values
}

#[tokio::test]
async fn what_was_produced_in_any_version_is_fetched_in_any_version() {
    let node = TestNode::start().await;
    let topic = ("t", node.create_topic("t", 1, &[]).await);
    let mut client = node.connect().await;
    for (version, offset) in (3..=13).zip(0..) {
        let answer = produce(&mut client, version, topic, 0, records(&[&format!("v{version}")])).await;
        assert_eq!((answer.error_code, answer.base_offset), (0, offset), "version {version}");
        assert_eq!(answer.log_append_time_ms, -1);
        assert_eq!(answer.log_start_offset, if version >= 5 { 0 } else { -1 });
    }
    for version in 4..=18 {
        let response = client.ask(version, &fetch_request(version, topic, &[(0, 2)])).await;
        let partition = only(&response);
        assert_eq!((partition.error_code, partition.high_watermark, partition.last_stable_offset), (0, 11, 11));
        let found = values(partition.records.as_ref().unwrap());
        let expected: Vec<_> = (5..=13).map(|made| (made - 3, format!("v{made}"))).collect();
        assert_eq!(found, expected, "version {version}");
    }
}

#[tokio::test]
async fn large_records_leave_by_sendfile_and_arrive_whole() {
    let node = TestNode::start().await;
    let topic = ("t", node.create_topic("t", 2, &[]).await);
    let mut client = node.connect().await;
    let large = "x".repeat(900_000);
    for partition in [0, 1, 0, 1] {
        produce(&mut client, 9, topic, partition, records(&[&large])).await;
    }
    let response = client.ask(12, &fetch_request(12, topic, &[(0, 0), (1, 1)])).await;
    let [first, second] = response.responses[0].partitions.as_slice() else { panic!() };
    assert_eq!(values(first.records.as_ref().unwrap()), [(0, large.clone())], "one fits partition_max_bytes");
    assert_eq!(values(second.records.as_ref().unwrap()), [(1, large)]);
}

#[tokio::test]
async fn a_batch_larger_than_any_limit_is_fetched_alone() {
    let node = TestNode::start().await;
    let topic = ("t", node.create_topic("t", 2, &[]).await);
    let mut client = node.connect().await;
    for partition in [0, 1] {
        produce(&mut client, 9, topic, partition, records(&[&"y".repeat(5000)])).await;
    }
    let response = client.ask(12, &fetch_request(12, topic, &[(0, 0), (1, 0)]).with_max_bytes(100)).await;
    let lengths: Vec<_> =
        response.responses[0].partitions.iter().map(|partition| partition.records.as_ref().unwrap().len()).collect();
    assert!(lengths[0] > 5000 && lengths[1] == 0, "{lengths:?}");
}

#[tokio::test]
async fn acks_0_is_not_answered_and_a_failure_closes_the_connection() {
    let node = TestNode::start().await;
    let topic = ("t", node.create_topic("t", 1, &[]).await);
    let mut client = node.connect().await;
    client.send(9, &produce_request(9, topic, 0, 0, records(&["a"]))).await;
    let response = client.ask(12, &fetch_request(12, topic, &[(0, 0)]).with_max_wait_ms(5000)).await;
    assert_eq!(values(only(&response).records.as_ref().unwrap()), [(0, "a".to_owned())]);
    client.send(9, &produce_request(9, topic, 7, 0, records(&["a"]))).await;
    assert_eq!(client.receive_raw().await, None);
}

#[tokio::test]
async fn batches_that_kafka_refuses_are_refused_with_its_codes() {
    let node = TestNode::start().await;
    let topic = ("t", node.create_topic("t", 1, &[("max.message.bytes", "2000")]).await);
    let compacted = ("c", node.create_topic("c", 1, &[("cleanup.policy", "compact")]).await);
    let internal = ("__consumer_offsets", node.create_topic("__consumer_offsets", 1, &[]).await);
    let missing = ("missing", TopicId::random());
    let mut client = node.connect().await;
    let good = records(&["a"]);
    let two = Bytes::from([good.as_ref(), good.as_ref()].concat());
    let changed = |at: usize, to: u8| {
        let mut bytes = good.to_vec();
        bytes[at] = to;
        Bytes::from(bytes)
    };
    let zstd = batch_of(&["a"]).compression(Codec::Zstd, None).build().unwrap();
    let mut keyless = BatchBuilder::new(Offset::ZERO);
    keyless.push(RecordContent { timestamp: Timestamp::from_wire(1), key: None, value: None, headers: &[] });
    let cases = [
        (9, topic, 0, two, ResponseError::InvalidRecord),
        (9, topic, 0, Bytes::new(), ResponseError::InvalidRecord),
        (9, topic, 0, changed(16, 1), ResponseError::InvalidRecord),
        (9, topic, 0, changed(16, 9), ResponseError::CorruptMessage),
        (9, topic, 0, changed(good.len() - 1, 0xff), ResponseError::CorruptMessage),
        (9, topic, 0, records(&[&"z".repeat(3000)]), ResponseError::MessageTooLarge),
        (6, topic, 0, zstd.into(), ResponseError::UnsupportedCompressionType),
        (
            9,
            topic,
            0,
            batch_of(&["a"]).transactional().build().unwrap().into(),
            ResponseError::TransactionalIdAuthorizationFailed,
        ),
        (9, compacted, 0, keyless.build().unwrap().into(), ResponseError::InvalidRecord),
        (9, internal, 0, good.clone(), ResponseError::InvalidTopicException),
        (9, topic, 5, good.clone(), ResponseError::UnknownTopicOrPartition),
        (9, missing, 0, good.clone(), ResponseError::UnknownTopicOrPartition),
        (13, missing, 0, good.clone(), ResponseError::UnknownTopicId),
    ];
    for (case, (version, topic, partition, records, expected)) in cases.into_iter().enumerate() {
        let answer = produce(&mut client, version, topic, partition, records).await;
        assert_eq!(answer.error_code, expected.code(), "case {case}: {answer:?}");
        assert_eq!(answer.base_offset, -1);
    }
    let answer = client.ask(9, &produce_request(9, topic, 0, 2, good)).await;
    assert_eq!(answer.responses[0].partition_responses[0].error_code, ResponseError::InvalidRequiredAcks.code());
}

#[tokio::test]
async fn a_refused_record_is_named_with_its_place_and_reason() {
    let node = TestNode::start().await;
    let topic = ("c", node.create_topic("c", 1, &[("cleanup.policy", "compact")]).await);
    let mut batch = batch_of(&["a"]);
    batch.push(RecordContent { timestamp: Timestamp::from_wire(1), key: None, value: None, headers: &[] });
    let mut client = node.connect().await;
    let answer = produce(&mut client, 9, topic, 0, batch.build().unwrap().into()).await;
    assert_eq!(answer.error_code, ResponseError::InvalidRecord.code());
    let [refused] = answer.record_errors.as_slice() else { panic!("{answer:?}") };
    assert_eq!(refused.batch_index, 1);
    assert!(refused.batch_index_error_message.as_deref().unwrap().contains("without key"));
    assert!(answer.error_message.unwrap().contains("1 record errors in total"));
}

#[tokio::test]
async fn a_repeated_batch_is_answered_with_its_first_offset_and_written_once() {
    let node = TestNode::start().await;
    let topic = ("t", node.create_topic("t", 1, &[]).await);
    let mut client = node.connect().await;
    let sequenced = |sequence| -> Bytes {
        let id = ProducerId::from_wire(77).unwrap();
        let batch = batch_of(&["a", "b"]).producer(id, ProducerEpoch(0), Sequence::from_wire(sequence));
        batch.build().unwrap().into()
    };
    for (sequence, error, offset) in [(0, 0, 0), (2, 0, 2), (0, 0, 0), (2, 0, 2), (9, 45, -1), (4, 0, 4)] {
        let answer = produce(&mut client, 9, topic, 0, sequenced(sequence)).await;
        assert_eq!((answer.error_code, answer.base_offset), (error, offset), "sequence {sequence}");
    }
}

#[tokio::test]
async fn log_append_time_is_told_and_stamped() {
    let node = TestNode::start().await;
    let topic = ("t", node.create_topic("t", 1, &[("message.timestamp.type", "LogAppendTime")]).await);
    let mut client = node.connect().await;
    let answer = produce(&mut client, 9, topic, 0, records(&["a"])).await;
    assert!(answer.log_append_time_ms > 1_700_000_000_000);
    let response = client.ask(12, &fetch_request(12, topic, &[(0, 0)])).await;
    let (batch, _) = RecordBatchView::parse(only(&response).records.as_ref().unwrap()).unwrap();
    assert_eq!(batch.header().max_timestamp_ms, answer.log_append_time_ms);
}

#[tokio::test]
async fn a_long_poll_ends_with_the_first_record_or_when_time_is_up() {
    let node = TestNode::start().await;
    let topic = ("t", node.create_topic("t", 2, &[]).await);
    let (mut reader, mut writer) = (node.connect().await, node.connect().await);
    let waiting = fetch_request(12, topic, &[(0, 0), (1, 0)]).with_max_wait_ms(30_000);
    let started = Instant::now();
    let (response, _) = tokio::join!(reader.ask(12, &waiting), produce(&mut writer, 9, topic, 1, records(&["a"])));
    assert!(started.elapsed() < Duration::from_secs(20));
    assert_eq!(response.responses[0].partitions[1].records.as_ref().map(|records| values(records).len()), Some(1));
    let response = reader.ask(12, &fetch_request(12, topic, &[(0, 0)]).with_max_wait_ms(50)).await;
    assert_eq!(only(&response).records.as_deref(), Some(b"".as_slice()));
    assert!(started.elapsed() >= Duration::from_millis(50));
}

#[tokio::test]
async fn a_long_poll_waits_for_as_many_bytes_as_it_wants() {
    let node = TestNode::start().await;
    let topic = ("t", node.create_topic("t", 1, &[]).await);
    let (mut reader, mut writer) = (node.connect().await, node.connect().await);
    let waiting = fetch_request(12, topic, &[(0, 0)]).with_max_wait_ms(30_000).with_min_bytes(300);
    let (response, _) = tokio::join!(reader.ask(12, &waiting), async {
        for value in ["a", "b", "c", "d", "e", "f"] {
            produce(&mut writer, 9, topic, 0, records(&[value])).await;
        }
    });
    assert!(only(&response).records.as_ref().unwrap().len() >= 300);
}

#[tokio::test]
async fn a_session_answers_what_changed_and_nothing_else() {
    let node = TestNode::start().await;
    let topic = ("t", node.create_topic("t", 3, &[]).await);
    let mut client = node.connect().await;
    for version in [7, 12, 13, 18] {
        let begin = fetch_request(version, topic, &[(0, 0), (1, 0), (2, 0)]).with_session_epoch(0);
        let first = client.ask(version, &begin.with_min_bytes(0)).await;
        assert_eq!((first.error_code, first.responses[0].partitions.len()), (0, 3));
        assert_ne!(first.session_id, 0);
        let next = |epoch| {
            let request = fetch_request(version, topic, &[]).with_session_id(first.session_id);
            request.with_session_epoch(epoch).with_topics(Vec::new())
        };
        // Partitions that hold records come again, as this reader does not move on; the empty one does not.
        let before = client.ask(version, &next(1)).await;
        produce(&mut client, 9, topic, 2, records(&["x"])).await;
        let after = client.ask(version, &next(2)).await;
        let told = |response: &FetchResponse| -> Vec<i32> {
            response
                .responses
                .iter()
                .flat_map(|topic| &topic.partitions)
                .map(|partition| partition.partition_index)
                .collect()
        };
        assert!(!told(&before).contains(&0) && !told(&before).contains(&1), "version {version}");
        assert_eq!(told(&after), [2], "version {version}");
        let wrong = client.ask(version, &next(9)).await;
        assert_eq!(wrong.error_code, ResponseError::InvalidFetchSessionEpoch.code());
    }
}

#[tokio::test]
async fn offsets_and_epochs_that_do_not_fit_are_refused() {
    let node = TestNode::start().await;
    let topic = ("t", node.create_topic("t", 1, &[]).await);
    let mut client = node.connect().await;
    produce(&mut client, 9, topic, 0, records(&["a"])).await;
    let answer = client.ask(12, &fetch_request(12, topic, &[(0, 2)])).await;
    assert_eq!(only(&answer).error_code, ResponseError::OffsetOutOfRange.code());
    let answer = client.ask(12, &fetch_request(12, topic, &[(0, -1)])).await;
    assert_eq!(only(&answer).error_code, ResponseError::OffsetOutOfRange.code());
    let mut newer = fetch_request(12, topic, &[(0, 0)]);
    newer.topics[0].partitions[0].current_leader_epoch = 99;
    let answer = client.ask(12, &newer).await;
    assert_eq!(only(&answer).error_code, ResponseError::UnknownLeaderEpoch.code());
    let answer = client.ask(13, &fetch_request(13, ("x", TopicId::random()), &[(0, 0)])).await;
    assert_eq!(only(&answer).error_code, ResponseError::UnknownTopicId.code());
}

#[tokio::test]
async fn offsets_are_listed_by_place_and_by_time() {
    let node = TestNode::start().await;
    let topic = ("t", node.create_topic("t", 1, &[]).await);
    let mut client = node.connect().await;
    produce(&mut client, 9, topic, 0, records(&["a", "b", "c"])).await;
    let start = 1_700_000_000_000;
    let cases = [
        (-1, 1, Some((-1, 3))),
        (-2, 1, Some((-1, 0))),
        (-3, 7, Some((start + 2, 2))),
        (-4, 8, Some((-1, 0))),
        (-5, 9, Some((-1, -1))),
        (-6, 11, Some((-1, -1))),
        (start + 1, 1, Some((start + 1, 1))),
        (start + 9, 1, Some((-1, -1))),
        (-9, 1, None),
    ];
    for version in 1..=11 {
        for (timestamp, since, expected) in cases {
            let answer = list_offset(&mut client, version, timestamp).await;
            match expected.filter(|_| version >= since) {
                Some(found) => assert_eq!((answer.timestamp, answer.offset), found, "{timestamp} in {version}"),
                None => assert_eq!(answer.error_code, ResponseError::UnsupportedVersion.code()),
            }
        }
    }
}

#[tokio::test]
async fn an_epochs_end_is_told() {
    let node = TestNode::start().await;
    let topic = ("t", node.create_topic("t", 1, &[]).await);
    let mut client = node.connect().await;
    produce(&mut client, 9, topic, 0, records(&["a"])).await;
    let epoch = node.broker.partitions.find("t", Default::default()).unwrap().leader_epoch().to_wire();
    for version in 2..=4 {
        let asked = OffsetForLeaderPartition::default().with_current_leader_epoch(-1).with_leader_epoch(epoch);
        let name = StrBytes::from_static_str("t").into();
        let asked = OffsetForLeaderTopic::default().with_topic(name).with_partitions(vec![asked]);
        let request = OffsetForLeaderEpochRequest::default().with_topics(vec![asked]);
        let request = if version >= 3 { request.with_replica_id((-1).into()) } else { request };
        let response = client.ask(version, &request).await;
        let answer = &response.topics[0].partitions[0];
        assert_eq!((answer.error_code, answer.leader_epoch, answer.end_offset), (0, epoch, 1));
    }
}

#[tokio::test]
async fn a_fetch_of_a_topic_that_is_being_deleted_costs_no_other_topic_its_directory() {
    let node = TestNode::start().await;
    let topic = ("t", node.create_topic("t", 1, &[]).await);
    let mut client = node.connect().await;
    produce(&mut client, 9, topic, 0, records(&["a"])).await;
    let partition = node.broker.partitions.find("t", Default::default()).unwrap();
    partition.log().roll().unwrap();
    std::fs::rename(partition.log().dir(), partition.log().dir().with_extension("0-delete")).unwrap();
    let response = client.ask(12, &fetch_request(12, topic, &[(0, 0)])).await;
    assert_eq!(only(&response).error_code, ResponseError::NotLeaderOrFollower.code());
    assert!(!partition.log_dir().is_failed());
}

#[tokio::test]
async fn without_an_archive_the_log_starts_where_the_disk_does() {
    let node = TestNode::start().await;
    let topic = ("t", node.create_topic("t", 1, &[]).await);
    let mut client = node.connect().await;
    produce(&mut client, 9, topic, 0, records(&["a"])).await;
    produce(&mut client, 9, topic, 0, records(&["b"])).await;
    let partition = node.broker.partitions.find("t", Default::default()).unwrap();
    // As after a crash between retention and the checkpoint of the log start.
    partition.log().roll().unwrap();
    let _kept = partition.log().delete_local_below(Offset::new(2).unwrap()).unwrap();
    assert_eq!(partition.log().start().0, Offset::ZERO);
    let earliest = list_offset(&mut client, 9, -2).await.offset;
    let response = client.ask(12, &fetch_request(12, topic, &[(0, earliest)])).await;
    assert_eq!((earliest, only(&response).error_code, only(&response).log_start_offset), (2, 0, 2));
}
