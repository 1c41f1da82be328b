//! Writes a partition's directory for other programs to read: every codec, both ends of a transaction, an idempotent
//! producer, several sealed segments. Kafka's own tool must agree with what it finds there:
//!
//! ```sh
//! cargo run -p varve-log --example write_partition -- /tmp/demo-0
//! kafka-dump-log.sh --deep-iteration --print-data-log --files $(ls -dm /tmp/demo-0/*.{log,index,timeindex,txnindex} | tr -d ' \n')
//! kafka-dump-log.sh --index-sanity-check --files …
//! ```

use std::{path::PathBuf, sync::Arc};

use varve_log::{
    format::{BatchBuilder, ControlRecord, RecordContent},
    local::{AppendContext, AppendOrigin, LocalLog, LogConfig, RecoveryStart},
};
use varve_metadata::{
    config::Codec,
    model::{LeaderEpoch, Offset, ProducerEpoch, ProducerId, Sequence, Timestamp},
};

/// Batches written; a transaction ends after every tenth.
const BATCHES: u32 = 400;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let dir: PathBuf = std::env::args_os().nth(1).ok_or("usage: write_partition DIRECTORY")?.into();
    let config = LogConfig { segment_bytes: 64 * 1024, index_interval_bytes: 1024, ..LogConfig::default() };
    let start = Timestamp::from_wire(1_700_000_000_000).ok_or("a time")?;
    let (log, _) = LocalLog::open(&dir, Arc::new(config), RecoveryStart::NEW, start)?;
    let producer = ProducerId::from_wire(4711).ok_or("a producer id")?;
    for index in 0..BATCHES {
        let now = Timestamp::from_wire(start.to_wire() + i64::from(index) * 250).ok_or("a time")?;
        let context = |origin| AppendContext { leader_epoch: LeaderEpoch(index / 150), now, origin };
        let codec = Codec::ALL[index as usize % Codec::ALL.len()];
        log.append(&batch(index, codec, producer, now)?, context(AppendOrigin::Client))?;
        if index % 10 == 9 {
            let marker = match index % 20 {
                9 => ControlRecord::Commit { coordinator_epoch: 1 },
                _ => ControlRecord::Abort { coordinator_epoch: 1 },
            };
            log.append(&marker.batch(producer, ProducerEpoch(0), now), context(AppendOrigin::Coordinator))?;
        }
    }
    log.close()?;
    println!(
        "{} records, {} bytes, {} sealed segments",
        log.end().0,
        log.size(),
        log.sealed_segments(Offset::ZERO)?.len()
    );
    Ok(())
}

/// Three records with headers; every second batch belongs to the producer's transaction.
fn batch(
    index: u32,
    codec: Codec,
    producer: ProducerId,
    now: Timestamp,
) -> Result<Vec<u8>, Box<dyn std::error::Error>> {
    let mut builder = BatchBuilder::new(Offset::ZERO).compression(codec, None);
    if index % 2 == 1 {
        let sequence = Sequence::from_wire((index as i32 / 2) * 3);
        builder = builder.producer(producer, ProducerEpoch(0), sequence).transactional();
    }
    for record in 0..3 {
        let (key, value) = (format!("key {index}"), format!("record {record} of batch {index} ").repeat(8));
        builder.push(RecordContent {
            timestamp: Some(now),
            key: Some(key.as_bytes()),
            value: Some(value.as_bytes()),
            headers: &[(b"host", Some(b"a")), (b"empty", None), (b"host", Some(b"b"))],
        });
    }
    Ok(builder.build()?)
}
