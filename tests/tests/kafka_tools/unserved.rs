//! What is not served is not advertised: tools that need it say so at once.

use anyhow::{Result, ensure};
use varve_tests::{client::Client, kafka_tools::KafkaTools, node::Node};

#[test]
fn tools_for_requests_that_are_not_served_say_so_and_end() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let node = Node::start(folder.path(), &[])?;
    let kafka = KafkaTools::of(&node);
    Client::connect(node.address)?.create_topic("orders", 1, &[])?;
    let printed = kafka.refused("kafka-acls.sh --list")?;
    ensure!(printed.contains("SecurityDisabledException"), "nobody asked for rules:\n{printed}");
    node.stop()
}

#[test]
fn the_versions_of_what_is_served_are_shown_as_usable() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let node = Node::start(folder.path(), &[])?;
    let printed = KafkaTools::of(&node).run("kafka-broker-api-versions.sh")?;
    ensure!(printed.starts_with(&format!("{} (id: 1 rack: null isFenced: false) -> (", node.address)), "{printed}");
    for wanted in [
        "Produce(0): 0 to 13 [usable: 13]",
        "Fetch(1): 4 to 18 [usable: 18]",
        "ListOffsets(2): 1 to 11 [usable: 11]",
        "Metadata(3): 0 to 13 [usable: 13]",
        "DescribeTopicPartitions(75): 0 [usable: 0]",
        "ConsumerGroupHeartbeat(68): 0 to 1 [usable: 1]",
        "ShareGroupHeartbeat(76): 1 [usable: 1]",
        "ShareFetch(78): 1 to 2 [usable: 2]",
        "StreamsGroupHeartbeat(88): 0 [usable: 0]",
        "StreamsGroupDescribe(89): 0 [usable: 0]",
        "AddRaftVoter(80): UNSUPPORTED",
    ] {
        ensure!(printed.contains(wanted), "{wanted} is missing:\n{printed}");
    }
    node.stop()
}
