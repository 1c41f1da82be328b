//! Two brokers' replicas of one partition, and a clock that the test moves.

mod archived;

use std::time::Duration;

use futures::FutureExt;
use varve_log::{
    format::{BatchBuilder, RecordContent},
    local::{AppendOrigin, LogConfig, LogDir, LogDirOwner, TransactionTerms},
};
use varve_metadata::{
    image::ClusterImage,
    model::{LogStartOffset, PartitionId, PartitionIndex, Timestamp, TopicId, TopicName},
};
use varve_replication::Proposal;

use super::*;
use crate::partition::{
    Appending, CommitError, FollowError, Isolation, LogDirHealth, PartitionAppendError, PartitionRead,
    PartitionReadError, Partitions, ReadRequest, save_log_starts,
};

const ONE: BrokerId = BrokerId(1);
const TWO: BrokerId = BrokerId(2);

#[derive(Default)]
struct Others {
    proposals: Mutex<Vec<Proposal>>,
    now: Mutex<Duration>,
}

impl Peers for Others {
    fn now(&self) -> Duration {
        *self.now.lock()
    }
    fn active(&self, broker: BrokerId) -> Option<Incarnation> {
        Some(Incarnation(u64::from(broker.0)))
    }
    fn registered(&self, broker: BrokerId) -> Option<Incarnation> {
        self.active(broker)
    }
    fn lag_max(&self) -> Duration {
        Duration::from_secs(10)
    }
    fn may_lead(&self, _: &ClusterImage) -> bool {
        true
    }
    fn propose(&self, _: &Arc<Partition>, proposal: Proposal) {
        self.proposals.lock().push(proposal);
    }
    fn follow(&self, _: &Arc<Partition>, _: BrokerId, _: LeaderEpoch) {}
    fn forget(&self, _: PartitionId) {}
    fn set_fetchers(&self, _: u32) {}
}

/// One replica.
struct Replicated {
    partition: Arc<Partition>,
    node: BrokerId,
    others: Arc<Others>,
    _dir: tempfile::TempDir,
}

fn image(leader: BrokerId, epoch: u32) -> PartitionImage {
    let replicas = vec![ONE, TWO];
    let (isr, leader_epoch) = (replicas.clone(), LeaderEpoch(epoch));
    PartitionImage { replicas, isr, leader: Some(leader), leader_epoch, partition_epoch: epoch, ..Default::default() }
}

fn at(offset: u64) -> Offset {
    Offset::new(offset).unwrap()
}

fn now() -> Timestamp {
    Timestamp::from_wire(1_700_000_000_000).unwrap()
}

fn records(values: &[&str]) -> Vec<u8> {
    let mut batch = BatchBuilder::new(Offset::ZERO);
    for value in values {
        batch.push(RecordContent { timestamp: Some(now()), key: None, value: Some(value.as_bytes()), headers: &[] });
    }
    batch.build().unwrap()
}

impl Replicated {
    fn on(node: BrokerId) -> Replicated {
        let dir = tempfile::tempdir().unwrap();
        let owner = LogDirOwner { cluster_id: "c".to_owned(), node };
        let files = LogDir::open(dir.path(), &owner).unwrap();
        let (topic, id) = (TopicName::parse("t").unwrap(), TopicId::random());
        let index = PartitionIndex(0);
        let (log, _) = files.open_log(&topic, id, index, Arc::new(LogConfig::default()), now()).unwrap();
        let dir_health = LogDirHealth::opened(files, 1);
        let id = PartitionId { topic: id, index };
        let partition = Partition::replica(id, topic, log, dir_health, LeaderEpoch(0), Offset::ZERO);
        partition.set_min_in_sync(2);
        Replicated { partition, node, others: Arc::default(), _dir: dir }
    }

    fn shown(&self, image: &PartitionImage) -> Duty {
        let peers: Arc<dyn Peers> = self.others.clone();
        self.partition.show(image, self.node, true, &peers)
    }

    fn append(&self, values: &[&str]) -> Result<LogEndOffset, PartitionAppendError> {
        let transaction = TransactionTerms::default();
        let appending = Appending { origin: AppendOrigin::Client, transaction, epoch: None, for_all: true };
        Ok(self.partition.append_as(&records(values), appending, now())?.end)
    }

