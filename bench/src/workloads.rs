//! The measurements, each run once a round against each broker.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use hdrhistogram::Histogram;
use varve_metadata::config::Codec;
use varve_tests::{
    client::{Client, FetchSpec, after_last_batch, produce_frame, set_correlation},
    lines::Lines,
};

use crate::{
    Settings, archive, guarded,
    load::{consume, frames, produce},
    partitions,
    process::own_cpu,
    replicated,
    servers::{Kind, LOCAL_ONLY, Server},
};

/// Name of a measurement (with its unit) → broker → one figure a round.
pub(crate) type Figures = BTreeMap<&'static str, BTreeMap<Kind, Vec<f64>>>;

pub(crate) const TOPIC: &str = "bench";
pub(crate) const PARTITIONS: i32 = 8;
/// Size of a batch: what a busy producer's `batch.size` of 64 KiB gives.
pub(crate) const BATCH_BYTES: usize = 64 << 10;
/// Distinct batches sent again and again; more than the processor's caches hold.
pub(crate) const DISTINCT_BYTES: usize = 64 << 20;

/// What the figures of one produce and consume measurement are called.
pub(crate) struct Labels {
    pub(crate) produce_cpu: &'static str,
    pub(crate) produce_rate: &'static str,
    pub(crate) produce_load: &'static str,
    pub(crate) consume_cpu: &'static str,
    pub(crate) consume_rate: &'static str,
    pub(crate) consume_load: &'static str,
    pub(crate) resident: &'static str,
}

const PLAIN: Labels = Labels {
    produce_cpu: "produce, CPU-s per GB",
    produce_rate: "produce, MB/s",
    produce_load: "produce, the load generator's CPU-s per GB",
    consume_cpu: "consume, CPU-s per GB",
    consume_rate: "consume, MB/s",
    consume_load: "consume, the load generator's CPU-s per GB",
    resident: "resident under load, MB",
};

/// Runs all rounds.
pub(crate) fn run(settings: &Settings) -> Result<Figures> {
    let lines = Lines::load(settings.lines.as_deref())?;
    let mut figures = Figures::new();
    for round in 0..settings.runs {
        let mut kinds = if round % 2 == 0 { vec![Kind::Kafka, Kind::Varve] } else { vec![Kind::Varve, Kind::Kafka] };
        if let Some(broker) = &settings.broker {
            kinds.retain(|kind| kind.name().to_lowercase().ends_with(&broker.to_lowercase()));
        }
        for kind in kinds {
            eprintln!("round {} of {}: {}", round + 1, settings.runs, kind.name());
            let mut note = |name: &'static str, value: f64| {
                eprintln!("  {name}: {value:.3}");
                figures.entry(name).or_default().entry(kind).or_default().push(value);
            };
            hot(settings, kind, &lines, &mut note).with_context(|| format!("hot measurements of {}", kind.name()))?;
            guarded::rules(settings, kind, &lines, &mut note).with_context(|| format!("{} with rules", kind.name()))?;
            guarded::tls(settings, kind, &lines, &mut note).with_context(|| format!("{} over TLS", kind.name()))?;
            replicated::measure(settings, kind, &lines, &mut note)
                .with_context(|| format!("three of {}", kind.name()))?;
            if kind == Kind::Varve {
                archive::measure(settings, &lines, &mut note).context("archive measurements")?;
                // No ratio depends on it: once is enough.
                if round == 0 {
                    partitions::measure(settings, &mut note).context("measurements with many partitions")?;
                }
            }
        }
    }
    Ok(figures)
}

/// Whether the measurement of that name is one of those asked for.
pub(crate) fn wanted(settings: &Settings, name: &str) -> bool {
    settings.only.as_ref().is_none_or(|only| name.contains(only.as_str()))
}

