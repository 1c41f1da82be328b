//! Starting and killing `varve` processes on free loopback ports.

use std::{
    fs,
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::atomic::{AtomicU16, Ordering},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

use crate::{client::Client, running::signal};

/// Longest wait for a node to come up or go down, and for what a test waits for: enough on a machine that has much else to do.
const LIMIT: Duration = Duration::from_secs(300);

/// A running `varve`; killed when dropped.
pub struct Node {
    child: Child,
    /// Where clients connect.
    pub address: SocketAddr,
    /// Where `/metrics` is.
    pub http: SocketAddr,
    log: PathBuf,
}

/// The binary under test, built by Cargo beside the test.
///
/// # Errors
/// It is not there: `cargo xtask test` builds it, `cargo test -p varve-tests` alone does not.
pub fn binary() -> Result<PathBuf> {
    if let Some(given) = std::env::var_os("VARVE_BINARY") {
        return Ok(given.into());
    }
    let test = std::env::current_exe()?;
    let beside = test.ancestors().find(|folder| folder.join("varve").is_file());
    Ok(beside
        .context("the varve binary is not built: cargo build --package varve-broker, then test again")?
        .join("varve"))
}

/// The binary under test as a command, without the variables of this test, which it would take for settings of its own.
///
/// # Errors
/// As [`binary`].
pub fn varve() -> Result<Command> {
    Ok(varve_at(&binary()?))
}

/// The same for the `varve` at `path`.
pub fn varve_at(path: &Path) -> Command {
    let mut command = Command::new(path);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("VARVE_") {
            command.env_remove(name);
        }
    }
    command
}

/// A free loopback address that stays free while nobody listens there: the system takes the ports of outgoing connections
/// from above it, and a client that keeps trying to connect to such a port may get it and meet itself.
///
/// # Errors
/// A hundred ports are taken.
pub fn stable_address() -> Result<SocketAddr> {
    const FIRST: u16 = 10_000;
    const PORTS: u16 = 20_000;
    static NEXT: AtomicU16 = AtomicU16::new(0);
    for _ in 0..100 {
        // Tests of one process follow each other, those of several lie apart.
        let turn = NEXT.fetch_add(1, Ordering::Relaxed).wrapping_add((std::process::id() as u16).wrapping_mul(97));
        let address = SocketAddr::from(([127, 0, 0, 1], FIRST + turn % PORTS));
        if TcpListener::bind(address).is_ok() {
            return Ok(address);
        }
    }
    bail!("no free port from {FIRST} on")
}

impl Node {
    /// Starts a node in `folder` that listens on `address`, where it can be started again: see [`stable_address`].
    ///
    /// # Errors
    /// As [`Node::start`].
    pub fn start_at(folder: &Path, address: SocketAddr, overrides: &[&str]) -> Result<Node> {
        let listener = format!("listeners=PLAINTEXT://{address}");
        Node::start(folder, &[overrides, &[listener.as_str()]].concat())
    }

    /// Starts a node in `folder` (its `./varve-data` lies there) with configuration lines `overrides`, and waits until
    /// it answers.
    ///
    /// # Errors
    /// It ends or stays silent; with its log.
    pub fn start(folder: &Path, overrides: &[&str]) -> Result<Node> {
        Node::launch(folder, varve()?, overrides)
    }

    /// As [`Node::start`], from a command that was given a file or variables beforehand.
    ///
    /// # Errors
    /// As [`Node::start`].
    pub fn launch(folder: &Path, mut command: Command, overrides: &[&str]) -> Result<Node> {
        let log = folder.join("varve.log");
        let output = fs::OpenOptions::new().create(true).append(true).open(&log)?;
        let from = output.metadata()?.len();
        command.current_dir(folder).stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
        let ports = ["listeners=PLAINTEXT://127.0.0.1:0", "varve.http.listener=127.0.0.1:0"];
        for line in ports.iter().chain(overrides) {
            command.args(["--override", line]);
        }
        let mut child = command.spawn().with_context(|| format!("starting {command:?}"))?;
        let started = Instant::now();
        loop {
            let printed = fs::read(&log)?.split_off(from as usize);
            let printed = String::from_utf8_lossy(&printed).into_owned();
            if let (Some(address), Some(http)) = (announced(&printed, "kafka"), announced(&printed, "http"))
                && Client::connect(address).and_then(|mut client| client.api_versions()).is_ok()
            {
                return Ok(Node { child, address, http, log });
            }
            if let Some(status) = child.try_wait()? {
                bail!("varve ended with {status}:\n{printed}");
            }
            if started.elapsed() > LIMIT {
                let _ = child.kill();
                bail!("varve does not answer:\n{printed}");
            }
            std::thread::yield_now();
            std::thread::park_timeout(Duration::from_millis(1));
        }
    }

