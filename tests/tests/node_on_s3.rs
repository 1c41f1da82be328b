//! A whole node on real S3 protocol: an emulator server behind a proxy that fails while the node works.

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use anyhow::{Result, ensure};
use varve_tests::{
    asked::Asked,
    client::Client,
    fault_proxy::{Fault, FaultProxy, Request},
    node::Node,
    records,
    s3::S3Emulator,
    tools,
};

const PARTITIONS: i32 = 2;
const RECORDS: usize = 6_000;
/// Producers, one after the other, so that not all goes up at once.
const SHARES: usize = 4;

/// What meets every other request, in turn: errors, cut connections, and requests that were done all the same.
const FAULTS: [Fault; 6] = [
    Fault::Refuse(503),
    Fault::DoneButAnswered(500),
    Fault::CutBefore,
    Fault::DoneButCut,
    Fault::Refuse(500),
    Fault::CutBody(3),
];

/// The proxy's plan: requests that write and requests that read take their turns apart, so that both meet every fault.
#[derive(Default)]
struct Weather {
    writes: AtomicU64,
    reads: AtomicU64,
    met: Mutex<BTreeSet<String>>,
    parquet_reads: AtomicU64,
}

impl Weather {
    fn decide(&self, request: &Request) -> Fault {
        let writes = request.method == "PUT" || request.method == "POST";
        if request.method == "GET" && request.target.contains(".parquet") {
            self.parquet_reads.fetch_add(1, Ordering::SeqCst);
        }
        let turn = if writes { &self.writes } else { &self.reads }.fetch_add(1, Ordering::SeqCst);
        if turn.is_multiple_of(2) {
            return Fault::None;
        }
        let fault = FAULTS[(turn / 2) as usize % FAULTS.len()];
        let met = format!("{} {fault:?}", if writes { "write" } else { "read" });
        self.met.lock().expect("no decision panics").insert(met);
        fault
    }
}

fn client(verb: &str, node: &Node, arguments: &[&str]) -> Result<String> {
    let mut command = tools::client("librdkafka")?;
    command.args([verb, "--bootstrap", &node.address.to_string(), "--topic", "logs"]).args(arguments);
    tools::output_of(&mut command)
}

#[test]
fn a_node_archives_to_s3_and_reads_back_from_it_in_any_weather() -> Result<()> {
    let emulator = S3Emulator::start()?;
    emulator.make_bucket("varve")?;
    let weather = Arc::new(Weather::default());
    let decide = Arc::clone(&weather);
    let proxy = FaultProxy::start(emulator.address(), move |request| decide.decide(request))?;
    let folder = tempfile::tempdir()?;
    let endpoint = format!("varve.object.store.endpoint=http://{}", proxy.address());
    let settings = [
        "varve.object.store.url=s3://varve/a/prefix",
        &endpoint,
        "varve.object.store.request.attempts=12",
        "log.retention.check.interval.ms=200",
        "varve.compactor.interval.ms=200",
        "varve.archive.lag.ms=500",
    ];
    // Region and credentials come as AWS's tools take them.
    let variables = [("AWS_REGION", "us-east-1"), ("AWS_ACCESS_KEY_ID", "test"), ("AWS_SECRET_ACCESS_KEY", "test")];
    let varve = Asked::of(folder.path()).with_settings(&settings).with_environment(&variables);
    let node = varve.start()?;
    let configs = [
        ("segment.bytes", "1048576"),
        ("local.retention.ms", "1"),
        ("retention.ms", "-1"),
        ("file.delete.delay.ms", "0"),
    ];
    Client::connect(node.address)?.create_topic("logs", PARTITIONS, &configs)?;
    let sent: Vec<_> = records::log_records()?.into_iter().take(RECORDS).collect();
    let (input, output) = (folder.path().join("input.jsonl"), folder.path().join("output.jsonl"));
    for share in sent.chunks(RECORDS / SHARES) {
        records::write(&input, share)?;
        client("produce", &node, &["--codec", "zstd", "--input", &input.display().to_string()])?;
    }
    let total = varve.only_parquet_is_left(&node, "logs", PARTITIONS)?;
    ensure!(total == sent.len() as u64, "{total} offsets for {} records", sent.len());
    node.stop()?;
    // Nothing is left but the bucket and the cluster's state: not even what was cached on the way.
    let cache = folder.path().join("varve-data/cache");
    if cache.exists() {
        std::fs::remove_dir_all(cache)?;
    }

    let node = varve.start()?;
    let before = weather.parquet_reads.load(Ordering::SeqCst);
    client("consume", &node, &["--count", &sent.len().to_string(), "--output", &output.display().to_string()])?;
    ensure!(weather.parquet_reads.load(Ordering::SeqCst) > before, "it was read from the bucket");
    let (found, wanted) = (records::read_by_key(&output)?, records::by_key(&sent));
    ensure!(found == wanted, "{} of {} records came back as they were", found.values().flatten().count(), sent.len());
    let verified = varve.ask(&["tier", "verify", "logs"])?;
    ensure!(verified.len() == 1 && verified[0]["problems"] == 0, "{verified:?}");
    ensure!(verified[0]["partitions"] == PARTITIONS && verified[0]["objects"].as_u64() > Some(0), "{verified:?}");
    let met = weather.met.lock().expect("no decision panics").clone();
    ensure!(met.len() == 2 * FAULTS.len(), "faults met in {} requests: {met:?}", proxy.requests());
    node.stop()
}