fn hot(settings: &Settings, kind: Kind, lines: &Lines, note: &mut impl FnMut(&'static str, f64)) -> Result<()> {
    if !wanted(settings, "hot") && !wanted(settings, "latency") {
        return Ok(());
    }
    let server = Server::start(settings, kind, &[LOCAL_ONLY], &[])?;
    note("start to first answer, ms", server.time_to_first_answer.as_secs_f64() * 1e3);
    let mut admin = Client::connect(server.address)?;
    create_topic(&mut admin, TOPIC, PARTITIONS)?;
    let batches = lines.batches(Codec::None, BATCH_BYTES, DISTINCT_BYTES)?;
    let mut all_frames = frames(TOPIC, PARTITIONS, &batches)?;
    drop(batches);

    if wanted(settings, "hot") {
        let mut connect = || Client::connect(server.address);
        produce_and_consume(settings, &server, &mut connect, &mut all_frames, &PLAIN, note)?;
    }
    if wanted(settings, "latency") {
        latency(settings, &server, &mut all_frames, note)?;
        end_to_end(settings, &server, lines, note)?;
        note("resident at the end, MB", server.process.resident_megabytes()?);
    }
    Ok(())
}

/// Creates a topic and waits for its leaders: Kafka answers before its own broker has heard of them.
pub(crate) fn create_topic(admin: &mut Client, topic: &str, partitions: i32) -> Result<()> {
    admin.create_topic(topic, partitions, &[])?;
    let asked = Instant::now();
    for partition in 0..partitions {
        while let Err(error) = admin.list_offset(topic, partition, -1) {
            anyhow::ensure!(asked.elapsed() < Duration::from_secs(10), "{topic}-{partition} has no leader: {error}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    Ok(())
}

/// Sends `frames` for the time that the settings ask for, and reads all of it back. Resident memory is the largest seen
/// while either was under way.
pub(crate) fn produce_and_consume(
    settings: &Settings,
    server: &Server,
    connect: &mut impl FnMut() -> Result<Client>,
    frames: &mut [Vec<u8>],
    labels: &Labels,
    note: &mut impl FnMut(&'static str, f64),
) -> Result<()> {
    // Warm: the JVM has compiled its hot paths before anything is counted.
    let total = settings.megabytes * 1_000_000;
    produce(connect()?, frames, total / 2, None)?;
    let resident = server.process.watch_resident();
    let (before, own_before) = (server.process.cpu()?, own_cpu()?);
    let produced = produce(connect()?, frames, total, None)?;
    let gigabytes = produced.bytes as f64 / 1e9;
    note(labels.produce_cpu, (server.process.cpu()? - before).as_secs_f64() / gigabytes);
    note(labels.produce_load, (own_cpu()? - own_before).as_secs_f64() / gigabytes);
    note(labels.produce_rate, gigabytes * 1e3 / produced.elapsed.as_secs_f64());
    consume_all(server, connect()?, labels, note)?;
    note(labels.resident, resident.most_megabytes()?);
    Ok(())
}

fn consume_all(
    server: &Server,
    mut client: Client,
    labels: &Labels,
    note: &mut impl FnMut(&'static str, f64),
) -> Result<()> {
    let ends: Vec<i64> = (0..PARTITIONS).map(|index| client.list_offset(TOPIC, index, -1)).collect::<Result<_>>()?;
    // Warm, as for produce.
    consume(&mut client, TOPIC, 0, 0, ends[0])?;
    let (before, own_before) = (server.process.cpu()?, own_cpu()?);
    let started = Instant::now();
    let mut bytes = 0;
    for (index, end) in ends.iter().enumerate() {
        bytes += consume(&mut client, TOPIC, index as i32, 0, *end)?;
    }
    let gigabytes = bytes as f64 / 1e9;
    note(labels.consume_rate, gigabytes * 1e3 / started.elapsed().as_secs_f64());
    note(labels.consume_cpu, (server.process.cpu()? - before).as_secs_f64() / gigabytes);
    note(labels.consume_load, (own_cpu()? - own_before).as_secs_f64() / gigabytes);
    Ok(())
}

fn latency(
    settings: &Settings,
    server: &Server,
    frames: &mut [Vec<u8>],
    note: &mut impl FnMut(&'static str, f64),
) -> Result<()> {
    let rate = settings.rate as f64 * 1e6;
    produce(Client::connect(server.address)?, frames, (rate * 3.0) as u64, Some(rate))?;
    let total = (rate * settings.latency_seconds as f64) as u64;
    let produced = produce(Client::connect(server.address)?, frames, total, Some(rate))?;
    let at = |quantile: f64| produced.latency.value_at_quantile(quantile) as f64 / 1e3;
    note("produce latency p50, ms", at(0.5));
    note("produce latency p99, ms", at(0.99));
    note("produce latency p99.9, ms", at(0.999));
    Ok(())
}

/// One record batch at a time, from before it is sent until a waiting consumer has it.
fn end_to_end(
    settings: &Settings,
    server: &Server,
    lines: &Lines,
    note: &mut impl FnMut(&'static str, f64),
) -> Result<()> {
    let topic = "bench-end-to-end";
    let mut admin = Client::connect(server.address)?;
    create_topic(&mut admin, topic, 1)?;
    let batch = lines.batches(Codec::None, 1 << 10, 1)?.remove(0);
    let mut frame = produce_frame(topic, &[(0, batch)])?;
    let rounds = (settings.latency_seconds * 100).clamp(100, 2_000) as usize;
    let (arrived, arrivals) = std::sync::mpsc::sync_channel::<Instant>(1);
    let mut consumer = Client::connect(server.address)?;
    let reader = std::thread::spawn(move || -> Result<()> {
        let spec = FetchSpec { topic, partition: 0, max_bytes: 1 << 20, max_wait_ms: 5_000 };
        let mut offset = 0;
        for _ in 0..rounds {
            let before = offset;
            while offset == before {
                offset = after_last_batch(&consumer.fetch(&spec, offset)?, offset).0;
            }
            arrived.send(Instant::now())?;
        }
        Ok(())
    });
    let mut producer = Client::connect(server.address)?;
    let mut latency: Histogram<u64> = Histogram::new_with_bounds(1, 60_000_000, 3)?;
    for number in 0..rounds {
        std::thread::sleep(Duration::from_millis(2));
        set_correlation(&mut frame, number as i32);
        let sent = Instant::now();
        producer.send_frame(&frame)?;
        producer.receive()?;
        let Ok(arrival) = arrivals.recv() else { break };
        latency.record((arrival.saturating_duration_since(sent).as_micros() as u64).max(1))?;
    }
    reader.join().expect("the consumer does not panic")?;
    note("end-to-end latency p50, ms", latency.value_at_quantile(0.5) as f64 / 1e3);
    note("end-to-end latency p99, ms", latency.value_at_quantile(0.99) as f64 / 1e3);
    Ok(())
}
