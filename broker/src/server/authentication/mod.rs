//! Who a client says it is, and again: the SASL exchange of a connection, its delays and its counters.

mod credentials;
mod exchange;
mod upkeep;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use varve_metadata::model::Principal;

pub(in crate::server) use credentials::{ClusterCredentials, token_password};
pub(in crate::server) use exchange::{Exchange, Refusal, Turn};

pub use upkeep::{make_first_users, sweep_tokens};

use crate::security::sasl::Mechanism;

/// Whom a connection belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::server) struct Session {
    pub(in crate::server) principal: Principal,
    /// By a delegation token.
    pub(in crate::server) by_token: bool,
    /// How it was found out, if by SASL.
    pub(in crate::server) mechanism: Option<Mechanism>,
    /// When it must be found out again (KIP-368).
    pub(in crate::server) expires: Option<Instant>,
}

impl Session {
    /// Of a connection without SASL.
    pub(in crate::server) fn of(principal: Principal) -> Session {
        Session { principal, by_token: false, mechanism: None, expires: None }
    }

    /// Whether it has to be renewed before anything else is answered.
    pub(in crate::server) fn is_over(&self, now: Instant) -> bool {
        self.expires.is_some_and(|end| end <= now)
    }
}

/// Two times of re-authentication must be that far apart, as in Kafka.
pub(in crate::server) const REAUTHENTICATION_PAUSE: Duration = Duration::from_secs(1);

/// A session as the exchange found it out: how long it lasts is counted from when it is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::server) struct Found {
    pub(in crate::server) principal: Principal,
    pub(in crate::server) by_token: bool,
    pub(in crate::server) mechanism: Mechanism,
    pub(in crate::server) lifetime: Option<Duration>,
}

impl Found {
    /// The session that begins at `now`.
    pub(in crate::server) fn begin(self, now: Instant) -> Arc<Session> {
        // A life beyond what a clock can count never ends.
        let expires = self.lifetime.and_then(|lifetime| now.checked_add(lifetime));
        let (principal, by_token, mechanism) = (self.principal, self.by_token, Some(self.mechanism));
        Arc::new(Session { principal, by_token, mechanism, expires })
    }
}
