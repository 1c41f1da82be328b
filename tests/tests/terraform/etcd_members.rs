//! How a member of etcd comes up: the first of all, one that comes back with its data, and one that has lost it.

use std::{fs, path::Path, process::Command};

use anyhow::{Context, Result, ensure};
use varve_tests::{etcd::Etcd, node::eventually, tools};

use crate::instance::path;

/// What the script says of the state of `member`, with its data in `data` and the others at `endpoints`.
fn state(folder: &Path, member: &str, data: &Path, endpoints: &str, peers: &str) -> Result<String> {
    let etc = folder.join("etc");
    fs::create_dir_all(&etc)?;
    fs::write(
        etc.join("instance.env"),
        "AWS_DEFAULT_REGION='us-east-1'\nCLUSTER='rig'\nROLE='etcd'\nDOMAIN='rig.internal'\n\
         ETCD_MEMBERS='member-0 member-1 member-2'\n",
    )?;
    let scripts = tools::checkout().join("deploy/terraform/instance");
    let mut command = Command::new("bash");
    // Names and certificates of an instance are not here: members are asked by address.
    command.arg("-c").arg(format!(
        ". {}/etcd.sh\nctl() {{ shift; etcdctl --endpoints {endpoints} --dial-timeout 10s --command-timeout 10s \"$@\"; }}\n\
         url() {{ echo {peers}; }}\ncluster_state {member}",
        scripts.display()
    ));
    command.env("LIB", &scripts).env("ETC", &etc).env("DATA", data).env("PATH", path()?);
    Ok(tools::output_of(&mut command)?.trim().to_owned())
}

#[test]
fn a_member_of_etcd_that_lost_its_data_joins_as_somebody_new() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let empty = folder.path().join("empty");
    fs::create_dir_all(&empty)?;
    // Nobody is there: the first start of all.
    let nobody = "http://127.0.0.1:1";
    ensure!(state(folder.path(), "member-1", &empty, nobody, nobody)? == "new");

    let mut members = Etcd::cluster(folder.path(), 3)?;
    // The leader is lost: for a while the others take it for their leader still, and what they are asked goes to it.
    let leader = eventually("a member of etcd leads", || Ok(members.iter().position(Etcd::leads)))?;
    let mut lost = members.remove(leader);
    let name = lost.name().to_owned();
    let listed = lost.ctl(&["member", "list"])?;
    let line = |listed: &str, name: &str| {
        let wanted = format!(", {name}, ");
        listed.lines().find(|line| line.contains(&wanted)).map(str::to_owned).with_context(|| listed.to_owned())
    };
    let before = line(&listed, &name)?;
    let peer = before.split(", ").nth(3).context("an address for the others")?.to_owned();
    let endpoints = format!("{},{}", members[0].address(), members[1].address());
    let own = folder.path().join(&name).join("data");
    lost.kill();

    // Without its data it has another id, and has not started yet.
    ensure!(state(folder.path(), &name, &empty, &endpoints, &peer)? == "existing");
    let after = members[0].ctl(&["member", "list"])?;
    let joining = after.lines().find(|line| line.contains(&peer)).context("it has joined")?;
    let id = |line: &str| line.split(", ").next().map(str::to_owned);
    ensure!(id(joining) != id(&before) && joining.contains("unstarted"), "{before}\n{joining}");
    // Started twice before it came up, it joins once.
    ensure!(state(folder.path(), &name, &empty, &endpoints, &peer)? == "existing");
    ensure!(members[0].ctl(&["member", "list"])? == after, "it joined once");
    // One that has its data changes nothing.
    ensure!(state(folder.path(), &name, &own, &endpoints, &peer)? == "existing");
    ensure!(members[0].ctl(&["member", "list"])? == after, "it is who it was");
    Ok(())
}
