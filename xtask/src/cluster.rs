//! A cluster on loopback: one etcd, some brokers, a bucket in a directory, ready for Kafka's own tools.

use std::{
    fs,
    io::{Read, Write},
    net::{Ipv4Addr, TcpStream},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use tokio::{
    signal::unix::{SignalKind, signal},
    time::timeout,
};

use crate::{
    run::{cargo, root, run_command},
    tools,
};

/// Where clients connect to the first broker; the others follow.
const FIRST_PORT: u16 = 9092;
/// Where the first broker's /metrics are; the others follow.
const FIRST_HTTP_PORT: u16 = 9644;
const ETCD_PORT: u16 = 23790;
/// Longest wait for brokers to take part.
const READY_LIMIT: Duration = Duration::from_secs(300);
/// Variables of these commands and their tests.
const OURS: [&str; 4] = ["VARVE_BINARY", "VARVE_CACHE", "VARVE_TEST_TOOLS", "VARVE_TEST_ALONE"];
/// How often somebody looks whether all are still there.
const LOOK: Duration = Duration::from_millis(500);
/// Longest wait for a broker to say whether it serves.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);

/// What to run, and where.
#[derive(Args)]
pub(crate) struct ClusterArguments {
    /// How many brokers
    #[arg(default_value_t = 3)]
    brokers: u16,
    /// The varve to run; built when absent
    #[arg(long)]
    bin: Option<PathBuf>,
    /// Where data and logs go
    #[arg(long, default_value = "varve-data/cluster")]
    data: PathBuf,
}

/// Runs a cluster until it is interrupted or terminated, or etcd ends.
pub(crate) fn run(arguments: ClusterArguments) -> Result<()> {
    let ClusterArguments { brokers, bin, data } = arguments;
    ensure!((1..=100).contains(&brokers), "between 1 and 100 brokers");
    let tools = tools::install_etcd()?;
    let bin = bin.map_or_else(build, Ok)?;
    let place = root().join(data);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (mut interrupt, mut terminate) = {
        let _entered = runtime.enter();
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?)
    };
    let mut is_told = async || {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    };
    // No broker of several makes the directory of their archive.
    fs::create_dir_all(place.join("bucket"))?;
    let mut processes = Processes { etcd: etcd(&tools, &place)?, brokers: Vec::new() };
    for id in 0..brokers {
        let broker = broker(&bin, &place, id, brokers)?;
        processes.brokers.push((id, broker));
    }
    processes.await_ready(&place, || runtime.block_on(async { timeout(LOOK, is_told()).await.is_ok() }))?;
    let addresses: Vec<String> = (0..brokers).map(|id| format!("127.0.0.1:{}", FIRST_PORT + id)).collect();
    println!("bootstrap.servers={}", addresses.join(","));
    println!("etcd on 127.0.0.1:{ETCD_PORT}, data and logs in {}; Ctrl-C stops all of it", place.display());
    while runtime.block_on(async { timeout(LOOK, is_told()).await.is_err() }) {
        if let Some(status) = processes.etcd.try_wait()? {
            bail!("etcd ended with {status}; see {}", place.display());
        }
        processes.report_ended(&place)?;
    }
    processes.stop()
}

fn build() -> Result<PathBuf> {
    let mut build = cargo();
    build.args(["build", "--release", "--locked", "--package", "varve-broker"]);
    run_command(build)?;
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from);
    Ok(target.join("release/varve"))
}

/// What is left of them is killed with the last look at them.
struct Processes {
    etcd: Child,
    brokers: Vec<(u16, Child)>,
}

impl Processes {
    /// Waits until every broker takes part; `is_told` waits a moment and says whether we are to end.
    fn await_ready(&mut self, place: &Path, mut is_told: impl FnMut() -> bool) -> Result<()> {
        let began = Instant::now();
        while !self.brokers.iter().all(|(id, _)| is_ready(*id)) {
            for (id, child) in &mut self.brokers {
                if let Some(status) = child.try_wait()? {
                    bail!("broker {id} ended with {status}; see {}", place.join(format!("broker-{id}")).display());
                }
            }
            ensure!(began.elapsed() < READY_LIMIT, "not every broker takes part; see {}", place.display());
            ensure!(!is_told(), "ended before every broker took part");
        }
        Ok(())
    }

