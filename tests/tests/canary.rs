//! `varve canary` against nodes that work and nodes that do not, and as the chart and its unit start it.

use std::{fs, path::Path, process::Command};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use varve_tests::{
    certificates::Authority,
    cluster::Cluster,
    compose::image_environment,
    node::{Node, eventually, stable_address, varve},
    running::Running,
    tools,
};

/// What archives and rewrites as soon as it can.
const EAGER: &[&str] = &[
    "log.retention.check.interval.ms=100",
    "remote.log.manager.task.interval.ms=100",
    "varve.compactor.interval.ms=100",
];

/// What is in order is so on a machine with much else to do, too.
const PATIENT: [&str; 4] = ["--timeout-seconds", "300", "--archive-timeout-seconds", "300"];

/// The steps that were told, each with its outcome.
fn steps(printed: &str) -> Result<Vec<(String, String)>> {
    let each = printed.lines().map(|line| {
        let line: Value = serde_json::from_str(line).with_context(|| line.to_owned())?;
        Ok((
            line["step"].to_string().trim_matches('"').to_owned(),
            line["outcome"].to_string().trim_matches('"').to_owned(),
        ))
    });
    each.collect()
}

fn canary(node: &Node, arguments: &[&str]) -> Result<Command> {
    let mut command = varve()?;
    command.args(["canary", "--json", "--bootstrap-server", &node.address.to_string()]).args(arguments);
    Ok(command)
}

#[test]
fn a_record_is_followed_from_the_producer_into_a_parquet_object() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let node = Node::start(folder.path(), EAGER)?;
    // It finds the archive where the node has it.
    let printed = tools::output_of(canary(&node, &PATIENT)?.current_dir(folder.path()))?;
    let told = steps(&printed)?;
    let names: Vec<&str> = told.iter().map(|(step, _)| step.as_str()).collect();
    ensure!(
        names == ["produce", "consume", "archive", "query"] && told.iter().all(|(_, how)| how == "ok"),
        "{printed}"
    );
    node.stop()
}

#[test]
fn a_round_ends_with_the_step_that_fails_and_exit_code_1() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let node = Node::start(folder.path(), EAGER)?;
    // Nothing comes into this archive.
    let other = folder.path().join("other");
    fs::create_dir(&other)?;
    let other = format!("varve.object.store.url=file://{}", other.display());
    let arguments = ["--timeout-seconds", "300", "--archive-timeout-seconds", "1", "--override", &other];
    let output = canary(&node, &arguments)?.current_dir(folder.path()).output()?;
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(output.status.code() == Some(1), "{told} {}", String::from_utf8_lossy(&output.stderr));
    let outcomes = [("produce", "ok"), ("consume", "ok"), ("archive", "failed")];
    ensure!(steps(&told)? == outcomes.map(|(step, how)| (step.to_owned(), how.to_owned())), "{told}");
    node.stop()?;
    // Nobody listens there.
    let address = stable_address()?;
    let mut command = varve()?;
    command.args(["canary", "--json", "--no-archive", "--timeout-seconds", "1"]);
    let output = command.args(["--bootstrap-server", &address.to_string()]).current_dir(folder.path()).output()?;
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(output.status.code() == Some(1), "{told}");
    ensure!(steps(&told)? == [("produce".to_owned(), "failed".to_owned())], "{told}");
    Ok(())
}

#[test]
fn a_canary_that_stays_writes_to_every_broker_and_shows_what_it_measures() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let settings = [
        EAGER,
        &["default.replication.factor=2", "offsets.topic.replication.factor=2", "broker.session.timeout.ms=3600000"],
    ];
    let cluster = Cluster::start(folder.path(), 2, &settings.concat())?;
    let addresses: Vec<String> = cluster.addresses().iter().map(ToString::to_string).collect();
    let bucket = format!("varve.object.store.url=file://{}", folder.path().join("bucket").display());
    let mut command = varve()?;
    command.args(["canary", "--bootstrap-server", &addresses.join(","), "--every-seconds", "1"]).args(PATIENT);
    command.args(["--listen", "127.0.0.1:0", "--override", &bucket]).current_dir(folder.path());
    let mut canary = Running::start(command, &folder.path().join("canary.log"))?;
    canary.until_it_says("listening on ")?;
    let printed = canary.printed();
    let at =
        printed.lines().find_map(|line| line.split("listening on ").nth(1)).context("an address")?.trim().to_owned();
    let ready = |what: &str| {
        varve().and_then(|mut varve| Ok(varve.args(["health", "--address", &at]).args(what.split(' ')).output()?))
    };
    ensure!(ready("--wait-seconds 300")?.status.success(), "it lives");
    ensure!(ready("--ready --wait-seconds 300")?.status.success(), "a round succeeds:\n{}", canary.printed());
    eventually("the second round, too", || {
        let done = canary.printed().lines().filter(|line| line.contains("step: query  outcome: ok")).count();
        Ok((done >= 2).then_some(()))
    })?;
    let described = cluster.describe("varve-canary")?;
    ensure!(described.len() == 2, "a partition for each broker: {described:?}");
    canary.terminate()?;
    Ok(())
}

