//! The manifest against a naive model, and its bytes against damage.

use std::collections::BTreeMap;

use proptest::{prelude::*, sample::Index};
use uuid::Uuid;
use varve_metadata::model::{LeaderEpoch, Offset, PartitionId, PartitionIndex, Timestamp, TopicId, TopicName};

use super::*;
use crate::layout::Version;

pub(crate) fn at(offset: u64) -> Offset {
    Offset::new(offset).unwrap()
}

pub(crate) fn millis(millis: i64) -> Timestamp {
    Timestamp::from_wire(millis).unwrap()
}

pub(crate) fn partition() -> PartitionId {
    PartitionId { topic: TopicId::random(), index: PartitionIndex(3) }
}

pub(crate) fn empty() -> Manifest {
    Manifest::new(partition(), TopicName::parse("web.clicks").unwrap())
}

/// An object for `base..end` whose bytes, records and timestamp follow from its offsets.
pub(crate) fn object(base: u64, end: u64) -> RemoteObject {
    RemoteObject {
        id: ObjectId::random(),
        kind: ObjectKind::Raw,
        base: at(base),
        end: at(end),
        bytes: (end - base) * 100 + 7,
        log_bytes: (end - base) * 100,
        records: end - base,
        max_timestamp: Some(millis(1_000 + end as i64)),
        writer_epoch: LeaderEpoch(0),
        leader_epochs: vec![(LeaderEpoch(0), at(base))],
        crc32c: 0xdead_beef,
        shared_at: None,
    }
}

const NOW: i64 = 1_700_000_000_000;
const SMALL: Limits = Limits { inline: 6, keep: 2, leaf: 5 };

/// The same partition as a flat list, and the leaves that the bucket would hold.
#[derive(Default)]
struct Model {
    live: Vec<RemoteObject>,
    gone: Vec<RemoteObject>,
    start: u64,
    end: u64,
    leaves: BTreeMap<Uuid, Leaf>,
}

impl Model {
    fn edit(&self, manifest: &Manifest, change: impl Fn(&Manifest) -> Result<Manifest, ManifestError>) -> Manifest {
        let mut base = manifest.clone();
        loop {
            match change(&base) {
                Ok(next) => return next,
                Err(ManifestError::LeafNeeded(needed)) => {
                    base = base.inline(&needed, &self.leaves[&needed.id]).unwrap()
                }
                Err(other) => panic!("{other}"),
            }
        }
    }

    /// What the store does before it publishes.
    fn publish(&mut self, mut manifest: Manifest) -> Manifest {
        for reference in manifest.leaves_to_fill(SMALL) {
            manifest = manifest.inline(&reference, &self.leaves[&reference.id]).unwrap();
        }
        let (manifest, leaves) = manifest.pack(SMALL, Uuid::new_v4);
        for (reference, leaf) in leaves {
            assert!(leaf.objects().len() <= SMALL.leaf);
            let read = Leaf::parse(&leaf.encode()).unwrap();
            assert_eq!(read.clone().matching(&reference).unwrap(), leaf);
            self.leaves.insert(reference.id, read);
        }
        assert!(manifest.inline_len() <= SMALL.inline);
        let seen = manifest.version();
        let manifest = manifest.published(seen, Uuid::new_v4(), millis(NOW));
        assert_eq!(Manifest::parse(&manifest.encode()).unwrap(), manifest);
        manifest
    }

