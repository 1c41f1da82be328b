//! What the archive costs and gives: only Varve has one.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use varve_metadata::config::Codec;
use varve_tests::{client::Client, lines::Lines};

use crate::{
    Settings,
    load::{consume, frames, produce},
    servers::{Kind, Server, varve},
};

const TOPIC: &str = "bench-archive";
/// Longest wait until all is Parquet.
const ARCHIVE_LIMIT: Duration = Duration::from_secs(120);

/// Produces log lines, waits until all of it is Parquet and nothing is local, and reads it back twice.
pub(crate) fn measure(settings: &Settings, lines: &Lines, note: &mut impl FnMut(&'static str, f64)) -> Result<()> {
    if settings.only.as_ref().is_some_and(|only| !"archive".contains(only.as_str())) {
        return Ok(());
    }
    let server = Server::start(
        settings,
        Kind::Varve,
        &["log.retention.check.interval.ms=500", "varve.compactor.interval.ms=500"],
    )?;
    let mut client = Client::connect(server.address)?;
    // The lines' timestamps are old: only the local copy may go by time.
    let configs = [
        ("segment.bytes", "134217728"),
        ("varve.archive.lag.ms", "2000"),
        ("local.retention.ms", "1"),
        ("retention.ms", "-1"),
        ("file.delete.delay.ms", "0"),
    ];
    client.create_topic(TOPIC, 1, &configs)?;
    let total = settings.archive_megabytes * 1_000_000;
    let zstd = lines.batches(Codec::Zstd, 64 << 10, 32 << 20)?;
    let plain: usize = lines.batches(Codec::None, 64 << 10, 32 << 20)?.iter().map(|batch| batch.len()).sum();
    let compressed: usize = zstd.iter().map(|batch| batch.len()).sum();
    let ratio = plain as f64 / compressed as f64;
    let mut all_frames = frames(TOPIC, 1, &zstd)?;
    let before = server.process.cpu()?;
    let produced = produce(Client::connect(server.address)?, &mut all_frames, (total as f64 / ratio) as u64, None)?;
    let producing = server.process.cpu()?;
    let raw_gigabytes = produced.bytes as f64 * ratio / 1e9;
    let end = client.list_offset(TOPIC, 0, -1)?;
    let archived = wait_until_all_is_parquet(settings, &mut client, server.folder.path(), end)?;
    note("archive, CPU-s per GB of raw log", (server.process.cpu()? - producing).as_secs_f64() / raw_gigabytes);
    note("produce zstd batches, CPU-s per GB of raw log", (producing - before).as_secs_f64() / raw_gigabytes);
    note("archive bytes / zstd batch bytes", archived as f64 / produced.bytes as f64);
    for name in ["cold read first, MB/s of raw log", "cold read again, MB/s of raw log"] {
        let before = server.process.cpu()?;
        let started = Instant::now();
        let bytes = consume(&mut client, TOPIC, 0, 0, end)?;
        let megabytes = bytes as f64 / 1e6;
        note(name, megabytes / started.elapsed().as_secs_f64());
        if name.contains("first") {
            let cpu = (server.process.cpu()? - before).as_secs_f64();
            note("cold read first, MB/s per core", megabytes / cpu);
        }
    }
    note("resident after archive work, MB", server.process.resident_megabytes()?);
    Ok(())
}

/// Waits, and returns the bytes of the Parquet objects in force.
fn wait_until_all_is_parquet(settings: &Settings, client: &mut Client, folder: &Path, end: i64) -> Result<u64> {
    let started = Instant::now();
    loop {
        let local = client.list_offset(TOPIC, 0, -4)?;
        let tiered = client.list_offset(TOPIC, 0, -5)?;
        let mut describe = varve(settings)?;
        let described = describe.current_dir(folder).args(["tier", "describe", TOPIC, "--json"]).output()?.stdout;
        let described: serde_json::Value = serde_json::from_slice(&described).unwrap_or_default();
        if local == end && tiered + 1 == end && described["raw_objects"] == 0 {
            return described["parquet_bytes"].as_u64().context("bytes of Parquet");
        }
        if started.elapsed() > ARCHIVE_LIMIT {
            bail!("after {ARCHIVE_LIMIT:?}: local from {local}, tiered to {tiered} of {end}: {described}");
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}
