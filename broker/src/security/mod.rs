//! Who is at the other end: what a listener asks of those who connect, and whom it takes them for.
//!
//! ```text
//!  accepted socket ─► TLS handshake (tls) ─► SASL exchange (sasl) ─► principal ─► requests
//!                        SSL, SASL_SSL        SASL_PLAINTEXT, SASL_SSL
//! ```
//! The rules are without IO: mapping of certificate names ([`mapping`]), JAAS, the mechanisms and the exchange around them
//! decide on bytes and times that they are given. Sockets are the server's.

mod follow;
mod listener;
pub mod mapping;
mod nonce;
mod pem;
mod protocol;
pub mod sasl;
mod secret;
mod subject;
#[cfg(test)]
pub(crate) mod testing;
pub mod tls;

pub(crate) use follow::chain;
pub use follow::follow_settings;
pub use listener::{ListenerSecurity, SecurityError};
pub(crate) use nonce::nonce;
pub use protocol::SecurityProtocol;
pub use secret::Secret;
pub use subject::{SubjectError, subject_text};
