//! Crashes, damage, restarts.

use std::fs::{self, OpenOptions};

use super::*;

fn filled(fixture: &Fixture) -> LocalLog {
    let log = fixture.new_log();
    for index in 0..10 {
        log.append(&batch(&[&format!("v{index}")]), in_epoch(index / 5)).unwrap();
        if index % 4 == 3 {
            log.roll().unwrap();
        }
    }
    log
}

fn cut(fixture: &Fixture, name: &str, bytes: u64) {
    let file = OpenOptions::new().write(true).open(fixture.path().join(name)).unwrap();
    let len = file.metadata().unwrap().len();
    file.set_len(len - bytes).unwrap();
}

#[test]
fn a_killed_process_loses_nothing_that_it_acknowledged() {
    let fixture = Fixture::new();
    let log = filled(&fixture);
    let (before, epochs) = (all(&log), log.leader_epochs());
    drop(log);
    let (log, recovered) = fixture.crashed();
    assert_eq!((all(&log), recovered.bytes_cut, recovered.segments_checked), (before, 0, 3));
    assert_eq!(log.leader_epochs(), epochs);
    assert_eq!(log.append(&batch(&["next"]), in_epoch(1)).unwrap().base, at(10));
}

#[test]
fn a_clean_start_reads_no_batches_and_finds_the_same_log() {
    let fixture = Fixture::new().with(|config| config.index_interval_bytes = 100);
    let log = filled(&fixture);
    log.close().unwrap();
    let before = all(&log);
    drop(log);
    let (log, recovered) = fixture.open(RecoveryStart { clean: true, recovery_point: at(10), log_start: at(0) });
    assert_eq!((all(&log), recovered), (before, Recovered::default()));
    assert_eq!(log.recovery_point(), at(10));
    assert_eq!(log.append(&batch(&["next"]), in_epoch(1)).unwrap().base, at(10));
    assert_eq!(all(&log).len(), 11);
}

#[test]
fn only_segments_above_the_recovery_point_are_checked() {
    let fixture = Fixture::new();
    drop(filled(&fixture));
    let (_, recovered) = fixture.open(RecoveryStart { clean: false, recovery_point: at(5), log_start: at(0) });
    assert_eq!(recovered.segments_checked, 2);
}

#[test]
fn a_torn_tail_is_cut_at_the_first_bad_batch_and_what_follows_it_goes() {
    let fixture = Fixture::new();
    drop(filled(&fixture));
    cut(&fixture, "00000000000000000004.log", 1);
    let (log, recovered) = fixture.crashed();
    assert_eq!(log.end().0, at(7));
    assert!(recovered.bytes_cut > 0);
    assert!(!fixture.path().join("00000000000000000008.log").exists());
    log.append(&batch(&["again"]), in_epoch(2)).unwrap();
    assert_eq!(all(&log).last().unwrap(), &(7, "again".to_owned()));
    assert_eq!(log.leader_epochs().last(), Some(&(LeaderEpoch(2), at(7))));
}

#[test]
fn damaged_or_missing_indexes_cost_time_but_no_record() {
    let fixture = Fixture::new().with(|config| config.index_interval_bytes = 0);
    let log = filled(&fixture);
    log.close().unwrap();
    let before = all(&log);
    drop(log);
    let start = RecoveryStart { clean: true, recovery_point: at(10), log_start: at(0) };
    fs::remove_file(fixture.path().join("00000000000000000000.index")).unwrap();
    fs::remove_file(fixture.path().join("00000000000000000008.timeindex")).unwrap();
    for garbage in [[0xff; 16], [0; 16], [0x11; 16]] {
        fs::write(fixture.path().join("00000000000000000004.index"), garbage).unwrap();
        let (log, _) = fixture.open(start);
        assert_eq!(all(&log), before);
        for from in 0..10 {
            assert_eq!(log.read(at(from), at(10), 1, true).unwrap().first, at(from), "{garbage:?}");
        }
    }
    assert!(fixture.path().join("00000000000000000000.index").exists());
}

#[test]
fn a_sealed_segment_with_an_offset_that_is_not_its_own_is_refused_when_its_index_is_made_anew() {
    let fixture = Fixture::new();
    filled(&fixture).close().unwrap();
    let name = fixture.path().join("00000000000000000000.log");
    let mut bytes = fs::read(&name).unwrap();
    bytes[..8].copy_from_slice(&(1_u64 << 40).to_be_bytes());
    fs::write(name, bytes).unwrap();
    fs::remove_file(fixture.path().join("00000000000000000000.index")).unwrap();
    let start = RecoveryStart { clean: true, recovery_point: at(10), log_start: at(0) };
    let opened = LocalLog::open(fixture.path(), Arc::new(fixture.config.clone()), start, ms(NOW));
    let Err(OpenError::Storage(error)) = opened else { panic!("an offset beyond its segment") };
    assert_eq!(error.kind(), std::io::ErrorKind::InvalidData);
}

