//! The procedures of docs/operations, played by the scripts of deploy/rehearsals on ports of their own.

use std::{fs, path::Path, process::Command};

use anyhow::{Context, Result, ensure};
use varve_tests::{
    node::{binary, stable_address, varve},
    tools,
};

/// Played by hand: needs a container engine, and images from elsewhere. docs/operations/install.md says what it was played with.
const BY_HAND: &str = "containers";
/// Ports that a script may use.
const PORTS: usize = 32;

fn rehearse(name: &str) -> Result<()> {
    let (folder, bin) = (tempfile::tempdir()?, binary()?);
    let ports = (0..PORTS).map(|_| Ok(stable_address()?.port().to_string())).collect::<Result<Vec<_>>>()?;
    let beside = bin.parent().context("a folder")?.display().to_string();
    let tools = tools::folder()?.display().to_string();
    // What the tools' Python has comes last: it brings programs of the system's names.
    let path = format!("{beside}:{tools}/bin:{}:{tools}/venv/bin", std::env::var("PATH")?);
    let mut command = Command::new(tools::checkout().join("deploy/rehearsals").join(format!("{name}.sh")));
    // The variables of this test are no settings of the nodes.
    for (variable, _) in varve()?.get_envs() {
        command.env_remove(variable);
    }
    command.env("PATH", path).env("PORTS", ports.join(" ")).env("WORK", folder.path().join("work"));
    let said = tools::output_of(&mut command)?;
    println!("{said}");
    Ok(())
}

#[test]
fn a_rolling_upgrade_loses_nothing() -> Result<()> {
    rehearse("upgrade")
}

#[test]
fn a_broker_joins_takes_its_part_and_leaves_again() -> Result<()> {
    rehearse("expand")
}

#[test]
fn a_dead_broker_is_replaced_by_an_empty_one() -> Result<()> {
    rehearse("replace-a-dead-broker")
}

#[test]
fn a_broker_goes_on_without_one_of_its_disks_and_gets_an_empty_one() -> Result<()> {
    rehearse("lose-a-disk")
}

#[test]
fn a_zone_is_lost_and_comes_back() -> Result<()> {
    rehearse("lose-a-zone")
}

#[test]
fn etcd_is_lost_for_a_while_and_for_good() -> Result<()> {
    rehearse("lose-etcd")
}

#[test]
fn the_bucket_is_away_and_comes_back() -> Result<()> {
    rehearse("lose-the-bucket")
}

#[test]
fn certificates_are_rotated_under_a_client() -> Result<()> {
    rehearse("rotate-certificates")
}

#[test]
fn users_and_brokers_do_what_they_may_and_nothing_else() -> Result<()> {
    rehearse("secure")
}

#[test]
fn a_mirrored_cluster_is_lost_and_its_clients_go_on_in_the_other_and_back() -> Result<()> {
    rehearse("mirror")
}

#[test]
fn a_topic_and_its_readers_move_from_kafka() -> Result<()> {
    rehearse("migrate-from-kafka")
}

#[test]
fn every_script_is_played_above_and_told_of_in_the_handbook() -> Result<()> {
    let (own, handbook) = (include_str!("rehearsals.rs"), tools::checkout().join("docs/operations/README.md"));
    let handbook = fs::read_to_string(handbook)?;
    for entry in fs::read_dir(tools::checkout().join("deploy/rehearsals"))? {
        let path = entry?.path();
        let name = path.file_stem().context("a name")?.to_string_lossy().into_owned();
        if name == "lib" {
            continue;
        }
        let is_played = name == BY_HAND || own.contains(&format!("rehearse(\"{name}\")"));
        ensure!(is_played, "{name} is not played");
        ensure!(handbook.contains(&format!("deploy/rehearsals/{name}.sh")), "{name} is not told of");
        tools::output_of(Command::new("bash").arg("-n").arg(Path::new(&path)))?;
    }
    Ok(())
}
