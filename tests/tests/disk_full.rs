//! A log directory without room: the partition stops taking writes with Kafka's error, nothing acknowledged is lost,
//! and service resumes when space returns. The small disk is a tmpfs, so this test wants root.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use varve_log::format::{BatchBuilder, RecordContent};
use varve_metadata::model::{Offset, ProducerEpoch, ProducerId, Sequence, Timestamp};
use varve_tests::{
    client::{Client, FetchSpec},
    node::{Node, eventually},
};

/// Kafka's code for "the disk refuses".
const KAFKA_STORAGE_ERROR: &str = "error 56";
const TOPIC: &str = "full";
/// From here on, a batch goes out as it came in: offset, length and leader epoch stand before it.
const MAGIC_AT: usize = 16;

/// A file system of 12 MiB, half of it taken by a file that can be removed.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(place: PathBuf) -> Result<SmallDisk> {
        fs::create_dir_all(&place)?;
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", "size=12m", "varve-test"]).arg(&place).output()?;
        ensure!(mounted.status.success(), "a tmpfs cannot be mounted (this test wants root): {mounted:?}");
        let disk = SmallDisk(place);
        disk.take_half()?;
        Ok(disk)
    }

    fn take_half(&self) -> Result<()> {
        Ok(fs::write(self.0.join("ballast"), vec![1; 6 << 20])?)
    }

    fn free_half(&self) -> Result<()> {
        Ok(fs::remove_file(self.0.join("ballast"))?)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

/// An idempotent producer that remembers what was acknowledged.
struct Writer {
    client: Client,
    id: ProducerId,
    epoch: ProducerEpoch,
    acknowledged: Vec<Bytes>,
}

impl Writer {
    fn new(node: &Node) -> Result<Writer> {
        let mut client = Client::connect(node.address)?;
        let (id, epoch) = client.init_producer_id()?;
        Ok(Writer { client, id, epoch, acknowledged: Vec::new() })
    }

    /// The batch that comes next: one record of about 60 KB.
    fn next(&self) -> Result<Bytes> {
        let number = self.acknowledged.len();
        let value: Vec<u8> = (0..60_000u32).map(|at| (at.wrapping_mul(number as u32 + 7) >> 5) as u8).collect();
        let sequence = Sequence::from_wire(i32::try_from(number)?);
        let mut batch = BatchBuilder::new(Offset::ZERO).producer(self.id, self.epoch, sequence);
        let today = std::time::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_millis() as i64);
        let timestamp = Timestamp::from_wire(today);
        batch.push(RecordContent { timestamp, key: None, value: Some(&value), headers: &[] });
        Ok(batch.build()?.into())
    }

    /// Sends `batch`; its offset, or the error's text.
    fn send(&mut self, batch: Bytes) -> Result<Result<i64, String>> {
        let sent = self.client.produce(TOPIC, 0, batch.clone());
        match sent {
            Ok(offset) => {
                ensure!(offset == self.acknowledged.len() as i64, "offset {offset} is not the next");
                self.acknowledged.push(batch);
                Ok(Ok(offset))
            }
            Err(error) => Ok(Err(format!("{error:#}"))),
        }
    }

    /// Writes until the disk refuses. The batch that was refused.
    fn fill(&mut self) -> Result<Bytes> {
        loop {
            ensure!(self.acknowledged.len() < 500, "the disk takes more than it can hold");
            let batch = self.next()?;
            if let Err(refusal) = self.send(batch.clone())? {
                ensure!(refusal.contains(KAFKA_STORAGE_ERROR), "refused with {refusal}");
                return Ok(batch);
            }
        }
    }
}

/// Every acknowledged batch is there, byte for byte, and nothing else.
fn all_is_there(node: &Node, acknowledged: &[Bytes]) -> Result<()> {
    let mut client = Client::connect(node.address)?;
    let end = client.list_offset(TOPIC, 0, -1)?;
    ensure!(end == acknowledged.len() as i64, "{end} offsets for {} batches", acknowledged.len());
    let fetch = FetchSpec { topic: TOPIC, partition: 0, max_bytes: 1, max_wait_ms: 100 };
    for (offset, batch) in acknowledged.iter().enumerate() {
        let found = client.fetch(&fetch, offset as i64)?;
        ensure!(found.get(MAGIC_AT..) == batch.get(MAGIC_AT..), "the batch at {offset} is another");
    }
    Ok(())
}

