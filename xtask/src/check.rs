//! Formatting, lints, floors, licences.

use anyhow::Result;

use crate::{
    floors,
    run::{cargo, command, run_command},
    tools,
};

/// Runs every check; the first that fails ends it.
pub(crate) fn run() -> Result<()> {
    let tools = tools::install()?;
    let mut format = cargo();
    format.args(["fmt", "--all", "--check"]);
    run_command(format)?;
    floors::run()?;
    let mut clippy = cargo();
    clippy.args(["clippy", "--workspace", "--all-targets", "--locked", "--", "--deny", "warnings"]);
    run_command(clippy)?;
    // Advisories need a database from the network; licences, bans and sources do not.
    let mut deny = command(&tools.join("bin/cargo-deny").to_string_lossy());
    deny.args(["--locked", "check", "bans", "licenses", "sources"]);
    run_command(deny)
}