    fn check(&self, manifest: &Manifest) {
        assert_eq!((manifest.log_start().0, manifest.end()), (at(self.start), at(self.end)));
        let sum = |of: fn(&RemoteObject) -> u64| self.live.iter().map(of).sum::<u64>();
        assert_eq!(manifest.object_count(), self.live.len() as u64);
        assert_eq!((manifest.bytes(), manifest.records()), (sum(|o| o.bytes), sum(|o| o.records)));
        assert_eq!(manifest.log_bytes(), sum(|o| o.log_bytes));
        assert_eq!(manifest.max_timestamp(), self.live.iter().filter_map(|o| o.max_timestamp).max());
        for offset in 0..self.end + 3 {
            let naive = self.live.iter().find(|o| o.base <= at(offset) && at(offset) < o.end && offset >= self.start);
            let found = match manifest.find(at(offset)) {
                Place::Object(object) => Some(object),
                Place::Leaf(leaf) => self.leaves[&leaf.id].find(at(offset)),
                Place::Nowhere => None,
            };
            assert_eq!(found, naive, "offset {offset}");
            let (time, from) = (millis(1_000 + offset as i64), at(offset / 2));
            let from_live = from.max(at(self.start));
            let naive = self.live.iter().find(|o| o.end > from_live && o.max_timestamp >= Some(time));
            assert_eq!(self.find_timestamp(manifest, time, from), naive, "time {time} from {from}");
        }
        let mut removed: Vec<ObjectId> = Vec::new();
        for entry in manifest.removed() {
            match &entry.entry {
                RemovedEntry::Object(object) => removed.push(object.id),
                RemovedEntry::Leaf(leaf) => removed.extend(self.leaves[&leaf.id].objects().iter().map(|o| o.id)),
            }
        }
        let mut gone: Vec<ObjectId> = self.gone.iter().map(|object| object.id).collect();
        removed.sort_unstable();
        gone.sort_unstable();
        assert_eq!(removed, gone);
    }

