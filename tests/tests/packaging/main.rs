//! What people install: the Debian package, units, the image, compose files, the Helm chart. There is no container engine here:
//! what an image or a pod would start is started outside of it, with the same settings.

mod chart;
mod containers;
mod native;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};
use varve_tests::{node::varve, tools};

fn at(path: &str) -> PathBuf {
    tools::checkout().join(path)
}

fn read(path: &str) -> Result<String> {
    fs::read_to_string(at(path)).with_context(|| path.to_owned())
}

fn shell(folder: &Path, line: &str) -> Result<String> {
    tools::output_of(Command::new("bash").args(["-euc", line]).current_dir(folder))
}

/// `varve config check` of this text; what it says.
fn checked(folder: &Path, text: &str) -> Result<String> {
    let file = folder.join("server.properties");
    fs::write(&file, text)?;
    tools::output_of(varve()?.args(["config", "check"]).arg(&file)).with_context(|| text.to_owned())
}
