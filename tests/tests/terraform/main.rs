//! deploy/terraform: the module's own tests, linters, and the module applied to an emulator of AWS, where the scripts of its
//! instances and a real node live in what it made.

mod containers;
mod etcd_members;
mod instance;
mod scripts;

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use varve_metadata::config::Codec;
use varve_tests::{
    asked::Asked,
    aws::{Caller, enforce_policies},
    client::Client,
    etcd::Etcd,
    lines::Lines,
    node::{binary, eventually, until, varve},
    s3::S3Emulator,
    terraform::Root,
    tools,
};

use crate::instance::Broker;

#[test]
fn modules_are_formatted_and_examples_are_valid() -> Result<()> {
    let mut format = tools::program("terraform")?;
    format.current_dir(tools::checkout()).args(["fmt", "-check", "-recursive", "-diff"]);
    for folder in ["deploy/terraform", "localstack/terraform"] {
        tools::output_of(format.arg(folder))?;
        format = tools::program("terraform")?;
        format.current_dir(tools::checkout()).args(["fmt", "-check", "-recursive", "-diff"]);
    }
    for example in ["complete", "own-vpc"] {
        let folder = tempfile::tempdir()?;
        Root::new(folder.path(), &format!("deploy/terraform/examples/{example}"))?.run(&["validate"])?;
    }
    Ok(())
}

#[test]
fn the_module_makes_what_it_says_and_refuses_what_would_go_wrong() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let printed = Root::new(folder.path(), "deploy/terraform")?.run(&["test"])?;
    ensure!(printed.contains("Success!") && printed.contains("67 passed, 0 failed"), "{printed}");
    Ok(())
}

#[test]
fn linters_find_nothing_in_modules_and_scripts() -> Result<()> {
    let module = tools::checkout().join("deploy/terraform");
    let mut checkov = tools::program("checkov")?;
    tools::output_of(checkov.current_dir(&module).args(["--directory", ".", "--config-file", ".checkov.yaml"]))?;
    let mut shellcheck = tools::program("shellcheck")?;
    shellcheck.current_dir(&module).arg("--external-sources").args(scripts(&module)?);
    tools::output_of(&mut shellcheck)?;
    Ok(())
}

fn scripts(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)?.chain(fs::read_dir(folder.join("instance"))?) {
        let path = entry?.path();
        if path.extension().is_some_and(|kind| kind == "sh") {
            found.push(path);
        }
    }
    ensure!(found.len() >= 4, "scripts of {}: {found:?}", folder.display());
    Ok(found)
}

#[test]
fn applied_to_an_emulator_it_gives_instances_a_place_and_a_node_a_bucket_that_it_may_use_and_no_more() -> Result<()> {
    let emulator = S3Emulator::start()?;
    let folder = tempfile::tempdir()?;
    let root = Root::on_emulator(folder.path(), emulator.address())?;
    root.apply()?;
    a_second_plan_changes_nothing(&root)?;

    let owner = Caller::owner(emulator.address());
    let outputs = root.outputs()?;
    let told = serde_json::from_str::<Value>(&outputs)?["varve"]["value"].take();
    fill_secrets(folder.path(), &owner, &outputs)?;
    the_handbook_says_what_to_do_at_each_alarm(&owner)?;
    instance::units_are_sound(folder.path(), &told)?;

    containers::brokers_are_prepared_and_asked_how_they_are(folder.path(), &owner, &outputs)?;
    let broker = Broker::boots(folder.path(), &owner, &told)?;
    let role = told["broker_role_arn"].as_str().context("a role")?;
    let (broker_role, etcd_role) =
        (owner.assume(role)?, owner.assume(told["etcd_role_arn"].as_str().context("a role")?)?);
    enforce_policies(emulator.address(), true)?;
    let kept = a_node_tiers(folder.path(), &broker, &broker_role, &told);
    let refused = kept.and_then(|()| roles_are_refused(folder.path(), &broker_role, &etcd_role, &told));
    enforce_policies(emulator.address(), false)?;
    refused?;

    let left = root.destroy()?;
    ensure!(left.is_empty(), "left after destroy:\n{left}");
    Ok(())
}

