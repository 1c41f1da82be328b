//! Producer state on disk, in the files `<offset>.snapshot` that Kafka writes: the state of the log up to that offset.
//!
//! ```text
//! version i16 (1) │ crc u32 (CRC-32C of all that follows) │ entries i32
//! entry: producer id i64 │ epoch i16 │ last sequence i32 │ last offset i64 │ offset delta i32 │ timestamp i64
//!        │ coordinator epoch i32 │ first offset of the open transaction i64        (46 bytes; -1 for what there is not)
//! ```
//! Only the last batch of a producer is kept: after a restart an older one cannot be recognised as a repetition.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
};

use varve_metadata::model::{Offset, ProducerEpoch, ProducerId, Sequence};

use super::producer_state::{BatchMetadata, ProducerEntry, ProducerState};

const VERSION: i16 = 1;
const CRC_END: usize = 6;
const HEADER_BYTES: usize = 10;
const ENTRY_BYTES: usize = 46;
const SUFFIX: &str = "snapshot";

/// Why a snapshot cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// The disk failed.
    #[error("producer snapshot")]
    Io(#[from] io::Error),
    /// The bytes are no snapshot: an older one is used, and the log read from there.
    #[error("producer snapshot is corrupt: {0}")]
    Corrupt(&'static str),
}

/// The snapshot of `state` as Kafka writes it, ordered by producer id.
pub fn encode_snapshot(state: &ProducerState) -> Vec<u8> {
    let mut entries: Vec<_> = state.producers().collect();
    entries.sort_unstable_by_key(|(producer, _)| *producer);
    let mut out = Vec::with_capacity(HEADER_BYTES + entries.len() * ENTRY_BYTES);
    out.extend_from_slice(&VERSION.to_be_bytes());
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&(entries.len() as i32).to_be_bytes());
    for (producer, entry) in entries {
        let last = entry.last_batch();
        let sequence = last.and_then(|batch| batch.last_sequence);
        out.extend_from_slice(&producer.to_wire().to_be_bytes());
        out.extend_from_slice(&entry.epoch.to_wire().to_be_bytes());
        out.extend_from_slice(&sequence.map_or(-1, Sequence::to_wire).to_be_bytes());
        out.extend_from_slice(&last.map_or(-1, |batch| batch.last.to_wire()).to_be_bytes());
        out.extend_from_slice(&last.map_or(0, |batch| batch.offset_delta).to_be_bytes());
        out.extend_from_slice(&entry.last_timestamp_ms.to_be_bytes());
        out.extend_from_slice(&entry.coordinator_epoch.unwrap_or(-1).to_be_bytes());
        out.extend_from_slice(&entry.open_since.map_or(-1, Offset::to_wire).to_be_bytes());
    }
    let crc = crc32c::crc32c(&out[CRC_END..]);
    out[2..CRC_END].copy_from_slice(&crc.to_be_bytes());
    out
}

/// The producers in a snapshot.
///
/// # Errors
/// [`SnapshotError::Corrupt`] if version, checksum or a number is not as it should be.
pub fn decode_snapshot(bytes: &[u8]) -> Result<Vec<(ProducerId, ProducerEntry)>, SnapshotError> {
    let header: &[u8; HEADER_BYTES] = bytes.first_chunk().ok_or(SnapshotError::Corrupt("ends early"))?;
    let [v0, v1, c0, c1, c2, c3, n0, n1, n2, n3] = *header;
    if i16::from_be_bytes([v0, v1]) != VERSION {
        return Err(SnapshotError::Corrupt("unknown version"));
    }
    if u32::from_be_bytes([c0, c1, c2, c3]) != crc32c::crc32c(&bytes[CRC_END..]) {
        return Err(SnapshotError::Corrupt("checksum"));
    }
    let (entries, rest) = bytes[HEADER_BYTES..].as_chunks::<ENTRY_BYTES>();
    if usize::try_from(i32::from_be_bytes([n0, n1, n2, n3])) != Ok(entries.len()) || !rest.is_empty() {
        return Err(SnapshotError::Corrupt("another count than stated"));
    }
    entries.iter().map(decode_entry).collect()
}

