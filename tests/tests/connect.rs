//! Kafka Connect on one node: a file becomes a topic becomes a file, with exactly the lines of real logs, through a
//! standalone worker that is stopped in between, and a distributed one whose offsets, settings and states are in compacted
//! topics, which is killed in between, as is the node; and an exactly-once source that is killed in the middle of its work.

use std::{
    fs,
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use varve_tests::{
    client::Client,
    kcat,
    node::{Node, eventually, stable_address},
    records,
    running::Running,
    tools,
};

/// Offsets and settings of the workers are compacted and archived while they run.
const EAGER: [&str; 7] = [
    "log.retention.check.interval.ms=200",
    "remote.log.manager.task.interval.ms=200",
    "log.cleaner.backoff.ms=200",
    "varve.archive.lag.ms=500",
    "varve.compactor.interval.ms=500",
    "log.local.retention.ms=1",
    "group.initial.rebalance.delay.ms=0",
];

/// Settings of both kinds of workers: plain lines, and offsets written soon.
const WORKER: [&str; 5] = [
    "key.converter=org.apache.kafka.connect.storage.StringConverter",
    "value.converter=org.apache.kafka.connect.storage.StringConverter",
    "offset.flush.interval.ms=200",
    "plugin.discovery=service_load",
    "consumer.metadata.max.age.ms=2000",
];

/// Lines of all logs: those that are text, as Connect's file source reads them.
fn lines() -> Result<Vec<String>> {
    let lines = records::log_files()?.into_iter().flat_map(|(_, lines)| lines);
    let text = lines.filter_map(|line| String::from_utf8(line).ok());
    Ok(text.map(|line| line.trim_end_matches('\r').to_owned()).filter(|line| !line.is_empty()).collect())
}

fn append(file: &Path, lines: &[String]) -> Result<()> {
    let mut file = fs::OpenOptions::new().create(true).append(true).open(file)?;
    let text: String = lines.iter().flat_map(|line| [line.as_str(), "\n"]).collect();
    Ok(file.write_all(text.as_bytes())?)
}

/// Waits until `file` has as many lines as `lines`, and compares them.
fn await_lines(file: &Path, lines: &[String], worker: &mut Running) -> Result<()> {
    let found = eventually(&format!("{} lines in {}", lines.len(), file.display()), || {
        ensure!(worker.ended()?.is_none(), "the worker ended");
        let text = fs::read_to_string(file).unwrap_or_default();
        Ok((text.lines().count() >= lines.len()).then_some(text))
    })
    .with_context(|| worker.printed())?;
    ensure!(
        found.lines().eq(lines),
        "{} is not what was written:\n{}",
        file.display(),
        first_difference(&found, lines)
    );
    Ok(())
}

fn first_difference(found: &str, lines: &[String]) -> String {
    let pair = found.lines().zip(lines).enumerate().find(|(_, (found, line))| found != line);
    pair.map_or_else(
        || format!("{} lines, {} written", found.lines().count(), lines.len()),
        |(number, (found, line))| format!("line {number}: {found:?}, written {line:?}"),
    )
}

fn properties(path: PathBuf, lines: &[&str]) -> Result<PathBuf> {
    fs::write(&path, lines.join("\n"))?;
    Ok(path)
}

#[test]
fn a_standalone_worker_copies_every_line_once_though_it_is_stopped_in_between() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let node = Node::start(folder.path(), &EAGER)?;
    let path = |name: &str| folder.path().join(name);
    let (source, sink, log) = (path("source.log"), path("sink.log"), path("connect.log"));
    let listener = format!("listeners=http://{}", stable_address()?);
    let bootstrap = format!("bootstrap.servers={}", node.address);
    let offsets = format!("offset.storage.file.filename={}", path("offsets").display());
    let worker = properties(path("worker.properties"), &[&WORKER[..], &[&listener, &bootstrap, &offsets]].concat())?;
    let file = |file: &Path| format!("file={}", file.display());
    let connector = |name: &str, class: &str, topic: &str, at: &Path| {
        let (named, class, topic) = (format!("name={name}"), format!("connector.class={class}"), topic.to_owned());
        properties(path(&format!("{name}.properties")), &[&named, &class, "tasks.max=1", &topic, &file(at)])
    };
    let connectors = [
        connector("reads", "FileStreamSource", "topic=lines", &source)?,
        connector("writes", "FileStreamSink", "topics=lines", &sink)?,
    ];
    let start = || -> Result<Running> {
        let mut command = tools::program("connect-standalone.sh")?;
        command.arg(&worker).args(&connectors);
        Running::start(command, &log)
    };
    let lines = lines()?;
    let half = lines.len() / 2;
    append(&source, &lines[..half])?;
    let mut worker_runs = start()?;
    await_lines(&sink, &lines[..half], &mut worker_runs)?;
    worker_runs.terminate()?;
    append(&source, &lines[half..])?;
    let mut worker_runs = start()?;
    await_lines(&sink, &lines, &mut worker_runs)?;
    worker_runs.terminate()?;
    let written = kcat::read_committed(node.address, "lines")?;
    ensure!(written.iter().map(|record| &record.value).eq(&lines), "the topic has the lines, once and in order");
    node.stop()
}

