//! Starting, stopping and starting again: what a node says of bad settings, and what it still knows.

use std::{fs, path::Path};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use kafka_protocol::messages::MetadataRequest;
use varve_log::format::{BatchBuilder, RecordContent};
use varve_metadata::model::{Offset, ProducerEpoch, ProducerId, Sequence, Timestamp};
use varve_tests::{
    client::{Client, FetchSpec, after_last_batch},
    etcd::Etcd,
    kafka_tools::KafkaTools,
    node::{Node, until, varve},
    running::Running,
};

/// What a node that cannot start prints; it must end with an error and without a trace of a panic.
fn refused(folder: &Path, variables: &[(&str, &str)], overrides: &[&str]) -> Result<String> {
    let mut command = varve()?;
    command.current_dir(folder).envs(variables.iter().copied());
    for line in ["listeners=PLAINTEXT://127.0.0.1:0", "varve.http.listener=127.0.0.1:0"].iter().chain(overrides) {
        command.args(["--override", line]);
    }
    let output = command.output()?;
    let printed = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.code() == Some(1), "{overrides:?} {variables:?}: {}\n{printed}", output.status);
    ensure!(!printed.contains("panicked"), "{printed}");
    Ok(printed)
}

fn batch(values: &[&str], producer: Option<(ProducerId, ProducerEpoch, i32)>) -> Result<Bytes> {
    let mut batch = BatchBuilder::new(Offset::ZERO);
    if let Some((id, epoch, sequence)) = producer {
        batch = batch.producer(id, epoch, Sequence::from_wire(sequence));
    }
    // Of today: older records would fall to retention in the middle of the test.
    let today = std::time::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_millis() as i64);
    for value in values {
        let timestamp = Timestamp::from_wire(today);
        batch.push(RecordContent { timestamp, key: None, value: Some(value.as_bytes()), headers: &[] });
    }
    Ok(batch.build()?.into())
}

#[test]
fn a_setting_that_cannot_be_stops_the_start_with_a_line_that_helps() -> Result<()> {
    let folder = tempfile::tempdir()?;
    for (setting, wanted) in [
        ("log.retention.hour=3", "unknown setting log.retention.hour; did you mean log.retention.hours?"),
        ("num.partitions=many", "invalid value \"many\" for num.partitions: an integer of at least 1"),
        ("compression.type=brotli", "invalid value \"brotli\" for compression.type: "),
        (
            "zookeeper.connect=localhost:2181",
            "zookeeper.connect is refused: there is no ZooKeeper; set varve.metadata.url",
        ),
    ] {
        let printed = refused(folder.path(), &[], &[setting])?;
        ensure!(printed.contains(wanted) && printed.lines().count() == 1, "{setting}:\n{printed}");
    }
    let printed = refused(folder.path(), &[("VARVE_LOG_RETENTION_HOUR", "3")], &[])?;
    let wanted = "unknown setting VARVE_LOG_RETENTION_HOUR; did you mean VARVE_LOG_RETENTION_HOURS?";
    ensure!(printed.contains(wanted), "{printed}");
    // All of them at once, so that one round of mending is enough.
    let printed = refused(folder.path(), &[], &["num.partitions=0", "log.retention.ms=-5"])?;
    ensure!(printed.contains("num.partitions") && printed.contains("log.retention.ms"), "{printed}");
    ensure!(!folder.path().join("varve-data").exists(), "nothing was made before the settings were right");
    Ok(())
}

