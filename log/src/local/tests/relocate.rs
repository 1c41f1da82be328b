//! A log moves to another directory while it is used.

use std::{
    fs, io,
    path::PathBuf,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::UNIX_EPOCH,
};

use varve_metadata::model::{BrokerId, PartitionIndex, TopicId, TopicName};

use super::*;

const INDEX: PartitionIndex = PartitionIndex(0);

/// Two log directories of one node, with a log in the first.
struct House {
    _root: tempfile::TempDir,
    paths: [PathBuf; 2],
    topic: TopicName,
    id: TopicId,
    config: Arc<LogConfig>,
}

impl House {
    fn new() -> House {
        let root = tempfile::tempdir().unwrap();
        let paths = [root.path().join("a"), root.path().join("b")];
        let config = LogConfig { segment_bytes: 16_000, index_interval_bytes: 200, ..LogConfig::default() };
        House {
            _root: root,
            paths,
            topic: TopicName::parse("logs").unwrap(),
            id: TopicId::random(),
            config: Arc::new(config),
        }
    }

    fn dirs(&self) -> [LogDir; 2] {
        let owner = LogDirOwner { cluster_id: "c".into(), node: BrokerId(1) };
        [0, 1].map(|place: usize| LogDir::open(&self.paths[place], &owner).unwrap())
    }

    fn open(&self, dir: &LogDir) -> LocalLog {
        dir.open_log(&self.topic, self.id, INDEX, Arc::clone(&self.config), ms(NOW)).unwrap().0
    }

    fn future(&self, dir: &LogDir) -> FutureLog {
        FutureLog::create(&dir.future_path(&self.topic, INDEX).unwrap(), self.id).unwrap()
    }

    /// Moves `log` to `to`, all of it.
    fn relocate(&self, log: &LocalLog, to: &LogDir) {
        log.pause_cleaning();
        let mut future = self.future(to);
        for _ in 0..3 {
            log.copy_to(&mut future, &|_| true).unwrap();
        }
        let promote = |copy: &Path, start: varve_metadata::model::LogStartOffset, end| {
            to.promote(copy, &self.topic, INDEX, (start.0, end))
        };
        log.relocate(future, ms(NOW), promote).unwrap();
        log.resume_cleaning();
    }
}

fn append(log: &LocalLog, numbers: std::ops::Range<u64>) {
    for number in numbers {
        log.append(&batch(&[&format!("value {number}")]), client()).unwrap();
    }
}

fn expected(numbers: std::ops::Range<u64>) -> Vec<(u64, String)> {
    numbers.map(|number| (number, format!("value {number}"))).collect()
}

#[test]
fn a_log_moves_under_load_without_loss_and_is_found_where_it_went() {
    let house = House::new();
    let [a, b] = house.dirs();
    let log = house.open(&a);
    append(&log, 0..500);
    let (done, appended) = (AtomicBool::new(false), AtomicU64::new(500));
    thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Acquire) {
                let next = appended.load(Ordering::Acquire);
                if next < 3000 {
                    append(&log, next..next + 1);
                    appended.store(next + 1, Ordering::Release);
                }
            }
        });
        scope.spawn(|| {
            // A reader that starts over and over meets files of both places.
            while !done.load(Ordering::Acquire) {
                let found = all(&log);
                let first = found.first().map_or(0, |(offset, _)| *offset);
                assert_eq!(found, expected(first..first + found.len() as u64));
            }
        });
        for round in 0..6 {
            house.relocate(&log, if round % 2 == 0 { &b } else { &a });
            // What was left behind goes, as whoever moves a log has to see to.
            let left = if round % 2 == 0 { &a } else { &b };
            fs::remove_dir_all(left.delete_log(&house.topic, INDEX).unwrap()).unwrap();
            log.delete_local_below(at(60 * round)).unwrap().purge().unwrap();
        }
        done.store(true, Ordering::Release);
    });
    let end = appended.load(Ordering::Acquire);
    assert_eq!(log.end().0, at(end));
    assert!(log.dir().starts_with(&house.paths[0]), "six moves end where they began");
    let first = log.local_start().get();
    assert_eq!(all(&log), expected(first..end));
    // A crash right behind it: everything that was moved is on disk, and nothing needs to be cut.
    drop((log, a, b));
    let [a, b] = house.dirs();
    assert_eq!(b.partitions().unwrap(), []);
    let log = house.open(&a);
    assert_eq!(all(&log), expected(first..end));
}