/// The REST interface of a worker.
struct Rest(SocketAddr);

impl Rest {
    /// The answer's body; nothing if there was none, or one without success.
    fn ask(&self, method: &str, path: &str, body: &Value) -> Option<Value> {
        let mut stream = TcpStream::connect(self.0).ok()?;
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let (host, length) = (self.0, body.len());
        let head = format!("{method} {path} HTTP/1.0\r\nHost: {host}\r\nAccept: application/json\r\n");
        write!(stream, "{head}Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        let (head, body) = answer.split_once("\r\n\r\n")?;
        head.starts_with("HTTP/1.1 2").then(|| serde_json::from_str(body).unwrap_or_default())
    }

    /// Creates a connector, and waits until it runs.
    fn create(&self, name: &str, settings: &Value, worker: &mut Running) -> Result<()> {
        let connector = json!({"name": name, "config": settings});
        eventually(&format!("{name} is created"), || {
            ensure!(worker.ended()?.is_none(), "the worker ended");
            // It may be there because of an attempt that was answered with a timeout.
            let made = self.ask("POST", "/connectors", &connector);
            Ok(made.or_else(|| self.ask("GET", &format!("/connectors/{name}"), &Value::Null)))
        })
        .with_context(|| worker.printed())?;
        self.await_running(name, worker)
    }

    fn await_running(&self, connector: &str, worker: &mut Running) -> Result<()> {
        eventually(&format!("{connector} runs"), || {
            ensure!(worker.ended()?.is_none(), "the worker ended");
            let status = self.ask("GET", &format!("/connectors/{connector}/status"), &Value::Null).unwrap_or_default();
            let task = &status["tasks"][0]["state"];
            ensure!(*task != "FAILED", "{status}");
            Ok((status["connector"]["state"] == "RUNNING" && *task == "RUNNING").then_some(()))
        })
        .with_context(|| worker.printed())
    }
}

/// Settings of a distributed worker that keeps all in topics, with `more`; and where it is asked.
fn distributed(folder: &Path, address: SocketAddr, more: &[&str]) -> Result<(PathBuf, Rest)> {
    let rest = Rest(stable_address()?);
    let (listener, bootstrap) = (format!("listeners=http://{}", rest.0), format!("bootstrap.servers={address}"));
    let topics = [
        "group.id=workers",
        "config.storage.topic=workers-configs",
        "offset.storage.topic=workers-offsets",
        "status.storage.topic=workers-status",
        "config.storage.replication.factor=1",
        "offset.storage.replication.factor=1",
        "status.storage.replication.factor=1",
        "offset.storage.partitions=5",
        "scheduled.rebalance.max.delay.ms=0",
        "session.timeout.ms=15000",
        "heartbeat.interval.ms=500",
    ];
    let lines = [&WORKER[..], &topics[..], &[&listener, &bootstrap], more].concat();
    Ok((properties(folder.join("worker.properties"), &lines)?, rest))
}

fn start_distributed(worker: &Path, log: &Path) -> Result<Running> {
    let mut command = tools::program("connect-distributed.sh")?;
    command.arg(worker);
    Running::start(command, log)
}

#[test]
fn an_exactly_once_source_writes_each_line_once_though_it_and_the_node_are_killed_in_the_middle() -> Result<()> {
    const CHUNK: usize = 500;
    let folder = tempfile::tempdir()?;
    let address = stable_address()?;
    let mut node = Node::start_at(folder.path(), address, &EAGER)?;
    let (source, log) = (folder.path().join("source.log"), folder.path().join("connect.log"));
    let (worker, rest) = distributed(folder.path(), address, &["exactly.once.source.support=enabled"])?;
    let lines: Vec<String> = (0..6 * CHUNK).map(|number| format!("request={number} status=200")).collect();
    let mut chunks = lines.chunks(CHUNK);
    append(&source, &[])?;
    Client::connect(address)?.create_topic("lines", 1, &[])?;
    let mut worker_runs = start_distributed(&worker, &log)?;
    // What it reads at once is a transaction, with the place in the file that it ends at.
    let settings = json!({"connector.class": "FileStreamSource", "tasks.max": "1", "topic": "lines", "file": source,
        "exactly.once.support": "required", "transaction.boundary": "poll"});
    rest.create("reads", &settings, &mut worker_runs)?;
    let end = || -> Result<i64> { Client::connect(address)?.list_offset("lines", 0, -1) };
    for kill in 0..3 {
        let before = end()?;
        append(&source, chunks.next().context("a chunk")?)?;
        eventually("it writes", || {
            ensure!(worker_runs.ended()?.is_none(), "the worker ended");
            Ok((end()? > before).then_some(()))
        })
        .with_context(|| worker_runs.printed())?;
        // Now it is in the middle of these, or at the beginning of the next ones.
        append(&source, chunks.next().context("a chunk")?)?;
        if kill == 1 {
            node.kill();
            node = Node::start_at(folder.path(), address, &EAGER)?;
        } else {
            worker_runs.kill();
            worker_runs = start_distributed(&worker, &log)?;
        }
    }
    let written = eventually("all lines are committed", || {
        ensure!(worker_runs.ended()?.is_none(), "the worker ended");
        let written = kcat::read_committed(address, "lines")?;
        Ok((written.len() >= lines.len()).then_some(written))
    })
    .with_context(|| worker_runs.printed())?;
    ensure!(written.iter().map(|record| &record.value).eq(&lines), "each line is there once, in order");
    worker_runs.terminate()?;
    node.stop()
}

#[test]
fn a_distributed_worker_goes_on_from_its_topics_though_it_and_the_node_are_killed() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let address = stable_address()?;
    let node = Node::start_at(folder.path(), address, &EAGER)?;
    let path = |name: &str| folder.path().join(name);
    let (source, sink, log) = (path("source.log"), path("sink.log"), path("connect.log"));
    let (worker, rest) = distributed(folder.path(), address, &[])?;
    let start = || start_distributed(&worker, &log);
    let lines = lines()?;
    let half = lines.len() / 2;
    append(&source, &lines[..half])?;
    let mut worker_runs = start()?;
    for (name, class, field, file) in
        [("reads", "FileStreamSource", "topic", &source), ("writes", "FileStreamSink", "topics", &sink)]
    {
        // A killed worker's task left the group without a word: the next one need not wait for long.
        let settings = json!({"connector.class": class, "tasks.max": "1", field: "lines", "file": file,
            "consumer.override.session.timeout.ms": "15000"});
        rest.create(name, &settings, &mut worker_runs)?;
    }
    await_lines(&sink, &lines[..half], &mut worker_runs)?;

