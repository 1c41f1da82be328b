//! The long version of every simulation: new seeds for minutes or hours.

use std::{fs, time::Duration};

use anyhow::{Context, Result, ensure};
use clap::Args;

use crate::run::{cargo, run_command};

/// What the name of every simulation holds.
pub(crate) const ALL: &str = "simulation::";

/// How long, and from which seed on.
#[derive(Args)]
pub(crate) struct SimulateArguments {
    /// Minutes in all, building not counted
    #[arg(long, default_value_t = 60)]
    pub(crate) minutes: u64,
    /// First seed of each simulation: take another one every night
    #[arg(long, default_value_t = 1_000_000)]
    pub(crate) from: u64,
    /// Only simulations whose name holds this
    #[arg(long, default_value = ALL)]
    pub(crate) only: String,
}

/// Runs them, and prints how many seeds each took. A seed that failed is named, and fails the command.
pub(crate) fn run(arguments: &SimulateArguments) -> Result<()> {
    let listed = tests(&arguments.only).args(["--list", "--format=terse"]).output().context("listing simulations")?;
    ensure!(listed.status.success(), "listing simulations: {}", String::from_utf8_lossy(&listed.stderr));
    let count = String::from_utf8_lossy(&listed.stdout).lines().filter(|line| line.ends_with(": test")).count();
    ensure!(count > 0, "no simulation's name holds {:?}", arguments.only);

    let at_once = std::thread::available_parallelism()?.get();
    let each = Duration::from_secs(arguments.minutes * 60 * at_once as u64 / count as u64);
    let report = tempfile::NamedTempFile::new()?;
    let mut simulations = tests(&arguments.only);
    simulations.env("VARVE_SIM_SECONDS", each.as_secs().max(1).to_string());
    simulations.env("VARVE_SIM_FROM", arguments.from.to_string()).env("VARVE_SIM_REPORT", report.path());
    let outcome = run_command(simulations);
    print!("{}", fs::read_to_string(report.path())?);
    outcome
}

fn tests(only: &str) -> std::process::Command {
    let mut tests = cargo();
    // As `cargo xtask test` builds, so that no dependency is built once more with other features.
    tests.args(["test", "--workspace", "--exclude", "varve-xtask", "--locked", "--lib", "--no-fail-fast"]);
    tests.args(["--", only]);
    tests
}
