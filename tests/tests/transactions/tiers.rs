//! Readers of committed records are given the same from the local log, from raw objects and from Parquet.

use std::{net::SocketAddr, path::Path};

use anyhow::{Result, ensure};
use varve_tests::{
    client::Client,
    node::{Node, eventually, varve},
    tools,
    transactions::{CommittedReader, batch},
};

/// One producer after the other writes `rounds` transactions to `logs`, every third aborted; the values committed.
fn write_transactions(address: SocketAddr, rounds: i64) -> Result<Vec<String>> {
    let mut client = Client::connect(address)?;
    let mut producer = client.init_producer("writer", 60_000)?;
    let mut committed = Vec::new();
    for round in 0..rounds {
        let values: Vec<String> = (0..3).map(|record| format!("{round}-{record} {}", "y".repeat(300))).collect();
        for (sequence, value) in (0..).zip(&values) {
            client.produce_in_transaction("logs", 0, 12, "writer", batch(producer, sequence, None, value)?)?;
        }
        let commit = round % 3 != 1;
        producer = client.end_transaction("writer", producer, commit)?;
        if commit {
            committed.extend(values);
        }
    }
    Ok(committed)
}

fn committed_values(address: SocketAddr) -> Result<Vec<String>> {
    let mut client = Client::connect(address)?;
    let end = client.list_offset("logs", 0, -1)?;
    let mut reader = CommittedReader::start(&mut client, "logs", 0)?;
    Ok(reader.read_to(&mut client, end)?.into_iter().map(|seen| seen.value).collect())
}

fn objects(folder: &Path) -> Result<String> {
    tools::output_of(varve()?.current_dir(folder).args(["tier", "describe", "logs", "--json"]))
}

#[test]
fn readers_of_committed_records_see_the_same_in_every_tier() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let settings = [
        "log.retention.check.interval.ms=100",
        "remote.log.manager.task.interval.ms=100",
        "varve.compactor.interval.ms=100",
        "log.segment.delete.delay.ms=0",
        "transaction.state.log.num.partitions=1",
        "offsets.topic.num.partitions=1",
    ];
    for format in ["raw", "parquet"] {
        let place = folder.path().join(format);
        std::fs::create_dir_all(&place)?;
        let node = Node::start(&place, &settings)?;
        let configs = [
            ("internal.segment.bytes", "10000"),
            ("retention.ms", "-1"),
            ("local.retention.ms", "1"),
            ("varve.archive.format", format),
            ("varve.archive.lag.ms", "500"),
        ];
        Client::connect(node.address)?.create_topic("logs", 1, &configs)?;
        let expected = write_transactions(node.address, 30)?;
        ensure!(committed_values(node.address)? == expected, "{format}: while some of it is hot");
        let mut client = Client::connect(node.address)?;
        let end = client.list_offset("logs", 0, -1)?;
        eventually(&format!("{format}: nothing is hot"), || {
            Ok((client.list_offset("logs", 0, -4)? == end && client.list_offset("logs", 0, -5)? + 1 == end)
                .then_some(()))
        })?;
        if format == "parquet" {
            eventually("Parquet alone is left", || {
                Ok(objects(&place).unwrap_or_default().contains("\"raw_objects\":0").then_some(()))
            })?;
        }
        ensure!(committed_values(node.address)? == expected, "{format}: from the archive alone");
        node.stop()?;
    }
    Ok(())
}
