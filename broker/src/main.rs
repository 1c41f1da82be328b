//! The varve binary.

use std::process::ExitCode;

use clap::Parser;
use varve_broker::cli::{Asked, Cli};

fn main() -> ExitCode {
    let asked = Cli::parse().answer().and_then(|asked| match asked {
        Asked::Done(code) => Ok(code),
        Asked::Start(arguments) => {
            arguments.load()?;
            anyhow::bail!("the node is not wired up yet")
        }
    });
    asked.unwrap_or_else(|error| {
        eprintln!("{error:#}");
        ExitCode::FAILURE
    })
}
