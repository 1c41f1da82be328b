//! What the archive costs and gives: only Varve has one.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use varve_metadata::config::Codec;
use varve_tests::{client::Client, lines::Lines};

use crate::{
    Settings,
    load::{consume, frames, produce},
    servers::{Kind, Server, varve},
};

/// Longest wait until all is Parquet.
const ARCHIVE_LIMIT: Duration = Duration::from_secs(120);
/// Records' timestamps are old: only the local copy may go by time.
const CONFIGS: [(&str, &str); 5] = [
    ("segment.bytes", "134217728"),
    ("varve.archive.lag.ms", "2000"),
    ("local.retention.ms", "1"),
    ("retention.ms", "-1"),
    ("file.delete.delay.ms", "0"),
];

/// Archives log lines and small metrics, and reads the lines back twice.
pub(crate) fn measure(settings: &Settings, lines: &Lines, note: &mut impl FnMut(&'static str, f64)) -> Result<()> {
    if settings.only.as_ref().is_some_and(|only| !"archive".contains(only.as_str())) {
        return Ok(());
    }
    let quick = ["log.retention.check.interval.ms=500", "varve.compactor.interval.ms=500"];
    let server = Server::start(settings, Kind::Varve, &quick, &[])?;
    let logs = archive(settings, &server, "bench-logs", lines, settings.archive_megabytes)?;
    note("archive, CPU-s per GB of raw log", logs.archiving.as_secs_f64() / logs.raw_gigabytes);
    note("produce zstd batches, CPU-s per GB of raw log", logs.producing.as_secs_f64() / logs.raw_gigabytes);
    note("archive bytes / zstd batch bytes, log lines", logs.ratio);
    let mut client = Client::connect(server.address)?;
    for (wall, core) in [
        ("cold read first, MB/s of raw log", "cold read first, MB/s per core"),
        ("cold read again, MB/s of raw log", "cold read again, MB/s per core"),
    ] {
        let (cpu, started) = (server.process.cpu()?, Instant::now());
        let megabytes = consume(&mut client, "bench-logs", 0, 0, logs.end)? as f64 / 1e6;
        note(wall, megabytes / started.elapsed().as_secs_f64());
        note(core, megabytes / (server.process.cpu()? - cpu).as_secs_f64());
    }
    let metrics = archive(settings, &server, "bench-metrics", &Lines::metrics(), settings.archive_megabytes / 4)?;
    note("archive bytes / zstd batch bytes, small metrics", metrics.ratio);
    note("resident after archive work, MB", server.process.resident_megabytes()?);
    Ok(())
}

/// What it took to turn a topic into Parquet.
struct Archived {
    /// Bytes of the records' batches, had they not been compressed.
    raw_gigabytes: f64,
    /// Offset after the last record.
    end: i64,
    /// The broker's CPU time until the last record was acknowledged.
    producing: Duration,
    /// And from then until all was Parquet and nothing local.
    archiving: Duration,
    /// Bytes of Parquet for each byte of the batches as they were sent.
    ratio: f64,
}

/// Sends zstd batches of `lines`, `megabytes` before compression, and waits until all of it is Parquet.
fn archive(settings: &Settings, server: &Server, topic: &str, lines: &Lines, megabytes: u64) -> Result<Archived> {
    let mut client = Client::connect(server.address)?;
    client.create_topic(topic, 1, &CONFIGS)?;
    let bytes_of = |codec| -> Result<(Vec<Bytes>, usize)> {
        let batches = lines.batches(codec, 64 << 10, 32 << 20)?;
        let bytes = batches.iter().map(|batch| batch.len()).sum();
        Ok((batches, bytes))
    };
    let (batches, compressed) = bytes_of(Codec::Zstd)?;
    let compression = bytes_of(Codec::None)?.1 as f64 / compressed as f64;
    let mut all_frames = frames(topic, 1, &batches)?;
    drop(batches);
    let total = (megabytes as f64 * 1e6 / compression) as u64;
    let before = server.process.cpu()?;
    let produced = produce(Client::connect(server.address)?, &mut all_frames, total, None)?;
    let after = server.process.cpu()?;
    let end = client.list_offset(topic, 0, -1)?;
    let parquet = wait_until_all_is_parquet(settings, &mut client, topic, server.folder(), end)?;
    Ok(Archived {
        raw_gigabytes: produced.bytes as f64 * compression / 1e9,
        end,
        producing: after - before,
        archiving: server.process.cpu()? - after,
        ratio: parquet as f64 / produced.bytes as f64,
    })
}

/// Waits, and returns the bytes of the Parquet objects in force.
fn wait_until_all_is_parquet(
    settings: &Settings,
    client: &mut Client,
    topic: &str,
    folder: &Path,
    end: i64,
) -> Result<u64> {
    let started = Instant::now();
    loop {
        let local = client.list_offset(topic, 0, -4)?;
        let tiered = client.list_offset(topic, 0, -5)?;
        let mut describe = varve(settings)?;
        let described = describe.current_dir(folder).args(["tier", "describe", topic, "--json"]).output()?.stdout;
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
