//! The node's own log, on standard error: lines for people, or JSON for collectors.

use tracing_subscriber::{EnvFilter, fmt};

use crate::config::{LogFormat, SelfLogConfig};

/// Begins logging as configured. Only the first call of a process has an effect.
pub fn start_self_log(config: &SelfLogConfig) {
    // The level was checked when the configuration was read.
    let filter = EnvFilter::try_new(&config.level).unwrap_or_else(|_| EnvFilter::new("info"));
    let log = fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let _ = match config.format {
        LogFormat::Text => log.try_init(),
        LogFormat::Json => log.json().flatten_event(true).try_init(),
    };
}
