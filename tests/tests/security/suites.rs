//! Kafka's Java library through everything that it does, at listeners that do not let everybody in: the suites of `clients.rs` and
//! `transactions.rs`, by certificate and by password.

use std::fs;

use anyhow::{Result, ensure};
use varve_tests::tools;

use crate::{PASSWORDS, Secured, scram};

/// Runs both suites of Java at `listener`, with these settings of a client.
fn suites(secured: &Secured, listener: &str, settings: &str) -> Result<()> {
    let file = secured.folder.path().join(format!("{listener}.properties"));
    let trust = secured.authority.certificate.display();
    fs::write(&file, format!("ssl.truststore.type=PEM\nssl.truststore.location={trust}\n{settings}"))?;
    let address = secured.node.listener(listener)?.to_string();
    for suite in ["java-Suite", "java-Transactions"] {
        let mut command = tools::program(suite)?;
        command.env("CLIENT_PROPERTIES", &file).args([&address, &listener.to_ascii_lowercase().replace('_', "-")]);
        tools::output_of(&mut command)?;
    }
    ensure!(!secured.node.printed().contains("ERROR"), "the node saw nothing wrong:\n{}", secured.node.printed());
    Ok(())
}

#[test]
fn java_passes_its_suites_by_certificate_and_by_scram_inside_of_tls() -> Result<()> {
    let secured = Secured::start()?;
    let identity = secured.alice.both.display();
    let by_certificate = format!("security.protocol=SSL\nssl.keystore.type=PEM\nssl.keystore.location={identity}\n");
    suites(&secured, "SSL", &by_certificate)?;
    suites(&secured, "SASL_SSL", &scram("alice", PASSWORDS[1], ""))?;
    secured.node.stop()
}
