//! The Helm chart.

use std::{fs, path::Path};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use varve_tests::{
    compose::image_environment,
    node::{Node, eventually, varve},
    tools,
};

use super::{at, checked};

/// The oldest and the newest Kubernetes whose schemas the chart is held to.
const KUBERNETES: [&str; 2] = ["1.30.0", "1.37.0"];

/// Where pods do not know their zone the values that ask them for it are for another Kubernetes.
fn oldest(values: &str, kubernetes: &str) -> &'static [&'static str] {
    if values == "cluster" && kubernetes == KUBERNETES[0] { &["--set", "rack.from=none"] } else { &[] }
}

/// The chart, rendered with these values.
fn rendered(values: &str, kubernetes: &str) -> Result<Vec<Value>> {
    rendered_as("varve", values, kubernetes, &[])
}

/// The chart as a release of that name, with these values and what is set on the command line.
fn rendered_as(release: &str, values: &str, kubernetes: &str, set: &[&str]) -> Result<Vec<Value>> {
    let mut helm = tools::program("helm")?;
    helm.args(["template", release]).arg(at("deploy/helm/varve")).args([
        "--namespace",
        "kafka",
        "--kube-version",
        kubernetes,
    ]);
    helm.args(oldest(values, kubernetes)).arg("--values").arg(at(&format!("deploy/helm/varve/ci/{values}.yaml")));
    for one in set {
        helm.args(["--set", one]);
    }
    tools::yaml(&tools::output_of(&mut helm)?)
}

#[test]
fn the_chart_is_linted_and_what_it_renders_keeps_to_kubernetes_schemas() -> Result<()> {
    let folder = tempfile::tempdir()?;
    for values in ["single", "cluster", "secured"] {
        for kubernetes in KUBERNETES {
            let mut lint = tools::program("helm")?;
            lint.args(["lint", "--strict", "--quiet", "--kube-version", kubernetes]).arg(at("deploy/helm/varve"));
            lint.args(oldest(values, kubernetes))
                .arg("--values")
                .arg(at(&format!("deploy/helm/varve/ci/{values}.yaml")));
            tools::output_of(&mut lint)?;
            let all = rendered(values, kubernetes)?;
            // Those of operators have their schemas in their operators.
            let is_own = |one: &&Value| {
                let version = one["apiVersion"].as_str().unwrap_or_default();
                version.starts_with("monitoring.coreos.com/") || version.starts_with("cert-manager.io/")
            };
            let core: Vec<String> = all.iter().filter(|one| !is_own(one)).map(Value::to_string).collect();
            let file = folder.path().join("rendered.yaml");
            fs::write(&file, core.join("\n---\n"))?;
            let mut validate = tools::deploy("kubernetes-validate")?;
            validate.args(["--strict", "--quiet", "--kubernetes-version", kubernetes]).arg(&file);
            tools::output_of(&mut validate).with_context(|| format!("{values} on {kubernetes}"))?;
            operators_objects_are_whole(all.iter().filter(is_own))?;
        }
    }
    Ok(())
}

/// What the Prometheus operator and cert-manager need to find in theirs.
fn operators_objects_are_whole<'a>(objects: impl Iterator<Item = &'a Value>) -> Result<()> {
    for object in objects {
        let (kind, spec) = (object["kind"].as_str().unwrap_or_default(), &object["spec"]);
        let is_whole = match kind {
            "ServiceMonitor" => {
                spec["endpoints"][0]["port"] == "metrics" && spec["selector"]["matchLabels"].is_object()
            }
            "PodMonitor" => spec["podMetricsEndpoints"][0]["port"] == "metrics" && spec["selector"].is_object(),
            "PrometheusRule" => spec["groups"][0]["rules"].as_array().is_some_and(|rules| rules.len() > 20),
            "Certificate" => {
                spec["secretName"].is_string()
                    && spec["issuerRef"]["name"].is_string()
                    && spec["dnsNames"][0].is_string()
            }
            _ => false,
        };
        ensure!(is_whole, "{object}");
    }
    Ok(())
}

fn found<'a>(objects: &'a [Value], kind: &str) -> Result<&'a Value> {
    objects.iter().find(|object| object["kind"] == kind).with_context(|| format!("no {kind}"))
}

