//! A cluster on loopback: one etcd, some brokers, a bucket in a directory, ready for Kafka's own tools.

use std::{
    fs,
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};

use crate::{
    run::{cargo, root, run_command},
    tools,
};

/// Where clients connect to the first broker; the others follow.
const FIRST_PORT: u16 = 9092;
/// Where the first broker's /metrics are; the others follow.
const FIRST_HTTP_PORT: u16 = 9644;
const ETCD_PORT: u16 = 23790;
/// How often somebody looks whether all are still there.
const LOOK: Duration = Duration::from_millis(500);

/// Runs a cluster of `brokers` in `varve-data/cluster` until it is interrupted, or one of its processes ends.
pub(crate) fn run(brokers: u16) -> Result<()> {
    ensure!((1..=100).contains(&brokers), "between 1 and 100 brokers");
    let tools = tools::install_etcd()?;
    let mut build = cargo();
    build.args(["build", "--release", "--locked", "--package", "varve-broker"]);
    run_command(build)?;
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), Into::into);
    let place = root().join("varve-data/cluster");
    let mut processes = Processes(vec![("etcd".to_owned(), etcd(&tools, &place)?)]);
    for id in 0..brokers {
        processes.0.push((format!("broker {id}"), broker(&target.join("release/varve"), &place, id)?));
    }
    let addresses: Vec<String> = (0..brokers).map(|id| format!("127.0.0.1:{}", FIRST_PORT + id)).collect();
    println!("bootstrap.servers={}", addresses.join(","));
    println!("etcd on 127.0.0.1:{ETCD_PORT}, data and logs in {}; Ctrl-C stops all of it", place.display());
    loop {
        for (name, child) in &mut processes.0 {
            if let Some(status) = child.try_wait()? {
                bail!("{name} ended with {status}; see {}", place.display());
            }
        }
        thread::sleep(LOOK);
    }
}

/// Killed with the last look at them.
struct Processes(Vec<(String, Child)>);

impl Drop for Processes {
    fn drop(&mut self) {
        for (_, child) in self.0.iter_mut().rev() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn etcd(tools: &Path, place: &Path) -> Result<Child> {
    let url = format!("http://127.0.0.1:{ETCD_PORT}");
    let mut command = Command::new(tools.join("bin/etcd"));
    command.arg("--data-dir").arg(place.join("etcd/data"));
    command.args(["--listen-client-urls", &url, "--advertise-client-urls", &url]);
    command.args(["--listen-peer-urls", "http://127.0.0.1:0", "--auto-compaction-retention", "1h"]);
    start(command, &place.join("etcd"))
}

fn broker(program: &Path, place: &Path, id: u16) -> Result<Child> {
    let mut command = Command::new(program);
    for setting in [
        format!("node.id={id}"),
        format!("listeners=PLAINTEXT://127.0.0.1:{}", FIRST_PORT + id),
        format!("varve.http.listener=127.0.0.1:{}", FIRST_HTTP_PORT + id),
        format!("varve.metadata.url=etcd://127.0.0.1:{ETCD_PORT}/varve"),
        format!("varve.object.store.url=file://{}", place.join("bucket").display()),
    ] {
        command.args(["--override", &setting]);
    }
    start(command, &place.join(format!("broker-{id}")))
}

/// Starts a process in a folder of its own, where it also writes what it prints.
fn start(mut command: Command, folder: &Path) -> Result<Child> {
    fs::create_dir_all(folder)?;
    let log = fs::OpenOptions::new().create(true).append(true).open(folder.join("output.log"))?;
    command.current_dir(folder).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    command.spawn().with_context(|| format!("starting {command:?}"))
}
