//! What people install: the Debian package, units, the image, compose files, the Helm chart. There is no container engine here:
//! what an image or a pod would start is started outside of it, with the same settings.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use varve_tests::{
    etcd::Etcd,
    node::{Node, binary, stable_address, varve},
    s3::S3Emulator,
    tools,
};

/// The oldest and the newest Kubernetes whose schemas the chart is held to.
const KUBERNETES: [&str; 2] = ["1.30.0", "1.37.0"];
/// How exposed `systemd-analyze security` may call a unit, times ten: below 2 it says that all is well.
const EXPOSURE: &str = "20";

fn at(path: &str) -> PathBuf {
    tools::checkout().join(path)
}

fn read(path: &str) -> Result<String> {
    fs::read_to_string(at(path)).with_context(|| path.to_owned())
}

fn shell(folder: &Path, line: &str) -> Result<String> {
    tools::output_of(Command::new("bash").args(["-euc", line]).current_dir(folder))
}

/// `varve config check` of this text; what it says.
fn checked(folder: &Path, text: &str) -> Result<String> {
    let file = folder.join("server.properties");
    fs::write(&file, text)?;
    tools::output_of(varve()?.args(["config", "check"]).arg(&file)).with_context(|| text.to_owned())
}

#[test]
fn units_are_sound_and_hardened() -> Result<()> {
    let folder = tempfile::tempdir()?;
    for unit in ["varve.service", "varve-etcd.service"] {
        let file = at("deploy/systemd").join(unit);
        let threshold = format!("--threshold={EXPOSURE}");
        tools::output_of(
            Command::new("systemd-analyze").args(["security", "--no-pager", "--offline=true", &threshold]).arg(&file),
        )?;
        // What it starts is not installed where this test runs.
        let text =
            fs::read_to_string(&file)?.replace("/usr/bin/varve ", "/bin/true ").replace("/usr/bin/etcd ", "/bin/true ");
        let copy = folder.path().join(unit);
        fs::write(&copy, text)?;
        let verified = Command::new("systemd-analyze").args(["verify", "--man=no"]).arg(&copy).output()?;
        let said = String::from_utf8_lossy(&verified.stderr).into_owned();
        // The machine's own units are no business of ours, and the user of etcd is not there.
        let ours: Vec<&str> = said.lines().filter(|line| line.contains(unit)).collect();
        ensure!(ours.is_empty(), "{}", ours.join("\n"));
    }
    checked(folder.path(), &read("deploy/systemd/server.properties")?)?;
    let stop = read("deploy/systemd/varve.service")?;
    ensure!(stop.contains("\nTimeoutStopSec=90s\n"), "longer than varve.shutdown.timeout.ms, which is 30 s unless set");
    Ok(())
}