#[test]
fn settings_of_the_chart_are_settings_of_the_node() -> Result<()> {
    let folder = tempfile::tempdir()?;
    for values in ["single", "cluster", "secured"] {
        let objects = rendered(values, KUBERNETES[1])?;
        let properties = found(&objects, "ConfigMap")?["data"]["server.properties"].as_str().context("settings")?;
        let set = found(&objects, "StatefulSet")?;
        let pod = &set["spec"]["template"]["spec"];
        let container = &pod["containers"][0];
        // What Kubernetes would put in.
        let fill = |value: &Value| {
            let text = value["value"].as_str().unwrap_or("zone-a").to_owned();
            text.replace("$(POD_NAME)", "varve-1").replace("$(POD_NAMESPACE)", "kafka").replace("$(POD_INDEX)", "1")
        };
        let own = container["env"].as_array().context("an environment")?.iter().filter_map(|variable| {
            let name = variable["name"].as_str()?.strip_prefix("VARVE_")?;
            let name = name.to_lowercase().replace('_', ".");
            let ours = ["http.listener", "metadata.etcd.password"].contains(&name.as_str());
            Some(format!("{}{name}={}\n", if ours { "varve." } else { "" }, fill(variable)))
        });
        // The environment is read after the file: its lines replace those of the same name.
        let own: Vec<String> = own.collect();
        let names: Vec<&str> = own.iter().filter_map(|line| Some(line.split_once('=')?.0)).collect();
        let kept =
            properties.lines().filter(|line| line.split_once('=').is_none_or(|(name, _)| !names.contains(&name)));
        let text = kept.map(|line| format!("{line}\n")).chain(own.iter().cloned()).collect::<String>();
        let said = checked(folder.path(), &text)?;
        ensure!(!said.contains("warning"), "{values}: {said}");
        ensure!(
            text.contains("node.id=1\n") && text.contains("CLIENT://varve-1.varve-headless.kafka.svc:9092"),
            "{text}"
        );
        let stop = pod["terminationGracePeriodSeconds"].as_i64().context("a time")?;
        let hook = &container["lifecycle"]["preStop"];
        let pause = match hook["exec"]["command"].as_array() {
            Some(words) => seconds(words, "--wait-seconds=")? + seconds(words, "--for-seconds=")?,
            // Nobody could take over.
            None => hook["sleep"]["seconds"].as_i64().context("a time")?,
        };
        ensure!(hook["exec"].is_null() == (values == "single"), "{hook}");
        ensure!(stop > pause + 30, "a stop takes varve.shutdown.timeout.ms");
        ensure!(
            pod["securityContext"]["runAsNonRoot"] == true
                && container["securityContext"]["readOnlyRootFilesystem"] == true,
            "{pod}"
        );
    }
    Ok(())
}

/// The number that the word has which begins so.
fn seconds(words: &[Value], begin: &str) -> Result<i64> {
    let word = words.iter().find_map(|word| word.as_str()?.strip_prefix(begin));
    word.with_context(|| format!("{begin} in {words:?}"))?.parse().context("a number")
}

/// What a container would run, with these words and its environment: `instead` of what is only there in a pod, something else.
fn as_in_a_pod(words: &[Value], container: &Value, instead: &[(&str, &str)]) -> Result<(bool, String)> {
    let here = |text: &str| instead.iter().fold(text.to_owned(), |text, (there, here)| text.replace(there, here));
    let mut command = varve()?;
    for word in words {
        command.arg(here(word.as_str().context("text")?));
    }
    let mut environment = image_environment()?;
    for variable in container["env"].as_array().context("an environment")? {
        let name = variable["name"].as_str().context("a name")?;
        // What Kubernetes knows about the pod is put into the others; the key of a secret stands for what it has.
        let value = variable["value"].as_str().or(variable["valueFrom"]["secretKeyRef"]["key"].as_str());
        if let Some(value) = value.filter(|_| name.starts_with("VARVE_")) {
            environment.insert(name.to_owned(), value.to_owned());
        }
    }
    for (name, value) in environment {
        command.env(name, here(&value));
    }
    let output = command.output()?;
    let said = [output.stdout, output.stderr].map(|said| String::from_utf8_lossy(&said).into_owned()).concat();
    Ok((output.status.success(), said))
}

