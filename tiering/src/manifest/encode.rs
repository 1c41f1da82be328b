//! The bytes of manifests and leaves.
//!
//! ```text
//!   magic (8) │ format version (u16, big endian) │ body │ CRC-32C of all before (u32, big endian)
//! ```
//! Version 2 of a manifest is version 1 and, at the end, the list of what is set aside; it is written only where that is not empty.
//!
//! In the body numbers are LEB128 varints, ids 16 bytes, texts length and UTF-8, `Option`s a presence byte (timestamps:
//! 0 for none, else millis + 1), lists a count and the items. An object's offsets are relative to what precedes it.
//! Bytes from the bucket are not trusted: counts are checked against what is left before anything is allocated, and what
//! parses keeps every promise of the type.

use uuid::Uuid;
use varve_metadata::model::{LeaderEpoch, Offset, PartitionId, PartitionIndex, Timestamp, TopicId, TopicName};

use super::{
    edit::check_object,
    entry::{ObjectId, ObjectKind, RemoteObject, Removed, RemovedEntry},
    leaf::{Leaf, LeafRef},
    version::{Chunk, Manifest},
};
use crate::layout::Version;

const MANIFEST_MAGIC: &[u8; 8] = b"varveman";
const LEAF_MAGIC: &[u8; 8] = b"varvelef";
const FORMAT: u16 = 1;
/// A manifest with something set aside.
const FORMAT_WITH_ASIDE: u16 = 2;
/// Largest manifest that is read.
pub const MAX_MANIFEST_BYTES: u64 = 64 << 20;
/// Largest leaf that is read.
pub const MAX_LEAF_BYTES: u64 = 16 << 20;

/// Why bytes are no manifest or leaf.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    /// Written by a newer Varve: upgrade before touching this partition.
    #[error("format version {0} is newer than this program")]
    Newer(u16),
    /// Damaged or not ours.
    #[error("not a valid manifest or leaf: {0}")]
    Corrupt(&'static str),
}

impl Manifest {
    /// The bytes of this version.
    pub fn encode(&self) -> Vec<u8> {
        let is_plain = self.set_aside.is_empty();
        let mut out = Out::new(MANIFEST_MAGIC, if is_plain { FORMAT } else { FORMAT_WITH_ASIDE });
        out.id(self.partition.topic.to_wire());
        out.number(u64::from(self.partition.index.0));
        out.text(self.topic.as_str());
        out.number(self.version.0);
        out.id(self.nonce);
        out.number(self.published_at.millis());
        out.number(u64::from(self.leader_epoch.0));
        for offset in [self.log_start, self.end, self.clean_until] {
            out.number(offset.get());
        }
        out.number(self.oldest_version.0);
        out.timestamp(self.deleted_at);
        out.epochs(&self.epochs);
        out.number(self.chunks.len() as u64);
        for chunk in &self.chunks {
            match chunk {
                Chunk::Inline(run) => {
                    out.byte(0);
                    out.objects(run);
                }
                Chunk::Leaf(leaf) => {
                    out.byte(1);
                    out.leaf(leaf);
                }
            }
        }
        out.removed(&self.removed);
        if !is_plain {
            out.removed(&self.set_aside);
        }
        out.finish()
    }