/// The emulator forgets the descriptions of rules that name another group; everything else stays as it was made.
fn a_second_plan_changes_nothing(root: &Root) -> Result<()> {
    let changes = root.changes()?;
    let is_forgotten = |(address, names): &(String, Vec<String>)| {
        address.contains("aws_vpc_security_group_") && *names == ["description"]
    };
    let (forgotten, others): (Vec<_>, Vec<_>) = changes.into_iter().partition(is_forgotten);
    ensure!(others.is_empty(), "a second plan changes {others:#?}");
    ensure!(forgotten.len() <= 8, "{forgotten:#?}");
    Ok(())
}

/// Each alarm that the module has made stands in the handbook, by its name, and no others do.
fn the_handbook_says_what_to_do_at_each_alarm(owner: &Caller) -> Result<()> {
    let page = fs::read_to_string(tools::checkout().join("docs/operations/alerts.md"))?;
    let told = owner.ask(&["cloudwatch", "describe-alarms", "--alarm-name-prefix", "rig-"])?;
    let alarms = told["MetricAlarms"].as_array().context("alarms")?;
    ensure!(alarms.len() > 30, "{} alarms", alarms.len());
    let mut made = BTreeSet::new();
    for alarm in alarms {
        let name = alarm["AlarmName"].as_str().and_then(|name| name.strip_prefix("rig-")).context("a name")?;
        made.insert(match name.strip_suffix("-capacity") {
            Some(_) => "GROUP-capacity".to_owned(),
            None => name.replace(|character: char| character.is_ascii_digit(), "N"),
        });
    }
    let rows = page.lines().filter_map(|line| line.strip_prefix("| `NAME-")?.split('`').next().map(str::to_owned));
    let rows: BTreeSet<String> = rows.collect();
    ensure!(rows == made, "docs/operations/alerts.md tells of {rows:?}, and the module makes {made:?}");
    Ok(())
}

/// Runs the script of whoever operates the cluster; certificates are good on loopback too.
fn fill_secrets(folder: &Path, owner: &Caller, outputs: &str) -> Result<()> {
    let told = folder.join("outputs.json");
    fs::write(&told, outputs)?;
    let mut script = Command::new(tools::checkout().join("deploy/terraform/fill-secrets.sh"));
    script.arg(folder.join("authority")).args(["localhost", "127.0.0.1"]).envs(owner.environment());
    script.env("PATH", instance::path()?).stdin(fs::File::open(&told)?);
    tools::output_of(&mut script)?;
    // Once more: the same authority, the same password, other certificates.
    let ca = fs::read(folder.join("authority/ca.pem"))?;
    let certificates = || -> Result<Vec<Vec<u8>>> {
        let files = ["broker", "etcd", "admin"].map(|name| folder.join(format!("authority/{name}.pem")));
        files.iter().map(|file| Ok(fs::read(file)?)).collect()
    };
    let first = certificates()?;
    let password = owner.ask(&["secretsmanager", "get-secret-value", "--secret-id", "rig/admin-password"])?;
    script.stdin(fs::File::open(&told)?);
    tools::output_of(&mut script)?;
    ensure!(fs::read(folder.join("authority/ca.pem"))? == ca, "the authority stays");
    ensure!(first.iter().zip(certificates()?).all(|(before, now)| *before != now), "certificates are renewed");
    let again = owner.ask(&["secretsmanager", "get-secret-value", "--secret-id", "rig/admin-password"])?;
    ensure!(password["SecretString"] == again["SecretString"], "the password stays");
    Ok(())
}