#[test]
fn the_debian_package_installs_into_an_empty_root_and_goes_again() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (place, root) = (folder.path(), folder.path().join("root"));
    let build = || {
        let mut build = Command::new(at("deploy/debian/build.sh"));
        // Not for long: to compress the binary as small as it goes takes longer than all else here.
        build.env("SOURCE_DATE_EPOCH", "1700000000").env("DPKG_DEB_COMPRESSOR_TYPE", "none");
        tools::output_of(build.arg(binary()?).arg(place))
    };
    // The command that the handbook gives, with the binary that is here.
    let xtask = binary()?.with_file_name("xtask");
    ensure!(xtask.exists(), "{} is not there: cargo build --package varve-xtask", xtask.display());
    let mut packed = Command::new(xtask);
    packed.env("SOURCE_DATE_EPOCH", "1700000000").env("DPKG_DEB_COMPRESSOR_TYPE", "none");
    let printed = tools::output_of(packed.args(["package", "--binary"]).arg(binary()?).arg("--into").arg(place))?;
    let [plain, package, sums] = printed.lines().collect::<Vec<_>>()[..] else { bail!("{printed}") };
    ensure!(tools::output_of(Command::new(plain).arg("--version").env_clear())?.starts_with("varve "), "{plain} runs");
    ensure!(sums.ends_with("/SHA256SUMS"), "{sums}");
    shell(place, "sha256sum --check --strict SHA256SUMS && [ $(wc -l <SHA256SUMS) = 2 ]")?;
    let fields = tools::output_of(Command::new("dpkg-deb").args(["--field", package]))?;
    ensure!(fields.contains("libc6 (>=") && fields.starts_with("Package: varve\n"), "{fields}");
    fs::create_dir_all(root.join("var/lib/dpkg/info"))?;
    fs::create_dir_all(root.join("var/lib/dpkg/updates"))?;
    for file in ["status", "available"] {
        fs::write(root.join("var/lib/dpkg").join(file), "")?;
    }
    let dpkg = |arguments: &[&str]| -> Result<String> {
        let mut dpkg = Command::new("dpkg");
        // There are no libraries in that root, and no shell to change into it with.
        dpkg.args(["--force-depends", "--force-script-chrootless", "--root"]).arg(&root).args(arguments);
        tools::output_of(&mut dpkg)
    };
    dpkg(&["--install", package])?;
    let listed = dpkg(&["--listfiles", "varve"])?;
    for file in [
        "/usr/bin/varve",
        "/usr/lib/systemd/system/varve.service",
        "/usr/lib/sysusers.d/varve.conf",
        "/etc/varve/server.properties",
        "/usr/share/man/man1/varve.1.gz",
        "/usr/share/man/man1/varve-tier-verify.1.gz",
        "/usr/share/bash-completion/completions/varve",
        "/usr/share/zsh/vendor-completions/_varve",
        "/usr/share/fish/vendor_completions.d/varve.fish",
        "/usr/share/doc/varve/copyright",
    ] {
        let installed = root.join(&file[1..]);
        ensure!(listed.lines().any(|line| line == file) && installed.is_file(), "{file} is missing from\n{listed}");
    }
    let program = root.join("usr/bin/varve");
    ensure!(fs::metadata(&program)?.permissions().mode() & 0o7777 == 0o755, "an ordinary program");
    // What the unit starts, from where it was put.
    let installed = tools::output_of(Command::new(&program).arg("--version").env_clear())?;
    ensure!(installed.starts_with("varve "), "{installed}");
    let unit = fs::read_to_string(root.join("usr/lib/systemd/system/varve.service"))?;
    ensure!(unit.contains("\nExecStart=/usr/bin/varve --config /etc/varve/server.properties\n"), "{unit}");
    let users = fs::read_to_string(root.join("etc/passwd"))?;
    ensure!(users.lines().any(|line| line.starts_with("varve:")), "the user is made: {users}");
    ensure!(
        tools::output_of(Command::new("gzip").args(["--test"]).arg(root.join("usr/share/man/man1/varve.1.gz"))).is_ok(),
        "a page"
    );
    // What was changed stays when the package goes, and records do in any case.
    fs::write(root.join("etc/varve/server.properties"), "node.id=7\n")?;
    fs::create_dir_all(root.join("var/lib/varve/log"))?;
    dpkg(&["--remove", "varve"])?;
    ensure!(!program.exists() && root.join("etc/varve/server.properties").exists(), "removed, with its settings left");
    dpkg(&["--purge", "varve"])?;
    ensure!(root.join("var/lib/varve/log").exists() && !root.join("etc/varve/server.properties").exists(), "purged");
    // The same again is the same, byte for byte.
    let first = fs::read(package)?;
    build()?;
    ensure!(fs::read(package)? == first, "two builds differ");
    Ok(())
}

