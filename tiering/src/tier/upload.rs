//! Sealed segments into the bucket, as raw objects.

use std::{fs::File, io, os::unix::fs::FileExt, path::Path};

use bytes::Bytes;
use varve_log::{
    format::{BatchError, BatchHeader, HEADER_BYTES},
    local::{AbortedTxn, SealedSegment},
};
use varve_metadata::model::{LeaderEpoch, Offset, PartitionId};

use super::{
    bucket::{Bucket, BucketError, ObjectWriter},
    pace::ByteRate,
};
use crate::{
    layout,
    manifest::{ObjectId, RemoteObject},
    raw::{
        Attachments, RawBuilder, RawError,
        shared::{SharedPart, encode_directory},
    },
};

/// Read from the segment at a time.
const PIECE_BYTES: u64 = 1 << 20;
/// A producer snapshot larger than this is not one.
const MAX_SNAPSHOT_BYTES: u64 = 128 << 20;

/// Why a segment did not become an object. Whatever was sent is an orphan for the sweep.
#[derive(Debug, thiserror::Error)]
pub enum UploadError {
    /// The segment's file cannot be read, or was deleted meanwhile.
    #[error("segment file cannot be read")]
    File(#[from] io::Error),
    /// The segment is damaged on the disk, and must not take a sound one's place. Nothing but repair helps.
    #[error("the segment at {base} is damaged")]
    Damaged {
        /// The segment.
        base: Offset,
        /// Where and how.
        source: RawError,
    },
    /// The bucket did not take it. Try again later.
    #[error(transparent)]
    Bucket(#[from] BucketError),
}

/// What goes up: the part of a sealed segment from `base` on.
#[derive(Clone, Debug)]
pub struct Part {
    /// The segment.
    pub segment: SealedSegment,
    /// First offset the object answers for: where coverage ends. Usually the segment's base; later if a part of the segment
    /// is archived already, earlier if what lay between is gone.
    pub base: Offset,
    /// All aborted transactions that overlap `base..segment.end`, wherever their markers lie.
    pub aborted: Vec<AbortedTxn>,
    /// Epoch of the leader that uploads.
    pub epoch: LeaderEpoch,
}

/// Uploads one part as an object of its own. It is in the bucket when this returns, and nothing refers to it yet.
///
/// # Errors
/// [`UploadError`].
pub async fn upload(
    bucket: &Bucket,
    partition: PartitionId,
    part: Part,
    rate: &ByteRate,
) -> Result<RemoteObject, UploadError> {
    let id = ObjectId::random();
    let key = layout::raw(partition, part.base, part.epoch, id.0);
    let mut writer = bucket.writer(key);
    let object = write_part(&mut writer, id, part, rate).await?;
    writer.finish().await?;
    Ok(object)
}

/// Uploads small parts of many partitions as one object: what is sealed by time in many quiet partitions at once costs one
/// PUT. Returns their entries in the same order; each is published in its own partition's manifest. A part that cannot be
/// read is left out and has its own error. Memory: the largest part, and the writer's.
///
/// # Errors
/// [`BucketError`]: none of them is in the bucket.
pub async fn upload_shared(
    bucket: &Bucket,
    parts: Vec<(PartitionId, Part)>,
    rate: &ByteRate,
) -> Result<Vec<Result<RemoteObject, UploadError>>, BucketError> {
    let id = ObjectId::random();
    let mut writer = bucket.writer(layout::shared(id.0));
    let (mut position, mut directory) = (0, Vec::new());
    let mut objects = Vec::with_capacity(parts.len());
    for (partition, part) in parts {
        let mut pieces = Vec::new();
        let object = match write_part(&mut pieces, id, part, rate).await {
            Ok(object) => RemoteObject { shared_at: Some(position), ..object },
            Err(error) => {
                objects.push(Err(error));
                continue;
            }
        };
        for piece in pieces {
            writer.write(piece).await?;
        }
        let range = position..position + object.bytes;
        position = range.end;
        directory.push(SharedPart { partition, base: object.base, end: object.end, range });
        objects.push(Ok(object));
    }
    if !directory.is_empty() {
        writer.write(Bytes::from(encode_directory(&directory))).await?;
        writer.finish().await?;
    }
    Ok(objects)
}

/// Where the pieces of a part go.
trait Sink {
    async fn take(&mut self, piece: Bytes) -> Result<(), BucketError>;
}

impl Sink for ObjectWriter {
    async fn take(&mut self, piece: Bytes) -> Result<(), BucketError> {
        self.write(piece).await
    }
}

impl Sink for Vec<Bytes> {
    async fn take(&mut self, piece: Bytes) -> Result<(), BucketError> {
        self.push(piece);
        Ok(())
    }
}

async fn write_part<S: Sink>(
    sink: &mut S,
    id: ObjectId,
    part: Part,
    rate: &ByteRate,
) -> Result<RemoteObject, UploadError> {
    let Part { segment, base, aborted, epoch } = part;
    let damaged = |source| UploadError::Damaged { base: segment.base, source };
    let (path, bytes) = (segment.log_path.clone(), segment.bytes);
    let (mut file, mut position) = off_thread(move || {
        let file = File::open(path)?;
        Ok(find_batch(&file, bytes, base)?.map(|position| (file, position)))
    })
    .await?
    .map_err(damaged)?;

    let mut builder = RawBuilder::new(base, segment.end);
    while position < bytes {
        let length = PIECE_BYTES.min(bytes - position);
        rate.take(length).await;
        // Reading and checking are the work here; both leave the async threads alone.
        let (outcome, again) = off_thread(move || {
            let mut piece = vec![0; length as usize];
            file.read_exact_at(&mut piece, position)?;
            let checked = builder.push(&piece);
            Ok((checked.map(|()| (builder, Bytes::from(piece))), file))
        })
        .await?;
        let piece;
        (builder, piece) = outcome.map_err(damaged)?;
        sink.take(piece).await?;
        (file, position) = (again, position + length);
    }
    let producer_snapshot = match segment.producer_snapshot_path.clone() {
        Some(path) => off_thread(move || read_snapshot(&path)).await?,
        None => Bytes::new(),
    };
    let (tail, summary) = builder.finish(Attachments { aborted, producer_snapshot }).map_err(damaged)?;
    sink.take(Bytes::from(tail)).await?;
    Ok(RemoteObject::raw(id, epoch, summary))
}

/// Position of the first batch that reaches `base`, walking headers: only a segment that is archived in part needs it.
fn find_batch(file: &File, bytes: u64, base: Offset) -> io::Result<Result<u64, RawError>> {
    let mut position = 0;
    while position < bytes {
        let mut header = [0; HEADER_BYTES];
        let batch = match file.read_exact_at(&mut header, position) {
            Ok(()) => BatchHeader::parse(&header),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Err(BatchError::Truncated),
            Err(error) => return Err(error),
        };
        match batch {
            Ok(batch) if batch.last_offset() >= base => break,
            Ok(batch) => position += u64::from(batch.bytes),
            Err(source) => return Ok(Err(RawError::Batch { position, source })),
        }
    }
    Ok(Ok(position))
}

/// The producer snapshot, if it is still there: it is a help for recovery, and can be rebuilt from the batches.
fn read_snapshot(path: &Path) -> io::Result<Bytes> {
    match std::fs::metadata(path) {
        Ok(file) if file.len() <= MAX_SNAPSHOT_BYTES => std::fs::read(path).map(Bytes::from),
        Ok(_) => Ok(Bytes::new()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Bytes::new()),
        Err(error) => Err(error),
    }
}

async fn off_thread<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(io::Error::other(error)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        manifest::tests::{at, partition},
        raw::{RawMeta, shared::parse_directory, tests::log_of},
        tier::bucket::{BucketMetrics, BucketOptions},
    };

    fn segment(directory: &Path, base: u64, end: u64) -> (SealedSegment, Vec<u8>) {
        let bytes = log_of(base, end, 3);
        let log_path = directory.join(format!("{base:020}.log"));
        std::fs::write(&log_path, &bytes).unwrap();
        let sealed = SealedSegment {
            base: at(base),
            end: at(end),
            bytes: bytes.len() as u64,
            max_timestamp: None,
            leader_epochs: Vec::new(),
            offset_index_path: directory.join("index"),
            time_index_path: directory.join("timeindex"),
            log_path,
            txn_index_path: None,
            producer_snapshot_path: None,
        };
        (sealed, bytes)
    }

    fn part(segment: SealedSegment) -> Part {
        Part { base: segment.base, segment, aborted: Vec::new(), epoch: LeaderEpoch(4) }
    }

    async fn read_part(bucket: &Bucket, key: &crate::layout::Key, object: &RemoteObject) -> (RawMeta, Bytes) {
        let whole = bucket.get_range(key, object.range()).await.unwrap();
        assert_eq!(crc32c::crc32c(&whole), object.crc32c);
        let meta = RawMeta::parse(&whole, object.bytes).unwrap();
        let batches = whole.slice(..meta.footer.log_bytes as usize);
        (meta, batches)
    }

    #[tokio::test]
    async fn a_segment_comes_back_from_the_bucket_as_it_was() {
        let (directory, bucket) = (tempfile::tempdir().unwrap(), Bucket::memory());
        let (mut sealed, bytes) = segment(directory.path(), 100, 160);
        let snapshot = directory.path().join("160.snapshot");
        std::fs::write(&snapshot, b"producers").unwrap();
        sealed.producer_snapshot_path = Some(snapshot);
        let partition = partition();
        let object = upload(&bucket, partition, part(sealed), &ByteRate::new(None)).await.unwrap();
        assert_eq!((object.base, object.end, object.records), (at(100), at(160), 60));
        let key = layout::raw(partition, at(100), LeaderEpoch(4), object.id.0);
        assert_eq!(bucket.head(&key).await.unwrap().bytes, object.bytes);
        let (meta, batches) = read_part(&bucket, &key, &object).await;
        assert_eq!(batches, bytes);
        assert_eq!(meta.producer_snapshot, "producers");
    }

    #[tokio::test]
    async fn only_what_is_not_archived_yet_goes_up() {
        let (directory, bucket) = (tempfile::tempdir().unwrap(), Bucket::memory());
        let (sealed, bytes) = segment(directory.path(), 100, 160);
        let partition = partition();
        let later = Part { base: at(130), ..part(sealed) };
        let object = upload(&bucket, partition, later, &ByteRate::new(None)).await.unwrap();
        assert_eq!((object.base, object.end, object.records), (at(130), at(160), 30));
        let key = layout::raw(partition, at(130), LeaderEpoch(4), object.id.0);
        let (_, batches) = read_part(&bucket, &key, &object).await;
        assert_eq!(batches, bytes[bytes.len() / 2..]);
    }

    #[tokio::test]
    async fn parts_of_many_partitions_share_one_object_and_a_damaged_one_stays_out() {
        let (directory, bucket) = (tempfile::tempdir().unwrap(), Bucket::memory());
        let segments: Vec<_> =
            [(0, 30), (500, 530), (90, 99)].map(|(base, end)| segment(directory.path(), base, end)).into();
        let (damaged, mut bytes) = segment(directory.path(), 7, 40);
        bytes[70] ^= 1;
        std::fs::write(&damaged.log_path, &bytes).unwrap();
        let mut parts: Vec<_> = segments.iter().map(|(sealed, _)| (partition(), part(sealed.clone()))).collect();
        parts.insert(1, (partition(), part(damaged)));
        let owners: Vec<PartitionId> = parts.iter().map(|(partition, _)| *partition).collect();
        let mut uploaded = upload_shared(&bucket, parts, &ByteRate::new(None)).await.unwrap();
        assert!(matches!(uploaded.remove(1), Err(UploadError::Damaged { .. })));
        let objects: Vec<RemoteObject> = uploaded.into_iter().map(Result::unwrap).collect();
        let key = layout::shared(objects[0].id.0);
        for (object, (sealed, bytes)) in objects.iter().zip(&segments) {
            let (meta, batches) = read_part(&bucket, &key, object).await;
            assert_eq!((&batches[..], meta.footer.base), (&bytes[..], sealed.base));
        }
        assert_eq!(bucket.metrics().requests("put", "ok"), 1);
        let whole = bucket.get(&key, 1 << 20).await.unwrap();
        let listed = parse_directory(&whole, whole.len() as u64).unwrap();
        let ranges: Vec<_> = listed.iter().map(|part| part.range.clone()).collect();
        assert_eq!(ranges, objects.iter().map(RemoteObject::range).collect::<Vec<_>>());
        assert_eq!(listed.iter().map(|part| part.partition).collect::<Vec<_>>(), [owners[0], owners[2], owners[3]]);
    }

    #[tokio::test]
    async fn a_damaged_segment_does_not_reach_the_bucket() {
        let (directory, bucket) = (tempfile::tempdir().unwrap(), Bucket::memory());
        let (sealed, mut bytes) = segment(directory.path(), 0, 60);
        let middle = bytes.len() / 2 + 70;
        bytes[middle] ^= 1;
        std::fs::write(&sealed.log_path, &bytes).unwrap();
        let error = upload(&bucket, partition(), part(sealed), &ByteRate::new(None)).await.unwrap_err();
        assert!(matches!(error, UploadError::Damaged { .. }), "{error}");
        assert_eq!(bucket.list("raw", None).await.unwrap(), []);
    }

    #[tokio::test]
    async fn a_large_segment_goes_up_in_parts() {
        let directory = tempfile::tempdir().unwrap();
        let url = format!("file://{}/bucket", directory.path().display());
        let local = Bucket::open(&url, BucketOptions::default(), BucketMetrics::new()).await.unwrap();
        for bucket in [Bucket::memory(), local] {
            let bytes = crate::raw::tests::log_with_values(0, 400, 1, 30_000);
            let (mut sealed, _) = segment(directory.path(), 0, 3);
            std::fs::write(&sealed.log_path, &bytes).unwrap();
            (sealed.bytes, sealed.end) = (bytes.len() as u64, at(400));
            let partition = partition();
            let object = upload(&bucket, partition, part(sealed), &ByteRate::new(None)).await.unwrap();
            let key = layout::raw(partition, at(0), LeaderEpoch(4), object.id.0);
            assert!(read_part(&bucket, &key, &object).await.1 == bytes);
        }
    }
}
