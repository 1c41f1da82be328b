//! What tests of `deploy/terraform` and the rig of `localstack` need: Terraform with AWS's provider, AWS's command line,
//! linters, and an emulator of AWS.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail, ensure};

use super::{executable, once};
use crate::run::{command, root, run_command};

/// First minor version of Terraform 1 that the tests were run with.
const TERRAFORM_MINOR: u32 = 11;
/// AWS's provider, as the roots in deploy/terraform/examples and localstack/terraform pin it.
const PROVIDER: &str = "registry.terraform.io/hashicorp/aws/5.100.0";
/// Python's minor version for LocalStack: on older ones it starts and then fails each request.
const LOCALSTACK_PYTHON: &str = "3.13";

/// A launcher of Terraform that finds the provider. Terraform itself is a toolchain, and is not installed here.
///
/// # Errors
/// There is no Terraform, or an old one; with what to install.
pub(super) fn terraform(place: &Path) -> Result<()> {
    // What is on the path may be the launcher that this makes.
    let own = place.join("bin");
    let paths = std::env::var_os("PATH").unwrap_or_default();
    let terraform =
        std::env::split_paths(&paths).filter(|folder| *folder != own).map(|folder| folder.join("terraform"));
    let Some(terraform) = terraform.into_iter().find(|terraform| terraform.is_file()) else {
        bail!(
            "Terraform is not installed: put terraform 1.{TERRAFORM_MINOR} or later (below 2) on the path, from \
             https://developer.hashicorp.com/terraform/install"
        );
    };
    let version = Command::new(&terraform).args(["version", "-json"]).output().context("starting Terraform")?;
    let version: serde_json::Value = serde_json::from_slice(&version.stdout).context("terraform version")?;
    let version = version["terraform_version"].as_str().context("terraform version says no version")?;
    let mut parts = version.split('.');
    let minor = parts.nth(1).and_then(|minor| minor.parse::<u32>().ok()).unwrap_or(0);
    ensure!(
        version.starts_with("1.") && minor >= TERRAFORM_MINOR,
        "Terraform {version} is installed, and 1.{TERRAFORM_MINOR} or later (below 2) is needed"
    );
    let settings = place.join("terraform.rc");
    fs::write(&settings, provider_settings(place)?)?;
    let script = format!(
        "#!/bin/sh\n# Terraform as the tests run it: with a provider that is here already, if there is one.\n\
         export TF_CLI_CONFIG_FILE='{}' TF_IN_AUTOMATION=1 CHECKPOINT_DISABLE=1\nexec '{}' \"$@\"\n",
        settings.display(),
        terraform.display()
    );
    executable(&own.join("terraform"), &script)
}

/// Where the provider comes from: a mirror in a file system, if this machine has one, or else the registry, once.
fn provider_settings(place: &Path) -> Result<String> {
    let cache = place.join("terraform-plugins");
    fs::create_dir_all(&cache)?;
    let mirror = mirrors().into_iter().find(|mirror| mirror.join(PROVIDER).is_dir());
    Ok(match mirror {
        Some(mirror) => format!(
            "disable_checkpoint = true\nprovider_installation {{\n  filesystem_mirror {{\n    path = \"{}\"\n  }}\n}}\n",
            mirror.display()
        ),
        None => format!("disable_checkpoint = true\nplugin_cache_dir = \"{}\"\n", cache.display()),
    })
}

/// Folders that may be mirrors: Terraform's own, and each folder of /opt.
fn mirrors() -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> =
        ["/usr/local/share/terraform/plugins", "/usr/share/terraform/plugins"].into_iter().map(PathBuf::from).collect();
    if let Some(home) = std::env::var_os("HOME") {
        found.push(Path::new(&home).join(".terraform.d/plugins"));
    }
    let optional = fs::read_dir("/opt").into_iter().flatten().flatten();
    found.extend(optional.map(|entry| entry.path()));
    found
}

/// AWS's command line and shellcheck.
pub(super) fn aws(place: &Path) -> Result<()> {
    python_programs(place, "aws", "python3", &["aws", "shellcheck"])
}

/// checkov.
pub(super) fn checkov(place: &Path) -> Result<()> {
    python_programs(place, "checkov", "python3", &["checkov"])
}

/// LocalStack, whose Python is the program `localstack-python`: localstack/emulator.py runs in it.
pub(super) fn localstack(place: &Path) -> Result<()> {
    let python = format!("python{LOCALSTACK_PYTHON}");
    let Some(found) = pythons(&python).into_iter().find(|python| runs(python)) else {
        bail!(
            "LocalStack needs Python {LOCALSTACK_PYTHON}: {python} on the path, or `pyenv install {LOCALSTACK_PYTHON}`"
        );
    };
    python_programs(place, "localstack", &found.to_string_lossy(), &[])?;
    let launcher = format!("#!/bin/sh\nexec '{}' \"$@\"\n", place.join("localstack/bin/python").display());
    executable(&place.join("bin/localstack-python"), &launcher)
}

/// Where a Python may be: on the path, or among those of pyenv that are not its default.
fn pythons(name: &str) -> Vec<PathBuf> {
    let home = std::env::var_os("PYENV_ROOT").map(PathBuf::from);
    let home = home.or_else(|| Some(Path::new(&std::env::var_os("HOME")?).join(".pyenv")));
    let versions = home.and_then(|home| fs::read_dir(home.join("versions")).ok()).into_iter().flatten().flatten();
    let mut found = vec![PathBuf::from(name)];
    found.extend(versions.map(|version| version.path().join("bin").join(name)));
    found
}

fn runs(program: &Path) -> bool {
    Command::new(program).arg("--version").output().is_ok_and(|output| output.status.success())
}

/// Installs what `tests/tools/<name>.txt` pins into an environment of its own, and names its `programs` in `bin`.
fn python_programs(place: &Path, name: &str, python: &str, programs: &[&str]) -> Result<()> {
    let pins = root().join("tests/tools").join(name).with_extension("txt");
    once(place, name, &[&pins], || {
        let environment = place.join(name);
        let mut make = command(python);
        make.args(["-m", "venv", "--clear"]).arg(&environment);
        run_command(make)?;
        let mut install = command(&environment.join("bin/pip").to_string_lossy());
        install.args(["install", "--quiet", "--disable-pip-version-check", "--requirement"]).arg(&pins);
        run_command(install)?;
        for program in programs {
            let link = place.join("bin").join(program);
            let _ = fs::remove_file(&link);
            symlink(environment.join("bin").join(program), link)?;
        }
        Ok(())
    })
}
