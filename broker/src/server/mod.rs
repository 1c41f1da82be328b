//! The binary's runtime: listeners, connections, and one handler per request.
//!
//! ```text
//! listener ─► connection (one task; answers in order) ─► dispatch (one match) ─► handlers::<request> ─► Reply
//! ```
//!
//! A connection reads one frame, has it answered, writes the answer, and only then looks at the next one, as Kafka
//! does: a client may send several requests ahead, they wait in the socket. Memory for requests being read or
//! answered comes out of one budget (`budget`); a reader that is slow to take its answer holds nobody but itself up.

mod answers;
#[cfg(test)]
mod archive_off_test;
#[cfg(test)]
mod archive_test;
#[cfg(test)]
mod archive_transactions_test;
mod authentication;
mod authorizer;
mod auto_create;
mod broker;
mod broker_rules;
mod budget;
#[cfg(test)]
mod cold_test;
mod connection;
#[cfg(test)]
mod consumer_group_test;
#[cfg(test)]
mod data_test;
mod declared;
mod dispatch;
mod fetch_session;
#[cfg(test)]
mod flush_test;
#[cfg(test)]
mod follower_fetch_test;
mod group_coordinator;
#[cfg(test)]
mod group_test;
mod handlers;
#[cfg(test)]
mod isolation_test;
mod listener;
mod listener_rules;
pub(crate) mod live;
mod log_levels;
pub(crate) mod lookup;
mod measured;
pub(crate) mod open_listeners;
#[cfg(test)]
mod own_topics_test;
mod places;
mod producer_ids;
#[cfg(test)]
mod quota_test;
mod quotas;
mod resource_type;
#[cfg(test)]
mod sasl_test;
mod seats;
#[cfg(test)]
mod share_group_test;
mod share_states;
mod shares;
#[cfg(test)]
mod socket_test;
mod streams_topics;
mod telemetry;
#[cfg(test)]
mod telemetry_test;
#[cfg(test)]
pub(crate) mod testing;
mod timed;
#[cfg(test)]
mod tls_test;
#[cfg(test)]
mod topic_settings_test;
mod transaction_coordinator;
#[cfg(test)]
mod transaction_test;
mod transfer;
mod transport;
mod welcome;

pub use authentication::{make_first_users, sweep_tokens};
pub(crate) use auto_create::own_topic;
pub use broker::Broker;
pub(crate) use declared::declare;
pub use group_coordinator::GroupCoordinator;
pub use listener::{Limits, ListenerName, Server};
pub use live::Live;
pub use log_levels::{LogLevel, LogLevels};
pub use open_listeners::ListenError;
pub use quotas::NodeQuotas;
pub use share_states::ShareStates;
pub use shares::Shares;
pub use telemetry::Telemetry;
pub use transaction_coordinator::TransactionCoordinator;

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use kafka_protocol::protocol::StrBytes;
use varve_metadata::model::{Principal, Timestamp};

use crate::{security::SecurityProtocol, wire::key::ApiKey};

/// What a handler may know about the request besides its body.
#[derive(Debug, Clone)]
pub(crate) struct RequestContext {
    /// What is asked.
    pub(crate) api: ApiKey,
    /// Version the client asked for; the answer is written in it.
    pub(crate) api_version: i16,
    /// The client's number for this request.
    pub(crate) correlation_id: i32,
    /// `client.id`. A slice of the request's frame: copy it if it is kept longer than the request.
    pub(crate) client_id: Option<StrBytes>,
    /// Whom the connection has authenticated.
    pub(crate) principal: Principal,
    /// It did so by a delegation token.
    pub(crate) by_token: bool,
    /// What the connection speaks below Kafka's protocol.
    pub(crate) protocol: SecurityProtocol,
    /// Address of the client.
    pub(crate) peer: SocketAddr,
    /// Name of the listener the request came in by: Metadata answers with that listener's addresses.
    pub(crate) listener: ListenerName,
    /// When the last byte of the request was read.
    pub(crate) received: Instant,
    /// Size of the request with its header, in bytes.
    pub(crate) bytes: usize,
    /// What its connection said before.
    pub(crate) connection: Arc<telemetry::Peer>,
}

impl RequestContext {
    /// For what is done in a client's name after its heartbeat was answered: whom and whence is all that counts then.
    pub(crate) fn of_background(principal: Principal, peer: SocketAddr) -> RequestContext {
        RequestContext {
            api: ApiKey::ConsumerGroupHeartbeat,
            api_version: 0,
            correlation_id: 0,
            client_id: None,
            principal,
            protocol: SecurityProtocol::Plaintext,
            peer,
            listener: ListenerName("".into()),
            received: Instant::now(),
            bytes: 0,
            by_token: false,
            connection: Arc::default(),
        }
    }

    /// `client.id`, empty if the client has none.
    pub(crate) fn client_id(&self) -> &str {
        self.client_id.as_deref().unwrap_or_default()
    }
}

/// The wall clock, as records carry it.
pub(crate) fn wall_clock() -> Timestamp {
    let millis = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64);
    Timestamp::from_wire(millis).unwrap_or_default()
}
