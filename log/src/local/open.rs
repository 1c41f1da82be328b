//! Opening a log: what is on disk becomes a [`LocalLog`], repaired where a crash has left it torn.
//!
//! ```text
//! tidy the directory ─► check segments above the recovery point (unclean) ─► find the end ─► epochs ─► producer state
//! ```

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64},
    },
};

use parking_lot::{Mutex, RwLock};
use varve_metadata::model::{Offset, Timestamp};

use super::{
    active::ActiveSegment,
    config::LogConfig,
    epochs_file,
    error::OpenError,
    files::{self, CLEANED, DELETED, LOG, OFFSET_INDEX, SNAPSHOT, SWAP, SegmentFiles, TIME_INDEX, TXN_INDEX},
    leader_epochs::EpochCache,
    log::{LocalLog, Recovered, RecoveryStart, View, Writer},
    producer_snapshot::ProducerSnapshots,
    producer_state::ProducerState,
    recovery::{self, Segment},
    sealed::Sealed,
    txn_index::TxnIndex,
    verification::Verifications,
    write::Quota,
};

impl LocalLog {
    /// Opens the log in directory `dir`, which is made if missing. After an unclean shutdown the segments above the
    /// recovery point are checked and a torn tail is cut. `start.log_start` is kept even below the first local segment: what
    /// lies between may be in the archive; without an archive the caller moves it up.
    ///
    /// # Errors
    /// [`OpenError::Storage`] if the file system fails.
    pub fn open(
        dir: &Path,
        config: Arc<LogConfig>,
        start: RecoveryStart,
        now: Timestamp,
    ) -> Result<(LocalLog, Recovered), OpenError> {
        fs::create_dir_all(dir)?;
        let dir: Arc<Path> = dir.into();
        let bases = tidy(&dir)?;
        let mut loader = Loader::new(Arc::clone(&dir), Arc::clone(&config), start, now)?;
        let (mut sealed, mut active, mut end) = loader.load_segments(&bases)?;
        if end < start.log_start {
            // Segments were deleted behind our back: nothing here is readable, and no offset may come back.
            for files in sealed.iter().map(|segment: &Arc<Sealed>| &segment.files).chain([&active.files]) {
                files.delete()?;
            }
            loader.epochs.clear();
            (sealed, end) = (Vec::new(), start.log_start);
            active = ActiveSegment::create(SegmentFiles::new(Arc::clone(&dir), end))?;
        }
        loader.settle_epochs(&sealed, end)?;
        let mut view = View {
            sealed,
            active,
            log_start: start.log_start,
            end,
            epochs: loader.epochs,
            txn_bases: BTreeSet::new(),
            first_unstable: None,
            replacements: 0,
            cuts: 0,
        };
        let mut snapshots = ProducerSnapshots::open(&dir).map_err(super::RollError::from)?;
        let producers = load_producers(&view, &mut snapshots, start.clean, &config, now)?;
        view.first_unstable = producers.first_unstable();
        // Recovery may have dropped an index or made one.
        let has_txn_index = |base: &Offset, found: &OnDisk| {
            if start.clean {
                found.txn_index
            } else {
                SegmentFiles::new(Arc::clone(&dir), *base).path(TXN_INDEX).exists()
            }
        };
        view.txn_bases =
            bases.iter().filter(|(base, found)| has_txn_index(base, found)).map(|(base, _)| *base).collect();
        let active_txn = view.active.files.path(TXN_INDEX);
        let txn_index = TxnIndex::open(active_txn, view.active.base()).map_err(super::RollError::from)?;
        let recovery_point = if start.clean { end } else { start.recovery_point.min(end) };
        let log = LocalLog {
            dir: RwLock::new(dir),
            config: RwLock::new(config),
            writer: Mutex::new(Writer {
                verifications: Verifications::default(),
                producers,
                snapshots,
                txn_index,
                unindexed: Vec::new(),
                torn: false,
                abandoned: false,
                quota: Quota::default(),
            }),
            view: RwLock::new(view),
            flushing: Mutex::new(()),
            cleaning: Mutex::new(()),
            cleaning_ended: AtomicBool::new(false),
            cleaning_paused: AtomicBool::new(false),
            recovery_point: AtomicU64::new(recovery_point.get()),
            kept_start: AtomicU64::new(start.log_start.get()),
            is_linked: AtomicBool::new(false),
            on_seal: Default::default(),
        };
        Ok((log, loader.recovered))
    }
}

