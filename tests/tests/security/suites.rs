//! Libraries through everything that they do, at listeners that do not let everybody in: the suites of `clients.rs` and those of
//! `transactions.rs`, which have groups in them.

use std::{fs, process::Command};

use anyhow::{Context, Result, ensure};
use varve_tests::tools;

use crate::{PASSWORDS, Secured, scram};

/// What each library is tried with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Suite {
    Data,
    Transactions,
}

impl Suite {
    fn of(self, library: &str, address: &str, prefix: &str) -> Result<Command> {
        let is_data = self == Suite::Data;
        let mut command = match library {
            "franz-go" | "sarama" => {
                let verb = match (library, self) {
                    ("sarama", Suite::Data) => "sarama-suite",
                    ("sarama", Suite::Transactions) => "sarama-transactions",
                    (_, Suite::Data) => "suite",
                    (_, Suite::Transactions) => "transactions",
                };
                let mut command = tools::program("go-client")?;
                command.args([verb, "--bootstrap", address, "--topic", prefix]);
                return Ok(command);
            }
            "java" => tools::program(if is_data { "java-Suite" } else { "java-Transactions" })?,
            "kafkajs" => {
                let script = if is_data { "suite.js" } else { "transactions.js" };
                let mut command = Command::new("node");
                command.arg(tools::checkout().join("tests/clients/node").join(script));
                command
            }
            library => {
                let script = if is_data { "suite.py" } else { "transactions.py" };
                let mut command = tools::python(&format!("tests/clients/python/{script}"))?;
                command.arg(library);
                command
            }
        };
        command.args([address, prefix]);
        Ok(command)
    }
}

fn nothing_went_wrong(secured: Secured) -> Result<()> {
    let printed = secured.node.printed();
    ensure!(!printed.contains("ERROR"), "the node saw nothing wrong:\n{printed}");
    secured.node.stop()
}

#[test]
fn java_passes_its_suites_by_certificate_and_by_scram_inside_of_tls() -> Result<()> {
    let secured = Secured::start()?;
    let identity = secured.alice.both.display();
    let by_certificate = format!("security.protocol=SSL\nssl.keystore.type=PEM\nssl.keystore.location={identity}\n");
    for (listener, settings) in [("SSL", by_certificate), ("SASL_SSL", scram("alice", PASSWORDS[1], ""))] {
        let file = secured.folder.path().join(format!("{listener}.properties"));
        let trust = secured.authority.certificate.display();
        fs::write(&file, format!("ssl.truststore.type=PEM\nssl.truststore.location={trust}\n{settings}"))?;
        let address = secured.node.listener(listener)?.to_string();
        for suite in [Suite::Data, Suite::Transactions] {
            let mut command = suite.of("java", &address, &listener.to_ascii_lowercase().replace('_', "-"))?;
            tools::output_of(command.env("CLIENT_PROPERTIES", &file))?;
        }
    }
    nothing_went_wrong(secured)
}

/// Runs the suite of `library` by certificate, and its transactions by password.
fn passes_its_suites(library: &str, by_password: &str) -> Result<()> {
    let secured = Secured::start()?;
    for (suite, way) in [(Suite::Data, "mTLS"), (Suite::Transactions, by_password)] {
        let options = secured.options(library, way, "")?;
        let address = options["bootstrap"].as_str().context("an address")?;
        let mut command = suite.of(library, address, library)?;
        let passed = tools::output_of(command.env("CLIENT_ACCESS", options.to_string()));
        passed.with_context(|| format!("{suite:?} of {library} by {way}"))?;
    }
    nothing_went_wrong(secured)
}

#[test]
fn librdkafka_passes_its_suites_inside_of_tls() -> Result<()> {
    passes_its_suites("librdkafka", "SASL_SSL SCRAM-SHA-512")
}

#[test]
fn kafka_python_passes_its_suites_inside_of_tls() -> Result<()> {
    passes_its_suites("kafka-python", "SASL_SSL SCRAM-SHA-512")
}

#[test]
fn aiokafka_passes_its_suites_inside_of_tls() -> Result<()> {
    passes_its_suites("aiokafka", "SASL_SSL SCRAM-SHA-256")
}

#[test]
fn kafkajs_passes_its_suites_inside_of_tls() -> Result<()> {
    passes_its_suites("kafkajs", "SASL_SSL SCRAM-SHA-512")
}

#[test]
fn franz_go_passes_its_suites_inside_of_tls() -> Result<()> {
    passes_its_suites("franz-go", "SASL_SSL SCRAM-SHA-256")
}

/// Whoever uses sarama brings an implementation of SCRAM.
#[test]
fn sarama_passes_its_suites_inside_of_tls() -> Result<()> {
    passes_its_suites("sarama", "SASL_SSL PLAIN")
}
