//! Knobs of cold reads.

use std::{num::NonZeroU64, path::PathBuf};

/// Bounds of memory, disk and bandwidth that cold reads may take.
#[derive(Clone, Debug)]
pub struct ColdOptions {
    /// Batches kept in memory, in bytes.
    pub memory_bytes: usize,
    /// Batches kept on disk, if any.
    pub disk: Option<ColdDisk>,
    /// Footers and indexes of objects kept in memory, in bytes.
    pub index_bytes: usize,
    /// Bytes being fetched or rebuilt at one time, all partitions together.
    pub in_flight_bytes: u64,
    /// Objects being read at one time.
    pub in_flight_reads: usize,
    /// Reads that may wait for their turn; further ones are told that they came too many.
    pub waiting_reads: usize,
    /// Bytes per second that are read from the bucket at most; `None`: as fast as it goes.
    pub read_rate: Option<NonZeroU64>,
    /// Objects being decoded at one time: threads that cold reads may keep busy.
    pub decoders: usize,
    /// How many units (row groups, or stretches of [`ColdOptions::raw_unit_bytes`]) a sequential reader is kept ahead at most.
    pub read_ahead: usize,
    /// Size of one read of a raw object, in bytes.
    pub raw_unit_bytes: u64,
}

/// A directory for the cache, and how much of it.
#[derive(Clone, Debug)]
pub struct ColdDisk {
    /// Where; nothing else may lie there.
    pub directory: PathBuf,
    /// Most bytes.
    pub bytes: usize,
    /// Share of its file system that is left free, in percent, so that the cache is never what fills it: logs may lie there too.
    pub leave_free_percent: u64,
}

impl Default for ColdOptions {
    fn default() -> ColdOptions {
        ColdOptions {
            memory_bytes: 128 << 20,
            disk: None,
            index_bytes: 32 << 20,
            in_flight_bytes: 128 << 20,
            in_flight_reads: 32,
            waiting_reads: 1024,
            read_rate: None,
            decoders: 2,
            read_ahead: 4,
            raw_unit_bytes: 4 << 20,
        }
    }
}
