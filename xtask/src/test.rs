//! Every test there is, in one command.

use std::env;

use anyhow::{Result, anyhow};

use crate::{
    fuzz, rig,
    run::{cargo, run_command},
    suites, tools,
};

/// Seconds for each fuzz target in an ordinary test run.
const FUZZ_SECONDS: u32 = 15;

/// Seed of the property tests, so that a run's verdict depends on the code alone. A `cargo test` by hand looks elsewhere each
/// time, as does `cargo xtask fuzz`.
const PROPERTY_SEED: (&str, &str) = ("PROPTEST_RNG_SEED", "1");

/// Installs the tools and runs all tests of the workspace, with the rig of `localstack` and a short time of each fuzz target
/// beside them.
///
/// # Errors
/// Names what failed; only what cannot be built or installed ends it early.
pub(crate) fn run(filters: &[String]) -> Result<()> {
    // Tools come over the network, most of them, while the compiler is at work.
    let tools = std::thread::scope(|scope| {
        let tools = scope.spawn(tools::install);
        let built = build();
        let tools = tools.join().map_err(|_| anyhow!("the installation of tools panicked"))?;
        built.and(tools)
    })?;
    let seed = env::var(PROPERTY_SEED.0).unwrap_or_else(|_| PROPERTY_SEED.1.to_owned());
    let variables = [("VARVE_TEST_TOOLS", tools.as_os_str()), (PROPERTY_SEED.0, seed.as_ref())];
    if !filters.is_empty() {
        let mut tests = cargo();
        tests.args(["test", "--workspace", "--locked", "--no-fail-fast"]).args(filters).envs(variables);
        return run_command(tests);
    }
    // The rig waits for Terraform most of its time, and a fuzz target has one thread.
    suites::run(&variables, || {
        let rehearsed = rig::rehearse(&tools);
        rehearsed.and(fuzz::run(None, FUZZ_SECONDS, fuzz::Way::Same))
    })
}

/// The black-box tests start the binary, which `cargo test` does not build for a package other than their own. Naming the tests too
/// keeps one set of features, and so one build of each dependency. This program itself is left out: it runs, and is the fuzzer's
/// wrapper around rustc later.
fn build() -> Result<()> {
    let mut build = cargo();
    build.args(["build", "--workspace", "--exclude", "varve-xtask", "--bins", "--tests", "--locked"]);
    run_command(build)
}
