//! What manifests come to: bytes to publish, and bytes to read in order to find an offset, for partitions of growing archives.
//!
//! `cargo run -p varve-tiering --example manifests -- OBJECTS…` (default: 40, 400, 4 000 and 40 000). Objects stand for 256 MiB of
//! log each, as the compactor makes them unless `varve.compactor.object.bytes` says otherwise.

use std::error::Error;

use uuid::Uuid;
use varve_metadata::model::{LeaderEpoch, Offset, PartitionId, PartitionIndex, Timestamp, TopicId, TopicName};
use varve_tiering::manifest::{Limits, Manifest, ObjectId, ObjectKind, RemoteObject};

/// Of log, and records of 1 kB.
const OBJECT_BYTES: u64 = 256 << 20;
const RECORDS: u64 = OBJECT_BYTES / 1000;
/// Of the first object; 2023.
const BEGAN_MS: i64 = 1_700_000_000_000;

fn main() -> Result<(), Box<dyn Error>> {
    let asked: Vec<u64> = std::env::args().skip(1).map(|argument| argument.parse()).collect::<Result<_, _>>()?;
    let asked = if asked.is_empty() { vec![40, 400, 4_000, 40_000] } else { asked };
    for objects in asked {
        let (manifest, leaves) = archived(objects)?;
        let largest = leaves.iter().max().copied().unwrap_or_default();
        println!(
            "{objects} objects, {:.1} GB of log: {} bytes to publish, {} leaves of {largest} bytes at most, {} bytes in all",
            (objects * OBJECT_BYTES) as f64 / 1e9,
            manifest,
            leaves.len(),
            manifest + leaves.iter().sum::<usize>(),
        );
    }
    Ok(())
}

/// The bytes of the newest manifest, and of its leaves.
fn archived(objects: u64) -> Result<(usize, Vec<usize>), Box<dyn Error>> {
    let partition = PartitionId { topic: TopicId::random(), index: PartitionIndex(3) };
    let topic = TopicName::parse("orders.of.some.length").map_err(|_| "a topic's name")?;
    let mut manifest = Manifest::new(partition, topic);
    let mut leaves = Vec::new();
    let offset = |number: u64| Offset::new(number * RECORDS).ok_or("an offset");
    for number in 0..objects {
        // A leader for every ten objects.
        let epoch = LeaderEpoch(u32::try_from(number / 10)?);
        if number % 10 == 0 {
            manifest = manifest.claimed_by(epoch)?;
        }
        let object = RemoteObject {
            id: ObjectId::random(),
            kind: ObjectKind::Parquet,
            base: offset(number)?,
            end: offset(number + 1)?,
            bytes: OBJECT_BYTES / 2 + number % 1000,
            log_bytes: OBJECT_BYTES,
            records: RECORDS,
            max_timestamp: Timestamp::from_wire(BEGAN_MS + i64::try_from(number)? * 60_000),
            writer_epoch: epoch,
            leader_epochs: vec![(epoch, offset(number)?)],
            crc32c: 0xdead_beef,
            shared_at: None,
        };
        let (packed, moved) = manifest.with(epoch, object)?.pack(Limits::default(), Uuid::new_v4);
        leaves.extend(moved.iter().map(|(_, leaf)| leaf.encode().len()));
        manifest = packed;
    }
    Ok((manifest.encode().len(), leaves))
}
