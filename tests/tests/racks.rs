//! Consumers read from the replica in their rack (KIP-392): from its log and from the archive, everything and committed records
//! only, with Kafka's own client and librdkafka.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use varve_tests::{
    client::Client,
    cluster::Cluster,
    history::Place,
    kafka_tools::KafkaTools,
    node::{eventually, until},
    tools,
    transactions::batch,
    workload::Routes,
};

const BROKERS: usize = 3;
const TOPIC: &str = "ledger";
const ID: &str = "writer";
const SETTINGS: [&str; 11] = [
    "broker.session.timeout.ms=3600000",
    "replica.lag.time.max.ms=30000",
    "replica.selector.class=org.apache.kafka.common.replica.RackAwareReplicaSelector",
    "transaction.state.log.replication.factor=3",
    "transaction.state.log.num.partitions=1",
    "offsets.topic.num.partitions=1",
    "group.initial.rebalance.delay.ms=0",
    "varve.archive.lag.ms=200",
    "remote.log.manager.task.interval.ms=500",
    "varve.compactor.interval.ms=200",
    "log.segment.delete.delay.ms=0",
];
/// Small segments, which leave the local disk when they are in the archive.
const CONFIGS: [(&str, &str); 4] = [
    ("min.insync.replicas", "2"),
    ("internal.segment.bytes", "10000"),
    ("local.retention.bytes", "20000"),
    ("retention.ms", "-1"),
];
const TRANSACTIONS: usize = 40;
const RECORDS: usize = 20;
/// Every fourth transaction is aborted.
const ABORTED: usize = 4;

/// The values of all records, and of those that are committed.
fn write(routes: &Routes) -> Result<(Vec<String>, Vec<String>)> {
    let place = Place { topic: TOPIC.to_owned(), partition: 0 };
    let coordinator = |routes: &Routes| -> Result<Client> {
        let asked = kafka_protocol::messages::FindCoordinatorRequest::default()
            .with_key_type(1)
            .with_key(kafka_protocol::protocol::StrBytes::from_static_str(ID));
        let found = routes.to_any()?.ask(3, &asked)?;
        ensure!(found.error_code == 0, "FindCoordinator says {}", found.error_code);
        Client::connect(format!("{}:{}", &*found.host, found.port).parse()?)
    };
    let mut producer = until("a producer", || coordinator(routes)?.init_producer(ID, 600_000))?;
    let (mut all, mut committed) = (Vec::new(), Vec::new());
    let mut sequence = 0;
    for transaction in 0..TRANSACTIONS {
        for record in 0..RECORDS {
            let value = format!("{transaction}/{record}/{}", "x".repeat(60));
            let batch = batch(producer, sequence, None, &value)?;
            until("a record is taken", || {
                routes.to_leader(&place)?.produce_in_transaction(TOPIC, 0, 12, ID, batch.clone())
            })?;
            sequence += 1;
            if transaction % ABORTED != 0 {
                committed.push(value.clone());
            }
            all.push(value);
        }
        let before = producer;
        producer = until("the transaction ends", || {
            coordinator(routes)?.end_transaction(ID, producer, transaction % ABORTED != 0)
        })?;
        if producer != before {
            sequence = 0;
        }
    }
    let leader = || routes.to_leader(&place);
    until("all of it is committed", || {
        let end = leader()?.list_offset(TOPIC, 0, -1)?;
        // Each transaction has a marker.
        ensure!(end == (TRANSACTIONS * (RECORDS + 1)) as i64, "{end} records");
        Ok(())
    })?;
    Ok((all, committed))
}

fn metric(cluster: &Cluster, at: usize, name: &str) -> Result<f64> {
    let page = cluster.node(at).http_get("/metrics")?;
    let line = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.with_context(|| format!("{name} is not in\n{page}"))?.parse().context("a number")
}

