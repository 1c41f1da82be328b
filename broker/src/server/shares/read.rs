//! What lies in the log for a share group: batches with their places, so that those which were given out are sent and no more.

use std::{io, os::unix::fs::FileExt, sync::Arc};

use bytes::Bytes;
use varve_log::{
    format::{BatchError, BatchHeader, HEADER_BYTES},
    local::{AbortedTxn, LogSlice},
};
use varve_metadata::model::Offset;

use crate::{
    partition::{Isolation, Partition, PartitionRead, PartitionReadError, ReadRequest, RemoteError, RemoteReader},
    share::{Acquired, Fetched},
    wire::fetch_response::Records,
};

/// Why nothing can be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum ShareReadError {
    #[error(transparent)]
    Partition(#[from] PartitionReadError),
    #[error(transparent)]
    Remote(#[from] RemoteError),
    #[error("the log cannot be read")]
    Io(#[from] io::Error),
    #[error("a record batch is damaged")]
    Batch(#[from] BatchError),
}

/// Where to read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted {
    pub(super) from: Offset,
    pub(super) isolation: Isolation,
    pub(super) max_bytes: u32,
    /// Records that are worth looking for.
    pub(super) max_records: u64,
}

/// What one look found.
pub(super) enum Look {
    /// Batches on the local disk; none if there is nothing yet.
    Local(Found),
    /// The archive is to be asked.
    Remote(Ask),
}

/// A question to the archive.
pub(super) struct Ask {
    reader: Arc<dyn RemoteReader>,
    from: Offset,
    bound: Offset,
    wanted: Wanted,
}

/// Batches, and where their bytes are.
pub(super) struct Found {
    from: Offset,
    source: Source,
    batches: Vec<Placed>,
    hidden: Vec<(Offset, Offset)>,
}

enum Source {
    Local(LogSlice),
    Remote(Vec<Bytes>),
}

/// One batch.
struct Placed {
    header: BatchHeader,
    /// The piece that holds it, and where it begins there.
    piece: usize,
    at: usize,
}

impl Placed {
    fn first(&self) -> Offset {
        self.header.base_offset
    }

    fn last(&self) -> Offset {
        self.header.base_offset.plus(u64::from(self.header.last_offset_delta))
    }
}

/// Looks at the log.
pub(super) fn look(partition: &Partition, wanted: Wanted) -> Result<Look, ShareReadError> {
    let request = ReadRequest {
        from: wanted.from,
        current_epoch: None,
        last_fetched_epoch: None,
        isolation: wanted.isolation,
        max_bytes: wanted.max_bytes,
        at_least_one: true,
        may_follow: false,
    };
    match partition.read(&request)?.1 {
        PartitionRead::Local { slice, aborted } => Ok(Look::Local(walk_file(slice, wanted, &aborted)?)),
        PartitionRead::Remote { reader, from, bound, .. } => Ok(Look::Remote(Ask { reader, from, bound, wanted })),
        // Only who says what it has is told where it parted.
        PartitionRead::Diverged { .. } => Ok(Look::Local(Found::nothing(wanted.from))),
    }
}

impl Ask {
    /// Asks the archive.
    pub(super) async fn finish(self) -> Result<Found, ShareReadError> {
        let found = self.reader.read(self.from, self.bound, self.wanted.max_bytes).await?;
        let aborted = match self.wanted.isolation {
            Isolation::Committed => found.aborted,
            Isolation::Uncommitted => Vec::new(),
        };
        walk_pieces(found.pieces, self.wanted, &aborted)
    }
}

fn walk_file(slice: LogSlice, wanted: Wanted, aborted: &[AbortedTxn]) -> Result<Found, ShareReadError> {
    let mut batches = Vec::new();
    let mut at = 0;
    let mut header = [0; HEADER_BYTES];
    while at + HEADER_BYTES <= slice.len as usize && is_wanted(&batches, wanted) {
        slice.file.read_exact_at(&mut header, slice.position + at as u64)?;
        let parsed = BatchHeader::parse(&header)?;
        let end = at + parsed.bytes as usize;
        if end > slice.len as usize {
            break;
        }
        batches.push(Placed { header: parsed, piece: 0, at });
        at = end;
    }
    Ok(Found::of(wanted.from, Source::Local(slice), batches, aborted))
}

fn walk_pieces(pieces: Vec<Bytes>, wanted: Wanted, aborted: &[AbortedTxn]) -> Result<Found, ShareReadError> {
    let mut batches = Vec::new();
    for (piece, bytes) in pieces.iter().enumerate() {
        let mut at = 0;
        while at < bytes.len() && is_wanted(&batches, wanted) {
            let header = BatchHeader::parse(&bytes[at..])?;
            let end = at + header.bytes as usize;
            if end > bytes.len() {
                return Err(BatchError::Truncated.into());
            }
            batches.push(Placed { header, piece, at });
            at = end;
        }
    }
    Ok(Found::of(wanted.from, Source::Remote(pieces), batches, aborted))
}

/// Whether another batch is worth a look.
fn is_wanted(batches: &[Placed], wanted: Wanted) -> bool {
    batches.last().is_none_or(|last| last.last().since(wanted.from) + 1 < wanted.max_records)
}

impl Found {
    /// Nothing was found.
    pub(super) fn nothing(from: Offset) -> Found {
        Found { from, source: Source::Remote(Vec::new()), batches: Vec::new(), hidden: Vec::new() }
    }

    fn of(from: Offset, source: Source, batches: Vec<Placed>, aborted: &[AbortedTxn]) -> Found {
        let is_hidden = |batch: &&Placed| {
            let attributes = batch.header.attributes;
            attributes.is_transactional()
                && !attributes.is_control()
                && aborted.iter().any(|transaction| {
                    Some(transaction.producer) == batch.header.producer_id
                        && transaction.first <= batch.first()
                        && batch.last() <= transaction.last
                })
        };
        let hidden = batches.iter().filter(is_hidden).map(|batch| (batch.first(), batch.last())).collect();
        Found { from, source, batches, hidden }
    }

    /// Bytes of what was looked at.
    pub(super) fn bytes(&self) -> u64 {
        self.batches.iter().map(|batch| u64::from(batch.header.bytes)).sum()
    }

    /// Whether there is nothing.
    pub(super) fn is_empty(&self) -> bool {
        self.batches.is_empty()
    }

    /// As a share partition is told of it.
    pub(super) fn as_fetched(&self) -> Fetched {
        Fetched {
            from: self.from,
            batches: self.batches.iter().map(|batch| (batch.first(), batch.last())).collect(),
            hidden: self.hidden.clone(),
        }
    }

    /// The batches from the first to the last record that was given out.
    pub(super) fn cut(self, acquired: &[Acquired]) -> Records {
        let (Some(first), Some(last)) = (acquired.first(), acquired.last()) else { return Records::None };
        let holds = |batch: &&Placed| batch.last() >= first.first && batch.first() <= last.last;
        let kept: Vec<&Placed> = self.batches.iter().filter(holds).collect();
        let (Some(begin), Some(end)) = (kept.first(), kept.last()) else { return Records::None };
        let end_at = end.at + end.header.bytes as usize;
        match self.source {
            Source::Local(slice) => {
                let (position, len) = (slice.position + begin.at as u64, (end_at - begin.at) as u32);
                Records::Local(LogSlice { position, len, first: begin.first(), next: end.last().plus(1), ..slice })
            }
            Source::Remote(pieces) => {
                let pieces = pieces.iter().enumerate().skip(begin.piece).take(end.piece + 1 - begin.piece);
                let pieces = pieces.map(|(piece, bytes)| {
                    let from = if piece == begin.piece { begin.at } else { 0 };
                    let to = if piece == end.piece { end_at } else { bytes.len() };
                    bytes.slice(from..to)
                });
                Records::Remote(pieces.collect())
            }
        }
    }
}
