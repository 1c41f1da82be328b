//! TLS 1.2 and 1.3, by rustls: keys and certificates from PEM and PKCS#12, exchanged while the node runs.

mod client;
mod ec;
mod endpoint;
mod store;

pub use endpoint::{TlsEndpoint, TlsError};
pub use store::StoreError;
