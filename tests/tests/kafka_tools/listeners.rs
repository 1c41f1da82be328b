//! Listeners that `kafka-configs.sh` adds to a running node and takes away, and what is left of them after a restart.

use std::{
    fs,
    net::{SocketAddr, TcpListener, TcpStream},
};

use anyhow::{Context, Result, ensure};
use kafka_protocol::messages::MetadataRequest;
use varve_tests::{
    certificates::Authority,
    client::Client,
    kafka_tools::KafkaTools,
    node::{Node, eventually, stable_address, until},
};

const BROKER: &str = "--entity-type brokers --entity-name 1";

/// Where the one broker is, as those who ask at `address` are told.
fn told(address: SocketAddr) -> Result<SocketAddr> {
    let answer = Client::connect(address)?.ask(9, &MetadataRequest::default())?;
    let broker = answer.brokers.first().context("a broker")?;
    Ok(format!("{}:{}", broker.host.as_str(), broker.port).parse()?)
}

#[test]
fn a_listener_with_tls_is_added_used_and_taken_away_by_kafkas_tool() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let authority = Authority::new(folder.path(), "ca")?;
    let keys = authority.issue("broker", &["127.0.0.1"], false)?.both;
    let settings = folder.path().join("client.properties");
    let trusts = format!("ssl.truststore.type=PEM\nssl.truststore.location={}\n", authority.certificate.display());
    fs::write(&settings, format!("security.protocol=SSL\n{trusts}"))?;
    let node = Node::start(folder.path(), &["node.id=1", "advertised.listeners=PLAINTEXT://127.0.0.1:0"])?;
    let plain = KafkaTools::of(&node);

    let changes = format!(
        "listeners=[PLAINTEXT://127.0.0.1:0,SAFE://127.0.0.1:0],\
         listener.security.protocol.map=[PLAINTEXT:PLAINTEXT,SAFE:SSL],\
         listener.name.safe.ssl.keystore.type=PEM,listener.name.safe.ssl.keystore.location={}",
        keys.display()
    );
    plain.run(&format!("kafka-configs.sh --alter {BROKER} --add-config {changes}"))?;
    let address = node.listener("SAFE")?;
    let safe = KafkaTools::at(address);
    let with_tls = format!("--command-config {}", settings.display());
    safe.run(&format!("kafka-topics.sh --create --topic orders {with_tls}"))?;
    safe.run_with_input(&format!("kafka-console-producer.sh --topic orders {with_tls}"), "one\ntwo\n")?;
    let read = format!("kafka-console-consumer.sh --topic orders --from-beginning --max-messages 2 {with_tls}");
    ensure!(safe.run(&read)? == "one\ntwo\n");
    let described = plain.run(&format!("kafka-configs.sh --describe {BROKER}"))?;
    ensure!(described.contains("listeners=PLAINTEXT://127.0.0.1:0,SAFE://127.0.0.1:0 sensitive=false"), "{described}");

    for (refused, why) in [
        ("--add-config listeners=[SAFE://127.0.0.1:0]", "PLAINTEXT"),
        (
            "--add-config listener.security.protocol.map=[PLAINTEXT:PLAINTEXT,SAFE:PLAINTEXT]",
            "Security protocol cannot be updated for existing listener SAFE",
        ),
    ] {
        let printed = plain.refused(&format!("kafka-configs.sh --alter {BROKER} {refused}"))?;
        ensure!(printed.contains("InvalidRequestException") && printed.contains(why), "{printed}");
    }
    safe.run(&format!("kafka-topics.sh --list {with_tls}"))?;

    plain.run(&format!("kafka-configs.sh --alter {BROKER} --delete-config listeners"))?;
    eventually("nobody listens there any more", || Ok(TcpStream::connect(address).is_err().then_some(())))?;
    ensure!(told(node.address)? == node.address);
    node.stop()
}

#[test]
fn a_listener_outlives_a_restart_and_one_whose_address_is_taken_comes_when_that_is_free() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (own, address) = (stable_address()?, stable_address()?);
    let settings = ["node.id=1", "listener.security.protocol.map=PLAINTEXT:PLAINTEXT,EXTRA:PLAINTEXT"];
    let start = || Node::start_at(folder.path(), own, &settings);
    let node = start()?;
    let changes = format!("listeners=[PLAINTEXT://{own},EXTRA://{address}]");
    KafkaTools::of(&node).run(&format!("kafka-configs.sh --alter {BROKER} --add-config {changes}"))?;
    ensure!(told(address)? == address);
    node.stop()?;

    let node = start()?;
    ensure!(told(node.address)? == own);
    ensure!(told(address)? == address);
    node.stop()?;

    let taken = TcpListener::bind(address)?;
    let node = start()?;
    ensure!(told(node.address)? == own, "a node starts without a listener that the file does not have");
    let printed = node.printed();
    ensure!(printed.contains("a listener that was given while running cannot be opened"), "{printed}");
    drop(taken);
    until("the listener is there", || {
        let told = told(address)?;
        ensure!(told == address, "{told}");
        Ok(())
    })?;
    node.stop()
}
