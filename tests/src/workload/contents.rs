//! Records of a partition as the checker knows them.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use varve_log::format::{RecordBatchView, compression::decompress, records};

use super::Routes;
use crate::{
    client::{Client, FetchSpec},
    history::{Contents, Place, RecordId},
};

/// Most bytes that a batch of ours has without compression.
const MOST_BYTES: usize = 1 << 24;
/// Longest time for reading one partition to its end.
const LIMIT: Duration = Duration::from_secs(600);

/// Everything that a partition holds; begun anew while brokers fail and come back.
///
/// # Errors
/// It cannot be read to its end, or holds what no writer of ours wrote.
pub fn read_all(routes: &Routes, place: &Place) -> Result<Contents> {
    let topic = place.topic.as_str();
    let began = Instant::now();
    routes.persist(&format!("{place} is read"), || {
        let mut client = routes.to_leader(place)?;
        let start = client.list_offset(topic, place.partition, -2)?;
        let end = client.list_offset(topic, place.partition, -1)?;
        let mut contents = Contents { start, records: Vec::new() };
        let mut next = start;
        while next < end {
            ensure!(began.elapsed() < LIMIT, "{place}: at {next} of {end} after {LIMIT:?}");
            let spec = FetchSpec { topic, partition: place.partition, max_bytes: 1 << 20, max_wait_ms: 1_000 };
            next = fetch(&mut client, &spec, next, &mut contents.records)?;
        }
        Ok(contents)
    })
}

/// Adds the records of one fetch to `found`; where to read on.
pub(super) fn fetch(
    client: &mut Client,
    spec: &FetchSpec<'_>,
    from: i64,
    found: &mut Vec<(i64, RecordId)>,
) -> Result<i64> {
    let bytes = client.fetch(spec, from)?;
    let mut rest = bytes.as_ref();
    let mut next = from;
    while let Ok((batch, after)) = RecordBatchView::parse(rest) {
        rest = after;
        let header = batch.header();
        let base = header.base_offset.to_wire();
        let plain = decompress(header.attributes.compression(), batch.payload(), MOST_BYTES)?;
        for record in records(&plain, header.record_count) {
            let record = record?;
            let offset = base + i64::from(record.offset_delta);
            if offset >= from {
                found.push((offset, std::str::from_utf8(record.value.context("a value")?)?.parse()?));
            }
        }
        next = base + i64::from(header.last_offset_delta) + 1;
    }
    Ok(next)
}