#[test]
fn log_start_producers_and_epochs_move_along() {
    let house = House::new();
    let [a, b] = house.dirs();
    let log = house.open(&a);
    append(&log, 0..200);
    log.append(&batch(&["epoch 3"]), in_epoch(3)).unwrap();
    log.advance_log_start(at(150)).unwrap();
    house.relocate(&log, &b);
    fs::remove_dir_all(a.delete_log(&house.topic, INDEX).unwrap()).unwrap();
    assert_eq!((log.start().0, log.end().0), (at(150), at(201)));
    assert_eq!(log.leader_epochs(), [(LeaderEpoch(0), at(150)), (LeaderEpoch(3), at(200))]);
    drop((log, a, b));
    let [_a, b] = house.dirs();
    let log = house.open(&b);
    assert_eq!((log.start().0, log.end().0), (at(150), at(201)), "records below 150 do not come back");
    assert_eq!(log.leader_epochs(), [(LeaderEpoch(0), at(150)), (LeaderEpoch(3), at(200))]);
}

#[test]
fn a_log_moves_though_a_segment_of_it_is_empty() {
    for (before, after) in [(0, 0), (3, 0), (3, 2)] {
        let house = House::new();
        let [a, b] = house.dirs();
        let log = house.open(&a);
        append(&log, 0..before);
        log.roll().unwrap();
        house.relocate(&log, &b);
        append(&log, before..before + after);
        assert!(log.dir().starts_with(&house.paths[1]));
        assert_eq!(all(&log), expected(0..before + after));
    }
}

#[test]
fn snapshots_that_are_there_are_not_copied_again_while_appends_wait() {
    let house = House::new();
    let [a, b] = house.dirs();
    let log = house.open(&a);
    append(&log, 0..3);
    log.roll().unwrap();
    append(&log, 3..5);
    log.roll().unwrap();
    let mut future = house.future(&b);
    log.copy_to(&mut future, &|_| true).unwrap();
    let copied = future.dir().join(format!("{:020}.snapshot", 3));
    fs::File::options().write(true).open(copied).unwrap().set_modified(UNIX_EPOCH).unwrap();
    log.relocate(future, ms(NOW), |copy, start, end| b.promote(copy, &house.topic, INDEX, (start.0, end))).unwrap();
    let snapshot = |number: u64| fs::metadata(log.dir().join(format!("{number:020}.snapshot"))).unwrap();
    assert_eq!(snapshot(3).modified().unwrap(), UNIX_EPOCH);
    assert!(snapshot(5).len() > 0, "the one of the end, which is taken last");
}

#[test]
fn aborted_transactions_that_were_looked_for_in_the_middle_of_a_move_are_looked_for_again() {
    let house = House::new();
    let [a, b] = house.dirs();
    let log = house.open(&a);
    transactions::write_transactions(&log);
    let mut looks = 0;
    let found = log.of_one_state(|log| {
        looks += 1;
        if looks > 1 {
            return log.aborted(at(0), log.end().0);
        }
        house.relocate(log, &b);
        // As if the index had gone from the old place since the look at what there is.
        Ok(Vec::new())
    });
    assert_eq!((found.unwrap().len(), looks), (1, 2));
}

