//! The outside tools and clients that `cargo xtask tools` installs. A missing one fails the test that wants it.

use std::{
    io::{Seek, Write},
    path::{Path, PathBuf},
    process::{Command, Output},
};

use anyhow::{Context, Result, bail};
use serde_json::Value;

/// Folder of the tools.
///
/// # Errors
/// `VARVE_TEST_TOOLS` is not set: run the tests by `cargo xtask test`, which installs the tools.
pub fn folder() -> Result<PathBuf> {
    let place = std::env::var_os("VARVE_TEST_TOOLS")
        .context("VARVE_TEST_TOOLS is not set: run `cargo xtask test`, which installs what this test needs")?;
    Ok(PathBuf::from(place))
}

/// The program `bin/<name>` of the tools: Kafka's shell tools under their usual names, `go-client`, …
///
/// # Errors
/// The program is not there.
pub fn program(name: &str) -> Result<Command> {
    existing(folder()?.join("bin").join(name))
}

/// The tools' Python with `script` (a path in the checkout) as its first argument.
///
/// # Errors
/// The interpreter or the script is not there.
pub fn python(script: &str) -> Result<Command> {
    let script = checkout().join(script);
    if !script.exists() {
        bail!("{} does not exist", script.display());
    }
    let mut command = existing(folder()?.join("venv/bin/python"))?;
    command.arg(script);
    Ok(command)
}

/// The test client of one library (tests/clients/README.md): `java`, `go` (franz-go), `node` (kafkajs), or one that Python has.
///
/// # Errors
/// It is not installed.
pub fn client(library: &str) -> Result<Command> {
    match library {
        "java" => program("java-Client"),
        "go" => program("go-client"),
        "node" => {
            let mut command = Command::new("node");
            command.arg(checkout().join("tests/clients/node/client.js"));
            Ok(command)
        }
        library => {
            let mut command = python("tests/clients/python/client.py")?;
            command.arg(library);
            Ok(command)
        }
    }
}

/// The program `name` of what checks deploy (`hadolint`, `kubernetes-validate`, `python`).
///
/// # Errors
/// The program is not there.
pub fn deploy(name: &str) -> Result<Command> {
    existing(folder()?.join("deploy/bin").join(name))
}

/// The documents of a YAML text.
///
/// # Errors
/// It is none; with what is wrong and where.
pub fn yaml(text: &str) -> Result<Vec<Value>> {
    const READ: &str =
        "import json, sys, yaml\nprint(json.dumps([d for d in yaml.safe_load_all(sys.stdin) if d], default=str))";
    let printed = output_of_fed(deploy("python")?.args(["-c", READ]), text)?;
    Ok(serde_json::from_str(&printed)?)
}

/// As [`output_of`], with `input` as standard input.
///
/// # Errors
/// As [`output_of`].
pub fn output_of_fed(command: &mut Command, input: &str) -> Result<String> {
    let mut file = tempfile::tempfile()?;
    file.write_all(input.as_bytes())?;
    file.rewind()?;
    output_of(command.stdin(file))
}

/// The checkout's root.
pub fn checkout() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests lies in the workspace's root")
}

/// Runs `command` to its end; its standard output as text.
///
/// # Errors
/// It cannot start, or fails: then with everything it printed.
pub fn output_of(command: &mut Command) -> Result<String> {
    let Output { status, stdout, stderr } = command.output().with_context(|| format!("starting {command:?}"))?;
    let (stdout, stderr) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    if !status.success() {
        bail!("{command:?} ended with {status}\n{stdout}\n{stderr}");
    }
    Ok(stdout.into_owned())
}

fn existing(program: PathBuf) -> Result<Command> {
    if !program.exists() {
        bail!("{} does not exist: run `cargo xtask tools`", program.display());
    }
    Ok(Command::new(program))
}
