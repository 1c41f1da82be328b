//! What client libraries see of rules: the errors that they know from Kafka, and none once they are allowed.

use std::{fs, path::Path, process::Command};

use anyhow::{Context, Result, ensure};
use varve_metadata::model::acl::Operation::*;
use varve_tests::{kafka_tools::KafkaTools, node::Node, tools};

use crate::broker::{Broker, Resource::*, SETTINGS};

const TOPIC: &str = "logs";
const GROUP: &str = "readers";

/// A node whose caller is whoever connects the usual way; the administrator comes from elsewhere.
fn start(folder: &Path) -> Result<(Node, Broker)> {
    let node = Node::start(folder, &SETTINGS)?;
    let mut broker = Broker::prepare_for_tools(node.address)?;
    crate::clients::create_topic(&mut broker, TOPIC)?;
    Ok((node, broker))
}

/// Everything that a command printed, which must have failed.
fn failure(command: &mut Command) -> Result<String> {
    let output = command.output()?;
    let printed = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(!output.status.success(), "{command:?} succeeded: {printed}");
    Ok(printed)
}

const CONSUME: &str = "kafka-console-consumer.sh --topic logs --group readers --from-beginning --max-messages 1";

#[test]
fn java_clients_get_kafkas_exceptions_until_they_are_allowed() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (node, mut broker) = start(folder.path())?;
    let kafka = KafkaTools::of(&node);
    // The producer ends well whatever happens; what it could not do it prints.
    let produce = |line: &str| -> Result<String> {
        let mut command = Command::new("sh");
        let tool = tools::program("kafka-console-producer.sh")?;
        command.arg("-c").arg(format!(
            "echo {line} | timeout 600 {} --topic {TOPIC} --bootstrap-server {} 2>&1",
            tool.get_program().to_string_lossy(),
            node.address
        ));
        Ok(String::from_utf8_lossy(&command.output()?.stdout).into_owned())
    };
    let printed = produce("one")?;
    ensure!(printed.contains("TopicAuthorizationException: Not authorized to access topics: [logs]"), "{printed}");
    broker.grant(&[(Describe, Topic(TOPIC))])?;
    let printed = produce("two")?;
    ensure!(printed.contains("ClusterAuthorizationException"), "{printed}");
    broker.grant(&[(Write, Topic(TOPIC))])?;
    let printed = produce("three")?;
    ensure!(!printed.contains("Exception"), "{printed}");

    // The consumer says so, and ends well all the same.
    let consume = || -> Result<String> {
        let output = kafka.command(CONSUME)?.output()?;
        Ok(format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr)))
    };
    let refused = consume()?;
    ensure!(
        refused.contains("TopicAuthorizationException") || refused.contains("GroupAuthorizationException"),
        "{refused}"
    );
    broker.grant(&[(Read, Topic(TOPIC))])?;
    let refused = consume()?;
    ensure!(refused.contains("GroupAuthorizationException: Not authorized to access group: readers"), "{refused}");
    broker.grant(&[(Read, Topic(TOPIC)), (Read, Group(GROUP))])?;
    ensure!(kafka.run(CONSUME)? == "three\n", "one record");

    let refused = kafka.refused("kafka-topics.sh --create --topic other")?;
    ensure!(refused.contains("TopicAuthorizationException: Authorization failed."), "{refused}");
    let listed = kafka.run("kafka-topics.sh --list")?;
    ensure!(listed == "logs\n", "{listed}");
    let refused = kafka.refused("kafka-acls.sh --list")?;
    ensure!(refused.contains("ClusterAuthorizationException"), "{refused}");
    ensure!(node.printed().contains("denied principal=User:ANONYMOUS host=127.0.0.1"), "{}", node.printed());
    node.stop()
}

#[test]
fn librdkafka_and_franz_go_get_kafkas_errors_until_they_are_allowed() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (node, mut broker) = start(folder.path())?;
    let (lines, read) = (folder.path().join("lines"), folder.path().join("read"));
    fs::write(&lines, "{\"key\": null, \"value\": \"b25l\", \"headers\": [], \"timestamp\": 1760000000000}\n")?;
    let address = node.address.to_string();
    type Library = (&'static str, fn() -> Result<Command>);
    let libraries: [Library; 2] = [
        ("librdkafka", || {
            let mut command = tools::python("tests/clients/python/client.py")?;
            command.arg("librdkafka");
            Ok(command)
        }),
        ("franz-go", || tools::program("go-client")),
    ];
    for (count, (library, client)) in ["1", "2"].into_iter().zip(libraries) {
        let run = |words: &[&str]| -> Result<Command> {
            let mut command = Command::new("timeout");
            let program = client()?;
            command.arg("600").arg(program.get_program()).args(program.get_args());
            command.args(words).args(["--bootstrap", &address, "--topic", TOPIC]);
            Ok(command)
        };
        let lines = lines.to_str().context("a path of text")?;
        let read = read.to_str().context("a path of text")?;
        let produce = ["produce", "--codec", "none", "--input", lines];
        let consume = ["consume", "--count", count, "--isolation", "read_committed", "--output", read];
        broker.grant(&[])?;
        for words in [&produce[..], &consume[..]] {
            let printed = failure(&mut run(words)?)?;
            let told = printed.to_lowercase().replace('_', " ");
            ensure!(told.contains("authorization failed") || told.contains("not authorized"), "{library}: {printed}");
        }
        broker.grant(&[
            (Write, Topic(TOPIC)),
            (Read, Topic(TOPIC)),
            (IdempotentWrite, Cluster),
            (Read, Group("test-client")),
        ])?;
        for words in [&produce[..], &consume[..]] {
            tools::output_of(&mut run(words)?).with_context(|| library.to_owned())?;
        }
    }
    node.stop()
}
