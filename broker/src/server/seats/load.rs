//! From the log of a partition to its machine, wherever that log lies.

use std::{sync::Arc, time::Duration};

use tokio::sync::Semaphore;
use varve_log::{
    format::{
        BatchError, ControlRecord, RecordBatchView,
        compression::{CodecError, decompress},
        records,
    },
    local::LogSlice,
};
use varve_metadata::model::{LogEndOffset, LogStartOffset, Offset};

use super::{Office, Seat};
use crate::{
    coordinator::{Entry, LogRecord, Machine, codec::RecordError},
    partition::{CommitError, Isolation, PartitionRead, PartitionReadError, ReadRequest, RemoteError},
};

/// Most bytes that one batch may unpack to: far above what a coordinator writes, and a bound all the same.
const UNPACKED_MAX: usize = 64 * 1024 * 1024;

/// Between two tries to read what is in the archive alone.
const REMOTE_AGAIN: Duration = Duration::from_secs(1);

/// Why a partition could not be loaded. It is then not served: what it coordinates would seem to be lost.
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
    #[error("a coordinator's record is damaged")]
    Record(#[from] RecordError),
    #[error("nothing could be read at offset {0}")]
    Stuck(Offset),
}

/// Loads the seat's machine and has it serve, or gives the seat up.
pub(super) async fn load<O: Office>(seat: Arc<Seat<O>>, loads: Arc<Semaphore>, max_bytes: u32) {
    // Earlier leaders may have committed all that is here, and answered for it: it counts once the followers have it.
    let end = seat.partition().log().end();
    match seat.partition().committed_in(seat.epoch(), end).await {
        Ok(()) => {}
        // Whoever leads now loads it; a disk that failed was told.
        Err(CommitError::NotLeader | CommitError::Flush(_)) => return seat.close(),
    }
    let (topic, index) = (seat.partition().topic().clone(), seat.partition().id().index);
    while !seat.is_closed() {
        let read = {
            // The semaphore is never closed.
            let _turn = loads.acquire().await;
            read_all(&seat, end, max_bytes).await
        };
        match read {
            Ok(machine) => {
                seat.office().loaded(index, &machine);
                return seat.serve(machine);
            }
            Err(LoadError::Remote(error @ (RemoteError::Unavailable(_) | RemoteError::Busy))) => {
                tracing::warn!(%topic, partition = %index, %error, "a coordinator's state waits for the archive");
                tokio::time::sleep(REMOTE_AGAIN).await;
            }
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::error!(%topic, partition = %index, error, "a coordinator's state cannot be loaded");
                return seat.close();
            }
        }
    }
}

async fn read_all<O: Office>(
    seat: &Seat<O>,
    LogEndOffset(bound): LogEndOffset,
    max_bytes: u32,
) -> Result<O::Machine, LoadError> {
    let partition = seat.partition();
    let mut replay = Replay { seat, machine: seat.office().machine(partition) };
    let LogStartOffset(mut from) = partition.log_start();
    while from < bound {
        let request = ReadRequest {
            from,
            current_epoch: None,
            last_fetched_epoch: None,
            isolation: Isolation::Uncommitted,
            max_bytes,
            at_least_one: true,
            may_follow: false,
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
    Ok(replay.machine)
}

async fn read_slice(slice: LogSlice) -> std::io::Result<Vec<u8>> {
    tokio::task::spawn_blocking(move || slice.read()).await.map_err(std::io::Error::other)?
}

struct Replay<'a, O: Office> {
    seat: &'a Seat<O>,
    machine: O::Machine,
}

impl<O: Office> Replay<'_, O> {
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
            let offset = header.base_offset.plus(record.offset_delta.max(0) as u64);
            let entry = if header.attributes.is_control() {
                let Some(producer) = header.producer_id else { continue };
                match ControlRecord::parse(&record)? {
                    Some(ControlRecord::Commit { .. }) => Entry::Marker { producer, committed: true },
                    Some(ControlRecord::Abort { .. }) => Entry::Marker { producer, committed: false },
                    None => continue,
                }
            } else {
                let Some(key) = record.key else { continue };
                let producer = header.producer_id.filter(|_| header.attributes.is_transactional());
                match <O::Machine as Machine>::Record::decode(key, record.value) {
                    Ok(record) => Entry::Record { offset, producer, record },
                    Err(RecordError::UnknownKind(kind)) => {
                        tracing::warn!(kind, "skipping a coordinator's record of a kind that is not served");
                        continue;
                    }
                    Err(error) => return Err(error.into()),
                }
            };
            self.machine.replay(self.seat.now(), entry)?;
        }
        Ok(())
    }
}
