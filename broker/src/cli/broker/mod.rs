//! `varve broker`: who is there, and how some of them are taken out of the cluster or back into it.
//!
//! All of it by Kafka's own requests, so that what is done here can be seen, and done, by Kafka's tools too:
//!
//! ```text
//! drain ─► IncrementalAlterConfigs cordoned.log.dirs=*      nothing new is placed there (KIP-1066)
//!       ─► AlterPartitionReassignments, some at a time      others hold what it held (KIP-455)
//!       ─► ElectLeaders preferred                           others lead what it led, before the copies are whole (KIP-460)
//! decommission ─► drain ─► the process is stopped by whoever runs it ─► UnregisterBroker
//! check ─► DescribeCluster, Metadata, DescribeConfigs        whether a stop would be felt; changes nothing
//! ```
//! What is left to do is in the cluster alone: a drain that was broken off goes on when it is asked for again.

mod asks;
mod check;
pub(super) mod client;
mod cordon;
mod drain;
mod plan;
#[cfg(test)]
mod plan_test;
mod report;
mod safety;
mod show;
mod view;

use std::{collections::BTreeSet, process::ExitCode};

use anyhow::ensure;
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
    /// Ask whether brokers may be stopped now, so that every partition keeps a leader and enough replicas in sync. Exit code 1 if not.
    Check(CheckArgs),
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
    /// Brokers to ask, as HOST:PORT,HOST:PORT; without it, the listener of --config that brokers use with each other, where it is
    /// advertised. TLS and login are as that listener has them, and in the clear without --config.
    #[arg(long, value_name = "BROKERS")]
    bootstrap_server: Option<String>,
}

/// Arguments of `varve broker check`.
#[derive(Clone, Debug, Args)]
#[command(after_long_help = CHECK_NOTES)]
pub(crate) struct CheckArgs {
    /// Their node.id, of all that are to be stopped at the same time; without it, the broker of --config.
    #[arg(value_name = "ID")]
    ids: Vec<i32>,
    #[command(flatten)]
    at: Bootstrap,
    /// Ask again until they may be stopped, for at most so long.
    #[arg(long, value_name = "SECONDS", default_value_t = 0)]
    wait_seconds: u64,
    /// Say yes only once it has been so for so long, without a break.
    #[arg(long, value_name = "SECONDS", default_value_t = 0)]
    for_seconds: u64,
    /// Do not count partitions that have no replica to spare: they feel the stop whenever it happens.
    #[arg(long)]
    allow_unavoidable: bool,
    /// One JSON object per line, with how far it is while it waits.
    #[arg(long)]
    json: bool,
}

impl CheckArgs {
    fn stopping(&self, configuration: &ConfigurationArgs) -> anyhow::Result<BTreeSet<i32>> {
        if !self.ids.is_empty() {
            return Ok(self.ids.iter().copied().collect());
        }
        ensure!(configuration.config.is_some(), "which broker? Name its node.id, or the --config that it has");
        Ok([i32::try_from(configuration.load()?.config.node.0)?].into())
    }
}

const CHECK_NOTES: &str = "\
To be asked before every stop of a rolling restart: a broker that serves again is not in sync again yet. The answer is no, with the
partitions, if the stop would leave one of them without a leader or with fewer in sync than min.insync.replicas, or if one that these
brokers hold is so already. Brokers that do not answer are not counted on. Those that do not serve may be stopped: nothing is lost.

A partition of one replica, or of no more than min.insync.replicas, feels every stop. Waiting does not help there, so it ends at once
if nothing else is in the way; --allow-unavoidable leaves such partitions out of account.

Nobody is kept from stopping another broker at the same time: brokers that stop together are named together.

Examples:
  varve broker check 2 --bootstrap-server broker-1:9092                        may broker 2 be stopped now?
  varve broker check 2 --bootstrap-server broker-1:9092 --wait-seconds 600     wait until it may
  varve broker check 2 5 8 --bootstrap-server broker-1:9092                    a whole zone, at once
  varve broker check --config /etc/varve/server.properties                     the broker of this machine";

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
        BrokerCommand::Check(asked) => {
            let (ids, mut out) = (asked.stopping(configuration)?, Out::new(asked.json));
            check::check(&mut Client::of(&asked.at, configuration)?, &asked, &ids, &mut out).await
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
