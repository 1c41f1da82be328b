//! Compactors beside each other and beside leaders: what each does is planned by the manifest that it knows, and published if that is
//! still so. Whose turn it is says nothing: one that slept is stopped by the race for the next version alone.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    hash::{Hash, Hasher},
    sync::LazyLock,
};

use varve_compactor::plan::{self, Limits, Round, Situation, Work};
use varve_log::local::cleaner::{KeyDigest, LatestOffsets, OffsetMap};
use varve_metadata::{
    config::{CleanupPolicy, TopicConfig},
    model::{Offset, Timestamp},
};
use varve_tiering::manifest::{Manifest, ManifestError, ObjectId, ObjectKind, RemoteObject, Writer};

use super::{
    Action, Break, Violation, World,
    bucket::{Bucket, Piece, Published, Reply, Sender, Write},
    log::Record,
};

/// Two records make a large object.
const LIMITS: Limits = Limits { small: 2, target: 2, fan_in: 4 };

static SETTINGS: LazyLock<TopicConfig> = LazyLock::new(|| TopicConfig {
    min_cleanable_dirty_ratio: 0.0,
    retention_time: None,
    retention_bytes: None,
    ..TopicConfig::default()
});

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Compactor {
    /// The newest manifest that it has seen; `None` before it has asked.
    known: Option<Published>,
    /// What it publishes, one after the other.
    steps: VecDeque<Step>,
    doing: Doing,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
enum Doing {
    #[default]
    Nothing,
    /// The object of the first step is on its way.
    Puts,
    /// A version of the manifest is.
    Publishes { nonce: u16 },
    /// A version that was to be created is somebody's, or may be its own.
    Asks { nonce: u16, tried: Published },
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    /// Another object takes the place of these.
    Replace(Vec<RemoteObject>, Piece),
    /// Keys are compacted up to there.
    Clean(Offset),
    /// The log starts there.
    Expire(Offset),
}

impl Hash for Step {
    fn hash<H: Hasher>(&self, state: &mut H) {
        match self {
            Step::Replace(sources, piece) => {
                sources.iter().for_each(|source| source.id.hash(state));
                piece.hash(state);
            }
            Step::Clean(end) => (1, end).hash(state),
            Step::Expire(start) => (2, start).hash(state),
        }
    }
}

impl Record {
    fn key(&self) -> [u8; 1] {
        [(self.value % 2) as u8]
    }

    /// Every other value of a key says that the key is gone.
    fn is_tombstone(&self) -> bool {
        self.value / 2 % 2 == 1
    }
}

impl World {
    /// The same with so many compactors.
    pub(crate) fn with_compactors(mut self, count: usize) -> World {
        self.compactors.resize_with(count, Compactor::default);
        self
    }

    /// Of each key the last record is enough.
    pub(super) fn is_compacted(&self) -> bool {
        self.bucket.as_ref().is_some_and(|bucket| bucket.is_compacted)
    }

    /// The same with keys of which the last record is enough.
    pub(crate) fn compacted(mut self) -> World {
        if let Some(bucket) = &mut self.bucket {
            bucket.is_compacted = true;
        }
        self
    }

    pub(super) fn add_compactor_actions(&self, actions: &mut Vec<Action>) {
        for (place, compactor) in self.compactors.iter().enumerate() {
            let is_due = match compactor.doing {
                Doing::Nothing => self.budget.compactions > 0 || !compactor.steps.is_empty(),
                Doing::Asks { .. } => true,
                Doing::Puts | Doing::Publishes { .. } => false,
            };
            if is_due {
                actions.push(Action::Compact(place));
            }
            if self.budget.compactor_ends > 0 && compactor.known.is_some() {
                actions.push(Action::EndCompactor(place));
            }
        }
    }

    /// A compactor goes on to its next write, or looks what there is to do.
    pub(super) fn compact(&mut self, place: usize) {
        let Compactor { steps, doing, .. } = self.compactors[place].clone();
        match (doing, steps.front()) {
            (Doing::Asks { nonce, tried }, _) => self.settle_rewrite(place, nonce, &tried),
            (Doing::Nothing, Some(Step::Replace(_, piece))) => {
                self.compactors[place].doing = Doing::Puts;
                self.request(Sender::Compactor(place), Write::Put(piece.clone()));
            }
            (Doing::Nothing, Some(_)) => self.publish_rewrite(place),
            (Doing::Nothing, None) => self.plan_rewrites(place),
            (Doing::Puts | Doing::Publishes { .. }, _) => {}
        }
    }

    /// The process ends.
    pub(super) fn end_compactor(&mut self, place: usize) {
        self.leave_requests(|from| from == Sender::Compactor(place));
        self.compactors[place] = Compactor::default();
    }

    fn learn_for(&mut self, place: usize) -> Published {
        let newest = self.bucket.as_ref().map_or_else(Published::nothing, |bucket| bucket.newest());
        self.compactors[place].known = Some(newest.clone());
        newest
    }

    /// By what it knows, which may be old; it asks anew where that leaves nothing to do.
    fn plan_rewrites(&mut self, place: usize) {
        let known = match self.compactors[place].known.clone() {
            Some(known) if !self.planned(&known.0).is_empty() => known,
            _ => self.learn_for(place),
        };
        let works = self.planned(&known.0);
        if works.is_empty() {
            return;
        }
        self.budget.compactions = self.budget.compactions.saturating_sub(1);
        let mut steps = VecDeque::new();
        for work in works {
            let made = match work {
                Work::Expire(start) => {
                    self.let_go_archived(start, &known.0);
                    Some(vec![Step::Expire(start)])
                }
                Work::Rewrite(sources) => self.joined(sources).map(|step| vec![step]),
                Work::Compact(round) => self.surveyed(&round),
            };
            // An object that it knows of is gone: it asks for the manifest.
            let Some(made) = made else {
                self.learn_for(place);
                return;
            };
            steps.extend(made);
        }
        self.compactors[place].steps = steps;
    }

    fn planned(&self, manifest: &Manifest) -> Vec<Work> {
        if manifest.is_empty() {
            return Vec::new();
        }
        let objects: Vec<RemoteObject> = manifest.inline_objects().cloned().collect();
        let cleanup = CleanupPolicy { delete: true, compact: self.is_compacted() };
        let config = TopicConfig { cleanup, retention_bytes: self.retention, ..SETTINGS.clone() };
        let (local_bytes, now) = (0, Timestamp::default());
        let (objects, config, limits) = (objects.as_slice(), &config, &LIMITS);
        plan::plan(&Situation { manifest, objects, config, limits, local_bytes, may_compact: true, now })
    }

    /// One object of neighbours.
    fn joined(&mut self, sources: Vec<RemoteObject>) -> Option<Step> {
        let bucket = self.bucket.as_mut()?;
        let records: Option<Vec<_>> = sources.iter().map(|source| bucket.records_in(source)).collect();
        let records = records?.into_iter().flatten().collect();
        Some(rewritten(bucket, sources, records))
    }

    /// Key compaction, as `compactor/src/compact.rs` does it: which record is the last of its key, and then each object that holds others,
    /// in their order. What says that a key is gone goes with what it speaks of.
    fn surveyed(&mut self, round: &Round) -> Option<Vec<Step>> {
        let is_backwards = self.is(Break::CompactsTheNewestFirst);
        let bucket = self.bucket.as_mut()?;
        let sources: Option<Vec<_>> =
            round.objects.iter().map(|object| Some((object, bucket.records_in(object)?))).collect();
        let sources = sources?;
        let mut latest = OffsetMap::new(0);
        for (object, records) in sources.iter().filter(|(object, _)| object.end > round.first_dirty) {
            for (at, record) in records.range(round.first_dirty..) {
                latest.put(KeyDigest::of(&record.key()), *at);
            }
            latest.cover(object.end);
        }
        let end = LatestOffsets::end(&latest).min(round.end);
        let stays =
            |at: Offset, record: &Record| at >= end || latest.is_latest(&record.key(), at) && !record.is_tombstone();
        let mut steps = Vec::new();
        for (object, records) in sources.into_iter().filter(|(object, _)| object.base < end) {
            let kept: BTreeMap<Offset, Record> = records
                .iter()
                .filter(|(at, record)| stays(**at, record))
                .map(|(at, record)| (*at, record.clone()))
                .collect();
            if kept.len() < records.len() || object.kind == ObjectKind::Raw {
                steps.push(rewritten(bucket, vec![object.clone()], kept));
            }
        }
        if is_backwards {
            steps.reverse();
        }
        steps.push(Step::Clean(end));
        Some(steps)
    }

    /// One try at the version after the newest known one.
    fn publish_rewrite(&mut self, place: usize) {
        let Compactor { known, steps, .. } = self.compactors[place].clone();
        let (base, Some(step)) = (known.unwrap_or_else(Published::nothing).0, steps.front()) else { return };
        let next = match step {
            Step::Replace(_, piece) if self.is(Break::ReplacesWhateverLiesThere) => {
                let within = |object: &&RemoteObject| object.base >= piece.base && object.end <= piece.end;
                let there: Vec<RemoteObject> = base.inline_objects().filter(within).cloned().collect();
                base.replace(&there, vec![piece.object()], Timestamp::default())
            }
            Step::Replace(sources, piece) => base.replace(sources, vec![piece.object()], Timestamp::default()),
            Step::Clean(end) => base.cleaned(*end),
            Step::Expire(start) => base.expire(Writer::Compactor, *start, Timestamp::default()),
        };
        match next {
            Ok(next) if next == *base => self.rewrite_published(place),
            Ok(next) => {
                let nonce = self.draw();
                self.compactors[place].doing = Doing::Publishes { nonce };
                let next = World::as_published(next, base.version(), nonce);
                self.request(Sender::Compactor(place), Write::Create(next));
            }
            // Somebody else was first. What it has made is an orphan.
            Err(error) => {
                debug_assert!(!matches!(error, ManifestError::Fenced { .. }));
                self.rest(place);
            }
        }
    }

    fn let_go_archived(&mut self, start: Offset, manifest: &Manifest) {
        let stays = manifest.inline_objects().filter(|object| object.end > start);
        let left: u64 = stays.map(|object| object.log_bytes).sum();
        if start > manifest.log_start().0 && left < self.retention.unwrap_or(u64::MAX) {
            self.note(Violation(format!("a compactor lets go what lies before {start}, and {left} records are left")));
        }
        self.deletions.may_go_below(start);
    }

    fn rewrite_published(&mut self, place: usize) {
        let compactor = &mut self.compactors[place];
        compactor.steps.pop_front();
        compactor.doing = Doing::Nothing;
    }

    /// It gives up what it was about to do.
    fn rest(&mut self, place: usize) {
        let compactor = &mut self.compactors[place];
        compactor.steps.clear();
        compactor.doing = Doing::Nothing;
    }

    fn settle_rewrite(&mut self, place: usize, nonce: u16, tried: &Published) {
        let newest = self.learn_for(place);
        let there = self.bucket.as_ref().and_then(|bucket| bucket.version(tried.0.version()).cloned());
        if there.is_some_and(|there| there.0.nonce() == tried.0.nonce()) {
            self.rewrite_published(place);
        } else if self.is(Break::PublishesStaleRewrites) && newest.0.version() >= tried.0.version() {
            self.compactors[place].doing = Doing::Publishes { nonce };
            let next = World::as_published(Manifest::clone(&tried.0), newest.0.version(), nonce);
            self.request(Sender::Compactor(place), Write::Create(next));
        } else {
            self.publish_rewrite(place);
        }
    }

    /// The bucket's reply reaches the compactor that waits for it.
    pub(super) fn take_rewrite_reply(&mut self, place: usize, write: Write, reply: Reply) {
        match (self.compactors[place].doing.clone(), write, reply) {
            (Doing::Puts, Write::Put(_), Reply::Done) => self.publish_rewrite(place),
            (Doing::Publishes { .. }, Write::Create(next), Reply::Done) => {
                self.compactors[place].known = Some(next);
                self.rewrite_published(place);
            }
            (Doing::Publishes { nonce }, Write::Create(tried), Reply::Exists | Reply::Unknown) => {
                self.compactors[place].doing = Doing::Asks { nonce, tried };
            }
            _ => self.rest(place),
        }
    }

    /// Objects that compactors are about to publish, or have asked the bucket to: they do so well within the sweep's grace period, or
    /// never.
    pub(super) fn published_in_time(&self) -> BTreeSet<ObjectId> {
        let made = self.compactors.iter().flat_map(|compactor| &compactor.steps).filter_map(|step| match step {
            Step::Replace(_, piece) => Some(piece.object().id),
            Step::Clean(_) | Step::Expire(_) => None,
        });
        let asked = self.bucket.iter().flat_map(|bucket| bucket.asked_by_compactors());
        made.chain(asked).collect()
    }

    /// What the archive holds of each key that was committed: its last record, unless that says that the key is gone, and it is.
    pub(super) fn the_archive_has_the_last_of_each_key(
        &self,
        manifest: &Manifest,
        archived: &BTreeMap<Offset, &Record>,
    ) -> Result<(), Violation> {
        let start = manifest.log_start().0.max(self.deletions.may_be_gone_below());
        let (start, end) = (start.get() as usize, manifest.end().get() as usize);
        let covered = self.committed.get(start..end.min(self.committed.len())).unwrap_or_default();
        let mut last: BTreeMap<[u8; 1], (usize, &Record)> = BTreeMap::new();
        for (at, record) in (start..).zip(covered) {
            last.insert(record.key(), (at, record));
        }
        for (key, (at, record)) in last {
            let (found, older) = archived.iter().filter(|(_, record)| record.key() == key).fold(
                (false, false),
                |(found, older), (found_at, _)| {
                    let found_at = found_at.get() as usize;
                    (found || found_at == at, older || found_at < at)
                },
            );
            if !(found || record.is_tombstone() && !older) {
                return Err(Violation(format!(
                    "the archive lacks the last of a key, {record:?} at {at}: {archived:?}"
                )));
            }
        }
        Ok(())
    }
}

/// What takes the place of `sources`.
fn rewritten(bucket: &mut Bucket, sources: Vec<RemoteObject>, records: BTreeMap<Offset, Record>) -> Step {
    let (Some(first), Some(last)) = (sources.first(), sources.last()) else { return Step::Clean(Offset::ZERO) };
    let (base, end, epoch) = (first.base, last.end, last.writer_epoch);
    let piece = Piece { id: bucket.draw(), base, end, epoch, is_raw: false, records };
    Step::Replace(sources, piece)
}
