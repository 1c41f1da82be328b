//! From the log of a partition to its shard, wherever that log lies.

use std::{collections::HashMap, sync::Arc};

use tokio::sync::Semaphore;
use varve_log::{
    format::{
        BatchError, ControlRecord, RecordBatchView,
        compression::{CodecError, decompress},
        records,
    },
    local::LogSlice,
};
use varve_metadata::model::{HighWatermark, LogStartOffset, Offset, ProducerId};

use super::Seat;
use crate::{
    coordinator::{
        Shard,
        records::{CoordinatorRecord, RecordError},
    },
    partition::{Isolation, PartitionRead, PartitionReadError, ReadRequest, RemoteError},
};

/// Most bytes that one batch may unpack to: far above what a coordinator writes, and a bound all the same.
const UNPACKED_MAX: usize = 64 * 1024 * 1024;

/// Why a partition could not be loaded. It is then not served: offsets would seem to be lost.
#[derive(Debug, thiserror::Error)]
enum LoadError {
    #[error(transparent)]
    Read(#[from] PartitionReadError),
    #[error(transparent)]
    Remote(#[from] RemoteError),
    #[error("a segment cannot be read")]
    Io(#[from] std::io::Error),
    #[error("a record batch is damaged")]
    Batch(#[from] BatchError),
    #[error("a record batch cannot be unpacked")]
    Codec(#[from] CodecError),
    #[error("a record in a batch is damaged")]
    Structure(#[from] varve_log::format::RecordError),
    #[error("a record of a group is damaged")]
    Record(#[from] RecordError),
    #[error("nothing could be read at offset {0}")]
    Stuck(Offset),
}

/// Loads the seat's shard and has it serve, or gives the seat up.
pub(super) async fn load(seat: Arc<Seat>, loads: Arc<Semaphore>, max_bytes: u32) {
    // The semaphore is never closed.
    let _turn = loads.acquire().await;
    let index = seat.partition().id().index;
    match read_all(&seat, max_bytes).await {
        Ok(shard) => {
            let stats = shard.stats();
            if stats.groups > 0 {
                tracing::info!(partition = %index, groups = stats.groups, offsets = stats.offsets, "loaded groups");
            }
            seat.serve(shard);
        }
        Err(error) => {
            tracing::error!(partition = %index, error = &error as &dyn std::error::Error, "groups cannot be loaded");
            seat.close();
        }
    }
}

async fn read_all(seat: &Seat, max_bytes: u32) -> Result<Shard, LoadError> {
    let partition = seat.partition();
    let mut replay = Replay { seat, shard: seat.new_shard(), open: HashMap::new() };
    let LogStartOffset(mut from) = partition.log_start();
    let HighWatermark(bound) = partition.high_watermark();
    while from < bound {
        let request = ReadRequest {
            from,
            current_epoch: None,
            last_fetched_epoch: None,
            isolation: Isolation::Uncommitted,
            max_bytes,
            at_least_one: true,
        };
        let (_, read) = partition.read(&request)?;
        let next = match read {
            // The cleaner may have left nothing behind the last batch.
            PartitionRead::Local { slice, .. } if slice.len == 0 => break,
            PartitionRead::Local { slice, .. } => replay.batches(&read_slice(slice).await?, from)?,
            PartitionRead::Remote { reader, from, bound, max_bytes } => {
                let found = reader.read(from, bound, max_bytes).await?;
                let mut next = from;
                for piece in &found.pieces {
                    next = replay.batches(piece, next)?;
                }
                next.max(found.end)
            }
            PartitionRead::Diverged { .. } => return Err(LoadError::Stuck(from)),
        };
        if next <= from {
            return Err(LoadError::Stuck(from));
        }
        from = next;
    }
    Ok(replay.shard)
}

async fn read_slice(slice: LogSlice) -> std::io::Result<Vec<u8>> {
    tokio::task::spawn_blocking(move || slice.read()).await.map_err(std::io::Error::other)?
}

struct Replay<'a> {
    seat: &'a Seat,
    shard: Shard,
    /// Commits of transactions that have not ended yet (KIP-98).
    open: HashMap<ProducerId, Vec<CoordinatorRecord>>,
}

impl Replay<'_> {
    /// Replays whole batches; a cut one at the end is left for the next read. Returns the offset to go on from.
    fn batches(&mut self, mut bytes: &[u8], from: Offset) -> Result<Offset, LoadError> {
        let mut next = from;
        while !bytes.is_empty() {
            let (batch, rest) = match RecordBatchView::parse(bytes) {
                Ok(parsed) => parsed,
                Err(BatchError::Truncated) => break,
                Err(error) => return Err(error.into()),
            };
            self.batch(&batch)?;
            let header = batch.header();
            next = header.base_offset.plus(u64::from(header.last_offset_delta) + 1);
            bytes = rest;
        }
        Ok(next)
    }

    fn batch(&mut self, batch: &RecordBatchView<'_>) -> Result<(), LoadError> {
        let header = batch.header();
        let payload = decompress(header.attributes.compression(), batch.payload(), UNPACKED_MAX)?;
        for record in records(&payload, header.record_count) {
            let record = record?;
            if header.attributes.is_control() {
                let ended = header.producer_id.and_then(|producer| self.open.remove(&producer));
                if let (Some(commits), Some(ControlRecord::Commit { .. })) = (ended, ControlRecord::parse(&record)?) {
                    commits.into_iter().try_for_each(|commit| self.apply(commit))?;
                }
                continue;
            }
            let Some(key) = record.key else { continue };
            let decoded = match CoordinatorRecord::decode(key, record.value) {
                Ok(decoded) => decoded,
                Err(RecordError::UnknownKind(kind)) => {
                    tracing::warn!(kind, "skipping a record of a group type that is not served");
                    continue;
                }
                Err(error) => return Err(error.into()),
            };
            match header.producer_id.filter(|_| header.attributes.is_transactional()) {
                Some(producer) => self.open.entry(producer).or_default().push(decoded),
                None => self.apply(decoded)?,
            }
        }
        Ok(())
    }

    fn apply(&mut self, record: CoordinatorRecord) -> Result<(), LoadError> {
        Ok(self.shard.replay(self.seat.now(), record)?)
    }
}
