//! The node's own log: lines or JSON on standard output, with levels that can change while it runs.

use tracing_subscriber::{
    EnvFilter, Registry, filter::ParseError, fmt, layer::SubscriberExt, reload, util::SubscriberInitExt,
};

use crate::{
    config::{LogFormat, SelfLogConfig},
    server::LogLevels,
};

/// Starts the process's log and returns the handle on its levels. A process has one log: a second call changes nothing.
pub fn start(config: &SelfLogConfig) -> LogLevels {
    let filter = levels(&config.level).unwrap_or_else(|_| EnvFilter::new("info"));
    let (filter, handle) = reload::Layer::<EnvFilter, Registry>::new(filter);
    let subscriber = tracing_subscriber::registry().with(filter);
    // Colours would only stand in the way of those who read the log with programs.
    let started = match config.format {
        LogFormat::Text => subscriber.with(fmt::layer().with_ansi(false)).try_init(),
        LogFormat::Json => subscriber.with(fmt::layer().json()).try_init(),
    };
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

/// The cache's own account of how it was built is of no use to an operator; `directives` that name it win.
fn levels(directives: &str) -> Result<EnvFilter, ParseError> {
    EnvFilter::try_new(format!("foyer=warn,{directives}"))
}
