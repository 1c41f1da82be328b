//! Users who log in, each with rights of its own.

use std::{fs, path::PathBuf};

use anyhow::{Result, ensure};
use varve_tests::{kafka_tools::KafkaTools, node::Node};

/// What a tool printed, whatever it thinks of the outcome.
fn printed(kafka: &KafkaTools, line: &str, input: &str) -> Result<String> {
    let file = tempfile::NamedTempFile::new()?;
    fs::write(file.path(), input)?;
    let output = kafka.command(line)?.stdin(fs::File::open(file.path())?).output()?;
    Ok(format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr)))
}

#[test]
fn each_user_may_do_what_its_own_rules_allow() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let node = Node::start(
        folder.path(),
        &[
            "listeners=PLAINTEXT://127.0.0.1:0,SASL_PLAINTEXT://127.0.0.1:0",
            "sasl.enabled.mechanisms=PLAIN",
            "sasl.jaas.config=x.PlainLoginModule required user_alice=\"a-secret\" user_bob=\"b-secret\";",
            "authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            // Whoever is on the machine and does not log in.
            "super.users=User:ANONYMOUS",
            "group.initial.rebalance.delay.ms=0",
        ],
    )?;
    let administrator = KafkaTools::of(&node);
    let users = KafkaTools::at(node.listener("SASL_PLAINTEXT")?);
    administrator.run("kafka-topics.sh --create --topic logs")?;
    administrator.run("kafka-acls.sh --add --allow-principal User:alice --producer --topic logs")?;
    administrator.run("kafka-acls.sh --add --allow-principal User:bob --consumer --topic logs --group readers")?;
    let config = |user: &str| -> Result<PathBuf> {
        let path = folder.path().join(format!("{user}.properties"));
        let login = "org.apache.kafka.common.security.plain.PlainLoginModule required";
        let secret = format!("{}-secret", &user[..1]);
        let text = format!(
            "security.protocol=SASL_PLAINTEXT\nsasl.mechanism=PLAIN\n\
             sasl.jaas.config={login} username=\"{user}\" password=\"{secret}\";\n"
        );
        fs::write(&path, text)?;
        Ok(path)
    };
    let (alice, bob) = (config("alice")?, config("bob")?);
    let produce = |config: &PathBuf, value: &str| {
        printed(&users, &format!("kafka-console-producer.sh --topic logs --command-config {}", config.display()), value)
    };
    let consume = |config: &PathBuf| {
        let line = "kafka-console-consumer.sh --topic logs --group readers --from-beginning --max-messages 1";
        printed(&users, &format!("{line} --timeout-ms 300000 --command-config {}", config.display()), "")
    };
    let denied = produce(&bob, "of bob\n")?;
    // With a producer id, which takes the right to write something.
    ensure!(denied.contains("ClusterAuthorizationException"), "{denied}");
    let taken = produce(&alice, "of alice\n")?;
    ensure!(!taken.contains("Exception"), "{taken}");
    let denied = consume(&alice)?;
    ensure!(denied.contains("AuthorizationException"), "{denied}");
    let read = consume(&bob)?;
    ensure!(read.starts_with("of alice\n"), "{read}");

    let log = node.printed();
    ensure!(
        log.contains("denied principal=User:bob host=127.0.0.1 operation=IdempotentWrite resource_type=Cluster"),
        "{log}"
    );
    ensure!(!log.contains("-secret"), "no password in the log");
    node.stop()
}
