//! Producing and consuming with as little work of our own as can be.

use std::{
    sync::mpsc,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use bytes::{Buf, Bytes};
use hdrhistogram::Histogram;
use kafka_protocol::{messages::ProduceResponse, protocol::Decodable};
use varve_tests::client::{Client, FetchSpec, PRODUCE_VERSION, after_last_batch, produce_frame, set_correlation};

/// Requests of one connection that wait for their answers; what Kafka's own producer allows.
const IN_FLIGHT: usize = 5;

/// What one produce run reached.
pub(crate) struct Produced {
    pub(crate) bytes: u64,
    pub(crate) elapsed: Duration,
    /// Microseconds from sending a request (or the moment when it was due) to its answer.
    pub(crate) latency: Histogram<u64>,
}

/// Sends `frames` in turn over one connection until `total_bytes` are acknowledged. With `rate` (bytes a second) each
/// request is due at its time and its latency counts from then, so that a slow answer is not left out of the figures.
pub(crate) fn produce(client: Client, frames: &mut [Vec<u8>], total_bytes: u64, rate: Option<f64>) -> Result<Produced> {
    let mut writer = client;
    let mut reader = writer.split()?;
    let window = if rate.is_some() { 1_000 } else { IN_FLIGHT };
    let (sent, due) = mpsc::sync_channel::<(Instant, usize)>(window - 1);
    let answers = std::thread::spawn(move || -> Result<(u64, Histogram<u64>)> {
        let mut bytes = 0;
        let mut latency = Histogram::new_with_bounds(1, 60_000_000, 3)?;
        for (moment, length) in due {
            let answer = reader.receive()?;
            latency.record((moment.elapsed().as_micros() as u64).max(1))?;
            check_produced(answer)?;
            bytes += length as u64;
        }
        Ok((bytes, latency))
    });
    let started = Instant::now();
    let mut total = 0u64;
    let count = frames.len();
    for number in 0.. {
        if total >= total_bytes {
            break;
        }
        let frame = &mut frames[number % count];
        let moment = match rate {
            Some(rate) => {
                let due = started + Duration::from_secs_f64(total as f64 / rate);
                std::thread::sleep(due.saturating_duration_since(Instant::now()));
                due
            }
            None => Instant::now(),
        };
        set_correlation(frame, number as i32);
        // The channel is the window: it blocks here until an answer came.
        if sent.send((moment, frame.len())).is_err() {
            break;
        }
        writer.send_frame(frame)?;
        total += frame.len() as u64;
    }
    drop(sent);
    let (bytes, latency) = answers.join().expect("the reader does not panic")?;
    Ok(Produced { bytes, elapsed: started.elapsed(), latency })
}

fn check_produced(answer: &[u8]) -> Result<()> {
    let mut answer = Bytes::copy_from_slice(answer);
    ensure!(answer.len() > 5, "a produce answer of {} bytes", answer.len());
    answer.advance(5);
    let response = ProduceResponse::decode(&mut answer, PRODUCE_VERSION)?;
    for partition in response.responses.iter().flat_map(|topic| &topic.partition_responses) {
        ensure!(partition.error_code == 0, "produce: error {} {:?}", partition.error_code, partition.error_message);
    }
    Ok(())
}

/// Frames that send `batches` round-robin to `partitions`, each frame one batch to one of them.
pub(crate) fn frames(topic: &str, partitions: i32, batches: &[Bytes]) -> Result<Vec<Vec<u8>>> {
    let one = |(number, batch): (usize, &Bytes)| {
        produce_frame(topic, &[((number % partitions as usize) as i32, batch.clone())])
    };
    batches.iter().enumerate().map(one).collect()
}

/// Reads one partition from `from` up to `until`; returns the bytes of the batches.
pub(crate) fn consume(client: &mut Client, topic: &str, partition: i32, from: i64, until: i64) -> Result<u64> {
    let spec = FetchSpec { topic, partition, max_bytes: 1 << 20, max_wait_ms: 500 };
    let mut offset = from;
    let mut bytes = 0;
    let mut idle = 0;
    while offset < until {
        let records = client.fetch(&spec, offset)?;
        let (next, whole) = after_last_batch(&records, offset);
        idle = if next == offset { idle + 1 } else { 0 };
        ensure!(idle < 200, "no records at {topic}-{partition} offset {offset} of {until}");
        bytes += whole as u64;
        offset = next;
    }
    Ok(bytes)
}
