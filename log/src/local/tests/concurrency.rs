//! Readers beside a writer.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

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
