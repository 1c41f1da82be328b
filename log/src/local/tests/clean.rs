//! Compaction done to the files.

use std::{collections::BTreeMap, fs, time::Duration};

use varve_metadata::model::{ProducerEpoch, ProducerId, Sequence};

use super::*;
use crate::{format::ControlRecord, local::cleaner::CleaningLimits};

fn keyed(pairs: &[(&str, Option<&str>)]) -> Vec<u8> {
    let mut builder = BatchBuilder::new(Offset::ZERO);
    for (key, value) in pairs {
        let (key, value) = (Some(key.as_bytes()), value.map(str::as_bytes));
        builder.push(RecordContent { timestamp: Some(ms(NOW)), key, value, headers: &[] });
    }
    builder.build().unwrap()
}

fn request(log: &LocalLog, checkpoint: Option<Offset>) -> CleanRequest {
    let limits = CleaningLimits {
        min_dirty_ratio: 0.0,
        min_lag: Duration::ZERO,
        max_lag: Duration::from_secs(1 << 30),
        segment_bytes: 1 << 20,
        index_bytes: 1 << 20,
        delete_retention: Duration::from_secs(60),
    };
    let stable = log.end().0;
    let unheard_from = Offset::MAX;
    CleanRequest { checkpoint, stable, limits, memory_bytes: 1 << 20, border: None, unheard_from, now: ms(NOW) }
}

/// Offset, key and value of every record.
fn pairs(log: &LocalLog) -> Vec<(u64, String, Option<String>)> {
    let mut found = Vec::new();
    let mut next = log.local_start();
    while next < log.end().0 {
        let bytes = log.read(next, log.end().0, 1 << 20, true).unwrap().read().unwrap();
        for batch in batches(&bytes) {
            let batch = batch.unwrap();
            let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
            for record in records(batch.payload(), batch.header().record_count) {
                let record = record.unwrap();
                let offset = batch.header().base_offset.get() + record.offset_delta as u64;
                found.push((offset, text(record.key.unwrap()), record.value.map(text)));
            }
            next = batch.header().next_offset();
        }
    }
    found
}

fn filled(fixture: &Fixture) -> LocalLog {
    let log = fixture.new_log();
    for round in 0..6 {
        for key in ["a", "b", "c"] {
            log.append(&keyed(&[(key, Some(&format!("{key}{round}"))), ("hot", Some("x"))]), client()).unwrap();
        }
        log.append(&keyed(&[("gone", if round < 4 { Some("y") } else { None })]), client()).unwrap();
        log.roll().unwrap();
    }
    log.append(&keyed(&[("a", Some("active"))]), client()).unwrap();
    log
}

#[test]
fn a_round_keeps_the_last_record_of_each_key_at_its_offset() {
    let fixture = Fixture::new().with(|config| config.index_interval_bytes = 0);
    let log = filled(&fixture);
    let before = pairs(&log);
    let cleaned = log.clean(&request(&log, None)).unwrap().unwrap();
    assert_eq!(cleaned.end, log.active().0);
    assert_eq!(log.sealed_segments(at(0)).unwrap().len(), 1, "six small segments become one");
    let mut last = BTreeMap::new();
    for (offset, key, value) in before.iter().filter(|(offset, _, _)| *offset < cleaned.end.get()) {
        last.insert(key.clone(), (*offset, key.clone(), value.clone()));
    }
    let mut expected: Vec<_> = last.into_values().collect();
    expected.extend(before.last().cloned());
    expected.sort();
    assert_eq!(pairs(&log), expected);
    assert!(log.clean(&request(&log, Some(cleaned.end))).unwrap().is_none(), "nothing is dirty any more");
    cleaned.removed.purge().unwrap();
    drop(log);
    let (log, _) = fixture.crashed();
    assert_eq!(pairs(&log), expected);
    for from in 0..43 {
        let wanted = expected.iter().find(|(offset, _, _)| *offset >= from).map(|(offset, _, _)| *offset);
        let got = log.read(at(from), log.end().0, 1, true).unwrap().read().unwrap();
        let header = *batches(&got).next().unwrap().unwrap().header();
        assert!(wanted.is_some_and(|wanted| header.base_offset.get() <= wanted && header.last_offset().get() >= from));
    }
}

#[test]
fn tombstones_go_when_their_time_has_passed() {
    let fixture = Fixture::new();
    let log = filled(&fixture);
    let first = log.clean(&request(&log, None)).unwrap().unwrap();
    drop(first.removed);
    assert!(pairs(&log).iter().any(|(_, key, _)| key == "gone"));
    log.append(&keyed(&[("b", Some("later"))]), client()).unwrap();
    log.roll().unwrap();
    let later = CleanRequest { now: ms(NOW + 61_000), ..request(&log, Some(first.end)) };
    let second = log.clean(&later).unwrap().unwrap();
    drop(second.removed);
    assert!(!pairs(&log).iter().any(|(_, key, _)| key == "gone"));
}

