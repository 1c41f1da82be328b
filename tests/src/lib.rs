//! What black-box tests and benchmarks share: starting the binary, a small wire client, real log lines, outside tools,
//! an S3 server, and a proxy that fails.

pub mod client;
pub mod fault_proxy;
pub mod kafka_tools;
pub mod lines;
pub mod node;
pub mod records;
pub mod s3;
pub mod tools;
