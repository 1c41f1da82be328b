//! The same requests to Apache Kafka and to Varve, and where the answers differ.

mod pair;
mod tree;

pub use pair::{Answer, Difference, Pair, Side, frame, raw_frame};