/// A node with the settings that the instance wrote, in its role, archives and reads back.
fn a_node_tiers(folder: &Path, broker: &Broker, role: &Caller, told: &Value) -> Result<()> {
    let tls = broker.etc.join("tls");
    let (ca, own) = (tls.join("ca.pem").display().to_string(), tls.join("node.pem").display().to_string());
    let etcd_folder = folder.join("etcd");
    fs::create_dir_all(&etcd_folder)?;
    let member = folder.join("authority/etcd.pem").display().to_string();
    let flags = [
        format!("--cert-file={member}"),
        format!("--key-file={member}"),
        format!("--trusted-ca-file={ca}"),
        "--client-cert-auth".to_owned(),
    ];
    let etcd = Etcd::start_with(&etcd_folder, &flags.each_ref().map(String::as_str))?;
    // What a laptop has elsewhere than an instance, and a listener for this test's client; everything else is as the module says.
    let settings = [
        "listeners=TEST://127.0.0.1:0,INTERNAL://127.0.0.1:0,CLIENT://127.0.0.1:0,EXTERNAL://127.0.0.1:0".to_owned(),
        "listener.security.protocol.map=TEST:PLAINTEXT,INTERNAL:SSL,CLIENT:SASL_SSL,EXTERNAL:SASL_SSL".to_owned(),
        "super.users=User:ANONYMOUS;User:CN=broker;User:admin".to_owned(),
        format!("varve.data.dir={}", folder.join("data").display()),
        "varve.log.format=text".to_owned(),
        format!("varve.metadata.url=etcd://{}/rig", etcd.address()),
        format!("varve.metadata.etcd.ca.file={ca}"),
        format!("varve.metadata.etcd.certificate.file={own}"),
        format!("varve.metadata.etcd.key.file={own}"),
        format!("ssl.keystore.location={own}"),
        format!("ssl.truststore.location={ca}"),
        "default.replication.factor=1".to_owned(),
        "min.insync.replicas=1".to_owned(),
        "offsets.topic.replication.factor=1".to_owned(),
        "log.retention.check.interval.ms=100".to_owned(),
        "varve.compactor.interval.ms=200".to_owned(),
    ];
    let settings = settings.each_ref().map(String::as_str);
    let file = broker.etc.join("server.properties").display().to_string();
    let credentials = role.environment();
    let mut environment: Vec<(&str, &str)> = credentials.iter().map(|(name, value)| (*name, value.as_str())).collect();
    environment.push(("VARVE_FIRST_USERS", &broker.first_users));
    let varve = Asked::of(folder).with_file(&file).with_settings(&settings).with_environment(&environment);
    let node = varve.start()?;

    let configs = [("varve.archive.lag.ms", "300"), ("local.retention.ms", "1"), ("file.delete.delay.ms", "0")];
    let mut client = Client::connect(node.address)?;
    let configs = [&configs[..], &[("retention.ms", "-1")]].concat();
    // The node serves before it takes part in the cluster.
    eventually("the broker is let in, and has the topic", || Ok(client.create_topic("logs", 1, &configs).ok()))?;
    for batch in Lines::load(None)?.batches(Codec::Zstd, 64 << 10, 1 << 20)? {
        client.produce("logs", 0, batch)?;
    }
    let records = varve.only_parquet_is_left(&node, "logs", 1)?;
    let verified = varve.ask(&["tier", "verify", "logs"])?;
    ensure!(verified[0]["problems"] == 0 && records > 0, "{records} records: {verified:?}");
    node.stop()?;

    // Somewhere else in the same bucket the role may not write, and the node says so.
    let elsewhere = format!("varve.object.store.url=s3://{}/elsewhere", told["bucket"].as_str().context("a bucket")?);
    let other_data = format!("varve.data.dir={}", folder.join("other-data").display());
    let other_cluster = format!("varve.metadata.url=etcd://{}/other", etcd.address());
    let refused = Asked::of(folder).with_file(&file).with_settings(&settings).with_environment(&environment);
    let refused =
        refused.with_settings(&[&elsewhere, &other_data, &other_cluster, "varve.object.store.request.attempts=1"]);
    match refused.start() {
        // It serves what is hot; the archive stands still.
        Ok(node) => {
            eventually("the node says that it may not write there", || {
                Ok(node.printed().contains("AccessDenied").then_some(()))
            })?;
            node.kill();
        }
        Err(error) => ensure!(format!("{error:#}").contains("AccessDenied"), "{error:#}"),
    }
    Ok(())
}

