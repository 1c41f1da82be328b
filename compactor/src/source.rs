//! Reading an object to rewrite it: its batches in order, a few megabytes at a time, of either kind.

use std::{ops::Range, sync::Arc};

use bytes::{Bytes, BytesMut};
use tokio::sync::mpsc;
use varve_log::{
    format::{BatchError, BatchHeader, HEADER_BYTES, RecordBatchView},
    local::AbortedTxn,
};
use varve_metadata::model::Offset;
use varve_table::{BatchEntry, DecodeError, Fetched, FooterError, Recompression, TableFooter};
use varve_tiering::{
    layout::Key,
    manifest::{ObjectKind, RemoteObject},
    raw::{RawError, RawMeta, TAIL_GUESS},
    tier::{
        bucket::{Bucket, BucketError},
        pace::ByteRate,
    },
};

/// Read from a raw object at a time.
const PIECE_BYTES: u64 = 4 << 20;
/// A first read of the last this many bytes opens most Parquet objects.
const TABLE_TAIL_GUESS: u64 = 256 << 10;

/// Why an object could not be read.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The bucket did not give it.
    #[error(transparent)]
    Bucket(#[from] BucketError),
    /// A raw object is damaged.
    #[error("raw object {key} is damaged")]
    Raw {
        /// Where it lies.
        key: Key,
        /// What does not hold.
        source: RawError,
    },
    /// A batch of a raw object is damaged.
    #[error("object {key} holds a damaged batch")]
    Batch {
        /// Where it lies.
        key: Key,
        /// What does not hold.
        source: BatchError,
    },
    /// A Parquet object is damaged, or not ours.
    #[error("Parquet object {key} cannot be opened")]
    Footer {
        /// Where it lies.
        key: Key,
        /// What does not hold.
        source: FooterError,
    },
    /// A Parquet object does not decode.
    #[error("Parquet object {key} does not decode")]
    Decode {
        /// Where it lies.
        key: Key,
        /// What does not hold.
        source: DecodeError,
    },
}

/// The way objects are read to be rewritten: at a limited rate, so that consumers of cold data do not notice.
#[derive(Clone, Debug)]
pub(crate) struct Reader {
    pub(crate) bucket: Bucket,
    pub(crate) rate: Arc<ByteRate>,
}

impl Reader {
    async fn get_range(&self, key: &Key, range: Range<u64>) -> Result<Bytes, BucketError> {
        self.rate.take(range.end.saturating_sub(range.start)).await;
        self.bucket.get_range(key, range).await
    }
}

/// Some whole batches in a row.
#[derive(Debug)]
pub(crate) enum Run {
    /// As they lie in a raw object, their CRCs not yet checked.
    Stored(Bytes),
    /// Rebuilt from columns: uncompressed where that is said, with the header that each came with.
    Rebuilt(Vec<(BatchEntry, Bytes)>),
}

/// An opened object.
#[derive(Debug)]
pub(crate) struct Source {
    pub(crate) object: RemoteObject,
    pub(crate) key: Key,
    pub(crate) inside: Inside,
}

#[derive(Debug)]
pub(crate) enum Inside {
    Raw(Box<RawMeta>),
    Table(Box<TableFooter>),
}

impl Source {
    /// Reads what lies behind the object's batches.
    pub(crate) async fn open(reader: &Reader, key: Key, object: RemoteObject) -> Result<Source, SourceError> {
        let inside = match object.kind {
            ObjectKind::Raw => Inside::Raw(Box::new(open_raw(reader, &key, &object).await?)),
            ObjectKind::Parquet => Inside::Table(Box::new(open_table(reader, &key, &object).await?)),
        };
        Ok(Source { object, key, inside })
    }

    /// Aborted transactions that overlap it.
    pub(crate) fn aborted(&self) -> &[AbortedTxn] {
        match &self.inside {
            Inside::Raw(meta) => &meta.aborted,
            Inside::Table(footer) => footer.aborted(),
        }
    }

    /// Producer state at its end, in Kafka's `.snapshot` format.
    pub(crate) async fn producers(&self, reader: &Reader) -> Result<Option<Bytes>, SourceError> {
        match &self.inside {
            Inside::Raw(meta) => {
                let (part, within) = (self.object.range().start, meta.footer.producer_snapshot());
                let range = part + within.start..part + within.end;
                Ok(if range.is_empty() { None } else { Some(reader.get_range(&self.key, range).await?) })
            }
            Inside::Table(footer) => match footer.producers() {
                Some(range) => Ok(Some(reader.get_range(&self.key, range).await?)),
                None => Ok(None),
            },
        }
    }

