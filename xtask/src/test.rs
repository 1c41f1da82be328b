//! Every test there is, in one command.

use std::env;

use anyhow::{Result, anyhow};

use crate::{
    fuzz, rig,
    run::{cargo, run_command},
    tools,
};

/// Seconds for each fuzz target in an ordinary test run.
const FUZZ_SECONDS: u32 = 15;

/// Seed of the property tests, so that a run's verdict depends on the code alone. A `cargo test` by hand looks elsewhere each
/// time, as does `cargo xtask fuzz`.
const PROPERTY_SEED: (&str, &str) = ("PROPTEST_RNG_SEED", "1");

/// Installs the tools and runs all tests of the workspace, with the rig of `localstack` beside them, then each
/// fuzz target for a short time.
pub(crate) fn run(filters: &[String]) -> Result<()> {
    let tools = tools::install()?;
    // The black-box tests start the binary, which `cargo test` does not build for a package other than their own.
    // Naming the tests too keeps one set of features, and so one build of each dependency. This program itself is left
    // out: it runs, and is the fuzzer's wrapper around rustc later.
    let mut build = cargo();
    build.args(["build", "--workspace", "--exclude", "varve-xtask", "--bins", "--tests", "--locked"]);
    run_command(build)?;
    // One failure shall not hide another: a run takes long.
    let mut tests = cargo();
    tests.args(["test", "--workspace", "--locked", "--no-fail-fast"]).args(filters).env("VARVE_TEST_TOOLS", &tools);
    if env::var_os(PROPERTY_SEED.0).is_none() {
        tests.env(PROPERTY_SEED.0, PROPERTY_SEED.1);
    }
    if !filters.is_empty() {
        return run_command(tests);
    }
    // The rig waits for Terraform most of its time, and the tests need not.
    std::thread::scope(|scope| {
        let rig = scope.spawn(|| rig::rehearse(&tools));
        let tested = run_command(tests);
        let rehearsed = rig.join().map_err(|_| anyhow!("the rig panicked"))?;
        tested.and(rehearsed)
    })?;
    fuzz::run(None, FUZZ_SECONDS, fuzz::Way::Same)
}
