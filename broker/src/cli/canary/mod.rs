//! `varve canary`: one record to every partition of a topic, followed all the way into the archive.
//!
//! ```text
//!   produce ─► consume ─► archive (the manifest covers it) ─► query (its row in the Parquet object)
//! ```
//!
//! It asks from outside what users ask: each step is one that they would see fail. A round ends with the first step that fails.

mod kafka;
mod metrics;

use std::{
    net::SocketAddr,
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use clap::Args;
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;
use varve_log::format::{RecordBatchView, compression::decompress, records};
use varve_metadata::model::{Offset, PartitionId, TopicName};
use varve_tiering::{
    manifest::{ObjectKind, RemoteObject},
    tier::{manifests::ManifestStore, partition::RemotePartition},
};

use super::{
    ConfigurationArgs,
    content::{Content, open_bucket},
    dump::objects::{rebuilt_batches, table_footer},
    out::Out,
};
use crate::{
    http::{Health, HttpServer},
    metrics::Registry,
    security::{ListenerSecurity, chain},
};

use kafka::Cluster;
pub(crate) use metrics::canary_metrics;
use metrics::{CanaryMetrics, Step};

/// Arguments of `varve canary`.
#[derive(Debug, Args)]
#[command(after_long_help = NOTES)]
pub(super) struct CanaryArgs {
    /// Where the cluster is, one or several HOST:PORT separated by commas.
    #[arg(long, default_value = "127.0.0.1:9092", value_name = "HOST:PORT")]
    bootstrap_server: String,
    /// The topic that it writes. Made if it is missing, with a partition for each broker.
    #[arg(long, default_value = "varve-canary", value_name = "NAME")]
    topic: String,
    /// Replicas of the topic, if it is made; the cluster's default if left out.
    #[arg(long, value_name = "COUNT")]
    replication_factor: Option<i16>,
    /// Begin a round so often, until SIGTERM or Ctrl-C. One round if left out.
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..))]
    every_seconds: Option<u64>,
    /// How long produce, and consume, may take.
    #[arg(long, default_value_t = 30, value_name = "SECONDS")]
    timeout_seconds: u64,
    /// How long archive, and query, may take: the topic's varve.archive.lag.ms and two of varve.compactor.interval.ms, and time
    /// for the work.
    #[arg(long, default_value_t = 300, value_name = "SECONDS")]
    archive_timeout_seconds: u64,
    /// Do not look into the bucket: end with consume.
    #[arg(long)]
    no_archive: bool,
    /// Serve /metrics, /healthz and /readyz at this address.
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Option<SocketAddr>,
    /// One JSON object per line.
    #[arg(long)]
    json: bool,
}

const NOTES: &str = "\
Writes one record to each partition with acks=all, reads it back, waits until the manifest in the bucket covers it, and finds its
row in the Parquet object. --config and --override say where the bucket is (varve.object.store.*), as for the node; they may name
a role that can only read. Exit code 1 if a step fails, 0 if all of the last round succeeded. /metrics has the time of each step,
failures by step, and when each last succeeded. /readyz fails after a round that failed.

It connects as brokers of this configuration connect to each other: with the protocol, certificates and login of the listener that
inter.broker.listener.name names. --bootstrap-server is an address of that listener, or of another one that speaks the same.

Examples:
  varve canary --config server.properties                                      one round
  varve canary --bootstrap-server broker-1:9092 --no-archive                   clients' side only
  varve canary --config canary.properties --every-seconds 60 --listen 0.0.0.0:9405";

/// Largest record batch that is believed to be ours.
const MAX_RECORDS_BYTES: usize = 1 << 20;
/// Between two looks into the bucket.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// One written record.
#[derive(Clone, Debug)]
pub(super) struct Written {
    partition: PartitionId,
    offset: Offset,
    value: Vec<u8>,
}