    /// One fetch of `follower`, and what it does with the answer.
    fn fetched_by(&self, follower: &Replicated) -> Result<(), PartitionReadError> {
        let (epoch, position) = (follower.partition.leader_epoch(), follower.partition.position());
        let request = ReadRequest {
            from: position.position.from,
            current_epoch: Some(epoch),
            last_fetched_epoch: position.position.last_epoch,
            isolation: Isolation::Uncommitted,
            max_bytes: 1 << 20,
            at_least_one: true,
            may_follow: false,
        };
        let replica = Replica { id: follower.node, incarnation: Some(Incarnation(u64::from(follower.node.0))) };
        let (bounds, read) = self.partition.read_for(replica, position.log_start.0, &request)?;
        match read {
            PartitionRead::Local { slice, .. } => {
                let bytes = if slice.len == 0 { Vec::new() } else { slice.read().unwrap() };
                follower.partition.replicate(epoch, &bytes, bounds.high_watermark, bounds.log_start).unwrap();
            }
            PartitionRead::Diverged { epoch: known, end } => follower.partition.cut(epoch, known, end).unwrap(),
            PartitionRead::Remote { .. } => panic!("a follower is never sent to the archive"),
        }
        Ok(())
    }

    /// It writes down where its log starts.
    fn keeps_start(&self) {
        assert!(save_log_starts(std::slice::from_ref(&self.partition)).is_empty());
    }

    /// What its directory says of where its log starts.
    fn written_start(&self) -> String {
        let text = std::fs::read_to_string(self._dir.path().join("log-start-offset-checkpoint")).unwrap();
        text.lines().last().unwrap_or_default().to_owned()
    }

    fn end(&self) -> Offset {
        self.partition.log().end().0
    }

    fn committed(&self) -> Offset {
        self.partition.high_watermark().0
    }
}

/// The first leads, the second follows.
fn pair() -> (Replicated, Replicated) {
    let (leader, follower) = (Replicated::on(ONE), Replicated::on(TWO));
    assert_eq!(leader.shown(&image(ONE, 1)), Duty::None);
    assert_eq!(follower.shown(&image(ONE, 1)), Duty::Follow { leader: ONE, epoch: LeaderEpoch(1) });
    (leader, follower)
}

#[test]
fn records_are_committed_once_the_follower_asks_for_what_comes_behind_them() {
    let (leader, follower) = pair();
    let end = leader.append(&["a", "b"]).unwrap();
    let mut committed = Box::pin(leader.partition.committed(end));
    assert!(committed.as_mut().now_or_never().is_none());
    leader.fetched_by(&follower).unwrap();
    assert!(committed.as_mut().now_or_never().is_none(), "it may lose what it was sent");
    leader.fetched_by(&follower).unwrap();
    assert!(matches!(committed.now_or_never(), Some(Ok(()))));
    assert_eq!((leader.committed(), follower.end(), follower.committed()), (at(2), at(2), at(2)));
}

#[test]
fn a_deposed_leader_writes_nothing_more_and_acknowledges_nothing() {
    let (leader, _follower) = pair();
    let end = leader.append(&["a"]).unwrap();
    let mut committed = Box::pin(leader.partition.committed_in(LeaderEpoch(1), end));
    assert!(committed.as_mut().now_or_never().is_none());
    assert_eq!(leader.shown(&image(TWO, 2)), Duty::Follow { leader: TWO, epoch: LeaderEpoch(2) });
    assert!(matches!(committed.now_or_never(), Some(Err(CommitError::NotLeader))));
    assert!(matches!(leader.append(&["b"]), Err(PartitionAppendError::NotLeader)));
    // An image that comes late takes nothing back.
    assert_eq!(leader.shown(&image(ONE, 1)), Duty::Follow { leader: TWO, epoch: LeaderEpoch(2) });
    assert!(!leader.partition.is_leader());
}

