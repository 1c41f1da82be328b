//! Programs that run beside a test: started, watched, asked to end, killed.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};

use crate::node::eventually;

/// Longest wait for a program to end once it was asked to.
const LIMIT: Duration = Duration::from_secs(300);

/// Sends a signal by the name that `kill` knows, such as `-STOP`.
///
/// # Errors
/// There is no such process.
pub fn signal(process: u32, signal: &str) -> Result<()> {
    let sent = Command::new("kill").args([signal, &process.to_string()]).status()?;
    ensure!(sent.success(), "process {process} cannot be sent {signal}");
    Ok(())
}

/// A program that runs; killed when dropped.
pub struct Running {
    child: Child,
    input: Option<ChildStdin>,
    log: PathBuf,
    /// Where in the log this one's output begins.
    from: usize,
}

impl Running {
    /// Starts `command`; what it prints is added to the file `log`.
    ///
    /// # Errors
    /// It cannot start.
    pub fn start(mut command: Command, log: &Path) -> Result<Running> {
        let output = fs::OpenOptions::new().create(true).append(true).open(log)?;
        let from = output.metadata()?.len() as usize;
        command.stdin(Stdio::piped()).stdout(output.try_clone()?).stderr(output);
        let mut child = command.spawn().with_context(|| format!("starting {command:?}"))?;
        let input = child.stdin.take();
        Ok(Running { child, input, log: log.to_owned(), from })
    }

    /// What it has printed so far.
    pub fn printed(&self) -> String {
        let all = fs::read(&self.log).unwrap_or_default();
        String::from_utf8_lossy(all.get(self.from..).unwrap_or_default()).into_owned()
    }

    /// Waits until it has printed `text`.
    ///
    /// # Errors
    /// It ends before that, or five minutes pass; with what it printed.
    pub fn until_it_says(&mut self, text: &str) -> Result<()> {
        let said = eventually(&format!("it says {text:?}"), || {
            let printed = self.printed();
            if printed.contains(text) {
                return Ok(Some(()));
            }
            let ended = self.child.try_wait()?;
            ensure!(ended.is_none(), "it ended with {ended:?}");
            Ok(None)
        });
        said.with_context(|| self.printed())
    }

    /// Whether it has ended, and how.
    ///
    /// # Errors
    /// The system does not tell.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// Ends it as a power switch would, without a chance to say good-bye.
    pub fn kill(mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Ends its input, which it takes as a sign to end, and waits until it has.
    ///
    /// # Errors
    /// It does not end, or not with success; with what it printed.
    pub fn end_input(mut self) -> Result<()> {
        drop(self.input.take());
        let status = self.wait()?;
        ensure!(status.success(), "it ended with {status}\n{}", self.printed());
        Ok(())
    }

    /// Asks it to end (SIGTERM) and waits until it has; Java's programs then end with status 143.
    ///
    /// # Errors
    /// It does not end, or fails; with what it printed.
    pub fn terminate(mut self) -> Result<()> {
        signal(self.child.id(), "-TERM")?;
        let status = self.wait()?;
        let signal = std::os::unix::process::ExitStatusExt::signal(&status);
        let as_asked = status.success() || status.code() == Some(143) || signal == Some(15);
        ensure!(as_asked, "it ended with {status}\n{}", self.printed());
        Ok(())
    }

    fn wait(&mut self) -> Result<ExitStatus> {
        let asked = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            if asked.elapsed() > LIMIT {
                bail!("it does not end:\n{}", self.printed());
            }
            std::thread::park_timeout(Duration::from_millis(5));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