fn decode_entry(bytes: &[u8; ENTRY_BYTES]) -> Result<(ProducerId, ProducerEntry), SnapshotError> {
    fn at<const N: usize>(bytes: &[u8; ENTRY_BYTES], at: usize) -> [u8; N] {
        let mut out = [0; N];
        out.copy_from_slice(&bytes[at..at + N]);
        out
    }
    let producer = ProducerId::from_wire(i64::from_be_bytes(at(bytes, 0)));
    let epoch = ProducerEpoch::from_wire(i16::from_be_bytes(at(bytes, 8)));
    let mut entry = ProducerEntry::new(epoch.ok_or(SnapshotError::Corrupt("negative epoch"))?);
    let timestamp_ms = i64::from_be_bytes(at(bytes, 26));
    if let Some(last) = Offset::from_wire(i64::from_be_bytes(at(bytes, 14))) {
        entry.push(BatchMetadata {
            last_sequence: Sequence::from_wire(i32::from_be_bytes(at(bytes, 10))),
            last,
            offset_delta: u32::try_from(i32::from_be_bytes(at(bytes, 22)))
                .map_err(|_| SnapshotError::Corrupt("negative offset delta"))?,
            timestamp_ms,
        });
    }
    entry.last_timestamp_ms = timestamp_ms;
    let coordinator_epoch = i32::from_be_bytes(at(bytes, 34));
    entry.coordinator_epoch = (coordinator_epoch >= 0).then_some(coordinator_epoch);
    entry.open_since = Offset::from_wire(i64::from_be_bytes(at(bytes, 38)));
    Ok((producer.ok_or(SnapshotError::Corrupt("negative producer id"))?, entry))
}

/// The snapshot files in one partition's directory.
#[derive(Debug)]
pub struct ProducerSnapshots {
    dir: PathBuf,
    offsets: BTreeSet<Offset>,
}

impl ProducerSnapshots {
    /// Finds the snapshots in `dir`.
    ///
    /// # Errors
    /// If the directory cannot be listed.
    pub fn open(dir: &Path) -> Result<ProducerSnapshots, SnapshotError> {
        let mut offsets = BTreeSet::new();
        for entry in fs::read_dir(dir)? {
            let path = PathBuf::from(entry?.file_name());
            if path.extension().is_some_and(|suffix| suffix == SUFFIX)
                && let Some(offset) = path.file_stem().and_then(|stem| stem.to_str()?.parse().ok())
            {
                offsets.extend(Offset::new(offset));
            }
        }
        Ok(ProducerSnapshots { dir: dir.to_owned(), offsets })
    }

    /// Where the snapshot at `offset` is, or would be.
    pub fn path(&self, offset: Offset) -> PathBuf {
        self.dir.join(format!("{offset:020}.{SUFFIX}"))
    }

    /// Where the snapshot at `offset` is, if there is one.
    pub fn find(&self, offset: Offset) -> Option<PathBuf> {
        self.offsets.contains(&offset).then(|| self.path(offset))
    }

    /// The offset of the newest snapshot.
    pub fn latest(&self) -> Option<Offset> {
        self.offsets.last().copied()
    }

    /// The offset of the oldest snapshot.
    pub fn oldest(&self) -> Option<Offset> {
        self.offsets.first().copied()
    }

    /// Writes `state` unless there is a snapshot at its end already. With `sync`, it is on disk before this returns.
    /// Returns whether it wrote.
    ///
    /// # Errors
    /// [`SnapshotError::Io`]; what was written of the file is removed.
    pub fn take(&mut self, state: &ProducerState, sync: bool) -> Result<bool, SnapshotError> {
        let offset = state.end();
        if self.latest().is_some_and(|latest| latest >= offset) {
            return Ok(false);
        }
        let path = self.path(offset);
        let write = || {
            let mut file = File::create(&path)?;
            file.write_all(&encode_snapshot(state))?;
            if sync { file.sync_all() } else { Ok(()) }
        };
        if let Err(error) = write() {
            let _ = fs::remove_file(&path);
            return Err(error.into());
        }
        self.offsets.insert(offset);
        Ok(true)
    }

