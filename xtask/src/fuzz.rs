//! Coverage-guided fuzzing with libFuzzer on the stable toolchain: the compiler's own coverage pass, no sanitizer.

use std::fs;

use anyhow::{Context, Result, bail};

use crate::run::{cache, cargo, command, root, run_command};

/// What cargo-fuzz passes, less the sanitizers, which need a nightly compiler.
const FLAGS: &str = "-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares --cfg fuzzing -Cdebug-assertions -Ccodegen-units=1";

/// Largest resident size of a target, in MiB: more means that some input balloons it.
const MEMORY_MIB: u32 = 1024;

/// Fuzzes `target`, or each target in turn, for `seconds`. New inputs go to the cache, not into the checkout's corpus.
pub(crate) fn run(target: Option<&str>, seconds: u32) -> Result<()> {
    let targets = targets()?;
    let chosen: Vec<&String> = targets.iter().filter(|name| target.is_none_or(|wanted| wanted == *name)).collect();
    if chosen.is_empty() {
        bail!("no fuzz target {target:?}; there are {targets:?}");
    }
    let build_place = cache()?.join("fuzz-target");
    let mut build = cargo();
    // Naming the target keeps the flags away from build scripts, which have no fuzzer to link with.
    let host = host()?;
    build.args(["build", "--package", "varve-fuzz", "--bins", "--locked", "--target", &host]);
    build.arg("--target-dir").arg(&build_place);
    build.env("RUSTFLAGS", FLAGS);
    run_command(build)?;
    for name in chosen {
        let found = cache()?.join("fuzz-found").join(name);
        fs::create_dir_all(&found)?;
        let mut fuzz = command(&build_place.join(&host).join("debug").join(name).to_string_lossy());
        fuzz.arg(&found).arg(root().join("fuzz/corpus").join(name));
        fuzz.arg(format!("-max_total_time={seconds}")).arg(format!("-rss_limit_mb={MEMORY_MIB}"));
        fuzz.args(["-timeout=10", "-print_final_stats=1", "-verbosity=0"]);
        fuzz.arg(format!("-artifact_prefix={}/crash-", found.display()));
        run_command(fuzz).with_context(|| format!("fuzz target {name}: the input is beside {}", found.display()))?;
    }
    Ok(())
}

/// The triple that rustc builds for here.
fn host() -> Result<String> {
    let printed = command("rustc").arg("-vV").output().context("rustc -vV")?;
    let printed = String::from_utf8(printed.stdout)?;
    let host = printed.lines().find_map(|line| line.strip_prefix("host: ")).context("rustc -vV names no host")?;
    Ok(host.to_owned())
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
