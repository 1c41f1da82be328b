//! `varve man`: manual pages, made from what `--help` says.

use std::{fs, path::PathBuf, process::ExitCode};

use anyhow::Context;
use clap::{Args, CommandFactory};
use clap_mangen::Man;

use super::{Cli, print};

/// Arguments of `varve man`.
#[derive(Debug, Args)]
pub(super) struct ManArgs {
    /// Write varve.1, and a page for each command, into this directory, which is made if it is missing.
    #[arg(long, value_name = "DIR")]
    into: Option<PathBuf>,
}

pub(super) fn answer(arguments: &ManArgs) -> anyhow::Result<ExitCode> {
    match &arguments.into {
        None => {
            let mut page = Vec::new();
            Man::new(Cli::command().disable_help_subcommand(true)).render(&mut page)?;
            print(&String::from_utf8(page)?)?;
        }
        Some(dir) => {
            let shown = dir.display();
            fs::create_dir_all(dir).with_context(|| format!("cannot make the directory {shown}"))?;
            clap_mangen::generate_to(Cli::command(), dir).with_context(|| format!("cannot write into {shown}"))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_has_a_page_that_names_it_and_its_options() {
        let dir = tempfile::tempdir().unwrap();
        answer(&ManArgs { into: Some(dir.path().join("man1")) }).unwrap();
        let page = |name: &str| fs::read_to_string(dir.path().join("man1").join(name)).unwrap_or_default();
        assert!(page("varve.1").contains("server.properties"), "examples are on the first page");
        assert!(page("varve-tier-verify.1").contains(".TH"), "commands below commands have one");
        assert!(page("varve-canary.1").contains("bootstrap"), "options are on it");
    }
}
