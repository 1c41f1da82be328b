//! What every handler works on.

use tokio_util::sync::CancellationToken;

/// The node: everything that a request may touch.
#[derive(Debug, Default)]
pub struct Broker {
    /// Cancelled when the node stops; long polls end then.
    pub shutdown: CancellationToken,
}
