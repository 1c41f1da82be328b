use varve_metadata::{
    config::CleanupPolicy,
    model::{LeaderEpoch, PartitionId, PartitionIndex, TopicId, TopicName},
};
use varve_tiering::manifest::ObjectId;

use super::*;

const MIB: u64 = 1 << 20;

fn offset(raw: u64) -> Offset {
    Offset::new(raw).unwrap()
}

fn millis(raw: i64) -> Timestamp {
    Timestamp::from_wire(raw).unwrap()
}

/// Neighbours of ten offsets each, with these kinds and sizes; the nth one's newest record is of the nth hour.
fn objects(described: &[(ObjectKind, u64)]) -> Vec<RemoteObject> {
    let object = |(place, &(kind, log_bytes)): (usize, &(ObjectKind, u64))| RemoteObject {
        id: ObjectId::random(),
        kind,
        base: offset(place as u64 * 10),
        end: offset(place as u64 * 10 + 10),
        bytes: log_bytes / 4,
        log_bytes,
        records: 10,
        max_timestamp: Some(millis(place as i64 * 3_600_000)),
        writer_epoch: LeaderEpoch(0),
        leader_epochs: vec![(LeaderEpoch(0), Offset::ZERO)],
        crc32c: 0,
        shared_at: None,
    };
    described.iter().enumerate().map(object).collect()
}

struct Case {
    objects: Vec<RemoteObject>,
    manifest: Manifest,
    config: TopicConfig,
    limits: Limits,
    now: Timestamp,
}

fn case(described: &[(ObjectKind, u64)]) -> Case {
    let partition = PartitionId { topic: TopicId::random(), index: PartitionIndex(0) };
    let mut manifest = Manifest::new(partition, TopicName::parse("logs").unwrap());
    let objects = objects(described);
    for object in &objects {
        manifest = manifest.with(LeaderEpoch(0), object.clone()).unwrap();
    }
    let config = TopicConfig { archive_format: ArchiveFormat::Parquet, ..TopicConfig::default() };
    Case { objects, manifest, config, limits: Limits::default(), now: millis(1) }
}

impl Case {
    fn plan(&self) -> Vec<Work> {
        plan(&self.situation())
    }

    fn situation(&self) -> Situation<'_> {
        Situation {
            manifest: &self.manifest,
            objects: &self.objects,
            config: &self.config,
            limits: &self.limits,
            local_bytes: 0,
            may_compact: true,
            now: self.now,
        }
    }

    /// The places of the objects that each rewrite takes.
    fn rewrites(&self) -> Vec<Vec<u64>> {
        let place = |object: &RemoteObject| object.base.get() / 10;
        self.plan()
            .iter()
            .map(|work| match work {
                Work::Rewrite(objects) => objects.iter().map(place).collect(),
                other => panic!("{other:?}"),
            })
            .collect()
    }
}

use ObjectKind::{Parquet, Raw};

#[test]
fn raw_neighbours_become_one_parquet_object_up_to_the_target() {
    let case = case(&[(Raw, 200 * MIB), (Raw, 200 * MIB), (Raw, 200 * MIB), (Parquet, 300 * MIB), (Raw, MIB)]);
    assert_eq!(case.rewrites(), [vec![0, 1], vec![2], vec![4]]);
    assert_eq!(backlog(&case.situation()), 601 * MIB);
}

#[test]
fn a_topic_that_stays_raw_is_left_alone() {
    let mut case = case(&[(Raw, MIB), (Raw, MIB)]);
    case.config.archive_format = ArchiveFormat::Raw;
    assert_eq!(case.plan(), []);
    assert_eq!(backlog(&case.situation()), 0);
}

#[test]
fn small_objects_wait_until_there_are_enough_of_one_size() {
    let mut described = vec![(Parquet, 40 * MIB)];
    described.extend(vec![(Parquet, MIB); 7]);
    assert_eq!(case(&described).rewrites(), Vec::<Vec<u64>>::new());
    described.push((Parquet, MIB));
    assert_eq!(case(&described).rewrites(), [(1..9).collect::<Vec<u64>>()]);
}

