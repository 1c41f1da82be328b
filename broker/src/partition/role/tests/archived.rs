//! A replica that begins where its leader's local log does: what lies before is in the archive.

use std::sync::atomic::AtomicBool;

use bytes::Bytes;
use futures::future::BoxFuture;
use varve_log::local::{BatchMetadata, OffsetAndTimestamp, ProducerEntry};
use varve_metadata::model::{ProducerEpoch, ProducerId, Sequence};

use super::*;
use crate::partition::{OffsetQuestion, RemoteBatches, RemoteError, RemoteReader, storage::wall_clock};

/// An archive of the offsets below 120: epoch 0 from 0, 2 from 50 and 4 from 110.
#[derive(Debug, Default)]
struct Archive {
    /// This broker has not asked since the first 60 were archived.
    is_behind: Arc<AtomicBool>,
    /// What lies before is deleted.
    start: u64,
}

impl RemoteReader for Archive {
    fn refreshed(&self) -> BoxFuture<'static, Result<(), RemoteError>> {
        let is_behind = self.is_behind.clone();
        async move {
            is_behind.store(false, Ordering::SeqCst);
            Ok(())
        }
        .boxed()
    }
    fn bounds(&self) -> Option<(Offset, Offset)> {
        Some((at(self.start), at(if self.is_behind.load(Ordering::SeqCst) { 60 } else { 120 })))
    }
    fn log_start(&self) -> Offset {
        at(self.start)
    }
    fn clean_until(&self) -> Offset {
        at(0)
    }
    fn size(&self) -> u64 {
        1
    }
    fn read(&self, _: Offset, _: Offset, _: u32) -> BoxFuture<'static, Result<RemoteBatches, RemoteError>> {
        unreachable!("nobody reads")
    }
    fn offset_for_timestamp(
        &self,
        _: Timestamp,
        _: Offset,
    ) -> BoxFuture<'static, Result<Option<OffsetAndTimestamp>, RemoteError>> {
        unreachable!("nobody asks for a time")
    }
    fn max_timestamp_offset(&self, _: Offset) -> BoxFuture<'static, Result<Option<OffsetAndTimestamp>, RemoteError>> {
        unreachable!("nobody asks for a time")
    }
    fn end_of_epoch(&self, epoch: LeaderEpoch) -> Option<(LeaderEpoch, Offset)> {
        match epoch.0 {
            0 | 1 => Some((LeaderEpoch(0), at(50))),
            2 | 3 => Some((LeaderEpoch(2), at(110))),
            _ => Some((LeaderEpoch(4), at(120))),
        }
    }
    fn epochs(&self) -> Vec<(LeaderEpoch, Offset)> {
        [(0, 0), (2, 50), (4, 110)].map(|(epoch, start)| (LeaderEpoch(epoch), at(start))).to_vec()
    }
    fn epoch_at(&self, _: Offset) -> Option<LeaderEpoch> {
        None
    }
}

/// A batch of one record at 100, of epoch 2.
fn from_the_leader() -> Bytes {
    let mut batch = BatchBuilder::new(at(100)).leader_epoch(LeaderEpoch(2));
    batch.push(RecordContent { timestamp: Some(now()), key: None, value: Some(b"v"), headers: &[] });
    batch.build().unwrap().into()
}

/// Of whom the archive has the last batch, up to sequence 6, and nothing is here.
const WRITER: i64 = 77;

fn writers() -> Vec<(ProducerId, ProducerEntry)> {
    let mut entry = ProducerEntry::new(ProducerEpoch::from_wire(1).unwrap());
    let (last_sequence, timestamp_ms) = (Sequence::from_wire(6), wall_clock().to_wire());
    entry.push(BatchMetadata { last_sequence, last: at(99), offset_delta: 0, timestamp_ms });
    vec![(ProducerId::from_wire(WRITER).unwrap(), entry)]
}

fn started_over(archive_is_known_before: bool) -> Replicated {
    let follower = Replicated::on(TWO);
    follower.shown(&image(ONE, 5));
    let partition = &follower.partition;
    if archive_is_known_before {
        partition.set_remote(Arc::new(Archive::default()));
    }
    partition.start_over(LeaderEpoch(5), at(100), LogStartOffset(at(0)), writers()).unwrap();
    partition.set_remote(Arc::new(Archive::default()));
    let (committed, start) = (HighWatermark(at(100)), LogStartOffset(at(0)));
    partition.replicate(LeaderEpoch(5), &from_the_leader(), committed, start).unwrap();
    follower
}

#[test]
fn a_replica_that_starts_over_knows_the_epochs_of_what_lies_before() {
    let follower = started_over(true);
    let log = follower.partition.log();
    assert_eq!(log.leader_epochs(), [(LeaderEpoch(0), at(0)), (LeaderEpoch(2), at(50))]);
    assert_eq!(follower.partition.end_of_epoch(LeaderEpoch(1)), Some((LeaderEpoch(0), at(50))));
}

