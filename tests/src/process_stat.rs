//! What the kernel counts for a process.

use std::{fs, time::Duration};

use anyhow::{Context, Result};

/// CPU time of all threads of a process so far, user and system.
///
/// # Errors
/// There is no such process.
pub fn cpu_of(process: u32) -> Result<Duration> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat"))?;
    // The second field is the name in parentheses and may hold spaces; utime and stime are 14 and 15.
    let after_name = stat.rsplit_once(')').context("/proc/PID/stat has a name")?.1;
    let fields: Vec<&str> = after_name.split_whitespace().collect();
    let ticks: u64 = fields[11].parse::<u64>()? + fields[12].parse::<u64>()?;
    Ok(Duration::from_secs_f64(ticks as f64 / rustix::param::clock_ticks_per_second() as f64))
}

/// Resident memory of a process, in MB: heap, stacks and code, not pages of files that it only reads.
///
/// # Errors
/// There is no such process.
pub fn resident_megabytes(process: u32) -> Result<f64> {
    let status = fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).context("VmRSS")?;
    let kilobytes: f64 = line.split_whitespace().nth(1).context("a number")?.parse()?;
    Ok(kilobytes * 1024.0 / 1e6)
}