    /// Reads what [`Manifest::encode`] wrote.
    ///
    /// # Errors
    /// [`FormatError`] for anything else; never panics, and allocates no more than a small multiple of `bytes`.
    pub fn parse(bytes: &[u8]) -> Result<Manifest, FormatError> {
        let (format, mut from) = In::open(bytes, MANIFEST_MAGIC, MAX_MANIFEST_BYTES, FORMAT_WITH_ASIDE)?;
        let topic = TopicId::from_wire(from.id()?).ok_or(FormatError::Corrupt("topic id"))?;
        let index = PartitionIndex(from.narrow("partition")?);
        let manifest = Manifest {
            partition: PartitionId { topic, index },
            topic: TopicName::parse(from.text()?).map_err(|_| FormatError::Corrupt("topic name"))?,
            version: Version(from.number()?),
            nonce: from.id()?,
            published_at: from.millis()?,
            leader_epoch: LeaderEpoch(from.narrow("leader epoch")?),
            log_start: from.offset()?,
            end: from.offset()?,
            clean_until: from.offset()?,
            oldest_version: Version(from.number()?),
            deleted_at: from.timestamp()?,
            epochs: from.epochs()?,
            chunks: from.list(2, |from| match from.byte()? {
                0 => Ok(Chunk::Inline(from.objects()?)),
                1 => Ok(Chunk::Leaf(from.leaf()?)),
                _ => Err(FormatError::Corrupt("chunk kind")),
            })?,
            removed: from.removed()?,
            set_aside: if format == FORMAT { Vec::new() } else { from.removed()? },
        };
        from.close()?;
        if format != FORMAT && manifest.set_aside.is_empty() {
            return Err(FormatError::Corrupt("nothing is set aside"));
        }
        manifest.check_whole()?;
        Ok(manifest)
    }

    /// Coverage is unbroken, ends at `end`, and reaches above the log start.
    pub(super) fn check_whole(&self) -> Result<(), FormatError> {
        let mut chunks = self.chunks.iter().peekable();
        if chunks.peek().is_some_and(|first| first.end() <= self.log_start) {
            return Err(FormatError::Corrupt("an expired object is listed"));
        }
        let covered = self.chunks.first().map_or(self.end, Chunk::base);
        let end = chunks.try_fold(covered, |expected, chunk| (chunk.base() == expected).then(|| chunk.end()));
        let epochs = self.epochs.windows(2).all(|pair| pair[0].0 < pair[1].0 && pair[0].1 < pair[1].1);
        if end != Some(self.end) {
            Err(FormatError::Corrupt("coverage has a gap"))
        } else if self.log_start > self.end || self.clean_until > self.end || !epochs {
            Err(FormatError::Corrupt("offsets or epochs out of order"))
        } else {
            Ok(())
        }
    }
}

impl Leaf {
    /// The bytes of this leaf.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Out::new(LEAF_MAGIC, FORMAT);
        out.objects(&self.objects);
        out.finish()
    }

    /// Reads what [`Leaf::encode`] wrote.
    ///
    /// # Errors
    /// [`FormatError`] for anything else.
    pub fn parse(bytes: &[u8]) -> Result<Leaf, FormatError> {
        let (_, mut from) = In::open(bytes, LEAF_MAGIC, MAX_LEAF_BYTES, FORMAT)?;
        let objects = from.objects()?;
        from.close()?;
        Ok(Leaf { objects })
    }
}

struct Out(Vec<u8>);

impl Out {
    fn new(magic: &[u8; 8], format: u16) -> Out {
        let mut out = Out(magic.to_vec());
        out.0.extend(format.to_be_bytes());
        out
    }

    fn finish(mut self) -> Vec<u8> {
        let crc = crc32c::crc32c(&self.0);
        self.0.extend(crc.to_be_bytes());
        self.0
    }

    fn byte(&mut self, byte: u8) {
        self.0.push(byte);
    }