#[test]
fn tombstones_that_the_archive_has_not_heard_of_stay_whatever_their_age() {
    let fixture = Fixture::new();
    let log = filled(&fixture);
    let archived = log.sealed_segments(at(0)).unwrap()[2].base;
    let mut end = None;
    for round in 1..4 {
        let now = ms(NOW + round * 61_000);
        let cleaned = log.clean(&CleanRequest { now, unheard_from: archived, ..request(&log, end) }).unwrap().unwrap();
        drop(cleaned.removed);
        end = Some(cleaned.end);
        assert!(pairs(&log).iter().any(|(_, key, _)| key == "gone"));
        log.append(&keyed(&[("b", Some("later"))]), client()).unwrap();
        log.roll().unwrap();
    }
    let heard = CleanRequest { now: ms(NOW + 400_000), ..request(&log, end) };
    drop(log.clean(&heard).unwrap().unwrap().removed);
    assert!(!pairs(&log).iter().any(|(_, key, _)| key == "gone"));
}

#[test]
fn a_crash_at_any_rename_leaves_the_old_segments_or_the_new_one() {
    let fixture = Fixture::new();
    let log = filled(&fixture);
    log.close().unwrap();
    let before = pairs(&log);
    let copy = |from: &std::path::Path, to: &std::path::Path| {
        for entry in fs::read_dir(from).unwrap() {
            let entry = entry.unwrap();
            fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    };
    let old = tempfile::tempdir().unwrap();
    copy(fixture.path(), old.path());
    drop(log.clean(&request(&log, None)).unwrap().unwrap().removed);
    let after = pairs(&log);
    let base = "00000000000000000000";
    let finished = |suffix: &str| fs::read(fixture.path().join(format!("{base}.{suffix}"))).unwrap();
    // Renames to .swap happen in this order; before the last one nothing is decided.
    let order = ["index", "timeindex", "log"];
    for swapped in 0..=order.len() {
        let crashed = Fixture::new();
        copy(old.path(), crashed.path());
        for (place, suffix) in order.iter().enumerate() {
            let tail = if place < swapped { "swap" } else { "cleaned" };
            fs::write(crashed.path().join(format!("{base}.{suffix}.{tail}")), finished(suffix)).unwrap();
        }
        let (log, _) = crashed.crashed();
        assert_eq!(
            pairs(&log),
            if swapped < order.len() { before.clone() } else { after.clone() },
            "{swapped} renames"
        );
    }
}

#[test]
fn a_map_without_room_cleans_what_it_knows_and_goes_on_from_there() {
    let fixture = Fixture::new();
    let log = fixture.new_log();
    for index in 0..2000 {
        let key = format!("key {}", index % 1000);
        log.append(&keyed(&[(&key, Some(&format!("{index}")))]), client()).unwrap();
        if index % 100 == 99 {
            log.roll().unwrap();
        }
    }
    let mut checkpoint = None;
    let mut rounds = 0;
    while let Some(cleaned) = log.clean(&CleanRequest { memory_bytes: 0, ..request(&log, checkpoint) }).unwrap() {
        assert!(Some(cleaned.end) > checkpoint);
        checkpoint = Some(cleaned.end);
        drop(cleaned.removed);
        rounds += 1;
    }
    assert!(rounds > 1);
    let left = pairs(&log);
    assert_eq!(left.len(), 1000);
    assert!(left.iter().all(|(offset, _, value)| value.as_deref() == Some(&offset.to_string())));
}

#[test]
fn a_crash_while_the_new_files_take_their_names_loses_no_aborted_transaction() {
    let fixture = Fixture::new();
    let log = fixture.new_log();
    let (producer, epoch) = (ProducerId::from_wire(1).unwrap(), ProducerEpoch(0));
    log.append(&keyed(&[("a", Some("1"))]), client()).unwrap();
    let mut data = BatchBuilder::new(Offset::ZERO).producer(producer, epoch, Sequence::from_wire(0)).transactional();
    data.push(RecordContent { timestamp: Some(ms(NOW)), key: Some(b"t"), value: Some(b"x"), headers: &[] });
    log.append(&data.build().unwrap(), client()).unwrap();
    let abort = ControlRecord::Abort { coordinator_epoch: 0 }.batch(producer, epoch, ms(NOW));
    log.append(&abort, AppendContext { origin: AppendOrigin::Coordinator, ..client() }).unwrap();
    log.advance_high_watermark(log.end().0);
    log.append(&keyed(&[("a", Some("2"))]), client()).unwrap();
    log.roll().unwrap();
    let cleaned = log.clean(&request(&log, None)).unwrap().unwrap();
    cleaned.removed.purge().unwrap();
    let (after, aborted) = (pairs_of_data(&log), log.aborted(at(0), log.end().0).unwrap());
    assert_eq!((after.len(), aborted.len()), (1, 1), "the marker and its entry outlive the records by one round");
    log.close().unwrap();
    drop(log);
    let base = "00000000000000000000";
    let order = ["index", "timeindex", "txnindex", "log"];
    for renamed in 0..order.len() {
        let crashed = Fixture::new();
        for entry in fs::read_dir(fixture.path()).unwrap() {
            let entry = entry.unwrap();
            fs::copy(entry.path(), crashed.path().join(entry.file_name())).unwrap();
        }
        for suffix in &order[renamed..] {
            let name = crashed.path().join(format!("{base}.{suffix}"));
            fs::rename(&name, name.with_extension(format!("{suffix}.swap"))).unwrap();
        }
        let (log, _) = crashed.crashed();
        assert_eq!(pairs_of_data(&log), after, "{renamed} renames");
        assert_eq!(log.aborted(at(0), log.end().0).unwrap(), aborted, "{renamed} renames");
    }
}

/// As [`pairs`], without control records.
fn pairs_of_data(log: &LocalLog) -> Vec<(u64, String)> {
    all(log).into_iter().filter(|(_, value)| !value.starts_with('\0')).collect()
}

#[test]
fn a_reader_that_found_a_segment_before_its_exchange_reads_what_it_found() {
    let fixture = Fixture::new();
    let log = filled(&fixture);
    let (stale, before) =
        (Arc::clone(&log.view.read().sealed[0]), fs::read(fixture.path().join("00000000000000000000.log")));
    drop(log.clean(&request(&log, None)).unwrap().unwrap().removed);
    use std::os::unix::fs::FileExt;
    let mut bytes = vec![0; stale.bytes as usize];
    stale.open().unwrap().read_exact_at(&mut bytes, 0).unwrap();
    assert_eq!(bytes, before.unwrap());
}

#[test]
fn a_segment_that_has_nothing_to_lose_is_not_exchanged() {
    let fixture = Fixture::new();
    let log = fixture.new_log();
    log.append(&keyed(&[("a", Some("1")), ("b", Some("1"))]), client()).unwrap();
    log.roll().unwrap();
    let before = Arc::clone(&log.view.read().sealed[0]);
    let cleaned = log.clean(&request(&log, None)).unwrap().unwrap();
    assert_eq!((cleaned.end, cleaned.removed.segments), (at(2), 0));
    assert!(Arc::ptr_eq(&before, &log.view.read().sealed[0]));
    assert!(fs::read_dir(fixture.path()).unwrap().all(|entry| !entry.unwrap().path().ends_with("cleaned")));
}

#[test]
fn a_round_that_is_stopped_leaves_the_log_as_it_was() {
    let fixture = Fixture::new();
    let log = filled(&fixture);
    let before = pairs(&log);
    for batches in [0_i32, 3, 30] {
        let left = std::cell::Cell::new(batches);
        let pace = |_| left.replace(left.get() - 1) > 0;
        assert!(matches!(log.clean_paced(&request(&log, None), &pace), Err(CleanLogError::Stopped)));
        assert_eq!(pairs(&log), before);
    }
    assert!(log.clean(&request(&log, None)).unwrap().is_some());
}

#[test]
fn a_log_whose_cleaning_has_ended_is_never_cleaned_again() {
    let fixture = Fixture::new();
    let log = filled(&fixture);
    log.end_cleaning();
    assert!(matches!(log.clean(&request(&log, None)), Err(CleanLogError::Stopped)));
}

#[test]
fn a_batch_whose_offset_was_changed_stops_the_round_and_stays_for_somebody_to_look_at() {
    use std::os::unix::fs::FileExt;
    for base in [5, 1 << 20, 1 << 40] {
        let fixture = Fixture::new().with(|config| config.index_interval_bytes = 0);
        let log = filled(&fixture);
        log.close().unwrap();
        let end = log.end().0;
        let segments = log.sealed_segments(at(0)).unwrap();
        drop(log);
        // The first batch of the second segment: its offset lies outside of its CRC.
        let file = fs::OpenOptions::new().write(true).open(&segments[1].log_path).unwrap();
        file.write_all_at(&u64::to_be_bytes(base), 0).unwrap();
        let (log, _) = fixture.open(RecoveryStart { clean: true, recovery_point: end, log_start: at(0) });
        assert!(matches!(log.clean(&request(&log, None)), Err(CleanLogError::Corrupt(_))), "moved to {base}");
        assert_eq!(log.sealed_segments(at(0)).unwrap().len(), segments.len());
    }
}
