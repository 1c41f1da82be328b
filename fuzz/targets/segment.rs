//! A partition's directory as a disk may hand it to us: it opens, serves and takes appends, whatever its files hold.
//!
//! Input: flags (1: shut down cleanly, 2: all below offset 8 was flushed, 4: the log starts at 3, 8: checksums are made to
//! hold) │ pieces, one for each file by its place in `SEGMENT_FILES`.
#![no_main]

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Arc, LazyLock},
    time::Duration,
};

use libfuzzer_sys::fuzz_target;
use varve_fuzz::{
    input::{SEGMENT_FILES, flags, pieces},
    seal,
};
use varve_log::{
    format::{BatchBuilder, RecordContent, batches},
    local::{AppendContext, AppendOrigin, CleanRequest, LocalLog, LogConfig, RecoveryStart, cleaner::CleaningLimits},
};
use varve_metadata::model::{LeaderEpoch, Offset, Timestamp};

/// Runs read from one log, at most.
const RUNS: usize = 100;

/// Memory rather than a disk where there is such a place: an input has up to a dozen files.
static DIR: LazyLock<PathBuf> = LazyLock::new(|| {
    let memory = Path::new("/dev/shm");
    let parent = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
    parent.join(format!("varve-fuzz-segment-{}", std::process::id()))
});

fuzz_target!(|bytes: &[u8]| {
    fs::remove_dir_all(&*DIR).or_else(|_| fs::create_dir_all(&*DIR)).expect("a directory of our own");
    fs::create_dir_all(&*DIR).expect("a directory of our own");
    serve(&DIR, bytes);
    fs::remove_dir_all(&*DIR).expect("a directory of our own");
});

fn serve(dir: &Path, input: &[u8]) {
    let (flag, rest) = flags(input);
    let mut swapped = false;
    for piece in pieces(rest) {
        let name = SEGMENT_FILES[usize::from(piece.kind) % SEGMENT_FILES.len()];
        swapped |= name.ends_with(".swap");
        let mut bytes = piece.bytes.to_vec();
        match name {
            _ if flag & 8 == 0 => {}
            name if name.contains(".log") => seal::batches(&mut bytes),
            name if name.ends_with(".snapshot") => seal::snapshot(&mut bytes),
            _ => {}
        }
        fs::write(dir.join(name), bytes).expect("our own directory");
    }
    let at = |raw| Offset::new(raw).expect("small");
    let clean = flag & 1 > 0;
    let recovery_point = if flag & 2 > 0 { at(8) } else { at(0) };
    let log_start = if flag & 4 > 0 { at(3) } else { at(0) };
    let start = RecoveryStart { clean, recovery_point, log_start };
    let now = Timestamp::from_wire(1_700_000_000_000).expect("a time");
    let config = Arc::new(LogConfig { segment_bytes: 1000, index_interval_bytes: 100, ..LogConfig::default() });
    // What was flushed is taken at its word, and a cleaned segment was flushed before it could be swapped in: damage there is
    // refused, because what it stands for may be gone. All else is checked, and cut where it does not hold.
    let checked = !clean && recovery_point == Offset::ZERO && !swapped;
    let log = match LocalLog::open(dir, Arc::clone(&config), start, now) {
        Ok((log, _)) => log,
        Err(error) if checked => panic!("a torn log must open: {error:?}"),
        Err(_) => return,
    };
    read(&log, checked);
    let end = log.end().0;
    append(&log, now, checked);
    let _ = log.roll();
    append(&log, now, checked);
    read(&log, checked);
    let _ = log.sealed_segments(Offset::ZERO);
    let _ = log.clean(&request(&log, now));
    read(&log, checked);
    let _ = log.truncate_to(end, now);
    let _ = log.truncate_to(at(5), now);
    append(&log, now, checked);
    let _ = log.advance_log_start(at(6)).map(|_| log.delete_local_below(at(6)));
    read(&log, checked);
    let (start, end) = (log.start().0, log.end().0);
    let closed = log.close();
    drop(log);
    let again = RecoveryStart { clean: true, recovery_point: end, log_start: start };
    let reopened = LocalLog::open(dir, config, again, now);
    if checked {
        closed.expect("a sound log closes");
        assert_eq!(reopened.expect("what was closed opens").0.end().0, end);
    }
}

/// Reads everything in every way; with `checked`, all of it must be readable.
fn read(log: &LocalLog, checked: bool) {
    let end = log.end().0;
    let mut from = log.local_start();
    for _ in 0..RUNS {
        let slice = match log.read(from, end, 300, true) {
            Ok(slice) if slice.len > 0 => slice,
            Err(error) if checked => panic!("{error:?}"),
            _ => break,
        };
        let run = slice.read();
        if checked {
            let run = run.expect("a run lies within its file");
            assert!(batches(&run).all(|batch| batch.is_ok()), "what was checked is whole");
        }
        assert!(slice.next > from, "reading goes forward");
        from = slice.next;
    }
    for millis in [0, 1_700_000_000_000, i64::MAX] {
        let _ = Timestamp::from_wire(millis).map(|target| log.offset_for_timestamp(target, Offset::ZERO));
    }
    let _ = log.max_timestamp_offset();
    let _ = log.aborted(log.local_start(), end);
    let _ = log.end_of_epoch(LeaderEpoch(1));
    log.advance_high_watermark(end);
}

fn append(log: &LocalLog, now: Timestamp, checked: bool) {
    let mut batch = BatchBuilder::new(Offset::ZERO);
    batch.push(RecordContent { timestamp: Some(now), key: Some(b"k"), value: Some(b"appended"), headers: &[] });
    let batch = batch.build().expect("small");
    let leader_epoch = log.latest_epoch().unwrap_or(LeaderEpoch(0));
    let end = log.end().0;
    let appended = log.append(&batch, AppendContext { leader_epoch, now, origin: AppendOrigin::Client });
    if checked && end < Offset::MAX {
        let appended = appended.expect("a sound log takes appends");
        assert_eq!(appended.base, end);
        assert!(log.read(end, log.end().0, 300, true).expect("what was appended is there").len > 0);
    }
}

fn request(log: &LocalLog, now: Timestamp) -> CleanRequest {
    let limits = CleaningLimits {
        min_dirty_ratio: 0.0,
        min_lag: Duration::ZERO,
        max_lag: Duration::from_secs(1 << 30),
        segment_bytes: 1 << 20,
        index_bytes: 1 << 20,
        delete_retention: Duration::from_secs(60),
    };
    CleanRequest {
        checkpoint: None,
        stable: log.end().0,
        limits,
        memory_bytes: 1 << 16,
        border: None,
        unheard_from: Offset::MAX,
        now,
    }
}
