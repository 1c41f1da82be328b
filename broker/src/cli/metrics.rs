//! `varve metrics`: what is measured.

use std::process::ExitCode;

use clap::Subcommand;

use super::print;
use crate::metrics::reference;

/// Subcommands of `varve metrics`.
#[derive(Debug, Subcommand)]
pub(super) enum MetricsCommand {
    /// Print the reference of all metrics, as Markdown.
    Docs,
}

pub(super) fn answer(command: &MetricsCommand) -> anyhow::Result<ExitCode> {
    match command {
        MetricsCommand::Docs => print(&reference())?,
    }
    Ok(ExitCode::SUCCESS)
}