/// What a directory listing says about one segment.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct OnDisk {
    pub(super) offset_index: bool,
    pub(super) txn_index: bool,
}

/// Removes what a crash left unfinished, completes swaps of cleaned segments, and lists the segments.
fn tidy(dir: &Path) -> io::Result<BTreeMap<Offset, OnDisk>> {
    let mut names = list(dir)?;
    let unfinished = |name: &String| name.ends_with(".tmp") || name.ends_with(DELETED) || name.ends_with(CLEANED);
    for name in names.extract_if(.., |name| unfinished(name)) {
        files::delete(&dir.join(name))?;
    }
    if names.iter().any(|name| name.ends_with(SWAP)) {
        recovery::complete_swaps(dir, &names)?;
        names = list(dir)?;
    }
    let mut segments: BTreeMap<Offset, OnDisk> = BTreeMap::new();
    for (base, suffix) in names.iter().filter_map(|name| files::parse_name(name)) {
        if suffix == LOG {
            segments.entry(base).or_default();
        }
    }
    for (base, suffix) in names.iter().filter_map(|name| files::parse_name(name)) {
        match (segments.get_mut(&base), suffix) {
            (Some(segment), OFFSET_INDEX) => segment.offset_index = true,
            (Some(segment), TXN_INDEX) => segment.txn_index = true,
            // An index without its segment is a leftover; a snapshot may stand alone, at the log's end.
            (None, OFFSET_INDEX | TIME_INDEX | TXN_INDEX) => {
                files::delete(&SegmentFiles::new(dir.into(), base).path(suffix))?;
            }
            _ => debug_assert!(suffix != SNAPSHOT || base <= Offset::MAX),
        }
    }
    Ok(segments)
}

fn list(dir: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(dir)? {
        names.extend(entry?.file_name().into_string().ok());
    }
    Ok(names)
}

struct Loader {
    dir: Arc<Path>,
    config: Arc<LogConfig>,
    start: RecoveryStart,
    now: Timestamp,
    epochs: EpochCache,
    epochs_known: bool,
    recovered: Recovered,
}

impl Loader {
    fn new(dir: Arc<Path>, config: Arc<LogConfig>, start: RecoveryStart, now: Timestamp) -> io::Result<Loader> {
        let found = epochs_file::read(&dir)?;
        let (epochs_known, epochs) = (found.is_some(), found.unwrap_or_default());
        Ok(Loader { dir, config, start, now, epochs, epochs_known, recovered: Recovered::default() })
    }

    fn load_segments(
        &mut self,
        bases: &BTreeMap<Offset, OnDisk>,
    ) -> Result<(Vec<Arc<Sealed>>, ActiveSegment, Offset), OpenError> {
        let Some((last, _)) = bases.last_key_value() else {
            let mut active = ActiveSegment::create(SegmentFiles::new(Arc::clone(&self.dir), self.start.log_start))?;
            active.reserve(&self.config);
            return Ok((Vec::new(), active, self.start.log_start));
        };
        let unflushed = bases.range(..=self.start.recovery_point).next_back().map_or(Offset::ZERO, |(base, _)| *base);
        let mut sealed = Vec::with_capacity(bases.len() - 1);
        let mut rest = bases.iter();
        while let Some((base, found)) = rest.next() {
            let files = SegmentFiles::new(Arc::clone(&self.dir), *base);
            let check = !self.start.clean && *base >= unflushed;
            let next = rest.clone().next().map(|(next, _)| *next);
            if !check && base != last {
                sealed.push(Arc::new(self.sealed_unchecked(files, next, found)?));
                continue;
            }
            let segment = if check { self.check(files, next)? } else { self.resume(files)? };
            let torn = segment.bytes_cut > 0;
            if base == last || torn {
                self.drop_behind(rest.map(|(base, _)| *base))?;
                let mut active = segment.active;
                active.reserve(&self.config);
                return Ok((sealed, active, segment.end));
            }
            let mut done = segment.active;
            done.write_indexes()?;
            sealed.push(Arc::new(done.seal()));
        }
        unreachable!("the loop returns at the last segment")
    }

