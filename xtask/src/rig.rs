//! The cluster of deploy/terraform on this machine: emulators of AWS, the module applied to them, etcd, brokers. What it does
//! is in `localstack/rig.py`; here it gets its tools and the binary.

use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::Subcommand;

use crate::{
    run::{cargo, command, root, run_command},
    tools,
};

/// What the rig does.
#[derive(Subcommand, Clone, Copy)]
pub(crate) enum Verb {
    /// Starts everything and tells clients how to connect
    Up {
        /// How many brokers
        #[arg(default_value_t = 3)]
        brokers: u16,
    },
    /// Produces, waits for the archive, kills a broker, reads back
    Smoke,
    /// Stops everything and removes what it had
    Down,
}

/// Carries out one verb on the rig in `varve-data/rig`.
pub(crate) fn run(verb: Verb) -> Result<()> {
    let tools = tools::install_rig()?;
    if let Verb::Up { .. } = verb {
        let mut build = cargo();
        build.args(["build", "--release", "--locked", "--package", "varve-broker"]);
        run_command(build)?;
    }
    let place = root().join("varve-data/rig");
    step(&tools, verb, &place, &target().join("release/varve"), false)
}

/// Up, smoke and down on free ports, with the binary that the tests have built.
pub(crate) fn rehearse(tools: &Path) -> Result<()> {
    let (place, binary) = (target().join("rig"), target().join("debug/varve"));
    let ran = [Verb::Up { brokers: 3 }, Verb::Smoke]
        .into_iter()
        .try_for_each(|verb| step(tools, verb, &place, &binary, true));
    ran.and(step(tools, Verb::Down, &place, &binary, true))
}

fn step(tools: &Path, verb: Verb, place: &Path, binary: &Path, on_free_ports: bool) -> Result<()> {
    let mut rig = command(&tools.join("venv/bin/python").to_string_lossy());
    rig.arg("localstack/rig.py").arg("--tools").arg(tools).arg("--folder").arg(place).arg("--binary").arg(binary);
    if on_free_ports {
        rig.arg("--free-ports");
    }
    match verb {
        Verb::Up { brokers } => rig.args(["up", "--brokers", &brokers.to_string()]),
        Verb::Smoke => rig.arg("smoke"),
        Verb::Down => rig.arg("down"),
    };
    run_command(rig)
}

fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), Into::into)
}
