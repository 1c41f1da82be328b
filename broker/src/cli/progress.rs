//! Bars for work that takes long.

use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Bytes that are read, with rate and time left.
pub(super) const BYTES: &str = "{bar:40} {binary_bytes} of {binary_total_bytes}, {binary_bytes_per_sec}, {eta} left";
/// Manifests that are read.
pub(super) const MANIFESTS: &str = "{bar:40} {pos} of {len} manifests, {eta} left";

/// Replicas that move from broker to broker.
pub(super) const REPLICAS: &str = "{bar:40} {pos} of {len} replicas moved  {msg}";

/// Work of others that is waited for, without an end that could be told.
pub(super) const WAITING: &str = "{spinner} {elapsed}  {msg}";

/// A bar on standard error, if someone is there to see it.
pub(super) fn progress_bar(total: u64, template: &str) -> ProgressBar {
    let bar = ProgressBar::new(total);
    if !std::io::stderr().is_terminal() {
        bar.set_draw_target(ProgressDrawTarget::hidden());
    }
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}
