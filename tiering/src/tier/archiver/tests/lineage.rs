//! A leader whose log is not the one that was archived, and one whose log is.

use super::*;
use crate::manifest::{ObjectId, RemoteObject, Writer};

/// Another process's handle of the same partition.
fn remote_beside(remote: &RemotePartition) -> RemotePartition {
    RemotePartition::new(remote.store().clone(), remote.partition(), remote.topic().clone())
}

#[tokio::test]
async fn an_archive_of_another_lineage_is_left_alone_and_nothing_goes_in_its_favour() {
    let settings = [("local.retention.ms", "1000"), ("retention.ms", "-1")];
    let (first, second) = (Rig::new(&settings), Local::new(&settings));
    first.local.append(10);
    first.local.log.roll().unwrap();
    first.look().await;
    // Elected without the last records, it goes on in an epoch of its own, beyond the archive's end.
    second.append(6);
    second.epoch.store(2, Ordering::SeqCst);
    second.append(6);
    second.log.roll().unwrap();
    second.pass(HOUR);
    let parted = Tended::new(second.clone() as Arc<dyn LocalPartition>, Arc::clone(&first.remote));
    let outcome = parted.look(&first.tools, &Slot::default(), second.now()).await;
    let lost = |outcome: &Result<Duration, TendError>| match outcome {
        Err(TendError::LocalLogLost { archived, end }) => Some((*archived, *end)),
        _ => None,
    };
    assert_eq!(lost(&outcome), Some((at(10), at(6))), "{outcome:?}");
    assert_eq!((first.archived(), second.log.local_start()), ((0, 10), at(0)));
    // Until an operator decides for the leader's log: then it goes on from where the two parted.
    let (epoch, decided) = (LeaderEpoch(2), remote_beside(&first.remote));
    decided.refresh().await.unwrap();
    decided.update(|manifest| manifest.claimed_by(epoch)).await.unwrap();
    let before = first.remote.manifest();
    let across = before.inline_objects().next().unwrap().clone();
    let kept = RemoteObject { id: ObjectId::random(), end: at(6), ..across };
    decided.update(|manifest| manifest.parted_at(epoch, at(6), vec![kept.clone()], second.now())).await.unwrap();
    assert_eq!(first.remote.manifest().end(), at(10), "the leader has not heard of it");
    parted.look(&first.tools, &Slot::default(), second.now()).await.unwrap();
    assert_eq!(first.archived(), (0, 12));
    assert_eq!(first.remote.manifest().set_aside().len(), 1);
}

#[tokio::test]
async fn a_follower_gives_up_no_record_in_favour_of_another_lineage() {
    let settings = [("local.retention.ms", "1000"), ("retention.ms", "-1")];
    let (first, second) = (Rig::new(&settings), Local::new(&settings));
    first.local.append(10);
    first.local.log.roll().unwrap();
    first.look().await;
    second.append(6);
    second.epoch.store(2, Ordering::SeqCst);
    second.append(6);
    second.log.roll().unwrap();
    second.pass(HOUR);
    let parted = Tended::new(second.clone() as Arc<dyn LocalPartition>, Arc::clone(&first.remote));
    // Neither does a follower give up records in favour of others, or because those expire.
    second.is_led.store(false, Ordering::SeqCst);
    let (writer, now) = (Writer::Leader(LeaderEpoch(1)), second.now());
    first.remote.update(|manifest| manifest.expire(writer, at(8), now)).await.unwrap();
    parted.look(&first.tools, &Slot::default(), second.now()).await.unwrap();
    assert_eq!((second.log.start().0, second.log.local_start()), (at(0), at(0)));
}

#[tokio::test]
async fn a_new_leader_goes_on_with_the_archive_if_it_has_its_records_or_none() {
    let rig = Rig::new(&[]);
    rig.local.append(10);
    rig.local.log.roll().unwrap();
    rig.look().await;
    let replica = Local::new(&[]);
    replica.append(10);
    // As a node that lost its disk, before and after it read the archive's epochs.
    let [known, unknown] = [Local::new(&[]), Local::new(&[])];
    drop(known.log.truncate_fully(at(15), at(0)).unwrap());
    drop(unknown.log.truncate_fully(at(20), at(0)).unwrap());
    for (epoch, local) in [(2, replica), (3, known), (4, unknown)] {
        if epoch == 3 {
            local.log.learn_epochs(rig.remote.manifest().epochs()).unwrap();
        }
        local.epoch.store(epoch, Ordering::SeqCst);
        let tended = Tended::new(local.clone() as Arc<dyn LocalPartition>, Arc::clone(&rig.remote));
        tended.look(&rig.tools, &Slot::default(), local.now()).await.unwrap();
        local.append(5);
        local.log.roll().unwrap();
        tended.look(&rig.tools, &Slot::default(), local.now()).await.unwrap();
        assert_eq!(rig.archived().1, local.log.end().0.get());
    }
    assert_eq!(rig.archived(), (0, 25));
}

