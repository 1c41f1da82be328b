//! The log start, on which both tiers agree.

use super::*;

#[tokio::test]
async fn delete_records_moves_the_start_of_both_tiers() {
    let rig = Rig::new(&[]);
    rig.local.append(10);
    rig.local.log.roll().unwrap();
    rig.local.append(10);
    rig.local.log.roll().unwrap();
    rig.look().await;
    rig.local.log.advance_log_start(at(13)).unwrap();
    rig.look().await;
    assert_eq!(rig.archived(), (13, 20));
    assert_eq!((rig.remote.manifest().object_count(), rig.local.segment_files()), (1, 2));
    // Beyond the archive, into the active segment.
    rig.local.append(10);
    rig.local.log.advance_log_start(at(25)).unwrap();
    rig.look().await;
    assert_eq!((rig.archived(), rig.remote.manifest().is_empty()), ((25, 25), true));
    rig.local.log.roll().unwrap();
    rig.look().await;
    assert_eq!(rig.archived(), (25, 30));
}

#[tokio::test]
async fn a_log_start_behind_an_emptied_archive_is_told_to_the_manifest() {
    let rig = Rig::new(&[("varve.archive.lag.ms", "-1")]);
    rig.local.append(10);
    rig.local.log.roll().unwrap();
    rig.look().await;
    rig.local.append(10);
    rig.local.log.advance_log_start(at(10)).unwrap();
    rig.look().await;
    assert!(rig.remote.manifest().is_empty());
    rig.local.log.advance_log_start(at(15)).unwrap();
    rig.look().await;
    assert_eq!(rig.archived(), (15, 15));
}

#[tokio::test]
async fn a_start_that_the_manifest_knows_and_a_restart_forgot_is_taken_over() {
    let rig = Rig::new(&[]);
    rig.local.append(10);
    rig.local.log.roll().unwrap();
    rig.look().await;
    let writer = crate::manifest::Writer::Compactor;
    rig.remote.update(|manifest| manifest.expire(writer, at(4), rig.local.now())).await.unwrap();
    rig.look().await;
    assert_eq!((rig.local.log.start().0, *rig.local.persisted_start.read()), (at(4), Some(LogStartOffset(at(4)))));
}

/// What the archive knows of epochs ends where it did. So does a leader that has not heard of the deletion go on.
#[tokio::test]
async fn a_log_that_was_deleted_beyond_its_archive_has_not_parted_from_it() {
    let rig = Rig::new(&[]);
    rig.local.append(10);
    rig.local.log.roll().unwrap();
    rig.look().await;
    rig.local.epoch.store(2, Ordering::SeqCst);
    rig.local.append(10);
    rig.local.log.advance_log_start(at(18)).unwrap();
    rig.look().await;
    assert_eq!(rig.archived(), (18, 18));
    assert_eq!(rig.remote.manifest().epochs(), []);
    let next = Local::new(&[]);
    next.append(10);
    next.epoch.store(2, Ordering::SeqCst);
    next.append(10);
    next.log.roll().unwrap();
    next.epoch.store(3, Ordering::SeqCst);
    let tended = Tended::new(next.clone() as Arc<dyn LocalPartition>, Arc::clone(&rig.remote));
    tended.look(&rig.tools, &Slot::default(), next.now()).await.unwrap();
    assert_eq!((rig.archived(), next.log.start().0), ((18, 20), at(18)));
}

/// A follower hears of its leader's log start before the archive does: a crash would leave it the one of before.
#[tokio::test]
async fn what_the_archive_lacks_stays_on_the_disk_until_the_log_start_is_written_down() {
    let rig = Rig::new(&[("local.retention.bytes", "100000000")]);
    rig.local.append(10);
    rig.local.log.roll().unwrap();
    rig.look().await;
    rig.local.is_led.store(false, Ordering::SeqCst);
    rig.local.append(10);
    rig.local.log.roll().unwrap();
    rig.local.log.advance_log_start(at(20)).unwrap();
    rig.look().await;
    assert_eq!((rig.archived(), rig.local.segment_files()), ((0, 10), 2));
    rig.local.write_down_the_start();
    rig.look().await;
    assert_eq!(rig.local.segment_files(), 1);
}
