//! How a member of etcd comes up: the first of all, one that comes back with its data, and one that has lost it.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use varve_tests::{aws::Caller, etcd::Etcd, node::eventually, s3::S3Emulator, tools};

use crate::{instance::path, scripts::certificate};

const BUCKET: &str = "archive";
/// Where nobody listens.
const NOBODY: &str = "http://127.0.0.1:1";

/// An instance of a member, with a volume and the way to the bucket; names and certificates of a real one are not here, so
/// members are asked by address.
struct Instance<'a> {
    name: String,
    folder: &'a Path,
    volume: PathBuf,
    /// Where the other members serve clients.
    others: String,
    /// The member's own address for the others.
    peer: String,
    bucket: &'a Caller,
}

impl Instance<'_> {
    /// Runs lines with the functions of the script. Where nobody can agree, it asks once.
    fn run(&self, lines: &str, asks: usize) -> Result<String> {
        let (etc, scripts) = (self.folder.join("etc"), tools::checkout().join("deploy/terraform/instance"));
        fs::create_dir_all(&etc)?;
        fs::create_dir_all(&self.volume)?;
        fs::write(
            etc.join("instance.env"),
            format!(
                "AWS_DEFAULT_REGION='us-east-1'\nCLUSTER='rig'\nROLE='etcd'\nDOMAIN='rig.internal'\nBUCKET='{BUCKET}'\n\
                 ETCD_MEMBERS='member-0 member-1 member-2'\n"
            ),
        )?;
        fs::write(etc.join("number"), "1\n")?;
        let patience = if asks == 1 { "2s" } else { "10s" };
        let mut command = Command::new("bash");
        command.arg("-c").arg(format!(
            ". {}/etcd.sh\nctl() {{ shift; etcdctl --endpoints {} --dial-timeout {patience} --command-timeout {patience} \
             \"$@\"; }}\nurl() {{ echo {}; }}\n{lines}",
            scripts.display(),
            self.others,
            self.peer
        ));
        command
            .env("LIB", &scripts)
            .env("ETC", &etc)
            .env("DATA", &self.volume)
            .env("STAMPS", self.folder.join("stamps"));
        command.env("PATH", path()?).env("JOIN_TRIES", asks.to_string()).envs(self.bucket.environment());
        Ok(tools::output_of(&mut command)?.trim().to_owned())
    }

    /// What etcd is told on this volume: `new` or `existing`; an error while the script would try again.
    fn state(&self) -> Result<String> {
        self.run(&format!("cluster_state {}", self.name), 15)
    }

    /// The same, where it takes others that are not there.
    fn waits(&self) -> Result<()> {
        let state = self.run(&format!("cluster_state {}", self.name), 1);
        ensure!(state.is_err(), "{} starts as {state:?}", self.name);
        Ok(())
    }

    /// The same instance with a volume of its own.
    fn with_volume(&self, volume: &str) -> Self {
        Instance {
            name: self.name.clone(),
            volume: self.folder.join(volume),
            others: self.others.clone(),
            peer: self.peer.clone(),
            ..*self
        }
    }

    /// Numbers that it sends, by name: each with the names of its dimensions. Its member is the one that it asks as others.
    fn metrics(&self) -> Result<Vec<Sent>> {
        let lines = format!("http=http://{}\naws() {{ echo \"${{@: -1}}\"; }}\nmetrics", self.others);
        let sent: Value = serde_json::from_str(&self.run(&lines, 1)?)?;
        let numbers = sent.as_array().context("a list")?.iter().map(|number| {
            let dimensions = number["Dimensions"].as_array().context("dimensions")?;
            let names = dimensions.iter().filter_map(|dimension| dimension["Name"].as_str().map(str::to_owned));
            let name = number["MetricName"].as_str().context("a name")?.to_owned();
            Ok((name, number["Value"].as_f64().context("a value")?, names.collect()))
        });
        numbers.collect()
    }
}

/// A number that an instance sends: its name, its value and the names of its dimensions.
type Sent = (String, f64, Vec<String>);

/// Dimensions of what is the cluster's, and of what is a node's own.
const WHOLE: &[&str] = &["Cluster"];
const OWN: &[&str] = &["Cluster", "Node"];

/// What was sent by that name.
fn said(numbers: &[Sent], name: &str, dimensions: &[&str]) -> Option<f64> {
    numbers.iter().find(|(found, _, names)| found == name && names == dimensions).map(|(_, value, _)| *value)
}

