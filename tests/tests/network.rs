//! Many connections to one node: ten thousand that say nothing, a thousand that all ask, hundreds that ask and read nothing, and
//! what they weigh.

use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use kafka_protocol::{
    messages::{
        FetchRequest, TopicName,
        fetch_request::{FetchPartition, FetchTopic},
    },
    protocol::StrBytes,
};
use varve_log::format::{BatchBuilder, RecordContent};
use varve_metadata::model::Offset;
use varve_tests::{
    client::{Client, FetchSpec, produce_frame},
    differential::frame,
    node::{Node, eventually},
};

const IDLE: usize = 10_000;
const BUSY: usize = 1_000;
/// What an idle connection may weigh in the node, in kilobytes: a task and a place in some tables.
const IDLE_KILOBYTES: usize = 8;

/// The node's resident memory, in kilobytes.
fn resident(node: &Node) -> Result<usize> {
    let status = fs::read_to_string(format!("/proc/{}/status", node.pid()))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("a process has memory")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}

/// ApiVersions, version 0.
const REQUEST: [u8; 14] = [0, 0, 0, 10, 0, 18, 0, 0, 0, 0, 0, 7, 0xff, 0xff];

fn answer(stream: &mut TcpStream) -> Result<Vec<u8>> {
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    let mut answer = vec![0; usize::try_from(i32::from_be_bytes(length))?];
    stream.read_exact(&mut answer)?;
    Ok(answer)
}

#[test]
fn ten_thousand_idle_connections_weigh_little_and_a_thousand_busy_ones_are_answered() -> Result<()> {
    // One end of each is in this process, the other one in the node, which raises its own limit.
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let raised = rustix::process::Rlimit { current: limit.maximum, maximum: limit.maximum };
    rustix::process::setrlimit(rustix::process::Resource::Nofile, raised)?;
    let possible = limit.maximum.is_none_or(|maximum| maximum > (IDLE + BUSY + 1000) as u64);
    ensure!(possible, "the hard limit of open files is too low for this test: {:?}", limit.maximum);

    let folder = tempfile::tempdir()?;
    let node = Node::start(folder.path(), &["socket.listen.backlog.size=4096"])?;
    let connect = || -> Result<TcpStream> {
        let stream = TcpStream::connect(node.address)?;
        stream.set_read_timeout(Some(Duration::from_secs(300)))?;
        Ok(stream)
    };
    let open = |at_least: usize| {
        eventually(&format!("{at_least} connections are open"), || {
            let metrics = node.http_get("/metrics")?;
            let count = metrics.lines().find_map(|line| line.strip_prefix("varve_connections ")).context("a gauge")?;
            Ok((count.parse::<usize>()? >= at_least).then_some(()))
        })
    };
    // What the first ones need once is not what each of them needs.
    let first: Vec<TcpStream> = (0..100).map(|_| connect()).collect::<Result<_>>()?;
    open(first.len())?;
    let before = resident(&node)?;
    let idle: Vec<TcpStream> = (0..IDLE).map(|_| connect()).collect::<Result<_>>()?;
    open(IDLE)?;
    let grown = resident(&node)?.saturating_sub(before);
    ensure!(grown < IDLE * IDLE_KILOBYTES, "{IDLE} idle connections take {grown} kB");

    let mut busy: Vec<TcpStream> = (0..BUSY).map(|_| connect()).collect::<Result<_>>()?;
    for _ in 0..3 {
        for stream in &mut busy {
            stream.write_all(&REQUEST)?;
        }
        for stream in &mut busy {
            ensure!(answer(stream)?.starts_with(&[0, 0, 0, 7, 0, 0]), "ApiVersions is answered");
        }
    }
    // The idle ones are as good as they were.
    for mut stream in idle.into_iter().step_by(1000) {
        stream.write_all(&REQUEST)?;
        answer(&mut stream)?;
    }
    drop((first, busy));
    node.stop()
}

/// Readers that read nothing, and writers that stop in the middle, each as many.
const SLOW: usize = 128;
/// What the former ask for at once, and more than what sockets hold.
const ASKED_BYTES: i32 = 16 << 20;
/// Of a batch.
const BATCH_BYTES: usize = 900_000;
/// What all of them may weigh in the node together: what the writers sent, and some buffers for each.
const SLOW_KILOBYTES: usize = SLOW * (BATCH_BYTES + (64 << 10)) / 1024;

