//! What takes too long for each change, one after the other: for a machine that is idle at night.

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Result, ensure};
use clap::Args;

use crate::{
    faults::{self, FaultsArguments},
    fuzz,
    mixed::{self, MixedArguments},
    run::{cargo, run_command},
    simulate::{self, SimulateArguments},
    tools,
};

/// So many that no night repeats another one's.
const SEEDS_OF_A_NIGHT: u64 = 100_000_000;

/// How long, and which way.
#[derive(Args)]
pub(crate) struct NightlyArguments {
    /// Minutes of simulations, faults by chance and fuzzing together; the rest, and building, comes on top
    #[arg(long, default_value_t = 240, value_parser = clap::value_parser!(u64).range(4..=1440))]
    minutes: u64,
    /// Which way it goes; the day's number when absent, so another one every night
    #[arg(long, value_parser = clap::value_parser!(u64).range(..=1_000_000_000))]
    seed: Option<u64>,
    /// The commit whose brokers are upgraded to those that are checked out, and back
    #[arg(long, default_value = "HEAD~1")]
    upgrade_from: String,
}

/// Runs every part, also after one that failed.
///
/// # Errors
/// Names those that failed.
pub(crate) fn run(arguments: &NightlyArguments) -> Result<()> {
    let (seed, minutes) = (arguments.seed.unwrap_or_else(today), arguments.minutes);
    let simulations =
        SimulateArguments { minutes: minutes / 2, from: seed * SEEDS_OF_A_NIGHT, only: simulate::ALL.to_owned() };
    let by_chance = FaultsArguments { minutes: minutes / 4, seed, partitions: 0, only: String::new() };
    let upgrade = MixedArguments { commit: arguments.upgrade_from.clone(), bin: None, back: true };

    let mut failed = Vec::new();
    let mut judge = |part: &str, outcome: Result<()>| {
        if let Err(error) = outcome {
            failed.push(format!("{part}: {error:#}"));
        }
    };
    judge("simulations", simulate::run(&simulations));
    judge("faults", faults::run(&by_chance));
    judge("fuzz targets", fuzz::run_all(minutes * 60 / 4));
    judge("mixed versions", mixed::run(&upgrade));
    judge("rights beside Apache Kafka", rights_beside_kafka());
    ensure!(
        failed.is_empty(),
        "with --seed {seed}, {} failed, the output is above:\n  {}",
        failed.len(),
        failed.join("\n  ")
    );
    Ok(())
}

fn today() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() / (24 * 60 * 60))
}

/// The table of requests and rights, against Kafka as well as ours.
fn rights_beside_kafka() -> Result<()> {
    let tools = tools::install()?;
    let mut test = cargo();
    test.args(["test", "--workspace", "--exclude", "varve-xtask", "--locked", "--test", "authorization"]);
    test.env("VARVE_TEST_TOOLS", &tools).env("VARVE_AUTHORIZATION_KAFKA", "1");
    run_command(test)
}
