//! The scripts of instances, run as an instance would, up to what needs a disk and root: they find their volume, name and
//! secrets in what Terraform made.

use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use varve_tests::{
    aws::Caller,
    metadata_service::{Instance, MetadataService},
    node::binary,
    tools,
};

/// The path of scripts: the tools' programs first.
pub(crate) fn path() -> Result<OsString> {
    let own = tools::folder()?.join("bin");
    let others = std::env::var_os("PATH").unwrap_or_default();
    Ok(std::env::join_paths([own].into_iter().chain(std::env::split_paths(&others)))?)
}

/// A broker's instance that has started as far as it can here.
pub(crate) struct Broker {
    /// Its /etc/varve.
    pub etc: PathBuf,
    /// What its environment file says of the first users.
    pub first_users: String,
}

/// An instance of the emulator with its metadata service and a folder in place of /etc/varve.
struct Machine<'a> {
    caller: &'a Caller,
    metadata: MetadataService,
    etc: PathBuf,
}

impl Broker {
    /// Starts two instances of one zone's group, and one of another zone's; the last one goes on to settings.
    pub(crate) fn boots(folder: &Path, owner: &Caller, told: &Value) -> Result<Broker> {
        let files = files(told, "broker")?;
        let group = |zone: usize| told["auto_scaling_groups"]["broker"][zone].as_str().context("a group");
        let first = Machine::new(folder, owner, &files, group(0)?, "10.42.0.11")?;
        ensure!(first.run("claim_volume | cut --fields 2")?.trim() == "1", "the first zone has broker 1");
        ensure!(first.run("claim_volume | cut --fields 2")?.trim() == "1", "and keeps it when it starts again");
        // Another instance of the same zone waits for that one to let go.
        let replaced =
            Machine { caller: owner, metadata: instance("i-0123456789abcdef0", "us-east-1a", "10.42.0.12")?, ..first };
        let waited = replaced.run("CLAIM_TRIES=1; sleep() { :; }; claim_volume");
        ensure!(waited.is_err(), "{waited:?}");

        let third = Machine::new(folder, owner, &files, group(2)?, "10.42.32.13")?;
        let (user, number) =
            (tools::output_of(Command::new("id").arg("-gn"))?, third.run("claim_volume | cut --fields 2")?);
        ensure!(number.trim() == "3", "the third zone has broker {number}");
        let group = user.trim();
        // One that the certificate does not name would be refused by everybody.
        let early = third.run(&format!("refresh_tls {group} && certificate_is_for broker-4.$DOMAIN"));
        ensure!(early.is_err(), "{early:?}");
        third.run(&format!(
            "refresh_tls {group} && certificate_is_for broker-3.$DOMAIN && write_environment && render_properties 3 us-east-1c | replace $ETC/server.properties {group}"
        ))?;
        third.run("publish_name broker-3 && register_target 3")?;
        third.run(&format!("binary={} && \"$binary\" config check $ETC/server.properties >&2", binary()?.display()))?;
        third.is_known(owner, told)?;

        let environment = fs::read_to_string(third.etc.join("environment"))?;
        let first_users = environment.trim().strip_prefix("VARVE_FIRST_USERS=").context("first users")?.to_owned();
        let properties = fs::read_to_string(third.etc.join("server.properties"))?;
        ensure!(properties.contains("node.id=3\n") && properties.contains("broker.rack=us-east-1c\n"), "{properties}");
        ensure!(properties.contains(":9203\n") && !properties.contains('@'), "{properties}");
        crate::check(&third.etc.join("server.properties"))?;
        third.install_refuses_another_binary(folder)?;
        Ok(Broker { etc: third.etc, first_users })
    }
}

