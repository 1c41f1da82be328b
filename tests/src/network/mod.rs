//! A network of hosts on one machine, each in a network namespace of its own, and everything between them in our hands.
//!
//! ```text
//! a test ─► unshare: the same test again, alone with a network, processes and mounts of its own
//!             │
//!             ├─ host "client": the namespace of that process itself
//!             └─ host "broker-0", …: a namespace each, held by a process that does nothing
//!                  every host has one interface, and all packets of all hosts go through the `Router`
//! ```
//! Packets are passed on by the test, so that a cut, a loss or a delay between any two hosts, one way or both, needs nothing of
//! the kernel but TUN devices: no packet filter and no netem, which many kernels lack. Whatever becomes of the test, its
//! namespaces, mounts and processes end with it.

mod router;

use std::{
    fs,
    io::{BufRead, BufReader},
    net::{Ipv4Addr, SocketAddr},
    os::unix::fs::MetadataExt,
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use anyhow::{Context, Result, ensure};

pub use router::{Path, Router};

use crate::tools::output_of;

/// Set in the process that is alone.
const ALONE: &str = "VARVE_TEST_ALONE";
/// Large, so that the test passes on few packets.
const MTU: &str = "9000";
/// Packets that wait in an interface for us.
const QUEUE: &str = "10000";

/// Runs the test called `name` in a process of its own, which has a network, processes and mounts that end with it.
///
/// # Errors
/// The test fails, or this machine lets nobody make namespaces (it wants root, or CAP_SYS_ADMIN and CAP_NET_ADMIN).
pub fn alone(name: &str, test: impl FnOnce() -> Result<()>) -> Result<()> {
    if std::env::var_os(ALONE).is_some() {
        output_of(Command::new("ip").args(["link", "set", "lo", "up"]))?;
        return test();
    }
    let mut command = Command::new("unshare");
    if fs::metadata("/proc/self")?.uid() != 0 {
        command.args(["--user", "--map-root-user"]);
    }
    command.args(["--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc", "--"]);
    command.arg(std::env::current_exe()?).args(["--exact", name, "--nocapture", "--include-ignored"]);
    let mut child = command
        .env(ALONE, "1")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .context("starting unshare (util-linux)")?;
    for line in BufReader::new(child.stdout.take().context("it was asked for")?).lines() {
        println!("{}", line?);
    }
    let status = child.wait()?;
    ensure!(status.success(), "{name}, alone with a network (which wants root): {status}");
    Ok(())
}

/// One host.
#[derive(Clone, Debug)]
pub struct Host {
    /// Its name.
    pub name: String,
    /// Its address, which no other host has.
    pub address: Ipv4Addr,
    /// Its namespace; absent for the one in which the test runs.
    namespace: Option<PathBuf>,
}

impl Host {
    /// The same command, run on this host.
    pub fn command(&self, command: &Command) -> Command {
        let mut there = match &self.namespace {
            None => Command::new(command.get_program()),
            Some(namespace) => {
                let mut enter = Command::new("nsenter");
                enter.arg(format!("--net={}", namespace.display())).arg("--").arg(command.get_program());
                enter
            }
        };
        there.args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => there.env(name, value),
                None => there.env_remove(name),
            };
        }
        if let Some(folder) = command.get_current_dir() {
            there.current_dir(folder);
        }
        there
    }

    /// An address of it with a port.
    pub fn at(&self, port: u16) -> SocketAddr {
        SocketAddr::from((self.address, port))
    }
}

fn device(at: usize) -> String {
    format!("tun{at}")
}

/// Hosts that reach each other, until it is dropped.
pub struct Network {
    hosts: Vec<Host>,
    holders: Vec<Child>,
    /// What lies between them.
    pub router: Router,
}

impl Network {
    /// Makes hosts of these names; the first is this process. `seed` decides which packets are lost where some are to be.
    ///
    /// # Errors
    /// The machine lacks what it takes: `ip`, `unshare`, /dev/net/tun, or the right to use them.
    pub fn of(names: &[String], seed: u64) -> Result<Network> {
        let mut network = Network { hosts: Vec::new(), holders: Vec::new(), router: Router::new(names.len(), seed) };
        for (name, at) in names.iter().zip(0..) {
            let address = router::address(at);
            let device = device(at);
            network.router.connect(at, &device)?;
            let namespace = (at > 0).then(|| network.hold(&device)).transpose().with_context(|| name.clone())?;
            let host = Host { name: name.clone(), address, namespace };
            let assigned = format!("{address}/24");
            for arguments in [
                ["addr", "add", &assigned, "dev", &device].as_slice(),
                &["link", "set", &device, "mtu", MTU, "txqueuelen", QUEUE, "up"],
            ] {
                output_of(&mut host.command(Command::new("ip").args(arguments)))?;
            }
            network.hosts.push(host);
        }
        network.router.start()?;
        Ok(network)
    }

    /// Makes a namespace and moves the device into it.
    fn hold(&mut self, device: &str) -> Result<PathBuf> {
        let mut holder = Command::new("unshare")
            .args(["--net", "--", "sh", "-c", "ip link set lo up && echo ready && exec cat"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("starting unshare (util-linux)")?;
        let id = holder.id().to_string();
        let said = holder.stdout.take().context("it was asked for")?;
        self.holders.push(holder);
        let mut line = String::new();
        BufReader::new(said).read_line(&mut line)?;
        ensure!(line == "ready\n", "no network namespace can be made");
        output_of(Command::new("ip").args(["link", "set", device, "netns", &id]))?;
        Ok(PathBuf::from(format!("/proc/{id}/ns/net")))
    }

    /// A host by its place among the names.
    pub fn host(&self, at: usize) -> &Host {
        &self.hosts[at]
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        self.router.end();
        for holder in &mut self.holders {
            let _ = holder.kill();
            let _ = holder.wait();
        }
        // The others' devices go with their namespaces; this process stays in its own, and may make another network there.
        let _ = output_of(Command::new("ip").args(["link", "delete", &device(0)]));
    }
}

#[cfg(test)]
mod tests {
    use std::{net::UdpSocket, time::Duration};

    use super::*;

    #[test]
    fn a_network_is_made_where_another_one_was() -> Result<()> {
        alone("network::tests::a_network_is_made_where_another_one_was", || {
            for seed in 0..2 {
                let network = Network::of(&["here", "there"].map(str::to_owned), seed)?;
                let socket = UdpSocket::bind(network.host(0).at(0))?;
                socket.set_read_timeout(Some(Duration::from_secs(60)))?;
                let send = format!("echo hello > /dev/udp/{}/{}", network.host(0).address, socket.local_addr()?.port());
                output_of(&mut network.host(1).command(Command::new("bash").args(["-c", &send])))?;
                let mut said = [0; 10];
                ensure!(socket.recv(&mut said)? == 6, "{said:?}");
            }
            Ok(())
        })
    }
}
