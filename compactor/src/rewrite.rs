//! Neighbouring objects into one: read, encode and verify, upload, side by side and bounded.
//!
//! ```text
//! bucket ──ranges──► source ──runs of batches──► encoder (off the async threads) ──pieces──► bucket
//!                            at most 2 waiting                                    at most 4 waiting
//! ```
//! The new object is in the bucket, and verified, when this returns; nothing refers to it yet. Memory of one rewrite: three
//! runs (16 MiB of records each), one row group with its pages, four pieces, and the parts of the upload under way.

use std::{
    collections::HashMap,
    io::{self, Write},
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};
use tokio::sync::mpsc;
use varve_log::{
    format::{BatchError, BatchHeader, RecordBatchView, compression},
    local::{AbortedTxn, cleaner::CleanError},
};
use varve_metadata::{
    config::Codec,
    model::{LeaderEpoch, Offset, PartitionId, ProducerId, Timestamp, TopicName},
};
use varve_table::{EncodeError, EncodeOptions, TableMeta, TableWriter};
use varve_tiering::{
    layout,
    manifest::{ObjectId, ObjectKind, RemoteObject},
    raw::{Attachments, RawBuilder, RawError},
    tier::bucket::{Bucket, BucketError},
};

use crate::{
    compact::Cleaning,
    metrics::CompactorMetrics,
    source::{Reader, Run, Source, SourceError, end_of, off_thread},
};

/// Handed to the upload at a time.
const PIECE_BYTES: usize = 1 << 20;
const RUNS_WAITING: usize = 2;
const PIECES_WAITING: usize = 4;

