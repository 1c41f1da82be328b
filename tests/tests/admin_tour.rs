//! Every method of Kafka's Java Admin (tests/clients/java/AdminTour.java), asked of Apache Kafka and of Varve: the same
//! answers, and errors of the same kind. What Varve does not serve it must say; it is compared from the day that it does.

use std::{collections::BTreeMap, net::SocketAddr};

use anyhow::{Context, Result, ensure};
use varve_tests::{kafka::Kafka, node::Node, tools};

/// What both brokers are told.
const BOTH: [&str; 9] = [
    "group.initial.rebalance.delay.ms=0",
    "group.streams.initial.rebalance.delay.ms=0",
    "offsets.topic.replication.factor=1",
    "offsets.topic.num.partitions=3",
    "transaction.state.log.num.partitions=3",
    "share.coordinator.state.topic.replication.factor=1",
    "share.coordinator.state.topic.min.isr=1",
    "transaction.state.log.replication.factor=1",
    "transaction.state.log.min.isr=1",
];

/// How Varve says that it does not serve something.
const UNSERVED: [&str; 3] = ["UnsupportedVersionException", "which this broker does not serve", "takes no metrics"];

/// Lines that say what became of another one, and are worth as much as that.
const FOLLOWS: [(&str, &str); 6] = [
    ("describeConfigs group", "incrementalAlterConfigs group"),
    ("describeConfigs client metrics", "incrementalAlterConfigs client metrics"),
    ("listConfigResources", "incrementalAlterConfigs group"),
    ("listConfigResources", "incrementalAlterConfigs client metrics"),
    ("listTransactions", "fenceProducers"),
    ("listTransactions fenced", "fenceProducers"),
];

/// Lines that are meant to differ.
const MEANT: [(&str, &str); 1] = [("describeFeatures", "only features whose requests are served are finalised")];

/// What must have worked, and how the answer begins: that both fail alike would not be enough.
const WORKS: [(&str, &str); 7] = [
    ("describeStreamsGroups live", "Stable"),
    ("listStreamsGroupOffsets live", "{tour-0=10}"),
    ("describeStreamsGroups empty", "Empty"),
    ("alterStreamsGroupOffsets", "null"),
    ("listStreamsGroupOffsets altered", "{tour-0=7}"),
    ("listStreamsGroupOffsets deleted", "{}"),
    ("deleteStreamsGroups", "null"),
];

/// What was asked, and the answer, of one broker.
type Answers = BTreeMap<String, String>;

/// The answers of two brokers, which are asked side by side.
fn tour(brokers: [SocketAddr; 2]) -> Result<[Answers; 2]> {
    let mut command = tools::program("java-AdminTour")?;
    let printed = tools::output_of(command.args(brokers.map(|address| address.to_string())))?;
    let mut answers = [Answers::new(), Answers::new()];
    for line in printed.lines() {
        let (asked, answer) = line.split_once(": ").with_context(|| line.to_owned())?;
        let (number, asked) = asked.split_once(' ').with_context(|| line.to_owned())?;
        answers[number.parse::<usize>()?].insert(asked.to_owned(), answer.to_owned());
    }
    Ok(answers)
}

/// An error's kind, or the whole answer: what errors say is compared field by field in `conformance`.
fn essence(answer: &str) -> &str {
    if answer.starts_with("! ") { answer.split(':').next().unwrap_or(answer) } else { answer }
}

#[test]
fn kafkas_admin_client_finds_the_same_on_varve_as_on_apache_kafka() -> Result<()> {
    let (kafkas, varves) = (tempfile::tempdir()?, tempfile::tempdir()?);
    let kafka = Kafka::start(kafkas.path(), &BOTH)?;
    let node = Node::start(varves.path(), &[&BOTH[..], &["node.id=1"]].concat())?;
    let [theirs, ours] = tour([kafka.address, node.address])?;
    ensure!(theirs.keys().eq(ours.keys()), "both were asked the same");
    for (asked, begins) in WORKS {
        let found = &ours[asked];
        ensure!(found.starts_with(begins), "{asked}: {found}");
    }
    let is_unserved = |asked: &str| ours.get(asked).is_some_and(|answer| UNSERVED.iter().any(|no| answer.contains(no)));
    let mut unserved = Vec::new();
    let mut differences = Vec::new();
    for (asked, answer) in &ours {
        let follows = FOLLOWS.iter().filter(|(then, _)| then == asked).any(|(_, first)| is_unserved(first));
        if is_unserved(asked) || follows {
            unserved.push(asked.as_str());
        } else if essence(answer) != essence(&theirs[asked]) && MEANT.iter().all(|(meant, _)| meant != asked) {
            differences.push(format!("{asked}:\n  Kafka {}\n  Varve {answer}", theirs[asked]));
        }
    }
    println!("{} asked, not served: {}", ours.len(), unserved.join(", "));
    ensure!(differences.is_empty(), "{} answers differ\n{}", differences.len(), differences.join("\n"));
    node.stop()
}
