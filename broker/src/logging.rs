//! The node's own log: lines or JSON on standard output, with levels that can change while it runs.

use tracing_subscriber::{
    EnvFilter, Layer, Registry, filter::ParseError, fmt, layer::SubscriberExt, reload, util::SubscriberInitExt,
};

use crate::{
    config::{LogFormat, SelfLogConfig},
    server::LogLevels,
    traces::Exporter,
};

/// Starts the process's log, and its traces if there are any, and returns the handle on the log's levels. A process has one
/// log: a second call changes nothing.
pub fn start(config: &SelfLogConfig, traces: Option<&Exporter>) -> LogLevels {
    let filter = levels(&config.level).unwrap_or_else(|_| EnvFilter::new("info"));
    let (filter, handle) = reload::Layer::<EnvFilter, Registry>::new(filter);
    // Colours would only stand in the way of those who read the log with programs.
    let lines = match config.format {
        LogFormat::Text => fmt::layer().with_ansi(false).with_filter(filter).boxed(),
        LogFormat::Json => fmt::layer().json().with_filter(filter).boxed(),
    };
    let started = tracing_subscriber::registry().with(lines).with(traces.map(Exporter::layer)).try_init();
    if let Err(error) = started {
        eprintln!("the log was started before: {error}");
    }
    let apply = move |directives: &str| {
        if let Ok(filter) = levels(directives)
            && let Err(error) = handle.reload(filter)
        {
            tracing::warn!(%error, "the log's levels stay as they were");
        }
    };
    LogLevels::new(&config.level, Box::new(apply))
}

/// The cache's own account of how it was built is of no use to an operator, and the spans of traces are for others;
/// `directives` that name them win.
fn levels(directives: &str) -> Result<EnvFilter, ParseError> {
    EnvFilter::try_new(format!("foyer=warn,varve_trace=off,{directives}"))
}