    fn number(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.byte(value as u8 | 0x80);
            value >>= 7;
        }
        self.byte(value as u8);
    }

    fn id(&mut self, id: Uuid) {
        self.0.extend(id.as_bytes());
    }

    fn text(&mut self, text: &str) {
        self.number(text.len() as u64);
        self.0.extend(text.as_bytes());
    }

    fn timestamp(&mut self, at: Option<Timestamp>) {
        self.number(at.map_or(0, |at| at.millis() + 1));
    }

    fn epochs(&mut self, epochs: &[(LeaderEpoch, Offset)]) {
        self.number(epochs.len() as u64);
        for (epoch, start) in epochs {
            self.number(u64::from(epoch.0));
            self.number(start.get());
        }
    }

    fn objects(&mut self, run: &[RemoteObject]) {
        self.number(run.len() as u64);
        let mut base = Offset::ZERO;
        for object in run {
            self.object(object, base);
            base = object.end;
        }
    }

    fn object(&mut self, object: &RemoteObject, after: Offset) {
        self.id(object.id.0);
        self.byte(u8::from(object.kind == ObjectKind::Parquet));
        self.number(object.base.since(after));
        self.number(object.end.since(object.base));
        for value in [object.bytes, object.log_bytes, object.records] {
            self.number(value);
        }
        self.timestamp(object.max_timestamp);
        self.number(u64::from(object.writer_epoch.0));
        self.epochs(&object.leader_epochs);
        self.0.extend(object.crc32c.to_be_bytes());
        self.byte(u8::from(object.shared_at.is_some()));
        if let Some(at) = object.shared_at {
            self.number(at);
        }
    }

    fn removed(&mut self, removed: &[Removed]) {
        self.number(removed.len() as u64);
        for removed in removed {
            self.number(removed.at.millis());
            match &removed.entry {
                RemovedEntry::Object(object) => {
                    self.byte(0);
                    self.object(object, Offset::ZERO);
                }
                RemovedEntry::Leaf(leaf) => {
                    self.byte(1);
                    self.leaf(leaf);
                }
            }
        }
    }

    fn leaf(&mut self, leaf: &LeafRef) {
        self.id(leaf.id);
        self.number(leaf.base.get());
        self.number(leaf.end.since(leaf.base));
        for value in [leaf.objects, leaf.bytes, leaf.log_bytes, leaf.records] {
            self.number(value);
        }
        self.timestamp(leaf.max_timestamp);
    }
}

struct In<'a>(&'a [u8]);

type Parsed<T> = Result<T, FormatError>;

impl<'a> In<'a> {
    /// The format version, `newest` at most, and the body.
    fn open(bytes: &'a [u8], magic: &[u8; 8], limit: u64, newest: u16) -> Parsed<(u16, In<'a>)> {
        if bytes.len() as u64 > limit {
            return Err(FormatError::Corrupt("too large"));
        }
        let (body, crc) = bytes.split_last_chunk().ok_or(FormatError::Corrupt("too short"))?;
        if crc32c::crc32c(body) != u32::from_be_bytes(*crc) {
            return Err(FormatError::Corrupt("checksum"));
        }
        let body = body.strip_prefix(magic).ok_or(FormatError::Corrupt("magic"))?;
        let (version, body) = body.split_first_chunk().ok_or(FormatError::Corrupt("too short"))?;
        match u16::from_be_bytes(*version) {
            known @ 1.. if known <= newest => Ok((known, In(body))),
            0 => Err(FormatError::Corrupt("format version 0")),
            newer => Err(FormatError::Newer(newer)),
        }
    }

    fn close(self) -> Parsed<()> {
        if self.0.is_empty() { Ok(()) } else { Err(FormatError::Corrupt("bytes left over")) }
    }

