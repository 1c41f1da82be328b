//! The quota on changes of cluster state (KIP-599), in the requests that make and delete partitions.

use std::time::Duration;

use kafka_protocol::error::ResponseError;

use crate::server::{Broker, RequestContext};

/// What one request changes, held against its client.
pub(super) struct Mutations<'a> {
    broker: &'a Broker,
    context: &'a RequestContext,
    /// Clients of earlier versions do not know that they were refused: they are only slowed down.
    strict: bool,
    wait: Duration,
}

impl<'a> Mutations<'a> {
    /// Nothing changed yet. Requests of `strict_since` and later versions can be refused.
    pub(super) fn of(broker: &'a Broker, context: &'a RequestContext, strict_since: i16) -> Mutations<'a> {
        Mutations { broker, context, strict: context.api_version >= strict_since, wait: Duration::ZERO }
    }

    /// Whether anybody has such a quota.
    pub(super) fn are_counted(&self) -> bool {
        self.broker.quotas.clients.mutation.is_set()
    }

    /// `partitions` are to be made or deleted.
    ///
    /// # Errors
    /// THROTTLING_QUOTA_EXCEEDED and its text: they must not be.
    pub(super) fn allow(&mut self, partitions: usize) -> Result<(), (ResponseError, String)> {
        let outcome = self.broker.quotas.note_mutation(self.context, partitions, self.strict);
        let (Ok(wait) | Err(wait)) = outcome;
        self.wait = self.wait.max(wait);
        let message = || "The throttling quota has been exceeded.".to_owned();
        outcome.map(drop).map_err(|_| (ResponseError::ThrottlingQuotaExceeded, message()))
    }

    /// How long the client is to wait, in milliseconds, as its answer says.
    pub(super) fn throttle_time_ms(&self) -> i32 {
        self.wait.as_millis() as i32
    }
}
