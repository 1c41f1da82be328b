//! The local log as its users see it.

mod append;
mod clean;
mod concurrency;
mod model;
mod recovery;
mod relocate;
mod transactions;
mod upkeep;

use std::{path::Path, sync::Arc};

use varve_metadata::{
    config::Codec,
    model::{LeaderEpoch, Offset, Timestamp},
};

use super::*;
use crate::format::{BatchBuilder, RecordBatchView, RecordContent, batches, compression, records};

pub(super) const NOW: i64 = 1_700_000_000_000;

pub(super) fn at(raw: u64) -> Offset {
    Offset::new(raw).unwrap()
}

pub(super) fn ms(raw: i64) -> Timestamp {
    Timestamp::from_wire(raw).unwrap()
}

pub(super) fn client() -> AppendContext {
    AppendContext { leader_epoch: LeaderEpoch(0), now: ms(NOW), origin: AppendOrigin::Client }
}

pub(super) fn in_epoch(epoch: u32) -> AppendContext {
    AppendContext { leader_epoch: LeaderEpoch(epoch), ..client() }
}

/// A batch of `values`, one record each, key `k`, all of timestamp `timestamp`.
pub(super) fn batch_at(timestamp: i64, values: &[&str]) -> Vec<u8> {
    compressed(Codec::None, timestamp, values)
}

pub(super) fn batch(values: &[&str]) -> Vec<u8> {
    batch_at(NOW, values)
}

pub(super) fn compressed(codec: Codec, timestamp: i64, values: &[&str]) -> Vec<u8> {
    let mut builder = BatchBuilder::new(Offset::ZERO).compression(codec, None);
    for value in values {
        let timestamp = Timestamp::from_wire(timestamp);
        builder.push(RecordContent { timestamp, key: Some(b"k"), value: Some(value.as_bytes()), headers: &[] });
    }
    builder.build().unwrap()
}

/// A log in a directory of its own.
pub(super) struct Fixture {
    pub(super) dir: tempfile::TempDir,
    pub(super) config: LogConfig,
}

impl Fixture {
    pub(super) fn new() -> Fixture {
        Fixture { dir: tempfile::tempdir().unwrap(), config: LogConfig::default() }
    }

    pub(super) fn with(mut self, change: impl FnOnce(&mut LogConfig)) -> Fixture {
        change(&mut self.config);
        self
    }

    pub(super) fn path(&self) -> &Path {
        self.dir.path()
    }

    pub(super) fn open(&self, start: RecoveryStart) -> (LocalLog, Recovered) {
        LocalLog::open(self.path(), Arc::new(self.config.clone()), start, ms(NOW)).unwrap()
    }

    pub(super) fn new_log(&self) -> LocalLog {
        self.open(RecoveryStart::NEW).0
    }

    /// As after `kill -9` with nothing flushed.
    pub(super) fn crashed(&self) -> (LocalLog, Recovered) {
        self.open(RecoveryStart { clean: false, ..RecoveryStart::NEW })
    }
}

/// Offset and value of every record from `from` to `bound`.
pub(super) fn read_all(log: &LocalLog, from: Offset, bound: Offset) -> Vec<(u64, String)> {
    let mut found = Vec::new();
    let mut next = from;
    while next < bound {
        let slice = log.read(next, bound, 1 << 20, true).unwrap();
        if slice.len == 0 {
            break;
        }
        for batch in batches(&slice.read().unwrap()) {
            let batch = batch.unwrap();
            collect(&batch, &mut found);
            next = batch.header().next_offset();
        }
    }
    found.retain(|(offset, _)| *offset >= from.get());
    found
}

pub(super) fn collect(batch: &RecordBatchView<'_>, found: &mut Vec<(u64, String)>) {
    let header = batch.header();
    let payload = compression::decompress(header.attributes.compression(), batch.payload(), 1 << 20).unwrap();
    for record in records(&payload, header.record_count) {
        let record = record.unwrap();
        let value = record.value.map(|value| String::from_utf8_lossy(value).into_owned()).unwrap_or_default();
        found.push((header.base_offset.get() + record.offset_delta as u64, value));
    }
}

pub(super) fn all(log: &LocalLog) -> Vec<(u64, String)> {
    read_all(log, log.local_start(), log.end().0)
}

pub(super) fn values(expected: &[(u64, &str)]) -> Vec<(u64, String)> {
    expected.iter().map(|(offset, value)| (*offset, (*value).to_owned())).collect()
}
