//! Log lines to send, real or made from a seed, and record batches of them.

use std::{fs, path::Path};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use varve_log::format::{BatchBuilder, RecordContent};
use varve_metadata::{
    config::Codec,
    model::{Offset, Timestamp},
};

/// Keys and values to send, repeated as often as needed.
pub struct Lines(Vec<(Vec<u8>, Vec<u8>)>);

/// Key of every log line.
const SERVICE: &[u8] = b"service";

impl Lines {
    /// Every line of every `*.log` file in `folder`; without a folder, log lines made from a seed.
    ///
    /// # Errors
    /// The folder cannot be read or holds no lines.
    pub fn load(folder: Option<&Path>) -> Result<Lines> {
        let Some(folder) = folder else { return Ok(Lines::synthetic()) };
        let mut files: Vec<_> = fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
        files.retain(|file| file.extension().is_some_and(|kind| kind == "log"));
        files.sort();
        let mut lines = Vec::new();
        for file in files {
            let text = fs::read(&file).with_context(|| format!("reading {}", file.display()))?;
            lines.extend(text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).map(keyed));
        }
        ensure!(!lines.is_empty(), "no *.log files with lines in {}", folder.display());
        Ok(Lines(lines))
    }

    /// Small measurements of 2,000 series, each keyed by the name of its series.
    pub fn metrics() -> Lines {
        let mut next = numbers();
        let measurements = (0..400_000u64).map(|number| {
            let key = format!("cpu.load.host-{:04}", next() % 2_000);
            let (whole, hundredths, time) = (next() % 100, next() % 100, 1_760_000_000_000 + number / 16);
            let value = format!("{{\"v\":{whole}.{hundredths:02},\"t\":{time},\"unit\":\"percent\"}}");
            (key.into_bytes(), value.into_bytes())
        });
        Lines(measurements.collect())
    }

    fn synthetic() -> Lines {
        let mut next = numbers();
        let levels = ["INFO", "INFO", "INFO", "WARN", "ERROR", "DEBUG"];
        let parts = ["storage.BlockManager", "scheduler.TaskSetManager", "http.Access", "auth.Session"];
        let lines = (0..16_000).map(|number| {
            format!(
                "2026-11-22 10:{:02}:{:02},{:03} {} {}: request {:08x} from 10.{}.{}.{} took {} us, {} bytes, item {}",
                number / 60 % 60,
                number % 60,
                next() % 1000,
                levels[next() as usize % levels.len()],
                parts[next() as usize % parts.len()],
                next(),
                next() % 256,
                next() % 256,
                next() % 256,
                next() % 100_000,
                next() % 1_000_000,
                number,
            )
            .into_bytes()
        });
        Lines(lines.map(|line| keyed(&line)).collect())
    }

    /// Record batches of about `batch_bytes` each before compression, until `total_bytes` are reached. Timestamps move
    /// on by a millisecond a line, ids in the lines repeat.
    ///
    /// # Errors
    /// A codec failed.
    pub fn batches(&self, codec: Codec, batch_bytes: usize, total_bytes: usize) -> Result<Vec<Bytes>> {
        let mut batches = Vec::new();
        let mut lines = self.0.iter().cycle().enumerate();
        let mut made = 0;
        let start = 1_760_000_000_000i64;
        while made < total_bytes {
            let mut builder = BatchBuilder::new(Offset::ZERO).compression(codec, None);
            while builder.uncompressed_bytes() < batch_bytes {
                let (number, (key, value)) = lines.next().context("lines repeat for ever")?;
                let timestamp = Timestamp::from_wire(start + number as i64).context("a positive time")?;
                let host = format!("host-{:03}", number % 97);
                let headers: &[(&[u8], Option<&[u8]>)] = &[(b"host", Some(host.as_bytes()))];
                builder.push(RecordContent { timestamp: Some(timestamp), key: Some(key), value: Some(value), headers });
            }
            made += builder.uncompressed_bytes();
            batches.push(Bytes::from(builder.build()?));
        }
        Ok(batches)
    }
}

fn keyed(line: &[u8]) -> (Vec<u8>, Vec<u8>) {
    (SERVICE.to_vec(), line.to_vec())
}

/// Numbers from a seed (the multiplier and increment of Knuth's MMIX).
fn numbers() -> impl FnMut() -> u64 {
    let mut state = 1u64;
    move || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        state >> 33
    }
}
