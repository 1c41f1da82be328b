//! More keys than memory takes: every key with its offset goes to a file on the disk, cut by digest, and each cut is then
//! looked at by itself. What comes out is the set of offsets whose key occurs again later.
//!
//! ```text
//!  keys in offset order ──► cut by digest ──► file (24 bytes each: digest u128 │ offset u64) ──► map of one cut ──► dead offsets
//! ```
//!
//! A cut that is still too large for the map is read several times, a part of its keys each time. The files have no name:
//! a crash leaves nothing behind. Disk: 24 bytes per record of the round. Memory: the map, a buffer per file, and about one
//! bit per offset of the round where records died.

use std::{
    collections::BTreeMap,
    io::{self, BufReader, BufWriter, Read, Seek, Write},
    path::Path,
};

use varve_log::local::cleaner::{KeyDigest, KeySink, LatestOffsets, OffsetMap};
use varve_metadata::model::Offset;

use crate::options::SpillDisk;

const ENTRY_BYTES: usize = 24;
const BUFFER_BYTES: usize = 64 << 10;
const MOST_FILES: usize = 64;
/// Bytes of a map per key that it has room for, about: it doubles, and is full at three quarters.
const MAP_BYTES_PER_KEY: u64 = 96;

/// Keys on their way to the disk.
#[derive(Debug)]
pub(crate) struct Spill {
    files: Vec<BufWriter<std::fs::File>>,
    end: Offset,
    /// The first error of the disk; nothing is taken after it.
    failed: Option<io::Error>,
}

impl Spill {
    /// For about `records` keys, with `map_bytes` of memory.
    ///
    /// # Errors
    /// [`io::ErrorKind::StorageFull`] also if the file system would have less left than it is to have.
    pub(crate) fn new(disk: &SpillDisk, records: u64, map_bytes: usize) -> io::Result<Spill> {
        let SpillDisk { directory, leave_free_percent } = disk;
        std::fs::create_dir_all(directory)?;
        let found = rustix::fs::statvfs(directory)?;
        let bytes = |blocks: u64| blocks.saturating_mul(found.f_frsize);
        if !has_room(records, bytes(found.f_bavail), bytes(found.f_blocks), *leave_free_percent) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let cuts = (records.saturating_mul(MAP_BYTES_PER_KEY) / (map_bytes as u64).max(1)).saturating_add(1);
        Spill::cut(directory, usize::try_from(cuts).unwrap_or(MOST_FILES).min(MOST_FILES).next_power_of_two())
    }

    fn cut(directory: &Path, cuts: usize) -> io::Result<Spill> {
        let file = |_| Ok(BufWriter::with_capacity(BUFFER_BYTES, tempfile::tempfile_in(directory)?));
        Ok(Spill { files: (0..cuts).map(file).collect::<io::Result<_>>()?, end: Offset::ZERO, failed: None })
    }

    /// The offsets whose key occurs again later.
    pub(crate) fn resolve(self, map_bytes: usize) -> io::Result<Superseded> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        let mut superseded = Superseded { dead: DeadOffsets::default(), end: self.end };
        for file in self.files {
            let mut file = file.into_inner().map_err(io::IntoInnerError::into_error)?;
            let mut parts = 1;
            // What a try that ran out of room has found is true all the same.
            while !look_at(&mut file, parts, map_bytes, &mut superseded.dead)? {
                parts *= 2;
            }
        }
        Ok(superseded)
    }

    fn try_put(&mut self, key: KeyDigest, offset: Offset) -> io::Result<()> {
        // The map places keys by their lowest bits and the parts of a cut take the next, so the cut takes the highest.
        let cut = (key.get() >> 96) as usize & (self.files.len() - 1);
        let file = &mut self.files[cut];
        file.write_all(&key.get().to_be_bytes())?;
        file.write_all(&offset.get().to_be_bytes())
    }
}

impl KeySink for Spill {
    fn put(&mut self, key: KeyDigest, offset: Offset) -> bool {
        if self.failed.is_none() {
            self.failed = self.try_put(key, offset).err();
        }
        self.failed.is_none()
    }

    fn cover(&mut self, end: Offset) {
        self.end = self.end.max(end);
    }
}

/// Whether `records` leave so many percent of the disk free.
fn has_room(records: u64, free_bytes: u64, all_bytes: u64, percent: u64) -> bool {
    let left = free_bytes.checked_sub(records.saturating_mul(ENTRY_BYTES as u64));
    left.is_some_and(|left| u128::from(left) * 100 >= u128::from(all_bytes) * u128::from(percent))
}

