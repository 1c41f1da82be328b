//! Archived batches in memory and on disk.

use std::io::{Read, Write};

use bytes::Bytes;
use foyer::{
    BlockEngineConfig, Cache, CacheBuilder, Code, DeviceBuilder, FsDeviceBuilder, HybridCache, HybridCacheBuilder,
    HybridCachePolicy, HybridCacheProperties, Location, RecoverMode,
};

use super::options::{ColdDisk, ColdOptions};

/// A run of batches takes at least this much of its shard, or else shards would be too small for one.
const SHARD_BYTES: usize = 64 << 20;
/// Unit of space on disk; a run of batches must fit into one.
const DISK_BLOCK_BYTES: usize = 64 << 20;

/// Which run of batches. Objects never change, so an entry is right for ever, also after a restart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct RunKey {
    pub(super) part: PartKey,
    pub(super) run: Run,
    /// Compressed again with each batch's own codec.
    pub(super) recompressed: bool,
}

/// Which object, or which part of a shared one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct PartKey {
    pub(super) object: u128,
    pub(super) position: u64,
}

/// Which batches of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Run {
    /// A unit, by its number.
    Unit(u64),
    /// What was fetched for a reader that began at this offset.
    From(u64),
}

const KEY_BYTES: usize = 33;

impl Code for RunKey {
    fn encode(&self, writer: &mut impl Write) -> foyer::Result<()> {
        let (kind, at) = match self.run {
            Run::Unit(index) => (0, index),
            Run::From(offset) => (1, offset),
        };
        let mut bytes = [0; KEY_BYTES];
        bytes[0..16].copy_from_slice(&self.part.object.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.part.position.to_le_bytes());
        bytes[24..32].copy_from_slice(&at.to_le_bytes());
        bytes[32] = kind | u8::from(self.recompressed) << 1;
        writer.write_all(&bytes).map_err(foyer::Error::io_error)
    }

    fn decode(reader: &mut impl Read) -> foyer::Result<RunKey> {
        fn number<const N: usize>(bytes: &[u8; KEY_BYTES], at: usize) -> [u8; N] {
            let mut out = [0; N];
            out.copy_from_slice(&bytes[at..at + N]);
            out
        }
        let mut bytes = [0; KEY_BYTES];
        reader.read_exact(&mut bytes).map_err(foyer::Error::io_error)?;
        let at = u64::from_le_bytes(number(&bytes, 24));
        Ok(RunKey {
            part: PartKey {
                object: u128::from_le_bytes(number(&bytes, 0)),
                position: u64::from_le_bytes(number(&bytes, 16)),
            },
            run: if bytes[32] & 1 == 0 { Run::Unit(at) } else { Run::From(at) },
            recompressed: bytes[32] & 2 != 0,
        })
    }

    fn estimated_size(&self) -> usize {
        KEY_BYTES
    }
}

/// Why the cache could not be opened.
#[derive(Debug, thiserror::Error)]
#[error("the cache of cold reads cannot be opened")]
pub struct ColdOpenError(#[from] foyer::Error);

/// Runs of batches by what they are, and opened objects.
pub(super) struct ColdCache<O: Send + Sync + 'static> {
    runs: HybridCache<RunKey, Bytes>,
    opened: Cache<PartKey, O>,
    disk: Option<ColdDisk>,
}

impl<O: Clone + Send + Sync + 'static> ColdCache<O> {
    pub(super) async fn open(
        options: &ColdOptions,
        weigh: impl Fn(&O) -> usize + Send + Sync + 'static,
    ) -> Result<ColdCache<O>, ColdOpenError> {
        let memory = HybridCacheBuilder::new()
            .with_name("varve-cold")
            // On disk as soon as it comes, so that a restart finds it and eviction costs nothing.
            .with_policy(HybridCachePolicy::WriteOnInsertion)
            .with_flush_on_close(false)
            .memory(options.memory_bytes.max(1))
            .with_shards((options.memory_bytes / SHARD_BYTES).clamp(1, 16))
            .with_weighter(|_: &RunKey, run: &Bytes| KEY_BYTES + run.len());
        let storage = memory.storage();
        let runs = match &options.disk {
            None => storage.build().await?,
            Some(ColdDisk { directory, bytes, .. }) => {
                let device =
                    FsDeviceBuilder::new(directory).with_capacity((*bytes).max(DISK_BLOCK_BYTES * 4)).build()?;
                let engine = BlockEngineConfig::new(device).with_block_size(DISK_BLOCK_BYTES);
                storage.with_engine_config(engine).with_recover_mode(RecoverMode::Quiet).build().await?
            }
        };
        let opened = CacheBuilder::new(options.index_bytes.max(1))
            .with_name("varve-cold-index")
            .with_shards(1)
            .with_weighter(move |_: &PartKey, object: &O| weigh(object))
            .build();
        Ok(ColdCache { runs, opened, disk: options.disk.clone() })
    }

    /// The run, if it is in memory.
    pub(super) fn in_memory(&self, key: &RunKey) -> Option<Bytes> {
        self.runs.memory().get(key).map(|entry| entry.value().clone())
    }

    /// The run, if it is on disk. A disk that fails is one that has nothing.
    pub(super) async fn on_disk(&self, key: &RunKey) -> Option<Bytes> {
        if !self.runs.is_hybrid() {
            return None;
        }
        match self.runs.get(key).await {
            Ok(found) => found.map(|entry| entry.value().clone()),
            Err(error) => {
                tracing::warn!(%error, "the disk cache of cold reads cannot be read");
                None
            }
        }
    }

    /// Keeps the run: on disk only while there is room beside the cache, so that it is never what fills the disk.
    pub(super) fn insert(&self, key: RunKey, run: Bytes) {
        if self.disk.as_ref().is_none_or(has_room) {
            self.runs.insert(key, run);
        } else {
            let in_memory = HybridCacheProperties::default().with_location(Location::InMem);
            self.runs.insert_with_properties(key, run, in_memory);
        }
    }

    pub(super) fn opened(&self, part: &PartKey) -> Option<O> {
        self.opened.get(part).map(|entry| entry.value().clone())
    }

    pub(super) fn insert_opened(&self, part: PartKey, object: O) {
        self.opened.insert(part, object);
    }

    pub(super) async fn close(&self) -> Result<(), ColdOpenError> {
        Ok(self.runs.close().await?)
    }
}

