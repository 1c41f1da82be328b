//! A log moves to another directory while it is read and written (KIP-113).
//!
//! ```text
//! copy ─► copy what came since ─► … ─► little is left: writers wait │ copy the rest ─► `promote` ─► go on over there │ writers go on
//! ```
//! Segments are copied file by file, so that the copy has the same segments: what an archive knows of their borders stays true.
//! Compaction, which exchanges segments in the middle, is kept off meanwhile; retention, which takes them from the front, goes on.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    ffi::OsString,
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::{Arc, atomic::Ordering},
};

use varve_metadata::model::{LogStartOffset, Offset, Timestamp, TopicId};

use super::{
    error::{OpenError, RollError},
    files::{LOG, OFFSET_INDEX, SNAPSHOT, SegmentFiles, TIME_INDEX, TXN_INDEX, parse_name},
    leader_epochs::LEADER_EPOCH_CHECKPOINT,
    log::{LocalLog, RecoveryStart},
    ownership::write_topic_id,
    sealed::Sealed,
};

/// Bytes that are read and written at once.
const STEP_BYTES: usize = 1 << 20;
/// Bytes after which the copy is forced to disk: nobody who waits for the end of a move waits for more.
const SYNC_BYTES: u64 = 64 << 20;

/// Why a log does not move.
#[derive(Debug, thiserror::Error)]
pub enum RelocateError {
    /// `pace` said so; the log is where it was.
    #[error("the move was ended")]
    Ended,
    /// The log's end was cut meanwhile, so that the copy may hold what the log has no more: it is to be begun anew. The log is
    /// where it was.
    #[error("the log was cut while it was copied")]
    Cut,
    /// A file could not be read or written; the log is where it was.
    #[error("a log could not be copied")]
    Storage(#[from] io::Error),
    /// The copy took the log's place and cannot be used: nothing can be appended until it is opened anew.
    #[error("a log that was moved cannot be opened")]
    Lost(#[source] OpenError),
}

impl From<RollError> for RelocateError {
    fn from(error: RollError) -> RelocateError {
        let RollError::Storage(error) = error;
        RelocateError::Storage(error)
    }
}

/// The copy of a log, in a directory of its own.
#[derive(Debug)]
pub struct FutureLog {
    dir: Arc<Path>,
    segments: BTreeMap<Offset, Copied>,
    end: Offset,
    /// How often the log had been cut when the copy began.
    cuts: Option<u64>,
}

/// How much of one segment is copied.
#[derive(Clone, Copy, Debug, Default)]
struct Copied {
    bytes: u64,
    /// With its indexes, and forced to disk.
    whole: bool,
}

/// One segment of the log, as it is now.
struct Part {
    files: SegmentFiles,
    bytes: u64,
    end: Offset,
    from: Source,
}

enum Source {
    Sealed(Arc<Sealed>),
    Active(Arc<File>),
}

/// What hears of every copied stretch, in bytes: it may sleep, and ends the move by saying `false`.
pub type Pace<'a> = &'a dyn Fn(u64) -> bool;

impl FutureLog {
    /// An empty copy in the new directory `dir`, of a log of the topic `id`.
    ///
    /// # Errors
    /// If the directory cannot be made.
    pub fn create(dir: &Path, id: TopicId) -> io::Result<FutureLog> {
        fs::create_dir_all(dir)?;
        write_topic_id(dir, id)?;
        Ok(FutureLog { dir: dir.into(), segments: BTreeMap::new(), end: Offset::ZERO, cuts: None })
    }

    /// Where it is.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Bytes of its segments.
    pub fn size(&self) -> u64 {
        self.segments.values().map(|copied| copied.bytes).sum()
    }

    /// First offset of which it may lack the record.
    pub fn end(&self) -> Offset {
        self.end
    }

    fn files(&self, base: Offset) -> SegmentFiles {
        SegmentFiles::new(Arc::clone(&self.dir), base)
    }

    /// Copies the rest of a segment's batches and forces it to disk, so that little is left to force while appends wait.
    fn copy_batches(&mut self, part: &Part, file: &File, pace: Pace<'_>) -> Result<u64, RelocateError> {
        let base = part.files.base();
        let copied = self.segments.entry(base).or_default();
        let path = SegmentFiles::new(Arc::clone(&self.dir), base).path(LOG);
        // Also where there is nothing to copy: an empty segment has its file, too.
        let target = OpenOptions::new().write(true).create(true).truncate(false).open(path)?;
        if copied.bytes >= part.bytes {
            return Ok(0);
        }
        let mut buffer = vec![0; STEP_BYTES.min((part.bytes - copied.bytes) as usize)];
        let (begun, mut synced) = (copied.bytes, copied.bytes);
        while copied.bytes < part.bytes {
            let step = buffer.len().min((part.bytes - copied.bytes) as usize);
            file.read_exact_at(&mut buffer[..step], copied.bytes)?;
            target.write_all_at(&buffer[..step], copied.bytes)?;
            copied.bytes += step as u64;
            if copied.bytes - synced >= SYNC_BYTES {
                target.sync_data()?;
                synced = copied.bytes;
            }
            if !pace(step as u64) {
                return Err(RelocateError::Ended);
            }
        }
        target.sync_data()?;
        Ok(part.bytes - begun)
    }

    /// Copies the files beside a segment's batches, and forces them to disk.
    fn finish(&mut self, files: &SegmentFiles) -> io::Result<()> {
        let target = self.files(files.base());
        for suffix in [OFFSET_INDEX, TIME_INDEX, TXN_INDEX, SNAPSHOT] {
            copy_if_present(&files.path(suffix), &target.path(suffix))?;
        }
        Ok(())
    }

    /// Removes what the log itself has no more.
    fn keep_only(&mut self, bases: &BTreeSet<Offset>, snapshots: &HashSet<OsString>) -> io::Result<()> {
        self.segments.retain(|base, _| bases.contains(base));
        for entry in fs::read_dir(&self.dir)? {
            let name = entry?.file_name();
            let Some((base, suffix)) = name.to_str().and_then(parse_name) else { continue };
            let stays = if suffix == SNAPSHOT { snapshots.contains(&name) } else { bases.contains(&base) };
            if !stays {
                fs::remove_file(self.dir.join(&name))?;
            }
        }
        Ok(())
    }
}

impl LocalLog {
    /// Lets no round of compaction begin, and ends the one that runs, until [`resume_cleaning`](Self::resume_cleaning).
    pub fn pause_cleaning(&self) {
        self.cleaning_paused.store(true, Ordering::Release);
        drop(self.cleaning.lock());
    }

    /// Whether no round of compaction begins for now.
    pub fn is_cleaning_paused(&self) -> bool {
        self.cleaning_paused.load(Ordering::Acquire)
    }

    /// Compaction may go on.
    pub fn resume_cleaning(&self) {
        self.cleaning_paused.store(false, Ordering::Release);
    }

    /// Copies what `future` lacks of this log now. Returns how many bytes that was. Compaction must be
    /// [paused](Self::pause_cleaning).
    ///
    /// # Errors
    /// [`RelocateError`], but not [`RelocateError::Lost`].
    pub fn copy_to(&self, future: &mut FutureLog, pace: Pace<'_>) -> Result<u64, RelocateError> {
        let (parts, cuts) = self.parts();
        if *future.cuts.get_or_insert(cuts) != cuts {
            return Err(RelocateError::Cut);
        }
        let mut bytes = 0;
        for part in parts {
            bytes += self.copy_part(future, &part, pace).map_err(|error| match error {
                // A file that was cut ends early.
                RelocateError::Storage(_) if self.view.read().cuts != cuts => RelocateError::Cut,
                error => error,
            })?;
        }
        Ok(bytes)
    }

    fn copy_part(&self, future: &mut FutureLog, part: &Part, pace: Pace<'_>) -> Result<u64, RelocateError> {
        let base = part.files.base();
        if future.segments.get(&base).is_some_and(|copied| copied.whole) {
            return Ok(0);
        }
        let bytes = match &part.from {
            Source::Active(file) => future.copy_batches(part, file, pace)?,
            Source::Sealed(sealed) => {
                let file = match sealed.open() {
                    Ok(file) => file,
                    // Retention took it meanwhile.
                    Err(error) if error.kind() == io::ErrorKind::NotFound && !self.still_has(sealed) => return Ok(0),
                    Err(error) => return Err(error.into()),
                };
                let bytes = future.copy_batches(part, &file, pace)?;
                future.finish(&part.files)?;
                future.segments.entry(base).or_default().whole = true;
                bytes
            }
        };
        future.end = future.end.max(part.end);
        Ok(bytes)
    }

    /// The segments, and how often the log was cut until now.
    fn parts(&self) -> (Vec<Part>, u64) {
        let view = self.view.read();
        let sealed = view.sealed.iter().enumerate().map(|(place, sealed)| Part {
            files: sealed.files.clone(),
            bytes: sealed.bytes.into(),
            end: view.end_of(place),
            from: Source::Sealed(Arc::clone(sealed)),
        });
        let active = Part {
            files: view.active.files.clone(),
            bytes: view.active.bytes.into(),
            end: view.end,
            from: Source::Active(Arc::clone(&view.active.file)),
        };
        (sealed.chain([active]).collect(), view.cuts)
    }

    /// Copies the rest while appends wait, has `promote` give the copy its final name, and goes on there. `promote` gets the
    /// copy's directory, the log start and the end, and returns where the copy is then; until it does, this log is the one that
    /// counts. The files left behind are the caller's to remove; readers that have them open finish.
    ///
    /// # Errors
    /// [`RelocateError`].
    pub fn relocate(
        &self,
        mut future: FutureLog,
        now: Timestamp,
        promote: impl FnOnce(&Path, LogStartOffset, Offset) -> io::Result<PathBuf>,
    ) -> Result<(), RelocateError> {
        let mut guard = self.writer.lock();
        let writer = &mut *guard;
        let _flush = self.flushing.lock();
        self.mend(writer)?;
        self.index_all_transactions(writer).map_err(RollError::from)?;
        self.view.write().active.write_indexes()?;
        let (log_start, end) = (self.start(), self.end().0);
        if end > Offset::ZERO {
            writer.snapshots.take(&writer.producers, true).map_err(RollError::from)?;
        }
        self.copy_to(&mut future, &|_| true)?;
        let (parts, _) = self.parts();
        if let Some(active) = parts.last() {
            future.finish(&active.files)?;
        }
        self.copy_beside(&mut future, &parts)?;

        let place = promote(&future.dir, log_start, end)?;
        let opened = RecoveryStart { clean: true, recovery_point: end, log_start: log_start.0 };
        let fresh = match LocalLog::open(&place, self.config(), opened, now) {
            Ok((fresh, _)) if fresh.end().0 == end => fresh,
            Ok(_) => {
                writer.abandoned = true;
                let error = io::Error::new(io::ErrorKind::InvalidData, "the copy ends elsewhere");
                return Err(RelocateError::Lost(error.into()));
            }
            Err(error) => {
                // The copy counts from here on: what was appended to the files here would be lost.
                writer.abandoned = true;
                return Err(RelocateError::Lost(error));
            }
        };
        let files = fresh.writer.into_inner();
        writer.snapshots = files.snapshots;
        writer.txn_index = files.txn_index;
        let mut next = fresh.view.into_inner();
        let mut view = self.view.write();
        next.active.first_append = view.active.first_append;
        next.first_unstable = view.first_unstable;
        next.replacements = view.replacements + 1;
        next.cuts = view.cuts;
        *self.dir.write() = place.as_path().into();
        *view = next;
        self.is_linked.store(false, Ordering::Relaxed);
        self.recovery_point.fetch_max(end.get(), Ordering::AcqRel);
        Ok(())
    }

    /// Snapshots and epochs; nothing that retention has taken stays.
    fn copy_beside(&self, future: &mut FutureLog, parts: &[Part]) -> io::Result<()> {
        let dir = self.dir();
        let mut snapshots = HashSet::new();
        for entry in fs::read_dir(&dir)? {
            let name = entry?.file_name();
            if name.to_str().and_then(parse_name).is_some_and(|(_, suffix)| suffix == SNAPSHOT) {
                // One that was copied with its segment never changes.
                if !future.dir.join(&name).try_exists()? {
                    copy_if_present(&dir.join(&name), &future.dir.join(&name))?;
                }
                snapshots.insert(name);
            }
        }
        copy_if_present(&dir.join(LEADER_EPOCH_CHECKPOINT), &future.dir.join(LEADER_EPOCH_CHECKPOINT))?;
        future.keep_only(&parts.iter().map(|part| part.files.base()).collect(), &snapshots)?;
        File::open(&future.dir)?.sync_all()
    }
}

/// Copies a small file and forces it to disk.
fn copy_if_present(from: &Path, to: &Path) -> io::Result<()> {
    match fs::copy(from, to) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
        Ok(_) => File::open(to)?.sync_data(),
    }
}
