//! The project's own commands. `cargo xtask help` lists them; CI runs these and nothing else.

mod check;
mod cluster;
mod documents;
mod faults;
mod floors;
mod fuzz;
mod licenses;
mod mixed;
mod nightly;
mod package;
mod rig;
mod run;
mod simulate;
mod suites;
mod test;
mod tools;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Varve's own commands.
#[derive(Parser)]
#[command(bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Installs everything that the tests need besides Rust, pinned, into one folder, and prints it
    Tools,
    /// Installs the tools, then runs every test: unit, property, black-box clients, crash loops, README, fuzz (short)
    Test {
        /// Passed on to `cargo test`
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        filters: Vec<String>,
    },
    /// Runs a cluster on loopback until it is interrupted: one etcd, brokers from port 9092 on, a bucket in a directory
    Cluster(cluster::ClusterArguments),
    /// Has a cluster suffer every fault there is, under load and with its promises checked: each once, or by chance for some time
    Faults(faults::FaultsArguments),
    /// Runs every simulation with as many seeds as some time takes, and reports how many those were
    Simulate(simulate::SimulateArguments),
    /// Upgrades a cluster of another commit's brokers, under load, to those that are checked out
    Mixed(mixed::MixedArguments),
    /// What takes too long for each change, in one command: simulations, faults by chance, fuzzing, an upgrade and back, rights
    Nightly(nightly::NightlyArguments),
    /// A static binary, its Debian package and their checksums
    Package(package::PackageArguments),
    /// One file with the licences of all that the binary is linked with
    Licenses(licenses::LicensesArguments),
    /// The cluster of deploy/terraform on this machine: emulators of AWS, etcd, brokers
    Rig {
        #[command(subcommand)]
        verb: rig::Verb,
    },
    /// Formatting, floors, files that documents name, lints, documentation, licences
    Check,
    /// Fails where an import points up the house (ARCHITECTURE.md) or a pure room does IO
    Floors,
    /// Fuzzes one target, or each in turn, for a bounded time from the corpus in fuzz/corpus
    Fuzz {
        /// Name of a target; all when absent
        target: Option<String>,
        /// Seconds for each target
        #[arg(long, default_value_t = 60)]
        seconds: u32,
    },
}

fn main() -> anyhow::Result<ExitCode> {
    if let Some(ended) = fuzz::stand_in()? {
        return Ok(ended);
    }
    match Arguments::parse().command {
        Command::Tools => tools::install().map(|place| println!("{}", place.display())),
        Command::Test { filters } => test::run(&filters),
        Command::Cluster(arguments) => cluster::run(arguments),
        Command::Faults(arguments) => faults::run(&arguments),
        Command::Simulate(arguments) => simulate::run(&arguments),
        Command::Mixed(arguments) => mixed::run(&arguments),
        Command::Nightly(arguments) => nightly::run(&arguments),
        Command::Package(arguments) => package::run(&arguments),
        Command::Licenses(arguments) => licenses::run(&arguments),
        Command::Rig { verb } => rig::run(verb),
        Command::Check => check::run(),
        Command::Floors => floors::run(),
        Command::Fuzz { target, seconds } => fuzz::run(target.as_deref(), seconds, fuzz::Way::New),
    }?;
    Ok(ExitCode::SUCCESS)
}
