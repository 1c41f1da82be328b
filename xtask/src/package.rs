//! What people install: a binary that asks for no library of the system, and the Debian package of it.

use std::{
    env::consts::ARCH,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;

use crate::{
    licenses,
    run::{cargo, printed, root, run_command},
};

/// What the file with the licences of others is called.
const LICENSES: &str = "THIRD-PARTY-LICENSES";

/// What to pack, and where it goes.
#[derive(Args)]
pub(crate) struct PackageArguments {
    /// The varve to pack; when absent a static one is built, which needs musl-tools and Rust's musl target
    #[arg(long)]
    binary: Option<PathBuf>,
    /// The target that it was built for; when absent this machine, with the system's C library
    #[arg(long, requires = "binary")]
    target: Option<String>,
    /// The folder for the binary, the package, the licences of what is linked in, and SHA256SUMS
    #[arg(long, default_value = "target/package")]
    into: PathBuf,
}

/// Builds, packs, and prints where things are.
pub(crate) fn run(arguments: &PackageArguments) -> Result<()> {
    let into = root().join(&arguments.into);
    fs::create_dir_all(&into).with_context(|| into.display().to_string())?;
    let built = match &arguments.binary {
        Some(binary) => fs::canonicalize(binary).with_context(|| binary.display().to_string())?,
        None => build()?,
    };
    let version = printed(Command::new(&built).arg("--version"))?;
    let version = version.strip_prefix("varve ").with_context(|| format!("{} is no varve", built.display()))?;
    let binary = into.join(format!("varve-{version}-linux-{}", debian_name()?));
    let mut install = Command::new("install");
    install.args(["--mode=0755", "--strip"]).arg(&built).arg(&binary);
    run_command(install)?;
    let texts = into.join(LICENSES);
    let target = match (&arguments.target, &arguments.binary) {
        (Some(target), _) => target.clone(),
        (None, Some(_)) => licenses::of_this_machine("gnu"),
        (None, None) => licenses::of_this_machine("musl"),
    };
    licenses::write(&target, &texts)?;
    let mut pack = Command::new(root().join("deploy/debian/build.sh"));
    let package = PathBuf::from(printed(pack.arg(&built).arg(&texts).arg(&into))?);
    let depends = printed(Command::new("dpkg-deb").arg("--field").arg(&package).arg("Depends"))?;
    ensure!(
        arguments.binary.is_some() || !depends.contains("libc"),
        "{} was to be static, and asks for {depends}",
        built.display()
    );
    let name = |path: &Path| path.file_name().map(ToOwned::to_owned).context("a file has a name");
    let mut sum = Command::new("sha256sum");
    sum.current_dir(&into).arg(name(&binary)?).arg(name(&package)?).arg(LICENSES);
    fs::write(into.join("SHA256SUMS"), format!("{}\n", printed(&mut sum)?))?;
    for made in [binary, package, texts, into.join("SHA256SUMS")] {
        println!("{}", made.display());
    }
    Ok(())
}

/// A release build against musl, which everything is linked into.
fn build() -> Result<PathBuf> {
    let triple = licenses::of_this_machine("musl");
    let installed = printed(Command::new("rustup").args(["target", "list", "--installed"]).current_dir(root()))?;
    ensure!(installed.lines().any(|one| one == triple), "first: rustup target add {triple}");
    ensure!(Command::new("musl-gcc").arg("--version").output().is_ok(), "first: apt-get install musl-tools");
    let mut build = cargo();
    build.args(["build", "--release", "--locked", "--target", &triple, "--package", "varve-broker"]);
    run_command(build)?;
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from);
    Ok(target.join(triple).join("release/varve"))
}

/// What Debian, and most who give out binaries, call this architecture.
fn debian_name() -> Result<&'static str> {
    match ARCH {
        "x86_64" => Ok("amd64"),
        "aarch64" => Ok("arm64"),
        other => bail!("no binaries are made for {other}"),
    }
}
