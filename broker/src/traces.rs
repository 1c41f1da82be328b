//! Traces for an OpenTelemetry collector: on request (`varve.trace.endpoint`), sampled, and never waited for.
//!
//! ```text
//! request ─ Sampler: one of them? ─► span "Produce" ─► spans of its parts ─► batch (bounded) ─► OTLP over HTTP
//! ```
//!
//! Spans are those of [`tracing`], with two targets. One of `varve_trace::root` begins a trace: Kafka's protocol carries no
//! context of a trace, so each sampled request is one of its own, and so is each piece of background work on the archive. One
//! of `varve_trace` is a part of whatever it runs in, and nothing outside of a trace: what a request that is not sampled passes
//! costs it a look at a flag. Without an endpoint nobody listens to either, which tracing makes free.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use async_trait::async_trait;
use opentelemetry::{KeyValue, trace::TracerProvider};
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{ExporterBuildError, Protocol, SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::{Resource, trace::SdkTracerProvider};
use tokio::runtime::Handle;
use tracing::{Metadata, Span, Subscriber, field, level_filters::LevelFilter, subscriber::Interest};
use tracing_subscriber::{
    Layer,
    layer::{Context, Filter},
    registry::LookupSpan,
};

use crate::{config::TraceConfig, server::RequestContext};

/// The target of spans that begin a trace.
pub(crate) const ROOT: &str = "varve_trace::root";
/// The target of spans that are a part of one.
const PART: &str = "varve_trace";
/// How long the collector may take to take a batch.
const LIMIT: Duration = Duration::from_secs(10);

/// Sends spans until it is closed.
#[derive(Debug)]
pub struct Exporter {
    provider: SdkTracerProvider,
}

impl Exporter {
    /// An exporter to the collector of `config`, if one is named; it has not connected yet. Its requests run on `runtime`.
    ///
    /// # Errors
    /// The HTTP client cannot be made: the system's certificates cannot be read.
    pub fn new(config: &TraceConfig, node: u32, runtime: Handle) -> Result<Option<Exporter>, ExporterBuildError> {
        let Some(endpoint) = &config.endpoint else { return Ok(None) };
        let client = reqwest::Client::builder().timeout(LIMIT).build();
        let client = client.map_err(|error| ExporterBuildError::InternalFailure(error.to_string()))?;
        let spans = SpanExporter::builder()
            .with_http()
            .with_protocol(Protocol::HttpBinary)
            .with_endpoint(endpoint.as_str())
            .with_http_client(Post { client, runtime })
            .build()?;
        let resource = Resource::builder().with_service_name("varve").with_attributes([
            KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
            KeyValue::new("service.instance.id", node.to_string()),
        ]);
        let provider = SdkTracerProvider::builder().with_batch_exporter(spans).with_resource(resource.build()).build();
        Ok(Some(Exporter { provider }))
    }

    /// What makes spans of `tracing` spans to export.
    pub fn layer<S>(&self) -> impl Layer<S> + use<S>
    where
        S: Subscriber + for<'span> LookupSpan<'span> + Send + Sync,
    {
        tracing_opentelemetry::layer()
            .with_tracer(self.provider.tracer("varve"))
            .with_location(false)
            .with_threads(false)
            .with_tracked_inactivity(false)
            .with_filter(Traced)
    }

    /// Sends what is left. Blocks, at most for a few seconds.
    pub fn close(self) {
        if let Err(error) = self.provider.shutdown() {
            tracing::warn!(%error, "the last traces may be lost");
        }
    }
}

/// Lets roots through, and parts of what is traced already.
struct Traced;

impl Traced {
    fn is_ours(metadata: &Metadata<'_>) -> bool {
        metadata.is_span() && [ROOT, PART].contains(&metadata.target())
    }
}

impl<S: Subscriber + for<'span> LookupSpan<'span>> Filter<S> for Traced {
    fn enabled(&self, metadata: &Metadata<'_>, context: &Context<'_, S>) -> bool {
        Traced::is_ours(metadata) && (metadata.target() == ROOT || context.lookup_current().is_some())
    }

    fn callsite_enabled(&self, metadata: &'static Metadata<'static>) -> Interest {
        if Traced::is_ours(metadata) { Interest::sometimes() } else { Interest::never() }
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(LevelFilter::TRACE)
    }
}

/// OTLP's requests, on the node's runtime: the thread that makes batches has none.
#[derive(Debug)]
struct Post {
    client: reqwest::Client,
    runtime: Handle,
}

#[async_trait]
impl HttpClient for Post {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let client = self.client.clone();
        let sent = self.runtime.spawn(async move {
            let answer = client.execute(request.try_into()?).await?;
            let (status, headers) = (answer.status(), answer.headers().clone());
            Ok::<_, reqwest::Error>((status, headers, answer.bytes().await?))
        });
        let (status, headers, body) = sent.await??;
        let mut response = Response::new(body);
        *response.status_mut() = status;
        *response.headers_mut() = headers;
        Ok(response)
    }
}

/// Decides which requests are traced: evenly spread, and without chance.
#[derive(Debug, Default)]
pub(crate) struct Sampler {
    /// The share of requests in parts of 2^64. `None`: no request; the largest: every one.
    share: Option<u64>,
    /// Grows by `share` with each request: one that makes it wrap is sampled.
    turn: AtomicU64,
}

impl Sampler {
    /// A sampler of `config`'s share of requests.
    pub(crate) fn new(config: &TraceConfig) -> Sampler {
        // A cast from floating point saturates.
        let share = (config.ratio * 2f64.powi(64)) as u64;
        Sampler { share: (config.endpoint.is_some() && share > 0).then_some(share), turn: AtomicU64::new(0) }
    }

    fn takes(&self) -> bool {
        match self.share {
            None => false,
            Some(u64::MAX) => true,
            Some(share) => self.turn.fetch_add(share, Ordering::Relaxed).checked_add(share).is_none(),
        }
    }

    /// The span of a request that begins now; one that nobody sees if it is not sampled.
    pub(crate) fn begin(&self, context: &RequestContext) -> Span {
        if !self.takes() {
            return Span::none();
        }
        // Names as OpenTelemetry's conventions for messaging and networks have them, where they have one.
        let name = format!("{:?}", context.api);
        tracing::trace_span!(
            target: ROOT,
            "request",
            otel.name = name,
            otel.kind = "server",
            messaging.system = "kafka",
            messaging.client.id = context.client_id(),
            network.peer.address = %context.peer.ip(),
            network.peer.port = context.peer.port(),
            varve.listener = &*context.listener.0,
            varve.api.version = context.api_version,
            varve.request.bytes = context.bytes,
            otel.status_code = field::Empty,
            otel.status_description = field::Empty,
        )
    }
}

#[cfg(test)]
mod tests {
    use url::Url;

    use super::*;

    fn sampled(endpoint: Option<&str>, ratio: f64, requests: usize) -> usize {
        let endpoint = endpoint.map(|url| Url::parse(url).unwrap());
        let sampler = Sampler::new(&TraceConfig { endpoint, ratio });
        (0..requests).filter(|_| sampler.takes()).count()
    }

    #[test]
    fn the_share_that_was_asked_for_is_sampled_and_evenly_spread() {
        let to = Some("http://127.0.0.1:4318/v1/traces");
        assert_eq!(sampled(to, 1.0, 100), 100);
        assert_eq!(sampled(to, 0.25, 100), 25);
        assert!((9..=10).contains(&sampled(to, 0.001, 10_000)));
        assert_eq!(sampled(to, 0.0, 100), 0);
        assert_eq!(sampled(None, 1.0, 100), 0);
    }
}