impl Machine<'_> {
    /// An instance that the group has started, with the files of its user data.
    fn new<'a>(
        folder: &Path,
        caller: &'a Caller,
        files: &[(String, String)],
        group: &str,
        address: &str,
    ) -> Result<Machine<'a>> {
        let groups =
            caller.ask(&["autoscaling", "describe-auto-scaling-groups", "--auto-scaling-group-names", group])?;
        let started = &groups["AutoScalingGroups"][0]["Instances"][0];
        let field = |name: &str| started[name].as_str().with_context(|| format!("{group} has started no instance"));
        let metadata = instance(field("InstanceId")?, field("AvailabilityZone")?, address)?;
        let etc = folder.join(group);
        fs::create_dir_all(&etc)?;
        for (path, text) in files {
            if let Some(name) = path.strip_prefix("/etc/varve/") {
                fs::write(etc.join(name), text)?;
            }
        }
        Ok(Machine { caller, metadata, etc })
    }

    /// Runs lines with the functions of the broker's script.
    fn run(&self, lines: &str) -> Result<String> {
        let scripts = tools::checkout().join("deploy/terraform/instance");
        let mut command = Command::new("bash");
        command.arg("-c").arg(format!(". {}/broker.sh\n{lines}", scripts.display()));
        command.env("LIB", &scripts).env("ETC", &self.etc).env("PATH", path()?).envs(self.caller.environment());
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("VARVE_")) {
            command.env_remove(name);
        }
        tools::output_of(command.env("AWS_EC2_METADATA_SERVICE_ENDPOINT", self.metadata.url()))
    }

    /// Others find the instance by its name and by its port on the load balancer.
    fn is_known(&self, owner: &Caller, told: &Value) -> Result<()> {
        let zone = told["private_zone_id"].as_str().context("a zone")?;
        let records = owner.ask(&["route53", "list-resource-record-sets", "--hosted-zone-id", zone])?;
        let records = records["ResourceRecordSets"].as_array().context("records")?;
        let own = records.iter().find(|record| record["Name"] == "broker-3.rig.internal.").context("a record")?;
        ensure!(own["ResourceRecords"][0]["Value"] == "10.42.32.13", "{own}");
        let groups = owner.ask(&["elbv2", "describe-target-groups", "--names", "rig-broker-3"])?;
        let group = groups["TargetGroups"][0]["TargetGroupArn"].as_str().context("a target group")?;
        let health = owner.ask(&["elbv2", "describe-target-health", "--target-group-arn", group])?;
        ensure!(health["TargetHealthDescriptions"].as_array().is_some_and(|targets| targets.len() == 1), "{health}");
        Ok(())
    }

    /// A download that is not what was ordered does not become the binary.
    fn install_refuses_another_binary(&self, folder: &Path) -> Result<()> {
        let (ours, target) = (binary()?, folder.join("installed"));
        let serve = |sum: &str| {
            self.run(&format!(
                "binary={}; VARVE_SHA256={sum}; curl() {{ cp {} \"${{@: -2:1}}\"; }}; install_binary",
                target.display(),
                ours.display()
            ))
        };
        let refused = serve(&"0".repeat(64));
        ensure!(refused.is_err() && !target.exists(), "{refused:?}");
        serve(&crate::checksum()?)?;
        ensure!(target.exists(), "the binary is installed");
        Ok(fs::remove_file(target)?)
    }
}

fn instance(id: &str, zone: &str, address: &str) -> Result<MetadataService> {
    MetadataService::start(Instance { id: id.to_owned(), zone: zone.to_owned(), address: address.to_owned() })
}

/// The units that user data brings, each with its drop-ins, are such as systemd takes.
pub(crate) fn units_are_sound(folder: &Path, told: &Value) -> Result<()> {
    for role in ["broker", "etcd"] {
        let place = folder.join(format!("units-of-{role}"));
        let mut units = Vec::new();
        for (path, text) in files(told, role)? {
            let Some(name) = path.strip_prefix("/etc/systemd/system/") else { continue };
            let file = place.join(name);
            fs::create_dir_all(file.parent().context("a folder")?)?;
            // What they start is not installed where this test runs.
            let programs =
                ["/usr/local/sbin/varve-instance ", "/usr/bin/varve ", "/usr/bin/etcd ", "/usr/bin/openssl "];
            fs::write(&file, programs.iter().fold(text, |text, program| text.replace(program, "/bin/true ")))?;
            // Drop-ins are read with the unit that they are of.
            if !name.contains('/') {
                units.push(file);
            }
        }
        ensure!(units.len() > 5, "{role}: {units:?}");
        let verified = Command::new("systemd-analyze").args(["verify", "--man=no"]).args(&units).output()?;
        let said = String::from_utf8_lossy(&verified.stderr).into_owned();
        // The machine's own units are no business of ours.
        let ours: Vec<&str> = said.lines().filter(|line| line.contains("varve")).collect();
        ensure!(ours.is_empty(), "{role}:\n{}", ours.join("\n"));
    }
    Ok(())
}

/// Path and text of each file in a role's user data.
fn files(told: &Value, role: &str) -> Result<Vec<(String, String)>> {
    let user_data = told["user_data"][role].as_str().context("user data")?;
    ensure!(user_data.starts_with("#cloud-config\n"), "cloud-init knows it by its first line");
    // As cloud-init reads it.
    let script = "import json, sys, yaml; print(json.dumps(yaml.safe_load(sys.stdin)))";
    let place = tempfile::NamedTempFile::new()?;
    fs::write(place.path(), user_data)?;
    let mut python = Command::new(tools::folder()?.join("venv/bin/python"));
    python.args(["-c", script]).stdin(fs::File::open(place.path())?);
    let config: Value = serde_json::from_str(&tools::output_of(&mut python)?)?;
    let files = config["write_files"].as_array().context("files")?;
    let field = |file: &Value, name: &str| file[name].as_str().map(str::to_owned).with_context(|| format!("{file}"));
    files.iter().map(|file| Ok((field(file, "path")?, field(file, "content")?))).collect()
}