#[test]
fn shells_complete_and_pages_are_written() -> Result<()> {
    let folder = tempfile::tempdir()?;
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = tools::output_of(varve()?.args(["completions", shell]))?;
        ensure!(script.contains("canary") && script.contains("bootstrap-server"), "{shell}");
    }
    let script = folder.path().join("varve.bash");
    fs::write(&script, tools::output_of(varve()?.args(["completions", "bash"]))?)?;
    let asked = format!(
        "source {}; COMP_WORDS=(varve tier ver); COMP_CWORD=2; _varve varve ver tier; echo \"${{COMPREPLY[@]}}\"",
        script.display()
    );
    let completed = shell(folder.path(), &format!("set +eu; {asked}"))?;
    ensure!(completed.trim() == "verify", "{completed}");
    let page = tools::output_of(varve()?.arg("man"))?;
    ensure!(page.contains(".TH varve 1"), "{page}");
    Ok(())
}

/// The instructions of the Dockerfile's last stage: what it is, and the rest of it on one line.
fn image() -> Result<Vec<(String, String)>> {
    let text = read("deploy/container/Dockerfile")?.replace("\\\n", " ");
    let lines = text.lines().filter(|line| !line.trim_start().starts_with('#')).filter_map(|line| line.split_once(' '));
    let all: Vec<(String, String)> = lines.map(|(what, rest)| (what.to_owned(), rest.trim().to_owned())).collect();
    let last = all.iter().rposition(|(what, _)| what == "FROM").context("a stage")?;
    Ok(all[last..].to_vec())
}