#[test]
fn a_move_that_fails_leaves_the_log_where_it_was_and_in_use() {
    let house = House::new();
    let [a, b] = house.dirs();
    let log = house.open(&a);
    append(&log, 0..100);
    let mut future = house.future(&b);
    let ended = log.copy_to(&mut future, &|_| false);
    assert!(matches!(ended, Err(RelocateError::Ended)));
    log.copy_to(&mut future, &|_| true).unwrap();
    let failed = log.relocate(future, ms(NOW), |_, _, _| Err(io::Error::other("no room")));
    assert!(matches!(failed, Err(RelocateError::Storage(_))), "{failed:?}");
    append(&log, 100..120);
    assert_eq!(all(&log), expected(0..120));
    assert!(log.dir().starts_with(&house.paths[0]));
    // The process ends here: the copy goes, and it is known whose it was.
    drop((log, a, b));
    let [a, b] = house.dirs();
    assert_eq!(b.take_interrupted(), [(house.topic.clone(), INDEX)]);
    assert_eq!(b.take_interrupted(), []);
    assert_eq!(
        fs::read_dir(&house.paths[1]).unwrap().filter(|entry| entry.as_ref().unwrap().path().is_dir()).count(),
        0
    );
    assert_eq!(all(&house.open(&a)), expected(0..120));
}

#[test]
fn where_a_log_went_is_written_down_until_it_is_taken_back() {
    let house = House::new();
    let [a, b] = house.dirs();
    drop(house.open(&a));
    let moved_to = || a.find(&house.topic, INDEX).unwrap().moved_to;
    assert_eq!(moved_to(), None);
    a.mark_moved(&house.topic, INDEX, Some(&b)).unwrap();
    assert_eq!(moved_to().as_deref(), Some(b.directory_id()));
    assert_eq!(a.partitions().unwrap()[0].moved_to.as_deref(), Some(b.directory_id()));
    a.mark_moved(&house.topic, INDEX, None).unwrap();
    assert_eq!(moved_to(), None);
    // A kill in the middle must not leave one that names nobody: whoever has the old file open sees all of the old text.
    a.mark_moved(&house.topic, INDEX, Some(&b)).unwrap();
    let before = fs::File::open(a.partition_path(&house.topic, INDEX).join("moved-to")).unwrap();
    a.mark_moved(&house.topic, INDEX, Some(&a)).unwrap();
    assert_eq!(io::read_to_string(before).unwrap().trim(), b.directory_id());
    assert_eq!(moved_to().as_deref(), Some(a.directory_id()));
}

#[test]
fn a_copy_of_a_log_that_was_cut_meanwhile_is_begun_anew() {
    let cuts: [fn(&LocalLog); 2] = [
        |log| log.truncate_to(at(40), ms(NOW)).unwrap().purge().unwrap(),
        |log| log.truncate_fully(at(40), at(40)).unwrap().purge().unwrap(),
    ];
    for (cut, sealed) in cuts.into_iter().flat_map(|cut| [(cut, false), (cut, true)]) {
        let house = House::new();
        let [a, b] = house.dirs();
        let log = house.open(&a);
        append(&log, 0..100);
        if sealed {
            log.roll().unwrap();
        }
        let mut future = house.future(&b);
        let copy = future.dir().to_owned();
        log.copy_to(&mut future, &|_| true).unwrap();
        cut(&log);
        // As many records as before, of the same sizes: only their contents tell that they are others.
        for number in 40..100 {
            log.append(&batch(&[&format!("other {number}")]), in_epoch(1)).unwrap();
        }
        let before = all(&log);
        let promote = |_: &Path, _, _| -> io::Result<PathBuf> { panic!("the copy is of another log") };
        assert!(matches!(log.relocate(future, ms(NOW), promote), Err(RelocateError::Cut)));
        append(&log, 100..101);
        fs::remove_dir_all(copy).unwrap();
        house.relocate(&log, &b);
        assert_eq!(all(&log)[..before.len()], before);
        assert_eq!(log.end().0, at(101));
    }
}