/// What the roles must not do: destroy, write elsewhere, or change who may do what. moto looks at actions and resources of
/// the roles' policies; conditions and the bucket's own policy it does not ask.
fn roles_are_refused(folder: &Path, broker: &Caller, etcd: &Caller, told: &Value) -> Result<()> {
    let bucket = told["bucket"].as_str().context("a bucket")?;
    let file = folder.join("outputs.json").display().to_string();
    let put = |key: &str| -> Vec<String> {
        ["s3api", "put-object", "--bucket", bucket, "--key", key, "--body", &file].map(str::to_owned).to_vec()
    };
    let refuse = |caller: &Caller, arguments: &[String]| {
        caller.is_refused(&arguments.iter().map(String::as_str).collect::<Vec<_>>())
    };
    broker.ask(&put("varve/note").iter().map(String::as_str).collect::<Vec<_>>())?;
    refuse(broker, &put("elsewhere/note"))?;
    refuse(broker, &put("etcd-backups/rig/etcd-1/now.db"))?;
    broker.is_refused(&["s3api", "delete-bucket", "--bucket", bucket])?;
    broker.is_refused(&[
        "s3api",
        "put-bucket-versioning",
        "--bucket",
        bucket,
        "--versioning-configuration",
        "Status=Suspended",
    ])?;
    broker.is_refused(&["s3api", "create-bucket", "--bucket", "another"])?;
    broker.is_refused(&["iam", "create-user", "--user-name", "mallory"])?;
    broker.is_refused(&["iam", "delete-role-policy", "--role-name", "rig-broker", "--policy-name", "archive"])?;
    broker.is_refused(&["ec2", "terminate-instances", "--instance-ids", "i-0123456789abcdef0"])?;

    refuse(broker, &put("etcd-members/rig/etcd-1/first-start"))?;

    for own in ["etcd-backups/rig/etcd-1/now.db", "etcd-members/rig/etcd-1/first-start"] {
        etcd.ask(&put(own).iter().map(String::as_str).collect::<Vec<_>>())?;
        etcd.is_refused(&["s3api", "delete-object", "--bucket", bucket, "--key", own])?;
    }
    refuse(etcd, &put("etcd-backups/another/etcd-1/now.db"))?;
    refuse(etcd, &put("varve/note"))?;
    let archived = folder.join("archived").display().to_string();
    etcd.is_refused(&["s3api", "get-object", "--bucket", bucket, "--key", "varve/note", &archived])
}

#[test]
fn metrics_that_alarms_look_at_are_a_nodes_own() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let node = varve_tests::node::Node::start(folder.path(), &[])?;
    let script = fs::read_to_string(tools::checkout().join("deploy/terraform/instance/broker.sh"))?;
    let words = |begin: &str, count: usize| -> Vec<&str> {
        script.split(begin).skip(1).flat_map(|rest| rest.split_whitespace().take(count)).collect()
    };
    let names = [words("sum_of ", 1), words("percent_of ", 2)].concat();
    ensure!(names.len() == 9, "{names:?}");
    until("metrics are shown, and the node is ready", || {
        let page = node.http_get("/metrics")?;
        for name in &names {
            ensure!(page.lines().any(|line| line.starts_with(name)), "no {name} in\n{page}");
        }
        node.http_get("/readyz")
    })?;
    node.stop()
}

/// `varve config check FILE`, as an instance does before it starts the node.
fn check(file: &Path) -> Result<String> {
    let mut command = varve()?;
    tools::output_of(command.args(["config", "check"]).arg(file))
}

/// The binary that instances would download.
fn checksum() -> Result<String> {
    let printed = tools::output_of(Command::new("sha256sum").arg(binary()?))?;
    Ok(printed.split_whitespace().next().context("a checksum")?.to_owned())
}
