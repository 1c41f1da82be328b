//! What black-box tests and benchmarks share: starting the binary and Apache Kafka, a small wire client, the comparison of
//! both brokers' answers, real log lines, outside tools, an S3 server, AWS's
//! command line and Terraform, and a proxy that fails.

pub mod asked;
pub mod aws;
pub mod certificates;
pub mod client;
pub mod cluster;
pub mod compose;
pub mod cutter;
pub mod differential;
pub mod etcd;
pub mod fault_proxy;
pub mod history;
pub mod identity_provider;
pub mod kafka;
pub mod kafka_tools;
pub mod kcat;
pub mod lines;
pub mod member;
pub mod metadata_service;
pub mod network;
pub mod node;
pub mod pair;
pub mod process_stat;
pub mod records;
pub mod rig;
pub mod running;
pub mod s3;
pub mod streams_groups;
pub mod terraform;
pub mod tools;
pub mod transactions;
pub mod workload;
