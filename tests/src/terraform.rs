//! Terraform on a copy of the checkout's modules, so that its folders and states go with the test.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::tools;

/// What is copied: modules name each other, and files, by relative paths.
const COPIED: &[&str] = &["deploy/systemd", "deploy/terraform", "localstack/terraform"];
/// More at a time than Terraform's default: emulators wait, they do not work.
const AT_A_TIME: &str = "-parallelism=40";

/// A root module in a copy of its own.
pub struct Root {
    folder: PathBuf,
    variables: Vec<String>,
}

impl Root {
    /// Copies the modules into `folder` and prepares the one at `path` (as in the checkout).
    ///
    /// # Errors
    /// The provider is not there, or the module is wrong; with what Terraform printed.
    pub fn new(folder: &Path, path: &str) -> Result<Root> {
        for part in COPIED {
            copy(&tools::checkout().join(part), &folder.join(part))?;
        }
        let root = Root { folder: folder.join(path), variables: Vec::new() };
        root.run(&["init", "-input=false"])?;
        Ok(root)
    }

    /// The root in localstack/terraform, with all of AWS at one emulator.
    ///
    /// # Errors
    /// As [`Root::new`].
    pub fn on_emulator(folder: &Path, emulator: SocketAddr) -> Result<Root> {
        let mut root = Root::new(folder, "localstack/terraform")?;
        for name in ["aws", "compute"] {
            root.variables.push(format!("-var={name}=http://{emulator}"));
        }
        Ok(root)
    }

    /// Runs Terraform here; what it printed.
    ///
    /// # Errors
    /// It fails, with all that it printed.
    pub fn run(&self, arguments: &[&str]) -> Result<String> {
        let mut command = self.command()?;
        command.args(arguments).arg("-no-color");
        tools::output_of(&mut command)
    }

    /// Makes everything.
    ///
    /// # Errors
    /// As [`Root::run`].
    pub fn apply(&self) -> Result<()> {
        self.run_with_variables(&["apply", "-auto-approve", "-input=false", AT_A_TIME]).map(drop)
    }

    /// What a second plan would still change: address of a resource and, for an update, names of its attributes.
    ///
    /// # Errors
    /// As [`Root::run`].
    pub fn changes(&self) -> Result<Vec<(String, Vec<String>)>> {
        self.run_with_variables(&["plan", "-input=false", "-out=again", AT_A_TIME])?;
        let plan: Value = serde_json::from_str(&self.run(&["show", "-json", "again"])?)?;
        let resources = plan["resource_changes"].as_array().context("a plan has changes")?;
        let changed = resources.iter().filter(|resource| {
            let actions = &resource["change"]["actions"];
            actions != &serde_json::json!(["no-op"]) && actions != &serde_json::json!(["read"])
        });
        let described = changed.map(|resource| {
            let (before, after) = (&resource["change"]["before"], &resource["change"]["after"]);
            let names = after.as_object().into_iter().flatten();
            let names = names.filter(|(name, value)| before[name.as_str()] != **value).map(|(name, _)| name.clone());
            (resource["address"].as_str().unwrap_or_default().to_owned(), names.collect())
        });
        Ok(described.collect())
    }

    /// Everything that it tells, as `terraform output -json` prints it.
    ///
    /// # Errors
    /// As [`Root::run`].
    pub fn outputs(&self) -> Result<String> {
        self.run(&["output", "-json"])
    }

    /// Takes everything away; what is left in the state.
    ///
    /// # Errors
    /// As [`Root::run`].
    pub fn destroy(&self) -> Result<String> {
        self.run_with_variables(&["destroy", "-auto-approve", "-input=false", AT_A_TIME])?;
        tools::output_of(self.command()?.args(["state", "list"]))
    }

    fn run_with_variables(&self, arguments: &[&str]) -> Result<String> {
        let variables = self.variables.iter().map(String::as_str);
        self.run(&arguments.iter().copied().chain(variables).collect::<Vec<_>>())
    }

    fn command(&self) -> Result<Command> {
        let mut command = tools::program("terraform")?;
        command.current_dir(&self.folder);
        // A shell's own settings for Terraform and AWS are for other clusters.
        for (name, _) in std::env::vars_os() {
            let name = name.to_string_lossy().into_owned();
            if name.starts_with("TF_") || name.starts_with("AWS_") {
                command.env_remove(name);
            }
        }
        Ok(command)
    }
}

/// Copies a folder, without what Terraform may have left in it.
fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from).with_context(|| format!("reading {}", from.display()))? {
        let entry = entry?;
        let name = entry.file_name();
        let shown = name.to_string_lossy();
        if shown.starts_with(".terraform") || shown.contains(".tfstate") {
            continue;
        }
        let kind = entry.file_type()?;
        if kind.is_dir() {
            copy(&entry.path(), &to.join(&name))?;
        } else if kind.is_file() {
            fs::copy(entry.path(), to.join(&name))?;
        } else {
            bail!("{} is neither file nor folder", entry.path().display());
        }
    }
    Ok(())
}