/// The bucket and who may use it; the emulator ends with it.
fn bucket() -> Result<(S3Emulator, Caller)> {
    let emulator = S3Emulator::start()?;
    emulator.make_bucket(BUCKET)?;
    let caller = Caller::owner(emulator.address());
    Ok((emulator, caller))
}

/// The line of a member in what members list.
fn line(listed: &str, name: &str) -> Result<String> {
    let wanted = format!(", {name}, ");
    listed.lines().find(|line| line.contains(&wanted)).map(str::to_owned).with_context(|| listed.to_owned())
}

fn id(line: &str) -> Option<String> {
    line.split(", ").next().map(str::to_owned)
}

fn addresses(members: &[Etcd]) -> String {
    members.iter().map(|member| member.address().to_string()).collect::<Vec<_>>().join(",")
}

#[test]
fn a_member_of_etcd_that_lost_its_data_joins_as_somebody_new() -> Result<()> {
    let (folder, (_emulator, bucket)) = (tempfile::tempdir()?, bucket()?);
    let mut members = Etcd::cluster(folder.path(), 3)?;
    members[0].ctl(&["put", "key", "value"])?;
    // The leader is lost: for a while the others take it for their leader still, and what they are asked goes to it.
    let leader = eventually("a member of etcd leads", || Ok(members.iter().position(Etcd::leads)))?;
    let mut lost = members.remove(leader);
    let name = lost.name().to_owned();
    let before = line(&lost.ctl(&["member", "list"])?, &name)?;
    let peer = before.split(", ").nth(3).context("an address for the others")?.to_owned();
    let own = folder.path().join(&name).join("data");
    lost.kill();
    // The cluster is older than notes of first starts: the others know who has run.
    let others = addresses(&members);
    let instance =
        Instance { name, folder: folder.path(), volume: folder.path().join("empty"), others, peer, bucket: &bucket };

    // Without its data it has another id, and has not started yet.
    ensure!(instance.state()? == "existing");
    let after = members[0].ctl(&["member", "list"])?;
    let joining = after.lines().find(|line| line.contains(&instance.peer)).context("it has joined")?;
    ensure!(id(joining) != id(&before) && joining.contains("unstarted"), "{before}\n{joining}");
    // Started twice before it came up, it joins once.
    ensure!(instance.state()? == "existing");
    ensure!(members[0].ctl(&["member", "list"])? == after, "it joined once");
    // One that has its data changes nothing.
    ensure!(Instance { volume: own, ..instance.with_volume("") }.state()? == "existing");
    ensure!(members[0].ctl(&["member", "list"])? == after, "it is who it was");
    // Whoever loses what it joined on joins once more.
    ensure!(instance.with_volume("another").state()? == "existing");
    let again = members[0].ctl(&["member", "list"])?;
    let again = again.lines().find(|line| line.contains(&instance.peer)).context("it has joined")?;
    ensure!(id(again) != id(joining) && again.contains("unstarted"), "{joining}\n{again}");

    lost.restart_empty("existing")?;
    ensure!(lost.ctl(&["get", "key", "--print-value-only"])?.trim() == "value", "it has what the others have");
    Ok(())
}

#[test]
fn two_members_of_etcd_that_have_no_leader_are_no_first_start() -> Result<()> {
    let (folder, (_emulator, bucket)) = (tempfile::tempdir()?, bucket()?);
    let mut members = Etcd::cluster(folder.path(), 3)?;
    members[0].ctl(&["put", "key", "value"])?;
    let listed = members[0].ctl(&["member", "list"])?;
    let peer = |name: &str| -> Result<String> {
        Ok(line(&listed, name)?.split(", ").nth(3).context("an address for the others")?.to_owned())
    };
    // Each has come up with its data, and left its note.
    for member in &members {
        let name = member.name().to_owned();
        let (peer, volume) = (peer(&name)?, folder.path().join(&name).join("data"));
        let others = addresses(&members);
        let instance = Instance { name, folder: folder.path(), volume, others, peer, bucket: &bucket };
        ensure!(instance.state()? == "existing");
    }
    let mut lost = members.remove(2);
    let (name, before) = (lost.name().to_owned(), line(&listed, lost.name())?);
    let instance = Instance {
        peer: peer(&name)?,
        name,
        folder: folder.path(),
        volume: folder.path().join("empty"),
        others: addresses(&members),
        bucket: &bucket,
    };

    // All are killed, one loses its volume, and of the others one is back: alone it has no leader, and serves nobody.
    for member in members.iter_mut().chain([&mut lost]) {
        member.kill();
    }
    instance.waits()?;
    members[0].relaunch()?;
    instance.waits()?;
    // As who it was it would be half of a majority that does not know what it had promised.
    ensure!(
        !instance.volume.join("first-start").exists() && !instance.volume.join("joining").exists(),
        "nothing was begun"
    );

    // With two it joins, as somebody new, and finds what was written.
    members[1].restart()?;
    ensure!(instance.state()? == "existing");
    let after = members[0].ctl(&["member", "list"])?;
    let joining = after.lines().find(|line| line.contains(&instance.peer)).context("it has joined")?;
    ensure!(id(joining) != id(&before) && joining.contains("unstarted"), "{before}\n{joining}");
    lost.restart_empty("existing")?;
    ensure!(lost.ctl(&["get", "key", "--print-value-only"])?.trim() == "value", "nothing was lost");
    Ok(())
}

