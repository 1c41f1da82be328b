//! The bucket: objects, the manifest's versions, and requests on their way there and back.
//!
//! It is as strict as S3 and no kinder: what is there is read at once by everybody, and a version is created once. But a request may get
//! no answer, and arrive all the same, at once, later or never, when its sender is deposed or dead.

use std::{
    collections::{BTreeMap, BTreeSet},
    hash::{Hash, Hasher},
    sync::Arc,
};

use uuid::Uuid;
use varve_metadata::model::{
    BrokerId, LeaderEpoch, Offset, PartitionId, PartitionIndex, Timestamp, TopicId, TopicName,
};
use varve_tiering::{
    layout,
    manifest::{Manifest, ObjectId, ObjectKind, RemoteObject},
};

use super::{
    Break, Violation, World,
    log::{Record, offset},
};

/// One version of the manifest, which states of the world are told apart by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Published(pub(super) Arc<Manifest>);

impl Published {
    /// What is read where nothing was published.
    pub(super) fn nothing() -> Published {
        let topic = TopicId::from_wire(Uuid::from_u128(0x5eed)).expect("an id");
        let name = TopicName::parse("simulated").expect("a name");
        Published(Arc::new(Manifest::new(PartitionId { topic, index: PartitionIndex(0) }, name)))
    }
}

impl Hash for Published {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let manifest = &self.0;
        (manifest.version(), manifest.nonce(), manifest.leader_epoch(), manifest.end()).hash(state);
        manifest.inline_objects().for_each(|object| (object.id, object.base, object.end).hash(state));
        (manifest.log_start().0, manifest.removed().len(), manifest.set_aside().len()).hash(state);
    }
}

/// An object: what a leader has in one stretch of its log.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Piece {
    pub(super) id: u16,
    pub(super) base: Offset,
    pub(super) end: Offset,
    /// Of the leader that brings it up.
    pub(super) epoch: LeaderEpoch,
    /// As it was brought up, by a leader.
    pub(super) is_raw: bool,
    pub(super) records: BTreeMap<Offset, Record>,
}

impl Piece {
    /// As the manifest lists it.
    pub(super) fn object(&self) -> RemoteObject {
        let mut leader_epochs: Vec<(LeaderEpoch, Offset)> = Vec::new();
        for (at, record) in &self.records {
            if leader_epochs.last().is_none_or(|(last, _)| *last != record.epoch) {
                leader_epochs.push((record.epoch, *at));
            }
        }
        RemoteObject {
            id: object_id(self.id),
            kind: if self.is_raw { ObjectKind::Raw } else { ObjectKind::Parquet },
            base: self.base,
            end: self.end,
            bytes: self.records.len() as u64,
            log_bytes: self.records.len() as u64,
            records: self.records.len() as u64,
            max_timestamp: None,
            writer_epoch: self.epoch,
            leader_epochs,
            crc32c: 0,
            shared_at: None,
        }
    }
}

