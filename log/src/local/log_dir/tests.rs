use std::os::unix::fs::MetadataExt;

use super::*;
use crate::local::ownership::META_PROPERTIES;
use crate::local::tests::{all, at, batch, client, ms, values};

fn owner() -> LogDirOwner {
    LogDirOwner { cluster_id: "abc".into(), node: BrokerId(3) }
}

fn topic(name: &str) -> TopicName {
    TopicName::parse(name).unwrap()
}

fn open_log(dir: &LogDir, name: &str, id: TopicId) -> (LocalLog, Recovered) {
    dir.open_log(&topic(name), id, PartitionIndex(0), Arc::default(), ms(1)).unwrap()
}

#[test]
fn a_directory_belongs_to_one_broker_of_one_cluster_and_one_process() {
    let at = tempfile::tempdir().unwrap();
    let dir = LogDir::open(at.path(), &owner()).unwrap();
    assert!(dir.was_new());
    assert!(matches!(LogDir::open(at.path(), &owner()), Err(LogDirError::Locked(_))));
    let id = dir.directory_id().to_owned();
    drop(dir);
    let text = fs::read_to_string(at.path().join(META_PROPERTIES)).unwrap();
    assert_eq!(text, format!("#\ncluster.id=abc\ndirectory.id={id}\nnode.id=3\nversion=1\n"));
    for stranger in [LogDirOwner { cluster_id: "x".into(), ..owner() }, LogDirOwner { node: BrokerId(4), ..owner() }] {
        assert!(matches!(LogDir::open(at.path(), &stranger), Err(LogDirError::Foreign { .. })));
    }
    let dir = LogDir::open(at.path(), &owner()).unwrap();
    assert_eq!((dir.directory_id(), dir.was_new()), (id.as_str(), false));
}

#[test]
fn a_clean_shutdown_saves_the_next_start_from_reading() {
    let at_path = tempfile::tempdir().unwrap();
    let (dir, id) = (LogDir::open(at_path.path(), &owner()).unwrap(), TopicId::random());
    assert!(!dir.was_clean());
    let (log, _) = open_log(&dir, "web.clicks-2", id);
    log.append(&batch(&["a", "b"]), client()).unwrap();
    log.close().unwrap();
    let name = topic("web.clicks-2");
    dir.set_cleaned_below(&name, PartitionIndex(0), Some(at(1))).unwrap();
    dir.mark_clean(&[Checkpointed { topic: &name, index: PartitionIndex(0), log: &log, high_watermark: at(2) }])
        .unwrap();
    drop((dir, log));
    let text = fs::read_to_string(at_path.path().join(RECOVERY_POINTS)).unwrap();
    assert_eq!(text, "0\n1\nweb.clicks-2 0 2\n");
    let dir = LogDir::open(at_path.path(), &owner()).unwrap();
    assert!(dir.was_clean());
    let partitions = dir.partitions().unwrap();
    assert_eq!((&partitions[0].topic, partitions[0].topic_id), (&name, Some(id)));
    assert_eq!(dir.high_watermark(&name, PartitionIndex(0)), Some(at(2)));
    assert_eq!(dir.cleaned_below(&name, PartitionIndex(0)), Some(at(1)));
    let (log, recovered) = open_log(&dir, "web.clicks-2", id);
    assert_eq!((all(&log), recovered), (values(&[(0, "a"), (1, "b")]), Recovered::default()));
    drop((dir, log));
    let dir = LogDir::open(at_path.path(), &owner()).unwrap();
    assert!(!dir.was_clean(), "the mark is good for one start");
    assert_eq!(open_log(&dir, "web.clicks-2", id).1.segments_checked, 1);
}

#[test]
fn a_topic_made_again_under_its_name_starts_empty() {
    let at_path = tempfile::tempdir().unwrap();
    let dir = LogDir::open(at_path.path(), &owner()).unwrap();
    let (log, _) = open_log(&dir, "a", TopicId::random());
    log.append(&batch(&["old"]), client()).unwrap();
    let name = topic("a");
    dir.checkpoint(&[Checkpointed { topic: &name, index: PartitionIndex(0), log: &log, high_watermark: at(1) }])
        .unwrap();
    let (log, _) = open_log(&dir, "a", TopicId::random());
    assert_eq!(log.end().0, at(0));
    let aside = dir.delete_log(&name, PartitionIndex(0)).unwrap();
    assert!(aside.is_dir() && dir.partitions().unwrap().is_empty());
    drop(dir);
    LogDir::open(at_path.path(), &owner()).unwrap();
    assert!(!aside.exists(), "a deletion that a crash interrupts is finished at the next start");
}

