//! Metrics that clients push (KIP-714): whom to ask for which, what they sent, and how Prometheus reads it.
//!
//! ```text
//! subscriptions ─► get: what to push, and how often ─► client ─► push: is it known, in time, not too large? ─► OTLP ─► series
//! ```
//! No clock, no IO: *now* and bytes come in. Clients choose the names and numbers of what they send, so everything that is kept is
//! bounded: the clients, the series of one client and of all, and the bytes of one push before and after decompression.

mod clients;
mod exposition;
mod otlp;
mod subscription;

pub use clients::{ClientMetrics, Denied, Pushed, Subscribed};
pub use exposition::Series;
pub use subscription::{ClientInfo, PatternError, Subscription};