fn object_id(id: u16) -> ObjectId {
    ObjectId(Uuid::from_u128(id.into()))
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Write {
    /// An object under a name of its own.
    Put(Piece),
    /// The manifest's next version, unless somebody has created that.
    Create(Published),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Reply {
    Done,
    /// The version is somebody's.
    Exists,
    /// It may have been done.
    Unknown,
    /// It was not sent.
    Away,
}

/// Who writes to the bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Sender {
    /// A broker that believes to lead in this epoch.
    Leader(BrokerId, LeaderEpoch),
    Compactor(usize),
}

impl Sender {
    fn epoch(self) -> Option<LeaderEpoch> {
        match self {
            Sender::Leader(_, epoch) => Some(epoch),
            Sender::Compactor(_) => None,
        }
    }
}

/// A write on its way to the bucket, or the reply on its way back.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Request {
    pub(super) from: Sender,
    pub(super) write: Write,
    pub(super) reply: Option<Reply>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Bucket {
    /// Each with its base.
    objects: BTreeMap<ObjectId, (Offset, BTreeMap<Offset, Record>)>,
    /// Those of them that were deleted.
    gone: BTreeSet<ObjectId>,
    /// The first has number 1.
    versions: Vec<Published>,
    pub(super) requests: Vec<Request>,
    /// What the sweep has listed before it reads the manifest: each object with its base.
    pub(super) listed: Option<BTreeMap<ObjectId, Offset>>,
    /// Writes that nobody waits for any more.
    pub(super) late: Vec<(Sender, Published)>,
    /// Ids drawn so far.
    drawn: u16,
    /// The newest epoch in which anything was published.
    newest_writer: LeaderEpoch,
    /// Of each key the last record is enough.
    pub(super) is_compacted: bool,
}

impl Bucket {
    /// The manifest in force.
    pub(super) fn newest(&self) -> Published {
        self.versions.last().cloned().unwrap_or_else(Published::nothing)
    }

    /// One version, if it was published.
    pub(super) fn version(&self, version: layout::Version) -> Option<&Published> {
        self.versions.get((version.0 as usize).checked_sub(1)?)
    }

    /// An id that nothing has.
    pub(super) fn draw(&mut self) -> u16 {
        self.drawn += 1;
        self.drawn
    }

    /// Takes an object.
    pub(super) fn put(&mut self, piece: Piece) {
        self.objects.insert(object_id(piece.id), (piece.base, piece.records));
    }

    pub(super) fn has_objects(&self) -> bool {
        self.objects.len() > self.gone.len()
    }

    /// All objects that are here, with their bases.
    pub(super) fn ids(&self) -> BTreeMap<ObjectId, Offset> {
        let here = self.objects.iter().filter(|(id, _)| !self.gone.contains(*id));
        here.map(|(id, (base, _))| (*id, *base)).collect()
    }

    pub(super) fn delete(&mut self, id: ObjectId) {
        self.gone.insert(id);
    }

    /// What an object holds of its range, if it is here.
    pub(super) fn records_in(&self, object: &RemoteObject) -> Option<BTreeMap<Offset, Record>> {
        let (_, records) = self.objects.get(&object.id).filter(|_| !self.gone.contains(&object.id))?;
        Some(records.range(object.base..object.end).map(|(at, record)| (*at, record.clone())).collect())
    }

    /// What is in the manifests that compactors have asked it to take.
    pub(super) fn asked_by_compactors(&self) -> impl Iterator<Item = ObjectId> {
        let asked = self.requests.iter().filter_map(|request| match &request.write {
            Write::Create(next) => Some((request.from, next)),
            Write::Put(_) => None,
        });
        let all = asked.chain(self.late.iter().map(|(from, next)| (*from, next)));
        let theirs = all.filter(|(from, _)| matches!(from, Sender::Compactor(_)));
        theirs.flat_map(|(_, next)| next.0.inline_objects().map(|object| object.id))
    }

    /// Takes a version of the manifest, if it is the next one. `epoch` is that of the leader that publishes it; without one a compactor
    /// does, or the sweep.
    pub(super) fn create(
        &mut self,
        epoch: Option<LeaderEpoch>,
        next: Published,
        overwrites: bool,
    ) -> Result<Reply, Violation> {
        let place = next.0.version().0 as usize - 1;
        if place < self.versions.len() && !overwrites {
            return Ok(Reply::Exists);
        }
        self.has_all_of(&next.0)?;
        let newest = self.newest();
        let (before, after) = (self.records_of(&newest.0)?, self.records_of(&next.0)?);
        let sets_aside = next.0.set_aside().len() > newest.0.set_aside().len();
        let may_go = |at: Offset| {
            let is_compacted = self.is_compacted && epoch.is_none();
            is_compacted || next.0.log_start().0 > at || sets_aside && at >= next.0.end()
        };
        let is_kept = before.iter().all(|(at, record)| may_go(*at) || after.get(at) == Some(record));
        let is_behind = after.keys().all(|at| before.contains_key(at) || *at >= newest.0.end());
        let is_leaders = next.0.end() == newest.0.end().max(next.0.log_start().0)
            && next.0.leader_epoch() == newest.0.leader_epoch()
            && next.0.set_aside() == newest.0.set_aside();
        let is_taken = is_kept && is_behind && (epoch.is_some() || is_leaders);
        if !is_taken || next.0.log_start() < newest.0.log_start() {
            return Err(Violation(format!("in epoch {epoch:?} the archive becomes {after:?} after {before:?}")));
        }
        self.versions.truncate(place);
        self.versions.push(next);
        if let Some(epoch) = epoch {
            let newest = self.newest_writer;
            if epoch < newest {
                let what = format!("a leader of epoch {epoch} changed the archive after one of epoch {newest}");
                return Err(Violation(what));
            }
            self.newest_writer = epoch;
        }
        Ok(Reply::Done)
    }

    /// What a manifest that is in force names is there.
    fn has_all_of(&self, manifest: &Manifest) -> Result<(), Violation> {
        let is_here = |id: &ObjectId| self.objects.contains_key(id) && !self.gone.contains(id);
        match manifest.inline_objects().find(|object| !is_here(&object.id)) {
            Some(object) => Err(Violation(format!("the manifest names {object:?}, which is not there"))),
            None => Ok(()),
        }
    }

    /// All records that a manifest answers for, or did when it was in force, by their offsets.
    pub(super) fn records_of(&self, manifest: &Manifest) -> Result<BTreeMap<Offset, &Record>, Violation> {
        let mut found = BTreeMap::new();
        for object in manifest.inline_objects() {
            let Some((_, records)) = self.objects.get(&object.id) else {
                return Err(Violation(format!("the manifest names {object:?}, which is not there")));
            };
            if records.range(object.base..object.end).count() as u64 != object.records {
                return Err(Violation(format!("{object:?} lacks records: {records:?}")));
            }
            found.extend(records.iter().map(|(at, record)| (*at, record)));
        }
        found.retain(|at, _| *at >= manifest.log_start().0);
        Ok(found)
    }
}

impl World {
    /// The same with an archive.
    pub(crate) fn archived(mut self) -> World {
        self.bucket = Some(Bucket::default());
        self
    }

    /// A request reaches the bucket, or the bucket's reply who asked.
    pub(super) fn reach_bucket(&mut self, place: usize) {
        let overwrites = self.is(Break::OverwritesVersions);
        let Some(bucket) = &mut self.bucket else { return };
        let request = bucket.requests[place].clone();
        let Some(reply) = request.reply else {
            let reply = match request.write {
                Write::Put(piece) => {
                    bucket.put(piece);
                    Ok(Reply::Done)
                }
                Write::Create(next) => bucket.create(request.from.epoch(), next, overwrites),
            };
            match reply {
                Ok(reply) => bucket.requests[place].reply = Some(reply),
                Err(violation) => self.note(violation),
            }
            return;
        };
        bucket.requests.remove(place);
        self.hand_over(request, reply);
    }

    fn hand_over(&mut self, Request { from, write, .. }: Request, reply: Reply) {
        match from {
            Sender::Leader(id, epoch) => self.take_reply((id, epoch), write, reply),
            Sender::Compactor(place) => self.take_rewrite_reply(place, write, reply),
        }
    }

    /// Puts a write on its way to the bucket.
    pub(super) fn request(&mut self, from: Sender, write: Write) {
        if let Some(bucket) = &mut self.bucket {
            bucket.requests.push(Request { from, write, reply: None });
        }
    }

    /// A request gets no reply. It is on its way.
    pub(super) fn lose_reply(&mut self, place: usize) {
        let Some(bucket) = &mut self.bucket else { return };
        let request = &mut bucket.requests[place];
        request.reply = Some(Reply::Unknown);
        // What is put under a name of its own does nothing until a manifest names it.
        if let Write::Create(next) = request.write.clone() {
            bucket.late.push((request.from, next));
        }
    }

    /// The bucket cannot be reached, which is known at once.
    pub(super) fn write_nothing(&mut self, place: usize) {
        let Some(bucket) = &mut self.bucket else { return };
        let request = bucket.requests.remove(place);
        self.hand_over(request, Reply::Away);
    }

    /// The requests of a process that is gone, or does not wait any more: each arrives now, later or never.
    pub(super) fn leave_requests(&mut self, is_gone: impl Fn(Sender) -> bool) {
        let Some(bucket) = &mut self.bucket else { return };
        for request in bucket.requests.extract_if(.., |request| is_gone(request.from)) {
            if let (Write::Create(next), None) = (request.write, request.reply) {
                bucket.late.push((request.from, next));
            }
        }
    }

    /// A write arrives for which nobody waits.
    pub(super) fn reach_bucket_late(&mut self, place: usize) {
        let overwrites = self.is(Break::OverwritesVersions);
        let Some(bucket) = &mut self.bucket else { return };
        let (from, next) = bucket.late.swap_remove(place);
        if let Err(violation) = bucket.create(from.epoch(), next, overwrites) {
            self.note(violation);
        }
    }

    /// Forgets late writes that somebody was faster than.
    pub(super) fn forget_what_comes_too_late(&mut self) {
        let overwrites = self.is(Break::OverwritesVersions);
        let Some(bucket) = &mut self.bucket else { return };
        let newest = bucket.newest().0.version();
        bucket.late.retain(|(_, next)| overwrites || next.0.version() > newest);
    }

    pub(super) fn note(&mut self, Violation(what): Violation) {
        self.violation.get_or_insert(what);
    }

    pub(super) fn the_archive_is_there(&self) -> Result<(), Violation> {
        self.bucket.as_ref().map_or(Ok(()), |bucket| bucket.has_all_of(&bucket.newest().0))
    }

    /// What the archive answers for is what was committed there, and it has what lies before a log, unless that is deleted.
    pub(super) fn the_archive_holds_what_was_committed(&self) -> Result<(), Violation> {
        let Some(bucket) = &self.bucket else { return Ok(()) };
        let newest = bucket.newest();
        let archived = bucket.records_of(&newest.0)?;
        for (at, record) in &archived {
            if self.committed.get(at.get() as usize) != Some(*record) {
                let committed = self.committed.get(at.get() as usize);
                return Err(Violation(format!("{record:?} is archived at {at}, and {committed:?} is committed")));
            }
        }
        for (broker, id) in self.brokers.iter().zip(self.ids()) {
            let (log, archived) = (&broker.log, newest.0.end());
            if log.start > log.log_start.min(log.kept_start) && log.start > archived {
                let start = log.start;
                return Err(Violation(format!(
                    "the log of {id} begins at {start}, and the archive ends at {archived}"
                )));
            }
        }
        if self.is_compacted() {
            return self.the_archive_has_the_last_of_each_key(&newest.0, &archived);
        }
        let covered = newest.0.log_start().0.max(self.deletions.may_be_gone_below()).get()..newest.0.end().get();
        match covered.into_iter().find(|at| !archived.contains_key(&offset(*at as usize))) {
            Some(at) => Err(Violation(format!("the archive lacks {at}: {archived:?}"))),
            None => Ok(()),
        }
    }

    /// Where the archive starts.
    pub(super) fn archived_start(&self) -> Offset {
        self.bucket.as_ref().map_or(Offset::ZERO, |bucket| bucket.newest().0.log_start().0)
    }

    /// Where it ends.
    pub(super) fn archived_end(&self) -> Offset {
        self.bucket.as_ref().map_or(Offset::ZERO, |bucket| bucket.newest().0.end())
    }

    /// What a reader finds at an offset that is not on the disk of the leader.
    pub(super) fn archived_at(&self, at: Offset) -> Option<Record> {
        let bucket = self.bucket.as_ref()?;
        let records = bucket.records_of(&bucket.newest().0).ok()?;
        records.get(&at).map(|record| (*record).clone())
    }

    /// A manifest as it is published.
    pub(super) fn as_published(next: Manifest, seen: layout::Version, nonce: u16) -> Published {
        Published(Arc::new(next.published(seen, Uuid::from_u128(nonce.into()), Timestamp::default())))
    }
}
