//! Sparse indexes of a segment, in Kafka's bytes (big-endian, no header).
//!
//! ```text
//! <base>.index      last offset of a batch - base  u32 │ position of that batch u32                 (8 bytes)
//! <base>.timeindex  largest timestamp so far i64       │ last offset of its batch - base u32        (12 bytes)
//! ```
//! Both rise from entry to entry. An index only says where to start looking: whoever follows it checks what it finds, so
//! that a damaged index costs time and not correctness. The newest entries of a growing index wait in memory and reach the
//! file a page at a time; after a crash they are rebuilt from the batches.

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

/// Entries that wait in memory before they are written together.
const TAIL_ENTRIES: usize = 512;
/// Entries read at once when a search has come close.
const PAGE_ENTRIES: u32 = 256;

/// An entry of fixed size.
pub(super) trait IndexEntry: Copy {
    /// Bytes of an entry.
    const BYTES: usize;
    /// Appends the entry's bytes.
    fn encode(&self, out: &mut Vec<u8>);
    /// Reads the entry from exactly [`Self::BYTES`] bytes.
    fn decode(bytes: &[u8]) -> Self;
}

/// The batch at `position` ends with offset base + `relative_offset`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct OffsetEntry {
    pub(super) relative_offset: u32,
    pub(super) position: u32,
}

impl IndexEntry for OffsetEntry {
    const BYTES: usize = 8;

    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.relative_offset.to_be_bytes());
        out.extend_from_slice(&self.position.to_be_bytes());
    }

    fn decode(bytes: &[u8]) -> OffsetEntry {
        let number = |at| u32::from_be_bytes(array(bytes, at));
        OffsetEntry { relative_offset: number(0), position: number(4) }
    }
}

/// Up to base + `relative_offset`, no record is younger than `timestamp_ms`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TimeEntry {
    pub(super) timestamp_ms: i64,
    pub(super) relative_offset: u32,
}

impl IndexEntry for TimeEntry {
    const BYTES: usize = 12;

    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.timestamp_ms.to_be_bytes());
        out.extend_from_slice(&self.relative_offset.to_be_bytes());
    }

    fn decode(bytes: &[u8]) -> TimeEntry {
        TimeEntry {
            timestamp_ms: i64::from_be_bytes(array(bytes, 0)),
            relative_offset: u32::from_be_bytes(array(bytes, 8)),
        }
    }
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&bytes[at..at + N]);
    out
}

/// An index that grows: what is in the file, and the newest entries.
#[derive(Clone, Debug)]
pub(super) struct GrowingIndex<E> {
    written: u32,
    tail: Vec<E>,
    last: Option<E>,
}

impl<E: IndexEntry> GrowingIndex<E> {
    /// An index without entries. A file of that name is overwritten as the index grows, and cut by [`write_out`](Self::write_out).
    pub(super) const fn empty() -> GrowingIndex<E> {
        GrowingIndex { written: 0, tail: Vec::new(), last: None }
    }

    /// Goes on with the whole entries of the file at `path`; `None` if there is no such file.
    pub(super) fn open(path: &Path) -> io::Result<Option<GrowingIndex<E>>> {
        let Some(file) = IndexFile::open(path)? else { return Ok(None) };
        let last = file.len.checked_sub(1).map(|index| file.get(index)).transpose()?;
        Ok(Some(GrowingIndex { written: file.len, tail: Vec::new(), last }))
    }

    /// Number of entries.
    pub(super) fn len(&self) -> u32 {
        self.written + self.tail.len() as u32
    }

    /// The newest entry.
    pub(super) const fn last(&self) -> Option<E> {
        self.last
    }

    /// Appends `entry`. Writes to the file at `path()` now and then; what cannot be written waits.
    pub(super) fn push(&mut self, entry: E, path: impl FnOnce() -> PathBuf) {
        self.tail.push(entry);
        self.last = Some(entry);
        if self.tail.len() >= TAIL_ENTRIES && self.tail.len().is_multiple_of(TAIL_ENTRIES) {
            // A full disk shows at the next seal; until then the entries are safe here.
            let _ = self.write_tail(&path());
        }
    }

    /// Makes the file at `path` hold exactly the entries of this index.
    pub(super) fn write_out(&mut self, path: &Path) -> io::Result<()> {
        self.write_tail(path)?.set_len(u64::from(self.written) * E::BYTES as u64)
    }

    fn write_tail(&mut self, path: &Path) -> io::Result<File> {
        let file = OpenOptions::new().write(true).create(true).truncate(false).open(path)?;
        let mut bytes = Vec::with_capacity(self.tail.len() * E::BYTES);
        self.tail.iter().for_each(|entry| entry.encode(&mut bytes));
        file.write_all_at(&bytes, u64::from(self.written) * E::BYTES as u64)?;
        self.written += self.tail.len() as u32;
        self.tail = Vec::new();
        Ok(file)
    }