fn batch() -> Result<bytes::Bytes> {
    let value = vec![b'x'; BATCH_BYTES];
    let mut batch = BatchBuilder::new(Offset::ZERO);
    batch.push(RecordContent { timestamp: None, key: None, value: Some(&value), headers: &[] });
    Ok(batch.build()?.into())
}

fn fetch_of_everything() -> Result<Vec<u8>> {
    let partition = FetchPartition::default()
        .with_current_leader_epoch(-1)
        .with_last_fetched_epoch(-1)
        .with_log_start_offset(-1)
        .with_partition_max_bytes(ASKED_BYTES);
    let topic = TopicName(StrBytes::from_static_str("logs"));
    let topic = FetchTopic::default().with_topic(topic).with_partitions(vec![partition]);
    let request = FetchRequest::default()
        .with_replica_id((-1).into())
        .with_max_bytes(ASKED_BYTES)
        .with_session_epoch(-1)
        .with_topics(vec![topic]);
    frame(12, &request)
}

#[test]
fn readers_that_read_nothing_and_writers_that_stop_halfway_cost_only_themselves() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let node = Node::start(folder.path(), &[])?;
    let mut client = Client::connect(node.address)?;
    client.create_topic("logs", 1, &[])?;
    let batch = batch()?;
    for _ in 0..ASKED_BYTES as usize / BATCH_BYTES {
        client.produce("logs", 0, batch.clone())?;
    }
    let before = resident(&node)?;

    let fetch = fetch_of_everything()?;
    let ask = || -> Result<TcpStream> {
        let mut stream = TcpStream::connect(node.address)?;
        stream.write_all(&fetch)?;
        Ok(stream)
    };
    let readers: Vec<TcpStream> = (0..SLOW).map(|_| ask()).collect::<Result<_>>()?;
    let produce = produce_frame("logs", &[(0, batch.clone())])?;
    let stop_halfway = || -> Result<TcpStream> {
        let mut stream = TcpStream::connect(node.address)?;
        stream.write_all(&produce[..produce.len() / 2])?;
        Ok(stream)
    };
    let writers: Vec<TcpStream> = (0..SLOW).map(|_| stop_halfway()).collect::<Result<_>>()?;
    let count = |name: &str| -> Result<usize> {
        let metrics = node.http_get("/metrics")?;
        let value = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        Ok(value.with_context(|| format!("no {name} in\n{metrics}"))?.parse()?)
    };
    eventually("all of them are in the node", || {
        let answered = count("varve_request_seconds_count{api=\"Fetch\"}")?;
        Ok((answered == SLOW && count("varve_request_memory_bytes")? >= SLOW * BATCH_BYTES).then_some(()))
    })?;

    // Long before the writers are given up.
    client.wait_at_most(Duration::from_secs(25))?;
    let end = client.produce("logs", 0, batch.clone())?;
    let last = FetchSpec { topic: "logs", partition: 0, max_bytes: 2 << 20, max_wait_ms: 0 };
    ensure!(client.fetch(&last, end)?.len() >= BATCH_BYTES, "others read and write");
    let mut newcomer = Client::connect(node.address)?;
    newcomer.wait_at_most(Duration::from_secs(25))?;
    ensure!(newcomer.fetch(&last, end)?.len() >= BATCH_BYTES, "and so do those who come later");
    let grown = resident(&node)?.saturating_sub(before);
    ensure!(grown < SLOW_KILOBYTES, "{SLOW} slow readers and {SLOW} writers weigh {grown} kB");

    // Some of the readers only took their time.
    for mut reader in readers.into_iter().step_by(16) {
        reader.set_read_timeout(Some(Duration::from_secs(300)))?;
        ensure!(
            answer(&mut reader)?.len() > ASKED_BYTES as usize - 2 * BATCH_BYTES,
            "an answer comes whole, however late"
        );
    }
    drop(writers);
    node.stop()
}

#[test]
fn whoever_is_in_the_middle_of_something_when_the_node_stops_gets_an_answer() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let node = Node::start(folder.path(), &[])?;
    let mut asking = TcpStream::connect(node.address)?;
    asking.write_all(&REQUEST)?;
    let mut idle = TcpStream::connect(node.address)?;
    ensure!(!answer(&mut asking)?.is_empty(), "an answer");
    // Connections are taken in their order: with this one the node has taken the one that says nothing.
    let mut last = TcpStream::connect(node.address)?;
    last.write_all(&REQUEST)?;
    ensure!(!answer(&mut last)?.is_empty(), "an answer to who came last");
    node.stop()?;
    ensure!(idle.read(&mut [0])? == 0, "and the others an end, not a reset");
    Ok(())
}
