//! `kafka-acls.sh` against a node, and what clients in Java see of its rules.

use anyhow::{Result, ensure};
use varve_tests::{kafka_tools::KafkaTools, node::Node};

const AUTHORIZER: &str = "authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer";

/// The rules in what the tool printed: `RESOURCE: PRINCIPAL HOST OPERATION PERMISSION`, sorted.
fn rules(printed: &str) -> Vec<String> {
    let mut resource = "";
    let mut rules = Vec::new();
    for line in printed.lines() {
        if let Some(pattern) = line.split('`').nth(1) {
            resource = pattern;
        } else if let Some(entry) = line.trim().strip_prefix('(') {
            let value = |part: &str| part.split_once('=').map_or(part, |(_, value)| value).to_owned();
            let words: Vec<String> = entry.trim_end_matches(')').split(", ").map(value).collect();
            let parts: Vec<String> = resource.trim_end_matches(')').split(", ").map(value).collect();
            rules.push(format!("{}: {}", parts.join(" "), words.join(" ")));
        }
    }
    rules.sort_unstable();
    rules
}

#[test]
fn rules_are_added_listed_and_removed_by_kafkas_tool() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let node = Node::start(folder.path(), &[AUTHORIZER, "super.users=User:ANONYMOUS"])?;
    let kafka = KafkaTools::of(&node);
    let added = kafka.run(
        "kafka-acls.sh --add --allow-principal User:alice --producer --topic logs --transactional-id tx --idempotent",
    )?;
    let producer = [
        "CLUSTER kafka-cluster LITERAL: User:alice * IDEMPOTENT_WRITE ALLOW",
        "TOPIC logs LITERAL: User:alice * CREATE ALLOW",
        "TOPIC logs LITERAL: User:alice * DESCRIBE ALLOW",
        "TOPIC logs LITERAL: User:alice * WRITE ALLOW",
        "TRANSACTIONAL_ID tx LITERAL: User:alice * DESCRIBE ALLOW",
        "TRANSACTIONAL_ID tx LITERAL: User:alice * WRITE ALLOW",
    ];
    ensure!(rules(&added).starts_with(&producer.map(str::to_owned)), "{added}");
    kafka.run(
        "kafka-acls.sh --add --allow-principal User:bob --consumer --topic logs --group readers --allow-host 10.0.0.1",
    )?;
    kafka.run(
        "kafka-acls.sh --add --deny-principal User:* --operation Delete --topic log --resource-pattern-type prefixed",
    )?;
    let listed = kafka.run("kafka-acls.sh --list")?;
    let others = [
        "GROUP readers LITERAL: User:bob 10.0.0.1 READ ALLOW",
        "TOPIC log PREFIXED: User:* * DELETE DENY",
        "TOPIC logs LITERAL: User:bob 10.0.0.1 DESCRIBE ALLOW",
        "TOPIC logs LITERAL: User:bob 10.0.0.1 READ ALLOW",
    ];
    let mut all: Vec<String> = producer.iter().chain(&others).map(|rule| (*rule).to_owned()).collect();
    all.sort_unstable();
    ensure!(rules(&listed) == all, "{listed}");

    let matching = kafka.run("kafka-acls.sh --list --topic logs --resource-pattern-type match")?;
    ensure!(
        rules(&matching) == all.iter().filter(|rule| rule.starts_with("TOPIC")).cloned().collect::<Vec<_>>(),
        "{matching}"
    );
    let of_bob = kafka.run("kafka-acls.sh --list --principal User:bob")?;
    ensure!(rules(&of_bob) == all.iter().filter(|rule| rule.contains("bob")).cloned().collect::<Vec<_>>(), "{of_bob}");

    kafka.run("kafka-acls.sh --remove --force --allow-principal User:alice --producer --topic logs --transactional-id tx --idempotent")?;
    kafka.run("kafka-acls.sh --remove --force --topic log --resource-pattern-type prefixed")?;
    let left = kafka.run("kafka-acls.sh --list")?;
    ensure!(rules(&left) == all.iter().filter(|rule| rule.contains("bob")).cloned().collect::<Vec<_>>(), "{left}");

    let printed = node.http_get("/metrics")?;
    ensure!(printed.contains("varve_acls 3\n"), "{printed}");
    // Rules outlive the node.
    node.stop()?;
    let node = Node::start(folder.path(), &[AUTHORIZER, "super.users=User:ANONYMOUS"])?;
    let kept = KafkaTools::of(&node).run("kafka-acls.sh --list")?;
    ensure!(rules(&kept) == rules(&left), "{kept}");
    node.stop()
}

#[test]
fn without_an_authorizer_the_tool_is_told_so() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let node = Node::start(folder.path(), &[])?;
    let refused = KafkaTools::of(&node).refused("kafka-acls.sh --list")?;
    ensure!(refused.contains("SecurityDisabledException: No Authorizer is configured"), "{refused}");
    node.stop()
}
