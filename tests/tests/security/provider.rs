//! The keys of an identity provider that speaks HTTPS.

use std::{path::Path, process::Command};

use anyhow::{Context, Result, ensure};
use varve_tests::{
    certificates::Identity,
    node::{eventually, stable_address},
    running::Running,
    tools,
};

use crate::{Secured, program};

/// Serves the files of `folder` over HTTPS; where.
fn provider(folder: &Path, identity: &Identity) -> Result<(Running, String)> {
    // OpenSSL tells no free port that it took.
    let port = stable_address()?.port();
    let mut command = Command::new("openssl");
    command.args(["s_server", "-WWW", "-accept", &format!("127.0.0.1:{port}")]).current_dir(folder);
    command.arg("-key").arg(&identity.key).arg("-cert").arg(&identity.certificate);
    let mut running = Running::start(command, &folder.join("provider.log"))?;
    running.until_it_says("ACCEPT")?;
    Ok((running, format!("https://localhost:{port}")))
}

#[test]
fn tokens_are_checked_by_keys_that_a_trusted_provider_gives_out_over_https() -> Result<()> {
    let mut kept = None;
    let secured = Secured::start_with_keys(|folder, identity, node| {
        let (running, url) = provider(folder, identity)?;
        kept = Some(running);
        node.env("SSL_CERT_FILE", folder.join("ca.pem"));
        Ok(format!("{url}/keys.json"))
    })?;
    eventually("the keys are read", || {
        Ok(secured.node.printed().contains("keys of the identity provider").then_some(()))
    })?;
    let options = secured.options("librdkafka", "SASL_SSL OAUTHBEARER", "by keys over HTTPS")?;
    tools::output_of(program("librdkafka")?.arg(options.to_string()))?;
    drop(kept.context("a provider")?);
    secured.node.stop()
}

#[test]
fn a_provider_that_is_not_trusted_gives_no_keys_and_the_log_says_why() -> Result<()> {
    let mut kept = None;
    let secured = Secured::start_with_keys(|folder, identity, node| {
        let (running, url) = provider(folder, identity)?;
        kept = Some(running);
        node.env("SSL_CERT_FILE", folder.join("other.pem"));
        Ok(format!("{url}/keys.json?secret=hunter2"))
    })?;
    eventually("the log says why", || Ok(secured.node.printed().contains("UnknownIssuer").then_some(())))?;
    ensure!(!secured.node.printed().contains("hunter2"), "the URL's secret is in the log");
    let mut options = secured.options("librdkafka", "SASL_SSL OAUTHBEARER", "never")?;
    options["fails"] = true.into();
    let output = program("librdkafka")?.arg(options.to_string()).output()?;
    ensure!(output.status.code() == Some(3), "let in: {}", String::from_utf8_lossy(&output.stdout));
    drop(kept.context("a provider")?);
    secured.node.stop()
}