/// A node on a small disk of its own, with a topic that stays on it.
fn node_on_small_disk(folder: &Path) -> Result<(SmallDisk, String, Node)> {
    let disk = SmallDisk::mount(folder.join("small"))?;
    let setting = format!("log.dirs={}", disk.0.join("log").display());
    let node = Node::start(folder, &[&setting, "offsets.topic.num.partitions=1"])?;
    Client::connect(node.address)?.create_topic(TOPIC, 1, &[("remote.storage.enable", "false")])?;
    Ok((disk, setting, node))
}

#[test]
fn a_full_disk_refuses_writes_serves_the_rest_and_takes_them_again_when_space_returns() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (disk, setting, node) = node_on_small_disk(folder.path())?;
    let mut writer = Writer::new(&node)?;
    let refused = writer.fill()?;
    ensure!(writer.acknowledged.len() > 50, "only {} batches fit", writer.acknowledged.len());

    // Refused again and again in the same words, while everything that needs no room is answered.
    for _ in 0..3 {
        let again = writer.send(refused.clone())?;
        ensure!(again.is_err_and(|refusal| refusal.contains(KAFKA_STORAGE_ERROR)), "still full");
    }
    all_is_there(&node, &writer.acknowledged)?;
    ensure!(node.http_get("/healthz")? == "ok\n", "the node is alive");
    let metrics = node.http_get("/metrics")?;
    ensure!(metrics.lines().any(|line| line == "varve_offline_partitions 0"), "no partition is offline:\n{metrics}");
    Client::connect(node.address)?.api_versions()?;

    disk.free_half()?;
    eventually("the same batch is taken", || Ok(writer.send(refused.clone())?.ok()))?;
    for _ in 0..10 {
        let batch = writer.next()?;
        writer.send(batch)?.map_err(anyhow::Error::msg)?;
    }
    all_is_there(&node, &writer.acknowledged)?;
    node.stop()?;
    let node = Node::start(folder.path(), &[&setting])?;
    all_is_there(&node, &writer.acknowledged)?;
    node.stop()
}

#[test]
fn a_node_killed_on_a_full_disk_comes_back_with_everything_and_goes_on_when_space_returns() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (disk, setting, node) = node_on_small_disk(folder.path())?;
    let mut writer = Writer::new(&node)?;
    let refused = writer.fill()?;
    node.kill();

    let node = Node::start(folder.path(), &[&setting])?;
    disk.free_half()?;
    writer.client = Client::connect(node.address)?;
    eventually("the same batch is taken", || Ok(writer.send(refused.clone())?.ok()))?;
    all_is_there(&node, &writer.acknowledged)?;
    node.stop()
}

#[test]
fn another_log_directory_takes_writes_while_one_is_full() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let disk = SmallDisk::mount(folder.path().join("small"))?;
    let roomy = folder.path().join("roomy");
    let setting = format!("log.dirs={},{}", disk.0.join("log").display(), roomy.display());
    let node = Node::start(folder.path(), &[&setting])?;
    let mut client = Client::connect(node.address)?;
    // Partitions are spread over the directories: one of these two lies on the small disk.
    client.create_topic(TOPIC, 2, &[("remote.storage.enable", "false")])?;
    let small =
        (0..2).find(|index| disk.0.join(format!("log/{TOPIC}-{index}")).exists()).context("a partition there")?;
    let writer = Writer::new(&node)?;
    let batch = writer.next()?;
    fs::write(disk.0.join("rest"), vec![1; 12 << 20]).expect_err("this takes what is left");
    let refusal = eventually("the full disk refuses", || {
        Ok(client.produce(TOPIC, small, batch.clone()).err().map(|error| format!("{error:#}")))
    })?;
    ensure!(refusal.contains(KAFKA_STORAGE_ERROR), "refused with {refusal}");
    let before = client.list_offset(TOPIC, 1 - small, -1)?;
    ensure!(client.produce(TOPIC, 1 - small, batch)? == before, "the other directory has room");
    node.stop()
}
