//! The command line: what can be asked of `varve`, and the help that teaches it.

mod broker;
mod canary;
mod config;
mod content;
mod dump;
mod health;
mod man;
mod metrics;
mod out;
mod progress;
mod restore;
#[cfg(test)]
mod subcommands_test;
mod tier;

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, CommandFactory, Parser, Subcommand};

pub(crate) use canary::canary_metrics;

use crate::config::{BrokerConfig, Loaded, Sources};

/// `varve`, with its options and subcommands.
#[derive(Debug, Parser)]
#[command(
    name = "varve",
    version,
    about = "A log service that speaks Kafka's protocol and keeps its history as Parquet in object storage.",
    long_about = LONG_ABOUT,
    after_long_help = EXAMPLES,
)]
pub struct Cli {
    #[command(flatten)]
    configuration: ConfigurationArgs,
    #[command(subcommand)]
    command: Option<Command>,
}

const LONG_ABOUT: &str = "\
A log service that speaks Kafka's protocol and keeps its history as Parquet in object storage.

Without a subcommand, varve starts a node. Without any configuration that node listens on 127.0.0.1:9092, keeps
everything in ./varve-data, and needs nothing else installed. Kafka's clients and tools work with it unchanged.";

const EXAMPLES: &str = "\
Examples:
  varve                                           a node on loopback, with its data in ./varve-data
  varve --config server.properties                a node with Kafka's own configuration file
  varve --override log.retention.hours=-1         one setting on top (may be repeated)
  VARVE_OBJECT_STORE_URL=s3://bucket/logs varve   one setting from the environment
  varve config docs | less                        what every setting means
  varve config check server.properties            everything that is wrong with a file, at once
  varve tier describe logs                        what the archive holds of a topic
  varve tier verify                               read the whole archive and check it
  varve broker list                               who is there, and what they hold
  varve broker check 2                            whether broker 2 may be stopped now
  varve broker drain 2                            move everything off broker 2, which goes on serving meanwhile
  varve dump FILE --deep                          the records of a segment, or of an archived object
  varve restore --dry-run                         what would come back if all disks were lost
  varve canary                                    a record all the way from a producer to Parquet
  varve metrics docs | less                       what every metric means

Where settings come from, later ones win: FILE, environment (VARVE_ and the name in upper case with dots as
underscores), --override.";

/// Where the configuration comes from. Understood by every subcommand that needs one.
#[derive(Clone, Debug, Default, Args)]
pub struct ConfigurationArgs {
    /// A file in Kafka's properties format.
    #[arg(long, value_name = "FILE", env = "VARVE_CONFIG", global = true)]
    config: Option<PathBuf>,
    /// A setting on top of file and environment. May be repeated.
    #[arg(long = "override", value_name = "NAME=VALUE", global = true)]
    overrides: Vec<String>,
    /// What this process does, instead of varve.roles: `--roles compactor` only rewrites a cluster's archive.
    #[arg(long, value_name = "ROLES")]
    roles: Option<String>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Look at the brokers of a running cluster, and take one out of it.
    #[command(subcommand)]
    Broker(broker::BrokerCommand),
    /// Follow one record of each partition from a producer into the archive, and say how long each step took.
    Canary(canary::CanaryArgs),
    /// Print what a shell needs to complete commands and options of varve.
    Completions {
        /// Which shell.
        shell: clap_complete::Shell,
    },
    /// Explain and check configurations.
    #[command(subcommand)]
    Config(config::ConfigCommand),
    /// Show what a file of a log directory or an object of the archive holds.
    Dump(dump::DumpArgs),
    /// Ask a node whether it lives, serves, or has caught up with the others. Exit code 1 if it does not.
    Health(health::HealthArgs),
    /// Print the manual page of varve, or write those of all its commands into a directory.
    Man(man::ManArgs),
    /// Explain what is measured.
    #[command(subcommand)]
    Metrics(metrics::MetricsCommand),
    /// Make the cluster's state anew from the object store, after every disk was lost.
    Restore(restore::RestoreArgs),
    /// Look into the archive, with no node running: --config and --override say where it is.
    #[command(subcommand)]
    Tier(tier::TierCommand),
}

