//! Kafka's protocol as bytes: frames, request headers, served versions, and the check that a body is what it claims.
//!
//! ```text
//! frame    = length:i32  header  body                                  (length counts header and body)
//! header v1 = api_key:i16 api_version:i16 correlation_id:i32 client_id:nullable string
//! header v2 = header v1, then tagged fields                            (flexible versions, KIP-482)
//! ```
//!
//! A request passes three doors in this order: its length is checked before anything is allocated
//! ([`frame`]), its version is one that [`api`] lists, and its body is walked by [`shape`] before the generated
//! decoder, which trusts the counts it reads, may see it.

pub(crate) mod api;
pub(crate) mod check;
pub(crate) mod fetch_response;
pub(crate) mod frame;
pub(crate) mod key;
pub(crate) mod later;
pub(crate) mod shape;
mod shapes;