/// Whether the file system of the cache has room to spare; one that cannot say has none.
fn has_room(disk: &ColdDisk) -> bool {
    let found = rustix::fs::statvfs(&disk.directory);
    found.is_ok_and(|found| leaves_room(found.f_bavail, found.f_blocks, disk.leave_free_percent))
}

fn leaves_room(free_blocks: u64, all_blocks: u64, percent: u64) -> bool {
    u128::from(free_blocks) * 100 > u128::from(all_blocks) * u128::from(percent)
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    #[test]
    fn a_key_survives_its_bytes() {
        for run in [Run::Unit(3), Run::From(u64::MAX)] {
            for recompressed in [false, true] {
                let key = RunKey { part: PartKey { object: u128::MAX - 5, position: 77 }, run, recompressed };
                let mut bytes = Vec::new();
                key.encode(&mut bytes).unwrap();
                assert_eq!(bytes.len(), key.estimated_size());
                assert_eq!(RunKey::decode(&mut bytes.as_slice()).unwrap(), key);
            }
        }
    }

    #[test]
    fn the_last_part_of_a_disk_is_not_the_caches() {
        assert!(leaves_room(6, 100, 5) && !leaves_room(5, 100, 5) && !leaves_room(0, 0, 5));
        assert!(leaves_room(u64::MAX, u64::MAX, 99) && !leaves_room(u64::MAX, u64::MAX, 100));
        assert!(!has_room(&on("/no/such/directory".into())));
    }

    /// However full the machine's own disk is.
    fn on(directory: PathBuf) -> ColdDisk {
        ColdDisk { directory, bytes: 256 << 20, leave_free_percent: 0 }
    }

    #[tokio::test]
    async fn on_a_full_disk_runs_stay_in_memory() {
        let directory = tempfile::tempdir().unwrap();
        let disk = on(directory.path().to_owned());
        let options = ColdOptions { disk: Some(disk), memory_bytes: 1 << 20, ..ColdOptions::default() };
        let key = RunKey { part: PartKey { object: 6, position: 0 }, run: Run::Unit(0), recompressed: false };
        let mut cache = ColdCache::<()>::open(&options, |()| 1).await.unwrap();
        // A directory that is not there has no room.
        cache.disk = Some(on(directory.path().join("gone")));
        cache.insert(key, Bytes::from(vec![7; 100_000]));
        assert!(cache.in_memory(&key).is_some());
        cache.close().await.unwrap();
        let cache = ColdCache::<()>::open(&options, |()| 1).await.unwrap();
        assert_eq!(cache.on_disk(&key).await, None);
    }

    #[tokio::test]
    async fn what_was_cached_on_disk_is_there_after_a_restart() {
        let directory = tempfile::tempdir().unwrap();
        let disk = on(directory.path().to_owned());
        let options = ColdOptions { disk: Some(disk), memory_bytes: 1 << 20, ..ColdOptions::default() };
        let key = RunKey { part: PartKey { object: 5, position: 0 }, run: Run::Unit(0), recompressed: false };
        let open = || ColdCache::<()>::open(&options, |()| 1);
        let cache = open().await.unwrap();
        cache.insert(key, Bytes::from(vec![7; 100_000]));
        cache.close().await.unwrap();
        drop(cache);
        let cache = open().await.unwrap();
        assert_eq!(cache.in_memory(&key), None);
        assert_eq!(cache.on_disk(&key).await, Some(Bytes::from(vec![7; 100_000])));
        assert!(cache.in_memory(&key).is_some());
    }
}