    fn take<const N: usize>(&mut self) -> Parsed<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk().ok_or(FormatError::Corrupt("too short"))?;
        self.0 = rest;
        Ok(*taken)
    }

    fn byte(&mut self) -> Parsed<u8> {
        self.take().map(|[byte]| byte)
    }

    fn number(&mut self) -> Parsed<u64> {
        let mut value = 0;
        for place in 0..10 {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if place == 9 && bits > 1 {
                break;
            }
            value |= bits << (7 * place);
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(FormatError::Corrupt("number too large"))
    }

    fn narrow(&mut self, what: &'static str) -> Parsed<u32> {
        u32::try_from(self.number()?).ok().filter(|value| *value <= i32::MAX as u32).ok_or(FormatError::Corrupt(what))
    }

    fn offset(&mut self) -> Parsed<Offset> {
        Offset::new(self.number()?).ok_or(FormatError::Corrupt("offset"))
    }

    fn offset_after(&mut self, base: Offset) -> Parsed<Offset> {
        base.get().checked_add(self.number()?).and_then(Offset::new).ok_or(FormatError::Corrupt("offset"))
    }

    fn id(&mut self) -> Parsed<Uuid> {
        self.take().map(Uuid::from_bytes)
    }

    fn text(&mut self) -> Parsed<&'a str> {
        let length = usize::try_from(self.number()?).map_err(|_| FormatError::Corrupt("text"))?;
        let (text, rest) = self.0.split_at_checked(length).ok_or(FormatError::Corrupt("text"))?;
        self.0 = rest;
        std::str::from_utf8(text).map_err(|_| FormatError::Corrupt("text"))
    }

    fn millis(&mut self) -> Parsed<Timestamp> {
        i64::try_from(self.number()?).ok().and_then(Timestamp::from_wire).ok_or(FormatError::Corrupt("timestamp"))
    }

    fn timestamp(&mut self) -> Parsed<Option<Timestamp>> {
        match self.number()?.checked_sub(1) {
            None => Ok(None),
            Some(millis) => match i64::try_from(millis).ok().and_then(Timestamp::from_wire) {
                Some(at) => Ok(Some(at)),
                None => Err(FormatError::Corrupt("timestamp")),
            },
        }
    }

    /// A list whose items take at least `least` bytes each, which bounds what is allocated.
    fn list<T>(&mut self, least: usize, mut item: impl FnMut(&mut In<'a>) -> Parsed<T>) -> Parsed<Vec<T>> {
        let count = usize::try_from(self.number()?).ok().filter(|count| *count <= self.0.len() / least);
        (0..count.ok_or(FormatError::Corrupt("count"))?).map(|_| item(self)).collect()
    }

    fn epochs(&mut self) -> Parsed<Vec<(LeaderEpoch, Offset)>> {
        self.list(2, |from| Ok((LeaderEpoch(from.narrow("leader epoch")?), from.offset()?)))
    }

    fn objects(&mut self) -> Parsed<Vec<RemoteObject>> {
        let mut expected = None;
        let mut after = Offset::ZERO;
        let run = self.list(30, |from| {
            let object = from.object(after)?;
            if expected.is_some_and(|expected| object.base != expected) {
                return Err(FormatError::Corrupt("coverage has a gap"));
            }
            (after, expected) = (object.end, Some(object.end));
            Ok(object)
        })?;
        if run.is_empty() { Err(FormatError::Corrupt("an empty run")) } else { Ok(run) }
    }

    fn object(&mut self, after: Offset) -> Parsed<RemoteObject> {
        let id = ObjectId(self.id()?);
        let kind = match self.byte()? {
            0 => ObjectKind::Raw,
            1 => ObjectKind::Parquet,
            _ => return Err(FormatError::Corrupt("object kind")),
        };
        let base = self.offset_after(after)?;
        let end = self.offset_after(base)?;
        let object = RemoteObject {
            id,
            kind,
            base,
            end,
            bytes: self.number()?,
            log_bytes: self.number()?,
            records: self.number()?,
            max_timestamp: self.timestamp()?,
            writer_epoch: LeaderEpoch(self.narrow("leader epoch")?),
            leader_epochs: self.epochs()?,
            crc32c: u32::from_be_bytes(self.take()?),
            shared_at: match self.byte()? {
                0 => None,
                1 => Some(self.number()?),
                _ => return Err(FormatError::Corrupt("shared")),
            },
        };
        check_object(&object).map_err(|_| FormatError::Corrupt("object"))?;
        Ok(object)
    }

    fn removed(&mut self) -> Parsed<Vec<Removed>> {
        self.list(2, |from| {
            let at = from.millis()?;
            let entry = match from.byte()? {
                0 => RemovedEntry::Object(from.object(Offset::ZERO)?),
                1 => RemovedEntry::Leaf(from.leaf()?),
                _ => return Err(FormatError::Corrupt("removed kind")),
            };
            Ok(Removed { entry, at })
        })
    }

    fn leaf(&mut self) -> Parsed<LeafRef> {
        let id = self.id()?;
        let base = self.offset()?;
        let leaf = LeafRef {
            id,
            base,
            end: self.offset_after(base)?,
            objects: self.number()?,
            bytes: self.number()?,
            log_bytes: self.number()?,
            records: self.number()?,
            max_timestamp: self.timestamp()?,
        };
        if leaf.base < leaf.end && leaf.objects > 0 { Ok(leaf) } else { Err(FormatError::Corrupt("leaf reference")) }
    }
}
