//! An idempotent producer.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use bytes::Bytes;
use kafka_protocol::error::ResponseError;
use varve_log::format::{BatchBuilder, RecordContent};
use varve_metadata::{
    config::Codec,
    model::{Offset, ProducerEpoch, ProducerId, Sequence, Timestamp},
};

use super::{Random, Routes, Stop, routes::is_weather};
use crate::{
    client::{Client, Refusal, produce_frame},
    history::{Event, Place, RecordId, Recorder, Written},
};

/// Batches that are sent to a partition before the first of them is answered: what Kafka's own producer does.
const IN_FLIGHT: usize = 3;
/// Most records of a batch.
const BATCH: u64 = 20;
/// The time of each writer's first record, milliseconds.
const START: i64 = 1_790_000_000_000;

/// One producer id that writes to some partitions, with acks=all, each batch until it is acknowledged.
pub struct Writer {
    /// Which one of the test's writers.
    pub id: u32,
    /// Where it writes.
    pub places: Vec<Place>,
    /// The cluster.
    pub routes: Routes,
    /// Where it writes down what it did.
    pub recorder: Recorder,
    /// When to end.
    pub stop: Stop,
}

/// A batch that may or may not be there.
struct Pending {
    first: u64,
    count: u64,
    began: u64,
    bytes: Bytes,
}

impl Writer {
    /// Writes until it is told to stop, and what it had begun until it is acknowledged.
    ///
    /// # Errors
    /// A broker answers what it must not answer, or none answers for five minutes.
    pub fn run(self, seed: u64) -> Result<()> {
        let mut random = Random(seed);
        let identity = self.routes.persist("a producer id", || self.routes.to_any()?.init_producer_id())?;
        let mut counts: BTreeMap<&Place, u64> = BTreeMap::new();
        while !self.stop.is_told() {
            let place = &self.places[random.below(self.places.len() as u64) as usize];
            let count = counts.entry(place).or_default();
            let mut pending = Vec::new();
            for _ in 0..=random.below(IN_FLIGHT as u64) {
                let records = 1 + random.below(BATCH);
                let bytes = self.batch(identity, *count, records, &mut random)?;
                pending.push(Pending { first: *count, count: records, began: self.recorder.now(), bytes });
                *count += records;
            }
            self.deliver(place, pending)?;
        }
        Ok(())
    }

    /// Sends batches to one partition until each is acknowledged; those behind one that was not are sent again with it.
    fn deliver(&self, place: &Place, mut pending: Vec<Pending>) -> Result<()> {
        let mut is_first = true;
        self.routes.persist(&format!("writer {} to {place}", self.id), || {
            let mut client = self.routes.to_leader(place)?;
            let mut answered = 0;
            let result = self.attempt(&mut client, place, &pending, is_first, &mut answered);
            is_first = false;
            pending.drain(..answered);
            result
        })
    }

    fn attempt(
        &self,
        client: &mut Client,
        place: &Place,
        pending: &[Pending],
        is_first: bool,
        answered: &mut usize,
    ) -> Result<()> {
        for batch in pending {
            client.send_frame(&produce_frame(&place.topic, &[(place.partition, batch.bytes.clone())])?)?;
        }
        let mut failed = None;
        for batch in pending {
            match client.receive_produced() {
                Ok(offset) if failed.is_none() => {
                    *answered += 1;
                    self.recorder.note(Event::Write {
                        place: place.clone(),
                        writer: self.id,
                        numbers: batch.first..batch.first + batch.count,
                        written: Written::At(offset),
                        span: self.recorder.since(batch.began),
                    });
                }
                // Written behind one that was not: a hole in the sequence, which brokers must refuse.
                Ok(offset) if is_first && !failed.as_ref().is_some_and(may_be_written) => {
                    let (writer, first) = (self.id, batch.first);
                    anyhow::bail!(
                        "{place}: {writer}/{first} is taken at {offset} though one before is not: {failed:?}"
                    );
                }
                // A try before may have written that one, which this broker refused before it knew that it leads; or this broker
                // did, and leads in another epoch since. The next try is answered for both; a hole would be refused then, and
                // found in the history.
                Ok(_) => {}
                // What follows one that was refused is out of order, and refused for that.
                Err(error) if failed.is_some() && is_out_of_order(&error) => {}
                Err(error) if is_weather(&error) => {
                    let broken = Refusal::of(&error).is_none();
                    failed.get_or_insert(error);
                    if broken {
                        break;
                    }
                }
                Err(error) => return Err(error),
            }
        }
        failed.map_or(Ok(()), Err)
    }

    fn batch(
        &self,
        (id, epoch): (ProducerId, ProducerEpoch),
        first: u64,
        count: u64,
        random: &mut Random,
    ) -> Result<Bytes> {
        // Sequences wrap at 2^31, which no test of ours reaches.
        let sequence = Sequence::from_wire(i32::try_from(first).context("fewer records")?);
        let codec = [Codec::None, Codec::Zstd, Codec::Lz4][random.below(3) as usize];
        let mut builder = BatchBuilder::new(Offset::ZERO).producer(id, epoch, sequence).compression(codec, None);
        for number in first..first + count {
            let value = RecordId { writer: self.id, number }.to_string();
            let padding = vec![b'x'; random.below(100) as usize];
            builder.push(RecordContent {
                timestamp: Timestamp::from_wire(START + number as i64),
                key: None,
                value: Some(value.as_bytes()),
                headers: &[(b"padding", Some(&padding))],
            });
        }
        Ok(builder.build()?.into())
    }
}

fn is_out_of_order(error: &anyhow::Error) -> bool {
    Refusal::of(error).is_some_and(|refusal| refusal.name() == ResponseError::OutOfOrderSequenceNumber)
}

/// Whether the broker may have refused to say that a batch is committed which it has written: its leadership, or its epoch,
/// ended while it waited for the others.
fn may_be_written(error: &anyhow::Error) -> bool {
    let name = Refusal::of(error).map(Refusal::name);
    name.is_some_and(|name| {
        [
            ResponseError::NotLeaderOrFollower,
            ResponseError::NotEnoughReplicasAfterAppend,
            ResponseError::RequestTimedOut,
        ]
        .contains(&name)
    })
}
