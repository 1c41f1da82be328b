//! Configuration: every name that Kafka and Varve know, and the typed values that come of it.

mod codec;

pub use codec::Codec;