    /// Tells which brokers have ended since the last look; the others go on, which is what a cluster is for.
    fn report_ended(&mut self, place: &Path) -> Result<()> {
        let mut running = Vec::with_capacity(self.brokers.len());
        for (id, mut child) in self.brokers.drain(..) {
            match child.try_wait()? {
                Some(status) => println!("broker {id} ended with {status}; see {}", place.display()),
                None => running.push((id, child)),
            }
        }
        self.brokers = running;
        Ok(())
    }

    /// Brokers hand over, close their logs and say good-bye in etcd, which ends after them.
    fn stop(mut self) -> Result<()> {
        println!("stopping");
        for (_, child) in &self.brokers {
            run_command({
                let mut kill = Command::new("kill");
                kill.args(["-TERM", &child.id().to_string()]);
                kill
            })?;
        }
        for (id, child) in &mut self.brokers {
            let status = child.wait()?;
            ensure!(status.success(), "broker {id} ended with {status}");
        }
        Ok(())
    }
}

impl Drop for Processes {
    fn drop(&mut self) {
        let brokers = self.brokers.iter_mut().map(|(_, child)| child);
        for child in brokers.chain([&mut self.etcd]) {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Whether a broker says at /readyz that it serves.
fn is_ready(id: u16) -> bool {
    let ask = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, FIRST_HTTP_PORT + id))?;
        stream.set_read_timeout(Some(ANSWER_LIMIT))?;
        stream.write_all(b"GET /readyz HTTP/1.1\r\nHost: varve\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    ask().is_ok_and(|answer| answer.starts_with("HTTP/1.1 200"))
}

fn etcd(tools: &Path, place: &Path) -> Result<Child> {
    let url = format!("http://127.0.0.1:{ETCD_PORT}");
    let mut command = Command::new(tools.join("bin/etcd"));
    command.arg("--data-dir").arg(place.join("etcd/data"));
    command.args(["--listen-client-urls", &url, "--advertise-client-urls", &url]);
    command.args(["--listen-peer-urls", "http://127.0.0.1:0", "--auto-compaction-retention", "1h"]);
    start(command, &place.join("etcd"))
}

fn broker(program: &Path, place: &Path, id: u16, brokers: u16) -> Result<Child> {
    let mut command = Command::new(program);
    // A broker takes every variable of this name for a setting.
    for name in OURS {
        command.env_remove(name);
    }
    for setting in [
        format!("node.id={id}"),
        format!("listeners=PLAINTEXT://127.0.0.1:{}", FIRST_PORT + id),
        format!("varve.http.listener=127.0.0.1:{}", FIRST_HTTP_PORT + id),
        format!("varve.metadata.url=etcd://127.0.0.1:{ETCD_PORT}/varve"),
        format!("varve.object.store.url=file://{}", place.join("bucket").display()),
        format!("default.replication.factor={}", brokers.min(3)),
        format!("min.insync.replicas={}", brokers.min(2)),
        format!("offsets.topic.replication.factor={}", brokers.min(3)),
        format!("transaction.state.log.replication.factor={}", brokers.min(3)),
        format!("transaction.state.log.min.isr={}", brokers.min(2)),
    ] {
        command.args(["--override", &setting]);
    }
    start(command, &place.join(format!("broker-{id}")))
}

/// Starts a process in a folder of its own, where it also writes what it prints. Ctrl-C reaches us alone, so that all end in
/// order.
fn start(mut command: Command, folder: &Path) -> Result<Child> {
    fs::create_dir_all(folder)?;
    let log = fs::OpenOptions::new().create(true).append(true).open(folder.join("output.log"))?;
    command.current_dir(folder).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).process_group(0);
    command.spawn().with_context(|| format!("starting {command:?}"))
}
