//! The bucket: objects, the manifest's versions, and requests on their way there and back.
//!
//! It is as strict as S3 and no kinder: what is there is read at once by everybody, and a version is created once. But a request may get
//! no answer, and arrive all the same, at once, later or never, when its sender is deposed or dead.

use std::{
    collections::BTreeMap,
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

use super::{Break, Violation, World, log::Record};

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
        manifest.set_aside().len().hash(state);
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
    pub(super) records: Vec<Record>,
}

impl Piece {
    /// As the manifest lists it.
    pub(super) fn object(&self) -> RemoteObject {
        let mut leader_epochs: Vec<(LeaderEpoch, Offset)> = Vec::new();
        let first = self.end.get().saturating_sub(self.records.len() as u64);
        for (at, record) in (first..).zip(&self.records) {
            if leader_epochs.last().is_none_or(|(last, _)| *last != record.epoch) {
                leader_epochs.push((record.epoch, Offset::new(at).expect("a small number")));
            }
        }
        RemoteObject {
            id: object_id(self.id),
            kind: ObjectKind::Raw,
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

/// A write on its way to the bucket, or the reply on its way back.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Request {
    pub(super) from: BrokerId,
    /// The epoch in which the sender believes to lead.
    pub(super) epoch: LeaderEpoch,
    pub(super) write: Write,
    pub(super) reply: Option<Reply>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Bucket {
    objects: BTreeMap<ObjectId, (Offset, Vec<Record>)>,
    /// The first has number 1.
    versions: Vec<Published>,
    pub(super) requests: Vec<Request>,
    /// Writes that nobody waits for any more.
    pub(super) late: Vec<(LeaderEpoch, Published)>,
    /// Ids drawn so far.
    drawn: u16,
    /// The newest epoch in which anything was published.
    newest_writer: LeaderEpoch,
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

    /// Takes a version of the manifest, if it is the next one.
    pub(super) fn create(&mut self, epoch: LeaderEpoch, next: Published, overwrites: bool) -> Result<Reply, Violation> {
        let place = next.0.version().0 as usize - 1;
        if place < self.versions.len() && !overwrites {
            return Ok(Reply::Exists);
        }
        let newest = self.newest();
        let (before, after) = (self.records_of(&newest.0)?, self.records_of(&next.0)?);
        let sets_aside = next.0.set_aside().len() > newest.0.set_aside().len();
        let is_kept = after.starts_with(&before) || sets_aside && before.starts_with(&after);
        if !is_kept {
            return Err(Violation(format!("in epoch {epoch} the archive becomes {after:?} after {before:?}")));
        }
        self.versions.truncate(place);
        self.versions.push(next);
        if epoch < self.newest_writer {
            let newest = self.newest_writer;
            return Err(Violation(format!(
                "a leader of epoch {epoch} changed the archive after one of epoch {newest}"
            )));
        }
        self.newest_writer = epoch;
        Ok(Reply::Done)
    }

    /// All records that a manifest answers for, in order of their offsets.
    pub(super) fn records_of(&self, manifest: &Manifest) -> Result<Vec<&Record>, Violation> {
        let mut found = Vec::new();
        for object in manifest.inline_objects() {
            let Some((base, records)) = self.objects.get(&object.id) else {
                return Err(Violation(format!("the manifest names {object:?}, which is not there")));
            };
            let skipped = (object.base.get() - base.get()) as usize;
            let length = (object.end.get() - object.base.get()) as usize;
            let Some(part) = records.get(skipped..skipped + length) else {
                return Err(Violation(format!("{object:?} lacks records: {records:?}")));
            };
            found.extend(part);
        }
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
                Write::Create(next) => bucket.create(request.epoch, next, overwrites),
            };
            match reply {
                Ok(reply) => bucket.requests[place].reply = Some(reply),
                Err(violation) => self.note(violation),
            }
            return;
        };
        bucket.requests.remove(place);
        self.take_reply(request, reply);
    }

    /// A request gets no reply. It is on its way.
    pub(super) fn lose_reply(&mut self, place: usize) {
        let Some(bucket) = &mut self.bucket else { return };
        let request = &mut bucket.requests[place];
        request.reply = Some(Reply::Unknown);
        // What is put under a name of its own does nothing until a manifest names it.
        if let Write::Create(next) = request.write.clone() {
            let epoch = request.epoch;
            bucket.late.push((epoch, next));
        }
    }

    /// The bucket cannot be reached, which is known at once.
    pub(super) fn write_nothing(&mut self, place: usize) {
        let Some(bucket) = &mut self.bucket else { return };
        let request = bucket.requests.remove(place);
        self.take_reply(request, Reply::Away);
    }

    /// The requests of a process that is gone, or does not wait any more: each arrives now, later or never.
    pub(super) fn leave_requests(&mut self, id: BrokerId) {
        let Some(bucket) = &mut self.bucket else { return };
        for request in bucket.requests.extract_if(.., |request| request.from == id) {
            if let (Write::Create(next), None) = (request.write, request.reply) {
                bucket.late.push((request.epoch, next));
            }
        }
    }

    /// A write arrives for which nobody waits.
    pub(super) fn reach_bucket_late(&mut self, place: usize) {
        let overwrites = self.is(Break::OverwritesVersions);
        let Some(bucket) = &mut self.bucket else { return };
        let (epoch, next) = bucket.late.swap_remove(place);
        if let Err(violation) = bucket.create(epoch, next, overwrites) {
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

    /// What the archive answers for is what was committed there, and no log begins behind its end.
    pub(super) fn the_archive_holds_what_was_committed(&self) -> Result<(), Violation> {
        let Some(bucket) = &self.bucket else { return Ok(()) };
        let newest = bucket.newest();
        let archived = bucket.records_of(&newest.0)?;
        for (at, record) in archived.iter().enumerate() {
            if self.committed.get(at) != Some(*record) {
                let committed = self.committed.get(at);
                return Err(Violation(format!("{record:?} is archived at {at}, and {committed:?} is committed")));
            }
        }
        for (broker, id) in self.brokers.iter().zip(self.ids()) {
            if broker.log.start.get() > archived.len() as u64 {
                let (start, end) = (broker.log.start, archived.len());
                return Err(Violation(format!("the log of {id} begins at {start}, the archive ends at {end}")));
            }
        }
        Ok(())
    }

    /// What a reader finds at an offset that is not on the disk of the leader.
    pub(super) fn archived_at(&self, at: Offset) -> Option<Record> {
        let bucket = self.bucket.as_ref()?;
        let records = bucket.records_of(&bucket.newest().0).ok()?;
        records.get(at.get() as usize).map(|record| (*record).clone())
    }

    /// A manifest as it is published.
    pub(super) fn as_published(next: Manifest, seen: layout::Version, nonce: u16) -> Published {
        Published(Arc::new(next.published(seen, Uuid::from_u128(nonce.into()), Timestamp::default())))
    }
}
