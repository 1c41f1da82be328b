//! Quiet partitions that share objects.

use std::{collections::BTreeSet, time::SystemTime};

use super::{super::share::Uploaded, *};
use crate::manifest::{ObjectKind, RemoteObject, tests::object};

const LAG: (&str, &str) = ("varve.archive.lag.ms", "60000");

struct Crowd {
    members: Vec<(Arc<Local>, Arc<RemotePartition>)>,
    bucket: Bucket,
}

impl Crowd {
    fn new(count: usize) -> Crowd {
        let bucket = Bucket::memory();
        let member = |_| (Local::new(&[LAG]), remote_in(&bucket));
        Crowd { members: (0..count).map(member).collect(), bucket }
    }

    /// An archiver with few workers that cares for all.
    fn archiver(&self, sharing: Sharing) -> Archiver {
        self.archiver_with(2, sharing)
    }

    fn archiver_with(&self, workers: usize, sharing: Sharing) -> Archiver {
        let clock = Arc::clone(&self.members[0].0);
        let options =
            ArchiverOptions { workers, sharing, clock: Arc::new(move || clock.now()), ..ArchiverOptions::default() };
        let archiver = Archiver::start(options, ArchiverMetrics::new());
        for (local, remote) in &self.members {
            archiver.add(local.clone(), remote.clone(), Duration::ZERO);
        }
        archiver
    }

    /// Appends to every partition, and seals what was appended.
    fn write(&self, records: usize) {
        for (local, _) in &self.members {
            local.append(records);
            local.log.roll().unwrap();
        }
    }

    fn all_reach(&self, end: u64) -> bool {
        self.members.iter().all(|(_, remote)| remote.bounds().end == at(end))
    }

    async fn stored(&self) -> Vec<String> {
        self.bucket.list("raw", None).await.unwrap().into_iter().map(|listed| listed.key).collect()
    }