#[test]
fn what_the_next_leader_commits_is_not_what_a_deposed_one_appended() {
    let (old, new) = pair();
    let end = old.append(&["gone"]).unwrap();
    // Deposed before it looks whether that is committed, it takes over other records at the same offsets.
    new.shown(&image(TWO, 2));
    old.shown(&image(TWO, 2));
    new.append(&["b", "c"]).unwrap();
    while old.committed() < at(2) {
        new.fetched_by(&old).unwrap();
    }
    assert!(!old.partition.must_wait(end));
    assert!(!old.partition.is_committed_in(LeaderEpoch(1), end));
    let told = old.partition.committed_in(LeaderEpoch(1), end).now_or_never();
    assert!(matches!(told, Some(Err(CommitError::NotLeader))));
}

#[test]
fn who_waits_for_a_partition_that_leaves_learns_that_it_is_not_led_here() {
    let (leader, _follower) = pair();
    let end = leader.append(&["a"]).unwrap();
    let mut committed = Box::pin(leader.partition.committed_in(LeaderEpoch(1), end));
    assert!(committed.as_mut().now_or_never().is_none());
    let partitions = Partitions::default();
    partitions.insert(leader.partition.clone(), false);
    assert!(partitions.take(leader.partition.id()).is_some());
    assert!(matches!(committed.now_or_never(), Some(Err(CommitError::NotLeader))));
    // Also whoever found it before.
    let late = leader.partition.append(&records(&["b"]), AppendOrigin::Client, now());
    assert!(matches!(late, Err(PartitionAppendError::NotLeader)));
    assert_eq!(leader.end(), at(1));
}

#[test]
fn a_coordinator_of_an_earlier_leadership_appends_nothing_in_a_later_one() {
    let (leader, _follower) = pair();
    leader.shown(&image(TWO, 2));
    leader.shown(&image(ONE, 3));
    let late = Appending::of_coordinator(LeaderEpoch(1), TransactionTerms::default());
    let refused = leader.partition.append_as(&records(&["late"]), late, now());
    assert!(matches!(refused, Err(PartitionAppendError::NotLeader)));
}

#[test]
fn a_follower_cuts_what_its_leader_does_not_have() {
    let (old, new) = pair();
    old.append(&["a"]).unwrap();
    old.fetched_by(&new).unwrap();
    old.append(&["only", "here"]).unwrap();
    old.shown(&image(TWO, 2));
    new.shown(&image(TWO, 2));
    new.append(&["b"]).unwrap();
    assert_eq!(old.end(), at(3));
    // It learns where the logs parted, and goes on from there.
    new.fetched_by(&old).unwrap();
    assert_eq!(old.end(), at(1));
    new.fetched_by(&old).unwrap();
    new.fetched_by(&old).unwrap();
    assert_eq!((old.end(), old.committed(), new.committed()), (at(2), at(2), at(2)));
}

#[test]
fn with_too_few_in_sync_nothing_is_taken_that_all_shall_have() {
    let (leader, _follower) = pair();
    let alone = PartitionImage { isr: vec![ONE], partition_epoch: 2, ..image(ONE, 1) };
    leader.shown(&alone);
    assert!(matches!(leader.append(&["a"]), Err(PartitionAppendError::TooFewInSync(_))));
    assert_eq!(leader.end(), Offset::ZERO);
}

#[test]
fn a_follower_that_lags_is_proposed_to_leave_and_counts_until_the_store_has_taken_it() {
    let (leader, follower) = pair();
    leader.partition.set_min_in_sync(1);
    leader.append(&["a"]).unwrap();
    *leader.others.now.lock() = Duration::from_secs(60);
    leader.partition.tick();
    let proposal = leader.others.proposals.lock().pop().unwrap();
    assert_eq!((proposal.next.isr.as_slice(), leader.committed()), ([ONE].as_slice(), Offset::ZERO));
    leader.partition.answered((LeaderEpoch(1), proposal.base + 1), Outcome::Taken, None);
    assert_eq!(leader.committed(), Offset::ZERO, "that is the answer to another one");
    leader.partition.answered((LeaderEpoch(1), proposal.base), Outcome::Taken, None);
    assert_eq!(leader.committed(), at(1));
    // It is back: caught up, it is to join again.
    leader.fetched_by(&follower).unwrap();
    leader.fetched_by(&follower).unwrap();
    assert_eq!(leader.others.proposals.lock().pop().unwrap().joins, Some((TWO, Incarnation(2))));
}