#[test]
fn a_server_properties_of_kafka_starts_a_node_and_later_layers_win() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let logs = folder.path().join("kafka-logs");
    let file = folder.path().join("server.properties");
    // The names that the file of Kafka's own distribution sets, with its values, but for ports and folders.
    let text = format!(
        "process.roles=broker,controller\nnode.id=7\ncontroller.quorum.bootstrap.servers=localhost:9093\n\
         listeners=PLAINTEXT://:9092,CONTROLLER://:9093\ninter.broker.listener.name=PLAINTEXT\n\
         advertised.listeners=PLAINTEXT://localhost:9092,CONTROLLER://localhost:9093\n\
         controller.listener.names=CONTROLLER\nlistener.security.protocol.map=CONTROLLER:PLAINTEXT,\
         PLAINTEXT:PLAINTEXT,SSL:SSL,SASL_PLAINTEXT:SASL_PLAINTEXT,SASL_SSL:SASL_SSL\nnum.network.threads=3\n\
         num.io.threads=8\nsocket.send.buffer.bytes=102400\nsocket.receive.buffer.bytes=102400\n\
         socket.request.max.bytes=104857600\nlog.dirs={}\nnum.partitions=3\nnum.recovery.threads.per.data.dir=1\n\
         offsets.topic.replication.factor=1\nshare.coordinator.state.topic.replication.factor=1\n\
         share.coordinator.state.topic.min.isr=1\ntransaction.state.log.replication.factor=1\n\
         transaction.state.log.min.isr=1\nlog.retention.hours=168\nlog.segment.bytes=1073741824\n\
         log.retention.check.interval.ms=300000\n",
        logs.display()
    );
    fs::write(&file, text)?;
    let mut command = varve()?;
    command.arg("--config").arg(&file).env("VARVE_NUM_PARTITIONS", "4").env("VARVE_LOG_RETENTION_HOURS", "12");
    let overrides = ["advertised.listeners=PLAINTEXT://127.0.0.1:0", "log.retention.hours=24"];
    let node = Node::launch(folder.path(), command, &overrides)?;
    let kafka = KafkaTools::of(&node);
    let settings = kafka.run("kafka-configs.sh --describe --all --entity-type brokers --entity-name 7")?;
    for wanted in ["  node.id=7 ", "  broker.id=7 ", "  num.partitions=4 ", "  log.retention.hours=24 "] {
        ensure!(settings.contains(wanted), "{wanted} is missing:\n{settings}");
    }
    Client::connect(node.address)?.create_topic("orders", 1, &[])?;
    ensure!(logs.join("orders-0").is_dir(), "the partition lies in log.dirs");
    // What has no effect here is accepted, with one line that says why.
    let printed = node.printed();
    for name in ["num.network.threads", "controller.quorum.bootstrap.servers"] {
        ensure!(printed.matches(&format!(" {name} ")).count() == 1, "one warning for {name}:\n{printed}");
    }
    ensure!(!printed.contains("log.retention.check.interval.ms has"), "what is honoured is no warning:\n{printed}");
    node.stop()
}

#[test]
fn an_old_advertised_port_is_mapped_with_a_warning() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let node = Node::start(folder.path(), &["advertised.port=19092"])?;
    let printed = node.printed();
    ensure!(printed.contains("advertised.port is mapped") && printed.contains("advertised.listeners="), "{printed}");
    let brokers = Client::connect(node.address)?.ask(12, &MetadataRequest::default())?.brokers;
    ensure!(brokers.len() == 1 && brokers[0].port == 19092, "clients are told {brokers:?}");
    node.stop()
}

#[test]
fn a_stopped_node_starts_without_recovery_and_knows_everything() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let node = Node::start(folder.path(), &["offsets.topic.num.partitions=2"])?;
    let kafka = KafkaTools::of(&node);
    let mut client = Client::connect(node.address)?;
    client.create_topic("orders", 2, &[("min.compaction.lag.ms", "1234")])?;
    let (id, epoch) = client.init_producer_id()?;
    ensure!(client.produce("orders", 1, batch(&["a", "b"], Some((id, epoch, 0)))?)? == 0, "the first batch");
    let last = batch(&["c"], Some((id, epoch, 2)))?;
    ensure!(client.produce("orders", 1, last.clone())? == 2, "the second batch");
    let reset = "kafka-consumer-groups.sh --reset-offsets --group desk --topic orders:1 --to-offset 1 --execute";
    kafka.run(reset)?;
    node.stop()?;
    let clean = folder.path().join("varve-data/log/.kafka_cleanshutdown");
    ensure!(clean.is_file(), "the clean stop is marked as Kafka marks it");

    let node = Node::start(folder.path(), &["offsets.topic.num.partitions=2"])?;
    ensure!(!clean.exists(), "a running node is not stopped cleanly");
    let kafka = KafkaTools::of(&node);
    let mut client = Client::connect(node.address)?;
    let described = kafka.run("kafka-topics.sh --describe --topic orders")?;
    ensure!(described.contains("PartitionCount: 2"), "{described}");
    ensure!(described.contains("min.compaction.lag.ms=1234"), "{described}");
    ensure!(client.produce("orders", 1, last)? == 2, "the same batch again is known, not written");
    ensure!(client.produce("orders", 1, batch(&["d"], Some((id, epoch, 3)))?)? == 3, "the producer goes on");
    let skipped = client.produce("orders", 1, batch(&["f"], Some((id, epoch, 5)))?);
    ensure!(skipped.is_err_and(|error| error.to_string().contains("error 45")), "a gap in its sequence is refused");
    ensure!(client.init_producer_id()?.0 != id, "a producer id is given once");
    let fetch = FetchSpec { topic: "orders", partition: 1, max_bytes: 1 << 20, max_wait_ms: 100 };
    let records = client.fetch(&fetch, 0)?;
    ensure!(after_last_batch(&records, 0) == (4, records.len()), "four records in whole batches");
    let described = kafka.run("kafka-consumer-groups.sh --describe --group desk")?;
    let line = described.lines().find(|line| line.starts_with("desk")).with_context(|| described.clone())?;
    let words: Vec<&str> = line.split_whitespace().collect();
    ensure!(words[1..6] == ["orders", "1", "1", "4", "3"], "the group's offset is kept:\n{described}");
    node.stop()
}

