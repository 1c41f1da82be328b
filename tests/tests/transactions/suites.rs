//! Each client library by itself: its program in tests/clients checks what transactions promise.

use std::process::Command;

use anyhow::{Result, ensure};
use varve_tests::{node::Node, tools};

fn suite(library: &str) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let settings = [
        "group.initial.rebalance.delay.ms=0",
        "transaction.state.log.num.partitions=3",
        "offsets.topic.num.partitions=3",
    ];
    let node = Node::start(folder.path(), &settings)?;
    let address = node.address.to_string();
    let mut command = match library {
        "java" => tools::program("java-Transactions")?,
        "franz-go" | "sarama" => tools::program("go-client")?,
        "node" => {
            let mut command = Command::new("node");
            command.arg(tools::checkout().join("tests/clients/node/transactions.js"));
            command
        }
        library => {
            let mut command = tools::python("tests/clients/python/transactions.py")?;
            command.arg(library);
            command
        }
    };
    match library {
        "franz-go" => command.args(["transactions", "--bootstrap", &address, "--topic", library]),
        "sarama" => command.args(["sarama-transactions", "--bootstrap", &address, "--topic", library]),
        _ => command.args([&address, library]),
    };
    tools::output_of(&mut command)?;
    ensure!(!node.printed().contains("ERROR"), "the node saw nothing wrong:\n{}", node.printed());
    node.stop()
}

#[test]
fn java_is_exactly_once() -> Result<()> {
    suite("java")
}

#[test]
fn librdkafka_is_exactly_once() -> Result<()> {
    suite("librdkafka")
}

#[test]
fn franz_go_is_exactly_once() -> Result<()> {
    suite("franz-go")
}

#[test]
fn sarama_is_exactly_once() -> Result<()> {
    suite("sarama")
}

#[test]
fn kafka_python_is_exactly_once() -> Result<()> {
    suite("kafka-python")
}

#[test]
fn aiokafka_is_exactly_once() -> Result<()> {
    suite("aiokafka")
}

#[test]
fn kafkajs_is_exactly_once() -> Result<()> {
    suite("node")
}
