//! What black-box tests and benchmarks share: starting the binary, a small wire client, real log lines, outside tools.

pub mod client;
pub mod lines;
pub mod node;
pub mod records;
pub mod tools;