#[test]
fn logs_that_are_deleted_together_leave_the_checkpoints_together_and_no_other_does() {
    let at_path = tempfile::tempdir().unwrap();
    let (name, id) = (topic("a"), TopicId::random());
    let dir = LogDir::open(at_path.path(), &owner()).unwrap();
    let logs: Vec<LocalLog> = (0..3)
        .map(|index| {
            let (log, _) = dir.open_log(&name, id, PartitionIndex(index), Arc::default(), ms(1)).unwrap();
            log.append(&batch(&["x", "y"]), client()).unwrap();
            log.advance_log_start(at(1)).unwrap();
            log.flush(at(2)).unwrap();
            dir.set_cleaned_below(&name, PartitionIndex(index), Some(at(1))).unwrap();
            log
        })
        .collect();
    let of = |(log, index)| Checkpointed { topic: &name, index: PartitionIndex(index), log, high_watermark: at(2) };
    dir.checkpoint(&logs.iter().zip(0..).map(of).collect::<Vec<_>>()).unwrap();
    logs.iter().for_each(LocalLog::end_cleaning);
    let gone = [PartitionIndex(0), PartitionIndex(7), PartitionIndex(2)];
    let renamed = dir.delete_logs(&name, &gone);
    assert!(matches!(renamed.as_slice(), [Ok(_), Err(_), Ok(_)]), "{renamed:?}");
    assert!(renamed.iter().flatten().all(|aside| aside.is_dir()));
    assert_eq!(dir.partitions().unwrap().len(), 1);
    for file in [LOG_STARTS, RECOVERY_POINTS, CLEANED_BELOW] {
        let text = fs::read_to_string(at_path.path().join(file)).unwrap();
        let named: Vec<&str> = text.lines().filter(|line| line.starts_with("a ")).collect();
        assert!(matches!(named.as_slice(), [one] if one.starts_with("a 1 ")), "{file}: {text}");
    }
}

#[test]
fn a_log_made_again_owes_nothing_to_the_checkpoints_of_its_name() {
    let at_path = tempfile::tempdir().unwrap();
    let name = topic("a");
    let (first, second, third) = (TopicId::random(), TopicId::random(), TopicId::random());
    let dir = LogDir::open(at_path.path(), &owner()).unwrap();
    let (log, _) = open_log(&dir, "a", first);
    log.append(&batch(&["x", "y"]), client()).unwrap();
    log.advance_log_start(at(2)).unwrap();
    log.flush(at(2)).unwrap();
    let of = |log| Checkpointed { topic: &name, index: PartitionIndex(0), log, high_watermark: at(2) };
    dir.checkpoint(&[of(&log)]).unwrap();
    let stale = fs::read_to_string(at_path.path().join(LOG_STARTS)).unwrap();
    log.end_cleaning();
    dir.delete_log(&name, PartitionIndex(0)).unwrap();
    let (again, _) = open_log(&dir, "a", second);
    again.append(&batch(&["new"]), client()).unwrap();
    // A checkpoint that was under way when the topic was deleted.
    dir.checkpoint(&[of(&log)]).unwrap();
    drop((dir, log, again));
    let dir = LogDir::open(at_path.path(), &owner()).unwrap();
    let (again, _) = open_log(&dir, "a", second);
    assert_eq!((again.start().0, all(&again)), (at(0), values(&[(0, "new")])), "deleted, made again, killed");
    drop((dir, again));
    // Killed between the deletion and what it writes: the checkpoint still speaks of the first.
    fs::remove_dir_all(at_path.path().join("a-0")).unwrap();
    fs::write(at_path.path().join(LOG_STARTS), stale).unwrap();
    let dir = LogDir::open(at_path.path(), &owner()).unwrap();
    open_log(&dir, "a", third).0.append(&batch(&["newer"]), client()).unwrap();
    drop(dir);
    let dir = LogDir::open(at_path.path(), &owner()).unwrap();
    let (again, _) = open_log(&dir, "a", third);
    assert_eq!((again.start().0, all(&again)), (at(0), values(&[(0, "newer")])));
}

#[test]
fn a_log_that_was_offline_keeps_its_start_and_is_checked_when_it_comes_back() {
    let at_path = tempfile::tempdir().unwrap();
    let (a, b) = (TopicId::random(), TopicId::random());
    let (name_a, name_b) = (topic("a"), topic("b"));
    let of = |log, topic| Checkpointed { topic, index: PartitionIndex(0), log, high_watermark: at(1) };
    let dir = LogDir::open(at_path.path(), &owner()).unwrap();
    let (log_a, log_b) = (open_log(&dir, "a", a).0, open_log(&dir, "b", b).0);
    for log in [&log_a, &log_b] {
        log.append(&batch(&["x", "y"]), client()).unwrap();
        log.advance_log_start(at(1)).unwrap();
        log.close().unwrap();
    }
    dir.checkpoint(&[of(&log_a, &name_a), of(&log_b, &name_b)]).unwrap();
    dir.mark_clean(&[of(&log_a, &name_a)]).unwrap();
    drop((dir, log_a, log_b));
    let dir = LogDir::open(at_path.path(), &owner()).unwrap();
    let checked = |name, id| {
        let (log, recovered) = open_log(&dir, name, id);
        (log.start().0, recovered.segments_checked)
    };
    assert_eq!(checked("b", b), (at(1), 1), "the mark does not speak for it");
    assert_eq!(checked("a", a), (at(1), 0));
    assert_eq!(checked("a", a), (at(1), 1), "the mark is good for one open");
}

