//! `varve broker`: who is there, and how some of them are taken out of the cluster or back into it.
//!
//! All of it by Kafka's own requests, so that what is done here can be seen, and done, by Kafka's tools too:
//!
//! ```text
//! drain ─► IncrementalAlterConfigs cordoned.log.dirs=*      nothing new is placed there (KIP-1066)
//!       ─► AlterPartitionReassignments, some at a time      others hold what it held (KIP-455)
//!       ─► ElectLeaders preferred                           others lead what it led, before the copies are whole (KIP-460)
//! decommission ─► drain ─► the process is stopped by whoever runs it ─► UnregisterBroker
//! ```
//! What is left to do is in the cluster alone: a drain that was broken off goes on when it is asked for again.

mod asks;
pub(super) mod client;
mod cordon;
mod drain;
mod plan;
#[cfg(test)]
mod plan_test;
mod report;
mod show;
mod view;

use std::{collections::BTreeSet, process::ExitCode};

use clap::{Args, Subcommand};

use super::{
    ConfigurationArgs,
    out::{Out, is_closed_pipe},
};
use client::Client;
use plan::Allowed;

/// Subcommands of `varve broker`.
#[derive(Debug, Subcommand)]
pub(crate) enum BrokerCommand {
    /// List brokers: whether they serve, take new replicas, and what they lead and hold.
    List {
        #[command(flatten)]
        at: Bootstrap,
        /// One JSON object per line.
        #[arg(long)]
        json: bool,
    },
    /// Show what one broker leads and holds, partition by partition, and what a drain would say.
    Describe {
        /// Its node.id.
        id: i32,
        #[command(flatten)]
        at: Bootstrap,
        /// One JSON object per line.
        #[arg(long)]
        json: bool,
    },
    /// Move all leaderships and replicas off brokers, which go on serving meanwhile; clients see no error.
    Drain(DrainArgs),
    /// Let brokers that were drained take new replicas again. Nothing moves back by itself.
    Undrain {
        /// Their node.id.
        #[arg(required = true, value_name = "ID")]
        ids: Vec<i32>,
        #[command(flatten)]
        at: Bootstrap,
    },
    /// Drain brokers, wait until their processes have been stopped, and have the cluster forget them.
    Decommission(DrainArgs),
}

/// Where the cluster is.
#[derive(Clone, Debug, Args)]
pub(crate) struct Bootstrap {
    /// Brokers to ask, as HOST:PORT,HOST:PORT; without it, the listener of --config that brokers use with each other. TLS and
    /// login are as that listener has them, and in the clear without --config.
    #[arg(long, value_name = "BROKERS")]
    bootstrap_server: Option<String>,
}

/// Arguments of `varve broker drain`.
#[derive(Clone, Debug, Args)]
#[command(after_long_help = NOTES)]
pub(crate) struct DrainArgs {
    /// Their node.id. Several are drained as one: nothing goes from one of them to another.
    #[arg(required = true, value_name = "ID")]
    ids: Vec<i32>,
    #[command(flatten)]
    at: Bootstrap,
    /// Say what would move where, and change nothing.
    #[arg(long)]
    dry_run: bool,
    /// Partitions that are copied at the same time.
    #[arg(long, value_name = "NUMBER", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    parallel: u32,
    /// Give up after so many seconds; what was begun goes on, and the same command takes it up again.
    #[arg(long, value_name = "SECONDS")]
    timeout: Option<u64>,
    /// Move partitions too of which another replica lags.
    #[arg(long)]
    allow_under_replicated: bool,
    /// Move partitions too that would be in fewer racks afterwards than they are in now.
    #[arg(long)]
    allow_fewer_racks: bool,
    /// Count on the replicas that cordoned brokers have: another command that drains one of those may then find no room.
    #[arg(long)]
    allow_cordoned: bool,
    /// One JSON object per line, for each step.
    #[arg(long)]
    json: bool,
}

impl DrainArgs {
    fn leaving(&self) -> BTreeSet<i32> {
        self.ids.iter().copied().collect()
    }

    fn allowed(&self) -> Allowed {
        Allowed {
            lagging: self.allow_under_replicated,
            fewer_racks: self.allow_fewer_racks,
            cordoned: self.allow_cordoned,
        }
    }
}

const NOTES: &str = "\
Brokers that leave are named together, or else what the first one holds goes to the next one that leaves. A drain is refused, with the
reason for each partition, and changes nothing, if the brokers that are left are fewer than a partition has replicas, if a partition
would be in fewer racks or have fewer in sync than min.insync.replicas, or if another of its replicas lags. Brokers that another
command drains get nothing, and what they hold is reckoned to leave them. A broker that is down can be drained too: others copy from those that are in sync.

It may be broken off at any time and begun again: the cluster knows how far it is. `varve broker undrain ID` lets the broker
take new replicas again.

Examples:
  varve broker drain 2 --bootstrap-server broker-1:9092 --dry-run    what would move where, or why not
  varve broker drain 2 --bootstrap-server broker-1:9092              do it
  varve broker drain 2 3 --bootstrap-server broker-1:9092            two of them, as one
  varve broker decommission 2 --bootstrap-server broker-1:9092       and have the cluster forget it once it is stopped";

pub(super) async fn answer(command: BrokerCommand, configuration: &ConfigurationArgs) -> anyhow::Result<ExitCode> {
    let answered = match command {
        BrokerCommand::List { at, json } => show::list(&mut Client::of(&at, configuration)?, &mut Out::new(json)).await,
        BrokerCommand::Describe { id, at, json } => {
            show::describe(&mut Client::of(&at, configuration)?, id, &mut Out::new(json)).await
        }
        BrokerCommand::Drain(asked) => {
            let mut out = Out::new(asked.json);
            drain::drain(&mut Client::of(&asked.at, configuration)?, &asked, &mut out).await
        }
        BrokerCommand::Undrain { ids, at } => drain::undrain(&mut Client::of(&at, configuration)?, &ids).await,
        BrokerCommand::Decommission(asked) => {
            let mut out = Out::new(asked.json);
            drain::decommission(&mut Client::of(&asked.at, configuration)?, &asked, &mut out).await
        }
    };
    match answered {
        Err(error) if is_closed_pipe(&error) => Ok(ExitCode::SUCCESS),
        other => other,
    }
}
