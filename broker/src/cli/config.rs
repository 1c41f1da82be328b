//! `varve config`: what settings mean, and what is wrong with a file.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::Subcommand;

use super::{ConfigurationArgs, print};
use crate::config::{BrokerConfig, Sources, reference};

/// Subcommands of `varve config`.
#[derive(Debug, Subcommand)]
pub(super) enum ConfigCommand {
    /// Print the reference of all settings, as Markdown.
    Docs,
    /// Report everything that is wrong with a configuration, and what has no effect. Exit code 1 if it is refused.
    ///
    /// Checks FILE alone, without the environment, so that a file for another machine can be checked; --override counts.
    Check {
        /// A file in Kafka's properties format.
        file: PathBuf,
    },
}

pub(super) fn answer(command: ConfigCommand, arguments: &ConfigurationArgs) -> anyhow::Result<ExitCode> {
    match command {
        ConfigCommand::Docs => {
            print(&reference())?;
            Ok(ExitCode::SUCCESS)
        }
        ConfigCommand::Check { file } => check(&file, arguments),
    }
}

fn check(file: &Path, arguments: &ConfigurationArgs) -> anyhow::Result<ExitCode> {
    let sources =
        Sources { file: Some(read_file(file)?), environment: Vec::new(), overrides: arguments.overrides.clone() };
    let (report, code) = match BrokerConfig::load(&sources) {
        Ok(loaded) => {
            let warnings: String = loaded.warnings.iter().map(|warning| format!("warning: {warning}\n")).collect();
            (format!("{warnings}{} is valid\n", file.display()), ExitCode::SUCCESS)
        }
        Err(errors) => {
            let lines: String = errors.0.iter().map(|error| format!("error: {error}\n")).collect();
            (lines, ExitCode::FAILURE)
        }
    };
    print(&report)?;
    Ok(code)
}

/// Text of a properties file, and its name for errors.
pub(super) fn read_file(path: &Path) -> anyhow::Result<(String, String)> {
    let bytes = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let text = String::from_utf8(bytes).with_context(|| format!("{} is not UTF-8", path.display()))?;
    Ok((path.display().to_string(), text))
}
