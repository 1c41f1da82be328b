//! Brokers of two versions in one cluster: the one that is checked out, and the one of another commit.

use anyhow::{Context, Result, ensure};

use crate::{
    run::{cargo, command, root, run_command},
    tools,
};

/// Builds `varve` as of `commit` in a checkout of its own, and upgrades a cluster of it under load to the one that is checked
/// out here.
pub(crate) fn run(commit: &str) -> Result<()> {
    let place = root().join("target/mixed");
    if place.exists() {
        let mut remove = command("git");
        remove.args(["worktree", "remove", "--force"]).arg(&place);
        run_command(remove)?;
    }
    let mut add = command("git");
    add.args(["worktree", "add", "--detach"]).arg(&place).arg(commit);
    run_command(add)?;
    let target = root().join("target/mixed-build");
    let mut build = cargo();
    build.current_dir(&place).env("CARGO_TARGET_DIR", &target);
    build.args(["build", "--locked", "--package", "varve-broker"]);
    run_command(build)?;
    let other = target.join("debug/varve");
    ensure!(other.is_file(), "{} was not built", other.display());
    let mut here = cargo();
    here.args(["build", "--locked", "--package", "varve-broker"]);
    run_command(here)?;
    let tools = tools::install().context("the tests' tools")?;
    let mut test = cargo();
    test.args(["test", "--locked", "--package", "varve-tests", "--test", "upgrades", "--", "--nocapture"]);
    test.env("VARVE_TEST_TOOLS", tools).env("VARVE_OTHER_BINARY", other);
    run_command(test)
}