    /// Sends all its batches that end behind its base, in order. Ends early, without error, if nobody listens any more.
    pub(crate) async fn send_runs(&self, reader: &Reader, runs: &mpsc::Sender<Run>) -> Result<(), SourceError> {
        match &self.inside {
            Inside::Raw(meta) => self.send_stored(reader, meta, runs).await,
            Inside::Table(footer) => self.send_rebuilt(reader, footer, runs).await,
        }
    }

    async fn send_stored(&self, reader: &Reader, meta: &RawMeta, runs: &mpsc::Sender<Run>) -> Result<(), SourceError> {
        let start = self.object.range().start;
        let within = meta.batches_from(self.object.base);
        let (mut position, end) = (start + within.start, start + within.end);
        let mut rest = BytesMut::new();
        while position < end {
            let piece = reader.get_range(&self.key, position..end.min(position + PIECE_BYTES)).await?;
            position += piece.len() as u64;
            rest.extend_from_slice(&piece);
            let whole = whole_batches(&rest).map_err(|source| self.damaged(source))?;
            if whole > 0 && runs.send(Run::Stored(rest.split_to(whole).freeze())).await.is_err() {
                return Ok(());
            }
        }
        if rest.is_empty() { Ok(()) } else { Err(self.damaged(BatchError::Truncated)) }
    }