pub(super) async fn answer(arguments: CanaryArgs, configuration: &ConfigurationArgs) -> anyhow::Result<ExitCode> {
    let registry = Registry::new();
    let (metrics, health, stop) = (CanaryMetrics::new(&registry), Health::starting(), CancellationToken::new());
    health.waiting_for("the first round");
    let config = configuration.load()?.config;
    let archive = match arguments.no_archive {
        true => None,
        false => Some(ManifestStore::new(open_bucket(config.object_store.url.as_str(), &config.object_store).await?)),
    };
    let between = &config.listeners.listeners[config.listeners.inter_broker];
    let texts = config.settings.texts();
    let security = ListenerSecurity::open_between_brokers(&between.name, between.protocol, &texts)?;
    if let Some(address) = arguments.listen {
        let server = HttpServer::bind(address).await.with_context(|| format!("cannot listen on {address}"))?;
        eprintln!("varve canary: listening on {}", server.local_addr());
        tokio::spawn(server.serve_page(move || registry.text(), health.clone(), stop.clone()));
    }
    let canary = Canary { arguments, archive, security, metrics };
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::select! {
        code = canary.rounds(&health) => code,
        _ = terminate.recv() => Ok(ExitCode::SUCCESS),
        _ = interrupt.recv() => Ok(ExitCode::SUCCESS),
    }
}

struct Canary {
    arguments: CanaryArgs,
    archive: Option<ManifestStore>,
    security: Arc<ListenerSecurity>,
    metrics: CanaryMetrics,
}

impl Canary {
    /// One round, or one after the other without end.
    async fn rounds(&self, health: &Health) -> anyhow::Result<ExitCode> {
        loop {
            let begun = Instant::now();
            self.take_renewed_keys();
            let succeeded = match self.round().await {
                Ok(()) => {
                    health.ready();
                    true
                }
                Err((step, error)) => {
                    self.metrics.failed(step);
                    health.waiting_for(&format!("a round that succeeds: {} failed", step.name()));
                    self.tell(step, None, Some(&format!("{error:#}")))?;
                    false
                }
            };
            let Some(every) = self.arguments.every_seconds else {
                return Ok(if succeeded { ExitCode::SUCCESS } else { ExitCode::FAILURE });
            };
            tokio::time::sleep(Duration::from_secs(every).saturating_sub(begun.elapsed())).await;
        }
    }

    /// Certificates are renewed while it stays: it would go on with those of its start until they end.
    fn take_renewed_keys(&self) {
        let Some(tls) = &self.security.tls else { return };
        if let Err(error) = tls.reload_changed_files() {
            eprintln!("varve canary: the changed key store cannot be used; the old one stays: {}", chain(&error));
        }
    }

    async fn round(&self) -> Result<(), (Step, anyhow::Error)> {
        let quick = Duration::from_secs(self.arguments.timeout_seconds);
        let slow = Duration::from_secs(self.arguments.archive_timeout_seconds);
        let (mut cluster, written) = self.step(Step::Produce, quick, self.produce()).await?;
        self.step(Step::Consume, quick, consume(&mut cluster, &written)).await?;
        let Some(store) = &self.archive else { return Ok(()) };
        let topic = TopicName::parse(&self.arguments.topic).map_err(|error| (Step::Archive, error.into()))?;
        let remotes =
            written.iter().map(|record| (record, RemotePartition::new(store.clone(), record.partition, topic.clone())));
        let remotes: Vec<_> = remotes.collect();
        self.step(Step::Archive, slow, archived(&remotes)).await?;
        self.step(Step::Query, slow, queried(&remotes)).await
    }

    /// Runs one step, at most for `limit`, and tells how long it took.
    async fn step<T>(
        &self,
        step: Step,
        limit: Duration,
        work: impl Future<Output = anyhow::Result<T>>,
    ) -> Result<T, (Step, anyhow::Error)> {
        let begun = Instant::now();
        let done = tokio::time::timeout(limit, work).await;
        let done = done.unwrap_or_else(|_| bail!("not done after {} seconds", limit.as_secs()));
        let done = done.map_err(|error| (step, error))?;
        self.metrics.succeeded(step, begun.elapsed());
        self.tell(step, Some(begun.elapsed()), None).map_err(|error| (step, error))?;
        Ok(done)
    }