#[test]
fn small_objects_that_fill_a_large_one_are_merged_at_once() {
    let case = case(&[(Parquet, 300 * MIB), (Parquet, 100 * MIB), (Parquet, 60 * MIB), (Parquet, 300 * MIB)]);
    assert_eq!(case.rewrites(), [vec![1, 2]]);
}

#[test]
fn merging_ends_and_rewrites_each_byte_a_few_times_only() {
    let mut case = case(&[]);
    case.limits = Limits { small: 4096, target: 8192, fan_in: 4 };
    let (mut sizes, mut written) = (Vec::<u64>::new(), 0);
    for size in std::iter::repeat_n(10, 2000) {
        sizes.push(size);
        loop {
            let described: Vec<_> = sizes.iter().map(|size| (Parquet, *size)).collect();
            let Some(merge) = rewrites(&objects(&described), &case.limits).into_iter().next() else { break };
            let first = (merge[0].base.get() / 10) as usize;
            let bytes = merge.iter().map(|object| object.log_bytes).sum();
            written += bytes;
            sizes.splice(first..first + merge.len(), [bytes]);
        }
    }
    assert_eq!(sizes.iter().sum::<u64>(), 20_000);
    assert!(sizes.len() <= 24, "{sizes:?}");
    assert!(written <= 20_000 * 6, "{written}");
}

#[test]
fn retention_by_time_lets_go_from_the_start_only() {
    let mut case = case(&[(Parquet, MIB); 4]);
    case.config.retention_time = Some(Duration::from_secs(3600));
    case.objects[0].max_timestamp = None;
    case.now = millis(3 * 3_600_000);
    // Of hours 0 (unknown), 1, 2 and 3: more than an hour old are the first two.
    assert_eq!(case.plan(), [Work::Expire(offset(20))]);
    case.objects[0].max_timestamp = Some(millis(9 * 3_600_000));
    assert_eq!(case.plan(), [], "a later timestamp in front holds back all behind it");
}

#[test]
fn retention_by_size_counts_both_tiers_and_never_goes_below() {
    let mut case = case(&[(Parquet, 10 * MIB); 4]);
    case.config.retention_time = None;
    case.config.retention_bytes = Some(25 * MIB);
    assert_eq!(case.plan(), [Work::Expire(offset(10))]);
    let situation = Situation { local_bytes: 10 * MIB, ..case.situation() };
    assert_eq!(plan(&situation), [Work::Expire(offset(20))]);
}

#[test]
fn what_compaction_has_left_nothing_of_goes_only_where_something_is_too_much() {
    let mut case = case(&[(Parquet, 0), (Parquet, MIB)]);
    case.config.retention_time = None;
    case.config.retention_bytes = Some(MIB);
    assert_eq!(case.plan(), []);
}

#[test]
fn a_compacted_topic_does_not_expire_unless_it_is_also_deleted() {
    let mut case = case(&[(Parquet, MIB); 3]);
    case.config.retention_time = Some(Duration::ZERO);
    case.config.min_cleanable_dirty_ratio = 1.0;
    case.now = millis(i64::MAX / 4);
    case.config.cleanup = CleanupPolicy { delete: false, compact: true };
    case.config.max_compaction_lag = Duration::MAX;
    assert_eq!(case.plan(), []);
    case.config.cleanup = CleanupPolicy { delete: true, compact: true };
    assert_eq!(case.plan(), [Work::Expire(offset(30))]);
}

#[test]
fn key_compaction_is_due_by_ratio_and_takes_the_place_of_conversion() {
    let mut case = case(&[(Parquet, 3 * MIB), (Raw, MIB), (Raw, MIB)]);
    case.config.cleanup = CleanupPolicy { delete: false, compact: true };
    case.config.min_cleanable_dirty_ratio = 0.5;
    case.manifest = case.manifest.cleaned(offset(10)).unwrap();
    assert_eq!(case.rewrites(), [vec![1, 2]], "two fifths are not more than half");
    case.config.min_cleanable_dirty_ratio = 0.3;
    let Some(Work::Compact(round)) = case.plan().pop() else { panic!("{:?}", case.plan()) };
    assert_eq!((round.first_dirty, round.end, round.objects.len()), (offset(10), offset(30), 3));
    let situation = Situation { may_compact: false, ..case.situation() };
    assert!(matches!(plan(&situation)[..], [Work::Rewrite(_)]));
}
