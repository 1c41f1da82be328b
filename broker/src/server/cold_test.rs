//! Fetch and ListOffsets where the local log has ended and the archive begins.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures::{FutureExt, future::BoxFuture};
use kafka_protocol::{
    error::ResponseError,
    messages::{
        ListOffsetsRequest,
        list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic},
    },
    protocol::StrBytes,
};
use tokio::sync::Semaphore;
use varve_log::local::OffsetAndTimestamp;
use varve_metadata::model::{LeaderEpoch, Offset, PartitionIndex, Timestamp, TopicId};

use super::{
    data_test::{fetch_request, list_offset, produce, records, values},
    testing::{Client, TestNode},
};
use crate::partition::{RemoteBatches, RemoteError, RemoteReader};

/// An archive that holds one run of batches, and answers when it is let.
#[derive(Debug)]
struct Archive {
    batches: Bytes,
    end: Offset,
    gate: Arc<Semaphore>,
    finished: Arc<AtomicUsize>,
    fails: bool,
}

impl RemoteReader for Archive {
    fn bounds(&self) -> Option<(Offset, Offset)> {
        Some((Offset::ZERO, self.end))
    }

    fn log_start(&self) -> Offset {
        Offset::ZERO
    }

    fn clean_until(&self) -> Offset {
        Offset::ZERO
    }

    fn size(&self) -> u64 {
        self.batches.len() as u64
    }

    fn read(
        &self,
        _from: Offset,
        _bound: Offset,
        _max_bytes: u32,
    ) -> BoxFuture<'static, Result<RemoteBatches, RemoteError>> {
        let (batches, end, fails) = (self.batches.clone(), self.end, self.fails);
        let (gate, finished) = (self.gate.clone(), self.finished.clone());
        async move {
            gate.acquire().await.unwrap().forget();
            finished.fetch_add(1, Ordering::SeqCst);
            if fails {
                return Err(RemoteError::Unavailable("down".into()));
            }
            Ok(RemoteBatches { pieces: vec![batches], end, aborted: Vec::new() })
        }
        .boxed()
    }

    fn offset_for_timestamp(
        &self,
        target: Timestamp,
        from: Offset,
    ) -> BoxFuture<'static, Result<Option<OffsetAndTimestamp>, RemoteError>> {
        async move { Ok(Some(OffsetAndTimestamp { offset: from, timestamp: target, leader_epoch: None })) }.boxed()
    }

    fn max_timestamp_offset(&self, _: Offset) -> BoxFuture<'static, Result<Option<OffsetAndTimestamp>, RemoteError>> {
        async { Ok(None) }.boxed()
    }

    fn end_of_epoch(&self, _epoch: LeaderEpoch) -> Option<(LeaderEpoch, Offset)> {
        None
    }

    fn epochs(&self) -> Vec<(LeaderEpoch, Offset)> {
        Vec::new()
    }

    fn epoch_at(&self, _offset: Offset) -> Option<LeaderEpoch> {
        Some(LeaderEpoch(0))
    }
}

struct Cold {
    node: TestNode,
    client: Client,
    topic: TopicId,
    gate: Arc<Semaphore>,
    finished: Arc<AtomicUsize>,
}

/// A node whose topic `t` has that many partitions with one record in the archive and one, at offset 1, on the disk.
async fn cold(partitions: u32, fails: bool) -> Cold {
    let node = TestNode::start().await;
    let topic = node.create_topic("t", partitions, &[]).await;
    let mut client = node.connect().await;
    let (gate, finished) = (Arc::new(Semaphore::new(0)), Arc::new(AtomicUsize::new(0)));
    for index in 0..partitions {
        produce(&mut client, 9, ("t", topic), index as i32, records(&["cold"])).await;
        let partition = node.broker.partitions.find("t", PartitionIndex(index)).unwrap();
        let end = Offset::new(1).unwrap();
        let slice = partition.log().read(Offset::ZERO, end, 1 << 20, true).unwrap();
        let batches = Bytes::from(slice.read().unwrap());
        partition.log().roll().unwrap();
        partition.log().delete_local_below(end).unwrap().purge().unwrap();
        let (gate, finished) = (gate.clone(), finished.clone());
        partition.set_remote(Arc::new(Archive { batches, end, gate, finished, fails }));
        produce(&mut client, 9, ("t", topic), index as i32, records(&["hot"])).await;
    }
    Cold { node, client, topic, gate, finished }
}

#[tokio::test]
async fn cold_partitions_of_one_fetch_progress_together() {
    let mut cold = cold(8, false).await;
    cold.gate.add_permits(8);
    let wanted: Vec<_> = (0..8).map(|index| (index, 0)).collect();
    let request = fetch_request(12, ("t", cold.topic), &wanted).with_max_wait_ms(10_000);
    let response = cold.client.ask(12, &request).await;
    for partition in &response.responses[0].partitions {
        assert_eq!(values(partition.records.as_ref().unwrap()), [(0, "cold".to_owned())]);
        assert_eq!((partition.log_start_offset, partition.high_watermark), (0, 2));
    }
}

