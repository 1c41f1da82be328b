//! Apache Kafka and Varve side by side.
fn main() {}
