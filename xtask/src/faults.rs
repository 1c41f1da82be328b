//! The long version of `tests/tests/faults.rs`.

use anyhow::Result;
use clap::Args;

use crate::{
    run::{cargo, run_command},
    tools,
};

/// How long, and from which seed.
#[derive(Args)]
pub(crate) struct FaultsArguments {
    /// Minutes of faults by chance; 0: each fault once
    #[arg(long, default_value_t = 0)]
    pub(crate) minutes: u64,
    /// What is chosen depends on it
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// Partitions of a further topic, each with a replica on every broker
    #[arg(long, default_value_t = 0)]
    pub(crate) partitions: u32,
    /// Only faults whose name holds this, such as LeaderKilled
    #[arg(long, default_value = "")]
    pub(crate) only: String,
}

/// Runs it, and prints the longest outage of each kind.
pub(crate) fn run(arguments: &FaultsArguments) -> Result<()> {
    let tools = tools::install()?;
    let mut build = cargo();
    build.args(["build", "--workspace", "--exclude", "varve-xtask", "--bins", "--tests", "--locked"]);
    run_command(build)?;
    let mut test = cargo();
    test.args(["test", "--workspace", "--exclude", "varve-xtask", "--locked", "--test", "faults", "--"]);
    test.args(["--exact", "every_fault_by_chance", "--ignored", "--nocapture"]).env("VARVE_TEST_TOOLS", &tools);
    test.env("VARVE_FAULTS_MINUTES", arguments.minutes.to_string());
    test.env("VARVE_FAULTS_SEED", arguments.seed.to_string());
    test.env("VARVE_FAULTS_PARTITIONS", arguments.partitions.to_string());
    test.env("VARVE_FAULTS_ONLY", &arguments.only);
    run_command(test)
}
