//! Denials, written down: one line each, as long as they do not come by the thousand.
//!
//! The lines have a target of their own, so that they can be sent elsewhere or turned off:
//! `varve.log.level=info,varve_audit=off`, and `varve_audit=debug` shows what is allowed as well.

use std::time::{Duration, Instant};

use parking_lot::Mutex;
use prometheus::{IntCounterVec, Opts};
use tracing::{debug, info};

use super::{Operation, Resource};
use crate::server::RequestContext;

/// Lines per [`WINDOW`]. A client that retries what it may not do must not fill the disk.
const LINES: u32 = 100;
const WINDOW: Duration = Duration::from_secs(1);

/// Counts denials, and logs as many as there is room for.
#[derive(Debug)]
pub(super) struct Audit {
    denied: IntCounterVec,
    lines: Mutex<Lines>,
}

impl Audit {
    pub(super) fn new() -> Audit {
        let opts = Opts::new("varve_authorization_denied_total", "Accesses that were asked for and denied, by API");
        let denied = IntCounterVec::new(opts, &["api"]).expect("name and label are constant and valid");
        Audit { denied, lines: Mutex::default() }
    }

    /// The counter, for the registry.
    pub(super) fn denied(&self) -> IntCounterVec {
        self.denied.clone()
    }

    pub(super) fn allowed(&self, context: &RequestContext, operation: Operation, resource: Resource<'_>) {
        debug!(
            target: "varve_audit",
            principal = %context.principal,
            host = %context.peer.ip().to_canonical(),
            ?operation,
            resource_type = ?resource.resource_type(),
            resource = resource.name(),
            api = ?context.api,
            "allowed"
        );
    }

    pub(super) fn note_denied(&self, context: &RequestContext, operation: Operation, resource: Resource<'_>) {
        self.denied.with_label_values(&[&format!("{:?}", context.api)]).inc();
        let Some(unwritten) = self.lines.lock().take(context.received) else { return };
        if unwritten > 0 {
            info!(target: "varve_audit", unwritten, "more accesses were denied than are logged");
        }
        info!(
            target: "varve_audit",
            principal = %context.principal,
            host = %context.peer.ip().to_canonical(),
            ?operation,
            resource_type = ?resource.resource_type(),
            resource = resource.name(),
            api = ?context.api,
            listener = %context.listener.0,
            client_id = context.client_id(),
            "denied"
        );
    }
}

/// How many lines were written lately.
#[derive(Debug, Default)]
struct Lines {
    begun: Option<Instant>,
    written: u32,
    unwritten: u64,
}

impl Lines {
    /// Room for one more line? Then how many were left out since the last one.
    fn take(&mut self, now: Instant) -> Option<u64> {
        let begun = *self.begun.get_or_insert(now);
        if now.saturating_duration_since(begun) >= WINDOW {
            self.begun = Some(now);
            self.written = 0;
        }
        if self.written == LINES {
            self.unwritten += 1;
            return None;
        }
        self.written += 1;
        Some(std::mem::take(&mut self.unwritten))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_denials_is_cut_off_and_its_size_told_later() {
        let (mut lines, start) = (Lines::default(), Instant::now());
        for _ in 0..LINES {
            assert_eq!(lines.take(start), Some(0));
        }
        for _ in 0..7 {
            assert_eq!(lines.take(start + WINDOW / 2), None);
        }
        assert_eq!(lines.take(start + WINDOW), Some(7));
        assert_eq!(lines.take(start + WINDOW), Some(0));
    }
}
