//! An etcd of a test's own, of one member or several, on free loopback ports or on hosts of a [`Network`](crate::network).

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Stdio},
};

use anyhow::{Context, Result};

use crate::{
    network::Host,
    node::{eventually, stable_address},
    running::signal,
    tools,
};

/// Where clients and members connect on a host of its own.
const PORTS: (u16, u16) = (2379, 2380);

/// What members are told by which they know each other, unless they are told otherwise.
pub const TOKEN: &str = "etcd-cluster";

/// One member; killed when dropped.
pub struct Etcd {
    child: Child,
    place: Place,
}

/// What stays when a member is started again.
struct Place {
    name: String,
    folder: PathBuf,
    address: SocketAddr,
    arguments: Vec<String>,
    /// Absent: where the test runs.
    host: Option<Host>,
}

impl Etcd {
    /// Starts an empty one whose data lies in `folder`.
    ///
    /// # Errors
    /// It does not answer.
    pub fn start(folder: &Path) -> Result<Etcd> {
        Etcd::start_with(folder, &[])
    }

    /// The same with more arguments. With `--cert-file` among them clients speak TLS.
    ///
    /// # Errors
    /// It does not answer.
    pub fn start_with(folder: &Path, arguments: &[&str]) -> Result<Etcd> {
        let mut arguments: Vec<String> = arguments.iter().map(|&argument| argument.to_owned()).collect();
        arguments.push("--listen-peer-urls=http://127.0.0.1:0".to_owned());
        let place = Place {
            name: "one".to_owned(),
            folder: folder.to_owned(),
            address: stable_address()?,
            arguments,
            host: None,
        };
        let mut child = place.launch()?;
        place.wait(&mut child)?;
        Ok(Etcd { child, place })
    }

    /// Starts `count` members that agree with each other, each in a folder of its own below `folder`.
    ///
    /// # Errors
    /// They do not answer.
    pub fn cluster(folder: &Path, count: usize) -> Result<Vec<Etcd>> {
        let ways = (0..count).map(|_| Ok((stable_address()?, stable_address()?, None)));
        Etcd::agreeing(folder, ways.collect::<Result<_>>()?)
    }

    /// The same with each member on a host of its own.
    ///
    /// # Errors
    /// They do not answer.
    pub fn cluster_on(folder: &Path, hosts: &[&Host]) -> Result<Vec<Etcd>> {
        let (client, peer) = PORTS;
        Etcd::agreeing(folder, hosts.iter().map(|&host| (host.at(client), host.at(peer), Some(host.clone()))).collect())
    }

    /// Members by where clients connect, where members do, and where they run.
    fn agreeing(folder: &Path, ways: Vec<(SocketAddr, SocketAddr, Option<Host>)>) -> Result<Vec<Etcd>> {
        let all: Vec<String> =
            ways.iter().enumerate().map(|(at, (_, peer, _))| format!("member-{at}=http://{peer}")).collect();
        let mut members = Vec::with_capacity(ways.len());
        for (at, (address, peer, host)) in ways.into_iter().enumerate() {
            let name = format!("member-{at}");
            let own = folder.join(&name);
            fs::create_dir_all(&own)?;
            let arguments = vec![
                format!("--listen-peer-urls=http://{peer}"),
                format!("--initial-advertise-peer-urls=http://{peer}"),
                format!("--initial-cluster={}", all.join(",")),
                "--initial-cluster-state=new".to_owned(),
            ];
            let place = Place { name, folder: own, address, arguments, host };
            members.push(Etcd { child: place.launch()?, place });
        }
        for Etcd { child, place } in &mut members {
            place.wait(child)?;
        }
        Ok(members)
    }

    /// Where clients connect.
    pub fn address(&self) -> SocketAddr {
        self.place.address
    }

    /// What the others call it.
    pub fn name(&self) -> &str {
        &self.place.name
    }

    /// Its process.
    pub fn process(&self) -> u32 {
        self.child.id()
    }

    /// Ends it without a chance to say good-bye.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Has it hang: its connections stay open, and nobody answers there.
    ///
    /// # Errors
    /// It cannot be signalled.
    pub fn freeze(&self) -> Result<()> {
        signal(self.child.id(), "-STOP")
    }

    /// Has it go on after [`freeze`](Self::freeze).
    ///
    /// # Errors
    /// It cannot be signalled.
    pub fn thaw(&self) -> Result<()> {
        signal(self.child.id(), "-CONT")
    }