    /// The last entry for which `before` holds, given that it holds for the first entries and not for those behind: from
    /// memory if it is there, else how many entries of the file to search.
    pub(super) fn search(&self, before: impl Fn(&E) -> bool) -> Search<E> {
        match self.tail.partition_point(|entry| before(entry)) {
            0 => Search::InFile { entries: self.written },
            after => Search::Found(self.tail[after - 1]),
        }
    }
}

/// Where the entry sought is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Search<E> {
    /// Here.
    Found(E),
    /// Among the first `entries` of the file, or nowhere.
    InFile {
        /// How many entries to search.
        entries: u32,
    },
}

/// An index file opened for searching.
pub(super) struct IndexFile<E> {
    file: File,
    len: u32,
    entry: std::marker::PhantomData<E>,
}

impl<E: IndexEntry> IndexFile<E> {
    /// `None` if there is no such file.
    pub(super) fn open(path: &Path) -> io::Result<Option<IndexFile<E>>> {
        let file = match File::open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened?,
        };
        let len = u32::try_from(file.metadata()?.len() / E::BYTES as u64).unwrap_or(u32::MAX);
        Ok(Some(IndexFile { file, len, entry: std::marker::PhantomData }))
    }

    /// Number of whole entries.
    pub(super) const fn len(&self) -> u32 {
        self.len
    }

    /// The entry at `index`, which must be below [`len`](Self::len).
    pub(super) fn get(&self, index: u32) -> io::Result<E> {
        let mut bytes = [0; 16];
        let bytes = &mut bytes[..E::BYTES];
        self.file.read_exact_at(bytes, u64::from(index) * E::BYTES as u64)?;
        Ok(E::decode(bytes))
    }

    /// The last of the first `entries` for which `before` holds.
    pub(super) fn find_last(&self, entries: u32, before: impl Fn(&E) -> bool) -> io::Result<Option<E>> {
        let after = self.partition_point(entries.min(self.len), &before)?;
        after.checked_sub(1).map(|index| self.get(index)).transpose()
    }

    fn partition_point(&self, entries: u32, before: &impl Fn(&E) -> bool) -> io::Result<u32> {
        let (mut low, mut high) = (0, entries);
        while high - low > PAGE_ENTRIES {
            let middle = low + (high - low) / 2;
            if before(&self.get(middle)?) { low = middle + 1 } else { high = middle }
        }
        let mut page = vec![0; (high - low) as usize * E::BYTES];
        self.file.read_exact_at(&mut page, u64::from(low) * E::BYTES as u64)?;
        let inside = page.chunks_exact(E::BYTES).take_while(|bytes| before(&E::decode(bytes))).count();
        Ok(low + inside as u32)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn entry(at: u32) -> OffsetEntry {
        OffsetEntry { relative_offset: at * 3, position: at * 100 }
    }

    fn find(index: &GrowingIndex<OffsetEntry>, path: &Path, relative: u32) -> Option<OffsetEntry> {
        let before = |entry: &OffsetEntry| entry.relative_offset <= relative;
        match index.search(before) {
            Search::Found(entry) => Some(entry),
            Search::InFile { entries } => IndexFile::open(path).unwrap()?.find_last(entries, before).unwrap(),
        }
    }

    #[test]
    fn entries_have_kafkas_bytes() {
        let mut bytes = Vec::new();
        OffsetEntry { relative_offset: 0x0102, position: 0x0304 }.encode(&mut bytes);
        TimeEntry { timestamp_ms: 0x05, relative_offset: 0x06 }.encode(&mut bytes);
        assert_eq!(bytes, [0, 0, 1, 2, 0, 0, 3, 4, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 6]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn an_index_finds_the_same_in_memory_and_on_disk(count in 0_u32..2000, sought in 0_u32..7000) {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("i.index");
            let mut index = GrowingIndex::empty();
            (0..count).for_each(|at| index.push(entry(at), || path.clone()));
            let expected = (0..count).map(entry).take_while(|entry| entry.relative_offset <= sought).last();
            prop_assert_eq!(find(&index, &path, sought), expected);
            index.write_out(&path).unwrap();
            prop_assert_eq!(find(&index, &path, sought), expected);
            let again = GrowingIndex::<OffsetEntry>::open(&path).unwrap().unwrap();
            prop_assert_eq!((again.len(), again.last()), (count, count.checked_sub(1).map(entry)));
        }
    }
}