/// The chart's settings as a file.
fn settings_file(folder: &Path, objects: &[Value]) -> Result<String> {
    let file = folder.join("rendered.properties");
    let properties = found(objects, "ConfigMap")?["data"]["server.properties"].as_str().context("settings")?;
    fs::write(&file, properties)?;
    Ok(file.display().to_string())
}

#[test]
fn a_pod_is_ready_once_in_sync_and_ends_once_its_broker_is_not_needed() -> Result<()> {
    let (folder, objects) = (tempfile::tempdir()?, rendered("cluster", KUBERNETES[1])?);
    let node = Node::start(folder.path(), &["node.id=1"])?;
    let container = &found(&objects, "StatefulSet")?["spec"]["template"]["spec"]["containers"][0];
    for (probe, page) in [("startupProbe", "/healthz"), ("livenessProbe", "/healthz"), ("readinessProbe", "/insyncz")] {
        ensure!(container[probe]["httpGet"]["path"] == page, "{probe}");
        eventually(page, || Ok(node.http_get(page).is_ok().then_some(())))?;
    }
    let file = settings_file(folder.path(), &objects)?;
    let address = node.address.to_string();
    // Its own broker is asked by the name that others know it by.
    let instead = [
        ("/etc/varve/config/server.properties", file.as_str()),
        ("$(POD_NAME).varve-headless.$(POD_NAMESPACE).svc:9093", &address),
        ("$(POD_NAME)", "varve-1"),
        ("$(POD_NAMESPACE)", "kafka"),
        ("$(POD_INDEX)", "1"),
        ("--for-seconds=5", "--for-seconds=0"),
    ];
    let words = container["lifecycle"]["preStop"]["exec"]["command"].as_array().context("a command")?;
    ensure!(words[0] == "/usr/bin/varve", "{words:?}");
    let said = as_in_a_pod(&words[1..], container, &instead)?;
    ensure!(said == (true, "broker: 1  state: may be stopped\n".to_owned()), "{said:?}");
    node.stop()
}

#[test]
fn an_upgrade_to_fewer_brokers_drains_those_that_leave_and_has_them_forgotten() -> Result<()> {
    let (folder, objects) = (tempfile::tempdir()?, rendered("cluster", KUBERNETES[1])?);
    let node = Node::start(folder.path(), &["node.id=0"])?;
    // What a container would do, asking the node that is there for all brokers that would be.
    let file = settings_file(folder.path(), &objects)?;
    let address = node.address.to_string();
    let others = (0..3).map(|at| format!("varve-{at}.varve-headless.kafka.svc:9093")).collect::<Vec<_>>().join(",");
    let instead = [("/etc/varve/config/server.properties", file.as_str()), (&others, &address)];
    let run = |container: &Value| as_in_a_pod(container["args"].as_array().context("arguments")?, container, &instead);
    for (hook, command) in [("pre-upgrade", "drain"), ("post-upgrade", "decommission")] {
        let is_it = |one: &&Value| one["kind"] == "Job" && one["metadata"]["annotations"]["helm.sh/hook"] == hook;
        let job = objects.iter().find(is_it).with_context(|| format!("a job {hook}"))?;
        ensure!(job["spec"]["backoffLimit"] == 0, "{job}");
        let pod = &job["spec"]["template"]["spec"];
        // As one: what the first one holds does not go to the next one that leaves.
        let leaving = pod["initContainers"].as_array().context("containers")?;
        ensure!(leaving.len() == 1 && leaving[0]["args"][2] == command, "{pod}");
        ensure!(leaving[0]["args"][3] == "4" && leaving[0]["args"][4] == "3", "of five brokers three stay: {pod}");
        ensure!(leaving[0]["args"].as_array().is_some_and(|all| all.contains(&json!("--timeout=7200"))), "{pod}");
        let (is_done, said) = run(&leaving[0])?;
        ensure!(!is_done && said.contains("there is no broker 3"), "{said}");
        let (is_done, said) = run(&pod["containers"][0])?;
        ensure!(is_done && said.contains("\"broker\":0"), "{said}");
    }
    let policy = &found(&objects, "NetworkPolicy")?["spec"]["ingress"][0];
    ensure!(policy.to_string().contains("\"drain\"") && policy["ports"][0]["port"] == "broker", "{policy}");
    ensure!(found(&rendered("single", KUBERNETES[1])?, "Job").is_err(), "nobody leaves");
    node.stop()
}