    fn find_timestamp<'a>(&'a self, manifest: &'a Manifest, time: Timestamp, from: Offset) -> Option<&'a RemoteObject> {
        let mut from = from;
        loop {
            match manifest.find_timestamp(time, from) {
                Place::Object(object) => return Some(object),
                Place::Nowhere => return None,
                Place::Leaf(reference) => match self.leaves[&reference.id].find_timestamp(time, from) {
                    Some(object) => return Some(object),
                    None => from = reference.end,
                },
            }
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    Upload(u64),
    /// From which object, how many, and into how many.
    Rewrite(Index, usize, usize),
    Expire(Index),
    DeleteBeyondEnd(u64),
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (1..20u64).prop_map(Step::Upload),
        2 => (any::<Index>(), 1..7usize, 1..4usize).prop_map(|(from, count, into)| Step::Rewrite(from, count, into)),
        2 => any::<Index>().prop_map(Step::Expire),
        1 => (0..5u64).prop_map(Step::DeleteBeyondEnd),
    ]
}

proptest! {
    #[test]
    fn any_history_keeps_coverage_whole_and_lookups_equal_to_a_flat_list(
        steps in prop::collection::vec(any_step(), 1..60)
    ) {
        let (mut model, mut manifest) = (Model::default(), empty().claimed_by(LeaderEpoch(1)).unwrap());
        for step in steps {
            let next = match step {
                Step::Upload(length) => {
                    let new = object(model.end, model.end + length);
                    model.end += length;
                    model.live.push(new.clone());
                    model.edit(&manifest, |base| base.with(LeaderEpoch(1), new.clone()))
                }
                Step::Rewrite(..) if model.live.is_empty() => continue,
                Step::Rewrite(from, count, into) => {
                    let from = from.index(model.live.len());
                    let sources = model.live[from..(from + count).min(model.live.len())].to_vec();
                    let (base, end) = (sources[0].base.get(), sources.last().unwrap().end.get());
                    let step = (end - base).div_ceil(into as u64);
                    let starts: Vec<u64> = (base..end).step_by(step as usize).collect();
                    let new: Vec<_> = starts.iter().map(|start| object(*start, end.min(start + step))).collect();
                    model.live.splice(from..from + sources.len(), new.clone());
                    model.gone.extend(sources.clone());
                    let dead = model.live.partition_point(|object| object.end <= at(model.start));
                    model.gone.extend(model.live.drain(..dead));
                    model.edit(&manifest, |base| base.replace(&sources, new.clone(), millis(NOW)))
                }
                Step::Expire(_) | Step::DeleteBeyondEnd(_) => {
                    let start = match step {
                        Step::Expire(start) => start.index(model.end as usize + 1) as u64,
                        Step::DeleteBeyondEnd(more) => model.end + more,
                        _ => unreachable!(),
                    };
                    model.start = model.start.max(start);
                    model.end = model.end.max(model.start);
                    let dead = model.live.partition_point(|object| object.end <= at(model.start));
                    model.gone.extend(model.live.drain(..dead));
                    let writer = Writer::Leader(LeaderEpoch(1));
                    model.edit(&manifest, |base| base.expire(writer, at(start), millis(NOW)))
                }
            };
            manifest = model.publish(next);
            model.check(&manifest);
        }
    }

    #[test]
    fn damaged_bytes_are_refused_and_never_panic(
        flips in prop::collection::vec((any::<Index>(), any::<u8>()), 1..4), cut in any::<Index>(), fix_crc in any::<bool>()
    ) {
        let mut manifest = empty();
        for place in 0..20 {
            manifest = manifest.with(LeaderEpoch(0), object(place * 10, place * 10 + 10)).unwrap();
        }
        manifest = manifest.expire(Writer::Compactor, at(30), millis(NOW)).unwrap();
        let (manifest, leaves) = manifest.pack(SMALL, Uuid::new_v4);
        for good in [manifest.encode(), leaves[0].1.encode()] {
            let mut bytes = good.clone();
            for (place, bits) in &flips {
                let place = place.index(bytes.len());
                bytes[place] ^= bits;
            }
            bytes.truncate(cut.index(bytes.len() * 2).max(12).min(bytes.len()));
            // With a right checksum the parser itself has to hold.
            if fix_crc {
                let body = bytes.len() - 4;
                let crc = crc32c::crc32c(&bytes[..body]);
                bytes[body..].copy_from_slice(&crc.to_be_bytes());
            } else if bytes != good {
                prop_assert!(Manifest::parse(&bytes).is_err() && Leaf::parse(&bytes).is_err());
            }
            if let Ok(parsed) = Manifest::parse(&bytes) {
                prop_assert_eq!(Manifest::parse(&parsed.encode()), Ok(parsed));
            }
            let _ = Leaf::parse(&bytes);
        }
    }
}

#[test]
fn a_publish_costs_about_the_same_with_ten_entries_or_ten_million() {
    let ten =
        (0..10).fold(empty(), |manifest, nth| manifest.with(LeaderEpoch(0), object(nth * 10, nth * 10 + 10)).unwrap());
    assert!(ten.encode().len() < 1_000);
    // Ten million entries as 2442 full leaves and the largest inline part.
    let mut huge = empty();
    let mut next = 0;
    let mut push = |huge: &mut Manifest, entries: u64| {
        let objects: Vec<_> = (0..entries).map(|nth| object(next + nth * 1000, next + (nth + 1) * 1000)).collect();
        next += entries * 1000;
        huge.end = at(next);
        Leaf { objects }
    };
    for _ in 0..2442 {
        let leaf = push(&mut huge, 4);
        let full = LeafRef { objects: 4096, bytes: 4096 << 27, ..LeafRef::to(Uuid::new_v4(), &leaf) };
        huge.chunks.push(super::version::Chunk::Leaf(full));
    }
    let inline = push(&mut huge, 1024);
    huge.chunks.push(super::version::Chunk::Inline(inline.objects));
    assert_eq!(huge.object_count(), 2442 * 4096 + 1024);
    let bytes = huge.encode();
    assert!(bytes.len() < 200_000, "{}", bytes.len());
    assert_eq!(Manifest::parse(&bytes).unwrap(), huge);
}

#[test]
fn a_deposed_leader_can_neither_append_nor_expire_nor_announce_itself() {
    let manifest = empty().claimed_by(LeaderEpoch(5)).unwrap();
    let fenced = ManifestError::Fenced { current: LeaderEpoch(5), mine: LeaderEpoch(4) };
    assert_eq!(manifest.with(LeaderEpoch(4), object(0, 10)).unwrap_err(), fenced);
    assert_eq!(manifest.expire(Writer::Leader(LeaderEpoch(4)), at(0), millis(NOW)).unwrap_err(), fenced);
    assert_eq!(manifest.claimed_by(LeaderEpoch(4)).unwrap_err(), fenced);
    assert_eq!(manifest.with(LeaderEpoch(6), object(0, 10)).unwrap_err(), ManifestError::Unclaimed(LeaderEpoch(6)));
    assert!(manifest.with(LeaderEpoch(5), object(0, 10)).is_ok());
}

#[test]
fn an_object_must_begin_where_coverage_ends() {
    let manifest = empty().with(LeaderEpoch(0), object(0, 10)).unwrap();
    let gap = manifest.with(LeaderEpoch(0), object(11, 20)).unwrap_err();
    assert_eq!(gap, ManifestError::Gap { expected: at(10), found: at(11) });
    assert!(matches!(manifest.with(LeaderEpoch(0), object(9, 20)), Err(ManifestError::Gap { .. })));
    assert!(matches!(manifest.with(LeaderEpoch(0), object(10, 10)), Err(ManifestError::Malformed(_))));
}

#[test]
fn a_stale_compactor_finds_its_sources_gone() {
    let (first, second) = (object(0, 10), object(10, 20));
    let manifest = empty().with(LeaderEpoch(0), first.clone()).unwrap().with(LeaderEpoch(0), second.clone()).unwrap();
    let sources = [first.clone(), second.clone()];
    let done = manifest.replace(&sources, vec![object(0, 20)], millis(NOW)).unwrap();
    assert_eq!(done.replace(&sources, vec![object(0, 20)], millis(NOW)), Err(ManifestError::Gone(first.id)));
    assert_eq!(manifest.replace(&sources, vec![object(0, 19)], millis(NOW)), Err(ManifestError::Coverage));
    assert_eq!(manifest.replace(&[second, first], vec![object(10, 20)], millis(NOW)), Err(ManifestError::Coverage));
}

#[test]
fn nothing_is_published_after_the_topic_was_deleted() {
    let manifest = empty().with(LeaderEpoch(0), object(0, 10)).unwrap().deleted(millis(NOW));
    assert_eq!((manifest.is_empty(), manifest.removed().len()), (true, 1));
    assert_eq!(manifest.with(LeaderEpoch(0), object(10, 20)), Err(ManifestError::Deleted));
    assert_eq!(manifest.claimed_by(LeaderEpoch(9)), Err(ManifestError::Deleted));
    assert!(manifest.swept(|_| true).removed().is_empty());
}

#[test]
fn leader_epochs_are_remembered_until_their_records_expire() {
    let epochs = |base, end, epochs: &[(u32, u64)]| RemoteObject {
        leader_epochs: epochs.iter().map(|(epoch, start)| (LeaderEpoch(*epoch), at(*start))).collect(),
        ..object(base, end)
    };
    let manifest = empty()
        .with(LeaderEpoch(0), epochs(0, 10, &[(0, 0), (2, 5)]))
        .and_then(|manifest| manifest.with(LeaderEpoch(0), epochs(10, 20, &[(2, 10), (3, 15)])))
        .unwrap();
    assert_eq!(manifest.epochs(), [(LeaderEpoch(0), at(0)), (LeaderEpoch(2), at(5)), (LeaderEpoch(3), at(15))]);
    assert_eq!(manifest.end_of_epoch(LeaderEpoch(1)), Some((LeaderEpoch(0), Some(at(5)))));
    assert_eq!(manifest.end_of_epoch(LeaderEpoch(3)), Some((LeaderEpoch(3), None)));
    let later = manifest.expire(Writer::Compactor, at(12), millis(NOW)).unwrap();
    assert_eq!(later.epochs(), [(LeaderEpoch(2), at(5)), (LeaderEpoch(3), at(15))]);
    assert_eq!(later.end_of_epoch(LeaderEpoch(1)), None);
}

#[test]
fn a_newer_format_is_told_from_damage() {
    let mut bytes = empty().encode();
    bytes[9] = 3;
    let body = bytes.len() - 4;
    let crc = crc32c::crc32c(&bytes[..body]);
    bytes[body..].copy_from_slice(&crc.to_be_bytes());
    assert_eq!(Manifest::parse(&bytes), Err(FormatError::Newer(3)));
}

#[test]
fn versions_may_be_pruned_only_below_the_present_one() {
    let manifest = empty().published(Version(41), Uuid::nil(), millis(NOW));
    assert_eq!(manifest.pruned_below(Version(40)).oldest_version(), Version(40));
    assert_eq!(manifest.pruned_below(Version(90)).oldest_version(), Version(42));
}

#[test]
fn an_archive_that_parted_from_its_leader_goes_on_with_it_and_sets_the_rest_aside() {
    let (old, new) = (LeaderEpoch(1), LeaderEpoch(2));
    let now = millis(NOW);
    let epoch_of = |object: RemoteObject, epoch| RemoteObject { leader_epochs: vec![(epoch, object.base)], ..object };
    let mut manifest = empty().claimed_by(old).unwrap();
    for (base, end) in [(0, 10), (10, 20), (20, 30)] {
        manifest = manifest.with(old, epoch_of(object(base, end), old)).unwrap();
    }
    // Only in the epoch that was announced last.
    assert_eq!(manifest.parted_at(new, at(14), vec![], now).unwrap_err(), ManifestError::Unclaimed(new));
    let manifest = manifest.claimed_by(new).unwrap();
    let fenced = ManifestError::Fenced { current: new, mine: old };
    assert_eq!(manifest.parted_at(old, at(14), vec![], now).unwrap_err(), fenced);
    // The object across the place is there again up to it, or nothing changes.
    let kept = epoch_of(object(10, 14), old);
    for wrong in [vec![], vec![object(10, 13)], vec![object(11, 14)]] {
        assert_eq!(manifest.parted_at(new, at(14), wrong, now).unwrap_err(), ManifestError::Coverage);
    }
    assert_eq!(manifest.parted_at(new, at(20), vec![kept.clone()], now).unwrap_err(), ManifestError::Coverage);
    assert_eq!(manifest.parted_at(new, at(30), vec![], now).unwrap(), manifest, "they did not part");
    let parted = manifest.parted_at(new, at(14), vec![kept], now).unwrap();
    assert_eq!((parted.end(), parted.object_count(), parted.removed().len()), (at(14), 2, 0));
    let aside: Vec<_> = parted.set_aside().iter().map(|aside| aside.entry.clone()).collect();
    assert!(
        matches!(&aside[..], [RemovedEntry::Object(one), RemovedEntry::Object(other)]
        if (one.base, other.base) == (at(10), at(20))),
        "{aside:?}"
    );
    let goes_on = parted.with(new, epoch_of(object(14, 40), new)).unwrap();
    assert_eq!(goes_on.epochs(), [(old, at(0)), (new, at(14))]);
    let read = Manifest::parse(&goes_on.encode()).unwrap();
    assert_eq!(read, goes_on, "what is set aside is in the bytes");
    assert_eq!(goes_on.swept(|_| true).set_aside().len(), 2, "the sweep does not take it");
    // With the topic it goes.
    let deleted = goes_on.deleted(now);
    assert_eq!((deleted.set_aside().len(), deleted.removed().len()), (0, 5));
}

#[test]
fn nothing_set_aside_is_written_as_before() {
    let manifest = empty().claimed_by(LeaderEpoch(1)).unwrap().with(LeaderEpoch(1), object(0, 5)).unwrap();
    assert_eq!(manifest.encode()[8..10], [0, 1]);
    let aside = manifest.parted_at(LeaderEpoch(1), at(0), vec![], millis(NOW)).unwrap();
    assert_eq!((aside.encode()[8..10].to_vec(), aside.end()), (vec![0, 2], at(0)));
}

#[test]
fn nothing_stays_of_an_archive_that_parted_below_its_log_start() {
    let epoch = LeaderEpoch(1);
    let manifest = empty().claimed_by(epoch).unwrap().with(epoch, object(0, 10)).unwrap();
    let manifest = manifest.expire(Writer::Leader(epoch), at(4), millis(NOW)).unwrap();
    assert_eq!(manifest.parted_at(epoch, at(2), vec![object(0, 4)], millis(NOW)), Err(ManifestError::Coverage));
    let parted = manifest.parted_at(epoch, at(2), vec![], millis(NOW)).unwrap();
    assert_eq!((parted.log_start().0, parted.end(), parted.is_empty()), (at(4), at(4), true));
    assert_eq!(Manifest::parse(&parted.encode()).unwrap(), parted);
}
