//! A replica that copied nothing of a producer, because all of it lies in the archive, leads and knows where that producer
//! stopped: a batch that comes out of order is refused, and the next one taken.

use std::fs;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use kafka_protocol::error::ResponseError;
use varve_log::format::{BatchBuilder, RecordContent};
use varve_metadata::model::{Offset, ProducerEpoch, ProducerId, Sequence, Timestamp};
use varve_tests::{
    client::{Client, Refusal},
    cluster::Cluster,
    history::Place,
    kafka_tools::KafkaTools,
    node::{eventually, until},
};

const TOPIC: &str = "ledger";
const SETTINGS: [&str; 5] = [
    "broker.session.timeout.ms=3600000",
    "varve.archive.lag.ms=200",
    "remote.log.manager.task.interval.ms=200",
    "log.segment.delete.delay.ms=0",
    "auto.leader.rebalance.enable=false",
];

fn batch(producer: Option<(ProducerId, ProducerEpoch)>, sequence: i32, bytes: usize) -> Result<Bytes> {
    let (value, timestamp) =
        (vec![7; bytes], Timestamp::from_wire(std::time::UNIX_EPOCH.elapsed()?.as_millis() as i64));
    let mut batch = BatchBuilder::new(Offset::ZERO);
    if let Some((id, epoch)) = producer {
        batch = batch.producer(id, epoch, Sequence::from_wire(sequence));
    }
    batch.push(RecordContent { timestamp, key: None, value: Some(&value), headers: &[] });
    Ok(batch.build()?.into())
}

#[test]
fn a_new_replica_goes_on_with_the_sequences_of_producers_that_only_the_archive_has() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let cluster = Cluster::start(folder.path(), 2, &SETTINGS)?;
    let tools = KafkaTools::at(cluster.addresses()[0]);
    tools.run(&format!(
        "kafka-topics.sh --create --topic {TOPIC} --replica-assignment 0 --config internal.segment.bytes=10000 \
         --config local.retention.bytes=20000 --config retention.ms=-1"
    ))?;
    cluster.await_isr(TOPIC, 1)?;
    let mut client = Client::connect(cluster.addresses()[0])?;
    let producer = client.init_producer_id()?;
    for sequence in 0..3 {
        client.produce(TOPIC, 0, batch(Some(producer), sequence, 10)?)?;
    }
    for _ in 0..40 {
        client.produce(TOPIC, 0, batch(None, 0, 2_000)?)?;
    }
    let first = cluster.folder(0).join(format!("varve-data/log/{TOPIC}-0/00000000000000000000.log"));
    eventually("what the producer wrote is in the archive only", || Ok((!first.exists()).then_some(())))?;

    let plan = folder.path().join("plan.json");
    fs::write(&plan, format!(r#"{{"version":1,"partitions":[{{"topic":"{TOPIC}","partition":0,"replicas":[1]}}]}}"#))?;
    tools.run(&format!("kafka-reassign-partitions.sh --execute --reassignment-json-file {}", plan.display()))?;
    eventually("the new replica leads", || {
        Ok(cluster.look(TOPIC).iter().any(|one| one.leader == Some(1)).then_some(()))
    })?;
    let routes = cluster.routes();
    let place = Place { topic: TOPIC.to_owned(), partition: 0 };
    // Whichever broker is asked for the leader may not have heard of the new one.
    let mut leader = until("it serves", || {
        ensure!(cluster.describe(TOPIC)?[0].leader == Some(1), "somebody else leads");
        let mut leader = routes.to_leader(&place)?;
        leader.list_offset(TOPIC, 0, -1)?;
        Ok(leader)
    })?;
    let refused = leader.produce(TOPIC, 0, batch(Some(producer), 7, 10)?).expect_err("four batches are missing");
    let refusal = Refusal::of(&refused).with_context(|| format!("{refused:#}"))?;
    ensure!(refusal.name() == ResponseError::OutOfOrderSequenceNumber, "{refused:#}");
    leader.produce(TOPIC, 0, batch(Some(producer), 3, 10)?).context("the next one")?;
    Ok(())
}