    /// Every partition's objects hold the bytes of its own log.
    async fn check(&self) {
        for (local, remote) in &self.members {
            let manifest = remote.manifest();
            for object in manifest.inline_objects() {
                assert_eq!(object.kind, ObjectKind::Raw);
                let part = self.bucket.get_range(&manifest.key_of(object), object.range()).await.unwrap();
                assert_eq!(crc32c::crc32c(&part), object.crc32c);
                let name = format!("{:020}.log", object.base.get());
                let segment = std::fs::read(local.log.dir().join(name)).unwrap();
                assert!(part.starts_with(&segment));
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn quiet_partitions_share_one_object_though_there_are_few_workers() {
    let crowd = Crowd::new(40);
    let archiver = crowd.archiver(Sharing::default());
    crowd.write(3);
    until("all are archived", || crowd.all_reach(3)).await;
    let stored = crowd.stored().await;
    assert!(stored.len() == 1 && stored[0].contains("/shared/"), "{stored:?}");
    assert_eq!(archiver.metrics().uploaded_segments.get(), 40);
    assert_eq!(archiver.metrics().shared_objects.get(), 1);
    crowd.check().await;
    archiver.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_shared_object_is_as_large_as_it_may_be_and_large_segments_are_not_shared() {
    let crowd = Crowd::new(10);
    let archiver = crowd.archiver(Sharing { parts: 4, below: 20_000, ..Sharing::default() });
    crowd.write(3);
    until("all are archived", || crowd.all_reach(3)).await;
    assert_eq!(crowd.stored().await.len(), 3);
    crowd.write(30);
    until("all are archived", || crowd.all_reach(33)).await;
    assert_eq!(crowd.stored().await.len(), 3 + 10);
    crowd.check().await;
    archiver.stop().await;
}

#[tokio::test(start_paused = true)]
async fn one_alone_has_an_object_of_its_own_name() {
    let crowd = Crowd::new(1);
    let archiver = crowd.archiver(Sharing::default());
    crowd.write(3);
    until("it is archived", || crowd.all_reach(3)).await;
    let stored = crowd.stored().await;
    assert!(stored.len() == 1 && !stored[0].contains("/shared/"), "{stored:?}");
    archiver.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_single_worker_publishes_what_it_shared() {
    let crowd = Crowd::new(3);
    let archiver = crowd.archiver_with(1, Sharing::default());
    crowd.write(3);
    until("all are archived", || crowd.all_reach(3)).await;
    archiver.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_damaged_segment_keeps_nobody_else_from_the_archive() {
    let crowd = Crowd::new(5);
    for (local, _) in &crowd.members {
        local.append(3);
        local.log.roll().unwrap();
    }
    let log = crowd.members[2].0.log.dir().join("00000000000000000000.log");
    let mut bytes = std::fs::read(&log).unwrap();
    bytes[100] ^= 1;
    std::fs::write(&log, bytes).unwrap();
    let archiver = crowd.archiver(Sharing::default());
    until("the damage is told", || archiver.metrics().damaged.get() > 0).await;
    let ends = || crowd.members.iter().map(|(_, remote)| remote.bounds().end.get()).collect::<Vec<_>>();
    until("the others are archived", || ends() == [3, 3, 0, 3, 3]).await;
    archiver.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_was_uploaded_before_a_crash_is_uploaded_again_and_published_once() {
    let crowd = Crowd::new(6);
    // The archiver ends while its parts wait for each other, or right after: whichever, the next one begins anew.
    for _ in 0..4 {
        let archiver = crowd.archiver(Sharing::default());
        crowd.write(2);
        until("a first look", || crowd.members.iter().all(|(_, remote)| remote.is_loaded())).await;
        archiver.stop().await;
    }
    let archiver = crowd.archiver(Sharing::default());
    until("all are archived", || crowd.all_reach(8)).await;
    crowd.check().await;
    let named: BTreeSet<String> = crowd
        .members
        .iter()
        .flat_map(|(_, remote)| {
            let manifest = remote.manifest();
            manifest.inline_objects().map(|object| manifest.key_of(object).as_str().to_owned()).collect::<Vec<_>>()
        })
        .collect();
    let stored: BTreeSet<String> = crowd.stored().await.into_iter().collect();
    assert!(named.is_subset(&stored));
    archiver.stop().await;
}

#[tokio::test(start_paused = true)]
async fn retention_that_was_raised_while_a_segment_waited_for_others_holds() {
    let crowd = Crowd::new(1);
    let (local, remote) = &crowd.members[0];
    local.set(&[LAG, ("retention.ms", "1000")]);
    crowd.write(3);
    local.pass(HOUR);
    let archiver = crowd.archiver(Sharing::default());
    until("a first look", || remote.is_loaded()).await;
    local.set(&[LAG, ("retention.ms", "-1"), ("local.retention.ms", "1")]);
    until("the local copy is gone", || archiver.metrics().deleted_local_segments.get() == 1).await;
    assert_eq!((remote.bounds().start.0, local.log.start().0, remote.bounds().end), (at(0), at(0), at(3)));
    archiver.stop().await;
}

#[test]
fn what_waits_too_long_by_either_clock_is_not_published() {
    let uploaded = |shared_at, slept: Duration| Uploaded {
        object: RemoteObject { shared_at, ..object(0, 3) },
        begun: (Instant::now(), SystemTime::now() - slept),
    };
    assert!(!uploaded(Some(0), Duration::ZERO).is_stale(HOUR));
    assert!(uploaded(Some(0), HOUR).is_stale(HOUR));
    assert!(!uploaded(None, HOUR).is_stale(HOUR));
}

#[tokio::test(start_paused = true)]
async fn waiting_for_others_keeps_nobody_from_the_archive_beyond_the_lag() {
    let crowd = Crowd::new(40);
    let (start, begun) = (crowd.members[0].0.now(), Instant::now());
    let clock = Arc::new(move || stamp(start.millis() as i64 + begun.elapsed().as_millis() as i64));
    let archiver =
        Archiver::start(ArchiverOptions { workers: 2, clock, ..ArchiverOptions::default() }, ArchiverMetrics::new());
    for (local, remote) in &crowd.members {
        local.append(3);
        archiver.add(local.clone(), remote.clone(), Duration::ZERO);
    }
    until("all are archived", || crowd.all_reach(3)).await;
    assert!(begun.elapsed() <= Duration::from_secs(60), "{:?}", begun.elapsed());
    assert!(crowd.stored().await.iter().all(|key| key.contains("/shared/")), "they did wait for others");
    archiver.stop().await;
}