#[test]
fn values_that_would_start_and_not_work_are_refused() -> Result<()> {
    let newest = KUBERNETES[1];
    for (kubernetes, set, why) in [
        (newest, "replicas=3", "etcd.endpoints"),
        (newest, "listeners.client.protocol=SSL", "tls.secretName"),
        (newest, "rack.from=initContainer", "rack.initContainer.image"),
        (newest, "listeners.external.enabled=true", "{ordinal}"),
        (newest, "listeners.external.sourceRanges={internet}", "sourceRanges"),
        (
            newest,
            "listeners.external.sourceRanges={198.51.100.0/24},listeners.external.serviceType=NodePort",
            "LoadBalancer",
        ),
        (newest, "replica=3", "replica"),
        (newest, "image.digest=sha256:1234", "digest"),
        (newest, "listeners.client.protocol=TLS", "protocol"),
        (newest, r"config.default\.replication\.factor=3", "and replicas 1"),
        (newest, r"config.transaction\.state\.log\.replication\.factor=2", "and replicas 1"),
        (newest, r"config.min\.insync\.replicas=2", "nobody could write with acks=all"),
        (newest, "terminationGracePeriodSeconds=35", "killed while they stop"),
        (newest, r"config.varve\.shutdown\.timeout\.ms=420000", "killed while they stop"),
        (KUBERNETES[0], "rack.from=podLabel", "needs Kubernetes 1.35"),
    ] {
        let mut helm = tools::program("helm")?;
        helm.args(["template", "varve"]).arg(at("deploy/helm/varve")).args(["--kube-version", kubernetes]);
        helm.arg("--values").arg(at("deploy/helm/varve/ci/single.yaml")).args(["--set", set]);
        let output = helm.output()?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(!output.status.success() && said.contains(why), "{set}: {said}");
    }
    Ok(())
}

#[test]
fn a_chart_that_changes_nothing_for_brokers_restarts_none() -> Result<()> {
    for values in ["single", "cluster", "secured"] {
        let objects = rendered(values, KUBERNETES[1])?;
        let labels = &found(&objects, "StatefulSet")?["spec"]["template"]["metadata"]["labels"];
        let is_versioned = labels.as_object().context("labels")?.keys().any(|label| label == "helm.sh/chart");
        ensure!(!is_versioned, "{values}: {labels}");
    }
    Ok(())
}

#[test]
fn settings_that_changed_restart_whoever_reads_them() -> Result<()> {
    let objects = rendered("cluster", KUBERNETES[1])?;
    let sum_of = |kind: &str| -> Result<Value> {
        Ok(found(&objects, kind)?["spec"]["template"]["metadata"]["annotations"]["checksum/config"].clone())
    };
    // Brokers and the canary have the same file.
    let (brokers, canary) = (sum_of("StatefulSet")?, sum_of("Deployment")?);
    ensure!(brokers.is_string() && canary == brokers, "{brokers} {canary}");
    Ok(())
}

#[test]
fn names_are_no_longer_than_kubernetes_takes_and_begin_as_it_wants() -> Result<()> {
    // As long as Helm takes them; jobs' names become labels, and services' names parts of a domain.
    for release in ["a".repeat(53), format!("varve-{}", "b".repeat(47))] {
        for values in ["cluster", "secured"] {
            let objects = rendered_as(&release, values, KUBERNETES[1], &["replicas=12", "drain.replicasBefore=13"])?;
            for kind in ["Job", "Service"] {
                ensure!(objects.iter().any(|one| one["kind"] == kind), "no {kind}");
            }
            for object in
                objects.iter().filter(|one| one["kind"] != "ClusterRole" && one["kind"] != "ClusterRoleBinding")
            {
                let name = object["metadata"]["name"].as_str().context("a name")?;
                ensure!(name.len() <= 63 && !name.contains("--"), "{} {name}", object["kind"]);
            }
        }
    }
    for release in ["1st", "logs.eu"] {
        let refused = rendered_as(release, "cluster", KUBERNETES[1], &[]);
        ensure!(refused.is_err_and(|error| format!("{error:#}").contains("release's name")), "{release}");
    }
    Ok(())
}

