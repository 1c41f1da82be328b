//! Partitions whose segments went up in one object.

use super::{
    world::{Numbers, grow_shared},
    *,
};

async fn check(worlds: &[World], expected: &mut [BTreeMap<Offset, Record>], what: &str) {
    for (world, expected) in worlds.iter().zip(expected) {
        let manifest = world.process(Fuse::never()).handle.refresh().await.unwrap();
        expected.retain(|offset, _| *offset >= manifest.log_start().0);
        assert_eq!(world.committed().await, *expected, "{what}");
    }
}

async fn expire_all(world: &mut World) {
    world.config.retention_bytes = Some(0);
    assert!(world.process(Fuse::never()).work(&world.config, later(0)).await);
    world.config.retention_bytes = None;
}

/// Against a model that knows only what every partition was given: whatever else happens to its neighbours, each reads its
/// own records until it lets them go, and nothing stays in the bucket that nobody needs.
#[tokio::test]
async fn a_shared_object_lives_as_long_as_one_partition_needs_it() {
    for seed in seeds(200..208) {
        let first = World::new(seed, DELETE).await;
        let mut worlds = vec![first.beside(seed * 10).await, first.beside(seed * 10 + 1).await];
        worlds.insert(0, first);
        let mut expected = vec![BTreeMap::new(); worlds.len()];
        let mut numbers = Numbers(seed);
        for step in 0..24 {
            let one = numbers.below(3) as usize;
            let what = numbers.below(6);
            match what {
                0..=2 => {
                    grow_shared(&mut worlds).await;
                    for (world, expected) in worlds.iter().zip(&mut expected) {
                        expected.extend(world.committed().await);
                    }
                }
                3 => assert!(worlds[one].process(Fuse::never()).work(&worlds[one].config, later(0)).await),
                4 => expire_all(&mut worlds[one]).await,
                _ => assert!(worlds[one].process(Fuse::never()).sweep(later(3)).await),
            }
            check(&worlds, &mut expected, &format!("seed {seed}, step {step}: {what} of {one}")).await;
        }
        // All but one let go: what it shares with them stays, also through the sweep that takes the rest.
        let (last, others) = worlds.split_last_mut().unwrap();
        for world in others {
            expire_all(world).await;
        }
        for hours in [3, 6] {
            assert!(last.process(Fuse::never()).sweep(later(hours)).await);
        }
        check(&worlds, &mut expected, &format!("seed {seed}: the last one")).await;
        expire_all(worlds.last_mut().unwrap()).await;
        assert!(worlds[0].process(Fuse::never()).sweep(later(9)).await);
        assert_eq!(worlds[0].stored().await, BTreeSet::new(), "seed {seed}");
    }
}

#[tokio::test]
async fn a_shared_object_outlives_the_topics_that_were_deleted() {
    let first = World::new(300, DELETE).await;
    let second = first.beside(301).await;
    let mut worlds = vec![first, second];
    grow_shared(&mut worlds).await;
    let mut expected: Vec<_> = vec![worlds[0].committed().await, worlds[1].committed().await];
    let process = worlds[0].process(Fuse::never());
    let (gone, left) = (worlds[0].partition.topic, worlds[1].partition.topic);
    let known = KnownTopics { alive: [left].into(), deleted: [gone].into() };
    for hours in [0, 3, 6] {
        process.compactor.sweep(later(hours), || ready(Some(known.clone()))).await.unwrap();
    }
    expected[0].clear();
    check(&worlds, &mut expected, "the topic that is left").await;
    let known = KnownTopics { deleted: [gone, left].into(), ..KnownTopics::default() };
    for hours in [9, 12, 15] {
        process.compactor.sweep(later(hours), || ready(Some(known.clone()))).await.unwrap();
    }
    assert_eq!(worlds[0].stored().await, BTreeSet::new());
}