    /// A segment that was flushed before, taken as it is; its index is made anew if it is missing.
    fn sealed_unchecked(&mut self, files: SegmentFiles, next: Option<Offset>, found: &OnDisk) -> io::Result<Sealed> {
        let bytes = fs::metadata(files.path(LOG))?.len();
        if !found.offset_index {
            tracing::warn!(segment = %files.path(LOG).display(), "segment without index: reading it through");
            let mut segment = recovery::walk(files, next, &self.config, self.now)?;
            segment.active.write_indexes()?;
            return Ok(segment.active.seal());
        }
        Ok(Sealed::found(files, u32::try_from(bytes).unwrap_or(u32::MAX)))
    }

    fn check(&mut self, files: SegmentFiles, next: Option<Offset>) -> io::Result<Segment> {
        let path = files.path(LOG);
        let segment = recovery::check(files, next, &self.config, &mut self.epochs, self.now)?;
        self.recovered.segments_checked += 1;
        self.recovered.bytes_cut += segment.bytes_cut;
        if segment.bytes_cut > 0 {
            tracing::warn!(segment = %path.display(), bytes = segment.bytes_cut, end = %segment.end, "torn tail cut off");
        }
        Ok(segment)
    }

    /// The active segment after a clean shutdown: from its indexes if they hold, else checked like any other.
    fn resume(&mut self, files: SegmentFiles) -> io::Result<Segment> {
        match recovery::resume(files.clone(), &self.config, self.now)? {
            Some(segment) => Ok(segment),
            None => self.check(files, None),
        }
    }

    /// Deletes the segments behind one that was torn: an offset gap in the middle of a log would be a lie.
    fn drop_behind(&mut self, bases: impl Iterator<Item = Offset>) -> io::Result<()> {
        for base in bases {
            let files = SegmentFiles::new(Arc::clone(&self.dir), base);
            let bytes = fs::metadata(files.path(LOG))?.len();
            tracing::warn!(segment = %files.path(LOG).display(), bytes, "segment behind a torn one deleted");
            self.recovered.bytes_cut += bytes;
            files.delete()?;
            files::delete(&files.path(SNAPSHOT))?;
        }
        Ok(())
    }

    /// Makes the epochs fit the log, out of all its batches if their file was lost.
    fn settle_epochs(&mut self, sealed: &[Arc<Sealed>], end: Offset) -> io::Result<()> {
        let before = self.epochs_known.then(|| self.epochs.clone());
        if !self.epochs_known && end > Offset::ZERO {
            let mut epochs = EpochCache::default();
            for segment in sealed {
                recovery::collect_epochs(segment, &mut epochs)?;
            }
            // The active segment was walked or checked, or has the epochs of its own file only: walk it too.
            recovery::collect_active_epochs(&self.dir, sealed, &mut epochs)?;
            self.epochs = epochs;
        }
        self.epochs.truncate_from_end(end);
        self.epochs.truncate_from_start(self.start.log_start);
        if before.as_ref() != Some(&self.epochs) && (before.is_some() || !self.epochs.entries().is_empty()) {
            epochs_file::write(&self.dir, &self.epochs)?;
        }
        Ok(())
    }
}

/// Producer state at the log's end: the newest snapshot, and the batches behind it.
pub(super) fn load_producers(
    view: &View,
    snapshots: &mut ProducerSnapshots,
    clean: bool,
    config: &LogConfig,
    now: Timestamp,
) -> Result<ProducerState, OpenError> {
    let storage = super::RollError::from;
    let bases: BTreeSet<Offset> =
        view.sealed.iter().map(|segment| segment.base()).chain([view.active.base()]).collect();
    snapshots.delete_strays(&bases).map_err(storage)?;
    snapshots.retain_within(view.log_start, view.end).map_err(storage)?;
    let had_snapshot = snapshots.latest().is_some();
    let mut state = match snapshots.load_latest().map_err(storage)? {
        Some(snapshot) => {
            ProducerState::load(snapshot.producers, snapshot.offset, now.to_wire(), config.producer_expiry)
        }
        // A log that was shut down cleanly without a snapshot never had a producer worth remembering.
        None if clean && !had_snapshot => ProducerState::starting_at(view.end),
        None => ProducerState::starting_at(view.local_start()),
    };
    state.tell_time(now.to_wire(), config.producer_expiry);
    if state.end() < view.end {
        recovery::replay(view, &mut state, snapshots)?;
    }
    Ok(state)
}
