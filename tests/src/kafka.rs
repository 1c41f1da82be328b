//! Starting Apache Kafka itself, the measure of what Varve answers.

use std::{
    fs,
    net::SocketAddr,
    path::Path,
    process::{Child, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Result, bail};

use crate::{client::Client, node::stable_address, tools};

/// Longest wait for a broker to come up.
const LIMIT: Duration = Duration::from_secs(300);

/// A running Apache Kafka, broker and controller in one process; killed when dropped.
pub struct Kafka {
    child: Child,
    /// Where clients connect.
    pub address: SocketAddr,
    /// Where its controller listens.
    pub controller: SocketAddr,
}

impl Kafka {
    /// Formats a log directory in `folder` and starts a broker on it, with configuration lines `overrides`. It has
    /// answered when this returns.
    ///
    /// # Errors
    /// The tools are not installed, or the broker ends or stays silent; with its log.
    pub fn start(folder: &Path, overrides: &[&str]) -> Result<Kafka> {
        let (address, controller) = (stable_address()?, stable_address()?);
        let properties = folder.join("server.properties");
        let own = format!(
            "process.roles=broker,controller\nnode.id=1\ncontroller.quorum.voters=1@{controller}\n\
             listeners=PLAINTEXT://{address},CONTROLLER://{controller}\nadvertised.listeners=PLAINTEXT://{address}\n\
             controller.listener.names=CONTROLLER\n\
             listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT\nlog.dirs={}\n",
            folder.join("data").display()
        );
        fs::write(&properties, own + &overrides.join("\n"))?;
        let mut format = tools::program("kafka-storage.sh")?;
        format.args(["format", "-t", "MkU3OEVBNTcwNTJENDM2Qk", "-c"]).arg(&properties);
        tools::output_of(&mut format)?;
        let log = folder.join("kafka.log");
        let output = fs::File::create(&log)?;
        let mut command = tools::program("kafka-server-start.sh")?;
        command.arg(&properties).stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
        let mut child = command.spawn()?;
        let started = Instant::now();
        loop {
            if Client::connect(address).and_then(|mut client| client.api_versions()).is_ok() {
                return Ok(Kafka { child, address, controller });
            }
            let ended = child.try_wait()?;
            if ended.is_some() || started.elapsed() > LIMIT {
                let _ = child.kill();
                bail!("Kafka does not answer ({ended:?}):\n{}", fs::read_to_string(&log).unwrap_or_default());
            }
            std::thread::park_timeout(Duration::from_millis(20));
        }
    }
}

impl Drop for Kafka {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