/// Why a rewrite gave no object. What was sent of it is an orphan for the sweep.
#[derive(Debug, thiserror::Error)]
pub enum RewriteError {
    /// A source cannot be read.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// A source holds a damaged batch.
    #[error("a source holds a damaged batch")]
    Batch(#[from] BatchError),
    /// The new object could not be made.
    #[error(transparent)]
    Encode(#[from] EncodeError),
    /// A raw object could not be made.
    #[error("a raw object could not be made")]
    Raw(#[from] RawError),
    /// A batch could not be cleaned.
    #[error(transparent)]
    Clean(#[from] CleanError),
    /// The bucket did not take the new object.
    #[error(transparent)]
    Bucket(#[from] BucketError),
    /// The bucket has another size of it than was sent.
    #[error("{stored} bytes stored of {sent} sent")]
    Size {
        /// What the bucket says.
        stored: u64,
        /// What was sent.
        sent: u64,
    },
    /// It took so long that the sweep may have taken the new object for an orphan: begin anew.
    #[error("rewriting took {0:?}, longer than an object may be unreferenced")]
    TooSlow(Duration),
}

/// Where and how objects are rewritten.
#[derive(Clone, Debug)]
pub(crate) struct Workshop {
    pub(crate) bucket: Bucket,
    pub(crate) reader: Reader,
    /// What new objects are.
    pub(crate) kind: ObjectKind,
    pub(crate) partition: PartitionId,
    pub(crate) topic: TopicName,
    pub(crate) encode: EncodeOptions,
    pub(crate) metrics: CompactorMetrics,
    /// An object must be published within this time of its upload's begin.
    pub(crate) patience: Duration,
}

/// A new object, and when its upload began.
#[derive(Debug)]
pub(crate) struct Rewritten {
    pub(crate) object: RemoteObject,
    begun: Instant,
    patience: Duration,
}

impl Rewritten {
    /// Whether it may still be published: the sweep must not have had reason to delete it.
    pub(crate) fn check_age(&self) -> Result<(), RewriteError> {
        let age = self.begun.elapsed();
        if age < self.patience { Ok(()) } else { Err(RewriteError::TooSlow(age)) }
    }
}

/// What the encoder counted.
struct Encoded {
    bytes: u64,
    crc32c: u32,
    max_timestamp: Option<Timestamp>,
    sizes: Sizes,
    records: u64,
    cleaning: Option<Cleaning>,
}

/// How large batches are, those that were met and those of them that stayed. What was compressed, and was rebuilt out of
/// columns, is not compressed again only to be measured.
#[derive(Clone, Copy, Debug, Default)]
struct Sizes {
    met: u64,
    kept: u64,
    /// Of batches whose records were compressed in the local log, and are not here.
    met_unpacked: u64,
    kept_unpacked: u64,
}

impl Sizes {
    fn meet(&mut self, bytes: usize, is_unpacked: bool) {
        *if is_unpacked { &mut self.met_unpacked } else { &mut self.met } += bytes as u64;
    }

    fn keep(&mut self, bytes: usize, is_unpacked: bool) {
        *if is_unpacked { &mut self.kept_unpacked } else { &mut self.kept } += bytes as u64;
    }

    /// Bytes in the local log of what stayed, if all that was met took `before` there.
    fn log_bytes(&self, before: u64) -> u64 {
        let packed = u128::from(before.saturating_sub(self.met));
        let share = packed * u128::from(self.kept_unpacked) / u128::from(self.met_unpacked.max(1));
        self.kept.saturating_add(u64::try_from(share).unwrap_or(u64::MAX))
    }
}

impl Workshop {
    pub(crate) async fn open(&self, objects: &[RemoteObject]) -> Result<Vec<Source>, SourceError> {
        let mut sources = Vec::with_capacity(objects.len());
        for object in objects {
            let key = object.key(self.partition, &self.topic);
            sources.push(Source::open(&self.reader, key, object.clone()).await?);
        }
        Ok(sources)
    }

    /// One object of `sources`, which are neighbours. With `cleaning`, only what key compaction leaves; it is
    /// handed back for the objects that follow.
    pub(crate) async fn rewrite(
        &self,
        sources: &[Source],
        cleaning: Option<Cleaning>,
    ) -> Result<(Rewritten, Option<Cleaning>), RewriteError> {
        let begun = Instant::now();
        let objects: Vec<RemoteObject> = sources.iter().map(|source| source.object.clone()).collect();
        let (Some(first), Some(last)) = (sources.first(), sources.last()) else {
            unreachable!("plans name at least one object")
        };
        let (base, end) = (first.object.base, end_of(&objects));
        let id = ObjectId::random();
        let compacts = cleaning.is_some();
        let aborted = aborted_within(sources, base, end);
        let meta = TableMeta {
            partition: self.partition,
            base,
            end,
            leader_epochs: epochs_of(&objects),
            // Compaction leaves nothing of an aborted transaction. Its marker may go in a later round, and a reader that
            // still knew of the transaction would then take the next one of that producer for aborted, too.
            aborted: if compacts { Vec::new() } else { aborted.clone() },
            producers: last.producers(&self.reader).await?,
        };
        let leader_epochs = meta.leader_epochs.clone();

        let (runs, taken) = mpsc::channel(RUNS_WAITING);
        let (pieces, mut ready) = mpsc::channel::<Bytes>(PIECES_WAITING);
        let writer_epoch = last.object.writer_epoch;
        let mut writer = self.bucket.writer(match self.kind {
            ObjectKind::Parquet => layout::table(&self.topic, self.partition.index, base, last_of(end), id.0),
            ObjectKind::Raw => layout::raw(self.partition, base, writer_epoch, id.0),
        });
        let sink = Pieces { sender: pieces, buffer: BytesMut::new() };
        let output = Output::new(self.kind, sink, meta, self.encode.clone())?;
        let metrics = self.metrics.clone();
        let encode = off_thread(move || encode(taken, output, base, cleaning, &metrics));
        let feed = async move {
            for source in sources {
                source.send_runs(&self.reader, &runs).await?;
                self.metrics.read_bytes.inc_by(source.object.log_bytes);
            }
            Ok::<(), RewriteError>(())
        };
        let send = async {
            while let Some(piece) = ready.recv().await {
                writer.write(piece).await?;
            }
            Ok::<(), RewriteError>(())
        };
        // The encoder ends only when its runs end, so a failed read must not look like the end: its error wins, and the
        // object, which has no end yet, is given up with the writer.
        let ((), (), encoded) = futures::try_join!(feed, send, encode)?;
        let stored = writer.finish().await?;
        if stored != encoded.bytes {
            return Err(RewriteError::Size { stored, sent: encoded.bytes });
        }
        self.metrics.written_bytes.inc_by(stored);
        let log_bytes = objects.iter().map(|object| object.log_bytes).fold(0, u64::saturating_add);
        let object = RemoteObject {
            id,
            kind: self.kind,
            base,
            end,
            bytes: stored,
            log_bytes: if compacts { encoded.sizes.log_bytes(log_bytes) } else { log_bytes },
            records: encoded.records,
            max_timestamp: encoded.max_timestamp,
            writer_epoch,
            leader_epochs,
            crc32c: encoded.crc32c,
            shared_at: None,
        };
        Ok((Rewritten { object, begun, patience: self.patience }, encoded.cleaning))
    }
}

/// Takes runs until there are no more, and gives the object piece by piece.
fn encode(
    mut runs: mpsc::Receiver<Run>,
    mut output: Output,
    base: Offset,
    mut cleaning: Option<Cleaning>,
    metrics: &CompactorMetrics,
) -> Result<Encoded, RewriteError> {
    let (mut sizes, mut records) = (Sizes::default(), 0);
    while let Some(run) = runs.blocking_recv() {
        let started = Instant::now();
        run.each(|header, batch, rebuilt| {
            // The batch of a raw object that the wanted offset lies in may be preceded by others.
            if header.next_offset() <= base {
                return Ok(());
            }
            let is_unpacked = rebuilt && header.attributes.compression() != Codec::None;
            sizes.meet(batch.as_bytes().len(), is_unpacked);
            let mut keep = |header: &BatchHeader, batch: &RecordBatchView<'_>| {
                sizes.keep(batch.as_bytes().len(), is_unpacked);
                records += u64::from(header.record_count);
                output.push(header, batch, rebuilt)
            };
            match cleaning.as_mut().map_or(Ok(Some(None)), |cleaning| cleaning.clean(&batch))? {
                None => Ok(()),
                Some(None) => keep(header, &batch),
                Some(Some(bytes)) => {
                    let (replaced, _) = RecordBatchView::parse_trusted(&bytes)?;
                    // What was compressed when it came is called so again, without being compressed on the way.
                    let codec = header.attributes.compression();
                    let attributes = replaced.header().attributes.with_compression(codec);
                    let emptied = replaced.header().record_count == 0;
                    let header = BatchHeader { attributes, ..*replaced.header() };
                    keep(if emptied || !rebuilt { replaced.header() } else { &header }, &replaced)
                }
            }
        })?;
        metrics.encode_seconds.inc_by(started.elapsed().as_secs_f64());
    }
    let started = Instant::now();
    let (bytes, crc32c, max_timestamp) = output.finish(metrics)?;
    metrics.encode_seconds.inc_by(started.elapsed().as_secs_f64());
    Ok(Encoded { bytes, crc32c, max_timestamp, sizes, records, cleaning })
}

/// The object being written.
enum Output {
    Table(Box<TableWriter<Pieces>>),
    Raw { builder: Box<RawBuilder>, sink: Pieces, attachments: Attachments },
}

impl Output {
    fn new(kind: ObjectKind, sink: Pieces, meta: TableMeta, options: EncodeOptions) -> Result<Output, RewriteError> {
        Ok(match kind {
            ObjectKind::Parquet => Output::Table(Box::new(TableWriter::new(sink, meta, options)?)),
            ObjectKind::Raw => Output::Raw {
                builder: Box::new(RawBuilder::new(meta.base, meta.end)),
                sink,
                attachments: Attachments {
                    aborted: meta.aborted,
                    producer_snapshot: meta.producers.unwrap_or_default(),
                },
            },
        })
    }

    /// Adds a batch: as it lies or, if it was `rebuilt`, by its uncompressed records under the header that it came with.
    fn push(&mut self, header: &BatchHeader, batch: &RecordBatchView<'_>, rebuilt: bool) -> Result<(), RewriteError> {
        match self {
            Output::Table(writer) if rebuilt => {
                writer.push_records(header, Bytes::copy_from_slice(batch.payload()))?;
            }
            Output::Table(writer) => writer.push(batch)?,
            Output::Raw { builder, sink, .. } => {
                let codec = header.attributes.compression();
                let compressed = (rebuilt && codec != Codec::None)
                    .then(|| {
                        compression::compress(codec, None, batch.payload()).map(|payload| header.encode_batch(&payload))
                    })
                    .transpose()
                    .map_err(EncodeError::from)?;
                let bytes = compressed.as_deref().unwrap_or(batch.as_bytes());
                builder.push(bytes)?;
                sink.write_all(bytes).map_err(EncodeError::from)?;
            }
        }
        Ok(())
    }

    /// Sends the end; gives size, CRC-32C and largest timestamp of the object.
    fn finish(self, metrics: &CompactorMetrics) -> Result<(u64, u32, Option<Timestamp>), RewriteError> {
        let (mut sink, bytes, crc32c, max_timestamp) = match self {
            Output::Table(writer) => {
                let (sink, summary) = writer.finish()?;
                metrics.carried_batches.inc_by(summary.carried_batches);
                metrics.unreadable_batches.inc_by(summary.unreadable_batches);
                (sink, summary.bytes, summary.crc32c, summary.max_timestamp)
            }
            Output::Raw { builder, mut sink, attachments } => {
                let (tail, summary) = builder.finish(attachments)?;
                sink.write_all(&tail).map_err(EncodeError::from)?;
                (sink, summary.bytes, summary.crc32c, summary.max_timestamp)
            }
        };
        sink.send_rest().map_err(EncodeError::Sink)?;
        Ok((bytes, crc32c, max_timestamp))
    }
}

/// A sink that hands full pieces to the upload.
struct Pieces {
    sender: mpsc::Sender<Bytes>,
    buffer: BytesMut,
}

impl Pieces {
    fn send_rest(&mut self) -> io::Result<()> {
        let rest = self.buffer.split().freeze();
        let stopped = |_| io::Error::new(io::ErrorKind::BrokenPipe, "the upload has stopped");
        if rest.is_empty() { Ok(()) } else { self.sender.blocking_send(rest).map_err(stopped) }
    }
}

impl Write for Pieces {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.buffer.extend_from_slice(buf);
        if self.buffer.len() >= PIECE_BYTES {
            self.send_rest()?;
        }
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Leader epochs of neighbours, each with its first offset.
fn epochs_of(objects: &[RemoteObject]) -> Vec<(LeaderEpoch, Offset)> {
    let mut epochs: Vec<(LeaderEpoch, Offset)> = Vec::new();
    for &(epoch, start) in objects.iter().flat_map(|object| &object.leader_epochs) {
        if epochs.last().is_none_or(|(newest, from)| epoch > *newest && start > *from) {
            epochs.push((epoch, start));
        }
    }
    epochs
}

/// Aborted transactions of the sources, which are neighbours, that overlap `base..end`, each once, by their markers.
pub(crate) fn aborted_within(sources: &[Source], base: Offset, end: Offset) -> Vec<AbortedTxn> {
    let key = |txn: &AbortedTxn| (txn.producer, txn.first);
    let mut known: HashMap<(ProducerId, Offset), AbortedTxn> = HashMap::new();
    // Those that end behind the object that tells of them.
    let mut reaching = Vec::new();
    for source in sources {
        // All that reach into an object are listed there. One that is not ended with what lay in front: a disk was lost with its
        // marker, or a leader was elected without it, and the offsets up to there were given to other records of that producer.
        let before = Offset::new(source.object.base.get().saturating_sub(1)).unwrap_or_default();
        for txn in reaching.drain(..) {
            known.entry(key(&txn)).and_modify(|txn| txn.last = txn.last.min(before.max(txn.first)));
        }
        known.extend(source.aborted().iter().map(|txn| (key(txn), *txn)));
        reaching.extend(source.aborted().iter().filter(|txn| txn.last >= source.object.end));
    }
    let mut within: Vec<AbortedTxn> = known.into_values().filter(|txn| txn.first < end && txn.last >= base).collect();
    within.sort_by_key(|txn| (txn.last, txn.first, txn.producer));
    within
}

fn last_of(end: Offset) -> Offset {
    Offset::new(end.get().saturating_sub(1)).unwrap_or(Offset::ZERO)
}

#[cfg(test)]
mod tests {
    use varve_log::format::{BatchBuilder, RecordContent};
    use varve_metadata::model::{PartitionIndex, TopicId};
    use varve_tiering::raw::RawMeta;

    use super::*;
    use crate::source::Inside;

    fn at(raw: u64) -> Offset {
        Offset::new(raw).unwrap()
    }

    /// A transaction of producer 7: first record, marker.
    fn txn(first: u64, last: u64) -> AbortedTxn {
        let producer = ProducerId::from_wire(7).unwrap();
        AbortedTxn { producer, first: at(first), last: at(last), last_stable: at(last) }
    }

    fn source(base: u64, end: u64, aborted: &[AbortedTxn]) -> Source {
        let (mut builder, mut batch) = (RawBuilder::new(at(base), at(end)), BatchBuilder::new(at(base)));
        batch.push(RecordContent { value: Some(b"v"), ..RecordContent::default() });
        let batch = batch.build().unwrap();
        builder.push(&batch).unwrap();
        let attachments = Attachments { aborted: aborted.to_vec(), ..Attachments::default() };
        let (tail, summary) = builder.finish(attachments).unwrap();
        let meta = RawMeta::parse(&[batch, tail].concat().into(), summary.bytes).unwrap();
        let object = RemoteObject::raw(ObjectId::random(), LeaderEpoch(0), summary);
        let partition = PartitionId { topic: TopicId::random(), index: PartitionIndex(0) };
        let key = object.key(partition, &TopicName::parse("t").unwrap());
        Source { object, key, inside: Inside::Raw(Box::new(meta)) }
    }

    #[test]
    fn an_aborted_transaction_reaches_as_far_as_objects_know_of_it() {
        let within = |sources: &[Source]| aborted_within(sources, Offset::ZERO, Offset::MAX);
        let whole = [txn(90, 150), txn(160, 170)];
        let sources = [source(0, 100, &whole[..1]), source(100, 120, &whole[..1]), source(120, 200, &whole)];
        assert_eq!(within(&sources), whole, "each once");
        // What lies behind the first object is another log than the one in which the marker was, ...
        let lost = [source(0, 100, &whole[..1]), source(100, 200, &[txn(130, 140)])];
        assert_eq!(within(&lost), [AbortedTxn { last: at(99), ..whole[0] }, txn(130, 140)]);
        // ... or has a marker of its own for it.
        let parted = [source(0, 100, &whole[..1]), source(100, 200, &[txn(90, 110)])];
        assert_eq!(within(&parted), [txn(90, 110)]);
    }
}
