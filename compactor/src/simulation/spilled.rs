//! Key compaction with more keys than memory takes.

use std::path::Path;

use super::*;
use crate::options::SpillDisk;

/// More distinct keys than the smallest map takes, most of them twice.
async fn grown(seed: u64) -> World {
    let mut world = World::new(seed, COMPACT).await;
    for nth in 0..190 {
        world.plain_keys = Some(nth % 120 * 12);
        world.grow(1).await;
    }
    world
}

/// However full the machine's own disk is.
fn room(directory: &Path) -> SpillDisk {
    SpillDisk { directory: directory.to_owned(), leave_free_percent: 0 }
}

#[tokio::test]
async fn a_round_through_the_disk_leaves_what_one_with_enough_memory_leaves() {
    let (plenty, little) = (grown(90).await, grown(90).await);
    let original = plenty.committed().await;
    assert_eq!(little.committed().await, original);
    let keys: BTreeSet<_> = original.values().map(|(key, _)| key.clone()).collect();
    assert!(keys.len() > 1000, "{} keys", keys.len());
    assert!(plenty.process(Fuse::never()).work(&plenty.config, later(0)).await);
    let directory = tempfile::tempdir().unwrap();
    let mut process = little.process(Fuse::never());
    process.compactor.options.map_bytes = 0;
    process.compactor.options.spill = Some(room(directory.path()));
    // One round, though the map has no room for all keys.
    let done = process.compactor.work_on(&process.handle, &little.config, 0, later(0)).await.unwrap();
    assert!(done.published > 0);
    let manifest = process.handle.refresh().await.unwrap();
    assert_eq!(manifest.clean_until(), manifest.end());
    let found = little.committed().await;
    assert_eq!(found, plenty.committed().await);
    assert_eq!(found.len(), keys.len());
    check_clean_part(&found, manifest.end());
}

#[tokio::test]
async fn without_room_on_the_disk_a_round_ends_where_memory_does() {
    let world = grown(91).await;
    let keys: BTreeSet<_> = world.committed().await.into_values().map(|(key, _)| key).collect();
    let file = tempfile::NamedTempFile::new().unwrap();
    let mut process = world.process(Fuse::never());
    process.compactor.options.map_bytes = 0;
    process.compactor.options.spill = Some(room(&file.path().join("below a file")));
    let done = process.compactor.work_on(&process.handle, &world.config, 0, later(0)).await.unwrap();
    let manifest = process.handle.refresh().await.unwrap();
    assert!(done.published > 0 && manifest.clean_until() < manifest.end());
    assert!(process.work(&world.config, later(0)).await);
    assert_eq!(world.committed().await.len(), keys.len());
}
