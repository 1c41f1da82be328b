//! All test programs of the workspace, as `cargo test` runs them, but several at a time: most of them wait, for leases to end and
//! clients to start.

use std::{
    collections::VecDeque,
    ffi::OsStr,
    fs::File,
    io::{self, Read, Seek, Write},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{Mutex, MutexGuard, PoisonError},
    thread,
    time::Instant,
};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::run::cargo;

/// Test programs at a time. Their waiting overlaps; more would only make clients time out.
const AT_ONCE: usize = 2;

/// One test program: what its kind of target is called, and how to run it.
struct Suite {
    name: String,
    command: Command,
}

/// Runs them all, and then the examples in documentation, with `beside` in the place of one of them for as long as it takes; `variables`
/// are for each of them. A failure hides no other one.
///
/// # Errors
/// Names all that failed; what they printed is on standard output.
pub(crate) fn run(variables: &[(&str, &OsStr)], beside: impl FnOnce() -> Result<()> + Send) -> Result<()> {
    let mut suites = built()?;
    suites.push(Suite { name: "documentation".to_owned(), command: documentation() });
    for suite in &mut suites {
        suite.command.envs(variables.iter().copied());
    }
    let waiting = Mutex::new(VecDeque::from(suites));
    let failed = Mutex::new(Vec::new());
    let one_after_the_other = || {
        while let Some(suite) = next(&waiting) {
            let name = suite.name.clone();
            if let Err(error) = carry_out(suite) {
                held(&failed).push(format!("{name}: {error:#}"));
            }
        }
    };
    thread::scope(|scope| {
        for _ in 1..AT_ONCE {
            scope.spawn(one_after_the_other);
        }
        scope.spawn(|| {
            if let Err(error) = beside() {
                held(&failed).push(format!("{error:#}"));
            }
            one_after_the_other();
        });
    });
    let failed = failed.into_inner().unwrap_or_else(PoisonError::into_inner);
    ensure!(failed.is_empty(), "{} failed, the output is above:\n  {}", failed.len(), failed.join("\n  "));
    Ok(())
}

fn next(waiting: &Mutex<VecDeque<Suite>>) -> Option<Suite> {
    held(waiting).pop_front()
}

fn held<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What it prints comes out at its end, so that two never mix.
fn carry_out(mut suite: Suite) -> Result<()> {
    eprintln!("begins: {}", suite.name);
    let began = Instant::now();
    let mut printed = tempfile::tempfile().context("a file for what a test prints")?;
    let to = |file: &File| file.try_clone().map(Stdio::from);
    suite.command.stdin(Stdio::null()).stdout(to(&printed)?).stderr(to(&printed)?);
    let status = suite.command.status().with_context(|| format!("cannot start {:?}", suite.command))?;
    let mut text = Vec::new();
    printed.rewind()?;
    printed.read_to_end(&mut text)?;
    let mut out = io::stdout().lock();
    writeln!(out, "\n     {}: {status} after {} s", suite.name, began.elapsed().as_secs())?;
    out.write_all(&text)?;
    out.flush()?;
    if !status.success() {
        bail!("{status}");
    }
    Ok(())
}

/// Builds the test programs. Those of one package are together, in order.
fn built() -> Result<Vec<Suite>> {
    let mut build = cargo();
    build.args(["test", "--workspace", "--locked", "--no-run", "--message-format=json-render-diagnostics"]);
    let output = build.stderr(Stdio::inherit()).output().with_context(|| format!("cannot start {build:?}"))?;
    ensure!(output.status.success(), "{build:?} ended with {}", output.status);
    let mut suites = Vec::new();
    for line in String::from_utf8(output.stdout)?.lines() {
        suites.extend(suite(&serde_json::from_str(line).with_context(|| format!("cargo said {line}"))?));
    }
    ensure!(!suites.is_empty(), "{build:?} built no test program");
    suites.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(suites)
}

/// The one that a message of cargo is about, if it is about one.
fn suite(message: &Value) -> Option<Suite> {
    let is_test = message["reason"] == "compiler-artifact" && message["profile"]["test"] == true;
    let program = message["executable"].as_str().filter(|_| is_test)?;
    let package = PathBuf::from(message["manifest_path"].as_str()?).parent()?.to_owned();
    let source = Path::new(message["target"]["src_path"].as_str()?);
    let name = format!(
        "{}/{}",
        package.file_name()?.to_string_lossy(),
        source.strip_prefix(&package).unwrap_or(source).display()
    );
    let mut command = Command::new(program);
    // As cargo has it.
    command.env("CARGO_MANIFEST_DIR", &package).current_dir(package);
    Some(Suite { name, command })
}

fn documentation() -> Command {
    let mut command = cargo();
    command.args(["test", "--workspace", "--locked", "--doc"]);
    command
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_test_program_is_run_where_its_package_is_and_nothing_else_is_run() {
        let artifact = |is_test: bool| {
            json!({
                "reason": "compiler-artifact", "manifest_path": "/house/log/Cargo.toml",
                "target": {"name": "crash", "src_path": "/house/log/tests/crash.rs"},
                "profile": {"test": is_test}, "executable": "/built/crash-0123",
            })
        };
        let found = suite(&artifact(true)).unwrap();
        assert_eq!(found.name, "log/tests/crash.rs");
        assert_eq!(found.command.get_program(), "/built/crash-0123");
        assert_eq!(found.command.get_current_dir(), Some(Path::new("/house/log")));
        assert!(suite(&artifact(false)).is_none());
        assert!(suite(&json!({"reason": "build-finished", "success": true})).is_none());
    }
}
