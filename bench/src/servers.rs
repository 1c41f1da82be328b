//! Starting each broker on an empty folder, on free loopback ports.

use std::{
    fs,
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

use varve_tests::client::Client;

use crate::{Settings, process::Process};

/// Which broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
pub(crate) enum Kind {
    Kafka,
    Varve,
}

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Kind::Kafka => "Apache Kafka",
            Kind::Varve => "Varve",
        }
    }
}

/// A running broker with its data folder.
pub(crate) struct Server {
    pub(crate) process: Process,
    pub(crate) address: SocketAddr,
    /// Where it speaks TLS, if it does.
    pub(crate) tls: Option<SocketAddr>,
    /// From the start of the process to the first answered request.
    pub(crate) time_to_first_answer: Duration,
    folder: tempfile::TempDir,
}

/// For Varve: the archive has its own measurement, and Kafka has none. Elsewhere both keep everything local.
pub(crate) const LOCAL_ONLY: &str = "remote.log.storage.system.enable=false";

/// Longest wait for a broker to answer its first request.
const START_LIMIT: Duration = Duration::from_secs(60);

impl Server {
    /// Starts a broker with its own defaults; `overrides` are Kafka configuration lines for Varve only, `both` for either.
    pub(crate) fn start(settings: &Settings, kind: Kind, overrides: &[&str], both: &[&str]) -> Result<Server> {
        Server::start_in(settings, kind, overrides, both, false, folder_for(settings)?)
    }

    /// The same with a listener for TLS beside the plain one.
    pub(crate) fn start_with_tls(settings: &Settings, kind: Kind, overrides: &[&str], both: &[&str]) -> Result<Server> {
        Server::start_in(settings, kind, overrides, both, true, folder_for(settings)?)
    }

    /// Ends the process as an operator would, and starts it again on its data.
    pub(crate) fn restart(self, settings: &Settings, kind: Kind, overrides: &[&str]) -> Result<Server> {
        self.process.stop()?;
        Server::start_in(settings, kind, overrides, &[], false, self.folder)
    }

    /// Where its data is.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    fn start_in(
        settings: &Settings,
        kind: Kind,
        overrides: &[&str],
        both: &[&str],
        with_tls: bool,
        folder: tempfile::TempDir,
    ) -> Result<Server> {
        let address = free_port()?;
        let tls = with_tls.then(free_port).transpose()?;
        let mut listeners = format!("PLAINTEXT://{address}");
        if let Some(tls) = tls {
            listeners += &format!(",SSL://{tls}");
        }
        let command = match kind {
            Kind::Varve => varve_command(settings, folder.path(), &listeners, &[overrides, both].concat())?,
            Kind::Kafka => kafka_command(settings, folder.path(), &listeners, &Quorum::of_one()?, both)?,
        };
        let log = folder.path().join("broker.out");
        let started = Instant::now();
        let process = Process::start(command, &log)?;
        await_answer(kind, address, &log)?;
        Ok(Server { process, address, tls, time_to_first_answer: started.elapsed(), folder })
    }
}

/// An empty folder for data, gone when dropped.
pub(crate) fn folder_for(settings: &Settings) -> Result<tempfile::TempDir> {
    Ok(match &settings.scratch {
        Some(scratch) => {
            std::fs::create_dir_all(scratch)?;
            tempfile::tempdir_in(scratch)?
        }
        None => tempfile::tempdir()?,
    })
}