#[test]
fn a_replica_that_starts_over_asks_the_archive_first_if_what_it_knows_of_it_is_too_old() {
    let follower = Replicated::on(TWO);
    follower.shown(&image(ONE, 5));
    let partition = &follower.partition;
    partition.set_remote(Arc::new(Archive { is_behind: Arc::new(AtomicBool::new(true)), start: 0 }));
    let start = LogStartOffset(at(0));
    partition.ask_archive(at(100), start).now_or_never().unwrap().unwrap();
    partition.start_over(LeaderEpoch(5), at(100), start, Vec::new()).unwrap();
    assert_eq!(partition.log().leader_epochs(), [(LeaderEpoch(0), at(0)), (LeaderEpoch(2), at(50))]);
}

/// The leader was elected uncleanly, and its epochs are others than the archive's.
#[test]
fn a_replica_that_starts_over_where_all_before_is_deleted_answers_for_no_epoch_of_that() {
    let follower = Replicated::on(TWO);
    follower.shown(&image(ONE, 5));
    let partition = &follower.partition;
    partition.set_remote(Arc::new(Archive { start: 100, ..Archive::default() }));
    partition.start_over(LeaderEpoch(5), at(100), LogStartOffset(at(100)), Vec::new()).unwrap();
    assert_eq!(partition.log().leader_epochs(), []);
}

#[test]
fn the_archive_answers_for_epochs_before_those_of_the_local_log() {
    let follower = started_over(false);
    assert_eq!(follower.partition.log().leader_epochs(), [(LeaderEpoch(2), at(100))]);
    let end = |epoch| follower.partition.end_of_epoch(LeaderEpoch(epoch));
    assert_eq!(end(1), Some((LeaderEpoch(0), at(50))));
    assert_eq!(end(2), Some((LeaderEpoch(2), at(101))), "what the local log knows counts");
}

/// Who has records of an epoch that the archive was not known to have when it was last asked would be told to cut them.
#[test]
fn the_archive_is_not_asked_where_all_that_only_it_has_is_deleted() {
    let follower = started_over(false);
    follower.partition.replicate(LeaderEpoch(5), &[], HighWatermark(at(100)), LogStartOffset(at(100))).unwrap();
    let end = follower.partition.end_of_epoch(LeaderEpoch(1));
    assert_eq!(end, Some((LeaderEpoch(1), at(100))), "it may have deleted what we have");
}

#[test]
fn a_leader_does_not_take_an_epoch_of_the_archive_for_its_own_that_it_has_no_record_of() {
    let follower = started_over(false);
    follower.shown(&image(TWO, 6));
    // The archive has epoch 4 from 110 on: an unclean election made a leader of one that ends before.
    let end = |epoch| follower.partition.end_of_epoch(LeaderEpoch(epoch));
    assert_eq!(end(4), Some((LeaderEpoch(2), at(101))));
    assert_eq!(end(3), Some((LeaderEpoch(2), at(101))));
    assert_eq!(end(6), Some((LeaderEpoch(6), at(101))));
}

/// An unclean election made a leader of one that has not deleted what its archive has. A follower that begins before the log start
/// would be refused there, and begin there again.
#[tokio::test]
async fn who_starts_over_does_not_begin_before_the_log_start() {
    let leader = started_over(true);
    leader.shown(&image(TWO, 6));
    let partition = &leader.partition;
    partition.set_remote(Arc::new(Archive { start: 101, ..Archive::default() }));
    let first = partition.find_offset(OffsetQuestion::EarliestLocal, at(101)).await.unwrap().unwrap();
    assert_eq!((partition.log().local_start(), first.offset), (at(100), at(101)));
}

#[test]
fn the_archive_of_a_partition_is_counted_where_it_is_led() {
    let replica = Replicated::on(TWO);
    replica.partition.set_remote(Arc::new(Archive::default()));
    replica.shown(&image(ONE, 5));
    assert_eq!(replica.partition.archived_bytes(), 0, "the leader counts it");
    replica.shown(&image(TWO, 6));
    assert_eq!(replica.partition.archived_bytes(), 1);
}

#[test]
fn a_log_without_records_ends_every_epoch_before_its_own() {
    let follower = Replicated::on(TWO);
    follower.shown(&image(TWO, 6));
    let end = |epoch| follower.partition.end_of_epoch(LeaderEpoch(epoch));
    assert_eq!(end(4), Some((LeaderEpoch(4), at(0))));
    follower.partition.set_remote(Arc::new(Archive::default()));
    assert_eq!(end(4), Some((LeaderEpoch(4), at(0))), "what only the archive has is not in the log");
}

#[test]
fn a_replica_that_starts_over_goes_on_with_the_sequences_of_producers_that_only_the_archive_knows() {
    let follower = started_over(true);
    follower.shown(&image(TWO, 6));
    follower.partition.set_min_in_sync(1);
    let append = |sequence: i32| {
        let (producer, epoch) = (ProducerId::from_wire(WRITER).unwrap(), ProducerEpoch::from_wire(1).unwrap());
        let mut batch = BatchBuilder::new(at(0)).producer(producer, epoch, Sequence::from_wire(sequence));
        batch.push(RecordContent { timestamp: Some(now()), key: None, value: Some(b"v"), headers: &[] });
        follower.partition.append(&batch.build().unwrap(), AppendOrigin::Client, now())
    };
    assert!(matches!(append(9), Err(PartitionAppendError::Refused(_))), "records between are missing");
    assert!(append(7).is_ok());
    let known = follower.partition.log().producers();
    assert_eq!(known.len(), 1, "{known:?}");
}