#[test]
fn consumers_read_from_the_replica_in_their_rack() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let cluster = Cluster::start_each(folder.path(), BROKERS, &SETTINGS, |at| vec![format!("broker.rack=rack-{at}")])?;
    cluster.create(TOPIC, 1, BROKERS as i16, &CONFIGS)?;
    cluster.await_isr(TOPIC, BROKERS)?;
    let (all, committed) = write(&cluster.routes())?;
    let leader = cluster.describe(TOPIC)?[0].leader.context("somebody leads")?;
    let near = (leader + 1) % BROKERS;
    let first_segment = cluster.folder(near).join(format!("varve-data/log/{TOPIC}-0/00000000000000000000.log"));
    eventually("the first records are in the archive only", || Ok((!first_segment.exists()).then_some(())))?;

    let given = |at: usize| metric(&cluster, at, "varve_follower_reads_total");
    let bootstrap = cluster.addresses()[leader].to_string();
    let by_kcat = |isolation: &str| -> Result<Vec<String>> {
        let mut kcat = Command::new("kcat");
        kcat.args(["-b", &bootstrap, "-C", "-e", "-q", "-m", "60", "-o", "beginning", "-t", TOPIC, "-f", "%s\n"]);
        kcat.args(["-X", &format!("client.rack=rack-{near}"), "-X", &format!("isolation.level={isolation}")]);
        kcat.args(["-X", "check.crcs=true"]);
        Ok(tools::output_of(&mut kcat)?.lines().map(str::to_owned).collect())
    };
    for (isolation, expected) in [("read_uncommitted", &all), ("read_committed", &committed)] {
        let before = (given(near)?, metric(&cluster, near, "varve_cold_served_bytes_total")?);
        let read = by_kcat(isolation)?;
        ensure!(read == *expected, "{isolation}: {} records by librdkafka, not {}", read.len(), expected.len());
        ensure!(given(near)? > before.0, "librdkafka, {isolation}: nothing came from the follower");
        let cold = metric(&cluster, near, "varve_cold_served_bytes_total")?;
        ensure!(cold > before.1, "librdkafka, {isolation}: nothing came from the follower's archive");
    }
    for (isolation, expected) in [("read_uncommitted", &all), ("read_committed", &committed)] {
        let before = given(near)?;
        let line = format!(
            "kafka-console-consumer.sh --topic {TOPIC} --from-beginning --max-messages {} --timeout-ms 300000 \
             --command-property client.rack=rack-{near} --command-property isolation.level={isolation}",
            expected.len()
        );
        let printed = KafkaTools::at(cluster.addresses()[leader]).run(&line)?;
        let read: Vec<&str> = printed.lines().collect();
        ensure!(read == *expected, "{isolation}: {} records by Java, not {}", read.len(), expected.len());
        ensure!(given(near)? > before, "Java, {isolation}: nothing came from the follower");
    }
    // The third broker is in nobody's rack, and who says none reads from the leader.
    let far = (leader + 2) % BROKERS;
    let mut kcat = Command::new("kcat");
    kcat.args(["-b", &bootstrap, "-C", "-e", "-q", "-m", "60", "-o", "beginning", "-t", TOPIC, "-f", "%s\n"]);
    let before = given(near)?;
    // Committed records are what librdkafka asks for by default.
    ensure!(tools::output_of(&mut kcat)?.lines().count() == committed.len(), "all is read from the leader");
    ensure!(given(far)? == 0.0 && given(near)? == before && given(leader)? == 0.0, "no follower was asked");
    Ok(())
}

/// A record that the leader has acknowledged reaches who reads from a follower without the wait of the follower's next fetch.
#[test]
fn a_follower_hears_at_once_what_is_committed() -> Result<()> {
    let folder = tempfile::tempdir()?;
    // A follower that is not told waits beyond the limit of the test.
    let settings = [&SETTINGS[..], &["replica.fetch.wait.max.ms=600000", "replica.socket.timeout.ms=700000"]].concat();
    let settings: Vec<&str> =
        settings.into_iter().filter(|setting| !setting.starts_with("replica.lag.time.max.ms")).collect();
    let settings = [&settings[..], &["replica.lag.time.max.ms=900000"]].concat();
    let cluster = Cluster::start_each(folder.path(), BROKERS, &settings, |at| vec![format!("broker.rack=rack-{at}")])?;
    cluster.create(TOPIC, 1, BROKERS as i16, &[])?;
    cluster.await_isr(TOPIC, BROKERS)?;
    let leader = cluster.describe(TOPIC)?[0].leader.context("somebody leads")?;
    let near = (leader + 1) % BROKERS;
    let mut produce = Command::new("kcat");
    produce.args(["-b", &cluster.addresses()[leader].to_string(), "-P", "-t", TOPIC, "-X", "acks=all", "-m", "60"]);
    let input = folder.path().join("value");
    std::fs::write(&input, "now")?;
    produce.arg("-l").arg(&input);
    tools::output_of(&mut produce)?;
    let line = format!(
        "kafka-console-consumer.sh --topic {TOPIC} --partition 0 --offset earliest --max-messages 1 --timeout-ms 300000 \
         --command-property client.rack=rack-{near}"
    );
    ensure!(KafkaTools::at(cluster.addresses()[leader]).run(&line)?.trim() == "now");
    ensure!(metric(&cluster, near, "varve_follower_reads_total")? > 0.0, "it came from the follower");
    // Nor does anybody wait for followers to delete records.
    let file = folder.path().join("delete.json");
    std::fs::write(
        &file,
        format!("{{\"partitions\":[{{\"topic\":\"{TOPIC}\",\"partition\":0,\"offset\":1}}],\"version\":1}}"),
    )?;
    let line = format!("kafka-delete-records.sh --offset-json-file {}", file.display());
    let printed = KafkaTools::at(cluster.addresses()[leader]).run(&line)?;
    ensure!(printed.contains("low_watermark: 1"), "{printed}");
    Ok(())
}