    /// Ends the process without a chance to say good-bye. The machine goes on: what it wrote is in the page cache.
    pub fn kill(mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Has the process hang, or go on after that: its connections stay open, and nobody answers there.
    ///
    /// # Errors
    /// It cannot be signalled.
    pub fn freeze(&self, is_frozen: bool) -> Result<()> {
        signal(self.child.id(), if is_frozen { "-STOP" } else { "-CONT" })
    }

    /// Asks the process to end (SIGTERM) and waits until it has.
    ///
    /// # Errors
    /// It does not end, or not with success.
    pub fn stop(mut self) -> Result<()> {
        signal(self.child.id(), "-TERM")?;
        let started = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait()? {
                anyhow::ensure!(status.success(), "varve ended with {status}:\n{}", self.printed());
                return Ok(());
            }
            anyhow::ensure!(started.elapsed() < LIMIT, "varve does not stop:\n{}", self.printed());
            std::thread::park_timeout(Duration::from_millis(2));
        }
    }

    /// Waits until the process has ended by itself.
    ///
    /// # Errors
    /// It goes on.
    pub fn ended(mut self) -> Result<ExitStatus> {
        eventually("varve ends", || Ok(self.child.try_wait()?)).with_context(|| self.printed())
    }

    /// Everything that nodes in this folder have printed.
    pub fn printed(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Where the listener `name` is.
    ///
    /// # Errors
    /// There is none.
    pub fn listener(&self, name: &str) -> Result<SocketAddr> {
        let wanted = format!(" name={name} ");
        // It is told of after the first one, which may be connected to by then.
        until(&format!("the listener {name}"), || {
            let printed = self.printed();
            let line = whole(&printed).lines().rfind(|line| line.contains("listening") && line.contains(&wanted));
            let word = line.and_then(|line| line.split_whitespace().find_map(|word| word.strip_prefix("address=")));
            word.with_context(|| format!("no listener {name} in\n{printed}"))?.parse().context("an address")
        })
    }

    /// The process's id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// A page of its HTTP listener, such as `/metrics`.
    ///
    /// # Errors
    /// No answer, or none with status 200.
    pub fn http_get(&self, path: &str) -> Result<String> {
        use std::io::{Read, Write};
        let mut stream = std::net::TcpStream::connect(self.http)?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: varve\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let (head, body) = answer.split_once("\r\n\r\n").context("an HTTP answer has a head")?;
        anyhow::ensure!(head.starts_with("HTTP/1.1 200"), "{path}: {head}");
        Ok(body.to_owned())
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The address in the line `listening protocol=<protocol> address=<address>` that a node logs for each socket, as text or as
/// JSON.
fn announced(printed: &str, protocol: &str) -> Option<SocketAddr> {
    let field = |line: &str, name: &str| match serde_json::from_str::<serde_json::Value>(line) {
        Ok(line) => line["fields"][name].as_str().map(str::to_owned),
        Err(_) => {
            let mut words = line.split_whitespace();
            words.find_map(|word| word.strip_prefix(name)?.strip_prefix('=')).map(str::to_owned)
        }
    };
    let mut lines = whole(printed).lines().filter(|line| line.contains("listening"));
    let line = lines.find(|line| field(line, "protocol").as_deref() == Some(protocol))?;
    field(line, "address")?.parse().ok()
}

/// What was printed without a last line of which the end may still come.
fn whole(printed: &str) -> &str {
    &printed[..printed.rfind('\n').map_or(0, |end| end + 1)]
}

/// Tries until it succeeds: for what may be refused, or not be there yet, as long as something goes on.
///
/// # Errors
/// `what` has not succeeded within five minutes; why the last attempt has not.
pub fn until<T>(what: &str, mut attempt: impl FnMut() -> Result<T>) -> Result<T> {
    let started = Instant::now();
    loop {
        match attempt() {
            Ok(value) => return Ok(value),
            Err(error) if started.elapsed() > LIMIT => {
                return Err(error.context(format!("not within {LIMIT:?}: {what}")));
            }
            Err(_) => std::thread::park_timeout(Duration::from_millis(20)),
        }
    }
}

/// Waits until `condition` gives a value, looking again and again.
///
/// # Errors
/// `what` has not come true within five minutes, or `condition` fails.
pub fn eventually<T>(what: &str, mut condition: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let started = Instant::now();
    loop {
        if let Some(value) = condition()? {
            return Ok(value);
        }
        if started.elapsed() > LIMIT {
            bail!("not within {LIMIT:?}: {what}");
        }
        std::thread::park_timeout(Duration::from_millis(20));
    }
}
