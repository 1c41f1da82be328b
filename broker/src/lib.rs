//! Kafka's protocol and promises, served from the local log and the archive.