#[test]
fn the_first_start_of_a_member_of_etcd_is_noted_before_it_happens() -> Result<()> {
    let (folder, (mut emulator, bucket)) = (tempfile::tempdir()?, bucket()?);
    let instance = Instance {
        name: "member-1".to_owned(),
        folder: folder.path(),
        volume: folder.path().join("first"),
        others: NOBODY.to_owned(),
        peer: NOBODY.to_owned(),
        bucket: &bucket,
    };
    ensure!(instance.run("cluster_state member-1", 1)? == "new");
    // Its instance ended before etcd had written anything: it is the same volume.
    ensure!(instance.run("cluster_state member-1", 1)? == "new");
    // On another one it would not know what it may have promised.
    instance.with_volume("second").waits()?;
    // Others are not it.
    let other = Instance { name: "member-2".to_owned(), ..instance.with_volume("other") };
    ensure!(other.run("cluster_state member-2", 1)? == "new");

    // A cluster older than notes has backups of those that have run.
    let third = Instance { name: "member-0".to_owned(), ..instance.with_volume("third") };
    bucket.ask(&["s3api", "put-object", "--bucket", BUCKET, "--key", "etcd-backups/rig/member-0/now.db"])?;
    third.waits()?;
    // Whoever starts etcd anew on purpose says so on each volume (docs/operations/lose-etcd.md).
    fs::write(third.volume.join("first-start"), "")?;
    ensure!(third.run("cluster_state member-0", 1)? == "new");

    // Nobody knows while the bucket is away; a member with its data needs no bucket.
    emulator.stop();
    instance.with_volume("fourth").waits()?;
    fs::create_dir_all(instance.volume.join("member"))?;
    ensure!(instance.run("cluster_state member-1", 1)? == "existing");
    Ok(())
}

#[test]
fn a_member_of_etcd_that_is_restored_while_it_waits_asks_for_no_change() -> Result<()> {
    let (folder, (_emulator, bucket)) = (tempfile::tempdir()?, bucket()?);
    let members = Etcd::cluster(folder.path(), 3)?;
    let before = members[0].ctl(&["member", "list"])?;
    let name = members[2].name().to_owned();
    let instance = Instance {
        peer: line(&before, &name)?.split(", ").nth(3).context("an address for the others")?.to_owned(),
        name,
        folder: folder.path(),
        volume: folder.path().join("volume"),
        others: addresses(&members[..2]),
        bucket: &bucket,
    };
    // It has run, and lost its data: why else would it be restored?
    let note = format!("etcd-members/rig/{}/first-start", instance.name);
    bucket.ask(&["s3api", "put-object", "--bucket", BUCKET, "--key", &note])?;
    let state = format!("cluster_state {}", instance.name);
    let asked = "eval \"asked_$(declare -f ctl)\"";
    for (at, (restored, mark)) in [("mkdir -p", "member"), ("touch", "first-start")].into_iter().enumerate() {
        let restored = format!("{restored} \"$DATA/{mark}\"");
        // With its data the two others are there at once, and know it as who it is: either while it waits to ask them again, or
        // after they have told it who is there.
        let waits = format!("sleep() {{ {restored}; }}; ctl() {{ [ -e \"$DATA/{mark}\" ] && asked_ctl \"$@\"; }}");
        let has_asked = format!(
            "why_empty() {{ echo lost; }}; ctl() {{ asked_ctl \"$@\" || return 1; case $* in *list) {restored} ;; esac; }}"
        );
        for (moment, meanwhile) in [waits, has_asked].iter().enumerate() {
            for begun in ["leave", "join"] {
                let instance = instance.with_volume(&format!("volume-{at}-{moment}-{begun}"));
                fs::create_dir_all(&instance.volume)?;
                if begun == "join" {
                    fs::write(instance.volume.join("joining"), "")?;
                }
                let said = instance.run(&format!("{asked}; {meanwhile}; {state}"), 15);
                ensure!(said.is_err(), "{mark}, {begun}: it starts as {said:?}");
                ensure!(instance.volume.join(mark).exists(), "{mark}, {begun}: it was restored: {said:?}");
                let after = members[0].ctl(&["member", "list"])?;
                ensure!(after == before, "{mark}, {begun}: the others have changed\n{before}\n{after}");
                if mark == "member" {
                    ensure!(instance.run(&state, 1)? == "existing", "it goes by its data");
                }
            }
        }
    }
    Ok(())
}

