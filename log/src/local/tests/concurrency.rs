//! Readers beside a writer.

use std::{
    sync::{
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

use varve_metadata::model::{ProducerEpoch, ProducerId, Sequence};

use super::*;

#[test]
fn readers_see_whole_batches_in_order_while_the_log_grows_rolls_and_shrinks() {
    let fixture = Fixture::new().with(|config| (config.segment_bytes, config.index_interval_bytes) = (4000, 200));
    let log = fixture.new_log();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        for reader in 0..3_u32 {
            let (log, done) = (&log, &done);
            scope.spawn(move || {
                let mut next = Offset::ZERO;
                while !done.load(Ordering::Acquire) || next < log.end().0 {
                    let bytes = match log.read(next, log.end().0, 100 + reader * 900, true) {
                        Ok(slice) => slice.read().unwrap(),
                        Err(ReadError::OutOfRange { local_start, .. }) => {
                            assert!(next < local_start, "only deleted offsets are out of range");
                            next = local_start;
                            continue;
                        }
                        Err(error) => panic!("{error:?}"),
                    };
                    for batch in batches(&bytes) {
                        let mut found = Vec::new();
                        collect(&batch.unwrap(), &mut found);
                        found.retain(|(offset, _)| *offset >= next.get());
                        for (offset, value) in found {
                            assert_eq!((offset, value), (next.get(), format!("value {}", next)));
                            next = next.plus(1);
                        }
                    }
                }
            });
        }
        let mut index = 0;
        while index < 3000 {
            let values: Vec<_> = (index..index + 1 + index % 3).map(|index| format!("value {index}")).collect();
            let refs: Vec<&str> = values.iter().map(String::as_str).collect();
            let appended = log.append(&batch(&refs), client()).unwrap();
            index += refs.len() as u64;
            if appended.sealed_below.is_some() && index % 5 == 0 {
                log.delete_local_below(at(index.saturating_sub(400))).unwrap().purge().unwrap();
            }
        }
        done.store(true, Ordering::Release);
    });
    assert_eq!(log.end().0.get(), all(&log).last().unwrap().0 + 1);
}

/// Transactions of 200 producers that begin in one append, so that it takes a while.
fn beginnings() -> Vec<u8> {
    let first_batch = |producer| {
        let producer = ProducerId::from_wire(producer).unwrap();
        let builder = BatchBuilder::new(Offset::ZERO).producer(producer, ProducerEpoch(0), Sequence::from_wire(0));
        let mut builder = builder.transactional();
        builder.push(RecordContent { timestamp: Some(ms(NOW)), value: Some(b"v"), ..Default::default() });
        builder.build().unwrap()
    };
    (0..200).flat_map(first_batch).collect()
}

#[test]
fn nobody_sees_the_records_of_a_transaction_before_it_holds_readers_back() {
    let (before, beginnings) = (at(3), beginnings());
    for _ in 0..200 {
        let fixture = Fixture::new();
        let log = fixture.new_log();
        log.append(&batch(&["a", "b", "c"]), client()).unwrap();
        thread::scope(|scope| {
            let reader = scope.spawn(|| {
                loop {
                    // In the order of a flush and a reader after it: the end becomes the high watermark, then comes the bound.
                    let end = log.end().0;
                    let unstable = log.first_unstable();
                    assert!(end <= before || unstable == Some(before), "{end} is seen, {unstable:?} is the bound");
                    if end > before {
                        break;
                    }
                }
            });
            log.append(&beginnings, client()).unwrap();
            reader.join().unwrap();
        });
    }
}

#[test]
fn a_log_is_not_cut_in_the_middle_of_a_flush() {
    let cuts: [fn(&LocalLog); 2] = [
        |log| log.truncate_to(at(3), ms(NOW)).unwrap().purge().unwrap(),
        |log| log.truncate_fully(at(3), at(3)).unwrap().purge().unwrap(),
    ];
    for cut in cuts {
        let fixture = Fixture::new();
        let log = fixture.new_log();
        for _ in 0..10 {
            log.append(&batch(&["v"]), client()).unwrap();
        }
        let (done, is_done) = mpsc::channel();
        thread::scope(|scope| {
            // What a flush does: it looks how far the log goes, and says so once that is on the disk.
            let flush = log.flushing.lock();
            let end = log.end().0;
            scope.spawn(|| {
                cut(&log);
                done.send(()).unwrap();
            });
            let waited = is_done.recv_timeout(Duration::from_millis(200));
            assert_eq!(waited, Err(mpsc::RecvTimeoutError::Timeout), "it waits for the flush");
            log.recovery_point.fetch_max(end.get(), Ordering::AcqRel);
            drop(flush);
        });
        assert_eq!((log.end().0, log.recovery_point()), (at(3), at(3)));
    }
}
