//! Aborted transactions of one segment, in the file `<base offset>.txnindex` that Kafka writes.
//!
//! ```text
//! entry: version i16 (0) │ producer id i64 │ first offset i64 │ last offset i64 │ last stable offset i64     (34 bytes)
//! ```
//! An entry lies in the segment that holds its abort marker, ordered by the marker's offset. Its last stable offset is that
//! of the log when the marker was written: whoever meets one at or beyond the end of the range sought has seen all.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use varve_metadata::model::{Offset, ProducerId};

/// A transaction that was aborted: what read_committed must skip (KIP-98).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AbortedTxn {
    /// Whose transaction it was.
    pub producer: ProducerId,
    /// Offset of its first record.
    pub first: Offset,
    /// Offset of its abort marker.
    pub last: Offset,
    /// The log's last stable offset right after the marker.
    pub last_stable: Offset,
}

/// Bytes of one entry.
pub const TXN_INDEX_ENTRY_BYTES: usize = 34;
const VERSION: i16 = 0;
/// Entries read at a time.
const READ_ENTRIES: usize = 256;

/// Why a transaction index cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TxnIndexError {
    /// The disk failed.
    #[error("transaction index {path}")]
    Io {
        /// The index file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file does not hold what an index holds: it is rebuilt from its segment.
    #[error("transaction index is corrupt: {0}")]
    Corrupt(&'static str),
}

impl AbortedTxn {
    /// The entry as the file holds it.
    pub fn encode(&self) -> [u8; TXN_INDEX_ENTRY_BYTES] {
        let mut entry = [0; TXN_INDEX_ENTRY_BYTES];
        entry[0..2].copy_from_slice(&VERSION.to_be_bytes());
        entry[2..10].copy_from_slice(&self.producer.to_wire().to_be_bytes());
        entry[10..18].copy_from_slice(&self.first.to_wire().to_be_bytes());
        entry[18..26].copy_from_slice(&self.last.to_wire().to_be_bytes());
        entry[26..34].copy_from_slice(&self.last_stable.to_wire().to_be_bytes());
        entry
    }

    /// Reads one entry.
    ///
    /// # Errors
    /// [`TxnIndexError::Corrupt`] for a newer version or a negative number.
    pub fn parse(entry: &[u8; TXN_INDEX_ENTRY_BYTES]) -> Result<AbortedTxn, TxnIndexError> {
        let number = |at: usize| {
            let mut bytes = [0; 8];
            bytes.copy_from_slice(&entry[at..at + 8]);
            i64::from_be_bytes(bytes)
        };
        let offset = |at| Offset::from_wire(number(at)).ok_or(TxnIndexError::Corrupt("negative offset"));
        if i16::from_be_bytes([entry[0], entry[1]]) > VERSION {
            return Err(TxnIndexError::Corrupt("version is newer than 0"));
        }
        Ok(AbortedTxn {
            producer: ProducerId::from_wire(number(2)).ok_or(TxnIndexError::Corrupt("negative producer id"))?,
            first: offset(10)?,
            last: offset(18)?,
            last_stable: offset(26)?,
        })
    }

    /// Every entry in the bytes of an index; a last entry that is cut short is left out, as a crash may leave one.
    ///
    /// # Errors
    /// [`TxnIndexError::Corrupt`] as [`AbortedTxn::parse`].
    pub fn parse_all(bytes: &[u8]) -> Result<Vec<AbortedTxn>, TxnIndexError> {
        bytes.as_chunks().0.iter().map(AbortedTxn::parse).collect()
    }

    /// Whether a reader of `from..to` meets records of this transaction.
    pub fn overlaps(&self, from: Offset, to: Offset) -> bool {
        self.last >= from && self.first < to
    }
}

/// The index file of one segment. It exists once it has an entry: most segments never do.
#[derive(Debug)]
pub struct TxnIndex {
    path: PathBuf,
    file: Option<File>,
    bytes: u64,
    last: Option<Offset>,
}

impl TxnIndex {
    /// Opens the index at `path`, if the file exists, and checks that it belongs to the segment that starts at `base`.
    ///
    /// # Errors
    /// [`TxnIndexError`]: the disk failed, or the content is not an index of that segment.
    pub fn open(path: PathBuf, base: Offset) -> Result<TxnIndex, TxnIndexError> {
        let mut index = TxnIndex { path, file: None, bytes: 0, last: None };
        match OpenOptions::new().read(true).append(true).open(&index.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(index),
            opened => index.file = Some(opened.map_err(|source| index.io(source))?),
        }
        let bytes = index.file_ref()?.metadata().map_err(|source| index.io(source))?.len();
        index.bytes = bytes - bytes % TXN_INDEX_ENTRY_BYTES as u64;
        if index.bytes != bytes {
            // A crash cut the last entry; the next one must not be appended behind the stump.
            index.file_ref()?.set_len(index.bytes).map_err(|source| index.io(source))?;
        }
        let mut last = None;
        index.scan(|_, entry| {
            if entry.last < base {
                return Err(TxnIndexError::Corrupt("an entry ends before its segment"));
            }
            last = Some(entry.last);
            Ok(true)
        })?;
        index.last = last;
        Ok(index)
    }

    /// Adds `entry` at the end. The bytes reach the page cache; [`TxnIndex::flush`] brings them to the disk.
    ///
    /// # Errors
    /// [`TxnIndexError::Corrupt`] if `entry` does not end after the one before it; [`TxnIndexError::Io`].
    pub fn append(&mut self, entry: &AbortedTxn) -> Result<(), TxnIndexError> {
        if self.last.is_some_and(|last| last >= entry.last) {
            return Err(TxnIndexError::Corrupt("entries must end one after another"));
        }
        if self.file.is_none() {
            let options = OpenOptions::new().read(true).append(true).create(true).open(&self.path);
            self.file = Some(options.map_err(|source| self.io(source))?);
        }
        let written = self.file_ref()?.write_all(&entry.encode());
        if let Err(source) = written {
            // Cut off what a full disk may have left of the entry, so that the file stays whole entries.
            let _ = self.file_ref()?.set_len(self.bytes);
            return Err(self.io(source));
        }
        self.bytes += TXN_INDEX_ENTRY_BYTES as u64;
        self.last = Some(entry.last);
        Ok(())
    }

    /// Adds to `found` every transaction that a reader of `from..to` meets, and says whether later segments need not be
    /// asked any more.
    ///
    /// # Errors
    /// [`TxnIndexError`] if the file cannot be read.
    pub fn collect(&self, from: Offset, to: Offset, found: &mut Vec<AbortedTxn>) -> Result<bool, TxnIndexError> {
        let mut complete = false;
        self.scan(|_, entry| {
            if entry.overlaps(from, to) {
                found.push(entry);
            }
            complete = entry.last_stable >= to;
            Ok(!complete)
        })?;
        Ok(complete)
    }

    /// Every entry, in the order of the markers.
    ///
    /// # Errors
    /// [`TxnIndexError`] if the file cannot be read.
    pub fn entries(&self) -> Result<Vec<AbortedTxn>, TxnIndexError> {
        let mut entries = Vec::new();
        self.scan(|_, entry| {
            entries.push(entry);
            Ok(true)
        })?;
        Ok(entries)
    }

    /// Whether no transaction was aborted in this segment.
    pub fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// Size of the file in bytes.
    pub fn len_bytes(&self) -> u64 {
        self.bytes
    }

    /// Where the file is, or would be.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Drops every entry whose marker lies at or after `end`.
    ///
    /// # Errors
    /// [`TxnIndexError`] if the file cannot be read or cut.
    pub fn truncate_to(&mut self, end: Offset) -> Result<(), TxnIndexError> {
        let (mut bytes, mut last) = (0, None);
        self.scan(|position, entry| {
            if entry.last >= end {
                return Ok(false);
            }
            (bytes, last) = (position + TXN_INDEX_ENTRY_BYTES as u64, Some(entry.last));
            Ok(true)
        })?;
        if bytes < self.bytes {
            self.file_ref()?.set_len(bytes).map_err(|source| self.io(source))?;
        }
        (self.bytes, self.last) = (bytes, last);
        Ok(())
    }

    /// Drops every entry, to build the index anew.
    ///
    /// # Errors
    /// [`TxnIndexError::Io`] if the file cannot be cut.
    pub fn reset(&mut self) -> Result<(), TxnIndexError> {
        self.truncate_to(Offset::ZERO)
    }

    /// Brings every entry to the disk.
    ///
    /// # Errors
    /// [`TxnIndexError::Io`].
    pub fn flush(&self) -> Result<(), TxnIndexError> {
        self.file.as_ref().map_or(Ok(()), |file| file.sync_data().map_err(|source| self.io(source)))
    }

    /// Moves the file, if there is one, to `path`, and goes on there.
    ///
    /// # Errors
    /// [`TxnIndexError::Io`]; the index then stays where it was.
    pub fn rename_to(&mut self, path: PathBuf) -> Result<(), TxnIndexError> {
        if self.file.is_some() {
            std::fs::rename(&self.path, &path).map_err(|source| self.io(source))?;
        }
        self.path = path;
        Ok(())
    }

    /// Deletes the file, if there is one.
    ///
    /// # Errors
    /// [`TxnIndexError::Io`].
    pub fn delete(self) -> Result<(), TxnIndexError> {
        match std::fs::remove_file(&self.path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => Err(self.io(source)),
            _ => Ok(()),
        }
    }

    /// Gives every entry with its position to `visit` until that says `false`.
    fn scan(&self, mut visit: impl FnMut(u64, AbortedTxn) -> Result<bool, TxnIndexError>) -> Result<(), TxnIndexError> {
        let Some(file) = &self.file else { return Ok(()) };
        let mut buffer = [0; READ_ENTRIES * TXN_INDEX_ENTRY_BYTES];
        let mut position = 0;
        while position < self.bytes {
            let part =
                &mut buffer[..(self.bytes - position).min((READ_ENTRIES * TXN_INDEX_ENTRY_BYTES) as u64) as usize];
            file.read_exact_at(part, position).map_err(|source| self.io(source))?;
            for entry in part.as_chunks().0 {
                if !visit(position, AbortedTxn::parse(entry)?)? {
                    return Ok(());
                }
                position += TXN_INDEX_ENTRY_BYTES as u64;
            }
        }
        Ok(())
    }

    fn file_ref(&self) -> Result<&File, TxnIndexError> {
        self.file.as_ref().ok_or(TxnIndexError::Corrupt("the file is gone"))
    }

    fn io(&self, source: io::Error) -> TxnIndexError {
        TxnIndexError::Io { path: self.path.clone(), source }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn offset(raw: u64) -> Offset {
        Offset::new(raw).unwrap()
    }

    fn aborted(producer: i64, first: u64, last: u64, last_stable: u64) -> AbortedTxn {
        AbortedTxn {
            producer: ProducerId::from_wire(producer).unwrap(),
            first: offset(first),
            last: offset(last),
            last_stable: offset(last_stable),
        }
    }

    #[test]
    fn an_entry_has_kafkas_bytes() {
        let bytes = aborted(1, 2, 3, 4).encode();
        let mut expected = vec![0, 0];
        for number in [1_i64, 2, 3, 4] {
            expected.extend_from_slice(&number.to_be_bytes());
        }
        assert_eq!(bytes[..], expected[..]);
    }

    #[test]
    fn a_segment_without_aborted_transactions_has_no_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("00000000000000000000.txnindex");
        let mut index = TxnIndex::open(path.clone(), Offset::ZERO).unwrap();
        assert!(index.is_empty() && index.entries().unwrap().is_empty() && !path.exists());
        index.append(&aborted(1, 2, 3, 4)).unwrap();
        assert!(path.exists());
        index.delete().unwrap();
        assert!(!path.exists());
    }

    #[test]
    fn a_search_ends_where_the_last_stable_offset_covers_it() {
        let dir = tempfile::tempdir().unwrap();
        let mut index = TxnIndex::open(dir.path().join("0.txnindex"), Offset::ZERO).unwrap();
        for entry in [aborted(0, 0, 10, 2), aborted(1, 5, 15, 16), aborted(2, 18, 35, 25), aborted(3, 32, 50, 40)] {
            index.append(&entry).unwrap();
        }
        let search = |from, to| {
            let mut found = Vec::new();
            let complete = index.collect(offset(from), offset(to), &mut found).unwrap();
            (found.iter().map(|entry| entry.producer.to_wire()).collect::<Vec<_>>(), complete)
        };
        assert_eq!(search(0, 100), (vec![0, 1, 2, 3], false));
        assert_eq!(search(0, 32), (vec![0, 1, 2], true));
        assert_eq!(search(11, 16), (vec![1], true));
        assert_eq!(search(51, 60), (vec![], false));
    }

    #[test]
    fn an_index_survives_its_file_and_loses_a_torn_entry() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("0.txnindex");
        let mut index = TxnIndex::open(path.clone(), Offset::ZERO).unwrap();
        index.append(&aborted(1, 0, 5, 6)).unwrap();
        index.append(&aborted(2, 3, 9, 10)).unwrap();
        drop(index);
        let file = OpenOptions::new().write(true).open(&path).unwrap();
        file.set_len(50).unwrap();
        let mut index = TxnIndex::open(path.clone(), Offset::ZERO).unwrap();
        assert_eq!(index.entries().unwrap(), [aborted(1, 0, 5, 6)]);
        index.append(&aborted(2, 3, 9, 10)).unwrap();
        assert_eq!(TxnIndex::open(path, Offset::ZERO).unwrap().entries().unwrap().len(), 2);
    }

    #[test]
    fn an_index_of_another_segment_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("0.txnindex");
        TxnIndex::open(path.clone(), Offset::ZERO).unwrap().append(&aborted(1, 0, 5, 6)).unwrap();
        assert!(matches!(TxnIndex::open(path, offset(6)), Err(TxnIndexError::Corrupt(_))));
    }

    #[test]
    fn entries_must_end_one_after_another() {
        let dir = tempfile::tempdir().unwrap();
        let mut index = TxnIndex::open(dir.path().join("0.txnindex"), Offset::ZERO).unwrap();
        index.append(&aborted(1, 0, 5, 6)).unwrap();
        assert!(index.append(&aborted(2, 0, 5, 6)).is_err());
        index.truncate_to(offset(5)).unwrap();
        index.append(&aborted(2, 0, 5, 6)).unwrap();
    }

    proptest! {
        #[test]
        fn truncation_keeps_exactly_the_markers_below_it(gaps in proptest::collection::vec(1_u64..5, 0..600), end in 0_u64..2000) {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("0.txnindex");
            let mut index = TxnIndex::open(path.clone(), Offset::ZERO).unwrap();
            let mut last = 0;
            let mut all = Vec::new();
            for gap in gaps {
                last += gap;
                all.push(aborted(7, last - 1, last, last + 1));
                index.append(all.last().unwrap()).unwrap();
            }
            index.truncate_to(offset(end)).unwrap();
            all.retain(|entry| entry.last < offset(end));
            prop_assert_eq!(index.entries().unwrap(), all.clone());
            prop_assert_eq!(TxnIndex::open(path.clone(), Offset::ZERO).unwrap().entries().unwrap(), all);
        }

        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = AbortedTxn::parse_all(&bytes);
        }
    }
}
