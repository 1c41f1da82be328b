//! What the kernel counted for a broker's process, and for this one.

use std::{
    fs,
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread::JoinHandle,
    time::Duration,
};

use anyhow::{Context, Result};
use varve_tests::process_stat::{cpu_of, resident_megabytes};

/// How often a process's memory is looked at while it is under load.
const SAMPLE: Duration = Duration::from_millis(50);

/// A broker's process; ended when dropped.
pub(crate) struct Process {
    child: Child,
}

impl Process {
    /// Starts `command` with its output in `log`.
    pub(crate) fn start(mut command: Command, log: &std::path::Path) -> Result<Process> {
        let output = fs::File::create(log)?;
        command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
        let child = command.spawn().with_context(|| format!("starting {command:?}"))?;
        Ok(Process { child })
    }

    /// Asks it to end, and waits until it has.
    pub(crate) fn stop(mut self) -> Result<()> {
        let id = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(id, rustix::process::Signal::TERM)?;
        let status = self.child.wait()?;
        anyhow::ensure!(status.success(), "a broker that was asked to stop ended with {status}");
        Ok(())
    }

    /// CPU time of all its threads so far, user and system.
    pub(crate) fn cpu(&self) -> Result<Duration> {
        cpu_of(self.child.id())
    }

    /// Resident memory, in MB: heap, stacks and code, not pages of log files.
    pub(crate) fn resident_megabytes(&self) -> Result<f64> {
        resident_megabytes(self.child.id())
    }

    /// Looks at its resident memory again and again, until the outcome is asked for.
    pub(crate) fn watch_resident(&self) -> Watched {
        let (stop, stopped) = mpsc::channel::<()>();
        let id = self.child.id();
        let most = std::thread::spawn(move || {
            let mut most = resident_megabytes(id)?;
            while stopped.recv_timeout(SAMPLE) == Err(mpsc::RecvTimeoutError::Timeout) {
                most = most.max(resident_megabytes(id)?);
            }
            Ok(most)
        });
        Watched { stop, most }
    }
}

/// A process whose memory is watched.
pub(crate) struct Watched {
    stop: mpsc::Sender<()>,
    most: JoinHandle<Result<f64>>,
}

impl Watched {
    /// The largest resident size that was seen, in MB.
    pub(crate) fn most_megabytes(self) -> Result<f64> {
        drop(self.stop);
        self.most.join().expect("the watch does not panic")
    }
}

/// CPU time of this process, which makes the load.
pub(crate) fn own_cpu() -> Result<Duration> {
    cpu_of(std::process::id())
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