#[test]
fn a_damaged_active_index_is_noticed() {
    let fixture = Fixture::new().with(|config| config.index_interval_bytes = 0);
    let log = filled(&fixture);
    log.close().unwrap();
    let before = all(&log);
    drop(log);
    let start = RecoveryStart { clean: true, recovery_point: at(10), log_start: at(0) };
    for garbage in [&[0xff; 8][..], &[0, 0, 0, 1, 0, 0, 0, 3], &[0; 16], &[1, 2, 3]] {
        fs::write(fixture.path().join("00000000000000000008.index"), garbage).unwrap();
        let (log, _) = fixture.open(start);
        assert_eq!(all(&log), before, "{garbage:?}");
    }
}

#[test]
fn a_lost_epoch_file_is_made_again_from_the_batches() {
    let fixture = Fixture::new();
    let log = filled(&fixture);
    log.close().unwrap();
    let epochs = log.leader_epochs();
    drop(log);
    for damage in [None, Some("nonsense"), Some("")] {
        let path = fixture.path().join(LEADER_EPOCH_CHECKPOINT);
        match damage {
            None => fs::remove_file(path).unwrap(),
            Some(text) => fs::write(path, text).unwrap(),
        }
        let (log, _) = fixture.open(RecoveryStart { clean: true, recovery_point: at(10), log_start: at(0) });
        assert_eq!(log.leader_epochs(), epochs);
    }
}

#[test]
fn offsets_do_not_come_back_when_segments_were_deleted_behind_our_back() {
    let fixture = Fixture::new();
    drop(filled(&fixture));
    let (log, _) = fixture.open(RecoveryStart { clean: false, recovery_point: at(0), log_start: at(500) });
    assert_eq!((log.start().0, log.end().0), (at(500), at(500)));
    assert_eq!(log.append(&batch(&["x"]), client()).unwrap().base, at(500));
}

#[test]
fn unfinished_files_go_and_finished_swaps_take_their_place() {
    let fixture = Fixture::new();
    let log = filled(&fixture);
    log.close().unwrap();
    drop(log);
    let name = |name: &str| fixture.path().join(name);
    // A cleaned segment 0 that replaces 0 and 4, complete; and one that was not.
    let first = fs::read(name("00000000000000000000.log")).unwrap();
    let second = fs::read(name("00000000000000000004.log")).unwrap();
    fs::write(name("00000000000000000000.log.swap"), [first, second].concat()).unwrap();
    fs::write(name("00000000000000000008.log.cleaned"), b"half").unwrap();
    let (log, _) = fixture.crashed();
    assert_eq!(all(&log).len(), 10);
    assert_eq!(log.sealed_segments(at(0)).unwrap().len(), 1);
    assert!(!name("00000000000000000004.log").exists() && !name("00000000000000000008.log.cleaned").exists());
}

/// Changes a base offset, which no CRC covers, of the batch at `position` in segment `name`.
fn move_batch(fixture: &Fixture, name: &str, position: u64, base: u64) {
    use std::os::unix::fs::FileExt;
    let file = OpenOptions::new().write(true).open(fixture.path().join(name)).unwrap();
    file.write_all_at(&base.to_be_bytes(), position).unwrap();
}

#[test]
fn a_batch_whose_offset_reaches_into_the_next_segment_does_not_hold() {
    let fixture = Fixture::new();
    let log = filled(&fixture);
    let position = log.read(at(6), at(8), 1 << 20, true).unwrap().position;
    drop(log);
    move_batch(&fixture, "00000000000000000004.log", position, 8);
    let (log, recovered) = fixture.crashed();
    assert_eq!(log.end().0, at(6));
    assert!(recovered.bytes_cut > 0);
    assert_eq!(all(&log).len(), 6);
}

#[test]
fn a_reader_that_comes_to_a_batch_whose_offset_was_changed_is_told() {
    let fixture = Fixture::new();
    let log = filled(&fixture);
    let position = log.read(at(6), at(8), 1 << 20, true).unwrap().position;
    log.close().unwrap();
    drop(log);
    move_batch(&fixture, "00000000000000000004.log", position, 1 << 20);
    let (log, _) = fixture.open(RecoveryStart { clean: true, recovery_point: at(10), log_start: at(0) });
    assert!(matches!(log.read(at(6), at(10), 1 << 20, true), Err(ReadError::Corrupt(_))));
    assert_eq!(log.read(at(8), at(10), 1 << 20, true).unwrap().first, at(8));
}