#[tokio::test]
async fn a_slow_archive_costs_the_fetch_its_wait_and_no_work_is_lost() {
    let mut cold = cold(1, false).await;
    let started = Instant::now();
    let request = fetch_request(12, ("t", cold.topic), &[(0, 0)]).with_max_wait_ms(60);
    let response = cold.client.ask(12, &request).await;
    let partition = &response.responses[0].partitions[0];
    assert_eq!((partition.error_code, partition.records.as_deref()), (0, Some(b"".as_slice())));
    assert!(started.elapsed() >= Duration::from_millis(60));
    // The read that nobody waits for any more comes to its end.
    cold.gate.add_permits(1);
    while cold.finished.load(Ordering::SeqCst) == 0 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn an_archive_that_is_down_is_told_as_a_passing_error() {
    let mut cold = cold(1, true).await;
    cold.gate.add_permits(1);
    let response = cold.client.ask(12, &fetch_request(12, ("t", cold.topic), &[(0, 0)]).with_max_wait_ms(9000)).await;
    assert_eq!(response.responses[0].partitions[0].error_code, ResponseError::KafkaStorageError.code());
}

#[tokio::test]
async fn offsets_are_found_across_both_tiers() {
    let mut cold = cold(1, false).await;
    let mut listed = async |timestamp| list_offset(&mut cold.client, 11, timestamp).await.offset;
    assert_eq!(listed(-2).await, 0);
    assert_eq!(listed(-4).await, 1, "first on the disk");
    assert_eq!(listed(-5).await, 0, "last in the archive");
    assert_eq!(listed(-6).await, 1, "first that is not in the archive");
    assert_eq!(listed(5).await, 0);
    assert_eq!(listed(-1).await, 2);
}

/// An archive with a bug, whose manifest says where the log starts.
#[derive(Debug)]
struct Broken(Offset);

impl RemoteReader for Broken {
    fn bounds(&self) -> Option<(Offset, Offset)> {
        panic!("a bug in the archive")
    }

    fn log_start(&self) -> Offset {
        self.0
    }

    fn clean_until(&self) -> Offset {
        Offset::ZERO
    }

    fn size(&self) -> u64 {
        0
    }

    fn read(&self, _: Offset, _: Offset, _: u32) -> BoxFuture<'static, Result<RemoteBatches, RemoteError>> {
        async { panic!("a bug in the archive") }.boxed()
    }

    fn offset_for_timestamp(
        &self,
        _: Timestamp,
        _: Offset,
    ) -> BoxFuture<'static, Result<Option<OffsetAndTimestamp>, RemoteError>> {
        async { Ok(None) }.boxed()
    }

    fn max_timestamp_offset(&self, _: Offset) -> BoxFuture<'static, Result<Option<OffsetAndTimestamp>, RemoteError>> {
        async { Ok(None) }.boxed()
    }

    fn end_of_epoch(&self, _: LeaderEpoch) -> Option<(LeaderEpoch, Offset)> {
        None
    }

    fn epochs(&self) -> Vec<(LeaderEpoch, Offset)> {
        Vec::new()
    }

    fn epoch_at(&self, _: Offset) -> Option<LeaderEpoch> {
        None
    }
}

#[tokio::test]
async fn a_panic_costs_its_connection_and_a_read_that_panics_only_its_answer() {
    let mut cold = cold(1, false).await;
    let partition = cold.node.broker.partitions.find("t", PartitionIndex(0)).unwrap();
    partition.set_remote(Arc::new(Broken(Offset::ZERO)));
    let fetch = fetch_request(12, ("t", cold.topic), &[(0, 0)]);
    let response = cold.client.ask(12, &fetch).await;
    assert_eq!(response.responses[0].partitions[0].error_code, ResponseError::KafkaStorageError.code());
    let asked = ListOffsetsPartition::default().with_current_leader_epoch(-1).with_timestamp(-5);
    let name = StrBytes::from_static_str("t").into();
    let asked = ListOffsetsTopic::default().with_name(name).with_partitions(vec![asked]);
    cold.client.send(10, &ListOffsetsRequest::default().with_topics(vec![asked])).await;
    assert_eq!(cold.client.receive_raw().await, None);
    let mut other = cold.node.connect().await;
    assert_eq!(list_offset(&mut other, 10, -1).await.offset, 2);
}

#[tokio::test]
async fn without_an_archive_the_past_is_out_of_range() {
    let node = TestNode::start().await;
    let topic = node.create_topic("t", 1, &[]).await;
    let mut client = node.connect().await;
    for value in ["a", "b"] {
        produce(&mut client, 9, ("t", topic), 0, records(&[value])).await;
    }
    let partition = node.broker.partitions.find("t", PartitionIndex(0)).unwrap();
    partition.log().advance_log_start(Offset::new(1).unwrap()).unwrap();
    let response = client.ask(12, &fetch_request(12, ("t", topic), &[(0, 0)])).await;
    assert_eq!(response.responses[0].partitions[0].error_code, ResponseError::OffsetOutOfRange.code());
}

#[tokio::test]
async fn the_log_starts_where_the_manifest_says_though_the_local_log_has_not_heard_of_it() {
    let cold = cold(1, false).await;
    let partition = cold.node.broker.partitions.find("t", PartitionIndex(0)).unwrap();
    assert_eq!(partition.log_start().0, Offset::ZERO);
    partition.set_remote(Arc::new(Broken(Offset::new(1).unwrap())));
    assert_eq!((partition.log_start().0, partition.log().start().0), (Offset::new(1).unwrap(), Offset::ZERO));
}