#[test]
fn a_deposed_leader_serves_nobody_also_who_names_no_epoch() {
    let (leader, follower) = pair();
    leader.append(&["a"]).unwrap();
    leader.fetched_by(&follower).unwrap();
    leader.fetched_by(&follower).unwrap();
    let request = ReadRequest {
        from: at(0),
        current_epoch: None,
        last_fetched_epoch: None,
        isolation: Isolation::Uncommitted,
        max_bytes: 1 << 20,
        at_least_one: true,
        may_follow: false,
    };
    assert!(leader.partition.read(&request).is_ok());
    leader.shown(&image(TWO, 2));
    assert!(matches!(leader.partition.read(&request), Err(PartitionReadError::NotLeader)));
    // But for who knows that it may be a follower.
    assert!(leader.partition.read(&ReadRequest { may_follow: true, ..request }).is_ok());
}

#[test]
fn a_follower_gives_readers_what_it_knows_to_be_committed_and_the_leader_knows_who_has_what() {
    let (leader, follower) = pair();
    let near = |from: u64| leader.partition.follower_near(at(from), &|id| id == TWO);
    assert_eq!(near(0), None, "it has not said what it has");
    leader.append(&["a", "b"]).unwrap();
    leader.fetched_by(&follower).unwrap();
    let read = |from: u64| {
        let (from, isolation) = (at(from), Isolation::Uncommitted);
        let (current_epoch, last_fetched_epoch) = (Some(LeaderEpoch(1)), None);
        let request = ReadRequest {
            from,
            current_epoch,
            last_fetched_epoch,
            isolation,
            max_bytes: 1 << 20,
            at_least_one: true,
            may_follow: true,
        };
        match follower.partition.read(&request) {
            Ok((bounds, PartitionRead::Local { slice, .. })) => Ok((bounds.high_watermark.0, slice.len > 0)),
            Ok((_, other)) => panic!("{other:?}"),
            Err(error) => Err(error),
        }
    };
    // It has both, and has not heard that they are committed.
    assert_eq!(read(0).unwrap(), (at(0), false));
    assert_eq!(read(2).unwrap(), (at(0), false), "a reader who was told so by the leader waits");
    assert!(matches!(read(3), Err(PartitionReadError::OutOfRange { .. })), "and who wants more asks the leader again");
    assert_eq!((near(0), near(1)), (Some(TWO), None), "by its own word it had nothing yet");
    leader.fetched_by(&follower).unwrap();
    assert_eq!(read(0).unwrap(), (at(2), true));
    assert_eq!((near(2), near(3)), (Some(TWO), None));
    assert_eq!(leader.partition.follower_near(at(0), &|_| false), None, "nobody is near");
    follower.partition.retire();
    assert!(matches!(read(0), Err(PartitionReadError::NotLeader)), "what moves away is nobody's to read");
}

#[tokio::test(start_paused = true)]
async fn records_are_deleted_once_the_follower_has_deleted_them_too() {
    let (leader, follower) = pair();
    leader.append(&["a", "b"]).unwrap();
    leader.fetched_by(&follower).unwrap();
    leader.fetched_by(&follower).unwrap();
    assert_eq!(leader.partition.delete_records(Some(at(1))).unwrap(), at(1));
    let mut deleted = Box::pin(leader.partition.deleted_below(LeaderEpoch(1), at(1)));
    assert_eq!(deleted.as_mut().now_or_never(), None, "the follower would show the first again");
    leader.fetched_by(&follower).unwrap();
    assert_eq!(follower.partition.log().start(), LogStartOffset(at(1)));
    assert_eq!(deleted.as_mut().now_or_never(), None, "nothing tells yet that it has");
    leader.fetched_by(&follower).unwrap();
    assert_eq!(deleted.as_mut().now_or_never(), None, "it would start at 0 again after a crash, and may lead");
    follower.keeps_start();
    leader.fetched_by(&follower).unwrap();
    assert_eq!(deleted.now_or_never(), Some(Some(LogStartOffset(at(1)))));
    leader.shown(&image(TWO, 2));
    assert_eq!(leader.partition.deleted_below(LeaderEpoch(1), at(1)).now_or_never(), Some(None));
}