/// Waits until the broker at `address` answers a request; `log` is where it prints.
pub(crate) fn await_answer(kind: Kind, address: SocketAddr, log: &Path) -> Result<()> {
    let started = Instant::now();
    while Client::connect(address).and_then(|mut client| client.api_versions()).is_err() {
        if started.elapsed() > START_LIMIT {
            let output = fs::read_to_string(log).unwrap_or_default();
            bail!("{} does not answer on {address}:\n{output}", kind.name());
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    Ok(())
}

/// The varve binary.
pub(crate) fn varve(settings: &Settings) -> Result<Command> {
    let program = match &settings.varve {
        Some(program) => program.clone(),
        None => std::env::current_exe()?.with_file_name("varve"),
    };
    if !program.exists() {
        bail!("{} does not exist: cargo build --release first, or --varve PATH", program.display());
    }
    let mut command = Command::new(program);
    // Where the tools are is said to this program; a node would take it for a setting that it does not know.
    command.env_remove("VARVE_TEST_TOOLS");
    Ok(command)
}

/// A varve that runs in `folder`.
pub(crate) fn varve_command(
    settings: &Settings,
    folder: &Path,
    listeners: &str,
    overrides: &[&str],
) -> Result<Command> {
    let mut command = varve(settings)?;
    command.current_dir(folder);
    let listener = format!("listeners={listeners}");
    for line in [listener.as_str(), "varve.http.listener=127.0.0.1:0"].iter().chain(overrides) {
        command.args(["--override", line]);
    }
    Ok(command)
}

/// Which of several nodes of Kafka one is, and where their controllers listen; ids count from 1.
pub(crate) struct Quorum<'a> {
    pub(crate) id: usize,
    pub(crate) controllers: std::borrow::Cow<'a, [SocketAddr]>,
}

impl Quorum<'_> {
    fn of_one() -> Result<Quorum<'static>> {
        Ok(Quorum { id: 1, controllers: vec![free_port()?].into() })
    }
}

/// KRaft, broker and controller in one process, Kafka's own start script's JVM settings. An empty `folder` is formatted.
pub(crate) fn kafka_command(
    settings: &Settings,
    folder: &Path,
    listeners: &str,
    quorum: &Quorum<'_>,
    more: &[&str],
) -> Result<Command> {
    let libs = tools(settings)?.join("kafka/libs");
    let id = quorum.id;
    let controller = quorum.controllers[id - 1];
    let voters: Vec<String> =
        quorum.controllers.iter().enumerate().map(|(at, address)| format!("{}@{address}", at + 1)).collect();
    let voters = voters.join(",");
    let properties = folder.join("server.properties");
    fs::write(
        &properties,
        format!(
            "process.roles=broker,controller\nnode.id={id}\ncontroller.quorum.voters={voters}\n\
             listeners={listeners},CONTROLLER://{controller}\nadvertised.listeners={listeners}\n\
             controller.listener.names=CONTROLLER\n\
             listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SSL:SSL\n\
             log.dirs={}\noffsets.topic.replication.factor={}\n{}\n",
            folder.join("data").display(),
            quorum.controllers.len(),
            more.join("\n")
        ),
    )?;
    let class_path = format!("{}/*", libs.display());
    let format = Command::new("java")
        .args(["-cp", &class_path, "kafka.tools.StorageTool", "format", "-g", "-t", "MkU3OEVBNTcwNTJENDM2Qk", "-c"])
        .arg(&properties)
        .output()
        .context("starting java")?;
    if !format.status.success() {
        bail!("formatting Kafka's storage: {}", String::from_utf8_lossy(&format.stdout));
    }
    let mut command = Command::new("java");
    command.args(["-Xmx1G", "-Xms1G", "-server", "-XX:+UseG1GC", "-XX:MaxGCPauseMillis=20"]);
    command.args(["-XX:InitiatingHeapOccupancyPercent=35", "-XX:+ExplicitGCInvokesConcurrent"]);
    command.args(["-Djava.awt.headless=true", "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn"]);
    command.args(["-cp", &class_path, "kafka.Kafka"]).arg(&properties);
    Ok(command)
}

pub(crate) fn tools(settings: &Settings) -> Result<PathBuf> {
    match &settings.tools {
        Some(tools) => Ok(tools.clone()),
        None => {
            let home = std::env::var_os("HOME").context("HOME is not set; pass --tools")?;
            Ok(Path::new(&home).join(".cache/varve/tools"))
        }
    }
}

pub(crate) fn free_port() -> Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}
