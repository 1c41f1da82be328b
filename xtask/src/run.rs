//! Running other programs, with errors that name them.

use std::{
    ffi::OsStr,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail, ensure};

/// The checkout's root.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies in the workspace's root")
}

/// Runs `program` in the checkout's root; fails if it cannot start or ends with anything but success. What it prints goes
/// to standard error: what an xtask prints on standard output is its answer, and scripts use it.
pub(crate) fn run<S: AsRef<OsStr>>(program: &str, arguments: impl IntoIterator<Item = S>) -> Result<()> {
    let mut command = command(program);
    command.args(arguments).stdout(std::io::stderr());
    run_command(command)
}

/// As [`run`], for a command with its own environment or folder.
pub(crate) fn run_command(mut command: Command) -> Result<()> {
    let shown = format!("{command:?}");
    eprintln!("+ {shown}");
    let status = command.status().with_context(|| format!("cannot start {shown}"))?;
    if !status.success() {
        bail!("{shown} ended with {status}");
    }
    Ok(())
}

/// A command that will run in the checkout's root.
pub(crate) fn command(program: &str) -> Command {
    let mut command = Command::new(program);
    command.current_dir(root());
    command
}

/// The cargo that runs us.
pub(crate) fn cargo() -> Command {
    command(&std::env::var("CARGO").unwrap_or_else(|_| "cargo".into()))
}

/// Where what we install and build beside the checkout is kept: `$VARVE_CACHE`, else `~/.cache/varve`.
pub(crate) fn cache() -> Result<PathBuf> {
    if let Some(place) = std::env::var_os("VARVE_CACHE") {
        return Ok(place.into());
    }
    let home = std::env::var_os("HOME").context("HOME is not set; set VARVE_CACHE to a folder for test tools")?;
    Ok(Path::new(&home).join(".cache/varve"))
}

/// What a command prints, without the end of its last line.
pub(crate) fn printed(command: &mut Command) -> Result<String> {
    let output = command.stderr(Stdio::inherit()).output().with_context(|| format!("{command:?}"))?;
    ensure!(output.status.success(), "{command:?} ended with {}", output.status);
    Ok(String::from_utf8(output.stdout)?.trim_end().to_owned())
}
