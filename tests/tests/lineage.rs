//! An archive with records that the leader never had: nothing goes on until an operator decides, and then all of it does.

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use varve_log::format::{BatchBuilder, RecordContent};
use varve_metadata::model::Offset;
use varve_tests::{
    client::Client,
    cluster::{Cluster, load::SETTINGS},
    kcat,
    node::{eventually, varve},
};

const COMMON: usize = 100;
const LOST: usize = 300;
const NEW: usize = 250;

/// What `varve tier` says, line by line, and whether it ended with success.
fn tier(cluster: &Cluster, arguments: &[&str]) -> Result<(bool, Vec<Value>)> {
    let addresses: Vec<String> = cluster.addresses().iter().map(ToString::to_string).collect();
    let bucket = cluster.folder(0).join("../bucket").canonicalize()?;
    let mut command = varve()?;
    command.arg("tier").args(arguments).arg("--json");
    command.args(["--override", &format!("varve.object.store.url=file://{}", bucket.display())]);
    if arguments[0] == "lineage" {
        command.args(["--bootstrap-server", &addresses.join(",")]);
    }
    let output = command.output()?;
    let (printed, said) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let lines = printed.lines().map(serde_json::from_str).collect::<Result<Vec<Value>, _>>();
    let lines = lines.with_context(|| format!("{arguments:?}: {printed}\n{said}"))?;
    ensure!(!lines.is_empty(), "{arguments:?} ended with {}:\n{said}", output.status);
    Ok((output.status.success(), lines))
}

/// What is archived, once more than half of `all` is: small segments leave a part of it on the disk.
fn await_archived(cluster: &Cluster, all: usize, is_so: impl Fn(&Value) -> bool) -> Result<Value> {
    eventually(&format!("most of {all} records are archived"), || {
        let Ok((_, lines)) = tier(cluster, &["describe", "torn"]) else { return Ok(None) };
        let is_archived = |line: &Value| line["end_offset"].as_u64().is_some_and(|end| end > all as u64 * 2 / 3);
        Ok(lines.into_iter().find(|line| is_archived(line) && is_so(line)))
    })
}

/// One batch for each record, so that segments end in the middle of what is written at a time.
fn produce(cluster: &Cluster, at: usize, what: &str, count: usize) -> Result<()> {
    let mut client = Client::connect(cluster.addresses()[at])?;
    for number in 0..count {
        let mut batch = BatchBuilder::new(Offset::ZERO);
        let value = format!("{what}-{number}");
        batch.push(RecordContent { timestamp: None, key: None, value: Some(value.as_bytes()), headers: &[] });
        let batch: bytes::Bytes = batch.build()?.into();
        eventually("it knows that it leads", || match client.produce("torn", 0, batch.clone()) {
            Err(error) if error.to_string().contains("NotLeaderOrFollower") => Ok(None),
            produced => produced.map(Some),
        })?;
    }
    Ok(())
}

#[test]
fn after_an_unclean_election_the_archive_goes_on_with_the_leaders_log_once_an_operator_says_so() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let settings = [&SETTINGS[..], &["log.retention.check.interval.ms=500"]].concat();
    let mut cluster = Cluster::start(folder.path(), 2, &settings)?;
    let configs = [
        ("unclean.leader.election.enable", "true"),
        ("min.insync.replicas", "1"),
        ("retention.ms", "-1"),
        ("internal.segment.bytes", "5000"),
        ("varve.archive.lag.ms", "-1"),
    ];
    Client::connect(cluster.addresses()[0])?.create_replicated("torn", 1, 2, &configs)?;
    let old = cluster.describe("torn")?[0].leader.context("a leader")?;
    let new = 1 - old;
    produce(&cluster, old, "common", COMMON)?;

    // Written and archived while one broker was away, which then leads without it.
    cluster.kill(new);
    eventually("the ISR shrinks", || Ok((cluster.describe("torn")?[0].isr == [old]).then_some(())))?;
    produce(&cluster, old, "lost", LOST)?;
    await_archived(&cluster, COMMON + LOST, |_| true)?;
    let (is_whole, lines) = tier(&cluster, &["lineage", "torn"])?;
    ensure!(is_whole && lines[0]["state"] == "one lineage", "{lines:?}");
    cluster.kill(old);
    // Nobody archives any more.
    let before = await_archived(&cluster, COMMON + LOST, |_| true)?;
    cluster.start_all(&[new])?;
    eventually("the one that was away leads", || {
        Ok(cluster.describe("torn").is_ok_and(|torn| torn[0].leader == Some(new)).then_some(()))
    })?;
    produce(&cluster, new, "new", NEW)?;
    eventually("the archive needs attention", || {
        Ok(cluster.printed(new)?.contains("the archive of this partition needs attention").then_some(()))
    })?;

    let (is_whole, lines) = tier(&cluster, &["lineage", "torn"])?;
    let parted = &lines[0];
    ensure!(!is_whole && parted["state"] == "parted", "{lines:?}");
    ensure!(parted["parted_at"] == COMMON && parted["archived"] == before["end_offset"], "{parted}");
    ensure!(parted["offsets_lost"].as_u64().is_some_and(|lost| lost > 0) && parted["leader"] == new, "{parted}");
    let (_, lines) = tier(&cluster, &["describe", "torn"])?;
    ensure!(lines[0]["end_offset"] == before["end_offset"] && lines[0]["set_aside"] == 0, "as before: {lines:?}");

    // Refused where the compactor has changed the archive since it was looked at.
    let lines = eventually("it is confirmed", || {
        let (is_done, lines) = tier(&cluster, &["lineage", "torn", "--confirm"])?;
        Ok(is_done.then_some(lines))
    })?;
    ensure!(lines[1]["from"] == COMMON, "{lines:?}");
    let (is_done, lines) = tier(&cluster, &["lineage", "torn", "--confirm"])?;
    ensure!(is_done && lines.len() == 1 && lines[0]["state"] == "one lineage", "nothing twice: {lines:?}");
    await_archived(&cluster, COMMON + NEW, |line| line["set_aside"].as_u64().is_some_and(|aside| aside > 0))?;
    let (is_whole, lines) = tier(&cluster, &["verify", "torn"])?;
    ensure!(is_whole, "{lines:?}");
    let expected: Vec<String> = (0..COMMON)
        .map(|number| format!("common-{number}"))
        .chain((0..NEW).map(|number| format!("new-{number}")))
        .collect();
    let read = |at: usize| -> Result<Vec<String>> {
        let mut read = kcat::read_committed(cluster.addresses()[at], "torn")?;
        read.sort_by_key(|record| record.offset);
        Ok(read.into_iter().map(|record| record.value).collect())
    };
    let found = read(new)?;
    ensure!(found == expected, "{} records: {found:?}", found.len());

    // The old leader gives up what nobody else has, and follows.
    cluster.start_all(&[old])?;
    cluster.await_isr("torn", 2)?;
    cluster.stop(new)?;
    eventually("it leads", || Ok((cluster.describe("torn")?[0].leader == Some(old)).then_some(())))?;
    let found = kcat::read_committed(cluster.addresses()[old], "torn")?;
    ensure!(found.len() == expected.len(), "{} records: {found:?}", found.len());
    Ok(())
}