#[tokio::test(start_paused = true)]
async fn records_are_deleted_without_a_follower_whose_directory_failed() {
    let (leader, follower) = pair();
    leader.partition.set_min_in_sync(1);
    leader.append(&["a", "b"]).unwrap();
    leader.fetched_by(&follower).unwrap();
    leader.fetched_by(&follower).unwrap();
    assert_eq!(leader.partition.delete_records(Some(at(1))).unwrap(), at(1));
    let mut deleted = Box::pin(leader.partition.deleted_below(LeaderEpoch(1), at(1)));
    assert_eq!(deleted.as_mut().now_or_never(), None);
    let offline = PartitionImage { isr: vec![ONE], offline: vec![TWO], partition_epoch: 2, ..image(ONE, 1) };
    leader.shown(&offline);
    let deleted = tokio::time::timeout(Duration::from_secs(60), deleted).await;
    assert_eq!(deleted, Ok(Some(LogStartOffset(at(1)))), "its broker lives, and cannot delete anything");
}

/// What is written down is believed at the next start, and a log that ends before it would be emptied.
#[test]
fn a_log_that_is_cut_below_its_start_does_not_start_there_any_more_after_a_crash() {
    let (leader, follower) = pair();
    for value in ["a", "b", "c"] {
        leader.append(&[value]).unwrap();
    }
    leader.fetched_by(&follower).unwrap();
    let replicated = follower.partition.replicate(LeaderEpoch(1), &[], HighWatermark(at(3)), LogStartOffset(at(2)));
    replicated.unwrap();
    follower.keeps_start();
    assert_eq!(follower.written_start(), "t 0 2");
    // An unclean election: the leader never had more than the first.
    follower.shown(&image(ONE, 2));
    follower.partition.cut(LeaderEpoch(2), LeaderEpoch(1), at(1)).unwrap();
    assert_eq!((follower.end(), follower.partition.log().start()), (at(1), LogStartOffset(at(1))));
    assert_eq!(follower.written_start(), "t 0 1");
}

#[test]
fn what_a_follower_is_told_in_another_epoch_changes_nothing() {
    let (_leader, follower) = pair();
    let none = (HighWatermark(Offset::ZERO), LogStartOffset(Offset::ZERO));
    let late = follower.partition.replicate(LeaderEpoch(0), &records(&["late"]), none.0, none.1);
    assert!(matches!(late, Err(FollowError::Stale)));
    assert_eq!(follower.end(), Offset::ZERO);
}

#[test]
fn nobody_but_a_replica_fetches_as_one() {
    let (leader, _follower) = pair();
    let stranger = Replicated::on(BrokerId(9));
    stranger.shown(&PartitionImage { replicas: vec![ONE, BrokerId(9)], ..image(ONE, 1) });
    assert!(matches!(leader.fetched_by(&stranger), Err(PartitionReadError::NotAReplica(BrokerId(9)))));
}

#[test]
fn a_leader_whose_directory_failed_takes_nobody_out_of_the_isr_and_leads_in_no_later_epoch() {
    let (one, two) = (Replicated::on(ONE), Replicated::on(TWO));
    one.partition.set_min_in_sync(1);
    one.shown(&image(ONE, 1));
    two.shown(&image(ONE, 1));
    one.append(&["a"]).unwrap();
    one.fetched_by(&two).unwrap();
    one.partition.log_dir().fail(&std::io::Error::other("gone"));
    assert!(matches!(one.append(&["b"]), Err(PartitionAppendError::Offline)));
    assert!(matches!(one.fetched_by(&two), Err(PartitionReadError::Offline)));
    // The follower cannot fetch, which looks like lagging.
    *one.others.now.lock() = Duration::from_secs(60);
    one.partition.tick();
    assert!(one.others.proposals.lock().is_empty(), "the follower has everything, and is to lead");
    assert!(one.partition.is_leader(), "it says why it refuses until others lead");
    assert_eq!(one.shown(&image(TWO, 2)), Duty::Follow { leader: TWO, epoch: LeaderEpoch(2) });
    assert_eq!(one.shown(&image(ONE, 3)), Duty::None);
    assert!(!one.partition.is_leader());
}