/// The image's environment.
fn image_environment() -> Result<BTreeMap<String, String>> {
    let image = image()?;
    let (_, variables) = image.iter().find(|(what, _)| what == "ENV").context("ENV")?;
    let pairs = variables.split_whitespace().filter_map(|pair| pair.split_once('='));
    Ok(pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
}

#[test]
fn the_image_is_small_runs_as_nobody_and_says_how_it_is() -> Result<()> {
    tools::output_of(tools::deploy("hadolint")?.arg(at("deploy/container/Dockerfile")))?;
    let image = image()?;
    let one = |wanted: &str| image.iter().find(|(what, _)| what == wanted).map_or("", |(_, rest)| rest.as_str());
    ensure!(one("FROM").contains("distroless") && one("FROM").ends_with(":nonroot"), "{}", one("FROM"));
    ensure!(one("USER") == "65532:65532" && one("ENTRYPOINT") == r#"["/usr/bin/varve"]"#, "{image:?}");
    // What it is built from is in the checkout, and nothing of it is kept from the builder.
    let ignored = read(".dockerignore")?;
    for part in ["Cargo.toml", "Cargo.lock", "broker", "metadata", "rust-toolchain.toml"] {
        ensure!(at(part).exists() && !ignored.lines().any(|line| line == part), "{part}");
    }
    // The entry point with the image's environment, and its health check beside it.
    let folder = tempfile::tempdir()?;
    let mut command = varve()?;
    for (name, value) in image_environment()? {
        command.env(name, value.replace("/var/lib/varve", &folder.path().join("data").display().to_string()));
    }
    let node = Node::launch(folder.path(), command, &[])?;
    ensure!(folder.path().join("data/log").is_dir(), "the volume is used");
    let check = one("HEALTHCHECK").split_once("CMD").context("a command")?.1;
    let check: Vec<String> = serde_json::from_str(check.trim())?;
    ensure!(check[0] == "/usr/bin/varve", "{check:?}");
    let mut health = varve()?;
    health.args(&check[1..]).args(["--override", &format!("varve.http.listener={}", node.http)]);
    ensure!(tools::output_of(&mut health)? == "ok\n", "the health check");
    let http = node.http;
    node.stop()?;
    let mut health = varve()?;
    health.args(&check[1..]).args(["--override", &format!("varve.http.listener={http}")]);
    ensure!(!health.output()?.status.success(), "a node that is gone is not healthy");
    Ok(())
}

/// A compose file, with its merges resolved.
fn compose(name: &str) -> Result<Value> {
    const CHECK: &str = "import sys, compose_spec\ncompose_spec.PyCompose.from_json(sys.stdin.read()).validate()";
    let file = tools::yaml(&read(&format!("deploy/compose/{name}"))?)?.into_iter().next().context("a document")?;
    tools::output_of_fed(tools::deploy("python")?.args(["-c", CHECK]), &file.to_string())
        .with_context(|| name.to_owned())?;
    Ok(file)
}

/// What a service of varve gets as its environment, over the image's.
fn environment(service: &Value) -> Result<BTreeMap<String, String>> {
    let mut all = image_environment()?;
    for (name, value) in service["environment"].as_object().context("an environment")? {
        all.insert(name.clone(), value.as_str().with_context(|| format!("{name} is text"))?.to_owned());
    }
    Ok(all)
}

#[test]
fn compose_files_keep_to_the_specification_and_to_the_image() -> Result<()> {
    for name in ["single.yaml", "cluster.yaml"] {
        let file = compose(name)?;
        for (service, described) in file["services"].as_object().context("services")? {
            let described = &described;
            if described["build"].is_null() {
                let image = described["image"].as_str().context("an image")?;
                ensure!(image.contains(':') && !image.ends_with(":latest"), "{name}: {service} is not pinned");
                continue;
            }
            let build = at("deploy/compose").join(described["build"]["context"].as_str().context("a context")?);
            let dockerfile = build.join(described["build"]["dockerfile"].as_str().context("a Dockerfile")?);
            ensure!(
                build.canonicalize()? == tools::checkout().canonicalize()? && dockerfile.is_file(),
                "{name}: {service}"
            );
            ensure!(described["read_only"] == true && described["stop_grace_period"] == "45s", "{name}: {service}");
        }
    }
    Ok(())
}

#[test]
fn what_the_cluster_of_the_compose_file_runs_is_a_cluster() -> Result<()> {
    let file = compose("cluster.yaml")?;
    let folder = tempfile::tempdir()?;
    let place = folder.path().join("etcd");
    fs::create_dir_all(&place)?;
    let (etcd, store) = (Etcd::start(&place)?, S3Emulator::start()?);
    store.make_bucket("varve")?;
    let names = ["broker-1", "broker-2", "broker-3"];
    let ports: Vec<_> = names.iter().map(|_| Ok((stable_address()?, stable_address()?))).collect::<Result<_>>()?;
    let outside = |text: &str| {
        let mut text =
            text.replace("etcd:2379", &etcd.address().to_string()).replace("s3:8333", &store.address().to_string());
        for (at, (name, (internal, published))) in names.iter().zip(&ports).enumerate() {
            text = text.replace(&format!("{name}:9092"), &internal.to_string());
            text = text.replace(&format!("localhost:{}9092", at + 1), &published.to_string());
        }
        text
    };
    let command = |service: &str| -> Result<(Command, BTreeMap<String, String>)> {
        let mut command = varve()?;
        let variables = environment(&file["services"][service])?;
        for (name, value) in &variables {
            let value = if name == "VARVE_DATA_DIR" { "./varve-data".to_owned() } else { outside(value) };
            command.env(name, value);
        }
        Ok((command, variables))
    };
    let start = |at: usize| -> Result<Node> {
        let (internal, published) = ports[at];
        let folder = folder.path().join(names[at]);
        fs::create_dir_all(&folder)?;
        let (command, variables) = command(names[at])?;
        let listeners = variables["VARVE_LISTENERS"]
            .replace("0.0.0.0:9092", &internal.to_string())
            .replace("0.0.0.0:9093", &published.to_string());
        Node::launch(&folder, command, &[&format!("listeners={listeners}"), "varve.compactor.interval.ms=500"])
    };
    let nodes: Vec<Node> = std::thread::scope(|scope| {
        let starting: Vec<_> = (0..names.len()).map(|at| scope.spawn(move || start(at))).collect();
        starting.into_iter().map(|one| one.join().expect("starting does not panic")).collect::<Result<_>>()
    })?;
    let canary = &file["services"]["canary"];
    let arguments: Vec<String> = serde_json::from_value(canary["command"].clone())?;
    let (mut command, _) = command("canary")?;
    command.args(arguments.iter().map(|argument| outside(argument))).current_dir(folder.path());
    let said = tools::output_of(&mut command)?;
    ensure!(said.contains("step: query  outcome: ok"), "{said}");
    for node in nodes {
        node.stop()?;
    }
    Ok(())
}

/// Where pods do not know their zone the values that ask them for it are for another Kubernetes.
fn oldest(values: &str, kubernetes: &str) -> &'static [&'static str] {
    if values == "cluster" && kubernetes == KUBERNETES[0] { &["--set", "rack.from=none"] } else { &[] }
}

/// The chart, rendered with these values.
fn rendered(values: &str, kubernetes: &str) -> Result<Vec<Value>> {
    let mut helm = tools::program("helm")?;
    helm.args(["template", "varve"]).arg(at("deploy/helm/varve")).args([
        "--namespace",
        "kafka",
        "--kube-version",
        kubernetes,
    ]);
    helm.args(oldest(values, kubernetes)).arg("--values").arg(at(&format!("deploy/helm/varve/ci/{values}.yaml")));
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
        let pause = container["lifecycle"]["preStop"]["sleep"]["seconds"].as_i64().context("a time")?;
        ensure!(stop > pause + 30, "a stop takes varve.shutdown.timeout.ms");
        ensure!(
            pod["securityContext"]["runAsNonRoot"] == true
                && container["securityContext"]["readOnlyRootFilesystem"] == true,
            "{pod}"
        );
    }
    Ok(())
}

