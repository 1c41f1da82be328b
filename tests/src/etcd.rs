//! An etcd of a test's own, on free loopback ports.

use std::{
    fs,
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, Stdio},
};

use anyhow::{Context, Result};

use crate::{node::eventually, tools};

/// One member; killed when dropped.
pub struct Etcd {
    child: Child,
    folder: PathBuf,
    address: SocketAddr,
    arguments: Vec<String>,
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
        // etcd cannot listen on a free port and come back to it: this one was free a moment ago.
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let arguments: Vec<String> = arguments.iter().map(|&argument| argument.to_owned()).collect();
        let child = launch(folder, address, &arguments)?;
        Ok(Etcd { child, folder: folder.to_owned(), address, arguments })
    }

    /// Where clients connect.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Ends it as a power switch would.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Starts it again on its data and its port.
    ///
    /// # Errors
    /// It does not answer.
    pub fn restart(&mut self) -> Result<()> {
        self.kill();
        self.child = launch(&self.folder, self.address, &self.arguments)?;
        Ok(())
    }

    /// Runs `etcdctl` against it.
    ///
    /// # Errors
    /// It fails; with what it printed.
    pub fn ctl(&self, arguments: &[&str]) -> Result<String> {
        let mut command = tools::program("etcdctl")?;
        command.env("ETCDCTL_API", "3").args(["--endpoints", &self.address.to_string()]).args(arguments);
        tools::output_of(&mut command)
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        self.kill();
    }
}

fn launch(folder: &Path, address: SocketAddr, arguments: &[String]) -> Result<Child> {
    let log_path = folder.join("etcd.log");
    let log = fs::OpenOptions::new().create(true).append(true).open(&log_path)?;
    let from = log.metadata()?.len() as usize;
    let scheme = if arguments.iter().any(|argument| argument.starts_with("--cert-file")) { "https" } else { "http" };
    let url = format!("{scheme}://{address}");
    let mut command = tools::program("etcd")?;
    command.args(["--name", "one", "--logger", "zap", "--data-dir"]).arg(folder.join("data"));
    command.args(["--listen-client-urls", &url, "--advertise-client-urls", &url]);
    command.args(["--listen-peer-urls", "http://127.0.0.1:0"]).args(arguments);
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    let mut child = command.spawn().with_context(|| format!("starting {command:?}"))?;
    let serving = eventually("etcd serves clients", || {
        let printed = fs::read(&log_path)?.split_off(from);
        let printed = String::from_utf8_lossy(&printed).into_owned();
        anyhow::ensure!(child.try_wait()?.is_none(), "etcd ended:\n{printed}");
        Ok(printed.contains("serving client traffic").then_some(()))
    });
    if let Err(error) = serving {
        let _ = child.kill();
        let _ = child.wait();
        return Err(error);
    }
    Ok(child)
}