/// Reads one cut `parts` times; `false` if a part of its keys is too large for the map.
fn look_at(file: &mut std::fs::File, parts: u64, map_bytes: usize, dead: &mut DeadOffsets) -> io::Result<bool> {
    for part in 0..parts {
        file.rewind()?;
        let mut entries = BufReader::with_capacity(BUFFER_BYTES, &mut *file);
        let mut map = OffsetMap::new(map_bytes);
        let mut entry = [0; ENTRY_BYTES];
        while read_entry(&mut entries, &mut entry)? {
            let (digest, offset) = entry.split_at(ENTRY_BYTES - 8);
            let digest = u128::from_be_bytes(digest.try_into().map_err(io::Error::other)?);
            if (digest >> 64) as u64 % (1 << 32) % parts != part {
                continue;
            }
            let offset = u64::from_be_bytes(offset.try_into().map_err(io::Error::other)?);
            let (key, offset) = (KeyDigest::from(digest), Offset::new(offset).ok_or(io::ErrorKind::InvalidData)?);
            if let Some(before) = map.get(key) {
                dead.insert(before);
            }
            if !map.put(key, offset) {
                return Ok(false);
            }
        }
    }
    Ok(true)
}

fn read_entry(entries: &mut impl Read, entry: &mut [u8; ENTRY_BYTES]) -> io::Result<bool> {
    match entries.read_exact(entry) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

/// What is the last record of its key, told by the offsets of those that are not.
#[derive(Debug)]
pub(crate) struct Superseded {
    dead: DeadOffsets,
    end: Offset,
}

impl LatestOffsets for Superseded {
    fn is_latest(&self, _key: &[u8], offset: Offset) -> bool {
        !self.dead.contains(offset)
    }

    fn end(&self) -> Offset {
        self.end
    }
}

/// A set of offsets, in pages of 65,536: a list where there are few in a page, else a bit each.
#[derive(Debug, Default)]
struct DeadOffsets(BTreeMap<u64, Page>);

#[derive(Debug)]
enum Page {
    Few(Vec<u16>),
    Many(Box<[u64; 1024]>),
}

/// Beyond it a list takes more than the bits.
const FEW: usize = 4096;

impl DeadOffsets {
    fn insert(&mut self, offset: Offset) {
        let low = offset.get() as u16;
        let page = self.0.entry(offset.get() >> 16).or_insert_with(|| Page::Few(Vec::new()));
        match page {
            Page::Few(list) => {
                if let Err(place) = list.binary_search(&low) {
                    list.insert(place, low);
                }
                if list.len() > FEW {
                    let mut bits = Box::new([0; 1024]);
                    list.iter().for_each(|low| bits[usize::from(low >> 6)] |= 1 << (low & 63));
                    *page = Page::Many(bits);
                }
            }
            Page::Many(bits) => bits[usize::from(low >> 6)] |= 1 << (low & 63),
        }
    }

    fn contains(&self, offset: Offset) -> bool {
        let low = offset.get() as u16;
        self.0.get(&(offset.get() >> 16)).is_some_and(|page| match page {
            Page::Few(list) => list.binary_search(&low).is_ok(),
            Page::Many(bits) => bits[usize::from(low >> 6)] & (1 << (low & 63)) != 0,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeSet, HashMap};

    use proptest::prelude::*;

    use super::*;

    fn at(raw: u64) -> Offset {
        Offset::new(raw).unwrap()
    }

    /// The offsets that a plain map finds dead.
    fn model(keys: &[(u64, u32)]) -> BTreeSet<u64> {
        let mut latest = HashMap::new();
        keys.iter().filter_map(|(offset, key)| latest.insert(*key, *offset)).collect()
    }

    fn check(keys: &[(u64, u32)], files: usize) {
        let directory = tempfile::tempdir().unwrap();
        let mut spill = Spill::cut(directory.path(), files).unwrap();
        for (offset, key) in keys {
            assert!(spill.put(KeyDigest::of(&key.to_be_bytes()), at(*offset)));
            spill.cover(at(offset + 1));
        }
        // Nothing that a crash would leave behind.
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
        let superseded = spill.resolve(0).unwrap();
        let dead = model(keys);
        for (offset, key) in keys {
            assert_eq!(superseded.is_latest(&key.to_be_bytes(), at(*offset)), !dead.contains(offset));
        }
    }

    #[test]
    fn more_keys_than_the_map_takes_give_the_same_as_a_map_without_bound() {
        let keys: Vec<(u64, u32)> = (0..30_000u64).map(|n| (n * 3, (n * 7919 % 9000) as u32)).collect();
        for files in [1, 4, 64] {
            check(&keys, files);
        }
    }

    #[test]
    fn keys_that_would_fill_the_disk_stay_off_it() {
        assert!(has_room(100, 2900, 10_000, 5));
        assert!(!has_room(100, 2899, 10_000, 5));
        let directory = tempfile::tempdir().unwrap();
        let disk = SpillDisk { directory: directory.path().to_owned(), leave_free_percent: 0 };
        let refused = Spill::new(&disk, u64::MAX, 1).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::StorageFull);
    }

    proptest! {
        #[test]
        fn any_keys_at_any_distance(steps in proptest::collection::vec((1u64..200_000, 0u32..50), 0..300)) {
            let mut offset = 0;
            let keys: Vec<(u64, u32)> = steps.into_iter().map(|(step, key)| { offset += step; (offset, key) }).collect();
            check(&keys, 4);
        }
    }
}
