//! How the compactor works, as whoever runs it says.

use std::{num::NonZeroU64, path::PathBuf, time::Duration};

use varve_table::EncodeOptions;

use crate::plan::Limits;

/// How the compactor works.
#[derive(Clone, Debug)]
pub struct CompactorOptions {
    /// Sizes of objects.
    pub limits: Limits,
    /// Shape of Parquet objects.
    pub encode: EncodeOptions,
    /// Memory for the keys of one round of key compaction, in bytes (`log.cleaner.dedupe.buffer.size`).
    pub map_bytes: usize,
    /// Where keys go for which that memory is too small. `None`: a round ends where memory does.
    pub spill: Option<SpillDisk>,
    /// Partitions worked on at once; each takes a core and about 150 MiB.
    pub jobs: usize,
    /// Bytes read from the archive per second at most, by all jobs together; `None`: no limit.
    pub read_bytes_per_second: Option<NonZeroU64>,
    /// Pause between two looks at all partitions.
    pub interval: Duration,
    /// A partition whose manifest has not changed is looked at this often only: for what time alone makes due. Costs no
    /// request.
    pub idle_interval: Duration,
    /// How long an object outlives its removal from the manifest, and an orphan its upload.
    pub grace: Duration,
    /// Pause between two sweeps. Each lists the bucket, and so learns what other processes published.
    pub sweep_interval: Duration,
}

/// A directory for keys, for which 24 bytes per record of a partition are needed for a while.
#[derive(Clone, Debug)]
pub struct SpillDisk {
    /// Where; made if it does not exist.
    pub directory: PathBuf,
    /// Share of its file system that is left free, in percent: logs may lie there too.
    pub leave_free_percent: u64,
}

impl Default for CompactorOptions {
    fn default() -> CompactorOptions {
        CompactorOptions {
            limits: Limits::default(),
            encode: EncodeOptions::default(),
            map_bytes: 128 << 20,
            spill: None,
            jobs: 1,
            read_bytes_per_second: None,
            interval: Duration::from_secs(5),
            idle_interval: Duration::from_secs(10 * 60),
            grace: Duration::from_secs(60 * 60),
            sweep_interval: Duration::from_secs(10 * 60),
        }
    }
}