/// What the command line asks for.
#[derive(Debug)]
pub enum Asked {
    /// To start a node.
    Start(ConfigurationArgs),
    /// Nothing more: it was answered, and the process ends so.
    Done(ExitCode),
}

impl Cli {
    /// Answers what can be answered without a node.
    ///
    /// # Errors
    /// What could not be read or written; configurations that are refused are answered with an exit code instead.
    pub fn answer(self) -> anyhow::Result<Asked> {
        match self.command {
            None => Ok(Asked::Start(self.configuration)),
            Some(Command::Broker(command)) => wait_for(broker::answer(command, &self.configuration)).map(Asked::Done),
            Some(Command::Canary(arguments)) => {
                wait_for(canary::answer(arguments, &self.configuration)).map(Asked::Done)
            }
            Some(Command::Completions { shell }) => complete(shell).map(Asked::Done),
            Some(Command::Health(arguments)) => {
                wait_for(health::answer(arguments, &self.configuration)).map(Asked::Done)
            }
            Some(Command::Man(arguments)) => man::answer(&arguments).map(Asked::Done),
            Some(Command::Metrics(command)) => metrics::answer(&command).map(Asked::Done),
            Some(Command::Config(command)) => config::answer(command, &self.configuration).map(Asked::Done),
            Some(Command::Dump(arguments)) => wait_for(dump::answer(arguments, &self.configuration)).map(Asked::Done),
            Some(Command::Restore(arguments)) => {
                wait_for(restore::answer(arguments, &self.configuration)).map(Asked::Done)
            }
            Some(Command::Tier(command)) => wait_for(tier::answer(command, &self.configuration)).map(Asked::Done),
        }
    }
}

impl ConfigurationArgs {
    /// The configuration that these arguments and the environment give.
    ///
    /// # Errors
    /// The file cannot be read, or the configuration is refused, with everything that is wrong in it.
    pub fn load(&self) -> anyhow::Result<Loaded> {
        Ok(BrokerConfig::load(&self.sources()?)?)
    }

    fn sources(&self) -> anyhow::Result<Sources> {
        let roles = self.roles.iter().map(|roles| format!("varve.roles={roles}"));
        Ok(Sources {
            file: self.config.as_deref().map(config::read_file).transpose()?,
            // Variables that are not Unicode cannot be ours.
            environment: std::env::vars_os()
                .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
                .collect(),
            overrides: self.overrides.iter().cloned().chain(roles).collect(),
        })
    }
}

/// Prints the completions of a shell.
fn complete(shell: clap_complete::Shell) -> anyhow::Result<ExitCode> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "varve", &mut script);
    print(&String::from_utf8(script)?)?;
    Ok(ExitCode::SUCCESS)
}

/// Runs a subcommand that reads from the object store, or asks brokers.
fn wait_for<T>(answer: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(answer)
}

/// Prints to standard output. A reader that has seen enough (`| head`) is not an error.
fn print(text: &str) -> anyhow::Result<()> {
    match std::io::stdout().write_all(text.as_bytes()).and_then(|()| std::io::stdout().flush()) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        other => Ok(other?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn options_are_understood_before_and_after_a_subcommand() {
        for line in [
            ["varve", "--override", "node.id=7", "config", "docs"],
            ["varve", "config", "docs", "--override", "node.id=7"],
        ] {
            assert_eq!(Cli::try_parse_from(line).unwrap().configuration.overrides, ["node.id=7"], "{line:?}");
        }
    }

    #[test]
    fn without_a_subcommand_a_node_is_asked_for() {
        let asked = Cli::try_parse_from(["varve", "--config", "f"]).unwrap().answer().unwrap();
        assert!(matches!(asked, Asked::Start(arguments) if arguments.config == Some("f".into())));
    }
}
