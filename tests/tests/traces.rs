//! Traces: what a collector that speaks OTLP over HTTP receives.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex},
};

use anyhow::{Context, Result, ensure};
use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    common::v1::{KeyValue, any_value::Value},
    trace::v1::Span,
};
use prost::Message;
use varve_log::format::{BatchBuilder, RecordContent};
use varve_metadata::model::{Offset, Timestamp};
use varve_tests::{
    client::{Client, FetchSpec},
    node::{Node, eventually},
};

/// A collector: takes what is posted to it.
struct Collector {
    address: SocketAddr,
    received: Arc<Mutex<Vec<ExportTraceServiceRequest>>>,
}

impl Collector {
    fn start() -> Result<Collector> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let (address, received) = (listener.local_addr()?, Arc::default());
        let collector = Collector { address, received: Arc::clone(&received) };
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let received = Arc::clone(&received);
                // A node that stops ends its connection, and with it the thread.
                std::thread::spawn(move || serve(stream, &received));
            }
        });
        Ok(collector)
    }

    fn endpoint(&self) -> String {
        format!("varve.trace.endpoint=http://{}/v1/traces", self.address)
    }

    /// Every span so far, by its id.
    fn spans(&self) -> BTreeMap<Vec<u8>, Span> {
        let received = self.received.lock().expect("no test panics with it");
        let scopes = received.iter().flat_map(|request| &request.resource_spans).flat_map(|spans| &spans.scope_spans);
        scopes.flat_map(|scope| &scope.spans).map(|span| (span.span_id.clone(), span.clone())).collect()
    }

    /// Waits for a span called `name` with one called `part` right below it; the attributes of both.
    fn pair(&self, name: &str, part: &str) -> Result<(Attributes, Attributes)> {
        eventually(&format!("{part} below {name}"), || {
            let spans = self.spans();
            let found = spans.values().filter(|span| span.name == part).find_map(|below| {
                let above = spans.get(&below.parent_span_id).filter(|above| above.name == name)?;
                Some((attributes(&above.attributes), attributes(&below.attributes)))
            });
            Ok(found)
        })
    }
}

type Attributes = BTreeMap<String, String>;

fn attributes(given: &[KeyValue]) -> Attributes {
    let text = |one: &KeyValue| match one.value.as_ref().and_then(|value| value.value.as_ref()) {
        Some(Value::StringValue(text)) => text.clone(),
        Some(Value::IntValue(number)) => number.to_string(),
        other => format!("{other:?}"),
    };
    given.iter().map(|one| (one.key.clone(), text(one))).collect()
}

/// Takes requests of one connection until it ends.
fn serve(stream: TcpStream, received: &Mutex<Vec<ExportTraceServiceRequest>>) -> Option<()> {
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    let mut stream = stream;
    loop {
        let (mut length, mut line) = (0, String::new());
        while reader.read_line(&mut line).ok()? > 0 && line != "\r\n" {
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().ok()?;
            }
            line.clear();
        }
        if line.is_empty() {
            return None;
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).ok()?;
        received.lock().ok()?.push(ExportTraceServiceRequest::decode(&body[..]).ok()?);
        stream
            .write_all(b"HTTP/1.1 200 OK\r\ncontent-type: application/x-protobuf\r\ncontent-length: 0\r\n\r\n")
            .ok()?;
    }
}

fn produce(client: &mut Client) -> Result<()> {
    let mut batch = BatchBuilder::new(Offset::ZERO);
    let today = std::time::UNIX_EPOCH.elapsed()?.as_millis() as i64;
    let timestamp = Timestamp::from_wire(today);
    batch.push(RecordContent { timestamp, key: None, value: Some(b"value"), headers: &[] });
    client.produce("orders", 0, batch.build()?.into()).map(drop)
}

#[test]
fn requests_and_work_on_the_archive_are_traced_with_their_parts() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let collector = Collector::start()?;
    let eager = [
        "log.retention.check.interval.ms=100",
        "remote.log.manager.task.interval.ms=100",
        "varve.compactor.interval.ms=100",
        "varve.trace.sample.ratio=1",
        &collector.endpoint(),
    ];
    let node = Node::start(folder.path(), &eager)?;
    let mut client = Client::connect(node.address)?;
    client.create_topic("orders", 1, &[("varve.archive.lag.ms", "100"), ("local.retention.ms", "100")])?;
    produce(&mut client)?;
    let (request, appended) = collector.pair("Produce", "append")?;
    ensure!(request["messaging.system"] == "kafka" && request["network.peer.address"] == "127.0.0.1", "{request:?}");
    ensure!(request["varve.listener"] == "PLAINTEXT" && request.contains_key("varve.request.bytes"), "{request:?}");
    ensure!(appended["messaging.destination.name"] == "orders", "{appended:?}");
    collector.pair("Produce", "write")?;

    // Into the bucket, into Parquet, and back from there.
    collector.pair("upload segments", "object store put")?;
    let (rewritten, _) = collector.pair("rewrite the archive", "object store put")?;
    ensure!(rewritten["messaging.destination.name"] == "orders" && rewritten["outcome"] == "done", "{rewritten:?}");
    eventually("the local copy goes", || {
        let metrics = node.http_get("/metrics")?;
        Ok(metrics.contains("varve_local_log_bytes{topic=\"orders\"} 0").then_some(()))
    })?;
    let fetch = FetchSpec { topic: "orders", partition: 0, max_bytes: 1 << 20, max_wait_ms: 1_000 };
    client.fetch(&fetch, 0)?;
    let (_, read) = collector.pair("Fetch", "read the archive")?;
    ensure!(read["messaging.destination.partition.id"] == "0", "{read:?}");
    collector.pair("read the archive", "object store get")?;

    let received = collector.received.lock().expect("no test panics with it");
    let resource = received.first().and_then(|first| first.resource_spans.first()?.resource.clone());
    let resource = attributes(&resource.context("a resource")?.attributes);
    ensure!(resource["service.name"] == "varve" && resource["service.instance.id"] == "1", "{resource:?}");
    drop(received);
    ensure!(!node.printed().contains("ERROR"), "the node saw nothing wrong:\n{}", node.printed());
    node.stop()
}

#[test]
fn a_collector_that_is_not_there_holds_nobody_up_and_is_told_of() -> Result<()> {
    let folder = tempfile::tempdir()?;
    // Bound, and closed again: nobody answers there.
    let gone = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let endpoint = format!("varve.trace.endpoint=http://{gone}/v1/traces");
    let node = Node::start(folder.path(), &["varve.trace.sample.ratio=1", &endpoint])?;
    let mut client = Client::connect(node.address)?;
    client.create_topic("orders", 1, &[])?;
    for _ in 0..3000 {
        produce(&mut client)?;
    }
    eventually("the log tells of it", || Ok(node.printed().contains("opentelemetry").then_some(())))?;
    node.stop()
}