/// What the chart makes of values with a canary, an etcd that asks for a password, and a list of who may come.
fn chart(values: &str) -> Result<Vec<Value>> {
    let folder = tools::checkout().join("deploy/helm/varve");
    let mut helm = tools::program("helm")?;
    helm.args(["template", "varve"]).arg(&folder).args(["--namespace", "kafka", "--kube-version", "1.37.0"]);
    tools::yaml(&tools::output_of(helm.arg("--values").arg(folder.join(format!("ci/{values}.yaml"))))?)
}

fn only<'a>(objects: &'a [Value], kind: &str) -> Result<&'a Value> {
    objects.iter().find(|object| object["kind"] == kind).with_context(|| format!("no {kind}"))
}

/// One round of what the container runs, with the node that is at `address` and without the bucket, which is nowhere: it succeeds.
fn a_round_of_the_pod(container: &Value, folder: &Path, settings: &str, address: &str) -> Result<()> {
    let file = folder.join("rendered.properties");
    fs::write(&file, settings)?;
    let mut command = varve()?;
    for argument in container["args"].as_array().context("arguments")? {
        let argument = argument.as_str().context("text")?;
        match argument.split_once('=') {
            Some(("--every-seconds" | "--listen", _)) => continue,
            Some(("--bootstrap-server", _)) => command.arg(format!("--bootstrap-server={address}")),
            Some(("--config", _)) => command.arg(format!("--config={}", file.display())),
            _ => command.arg(argument),
        };
    }
    command.envs(image_environment()?);
    for variable in container["env"].as_array().context("an environment")? {
        let name = variable["name"].as_str().context("a name")?;
        match &variable["valueFrom"] {
            Value::Null => command.env(name, variable["value"].as_str().context("a value")?),
            from => {
                ensure!(from["secretKeyRef"]["name"] == "etcd-varve", "{variable}");
                command.env(name, "secret")
            }
        };
    }
    command.args(["--json", "--no-archive", "--timeout-seconds", "300"]).current_dir(folder);
    let told = steps(&tools::output_of(&mut command)?)?;
    ensure!(told.len() == 2 && told.iter().all(|(_, how)| how == "ok"), "{told:?}");
    Ok(())
}

#[test]
fn the_charts_canary_starts_with_what_its_pod_is_given_and_is_let_in_where_clients_are_listed() -> Result<()> {
    let (folder, objects) = (tempfile::tempdir()?, chart("cluster")?);
    let pod = &only(&objects, "Deployment")?["spec"]["template"];
    let container = &pod["spec"]["containers"][0];
    let node = Node::start(folder.path(), &[])?;
    let settings = only(&objects, "ConfigMap")?["data"]["server.properties"].as_str().context("settings")?;
    ensure!(settings.contains("\nvarve.metadata.etcd.user=varve\n"), "{settings}");
    let given = container["env"].as_array().context("an environment")?;
    let is_given = given.iter().any(|variable| variable["name"] == "VARVE_NUM_PARTITIONS");
    ensure!(is_given, "extraEnv is the canary's as well: {given:?}");
    a_round_of_the_pod(container, folder.path(), settings, &node.address.to_string())?;

    // Who may come to clients' listeners.
    let ingress = only(&objects, "NetworkPolicy")?["spec"]["ingress"].as_array().context("rules")?;
    let is_for_clients =
        |rule: &&Value| rule["ports"].as_array().is_some_and(|all| all.contains(&json!({"port": "client"})));
    let rule = ingress.iter().find(is_for_clients).context("a rule for clients")?;
    let from = rule["from"].as_array().context("who is let in")?;
    ensure!(from.iter().any(|one| one["namespaceSelector"].is_object()), "those who are listed: {rule}");
    let labels = pod["metadata"]["labels"].as_object().context("labels")?;
    let is_let_in = from.iter().any(|one| {
        let wanted = one["podSelector"]["matchLabels"].as_object();
        wanted.is_some_and(|all| !all.is_empty() && all.iter().all(|(name, value)| labels.get(name) == Some(value)))
    });
    ensure!(is_let_in, "the canary {labels:?} is kept out: {rule}");
    node.stop()
}

