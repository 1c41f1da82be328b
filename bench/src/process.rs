//! What the kernel counted for a broker's process, and for this one.

use std::{
    fs,
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread::JoinHandle,
    time::Duration,
};

use anyhow::{Context, Result};

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
        cpu_of(&self.child.id().to_string())
    }

    /// Resident memory, in MB: heap, stacks and code, not pages of log files.
    pub(crate) fn resident_megabytes(&self) -> Result<f64> {
        resident(self.child.id())
    }

    /// Looks at its resident memory again and again, until the outcome is asked for.
    pub(crate) fn watch_resident(&self) -> Watched {
        let (stop, stopped) = mpsc::channel::<()>();
        let id = self.child.id();
        let most = std::thread::spawn(move || {
            let mut most = resident(id)?;
            while stopped.recv_timeout(SAMPLE) == Err(mpsc::RecvTimeoutError::Timeout) {
                most = most.max(resident(id)?);
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
    cpu_of("self")
}

fn cpu_of(id: &str) -> Result<Duration> {
    let stat = fs::read_to_string(format!("/proc/{id}/stat"))?;
    // The second field is the name in parentheses and may hold spaces; utime and stime are 14 and 15.
    let after_name = stat.rsplit_once(')').context("/proc/PID/stat has a name")?.1;
    let fields: Vec<&str> = after_name.split_whitespace().collect();
    let ticks: u64 = fields[11].parse::<u64>()? + fields[12].parse::<u64>()?;
    Ok(Duration::from_secs_f64(ticks as f64 / rustix::param::clock_ticks_per_second() as f64))
}

fn resident(id: u32) -> Result<f64> {
    let status = fs::read_to_string(format!("/proc/{id}/status"))?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).context("VmRSS")?;
    let kilobytes: f64 = line.split_whitespace().nth(1).context("a number")?.parse()?;
    Ok(kilobytes * 1024.0 / 1e6)
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
