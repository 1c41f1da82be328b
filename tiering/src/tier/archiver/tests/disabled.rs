//! Archiving that was turned off (KIP-950).

use super::*;

const OFF: (&str, &str) = ("remote.storage.enable", "false");

/// Three segments of ten records, all archived; the first has left the local disk.
async fn archived(settings: &[(&str, &str)]) -> Rig {
    let rig = Rig::new(settings);
    for _ in 0..3 {
        rig.local.append(10);
        rig.local.log.roll().unwrap();
        rig.look().await;
    }
    rig.local.log.delete_local_below(at(10)).unwrap().purge().unwrap();
    assert_eq!((rig.archived(), rig.local.log.local_start()), ((0, 30), at(10)));
    rig
}

#[tokio::test]
async fn turned_off_with_deletion_the_archive_is_emptied_and_the_local_log_stays() {
    let rig = archived(&[]).await;
    rig.local.set(&[OFF, ("remote.log.delete.on.disable", "true")]);
    rig.look().await;
    assert_eq!((rig.archived(), rig.remote.manifest().is_empty()), ((10, 10), true));
    assert_eq!((rig.local.log.start().0, rig.local.log.local_start()), (at(10), at(10)));
    assert_eq!(rig.remote.manifest().removed().len(), 3, "the objects go after the grace period");
    let version = rig.remote.manifest().version();
    rig.local.append(10);
    rig.local.log.roll().unwrap();
    rig.look().await;
    assert_eq!(rig.remote.manifest().version(), version, "once is enough, and nothing goes up");
}

#[tokio::test]
async fn turned_on_again_the_archive_begins_where_the_local_log_does() {
    let rig = archived(&[]).await;
    rig.local.set(&[OFF, ("remote.log.delete.on.disable", "true")]);
    rig.look().await;
    rig.local.set(&[]);
    rig.look().await;
    assert_eq!(rig.archived(), (10, 30));
    let manifest = rig.remote.manifest();
    assert_eq!(manifest.inline_objects().map(|object| object.base.get()).collect::<Vec<_>>(), [10, 20]);
    assert_eq!(manifest.epochs(), [(LeaderEpoch(1), at(0))]);
    let read_back = Manifest::parse(&manifest.encode()).unwrap();
    assert_eq!(read_back, *manifest);
}

#[tokio::test]
async fn turned_off_without_deletion_it_takes_nothing_more_and_expires() {
    let rig = archived(&[]).await;
    rig.local.set(&[OFF, ("retention.ms", "7200000")]);
    rig.local.append(10);
    rig.local.log.roll().unwrap();
    rig.look().await;
    assert_eq!(rig.archived(), (0, 30), "it stays readable as long as its retention says");
    rig.local.pass(10 * HOUR);
    rig.look().await;
    assert_eq!((rig.remote.manifest().is_empty(), rig.local.log.start().0), (true, at(40)));
}

#[tokio::test]
async fn with_copying_off_it_takes_nothing_more_and_expires() {
    let rig = archived(&[]).await;
    rig.local.set(&[("remote.log.copy.disable", "true"), ("retention.ms", "7200000")]);
    rig.local.append(10);
    rig.local.log.roll().unwrap();
    rig.look().await;
    assert_eq!(rig.archived(), (0, 30));
    rig.local.pass(10 * HOUR);
    rig.look().await;
    assert_eq!((rig.remote.manifest().is_empty(), rig.local.log.start().0), (true, at(40)));
}