    async fn send_rebuilt(
        &self,
        reader: &Reader,
        footer: &TableFooter,
        runs: &mpsc::Sender<Run>,
    ) -> Result<(), SourceError> {
        let mut from = self.object.base;
        while let Some(plan) = footer.plan_group(from).map_err(|source| self.undecodable(source))? {
            let fetched = self.fetch(reader, plan.ranges()).await?;
            from = plan.end();
            let footer = footer.clone();
            let decode = move || {
                let mut batches = Vec::new();
                footer.decode_each(&plan, &fetched, Recompression::None, |batch, bytes| {
                    batches.push((*batch, Bytes::copy_from_slice(bytes)));
                })?;
                Ok(batches)
            };
            let batches = off_thread(decode).await.map_err(|source| self.undecodable(source))?;
            if runs.send(Run::Rebuilt(batches)).await.is_err() {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Fetches parts of the object.
    pub(crate) async fn fetch(&self, reader: &Reader, ranges: &[Range<u64>]) -> Result<Fetched, SourceError> {
        let mut fetched = Fetched::new(self.object.bytes);
        for range in ranges {
            fetched.add(range.start, reader.get_range(&self.key, range.clone()).await?);
        }
        Ok(fetched)
    }

    pub(crate) fn damaged(&self, source: BatchError) -> SourceError {
        SourceError::Batch { key: self.key.clone(), source }
    }

    pub(crate) fn undecodable(&self, source: DecodeError) -> SourceError {
        SourceError::Decode { key: self.key.clone(), source }
    }
}

impl Run {
    /// Hands out each batch: its header as it came, and the batch, whose records are uncompressed if it was rebuilt.
    ///
    /// # Errors
    /// [`BatchError`] if a stored batch is damaged, and what `each` gives.
    pub(crate) fn each<E: From<BatchError>>(
        &self,
        mut each: impl FnMut(&BatchHeader, RecordBatchView<'_>, bool) -> Result<(), E>,
    ) -> Result<(), E> {
        match self {
            Run::Stored(bytes) => {
                let mut rest = &bytes[..];
                while !rest.is_empty() {
                    let (batch, behind) = RecordBatchView::parse(rest)?;
                    each(batch.header(), batch, false)?;
                    rest = behind;
                }
                Ok(())
            }
            Run::Rebuilt(batches) => batches.iter().try_for_each(|(entry, bytes)| {
                let (batch, _) = RecordBatchView::parse_trusted(bytes)?;
                each(&entry.header, batch, entry.kind.is_rebuilt())
            }),
        }
    }
}

/// Length of the whole batches at the front of `buf`.
fn whole_batches(buf: &[u8]) -> Result<usize, BatchError> {
    let mut whole = 0;
    while buf.len() - whole >= HEADER_BYTES {
        let bytes = BatchHeader::parse(&buf[whole..])?.bytes as usize;
        if buf.len() - whole < bytes {
            break;
        }
        whole += bytes;
    }
    Ok(whole)
}

async fn open_raw(reader: &Reader, key: &Key, object: &RemoteObject) -> Result<RawMeta, SourceError> {
    let range = object.range();
    let mut wanted = TAIL_GUESS;
    loop {
        let from = range.end.saturating_sub(wanted).max(range.start);
        let tail = reader.get_range(key, from..range.end).await?;
        match RawMeta::parse(&tail, object.bytes) {
            Err(RawError::TailNeeded(more)) if more > wanted && from > range.start => wanted = more,
            // One rewrite opens thousands, and asks one of them for its snapshot: that of the others, and the tail that it
            // is a part of, would fill the memory.
            Ok(meta) => return Ok(RawMeta { producer_snapshot: Bytes::new(), ..meta }),
            Err(source) => return Err(SourceError::Raw { key: key.clone(), source }),
        }
    }
}

async fn open_table(reader: &Reader, key: &Key, object: &RemoteObject) -> Result<TableFooter, SourceError> {
    let mut from = object.bytes.saturating_sub(TABLE_TAIL_GUESS);
    loop {
        let tail = reader.get_range(key, from..object.bytes).await?;
        match TableFooter::parse(object.bytes, tail) {
            Err(FooterError::NeedMore { from: more }) if more < from => from = more,
            outcome => return outcome.map_err(|source| SourceError::Footer { key: key.clone(), source }),
        }
    }
}

/// Runs CPU work off the async threads.
pub(crate) async fn off_thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await.map_err(tokio::task::JoinError::try_into_panic) {
        Ok(outcome) => outcome,
        Err(Ok(panic)) => std::panic::resume_unwind(panic),
        // The runtime is shutting down, and with it whoever waits here.
        Err(Err(_)) => std::future::pending().await,
    }
}

/// The offset behind the last of these objects; zero for none.
pub(crate) fn end_of(objects: &[RemoteObject]) -> Offset {
    objects.last().map_or(Offset::ZERO, |last| last.end)
}

#[cfg(test)]
mod tests {
    use varve_log::format::{BatchBuilder, RecordContent};
    use varve_metadata::model::{LeaderEpoch, PartitionId, PartitionIndex, TopicId, TopicName};
    use varve_tiering::{
        manifest::ObjectId,
        raw::{Attachments, RawBuilder},
    };

    use super::*;

    #[tokio::test]
    async fn a_raw_object_gives_its_producers_when_it_is_asked_and_keeps_nothing_of_them() {
        let (base, end) = (Offset::ZERO, Offset::ZERO.plus(1));
        let mut batch = BatchBuilder::new(base);
        batch.push(RecordContent { value: Some(b"v"), ..RecordContent::default() });
        let batch = batch.build().unwrap();
        let bucket = Bucket::memory();
        let reader = Reader { bucket: bucket.clone(), rate: Arc::new(ByteRate::new(None)) };
        let partition = PartitionId { topic: TopicId::random(), index: PartitionIndex(0) };
        for (snapshot, shared_at) in [(vec![7; 200_000], None), (vec![8; 3], Some(40)), (Vec::new(), None)] {
            let mut builder = RawBuilder::new(base, end);
            builder.push(&batch).unwrap();
            let attachments = Attachments { producer_snapshot: snapshot.clone().into(), ..Attachments::default() };
            let (tail, summary) = builder.finish(attachments).unwrap();
            let object = RemoteObject { shared_at, ..RemoteObject::raw(ObjectId::random(), LeaderEpoch(0), summary) };
            let key = object.key(partition, &TopicName::parse("t").unwrap());
            let before = vec![0; shared_at.unwrap_or(0) as usize];
            bucket.put(&key, [&before[..], &batch, &tail].concat().into()).await.unwrap();

            let source = Source::open(&reader, key, object).await.unwrap();

            let Inside::Raw(meta) = &source.inside else { panic!("it is raw") };
            assert!(meta.producer_snapshot.is_empty());
            let producers = source.producers(&reader).await.unwrap();
            assert_eq!(producers.as_deref(), Some(&snapshot[..]).filter(|snapshot| !snapshot.is_empty()));
        }
    }
}
