//! Three brokers, every record on all of them, acknowledged by two at least.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use hdrhistogram::Histogram;
use varve_metadata::config::Codec;
use varve_tests::{client::produce_frame, history::Place, lines::Lines, workload::Routes};

use crate::{
    Settings,
    load::{Produced, produce},
    process::own_cpu,
    servers::{Kind, LOCAL_ONLY},
    trio::Trio,
    workloads::{BATCH_BYTES, DISTINCT_BYTES, wanted},
};

const TOPIC: &str = "replicated";
/// Two for each broker to lead, and a connection to each.
const PARTITIONS: i32 = 6;
/// A topic beside that one, which is idle until its leaders end: every broker has a replica of each of its partitions.
const IDLE: &str = "idle";
/// Longest wait for a partition to take records again.
const LIMIT: Duration = Duration::from_secs(120);
/// Bytes of a segment, and what of a partition stays local once it is archived.
const SEGMENT: &str = "4194304";

/// All of it.
pub(crate) fn measure(
    settings: &Settings,
    kind: Kind,
    lines: &Lines,
    note: &mut impl FnMut(&'static str, f64),
) -> Result<()> {
    if wanted(settings, "three brokers") {
        work(settings, kind, lines, note).context("work and failover")?;
        replacement(settings, kind, lines, note).context("replacement")?;
    }
    Ok(())
}

fn work(settings: &Settings, kind: Kind, lines: &Lines, note: &mut impl FnMut(&'static str, f64)) -> Result<()> {
    let mut trio = Trio::start(settings, kind, &[LOCAL_ONLY])?;
    trio.create_topic(TOPIC, PARTITIONS, &[])?;
    trio.create_topic(IDLE, settings.idle_partitions, &[])?;
    let batches = lines.batches(Codec::None, BATCH_BYTES, DISTINCT_BYTES)?;
    let mut frames = frames(&batches)?;
    let total = settings.megabytes * 1_000_000 / 2;
    produce_to_all(&trio.routes(), &mut frames, total / 2, None)?;
    let (before, own_before) = (trio.cpu()?, own_cpu()?);
    let produced = produce_to_all(&trio.routes(), &mut frames, total, None)?;
    // What is acknowledged by two may still be on its way to the third.
    trio.await_in_sync(TOPIC, 3)?;
    let gigabytes = produced.bytes as f64 / 1e9;
    note("three brokers: produce, CPU-s per GB", (trio.cpu()? - before).as_secs_f64() / gigabytes);
    note(
        "three brokers: produce, the load generator's CPU-s per GB",
        (own_cpu()? - own_before).as_secs_f64() / gigabytes,
    );
    note("three brokers: produce, MB/s", gigabytes * 1e3 / produced.elapsed.as_secs_f64());
    note("three brokers: resident after the load, all processes, MB", trio.resident_megabytes()?);
    let rate = settings.rate as f64 * 1e6;
    produce_to_all(&trio.routes(), &mut frames, (rate * 2.0) as u64, Some(rate))?;
    let paced = (rate * settings.latency_seconds as f64) as u64;
    let produced = produce_to_all(&trio.routes(), &mut frames, paced, Some(rate))?;
    let at = |quantile: f64| produced.latency.value_at_quantile(quantile) as f64 / 1e3;
    note("three brokers: produce latency p50, ms", at(0.5));
    note("three brokers: produce latency p99, ms", at(0.99));
    failover(&mut trio, lines, note).context("failover")
}

/// Kills a broker, and sends a batch to every partition that it led until each is acknowledged.
fn failover(trio: &mut Trio<'_>, lines: &Lines, note: &mut impl FnMut(&'static str, f64)) -> Result<()> {
    let before = trio.leaders_of(IDLE)?;
    let victim = before.first().copied().flatten().context("the first partition is led")?;
    let mut orphans: Vec<usize> = (0..before.len()).filter(|partition| before[*partition] == Some(victim)).collect();
    let batch = lines.batches(Codec::None, 1 << 10, 1)?.remove(0);
    let killed = Instant::now();
    trio.kill(victim);
    let mut first = None;
    while !orphans.is_empty() {
        ensure!(killed.elapsed() < LIMIT, "{orphans:?} take no records {LIMIT:?} after their leader's end");
        let leaders = trio.leaders_of(IDLE).unwrap_or_default();
        let mut clients = BTreeMap::new();
        for (partition, leader) in orphans.clone().into_iter().filter_map(|one| Some((one, (*leaders.get(one)?)?))) {
            // It is the old one as long as nobody knows better.
            if leader == victim {
                continue;
            }
            let client = match clients.entry(leader) {
                Entry::Occupied(open) => open.into_mut(),
                Entry::Vacant(none) => none.insert(trio.client(leader)?),
            };
            if client.produce(IDLE, partition as i32, batch.clone()).is_ok() {
                orphans.retain(|one| *one != partition);
                first.get_or_insert(killed.elapsed());
            }
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    note("three brokers: leader killed until a partition takes records, s", first.unwrap_or_default().as_secs_f64());
    note("three brokers: leader killed until all do, s", killed.elapsed().as_secs_f64());
    Ok(())
}

/// A broker comes back with an empty disk, where the topic is much larger than what Varve keeps locally.
fn replacement(settings: &Settings, kind: Kind, lines: &Lines, note: &mut impl FnMut(&'static str, f64)) -> Result<()> {
    let mut trio = Trio::start(settings, kind, &["log.retention.check.interval.ms=500"])?;
    // The lines are of years ago.
    let configs = [("segment.bytes", SEGMENT), ("retention.ms", "-1")];
    let tiered = [("remote.storage.enable", "true"), ("local.retention.bytes", SEGMENT)];
    let tiered = if kind == Kind::Varve { &tiered[..] } else { &[] };
    trio.create_topic(TOPIC, PARTITIONS, &[&configs, tiered].concat())?;
    let batches = lines.batches(Codec::Zstd, BATCH_BYTES, DISTINCT_BYTES)?;
    produce_to_all(&trio.routes(), &mut frames(&batches)?, settings.archive_megabytes * 1_000_000, None)?;
    trio.await_in_sync(TOPIC, 3)?;
    let victim = trio.leaders_of(TOPIC)?.first().copied().flatten().context("the first partition is led")?;
    if kind == Kind::Varve {
        await_archive(&trio, victim)?;
    }
    trio.kill(victim);
    trio.await_in_sync(TOPIC, 2)?;
    let started = Instant::now();
    trio.restart(victim, true)?;
    trio.await_in_sync(TOPIC, 3)?;
    note("three brokers: replaced by an empty one until in sync, s", started.elapsed().as_secs_f64());
    note("three brokers: on the disk of the new one then, MB", trio.megabytes_on_disk(victim)?);
    Ok(())
}

/// Waits until of every partition no more than local retention asks for, and what is open, is local.
fn await_archive(trio: &Trio<'_>, at: usize) -> Result<()> {
    let most = f64::from(PARTITIONS) * 3.0 * SEGMENT.parse::<f64>()? / 1e6;
    let started = Instant::now();
    while trio.megabytes_on_disk(at)? > most {
        ensure!(started.elapsed() < LIMIT, "{:.0} MB are still local", trio.megabytes_on_disk(at)?);
        std::thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}

/// For each partition the frames that send its share of `batches`.
fn frames(batches: &[Bytes]) -> Result<Vec<Vec<Vec<u8>>>> {
    let mut frames = vec![Vec::new(); PARTITIONS as usize];
    for (partition, batch) in (0..PARTITIONS).cycle().zip(batches) {
        frames[partition as usize].push(produce_frame(TOPIC, &[(partition, batch.clone())])?);
    }
    Ok(frames)
}

/// Sends to all partitions side by side, `total` bytes altogether, at `rate` bytes a second altogether if given.
fn produce_to_all(routes: &Routes, frames: &mut [Vec<Vec<u8>>], total: u64, rate: Option<f64>) -> Result<Produced> {
    let share = frames.len() as u64;
    let all: Vec<Result<Produced>> = std::thread::scope(|scope| {
        let senders: Vec<_> = (0..PARTITIONS)
            .zip(frames)
            .map(|(partition, frames)| {
                scope.spawn(move || {
                    let client = routes.to_leader(&Place { topic: TOPIC.to_owned(), partition })?;
                    produce(client, frames, total / share, rate.map(|rate| rate / share as f64))
                })
            })
            .collect();
        senders.into_iter().map(|sender| sender.join().expect("a sender does not panic")).collect()
    });
    let mut sum =
        Produced { bytes: 0, elapsed: Duration::ZERO, latency: Histogram::new_with_bounds(1, 60_000_000, 3)? };
    for produced in all {
        let produced = produced?;
        sum.bytes += produced.bytes;
        sum.elapsed = sum.elapsed.max(produced.elapsed);
        sum.latency.add(produced.latency)?;
    }
    Ok(sum)
}
