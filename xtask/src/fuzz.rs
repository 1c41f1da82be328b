//! Coverage-guided fuzzing with libFuzzer on the stable toolchain: the compiler's own coverage pass, no sanitizer.
//!
//! Only the workspace's own crates are watched: cargo lets a wrapper stand in for rustc there, and that wrapper is this very
//! program. Dependencies are those of an ordinary build, so a fuzz run costs no second build of the world.

use std::{env, ffi::OsString, fs, process};

use anyhow::{Context, Result, bail};

use crate::run::{cache, cargo, root, run_command};

/// What cargo-fuzz passes, less the sanitizers, which need a nightly compiler.
const FLAGS: &[&str] = &[
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "--cfg=fuzzing",
    "-Cdebug-assertions",
    "-Ccodegen-units=1",
];

/// Set for rustc calls that are to be wrapped.
const WRAPPED: &str = "VARVE_FUZZ_RUSTC";

/// Largest resident size of a target, in MiB: more means that some input balloons it.
const MEMORY_MIB: u32 = 1024;

/// Of runs that go [`Way::Same`].
const SEED: u32 = 1;

/// Stands in for rustc if cargo called for that: adds the flags and returns how rustc ended.
///
/// # Errors
/// If rustc cannot be started.
pub(crate) fn stand_in() -> Result<Option<process::ExitCode>> {
    if env::var_os(WRAPPED).is_none() {
        return Ok(None);
    }
    let mut arguments = env::args_os().skip(1);
    let rustc = arguments.next().context("cargo names the rustc to call")?;
    let arguments: Vec<OsString> = arguments.collect();
    // A build script has no fuzzer to link with, and a call that only asks rustc something has no crate.
    let watched = arguments.windows(2).any(|pair| pair[0] == "--crate-name" && pair[1] != "build_script_build");
    let flags = if watched && !arguments.iter().any(|argument| argument == "proc-macro") { FLAGS } else { &[] };
    let status = process::Command::new(&rustc).args(&arguments).args(flags).status().context("cannot start rustc")?;
    Ok(Some(process::ExitCode::from(if status.success() { 0 } else { 1 })))
}

/// Which way a fuzz run goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// Another one each time, from the corpus and all that earlier runs found; what it finds stays in the cache.
    New,
    /// The same each time, from the corpus alone: whether it passes depends on the code, not on luck.
    Same,
}

/// Fuzzes `target`, or each target in turn, for `seconds`. New inputs go to the cache, not into the checkout's corpus.
pub(crate) fn run(target: Option<&str>, seconds: u32, way: Way) -> Result<()> {
    let targets = targets()?;
    let chosen: Vec<&String> = targets.iter().filter(|name| target.is_none_or(|wanted| wanted == *name)).collect();
    if chosen.is_empty() {
        bail!("no fuzz target {target:?}; there are {targets:?}");
    }
    let wrapper = env::current_exe().context("no path to this program")?;
    for name in chosen {
        let crashes = cache()?.join("fuzz-found").join(name);
        fs::create_dir_all(&crashes)?;
        let fresh = tempfile::tempdir()?;
        let mut fuzz = cargo();
        fuzz.env("RUSTC_WORKSPACE_WRAPPER", &wrapper).env(WRAPPED, "1");
        fuzz.args(["run", "--package", "varve-fuzz", "--bin", name, "--locked", "--"]);
        match way {
            Way::New => fuzz.arg(&crashes),
            Way::Same => fuzz.arg(fresh.path()).arg(format!("-seed={SEED}")),
        };
        fuzz.arg(root().join("fuzz/corpus").join(name));
        fuzz.arg(format!("-max_total_time={seconds}")).arg(format!("-rss_limit_mb={MEMORY_MIB}"));
        fuzz.args(["-timeout=10", "-print_final_stats=1", "-verbosity=0"]);
        fuzz.arg(format!("-artifact_prefix={}/crash-", crashes.display()));
        run_command(fuzz).with_context(|| format!("fuzz target {name}: the input is beside {}", crashes.display()))?;
    }
    Ok(())
}

/// Fuzzes all targets for so many seconds together.
pub(crate) fn run_all(seconds: u64) -> Result<()> {
    let each = seconds / targets()?.len().max(1) as u64;
    run(None, u32::try_from(each.max(1))?, Way::New)
}

/// The names of the targets: one file each in `fuzz/targets`.
fn targets() -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(root().join("fuzz/targets")).context("fuzz/targets")? {
        let path = entry?.path();
        names.extend(path.file_stem().map(|stem| stem.to_string_lossy().into_owned()));
    }
    names.sort();
    Ok(names)
}
