//! Processes that only rewrite the archive, beside brokers that do not: they share the work, and one that ends without a word
//! leaves nothing undone and nothing damaged.

use std::{fs, path::Path};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use varve_tests::{
    cluster::{Cluster, load::SETTINGS},
    etcd::Etcd,
    kafka_tools::KafkaTools,
    kcat,
    node::{eventually, varve},
    running::Running,
};

const PARTITIONS: i32 = 24;
const ROUND: usize = 3_000;

/// A compactor of the cluster, and where its /metrics are.
fn start(folder: &Path, name: &str, settings: &[String]) -> Result<(Running, String)> {
    let place = folder.join(name);
    fs::create_dir_all(&place)?;
    let mut command = varve()?;
    command.current_dir(&place).args(["--roles", "compactor"]);
    for setting in settings.iter().map(String::as_str).chain(["varve.http.listener=127.0.0.1:0"]) {
        command.args(["--override", setting]);
    }
    let mut running = Running::start(command, &place.join("output.log"))?;
    running.until_it_says("ready: this process rewrites the archive")?;
    let printed = running.printed();
    let line = printed.lines().find(|line| line.contains("listening") && line.contains("protocol=http"));
    let address = line.and_then(|line| line.split_whitespace().find_map(|word| word.strip_prefix("address=")));
    let address = address.with_context(|| printed.clone())?.to_owned();
    Ok((running, address))
}

/// Bytes of objects that a compactor has written.
fn written(address: &str) -> Result<f64> {
    use std::io::{Read, Write};
    let mut stream = std::net::TcpStream::connect(address)?;
    write!(stream, "GET /metrics HTTP/1.1\r\nHost: varve\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let line = answer.lines().find(|line| line.starts_with("varve_compactor_written_bytes_total"));
    Ok(line.and_then(|line| line.rsplit_once(' ')).context("the metric")?.1.parse()?)
}

/// What `varve tier` says of the topic, line by line.
fn tier(cluster: &Cluster, settings: &[String], arguments: &[&str]) -> Result<Vec<Value>> {
    let mut command = varve()?;
    command.current_dir(cluster.folder(0)).arg("tier").args(arguments);
    for setting in settings {
        command.args(["--override", setting]);
    }
    let output = command.output()?;
    let printed = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success(), "{printed}\n{}", String::from_utf8_lossy(&output.stderr));
    printed.lines().map(|line| Ok(serde_json::from_str(line)?)).collect()
}

#[test]
fn two_compactors_share_the_work_and_one_takes_over_what_the_other_left_when_it_was_killed() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let brokers = [&SETTINGS[..], &["varve.roles=broker,tiering"]].concat();
    let cluster = Cluster::start(folder.path(), 3, &brokers)?;
    let configs = [("internal.segment.bytes", "20000"), ("local.retention.bytes", "40000"), ("retention.ms", "-1")];
    cluster.create("much", PARTITIONS, 3, &configs)?;
    let settings = [
        format!("varve.metadata.url=etcd://{}/varve", cluster.etcd[0].address()),
        format!("varve.object.store.url=file://{}", folder.path().join("bucket").display()),
        "broker.session.timeout.ms=2000".to_owned(),
        "varve.compactor.interval.ms=200".to_owned(),
    ];
    let (one, at_one) = start(folder.path(), "one", &settings)?;
    let (other, at_other) = start(folder.path(), "other", &settings)?;
    let kafka = KafkaTools::at(cluster.addresses()[0]);
    let produce = || {
        kafka.run(&format!(
            "kafka-producer-perf-test.sh --topic much --num-records {ROUND} --record-size 1000 --throughput -1 \
             --bootstrap-server NODE --command-property acks=all"
        ))
    };
    let mut rounds = 2;
    // While one of them is slow the other one may take all that there is.
    eventually("both have rewritten something", || {
        produce()?;
        rounds += 1;
        Ok((written(&at_one)? > 0.0 && written(&at_other)? > 0.0).then_some(()))
    })?;
    // In the middle of its work, as likely as not.
    produce()?;
    one.kill();
    produce()?;
    eventually("all that was archived is Parquet", || {
        // An object that it would read may be gone by then: it has become another one.
        let described = tier(&cluster, &settings, &["describe", "much", "--json"]).unwrap_or_default();
        let number = |line: &Value, name: &str| line[name].as_u64().unwrap_or_default();
        let raw: u64 = described.iter().map(|line| number(line, "raw_objects")).sum();
        let parquet: u64 = described.iter().map(|line| number(line, "parquet_objects")).sum();
        Ok((described.len() == PARTITIONS as usize && raw == 0 && parquet > 0).then_some(()))
    })?;
    let verified = tier(&cluster, &settings, &["verify", "much", "--json"])?;
    ensure!(verified.iter().all(|line| line["problem"].is_null()), "{verified:?}");
    let read = kcat::read_committed(cluster.addresses()[0], "much")?;
    ensure!(read.len() == rounds * ROUND, "{} records are read", read.len());
    other.terminate()
}

#[test]
fn a_process_that_uploads_or_compacts_alone_is_refused_where_it_could_not() -> Result<()> {
    for (roles, url, why) in [
        ("tiering", "etcd://127.0.0.1:1/varve", "broker beside tiering"),
        ("tiering,compactor", "etcd://127.0.0.1:1/varve", "broker beside tiering"),
        ("compactor", "embedded:", "which embedded metadata cannot do"),
    ] {
        let mut command = varve()?;
        command.args(["--roles", roles, "--override", &format!("varve.metadata.url={url}")]);
        let output = command.output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(!output.status.success() && said.contains(why), "{roles}: {said}");
    }
    Ok(())
}

/// It has no logs by which it would know that the store lost a cluster: where there is none, it waits for a broker to make one.
#[test]
fn a_process_that_only_compacts_makes_no_cluster() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let etcd = Etcd::start(folder.path())?;
    let mut command = varve()?;
    command.current_dir(folder.path()).args(["--roles", "compactor"]);
    for setting in [
        format!("varve.metadata.url=etcd://{}/varve", etcd.address()),
        format!("varve.object.store.url=file://{}", folder.path().join("bucket").display()),
        "varve.http.listener=127.0.0.1:0".to_owned(),
        "initial.broker.registration.timeout.ms=1000".to_owned(),
    ] {
        command.args(["--override", &setting]);
    }
    let output = command.output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(!output.status.success() && said.contains("it holds no cluster"), "{said}");
    let keys = etcd.ctl(&["get", "--prefix", "/varve/", "--keys-only"])?;
    ensure!(keys.trim().is_empty(), "it wrote {keys}");
    Ok(())
}