    fn tell(&self, step: Step, took: Option<Duration>, error: Option<&str>) -> anyhow::Result<()> {
        let mut out = Out::new(self.arguments.json);
        let outcome = if error.is_some() { "failed" } else { "ok" };
        let seconds = took.map(|took| (took.as_secs_f64() * 1e6).round() / 1e6);
        let fields = [
            ("step", json!(step.name())),
            ("outcome", json!(outcome)),
            ("seconds", json!(seconds)),
            ("error", json!(error)),
        ];
        out.line(0, &fields)?;
        Ok(out.flush()?)
    }

    /// One record to each partition.
    async fn produce(&self) -> anyhow::Result<(Cluster, Vec<Written>)> {
        let CanaryArgs { bootstrap_server, topic, replication_factor, .. } = &self.arguments;
        let security = self.security.clone();
        let mut cluster = Cluster::connect(bootstrap_server, security, topic, *replication_factor).await?;
        let round = Uuid::new_v4();
        let mut written = Vec::new();
        for index in cluster.partitions() {
            let value = json!({ "round": round.to_string(), "partition": index }).to_string().into_bytes();
            let offset = cluster.produce(index, round.to_string().as_bytes(), &value).await?;
            written.push(Written { partition: PartitionId { topic: cluster.topic(), index }, offset, value });
        }
        Ok((cluster, written))
    }
}

/// Each record comes back as it was written.
async fn consume(cluster: &mut Cluster, written: &[Written]) -> anyhow::Result<()> {
    for record in written {
        let index = record.partition.index;
        let batches = cluster.fetch(index, record.offset).await?;
        let found = value_at(&batches, record.offset)?;
        ensure!(
            found.as_deref() == Some(&record.value[..]),
            "partition {index} has something else at offset {}",
            record.offset
        );
    }
    Ok(())
}

/// The manifests cover each record.
async fn archived(remotes: &[(&Written, RemotePartition)]) -> anyhow::Result<()> {
    for (record, remote) in remotes {
        object_of(record, remote, |_| true).await?;
    }
    Ok(())
}

/// Each record is a row of a Parquet object.
async fn queried(remotes: &[(&Written, RemotePartition)]) -> anyhow::Result<()> {
    for (record, remote) in remotes {
        let object = object_of(record, remote, |object| object.kind == ObjectKind::Parquet).await?;
        let key = object.key(remote.partition(), remote.topic());
        let shown = key.as_str().to_owned();
        let content = Content::Object { bucket: remote.bucket().clone(), key, bytes: object.bytes };
        let footer = table_footer(&content).await.with_context(|| shown.clone())?;
        let group = footer.groups().iter().find(|group| group.base <= record.offset && record.offset < group.end);
        let group = group.with_context(|| format!("{shown} has no row group for offset {}", record.offset))?;
        let batches = rebuilt_batches(&content, &footer, group.base).await.with_context(|| shown.clone())?;
        let found = value_at(&batches, record.offset)?;
        ensure!(found.as_deref() == Some(&record.value[..]), "{shown} has something else at offset {}", record.offset);
    }
    Ok(())
}

/// Waits for the object that answers for the record and is as it should be. Whoever calls has a limit of time.
async fn object_of(
    record: &Written,
    remote: &RemotePartition,
    is_wanted: impl Fn(&RemoteObject) -> bool,
) -> anyhow::Result<RemoteObject> {
    loop {
        remote.refresh().await?;
        if let Some(object) = remote.find(record.offset).await?.filter(|object| is_wanted(object)) {
            return Ok(object);
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// The value of the record at `offset` among these batches; `None` if it is not among them or has none.
fn value_at(batches: &[u8], offset: Offset) -> anyhow::Result<Option<Vec<u8>>> {
    let mut rest = batches;
    while !rest.is_empty() {
        let (batch, behind) = RecordBatchView::parse(rest).context("a record batch")?;
        rest = behind;
        let header = batch.header();
        if !(header.base_offset..=header.last_offset()).contains(&offset) {
            continue;
        }
        let plain = decompress(header.attributes.compression(), batch.payload(), MAX_RECORDS_BYTES)?;
        for record in records(&plain, header.record_count) {
            let record = record?;
            if header.base_offset.to_wire() + i64::from(record.offset_delta) == offset.to_wire() {
                return Ok(record.value.map(<[u8]>::to_vec));
            }
        }
    }
    Ok(None)
}
