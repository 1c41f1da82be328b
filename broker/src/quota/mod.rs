//! How much clients may do, and how long they wait when they did more (KIP-13, 55, 124, 219, 257, 599, 612).
//!
//! ```text
//! request ─► limits: which quota? ─► meters: rate of user and client so far ─► throttle time ─► answer, then mute
//!             ▲ (up to six look-ups)     (one entry per user and client)
//! image ──────┘
//! ```
//! No clock and no sleep: *now* comes in, and a time to wait comes out. A kind of quota that nobody set costs one load. What
//! is kept per client is bounded: an entry that is idle for so long that a fresh one would say the same is dropped.

mod bucket;
mod clients;
mod connections;
mod limits;
mod meters;
mod metrics;
mod rate;

use std::time::Duration;

pub use clients::{Asker, ClientQuota, MutationQuota, Quotas};
pub use connections::{ConnectionQuotas, ListenerRates};
pub use metrics::QuotaMetrics;
pub use rate::Window;

/// Milliseconds since the node started: all that a quota needs of a clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Millis(pub u64);

impl Millis {
    fn since(self, earlier: Millis) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// Whole milliseconds, as answers carry them.
fn rounded(millis: f64) -> Duration {
    // Kafka's numbers end there too: nobody is told to wait longer than an `int` can say.
    Duration::from_millis(millis.round().clamp(0.0, f64::from(i32::MAX)) as u64)
}