    /// The newest snapshot that can be read, with its offset; those that are corrupt are deleted on the way. `None` if
    /// there is none: the log has to be read from its start.
    ///
    /// # Errors
    /// [`SnapshotError::Io`].
    pub fn load_latest(&mut self) -> Result<Option<LoadedSnapshot>, SnapshotError> {
        while let Some(offset) = self.latest() {
            match fs::read(self.path(offset)) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                read => match decode_snapshot(&read?) {
                    Ok(producers) => return Ok(Some(LoadedSnapshot { offset, producers })),
                    Err(error) => tracing::warn!(path = %self.path(offset).display(), %error, "snapshot dropped"),
                },
            }
            self.delete(offset)?;
        }
        Ok(None)
    }

    /// Deletes the snapshots that do not lie above `log_start` and at or below `log_end`: they say nothing about the log.
    ///
    /// # Errors
    /// [`SnapshotError::Io`].
    pub fn retain_within(&mut self, log_start: Offset, log_end: Offset) -> Result<(), SnapshotError> {
        self.delete_if(|offset| offset <= log_start || offset > log_end)
    }

    /// Deletes the snapshots below `offset`.
    ///
    /// # Errors
    /// [`SnapshotError::Io`].
    pub fn delete_below(&mut self, offset: Offset) -> Result<(), SnapshotError> {
        self.delete_if(|snapshot| snapshot < offset)
    }

    /// Deletes every snapshot.
    ///
    /// # Errors
    /// [`SnapshotError::Io`].
    pub fn clear(&mut self) -> Result<(), SnapshotError> {
        self.delete_if(|_| true)
    }

    /// Deletes the snapshots that belong to no segment (`bases` are the segments' base offsets), but keeps one beyond the
    /// last segment's base: a clean shutdown wrote it at the log's end.
    ///
    /// # Errors
    /// [`SnapshotError::Io`].
    pub fn delete_strays(&mut self, bases: &BTreeSet<Offset>) -> Result<(), SnapshotError> {
        let newest_stray = self.offsets.difference(bases).last().copied();
        let kept = newest_stray.filter(|stray| bases.last().is_none_or(|last| stray > last));
        self.delete_if(|offset| !bases.contains(&offset) && Some(offset) != kept)
    }

    /// Deletes the snapshot at `offset`, if there is one.
    ///
    /// # Errors
    /// [`SnapshotError::Io`].
    pub fn delete(&mut self, offset: Offset) -> Result<(), SnapshotError> {
        if self.offsets.contains(&offset) {
            match fs::remove_file(self.path(offset)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
                _ => self.offsets.remove(&offset),
            };
        }
        Ok(())
    }

    /// Forgets the snapshot at `offset` without touching the file, which the caller has renamed. Returns whether it was
    /// known.
    pub fn forget(&mut self, offset: Offset) -> bool {
        self.offsets.remove(&offset)
    }

    fn delete_if(&mut self, doomed: impl Fn(Offset) -> bool) -> Result<(), SnapshotError> {
        let doomed: Vec<Offset> = self.offsets.iter().copied().filter(|offset| doomed(*offset)).collect();
        doomed.into_iter().try_for_each(|offset| self.delete(offset))
    }
}