#[test]
fn a_member_of_etcd_says_whether_there_is_a_majority() -> Result<()> {
    let (folder, (_emulator, bucket)) = (tempfile::tempdir()?, bucket()?);
    let mut members = Etcd::cluster(folder.path(), 3)?;
    let instance = Instance {
        name: "member-0".to_owned(),
        folder: folder.path(),
        volume: folder.path().join("volume"),
        others: members[0].address().to_string(),
        peer: NOBODY.to_owned(),
        bucket: &bucket,
    };
    certificate(&folder.path().join("etc/tls/node.pem"), "etcd-1.rig.internal", 30)?;
    let numbers = eventually("the member is healthy", || {
        let numbers = instance.metrics()?;
        Ok((said(&numbers, "Ready", OWN) == Some(1.0)).then_some(numbers))
    })?;
    ensure!(said(&numbers, "EtcdMajority", WHOLE) == Some(1.0), "{numbers:?}");
    ensure!(said(&numbers, "CertificateDays", OWN).is_some_and(|days| (28.0..=30.0).contains(&days)), "{numbers:?}");
    ensure!(said(&numbers, "DatabaseUsedPercent", OWN).is_some_and(|used| used < 1.0), "{numbers:?}");
    for member in &mut members[1..] {
        member.kill();
    }
    let numbers = instance.metrics()?;
    ensure!(said(&numbers, "EtcdMajority", WHOLE) == Some(0.0), "{numbers:?}");
    ensure!(said(&numbers, "Ready", OWN) == Some(0.0), "{numbers:?}");
    Ok(())
}

#[test]
fn a_member_of_etcd_says_how_full_it_is_and_that_it_takes_no_writes_until_somebody_disarms_its_alarm() -> Result<()> {
    let (folder, (_emulator, bucket)) = (tempfile::tempdir()?, bucket()?);
    let data = folder.path().join("etcd");
    fs::create_dir_all(&data)?;
    let member = Etcd::start_with(&data, &["--quota-backend-bytes=1000000"])?;
    let instance = Instance {
        name: "member-0".to_owned(),
        folder: folder.path(),
        volume: folder.path().join("volume"),
        others: member.address().to_string(),
        peer: NOBODY.to_owned(),
        bucket: &bucket,
    };
    certificate(&folder.path().join("etc/tls/node.pem"), "etcd-1.rig.internal", 30)?;
    let used = || -> Result<f64> { said(&instance.metrics()?, "DatabaseUsedPercent", OWN).context("how full it is") };
    let before = used()?;
    ensure!((0.1..50.0).contains(&before), "{before} %");
    let value = "x".repeat(100_000);
    let mut revision = 1;
    while member.ctl(&["put", "key", &value]).is_ok() {
        revision += 1;
        ensure!(revision < 100, "the quota is used up");
    }
    ensure!(used()? == 100.0, "it takes no writes");
    // Room alone does not help.
    member.ctl(&["compaction", &revision.to_string()])?;
    member.ctl(&["defrag"])?;
    ensure!(used()? == 100.0 && member.ctl(&["put", "key", "value"]).is_err(), "nor does it now");
    member.ctl(&["alarm", "disarm"])?;
    member.ctl(&["put", "key", "value"])?;
    let after = used()?;
    ensure!((0.1..50.0).contains(&after), "{after} %");
    Ok(())
}