/// A leader before and the one after it, in epoch 2, which looked at the archive when nothing was there yet. Meanwhile the
/// first has archived ten records.
async fn succeeded(log: impl FnOnce(&Local)) -> (Rig, Arc<Local>, Tended) {
    let (first, second) = (Rig::new(&[]), Local::new(&[]));
    let beside = Arc::new(remote_beside(&first.remote));
    beside.loaded().await.unwrap();
    first.local.append(10);
    first.local.log.roll().unwrap();
    first.look().await;
    log(&second);
    second.epoch.store(2, Ordering::SeqCst);
    let tended = Tended::new(second.clone() as Arc<dyn LocalPartition>, beside);
    (first, second, tended)
}

async fn raw_objects(rig: &Rig) -> usize {
    rig.remote.bucket().list("raw", None).await.unwrap().len()
}

#[tokio::test]
async fn what_the_leader_before_archived_until_it_was_fenced_does_not_go_up_again() {
    let log = |local: &Local| {
        for _ in 0..2 {
            local.append(10);
            local.log.roll().unwrap();
        }
    };
    let (first, second, tended) = succeeded(log).await;
    tended.look(&first.tools, &Slot::default(), second.now()).await.unwrap();
    first.remote.refresh().await.unwrap();
    assert_eq!((first.archived(), raw_objects(&first).await), ((0, 20), 2));
    assert_eq!(first.remote.manifest().leader_epoch(), LeaderEpoch(2));
}

#[tokio::test]
async fn what_the_leader_before_archived_until_it_was_fenced_may_be_of_another_lineage() {
    let log = |local: &Local| {
        local.append(6);
        local.epoch.store(2, Ordering::SeqCst);
        local.append(14);
        local.log.roll().unwrap();
    };
    let (first, second, tended) = succeeded(log).await;
    let outcome = tended.look(&first.tools, &Slot::default(), second.now()).await;
    assert!(matches!(outcome, Err(TendError::LocalLogLost { archived, end }) if (archived, end) == (at(10), at(6))));
    assert_eq!(raw_objects(&first).await, 1, "nothing went up");
}

#[tokio::test]
async fn what_a_leader_after_us_archived_is_no_other_lineage() {
    let (first, second) = (Rig::new(&[]), Local::new(&[]));
    first.local.append(10);
    first.local.log.roll().unwrap();
    first.look().await;
    second.append(20);
    second.epoch.store(2, Ordering::SeqCst);
    second.log.roll().unwrap();
    let beside = Arc::new(remote_beside(&first.remote));
    let tended = Tended::new(second.clone() as Arc<dyn LocalPartition>, beside);
    tended.look(&first.tools, &Slot::default(), second.now()).await.unwrap();
    // A reader on the deposed broker has read the manifest; of the election nothing has been heard there.
    first.remote.refresh().await.unwrap();
    assert_eq!(first.archived(), (0, 20));
    let outcome = first.tended.look(&first.tools, &Slot::default(), first.local.now()).await;
    assert!(matches!(outcome, Err(TendError::Deposed)), "{outcome:?}");
}

/// Its records had left its disk in favour of what another log took the place of, before anybody heard that it leads again.
#[tokio::test]
async fn a_leader_whose_archived_records_were_set_aside_does_not_go_on_as_if_they_had_never_been() {
    let rig = Rig::new(&[]);
    rig.local.append(10);
    rig.local.log.roll().unwrap();
    rig.look().await;
    rig.local.log.delete_local_below(at(10)).unwrap().purge().unwrap();
    let (epoch, decided) = (LeaderEpoch(2), remote_beside(&rig.remote));
    decided.refresh().await.unwrap();
    decided.update(|manifest| manifest.claimed_by(epoch)).await.unwrap();
    let across = rig.remote.manifest().inline_objects().next().unwrap().clone();
    let kept = RemoteObject { id: ObjectId::random(), end: at(6), ..across };
    decided.update(|manifest| manifest.parted_at(epoch, at(6), vec![kept.clone()], rig.local.now())).await.unwrap();

    rig.local.epoch.store(3, Ordering::SeqCst);
    rig.local.append(5);
    rig.local.log.roll().unwrap();
    let tended = Tended::new(rig.local.clone() as Arc<dyn LocalPartition>, Arc::clone(&rig.remote));
    let outcome = tended.look(&rig.tools, &Slot::default(), rig.local.now()).await;
    assert!(matches!(&outcome, Err(TendError::SetAside(gone)) if *gone == (at(6)..at(10))), "{outcome:?}");
    assert_eq!(rig.archived(), (0, 6));
    // Somebody has the log start behind them.
    rig.local.log.advance_log_start(at(10)).unwrap();
    tended.look(&rig.tools, &Slot::default(), rig.local.now()).await.unwrap();
    assert_eq!(rig.archived(), (10, 15));
}