    /// Whether this member leads the others, as far as it knows.
    pub fn leads(&self) -> bool {
        let Ok(said) =
            self.ctl(&["endpoint", "status", "--write-out=json", "--dial-timeout=2s", "--command-timeout=2s"])
        else {
            return false;
        };
        let said: serde_json::Value = serde_json::from_str(&said).unwrap_or_default();
        let status = &said[0]["Status"];
        status["leader"].is_u64() && status["leader"] == status["header"]["member_id"]
    }

    /// Starts it again on its data and its port.
    ///
    /// # Errors
    /// It does not answer.
    pub fn restart(&mut self) -> Result<()> {
        self.kill();
        let from = self.place.printed().len();
        self.child = self.place.launch()?;
        self.place.wait_from(&mut self.child, from)
    }

    /// Starts it again on its data and its port, and does not wait: alone it may not be able to serve.
    ///
    /// # Errors
    /// It does not start.
    pub fn relaunch(&mut self) -> Result<()> {
        self.kill();
        self.child = self.place.launch()?;
        Ok(())
    }

    /// Starts it again on its port without its data, as a member of `state` (`new`, `existing`).
    ///
    /// # Errors
    /// It does not answer.
    pub fn restart_empty(&mut self, state: &str) -> Result<()> {
        self.kill();
        fs::remove_dir_all(self.place.folder.join("data"))?;
        // The last one counts.
        self.place.arguments.push(format!("--initial-cluster-state={state}"));
        self.restart()
    }

    /// Saves all that it holds to the file `backup`.
    ///
    /// # Errors
    /// It does not answer.
    pub fn save(&self, backup: &Path) -> Result<()> {
        self.ctl(&["snapshot", "save", &backup.display().to_string()]).map(drop)
    }

    /// Starts it again on its port with what `backup` holds, as the members of `token`: [`TOKEN`] for those of before. For one that
    /// was started alone.
    ///
    /// # Errors
    /// The backup is none, or it does not answer.
    pub fn restore(&mut self, backup: &Path, token: &str) -> Result<()> {
        self.kill();
        let data = self.place.folder.join("data");
        fs::remove_dir_all(&data)?;
        let mut command = tools::program("etcdctl")?;
        // The address is etcd's own if none is given.
        let (name, peer) = (&self.place.name, "http://localhost:2380");
        command.env("ETCDCTL_API", "3").args(["snapshot", "restore"]).arg(backup).arg("--data-dir").arg(&data);
        command.args(["--name", name, "--initial-advertise-peer-urls", peer, "--initial-cluster-token", token]);
        command.args(["--initial-cluster", &format!("{name}={peer}")]);
        tools::output_of(&mut command)?;
        self.restart()
    }

    /// Runs `etcdctl` against it.
    ///
    /// # Errors
    /// It fails; with what it printed.
    pub fn ctl(&self, arguments: &[&str]) -> Result<String> {
        let mut command = tools::program("etcdctl")?;
        command.env("ETCDCTL_API", "3").args(["--endpoints", &self.place.address.to_string()]);
        // Its own are two and five seconds; whoever wants less says so behind these.
        command.args(["--dial-timeout=60s", "--command-timeout=60s"]).args(arguments);
        tools::output_of(&mut command)
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Place {
    fn launch(&self) -> Result<Child> {
        let log = fs::OpenOptions::new().create(true).append(true).open(self.log())?;
        let is_tls = self.arguments.iter().any(|argument| argument.starts_with("--cert-file"));
        let url = format!("{}://{}", if is_tls { "https" } else { "http" }, self.address);
        let mut command = tools::program("etcd")?;
        command.args(["--name", &self.name, "--logger", "zap", "--data-dir"]).arg(self.folder.join("data"));
        command.args(["--listen-client-urls", &url, "--advertise-client-urls", &url]).args(&self.arguments);
        if let Some(host) = &self.host {
            command = host.command(&command);
        }
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        command.spawn().with_context(|| format!("starting {command:?}"))
    }

    fn log(&self) -> PathBuf {
        self.folder.join("etcd.log")
    }

    fn printed(&self) -> String {
        fs::read(self.log()).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }

    fn wait(&self, child: &mut Child) -> Result<()> {
        self.wait_from(child, 0)
    }

    /// Waits until clients are served, as the log says behind `from`.
    fn wait_from(&self, child: &mut Child, from: usize) -> Result<()> {
        let serving = eventually("etcd serves clients", || {
            let printed = self.printed();
            let printed = printed.get(from..).unwrap_or_default();
            anyhow::ensure!(child.try_wait()?.is_none(), "etcd ended:\n{printed}");
            Ok(printed.contains("serving client traffic").then_some(()))
        });
        serving.inspect_err(|_| {
            let _ = child.kill();
            let _ = child.wait();
        })
    }
}