#[test]
fn only_names_of_partitions_are_partitions() {
    for (name, parsed) in [("a-0", true), ("a-b-12", true), ("a", false), ("a-", false), ("-0", false), ("a-+1", false)]
    {
        assert_eq!(parse_partition(name).is_some(), parsed, "{name}");
    }
    assert_eq!(parse_partition("a-0.0123456789abcdef0123456789abcdef-delete"), None);
    let long = topic(&"x".repeat(249));
    let at_path = tempfile::tempdir().unwrap();
    let dir = LogDir::open(at_path.path(), &owner()).unwrap();
    fs::create_dir(dir.partition_path(&long, PartitionIndex(7))).unwrap();
    let aside = dir.delete_log(&long, PartitionIndex(7)).unwrap();
    assert_eq!(aside.file_name().unwrap().len(), 255);
}

#[test]
fn records_whose_deletion_was_saved_do_not_come_back_after_a_crash() {
    let at_path = tempfile::tempdir().unwrap();
    let dir = LogDir::open(at_path.path(), &owner()).unwrap();
    let ids = [TopicId::random(), TopicId::random()];
    let ((a, _), (b, _)) = (open_log(&dir, "a", ids[0]), open_log(&dir, "b", ids[1]));
    for log in [&a, &b] {
        log.append(&batch(&["x", "y"]), client()).unwrap();
    }
    let (name, other) = (topic("a"), topic("b"));
    b.advance_log_start(at(1)).unwrap();
    dir.checkpoint(&[Checkpointed { topic: &other, index: PartitionIndex(0), log: &b, high_watermark: at(2) }])
        .unwrap();
    a.advance_log_start(at(2)).unwrap();
    dir.save_log_starts(&[(&name, PartitionIndex(0), &a)]).unwrap();
    drop((dir, a, b));
    let dir = LogDir::open(at_path.path(), &owner()).unwrap();
    let starts = ["a", "b"].map(|name| open_log(&dir, name, ids[usize::from(name == "b")]).0.start().0);
    assert_eq!(starts, [at(2), at(1)]);
}

#[test]
fn a_checkpoint_that_says_nothing_new_is_not_written() {
    let at_path = tempfile::tempdir().unwrap();
    let dir = LogDir::open(at_path.path(), &owner()).unwrap();
    let (log, _) = open_log(&dir, "a", TopicId::random());
    log.append(&batch(&["x"]), client()).unwrap();
    let name = topic("a");
    let checkpoint = |high_watermark| {
        let log = Checkpointed { topic: &name, index: PartitionIndex(0), log: &log, high_watermark };
        dir.checkpoint(&[log]).unwrap();
        [LOG_STARTS, RECOVERY_POINTS, HIGH_WATERMARKS]
            .map(|file| fs::metadata(at_path.path().join(file)).unwrap().ino())
    };
    let first = checkpoint(at(0));
    assert_eq!(checkpoint(at(0)), first);
    let moved = checkpoint(at(1));
    assert_eq!(moved[..2], first[..2]);
    assert_ne!(moved[2], first[2], "each file that is written is a new one");
}

#[test]
fn what_is_appended_to_a_log_that_was_cut_is_checked_after_a_crash() {
    let at_path = tempfile::tempdir().unwrap();
    let dir = LogDir::open(at_path.path(), &owner()).unwrap();
    let (id, name) = (TopicId::random(), topic("a"));
    let (log, _) = open_log(&dir, "a", id);
    for value in ["w", "x", "y", "z"] {
        log.append(&batch(&[value]), client()).unwrap();
        log.roll().unwrap();
    }
    log.flush(at(4)).unwrap();
    dir.checkpoint(&[Checkpointed { topic: &name, index: PartitionIndex(0), log: &log, high_watermark: at(4) }])
        .unwrap();
    log.truncate_to(at(1), ms(1)).unwrap().purge().unwrap();
    dir.save_recovery_points(&[(&name, PartitionIndex(0), &log)]).unwrap();
    for value in ["1", "2", "3"] {
        log.append(&batch(&[value]), client()).unwrap();
        log.roll().unwrap();
    }
    drop((dir, log));
    let dir = LogDir::open(at_path.path(), &owner()).unwrap();
    let (log, recovered) = open_log(&dir, "a", id);
    assert_eq!(log.end().0, at(4));
    assert!(recovered.segments_checked >= 3, "{recovered:?}");
}

#[test]
fn a_copy_whose_new_name_does_not_reach_the_disk_has_its_old_one_again() {
    let at_path = tempfile::tempdir().unwrap();
    let dir = LogDir::open(at_path.path(), &owner()).unwrap();
    let (name, index) = (topic("a"), PartitionIndex(0));
    let future = dir.future_path(&name, index).unwrap();
    fs::create_dir(&future).unwrap();
    let failed = dir.promote_and(&future, &name, index, (at(0), at(0)), |_| Err(io::Error::other("the disk")));
    assert!(failed.is_err() && future.is_dir());
    assert_eq!(dir.find(&name, index), None, "the log that counts is where it was");
    dir.promote(&future, &name, index, (at(0), at(0))).unwrap();
    assert!(!future.is_dir() && dir.find(&name, index).is_some());
}