#[test]
fn a_second_process_on_the_same_folders_is_refused() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let node = Node::start(folder.path(), &[])?;
    let printed = refused(folder.path(), &[], &[])?;
    ensure!(printed.contains("varve-data") && printed.contains("in use by another process"), "{printed}");
    // Another node by its metadata, but with the same log directory.
    let elsewhere = format!("varve.data.dir={}", folder.path().join("elsewhere").display());
    let logs = format!("log.dirs={}", folder.path().join("varve-data/log").display());
    let printed = refused(folder.path(), &[], &[&elsewhere, &logs])?;
    ensure!(printed.contains("varve-data/log"), "{printed}");
    ensure!(Client::connect(node.address)?.api_versions().is_ok(), "the first one goes on");
    node.stop()
}

/// Kafka's brokers share nothing but what `log.dirs` says, and whoever comes from there starts two in one folder.
#[test]
fn two_brokers_do_not_share_what_each_notes_of_its_disks() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let etcd = Etcd::start(folder.path())?;
    fs::create_dir(folder.path().join("bucket"))?;
    let shared = [
        format!("varve.metadata.url=etcd://{}/varve", etcd.address()),
        format!("varve.object.store.url=file://{}", folder.path().join("bucket").display()),
    ];
    let logs = |id: u32| format!("log.dirs={}", folder.path().join(format!("logs-{id}")).display());
    let node = Node::start(folder.path(), &[&shared[0], &shared[1], &logs(1), "node.id=1"])?;
    let printed = refused(folder.path(), &[], &[&shared[0], &shared[1], &logs(2), "node.id=2"])?;
    ensure!(printed.contains("each node needs a varve.data.dir of its own"), "{printed}");
    node.stop()
}

#[test]
fn what_a_node_that_listens_everywhere_says_to_do_next_can_be_done_on_its_machine() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let node = Node::start(folder.path(), &["listeners=PLAINTEXT://:0"])?;
    let next = format!("Next: kcat -b 127.0.0.1:{} -t logs", node.address.port());
    until("it says what comes next", || {
        let printed = node.printed();
        ensure!(printed.contains(&next), "{printed}");
        Ok(())
    })?;
    node.stop()
}

/// After a power cut a broker may be there before its etcd.
#[test]
fn a_broker_waits_for_an_etcd_that_starts_after_it() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut etcd = Etcd::start(folder.path())?;
    etcd.kill();
    let mut broker = varve()?;
    broker.current_dir(folder.path());
    let metadata = format!("varve.metadata.url=etcd://{}/varve", etcd.address());
    let patient = "initial.broker.registration.timeout.ms=300000";
    for line in ["listeners=PLAINTEXT://127.0.0.1:0", "varve.http.listener=127.0.0.1:0", &metadata, patient] {
        broker.args(["--override", line]);
    }
    let mut broker = Running::start(broker, &folder.path().join("varve.log"))?;
    broker.until_it_says("the metadata store does not answer, trying again")?;
    etcd.restart()?;
    broker.until_it_says("varve is ready")?;
    broker.terminate()
}

#[test]
fn a_broker_ends_when_etcd_does_not_answer_in_time() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut etcd = Etcd::start(folder.path())?;
    etcd.kill();
    let metadata = format!("varve.metadata.url=etcd://{}/varve", etcd.address());
    let printed = refused(folder.path(), &[], &[&metadata, "initial.broker.registration.timeout.ms=0"])?;
    ensure!(printed.contains("etcd cannot be used (varve.metadata.url): etcd does not answer"), "{printed}");
    Ok(())
}