#[test]
fn the_charts_canary_shows_the_certificate_of_brokers_where_clients_log_in_and_needs_no_rule() -> Result<()> {
    let (folder, objects) = (tempfile::tempdir()?, chart("secured")?);
    // What the secret has.
    let authority = Authority::new(folder.path(), "ca")?;
    let broker = authority.issue("varve", &["localhost", "127.0.0.1"], false)?;
    let keys = [("tls-combined.pem", &broker.both), ("ca.crt", &authority.certificate)];
    let here = |text: &str| {
        keys.iter().fold(text.to_owned(), |text, (key, file)| {
            text.replace(&format!("/etc/varve/tls/{key}"), &file.display().to_string())
        })
    };
    let settings = only(&objects, "ConfigMap")?["data"]["server.properties"].as_str().context("settings")?;
    let settings = here(settings);
    ensure!(!settings.contains("/etc/varve/tls/"), "{settings}");

    // A broker that is protected by the same lines; its etcd is in itself.
    let is_of_security = |line: &&str| {
        ["ssl.", "listener.name.broker.", "inter.broker.", "authorizer.", "super."]
            .iter()
            .any(|begin| line.starts_with(begin))
    };
    let mut lines: Vec<&str> = settings.lines().filter(is_of_security).collect();
    ensure!(lines.contains(&"listener.name.broker.ssl.client.auth=required"), "{settings}");
    ensure!(lines.iter().any(|line| line.starts_with("super.users=User:CN=varve;")), "{settings}");
    lines.push("listeners=CLIENT://127.0.0.1:0,BROKER://127.0.0.1:0");
    lines.push("listener.security.protocol.map=CLIENT:PLAINTEXT,BROKER:SSL");
    let node = Node::start(folder.path(), &lines)?;
    let container = &only(&objects, "Deployment")?["spec"]["template"]["spec"]["containers"][0];
    let address = format!("localhost:{}", node.listener("BROKER")?.port());
    a_round_of_the_pod(container, folder.path(), &settings, &address)?;
    node.stop()
}

#[test]
fn the_unit_of_the_canary_goes_on_until_it_is_stopped_and_goes_by_its_environment() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let node = Node::start(folder.path(), EAGER)?;
    let unit = fs::read_to_string(tools::checkout().join("deploy/systemd/varve-canary.service"))?.replace("\\\n", " ");
    let value = |name: &str| unit.lines().find_map(|line| line.strip_prefix(name)).with_context(|| name.to_owned());
    let (program, arguments) = value("ExecStart=")?.split_once(' ').context("arguments")?;
    ensure!(program == "/usr/bin/varve", "{program}");
    // What holds where /etc/varve/canary.environment does not say otherwise.
    let variables: Vec<&str> = value("Environment=")?.split_whitespace().collect();
    ensure!(variables == ["BOOTSTRAP_SERVER=127.0.0.1:9092", "LISTEN=127.0.0.1:9405"], "{variables:?}");
    let settings = folder.path().join("server.properties");
    fs::write(&settings, format!("varve.data.dir={}\n", folder.path().join("varve-data").display()))?;
    let arguments = arguments
        .replace("/etc/varve/server.properties", &settings.display().to_string())
        .replace("${BOOTSTRAP_SERVER}", &node.address.to_string())
        .replace("${LISTEN}", "127.0.0.1:0");
    ensure!(!arguments.contains('$'), "{arguments}");
    let mut command = varve()?;
    // It writes nothing, wherever it stands.
    command.args(arguments.split_whitespace()).args(PATIENT).current_dir("/");
    let mut canary = Running::start(command, &folder.path().join("canary.log"))?;
    canary.until_it_says("listening on ")?;
    canary.until_it_says("step: query  outcome: ok")?;
    canary.terminate()?;
    node.stop()
}
