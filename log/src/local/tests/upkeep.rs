//! Rolling, retention, deletion, lookups.

use std::time::Duration;

use super::*;

fn names(fixture: &Fixture) -> Vec<String> {
    let mut names: Vec<_> = std::fs::read_dir(fixture.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// Three sealed segments of two records each and an active one with one record; timestamps 1000 apart.
fn four_segments(fixture: &Fixture) -> LocalLog {
    let log = fixture.new_log();
    for (index, values) in [["a", "b"], ["c", "d"], ["e", "f"]].iter().enumerate() {
        log.append(&batch_at(NOW + 1000 * index as i64, values), client()).unwrap();
        log.roll().unwrap();
    }
    log.append(&batch_at(NOW + 3000, &["g"]), client()).unwrap();
    log
}

#[test]
fn a_full_segment_is_sealed_and_reads_go_on_across() {
    let fixture = Fixture::new().with(|config| config.segment_bytes = 200);
    let log = fixture.new_log();
    let mut sealed = 0;
    for index in 0..20 {
        sealed +=
            usize::from(log.append(&batch(&[&format!("value {index}")]), client()).unwrap().sealed_below.is_some());
    }
    assert_eq!(log.sealed_segments(at(0)).unwrap().len(), sealed);
    assert!(sealed >= 8);
    let read = all(&log);
    assert_eq!(read.len(), 20);
    assert!(
        read.iter()
            .enumerate()
            .all(|(index, (offset, value))| { *offset == index as u64 && *value == format!("value {index}") })
    );
    let larger = batch(&[&"x".repeat(200)]);
    assert!(matches!(log.append(&larger, client()), Err(AppendError::LargerThanSegment { .. })));
}

#[test]
fn a_segment_is_sealed_when_its_first_record_is_too_old_for_the_next() {
    let fixture = Fixture::new().with(|config| config.segment_time = Duration::from_secs(10));
    let log = fixture.new_log();
    log.append(&batch_at(NOW, &["a"]), client()).unwrap();
    assert_eq!(log.append(&batch_at(NOW + 10_000, &["b"]), client()).unwrap().sealed_below, None);
    assert_eq!(log.append(&batch_at(NOW + 10_001, &["c"]), client()).unwrap().sealed_below, Some(at(2)));
}

#[test]
fn a_silent_partition_is_sealed_when_its_time_is_up() {
    let fixture = Fixture::new().with(|config| config.segment_time = Duration::from_secs(10));
    let log = fixture.new_log();
    assert_eq!(log.roll_if_due(ms(NOW + 100_000), None).unwrap(), None, "nothing to seal");
    log.append(&batch_at(5, &["a"]), client()).unwrap();
    assert_eq!(log.roll_if_due(ms(NOW + 9_000), None).unwrap(), None);
    assert_eq!(log.roll_if_due(ms(NOW + 9_000), Some(Duration::from_secs(9))).unwrap(), Some(at(1)));
    log.append(&batch_at(5, &["b"]), client()).unwrap();
    assert_eq!(log.roll_if_due(ms(NOW + 10_001), None).unwrap(), Some(at(2)));
}

#[test]
fn a_full_index_seals_its_segment() {
    let fixture = Fixture::new().with(|config| (config.index_interval_bytes, config.segment_index_bytes) = (0, 48));
    let log = fixture.new_log();
    let sealed: Vec<_> = (0..20)
        .filter_map(|index| log.append(&batch_at(NOW + index, &["a"]), client()).unwrap().sealed_below)
        .map(Offset::get)
        .collect();
    assert_eq!(sealed, [4, 8, 12, 16], "three time entries: the fourth place is for the seal");
}

#[test]
fn sealed_segments_tell_what_they_hold() {
    let fixture = Fixture::new();
    let log = four_segments(&fixture);
    let segments = log.sealed_segments(at(2)).unwrap();
    let bounds: Vec<_> = segments.iter().map(|segment| (segment.base.get(), segment.end.get())).collect();
    assert_eq!(bounds, [(2, 4), (4, 6)]);
    assert_eq!(segments[0].max_timestamp, Some(ms(NOW + 1000)));
    assert_eq!(segments[0].leader_epochs, [(LeaderEpoch(0), at(2))]);
    assert_eq!(segments[0].bytes, std::fs::metadata(&segments[0].log_path).unwrap().len());
    assert!(segments.iter().all(|segment| segment.producer_snapshot_path.as_ref().is_some_and(|path| path.exists())));
    assert!(segments.iter().all(|segment| segment.offset_index_path.exists() && segment.time_index_path.exists()));
}

#[test]
fn a_read_stops_at_its_bound_and_at_its_size() {
    let fixture = Fixture::new();
    let log = fixture.new_log();
    for values in [["a", "b"], ["c", "d"], ["e", "f"]] {
        log.append(&batch(&values), client()).unwrap();
    }
    let one = batch(&["a", "b"]).len() as u32;
    let read = |from, bound, max, at_least_one| {
        let slice = log.read(at(from), at(bound), max, at_least_one).unwrap();
        (slice.first.get(), slice.len / one)
    };
    assert_eq!(read(0, 6, 1 << 20, false), (0, 3));
    assert_eq!(read(3, 6, 1 << 20, false), (2, 2), "from the batch that holds the offset");
    assert_eq!(read(0, 5, 1 << 20, false), (0, 2), "a batch that reaches beyond the bound stays back");
    assert_eq!(read(4, 5, 1 << 20, true).1, 0);
    assert_eq!(read(0, 6, 2 * one + 5, false), (0, 2));
    assert_eq!(read(0, 6, 1, false).1, 0);
    assert_eq!(read(0, 6, 1, true), (0, 1));
    assert_eq!(read(6, 6, 100, true), (6, 0), "nothing new yet");
    assert!(matches!(log.read(at(7), at(9), 1, true), Err(ReadError::OutOfRange { .. })));
}

#[test]
fn deletion_moves_the_local_start_and_lets_readers_finish() {
    let fixture = Fixture::new();
    let log = four_segments(&fixture);
    let slice = log.read(at(0), at(2), 1 << 20, true).unwrap();
    let removed = log.delete_local_below(at(5)).unwrap();
    assert_eq!((removed.segments, log.local_start(), log.start().0), (2, at(4), at(0)));
    assert!(
        matches!(log.read(at(3), at(6), 1, true), Err(ReadError::OutOfRange { local_start, .. }) if local_start == at(4))
    );
    removed.purge().unwrap();
    assert!(!names(&fixture).iter().any(|name| name.ends_with(".deleted")));
    assert_eq!(batches(&slice.read().unwrap()).count(), 1);
    assert_eq!(all(&log), values(&[(4, "e"), (5, "f"), (6, "g")]));
    let removed = log.delete_local_below(at(7)).unwrap();
    assert_eq!((removed.segments, log.local_start(), log.end().0), (2, at(7), at(7)));
    drop(removed);
    log.append(&batch(&["h"]), client()).unwrap();
    drop(log);
    let (log, _) = fixture.crashed();
    assert_eq!(all(&log), values(&[(7, "h")]));
    assert!(!names(&fixture).iter().any(|name| name.ends_with(".deleted")), "leftovers go at the next start");
}

#[test]
fn retention_counts_from_the_oldest_segment() {
    let fixture = Fixture::new();
    let log = four_segments(&fixture);
    let now = ms(NOW + 3000);
    let expired = |time: Option<u64>, bytes, limit| {
        log.expired_below(now, time.map(Duration::from_millis), bytes, at(limit)).unwrap().get()
    };
    assert_eq!(expired(None, None, 7), 0);
    assert_eq!(expired(Some(1999), None, 7), 4);
    assert_eq!(expired(Some(1999), None, 3), 2, "not beyond the limit");
    let segment = u64::from(batch(&["a", "b"]).len() as u32);
    assert_eq!(expired(None, Some(log.size() - segment + 1), 7), 0);
    assert_eq!(expired(None, Some(log.size() - segment), 7), 2);
    let later = log.expired_below(ms(NOW + 9000), Some(Duration::from_secs(1)), None, at(7)).unwrap();
    assert_eq!(later, at(7), "even the active segment");
}

#[test]
fn the_log_start_moves_forward_only() {
    let fixture = Fixture::new();
    let log = four_segments(&fixture);
    assert!(log.advance_log_start(at(3)).unwrap());
    assert!(!log.advance_log_start(at(2)).unwrap());
    assert_eq!((log.start().0, log.local_start()), (at(3), at(3)));
    assert!(log.advance_log_start(at(8)).is_err());
    assert_eq!((log.kept_start().0, log.is_start_kept()), (at(0), false));
    log.note_start_kept(at(3));
    assert_eq!((log.kept_start().0, log.is_start_kept()), (at(3), true));
    assert_eq!(log.leader_epochs(), [(LeaderEpoch(0), at(3))]);
}

/// Others that parted from it before its start would be told that they did not.
#[test]
fn a_crash_that_forgets_where_the_log_starts_forgets_no_epochs() {
    let fixture = Fixture::new();
    let log = four_segments(&fixture);
    assert!(log.advance_log_start(at(3)).unwrap());
    drop(log);
    let (log, _) = fixture.crashed();
    assert_eq!((log.start().0, log.leader_epochs()), (at(0), vec![(LeaderEpoch(0), at(0))]));
}

#[test]
fn offsets_are_found_by_timestamp() {
    let fixture = Fixture::new().with(|config| config.index_interval_bytes = 0);
    let log = four_segments(&fixture);
    let find = |timestamp: i64, from| {
        log.offset_for_timestamp(ms(timestamp), at(from)).unwrap().map(|found| found.offset.get())
    };
    assert_eq!(find(0, 0), Some(0));
    assert_eq!(find(NOW + 1, 0), Some(2));
    assert_eq!(find(NOW + 1, 3), Some(3));
    assert_eq!(find(NOW + 2000, 0), Some(4));
    assert_eq!(find(NOW + 3000, 0), Some(6));
    assert_eq!(find(NOW + 3001, 0), None);
    let newest = log.max_timestamp_offset().unwrap().unwrap();
    assert_eq!((newest.offset, newest.timestamp, newest.leader_epoch), (at(6), ms(NOW + 3000), Some(LeaderEpoch(0))));
}

#[test]
fn a_flush_moves_the_recovery_point_over_everything_written() {
    let fixture = Fixture::new();
    let log = four_segments(&fixture);
    assert_eq!(log.recovery_point(), at(0));
    log.flush(at(1)).unwrap();
    assert_eq!(log.recovery_point(), at(7));
}

#[test]
fn truncation_within_the_batch_of_the_log_start_leaves_no_start_behind_the_end() {
    let fixture = Fixture::new();
    let log = fixture.new_log();
    log.append(&batch(&["a", "b", "c", "d", "e"]), client()).unwrap();
    assert!(log.advance_log_start(at(3)).unwrap());
    drop(log.truncate_to(at(4), ms(NOW)).unwrap());
    assert_eq!((log.start().0, log.local_start(), log.end().0), (at(0), at(0), at(0)));
    log.append(&batch(&["x"]), client()).unwrap();
    assert_eq!(all(&log), values(&[(0, "x")]));
}

#[test]
fn an_epoch_begins_before_its_first_record_and_is_forgotten_where_the_leader_has_none() {
    let fixture = Fixture::new();
    let log = fixture.new_log();
    log.append(&batch(&["a", "b"]), in_epoch(1)).unwrap();
    log.begin_epoch(LeaderEpoch(4)).unwrap();
    log.begin_epoch(LeaderEpoch(4)).unwrap();
    assert_eq!(log.leader_epochs(), [(LeaderEpoch(1), at(0)), (LeaderEpoch(4), at(2))]);
    assert_eq!(
        log.end_of_epoch(LeaderEpoch(3)),
        Some((LeaderEpoch(1), at(2))),
        "a follower of epoch 3 learns where to cut"
    );
    // No longer leader, and the new one has no record of epoch 4: there is nothing to cut but the epoch.
    drop(log.truncate_to(at(2), ms(NOW)).unwrap());
    assert_eq!((log.latest_epoch(), log.end().0), (Some(LeaderEpoch(1)), at(2)));
    assert_eq!(all(&log), values(&[(0, "a"), (1, "b")]));
}

#[test]
fn truncation_forgets_records_epochs_and_producers_behind_the_cut() {
    let fixture = Fixture::new();
    let log = four_segments(&fixture);
    log.append(&batch(&["h"]), in_epoch(5)).unwrap();
    drop(log.truncate_to(at(7), ms(NOW)).unwrap());
    assert_eq!(log.leader_epochs(), [(LeaderEpoch(0), at(0))]);
    drop(log.truncate_to(at(3), ms(NOW)).unwrap());
    assert_eq!(all(&log), values(&[(0, "a"), (1, "b")]), "cut at the batch that holds offset 3");
    let appended = log.append(&batch(&["x"]), in_epoch(6)).unwrap();
    assert_eq!(appended.base, at(2));
    drop(log.truncate_fully(at(50), at(10)).unwrap());
    assert_eq!((log.start().0, log.local_start(), log.end().0), (at(10), at(50), at(50)));
    log.learn_epochs(&[(LeaderEpoch(0), at(0)), (LeaderEpoch(2), at(20))]).unwrap();
    log.append(&batch(&["y"]), in_epoch(7)).unwrap();
    assert_eq!(log.end_of_epoch(LeaderEpoch(0)), Some((LeaderEpoch(0), at(20))));
    assert_eq!(log.end_of_epoch(LeaderEpoch(3)), Some((LeaderEpoch(2), at(50))));
    drop(log);
    let (log, _) = fixture.crashed();
    assert_eq!(all(&log), values(&[(50, "y")]));
}

#[test]
fn the_newest_batches_are_found_without_the_disk_and_older_ones_with_it() {
    let fixture = Fixture::new().with(|config| config.index_interval_bytes = 300);
    let log = fixture.new_log();
    for index in 0..2000_i64 {
        log.append(&batch_at(NOW + index, &["some value", "another"]), client()).unwrap();
    }
    for from in [0_u64, 1, 2, 777, 1999, 2000, 3935, 3936, 3998, 3999] {
        let slice = log.read(at(from), at(4000), 1, true).unwrap();
        assert_eq!(slice.first.get(), from - from % 2);
        let bounded = log.read(at(0), at(from), u32::MAX, false).unwrap();
        assert_eq!(u64::from(bounded.len), (from / 2) * u64::from(slice.len));
    }
}

#[test]
fn the_newest_record_is_looked_for_among_those_that_are_left() {
    let fixture = Fixture::new();
    let log = fixture.new_log();
    for (timestamp, value) in [(NOW + 9, "gone"), (NOW + 3, "a"), (NOW + 5, "b"), (NOW + 5, "c")] {
        log.append(&batch_at(timestamp, &[value]), client()).unwrap();
    }
    log.roll().unwrap();
    let newest =
        || log.max_timestamp_offset().unwrap().map(|found| (found.offset.get(), found.timestamp.to_wire() - NOW));
    assert_eq!(newest(), Some((0, 9)));
    log.advance_log_start(at(1)).unwrap();
    assert_eq!(newest(), Some((2, 5)));
    log.append(&batch_at(NOW + 4, &["d"]), client()).unwrap();
    assert_eq!(newest(), Some((2, 5)));
    log.append(&batch_at(NOW + 8, &["e"]), client()).unwrap();
    assert_eq!(newest(), Some((5, 8)));
    log.advance_log_start(at(6)).unwrap();
    assert_eq!(newest(), None);
}

#[test]
fn a_log_that_was_deleted_gives_nothing_of_the_log_in_its_place() {
    let fixture = Fixture::new();
    let log = fixture.new_log();
    log.append(&batch(&["old"]), client()).unwrap();
    log.roll().unwrap();
    log.abandon();
    std::fs::remove_dir_all(fixture.path()).unwrap();
    let other = fixture.new_log();
    other.append(&batch(&["new"]), client()).unwrap();
    other.roll().unwrap();
    let gone =
        |error: ReadError| matches!(error, ReadError::Storage(error) if error.kind() == std::io::ErrorKind::NotFound);
    assert!(gone(log.read(at(0), at(1), 1 << 20, true).unwrap_err()));
    assert!(gone(log.aborted(at(0), at(1)).unwrap_err()));
    assert!(gone(log.max_timestamp_offset().unwrap_err()));
    assert!(gone(log.offset_for_timestamp(ms(NOW), at(0)).unwrap_err()));
}

#[test]
fn a_segments_disk_space_is_reserved_when_it_begins_and_given_back_when_it_is_sealed() {
    use std::os::unix::fs::MetadataExt;
    const SEGMENT: u32 = 4 << 20;
    let fixture = Fixture::new().with(|config| (config.preallocate, config.segment_bytes) = (true, SEGMENT));
    let of = |base: u64| std::fs::metadata(fixture.path().join(format!("{base:020}.log"))).unwrap();
    let reserved = |base: u64| of(base).blocks() * 512;
    let probe = std::fs::File::create(fixture.path().join("probe")).unwrap();
    if rustix::fs::fallocate(&probe, rustix::fs::FallocateFlags::KEEP_SIZE, 0, 4096).is_err() {
        return; // A file system that cannot reserve.
    }
    let log = fixture.new_log();
    let one = batch(&["one"]);
    log.append(&one, client()).unwrap();
    assert_eq!(of(0).len(), one.len() as u64, "readers and recovery see records alone");
    assert!(reserved(0) >= u64::from(SEGMENT));
    log.roll().unwrap();
    assert!(reserved(0) < u64::from(SEGMENT) / 2 && reserved(1) >= u64::from(SEGMENT));
    drop(log);

    let (log, _) = fixture.crashed();
    assert_eq!(all(&log), values(&[(0, "one")]));
    log.append(&batch(&["two"]), client()).unwrap();
    // Turned off on a living topic, it is off from the next segment on.
    log.update_config(std::sync::Arc::new(LogConfig { preallocate: false, ..fixture.config.clone() }));
    log.roll().unwrap();
    assert!(reserved(1) < u64::from(SEGMENT) / 2 && reserved(2) == 0);
}

#[test]
fn jitter_takes_a_part_of_segment_ms_off_that_differs_from_partition_to_partition() {
    let rolls_after_six_seconds = |jitter: u64| {
        let fixture = Fixture::new().with(|config| {
            (config.segment_time, config.segment_jitter) = (Duration::from_secs(10), Duration::from_secs(jitter));
        });
        let log = fixture.new_log();
        log.append(&batch_at(NOW, &["first"]), client()).unwrap();
        log.append(&batch_at(NOW + 6_000, &["next"]), client()).unwrap().sealed_below.is_some()
    };
    let with = (0..64).filter(|_| rolls_after_six_seconds(10)).count();
    assert!(0 < with && with < 64, "{with} of 64");
    assert!((0..8).all(|_| !rolls_after_six_seconds(0)));
}

#[test]
fn index_entries_are_as_far_apart_as_the_topic_says() {
    let index_bytes = |interval: u32| {
        let fixture = Fixture::new().with(|config| config.index_interval_bytes = interval);
        let log = fixture.new_log();
        for _ in 0..20 {
            log.append(&batch(&["a value of some length"]), client()).unwrap();
        }
        log.roll().unwrap();
        std::fs::metadata(fixture.path().join(format!("{:020}.index", 0))).unwrap().len()
    };
    // Eight bytes for each entry.
    assert_eq!((index_bytes(0), index_bytes(1 << 20)), (19 * 8, 0));
}
