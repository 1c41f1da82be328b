//! Apache Kafka and Varve side by side: the same work against each, alternating, and the ratios.
//!
//! The load comes from our own client, which sends record batches that were built beforehand and reads answers without
//! decoding records: it must stay lighter than the brokers, because both share the machine's cores. The report has its CPU
//! time beside theirs.

mod archive;
mod guarded;
mod load;
mod partitions;
mod plot;
mod process;
mod replicated;
mod report;
mod servers;
mod trio;
mod tunnel;
mod workloads;

use std::path::PathBuf;

use clap::Parser;

/// Compares Varve with Apache Kafka on this machine.
#[derive(Parser, Clone)]
#[command(name = "varve-bench", version)]
pub(crate) struct Settings {
    /// Rounds; each runs every workload once against each broker, in alternating order
    #[arg(long, default_value_t = 5)]
    pub(crate) runs: usize,
    /// MB of record batches for each produce and consume measurement
    #[arg(long, default_value_t = 1500)]
    pub(crate) megabytes: u64,
    /// Seconds of the fixed-rate latency measurement
    #[arg(long, default_value_t = 20)]
    pub(crate) latency_seconds: u64,
    /// MB/s of the fixed-rate latency measurement
    #[arg(long, default_value_t = 20)]
    pub(crate) rate: u64,
    /// MB of log lines for the archive measurement
    #[arg(long, default_value_t = 600)]
    pub(crate) archive_megabytes: u64,
    /// Idle partitions on each of three brokers beside those that are written; they are also the ones that lose their leader
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(i32).range(1..))]
    pub(crate) idle_partitions: i32,
    /// The varve binary; by default the release build beside this program
    #[arg(long)]
    pub(crate) varve: Option<PathBuf>,
    /// Folder with the test tools (`cargo xtask tools` prints it)
    #[arg(long, env = "VARVE_TEST_TOOLS")]
    pub(crate) tools: Option<PathBuf>,
    /// Folder with *.log files whose lines are the payload; synthetic log lines when absent
    #[arg(long)]
    pub(crate) lines: Option<PathBuf>,
    /// Where broker data goes while it runs
    #[arg(long)]
    pub(crate) scratch: Option<PathBuf>,
    /// Where the table, the plot and the figures go
    #[arg(long, default_value = "bench/results")]
    pub(crate) output: PathBuf,
    /// Only this broker (`kafka` or `varve`), without the comparison (for profiling)
    #[arg(long)]
    pub(crate) broker: Option<String>,
    /// Only the measurements whose name contains this text: hot, latency, rules, tls, three brokers, archive,
    /// partitions
    #[arg(long)]
    pub(crate) only: Option<String>,
}

fn main() -> anyhow::Result<()> {
    let settings = Settings::parse();
    let figures = workloads::run(&settings)?;
    report::write(&settings, &figures)
}