/// A snapshot read from disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadedSnapshot {
    /// The offset up to which it describes the log.
    pub offset: Offset,
    /// The producers, for [`ProducerState::load`].
    pub producers: Vec<(ProducerId, ProducerEntry)>,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use std::time::Duration;

    use super::*;
    use crate::local::{AppendOrigin, EndMarker, ProducerBatch};

    fn offset(raw: u64) -> Offset {
        Offset::new(raw).unwrap()
    }

    fn producer(raw: i64) -> ProducerId {
        ProducerId::from_wire(raw).unwrap()
    }

    /// Producer 9 wrote one batch of an open transaction, producer 4 a committed one.
    fn state() -> ProducerState {
        let mut state = ProducerState::default();
        let mut update = state.update(AppendOrigin::Replication);
        let mut batch = ProducerBatch {
            producer: producer(9),
            epoch: ProducerEpoch(3),
            base_sequence: Sequence::from_wire(7),
            first: offset(100),
            last: offset(104),
            timestamp_ms: 1_700_000_000_000,
            transactional: true,
        };
        update.data(&state, &batch).unwrap();
        batch.producer = producer(4);
        update.data(&state, &batch).unwrap();
        let marker = EndMarker {
            producer: producer(4),
            epoch: ProducerEpoch(4),
            offset: offset(105),
            timestamp_ms: 1_700_000_000_001,
            coordinator_epoch: 2,
            aborted: false,
            raises_epoch: true,
        };
        update.marker(&state, &marker).unwrap();
        for completed in state.apply(update) {
            state.complete(&completed);
        }
        state.advance_to(offset(106));
        state
    }

    #[test]
    fn a_snapshot_has_kafkas_bytes() {
        // Written by ProducerStateManager.writeSnapshot of Kafka 4.3.0 for the same two producers.
        let expected = "0001a215b2a20000000200000000000000040004ffffffffffffffffffffffff000000000000018bcfe5680100000002ff\
                        ffffffffffffff000000000000000900030000000b0000000000000068000000040000018bcfe56800ffffffff00000000\
                        00000064";
        let bytes: String = encode_snapshot(&state()).iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(bytes, expected.replace([' ', '\n'], ""));
    }

    #[test]
    fn a_snapshot_survives_its_file_but_for_older_batches() {
        let dir = tempfile::tempdir().unwrap();
        let mut snapshots = ProducerSnapshots::open(dir.path()).unwrap();
        assert!(snapshots.take(&state(), true).unwrap());
        assert!(!snapshots.take(&state(), true).unwrap(), "nothing new");
        assert!(dir.path().join("00000000000000000106.snapshot").exists());

        let loaded = ProducerSnapshots::open(dir.path()).unwrap().load_latest().unwrap().unwrap();
        assert_eq!(loaded.offset, offset(106));
        let reloaded = ProducerState::load(loaded.producers, loaded.offset, 0, Duration::MAX);
        assert_eq!(reloaded.get(producer(9)), state().get(producer(9)));
        assert_eq!(reloaded.first_undecided(), Some(offset(100)));
    }

    #[test]
    fn a_corrupt_snapshot_gives_way_to_an_older_one() {
        let dir = tempfile::tempdir().unwrap();
        let mut snapshots = ProducerSnapshots::open(dir.path()).unwrap();
        let mut state = state();
        snapshots.take(&state, false).unwrap();
        state.advance_to(offset(200));
        snapshots.take(&state, false).unwrap();
        fs::write(snapshots.path(offset(200)), b"rubbish").unwrap();
        let loaded = snapshots.load_latest().unwrap().unwrap();
        assert_eq!((loaded.offset, snapshots.latest()), (offset(106), Some(offset(106))));
    }

    #[test]
    fn strays_go_but_the_one_at_the_logs_end_stays() {
        let dir = tempfile::tempdir().unwrap();
        for at in [5_u64, 10, 15, 20, 23] {
            fs::write(dir.path().join(format!("{at:020}.snapshot")), b"").unwrap();
        }
        let bases = |raw: &[u64]| raw.iter().map(|raw| offset(*raw)).collect::<BTreeSet<_>>();
        let mut snapshots = ProducerSnapshots::open(dir.path()).unwrap();
        snapshots.delete_strays(&bases(&[0, 10, 20])).unwrap();
        assert_eq!(snapshots.offsets, bases(&[10, 20, 23]));
        snapshots.delete_strays(&bases(&[10, 20, 30])).unwrap();
        assert_eq!(ProducerSnapshots::open(dir.path()).unwrap().offsets, bases(&[10, 20]));
        snapshots.retain_within(offset(10), offset(15)).unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    proptest! {
        #[test]
        fn no_bytes_panic_and_every_flip_is_noticed(at in any::<proptest::sample::Index>(), flip in 1_u8..) {
            let mut bytes = encode_snapshot(&state());
            let index = at.index(bytes.len());
            bytes[index] ^= flip;
            prop_assert!(matches!(decode_snapshot(&bytes), Err(SnapshotError::Corrupt(_))));
        }

        #[test]
        fn rubbish_under_a_right_checksum_does_not_panic(mut bytes in proptest::collection::vec(any::<u8>(), 10..150)) {
            bytes[..2].copy_from_slice(&VERSION.to_be_bytes());
            let count = ((bytes.len() - HEADER_BYTES) / ENTRY_BYTES) as i32;
            bytes[6..10].copy_from_slice(&count.to_be_bytes());
            let crc = crc32c::crc32c(&bytes[CRC_END..]);
            bytes[2..6].copy_from_slice(&crc.to_be_bytes());
            let _ = decode_snapshot(&bytes);
        }
    }
}
