//! The same requests to Apache Kafka and to Varve, and where the answers differ.

mod frames;
mod pair;
mod side;
mod tree;

pub use frames::{decode, frame, raw_frame};
pub use pair::{Difference, Pair};
pub use side::{Answer, Side};