/// Who may come to that port: `None` if there is no rule for it, null if everybody may.
fn who_reaches(objects: &[Value], port: &str) -> Result<Option<Value>> {
    let rules = found(objects, "NetworkPolicy")?["spec"]["ingress"].as_array().context("rules")?;
    let mut matching = rules.iter().filter(|rule| rule["ports"].to_string().contains(&format!("\"{port}\"")));
    let rule = matching.next().map(|rule| rule["from"].clone());
    ensure!(matching.next().is_none(), "two rules for {port}");
    Ok(rule)
}

#[test]
fn clients_outside_are_let_in_from_where_they_may_be_and_metrics_are_for_nobody_if_nobody_is_named() -> Result<()> {
    let objects = rendered("secured", KUBERNETES[1])?;
    let inside = json!({"namespaceSelector": {"matchLabels": {"kafka-clients": "yes"}}});
    ensure!(who_reaches(&objects, "client")? == Some(json!([inside])), "{objects:?}");
    // Without a `from` everybody may, whom the load balancer lets through.
    ensure!(who_reaches(&objects, "external")? == Some(Value::Null), "{objects:?}");
    let closed = rendered_as("varve", "secured", KUBERNETES[1], &["networkPolicy.metricsFrom=null"])?;
    ensure!(who_reaches(&closed, "metrics")?.is_none(), "{closed:?}");
    Ok(())
}

#[test]
fn a_canary_connects_as_brokers_do_unless_everybody_may_and_is_let_in_there() -> Result<()> {
    const SERVICE: &str = "varve:9092";
    const BROKERS: &str = "varve-0.varve-headless.kafka.svc:9093,varve-1.varve-headless.kafka.svc:9093,\
                           varve-2.varve-headless.kafka.svc:9093";
    for (client, broker, at, port) in [
        ("PLAINTEXT", "PLAINTEXT", SERVICE, "client"),
        // It has no login of a client.
        ("SASL_PLAINTEXT", "PLAINTEXT", BROKERS, "broker"),
        ("SASL_SSL", "PLAINTEXT", BROKERS, "broker"),
        ("PLAINTEXT", "SSL", BROKERS, "broker"),
        ("SSL", "SSL", BROKERS, "broker"),
        ("SASL_SSL", "SASL_SSL", BROKERS, "broker"),
    ] {
        let case = format!("{client} {broker}");
        let protocols = [format!("listeners.client.protocol={client}"), format!("listeners.broker.protocol={broker}")];
        let set =
            [protocols[0].as_str(), protocols[1].as_str(), "tls.secretName=varve-keys", "tls.trustStoreFile=ca.crt"];
        let objects = rendered_as("varve", "cluster", KUBERNETES[1], &set)?;
        let template = &found(&objects, "Deployment")?["spec"]["template"];
        let (pod, container) = (&template["spec"], &template["spec"]["containers"][0]);
        let arguments = container["args"].as_array().context("arguments")?;
        ensure!(arguments.contains(&json!(format!("--bootstrap-server={at}"))), "{case}: {arguments:?}");
        // The settings say where the keys are, and the user of the image may read them.
        let has = |all: &Value, what: &str| all.as_array().is_some_and(|all| all.iter().any(|one| one["name"] == what));
        let speaks_tls = case.contains("SSL");
        let is_mounted = has(&container["volumeMounts"], "tls") && has(&pod["volumes"], "tls");
        ensure!(is_mounted == speaks_tls && pod["securityContext"]["fsGroup"] == 65532, "{case}: {pod}");
        ensure!(!speaks_tls || pod.to_string().contains("\"varve-keys\""), "{case}: {pod}");
        for listener in ["client", "broker"] {
            let from = who_reaches(&objects, listener)?.context("a rule")?.to_string();
            ensure!(from.contains("\"varve-canary\"") == (listener == port), "{case}: {listener}: {from}");
        }
    }
    Ok(())
}
