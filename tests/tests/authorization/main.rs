//! Who may do what, held to Apache Kafka: the same table of requests and rights walked against both, and Kafka's
//! `kafka-acls.sh` against ours.
//!
//! `VARVE_AUTHORIZATION_KAFKA=1` walks the table against Apache Kafka as well, which takes a few minutes.

mod administration;
mod answers;
mod broker;
mod clients;
mod coordinated;
mod documented;
mod libraries;
mod matrix;
mod shares;
mod tool;
mod users;

use anyhow::Result;
use varve_tests::{kafka::Kafka, node::Node};

use crate::broker::{Broker, SETTINGS};

#[test]
fn every_request_takes_the_rights_that_kafka_documents_and_no_others() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let node = Node::start(folder.path(), &[&SETTINGS[..], &["node.id=1", "auto.create.topics.enable=true"]].concat())?;
    let mut broker = Broker::prepare(node.address, false)?;
    walk(&mut broker)?;
    node.stop()
}

#[test]
fn apache_kafka_takes_the_same_rights() -> Result<()> {
    if std::env::var_os("VARVE_AUTHORIZATION_KAFKA").is_none() {
        return Ok(());
    }
    let folder = tempfile::tempdir()?;
    let kafka = Kafka::start(folder.path(), &[&SETTINGS[..], &["auto.create.topics.enable=true"]].concat())?;
    let mut broker = Broker::prepare(kafka.address, true)?;
    walk(&mut broker)
}

fn walk(broker: &mut Broker) -> Result<()> {
    let cases: Vec<_> = clients::cases().into_iter().chain(administration::cases()).collect();
    clients::prepare(broker)?;
    matrix::walk(broker, &cases)
}