#[test]
fn an_upgrade_to_fewer_brokers_drains_those_that_leave_and_has_them_forgotten() -> Result<()> {
    let (folder, objects) = (tempfile::tempdir()?, rendered("cluster", KUBERNETES[1])?);
    let node = Node::start(folder.path(), &["node.id=0"])?;
    let file = folder.path().join("rendered.properties");
    let properties = found(&objects, "ConfigMap")?["data"]["server.properties"].as_str().context("settings")?;
    fs::write(&file, properties)?;
    // What a container would do, asking the node that is there for all brokers that would be.
    let run = |container: &Value| -> Result<(bool, String)> {
        let mut command = varve()?;
        for argument in container["args"].as_array().context("arguments")? {
            let argument = argument.as_str().context("text")?;
            let argument = argument.replace("/etc/varve/config/server.properties", &file.display().to_string());
            command.arg(match argument.strip_prefix("--bootstrap-server=varve-0.varve-headless.kafka.svc:9093,") {
                Some(_) => format!("--bootstrap-server={}", node.address),
                None => argument,
            });
        }
        for (name, value) in image_environment()? {
            command.env(name, value);
        }
        for variable in container["env"].as_array().context("an environment")? {
            let text = |name: &str| variable[name].as_str().with_context(|| format!("a {name}"));
            command.env(text("name")?, text("value")?);
        }
        let output = command.output()?;
        let said = [output.stdout, output.stderr].map(|said| String::from_utf8_lossy(&said).into_owned()).concat();
        Ok((output.status.success(), said))
    };
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
        (newest, "replica=3", "replica"),
        (newest, "listeners.client.protocol=TLS", "protocol"),
        (newest, r"config.default\.replication\.factor=3", "and replicas 1"),
        (newest, r"config.transaction\.state\.log\.replication\.factor=2", "and replicas 1"),
        (newest, r"config.min\.insync\.replicas=2", "nobody could write with acks=all"),
        (newest, "terminationGracePeriodSeconds=35", "killed while they stop"),
        (newest, r"config.varve\.shutdown\.timeout\.ms=90000", "killed while they stop"),
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
