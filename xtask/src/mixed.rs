//! Brokers of two versions in one cluster: the one that is checked out, and the one of another commit.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};
use clap::Args;

use crate::{
    run::{cargo, command, root, run_command},
    tools,
};

/// From which version.
#[derive(Args)]
pub(crate) struct MixedArguments {
    /// The commit, a tag for one
    pub(crate) commit: String,
    /// A varve of that commit; built when absent, in a checkout of its own below the target folder
    #[arg(long)]
    pub(crate) bin: Option<PathBuf>,
    /// Afterwards the way back: a cluster of the version that is checked out, replaced by that one
    #[arg(long)]
    pub(crate) back: bool,
}

/// Upgrades a cluster of `varve` as of that commit, under load, to the one that is checked out here.
pub(crate) fn run(arguments: &MixedArguments) -> Result<()> {
    let tools = tools::install().context("the tests' tools")?;
    let other = match &arguments.bin {
        Some(bin) => fs::canonicalize(bin).with_context(|| bin.display().to_string())?,
        None => build(&arguments.commit)?,
    };
    // As `cargo xtask test` does: one set of features, and so one build of each dependency.
    let mut here = cargo();
    here.args(["build", "--workspace", "--exclude", "varve-xtask", "--bins", "--tests", "--locked"]);
    run_command(here)?;
    let replace = |from: &Path, by: &Path| {
        let mut test = cargo();
        test.args(["test", "--workspace", "--exclude", "varve-xtask", "--locked", "--test", "upgrades", "--"]);
        test.args(["brokers_are_upgraded", "--nocapture"]).env("VARVE_TEST_TOOLS", &tools);
        test.env("VARVE_OTHER_BINARY", from).env("VARVE_BINARY", by);
        run_command(test)
    };
    let ours = target().join("debug/varve");
    replace(&other, &ours)?;
    if arguments.back { replace(&ours, &other) } else { Ok(()) }
}

fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

/// Builds that commit without optimisation, as tests are; what was built is kept for the next time.
fn build(commit: &str) -> Result<PathBuf> {
    let (place, built) = (target().join("mixed"), target().join("mixed-build"));
    let git = |arguments: &[&str]| {
        let mut git = command("git");
        git.args(arguments);
        run_command(git)
    };
    let shown = place.to_string_lossy();
    if place.exists() {
        git(&["worktree", "remove", "--force", &shown])?;
    }
    git(&["worktree", "prune"])?;
    git(&["worktree", "add", "--detach", &shown, commit])?;
    let mut build = cargo();
    build.current_dir(&place).env("CARGO_TARGET_DIR", &built);
    build.args(["build", "--locked", "--package", "varve-broker"]);
    let outcome = run_command(build);
    git(&["worktree", "remove", "--force", &shown])?;
    outcome?;
    let other = built.join("debug/varve");
    ensure!(other.is_file(), "{} was not built", other.display());
    Ok(other)
}
