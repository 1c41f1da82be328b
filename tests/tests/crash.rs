//! `kill -9` at any moment, hundreds of times: nothing acknowledged is lost, nothing comes twice, offsets never change,
//! and what a crash leaves behind in the bucket is swept.
//!
//! Settings are so eager that every round appends, rolls, uploads, publishes, turns into Parquet, merges, compacts,
//! expires and deletes, and in some a topic is deleted and made anew; the moment of the kill is random. That all of this
//! did happen is read from the bucket and the disk at the end. `VARVE_CRASH_ROUNDS` and `VARVE_CRASH_SEED` change the loop.

use std::{
    collections::BTreeMap,
    fs,
    net::SocketAddr,
    path::Path,
    sync::mpsc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use serde_json::Value;
use uuid::Uuid;
use varve_log::format::{BatchBuilder, RecordBatchView, RecordContent, records};
use varve_metadata::{
    config::Codec,
    model::{Offset, ProducerEpoch, ProducerId, Sequence, Timestamp},
};
use varve_tests::{
    asked::Asked,
    client::{Client, FetchSpec, Refusal},
    node::{Node, until},
    workload::Random,
};

const EAGER: [&str; 7] = [
    "log.retention.check.interval.ms=50",
    "log.cleaner.backoff.ms=50",
    "varve.compactor.interval.ms=50",
    "varve.archive.grace.ms=12000",
    // Small objects are rewritten well within the grace period, even by an unoptimised build on a busy machine.
    "varve.compactor.object.bytes=1048576",
    "varve.archive.lag.ms=100",
    "log.segment.delete.delay.ms=0",
];

const KEPT: &[(&str, &str)] =
    &[("internal.segment.bytes", "20000"), ("local.retention.bytes", "30000"), ("retention.ms", "-1")];

/// The topic that is deleted and made anew, its settings as [`KEPT`], and how often.
const REMADE: &str = "remade";
const ROUNDS_OF_A_TOPIC: u64 = 10;
/// From this many rounds on everything has happened between the kills that is to happen.
const ENOUGH_ROUNDS: u64 = 100;

/// Topic and its settings.
const TOPICS: [(&str, &[(&str, &str)]); 4] = [
    ("kept", KEPT),
    (REMADE, KEPT),
    (
        "expiring",
        &[
            ("internal.segment.bytes", "20000"),
            ("local.retention.bytes", "30000"),
            ("retention.ms", "-1"),
            ("retention.bytes", "200000"),
        ],
    ),
    (
        "compacted",
        &[
            ("cleanup.policy", "compact"),
            ("internal.segment.bytes", "20000"),
            ("min.cleanable.dirty.ratio", "0.1"),
            ("local.retention.bytes", "30000"),
            ("retention.ms", "-1"),
        ],
    ),
];

fn setting(name: &str, default: u64) -> Result<u64> {
    std::env::var(name).map_or(Ok(default), |text| text.parse().with_context(|| format!("{name}={text}")))
}

/// One idempotent producer on one topic: record `n` has value `n`, key `n % 50`; a batch that was not acknowledged is
/// sent again, the same, until it is.
struct Writer {
    topic: &'static str,
    identity: (ProducerId, ProducerEpoch),
    acknowledged: u64,
    /// Offsets of the first record of each acknowledged batch.
    offsets: BTreeMap<u64, i64>,
    /// Of the topic that all of this is about, and how many of that name there were before.
    id: Option<Uuid>,
    deleted: usize,
}

const BATCH_RECORDS: u64 = 20;

impl Writer {
    /// Sends batches until the connection breaks.
    fn run_until_killed(&mut self, address: SocketAddr) -> Result<()> {
        let Ok(mut client) = Client::connect(address) else { return Ok(()) };
        loop {
            let batch = self.next_batch()?;
            match client.produce(self.topic, 0, batch) {
                Ok(offset) => {
                    self.offsets.insert(self.acknowledged, offset);
                    self.acknowledged += BATCH_RECORDS;
                }
                // A broker that answers with an error has not died: that is a failure of the test.
                Err(error) if error.to_string().starts_with("Produce: error") => return Err(error),
                Err(_) => return Ok(()),
            }
        }
    }

    /// Deletes the topic, makes it anew and sends batches, until the connection breaks.
    fn remake_until_killed(&mut self, address: SocketAddr) -> Result<()> {
        let remade = Client::connect(address).and_then(|mut client| {
            client.delete_topic(self.topic)?;
            self.settle(&mut client)
        });
        match remade {
            Ok(()) => self.run_until_killed(address),
            Err(error) if Refusal::of(&error).is_some() => Err(error),
            // What came of it is seen after the next start.
            Err(_) => Ok(()),
        }
    }

    /// Sees which topic of that name there is, and makes one if there is none.
    fn settle(&mut self, client: &mut Client) -> Result<()> {
        let mut found = client.topic_id(self.topic)?;
        if found.is_none() {
            client.create_topic(self.topic, 1, KEPT)?;
            found = client.topic_id(self.topic)?;
        }
        if self.id != found {
            // Nothing is written before the id is known, so the new topic is empty.
            (self.acknowledged, self.offsets) = (0, BTreeMap::new());
            (self.id, self.deleted) = (found, self.deleted + 1);
        }
        Ok(())
    }

    fn next_batch(&self) -> Result<Bytes> {
        let (id, epoch) = self.identity;
        let sequence = Sequence::from_wire((self.acknowledged & i32::MAX as u64) as i32);
        let codec = [Codec::None, Codec::Zstd, Codec::Lz4][(self.acknowledged / BATCH_RECORDS % 3) as usize];
        let mut builder = BatchBuilder::new(Offset::ZERO).producer(id, epoch, sequence).compression(codec, None);
        for number in self.acknowledged..self.acknowledged + BATCH_RECORDS {
            let value = format!("{number:012} {}", "x".repeat((number % 97) as usize));
            builder.push(RecordContent {
                timestamp: Timestamp::from_wire(1_760_000_000_000 + number as i64),
                key: Some(format!("key-{}", number % 50).as_bytes()),
                value: Some(value.as_bytes()),
                headers: &[(b"n", Some(&number.to_be_bytes()))],
            });
        }
        Ok(builder.build()?.into())
    }
}

/// Every record from the log's start to its end: offset and number.
fn read_all(client: &mut Client, topic: &str) -> Result<Vec<(i64, u64)>> {
    let mut offset = client.list_offset(topic, 0, -2)?;
    let end = client.list_offset(topic, 0, -1)?;
    let spec = FetchSpec { topic, partition: 0, max_bytes: 1 << 20, max_wait_ms: 1_000 };
    let mut found = Vec::new();
    let started = Instant::now();
    while offset < end {
        ensure!(started.elapsed() < Duration::from_secs(600), "{topic}: stuck at {offset} of {end}");
        let bytes = match client.fetch(&spec, offset) {
            Ok(bytes) => bytes,
            // Retention overtook us; where records must be kept, those that are missing now are noticed.
            Err(_) if client.list_offset(topic, 0, -2)? > offset => {
                found.clear();
                offset = client.list_offset(topic, 0, -2)?;
                continue;
            }
            Err(error) => return Err(error.context(format!("{topic} from {offset} to {end}"))),
        };
        let mut rest = bytes.as_ref();
        while let Ok((batch, after)) = RecordBatchView::parse(rest) {
            rest = after;
            let header = batch.header();
            let plain =
                varve_log::format::compression::decompress(header.attributes.compression(), batch.payload(), 1 << 24)?;
            for record in records(&plain, header.record_count) {
                let record = record?;
                let at = header.base_offset.to_wire() + i64::from(record.offset_delta);
                let number = std::str::from_utf8(&record.value.context("a value")?[..12])?.parse()?;
                if at >= offset {
                    found.push((at, number));
                }
            }
            offset = header.base_offset.to_wire() + i64::from(header.last_offset_delta) + 1;
        }
    }
    Ok(found)
}

fn check(client: &mut Client, writer: &Writer) -> Result<()> {
    let topic = writer.topic;
    let found = read_all(client, topic)?;
    let numbers: Vec<u64> = found.iter().map(|(_, number)| *number).collect();
    let ends_at = numbers.last().map_or(0, |last| last + 1);
    ensure!(ends_at >= writer.acknowledged, "{topic}: ends with {ends_at}, {} acknowledged", writer.acknowledged);
    ensure!(ends_at <= writer.acknowledged + BATCH_RECORDS, "{topic}: more records than were sent");
    let at: BTreeMap<u64, i64> = found.iter().map(|(offset, number)| (*number, *offset)).collect();
    ensure!(at.len() == numbers.len(), "{topic}: records came twice");
    for (number, offset) in &writer.offsets {
        ensure!(at.get(number).is_none_or(|found| found == offset), "{topic}: record {number} moved");
    }
    let in_order = numbers.windows(2).all(|pair| pair[0] < pair[1]);
    ensure!(in_order, "{topic}: records out of order");
    match topic {
        "kept" | REMADE => ensure!(numbers.len() as u64 == ends_at, "{topic}: {} of {ends_at} records", numbers.len()),
        "expiring" => ensure!(
            numbers.windows(2).all(|pair| pair[0] + 1 == pair[1]),
            "{topic}: a hole between the first and the last record"
        ),
        _ => {
            for number in ends_at.saturating_sub(50)..ends_at {
                ensure!(at.contains_key(&number), "{topic}: the last record of a key is gone: {number}");
            }
        }
    }
    Ok(())
}

#[test]
fn kill_minus_nine_at_any_moment_loses_and_duplicates_nothing_acknowledged() -> Result<()> {
    let rounds = setting("VARVE_CRASH_ROUNDS", 200)?;
    let seed = setting("VARVE_CRASH_SEED", 1)?;
    let mut random = Random(seed);
    let folder = tempfile::tempdir()?;
    let node = Node::start(folder.path(), &EAGER)?;
    let mut client = Client::connect(node.address)?;
    let mut writers = Vec::new();
    for (topic, configs) in TOPICS {
        client.create_topic(topic, 1, configs)?;
        let identity = client.init_producer_id()?;
        let id = client.topic_id(topic)?;
        writers.push(Writer { topic, identity, acknowledged: 0, offsets: BTreeMap::new(), id, deleted: 0 });
    }
    node.kill();
    let mut round = 0;
    while round < rounds || is_to_go_on(round, rounds, folder.path(), &writers)? {
        let told = || format!("round {round} of {rounds}, VARVE_CRASH_SEED={seed}");
        let node = Node::start(folder.path(), &EAGER).with_context(told)?;
        let address = node.address;
        let remakes = round % ROUNDS_OF_A_TOPIC == ROUNDS_OF_A_TOPIC / 2;
        let mut client = Client::connect(address)?;
        for writer in writers.iter_mut().filter(|writer| writer.topic == REMADE) {
            writer.settle(&mut client).with_context(told)?;
        }
        if round % 20 == 19 {
            for writer in &writers {
                check(&mut client, writer).with_context(told)?;
            }
        }
        let life = Duration::from_millis(random.below(if round < rounds { 400 } else { 4_000 }));
        let (ended, all_ended) = mpsc::channel::<()>();
        std::thread::scope(|scope| -> Result<()> {
            let running: Vec<_> = writers
                .iter_mut()
                .map(|writer| {
                    let ended = ended.clone();
                    scope.spawn(move || {
                        let result = match remakes && writer.topic == REMADE {
                            true => writer.remake_until_killed(address),
                            false => writer.run_until_killed(address),
                        };
                        drop(ended);
                        result
                    })
                })
                .collect();
            drop(ended);
            // The writers end only when the node dies, or when one of them found a fault.
            let _ = all_ended.recv_timeout(life);
            node.kill();
            for writer in running {
                writer.join().expect("a writer does not panic")?;
            }
            Ok(())
        })
        .with_context(told)?;
        round += 1;
    }
    let node = Node::start(folder.path(), &EAGER)?;
    let mut client = Client::connect(node.address)?;
    for writer in &mut writers {
        if writer.topic == REMADE {
            writer.settle(&mut client)?;
        }
        println!("{}: {} records acknowledged over {round} kills", writer.topic, writer.acknowledged);
        check(&mut client, writer)?;
    }
    nothing_superfluous_stays(folder.path())?;
    node.stop()
}

/// Whether more lives are needed after `round` of them, until everything has happened: a busy machine gets less done in one.
///
/// # Errors
/// There were far more of them than that should take.
fn is_to_go_on(round: u64, rounds: u64, folder: &Path, writers: &[Writer]) -> Result<bool> {
    match everything_happened(folder, writers) {
        _ if rounds < ENOUGH_ROUNDS => Ok(false),
        Ok(()) => Ok(false),
        Err(missing) if round >= 2 * rounds => Err(missing),
        Err(_) => Ok(true),
    }
}

/// What the manifests of a topic say, one for each partition that it has, or had under another id.
fn described(folder: &Path, topic: &str) -> Result<Vec<Value>> {
    Asked::of(folder).ask(&["tier", "describe", topic])
}

/// Between the kills, and not only after the last one, everything was done that a crash can cut short.
fn everything_happened(folder: &Path, writers: &[Writer]) -> Result<()> {
    let number =
        |manifest: &Value, field: &str| manifest[field].as_u64().with_context(|| format!("{field}: {manifest}"));
    for writer in writers {
        let topic = writer.topic;
        let manifests = described(folder, topic)?;
        let told = || format!("{topic}: {manifests:?}");
        let live = manifests.iter().find(|manifest| manifest["deleted_at"].is_null()).with_context(told)?;
        // The newest topic of that name may be too young, and what expires soon may be gone before its turn comes.
        let may_have_none = topic == REMADE || topic == "expiring";
        ensure!(may_have_none || number(live, "parquet_objects")? > 0, "no Parquet: {}", told());
        // A compacted log stays whole on the local disk.
        let may_leave = topic == "kept" || topic == "expiring";
        ensure!(!may_leave || local_start(folder, topic)? > 0, "all is on the local disk: {}", told());
        match topic {
            "expiring" => ensure!(number(live, "log_start")? > 0, "nothing expired: {}", told()),
            "compacted" => ensure!(number(live, "clean_until")? > 0, "nothing was compacted by key: {}", told()),
            REMADE => {
                ensure!(writer.deleted > 0, "the topic was never made anew");
                ensure!(manifests.len() > 1, "no archive was deleted: {}", told());
            }
            _ => {}
        }
    }
    Ok(())
}

/// Where the first segment begins that is on the local disk.
fn local_start(folder: &Path, topic: &str) -> Result<u64> {
    let mut start = u64::MAX;
    for entry in fs::read_dir(folder.join(format!("varve-data/log/{topic}-0")))? {
        let name = entry?.file_name();
        if let Some(base) = name.to_str().and_then(|name| name.strip_suffix(".log")) {
            start = start.min(base.parse()?);
        }
    }
    ensure!(start < u64::MAX, "{topic} has no segment");
    Ok(start)
}

/// Once the grace period is over, every object in the bucket is named by a manifest, and those of deleted topics name none.
fn nothing_superfluous_stays(folder: &Path) -> Result<()> {
    // An object that is looked at may be deleted meanwhile, which the next look knows.
    until("what crashes and deleted topics left is swept", || {
        let report = Asked::of(folder).ask(&["tier", "verify"])?.pop().context("a report")?;
        ensure!(report["orphans"] == 0, "{report}");
        let deleted = described(folder, REMADE)?.into_iter().filter(|manifest| !manifest["deleted_at"].is_null());
        for gone in deleted {
            ensure!(gone["objects"] == 0 && gone["awaiting_deletion"] == 0, "{gone}");
        }
        Ok(())
    })
}
