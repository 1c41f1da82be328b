//! Many connections to one node: ten thousand that say nothing, a thousand that all ask, and what they weigh.

use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use varve_tests::node::{Node, eventually};

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
        stream.set_read_timeout(Some(Duration::from_secs(60)))?;
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

#[test]
fn whoever_is_in_the_middle_of_something_when_the_node_stops_gets_an_answer() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let node = Node::start(folder.path(), &[])?;
    let mut asking = TcpStream::connect(node.address)?;
    asking.write_all(&REQUEST)?;
    let mut idle = TcpStream::connect(node.address)?;
    ensure!(!answer(&mut asking)?.is_empty(), "an answer");
    node.stop()?;
    ensure!(idle.read(&mut [0])? == 0, "and the others an end, not a reset");
    Ok(())
}
