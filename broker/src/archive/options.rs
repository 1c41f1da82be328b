//! The node's settings as the archive's parts take them.

use std::num::NonZeroU64;

use varve_compactor::options::{CompactorOptions, SpillDisk};
use varve_tiering::tier::{
    archiver::{ArchiverOptions, Sharing},
    cold::{ColdDisk, ColdOptions},
};

use crate::config::BrokerConfig;

/// What the cache and the compactor leave of a disk on which logs may lie, in percent.
const LEFT_FREE: u64 = 5;

fn size(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

pub(super) fn cold_options(config: &BrokerConfig) -> ColdOptions {
    let (cache, archive) = (&config.cache, &config.archive);
    let defaults = ColdOptions::default();
    ColdOptions {
        memory_bytes: size(cache.memory_bytes),
        disk: (cache.disk_bytes > 0).then(|| ColdDisk {
            directory: cache.dir.clone(),
            bytes: size(cache.disk_bytes),
            leave_free_percent: LEFT_FREE,
        }),
        in_flight_reads: archive.read_concurrency as usize,
        waiting_reads: archive.read_queue as usize,
        read_rate: archive.read_bytes_per_second.and_then(NonZeroU64::new),
        read_ahead: size(cache.read_ahead_bytes.div_ceil(config.compactor.row_group_bytes.max(1))),
        ..defaults
    }
}

pub(super) fn archiver_options(config: &BrokerConfig) -> ArchiverOptions {
    ArchiverOptions {
        workers: config.archive.upload_concurrency as usize,
        upload_rate: config.archive.upload_bytes_per_second.and_then(NonZeroU64::new),
        check_interval: config.logs.retention_check_interval,
        hot_limit: config.archive.local_max_bytes,
        // As for what the compactor makes: the sweep must not take it for an orphan.
        sharing: Sharing { patience: config.archive.grace / 2, ..Sharing::default() },
        ..ArchiverOptions::default()
    }
}

pub(crate) fn compactor_options(config: &BrokerConfig) -> CompactorOptions {
    let compactor = &config.compactor;
    let mut options = CompactorOptions {
        map_bytes: size(compactor.memory_bytes / u64::from(compactor.threads.max(1))),
        spill: Some(SpillDisk { directory: config.data_dir.clone(), leave_free_percent: LEFT_FREE }),
        jobs: compactor.threads as usize,
        interval: compactor.interval,
        grace: config.archive.grace,
        read_bytes_per_second: compactor.bytes_per_second.and_then(NonZeroU64::new),
        ..CompactorOptions::default()
    };
    // Garbage is looked for about as often as it comes of age.
    options.sweep_interval = options.sweep_interval.min(config.archive.grace.max(compactor.interval));
    options.limits.target = compactor.object_bytes;
    options.limits.small = options.limits.small.min(compactor.object_bytes);
    options.encode.group_bytes = size(compactor.row_group_bytes);
    options
}