    // What it has done is written down: how far the file was read, and which lines are in the other.
    let read: u64 = fs::metadata(&source)?.len();
    eventually("the source's position is in the worker's topic", || {
        let offsets = kcat::read_committed(address, "workers-offsets")?;
        Ok(offsets.last().is_some_and(|last| last.value == format!("{{\"position\":{read}}}")).then_some(()))
    })?;
    let mut client = Client::connect(address)?;
    let end = client.list_offset("lines", 0, -1)?;
    eventually("the sink's offset is committed", || {
        Ok((client.committed("connect-writes", "lines", 0)? == Some(end)).then_some(()))
    })?;
    worker_runs.kill();
    node.kill();
    append(&source, &lines[half..])?;
    let node = Node::start_at(folder.path(), address, &EAGER)?;
    let mut worker_runs = start()?;
    rest.await_running("reads", &mut worker_runs)?;
    rest.await_running("writes", &mut worker_runs)?;
    await_lines(&sink, &lines, &mut worker_runs)?;
    let written = kcat::read_committed(address, "lines")?;
    ensure!(written.iter().map(|record| &record.value).eq(&lines), "the topic has the lines, once and in order");

    // A stopped connector's offsets can be reset: tombstones in the compacted topic, and the group's offsets deleted.
    for name in ["reads", "writes"] {
        // While the workers rebalance they say no.
        eventually(&format!("{name} stops"), || {
            Ok(rest.ask("PUT", &format!("/connectors/{name}/stop"), &Value::Null).map(drop))
        })?;
        let offsets = format!("/connectors/{name}/offsets");
        eventually(&format!("the offsets of {name} are reset"), || {
            Ok(rest.ask("DELETE", &offsets, &Value::Null).map(|_| ()))
        })?;
        eventually(&format!("{name} has no offsets"), || {
            let found = rest.ask("GET", &offsets, &Value::Null);
            Ok(found.is_some_and(|found| found == json!({"offsets": []})).then_some(()))
        })
        .with_context(|| worker_runs.printed())?;
        eventually(&format!("{name} is deleted"), || {
            Ok(rest.ask("DELETE", &format!("/connectors/{name}"), &Value::Null).map(drop))
        })?;
    }
    worker_runs.terminate()?;
    ensure!(!node.printed().contains("ERROR"), "the node saw nothing wrong:\n{}", node.printed());
    node.stop()
}
