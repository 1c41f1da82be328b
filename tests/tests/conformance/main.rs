//! The same scripted requests to Apache Kafka 4.3 and to Varve: valid ones, boundaries, and nonsense, in every version.
//! The answers must agree in every field, but for what [`ALLOWED`] names (docs/compatibility.md says why).

mod configs;
mod data;
mod fetch;
mod frames;
mod groups;
mod members;
mod newest;
mod request;
mod topics;

use std::collections::BTreeMap;

use anyhow::{Result, ensure};
use varve_tests::{
    differential::{Difference, Pair},
    kafka::Kafka,
    node::Node,
    tools,
};

/// What both brokers are told.
const BOTH: [&str; 6] = [
    // The scripts' records are of a fixed day.
    "log.retention.ms=-1",
    "group.initial.rebalance.delay.ms=0",
    "offsets.topic.num.partitions=1",
    "offsets.topic.replication.factor=1",
    "transaction.state.log.replication.factor=1",
    "transaction.state.log.min.isr=1",
];

/// Differences that are meant: the beginning of a request's name, a part of the line that tells the difference, and why.
/// docs/compatibility.md says the same to users.
const ALLOWED: &[(&str, &str, &str)] = &[
    ("api-versions", "_features", "only the feature whose requests are served is finalised"),
    ("", "[\"varve.", "settings of our own"),
    ("", "[\"remote.storage.enable\"].value", "every topic is archived"),
    (
        "",
        "[\"min.insync.replicas\"].config_source: Kafka 3",
        "Kafka pins it when it formats for eligible leader replicas",
    ),
    ("metadata-creates", "", "an automatically created topic is in the very answer, not only in the next"),
    ("produce-codec-lies", "", "records are not decompressed on their way in"),
    ("produce-codec-zstd-lies", "", "records are not decompressed on their way in"),
    ("produce-log-append-time", "", "a producer that claims the broker's clock is refused"),
    ("transactional-", "", "there are no transactions yet"),
    ("list-offsets--6", "", "every topic is archived"),
    ("list-offsets-empty--6", "", "every topic is archived"),
    ("describe-log-dirs-", ".results[\"<archive>\"]", "the archive is told as one more directory"),
    ("fetch-replica", ".node_endpoints", "a stray replica is told who leads"),
    ("describe-configs-32-", "share.", "share groups are not served"),
    ("describe-configs-32-", "streams.", "the streams protocol is not served"),
    ("describe-configs-topic-synonyms", "[\"remote.storage.enable\"]", "every topic is archived"),
    ("describe-configs-topic-synonyms", "[\"min.insync.replicas\"]", "see above"),
    ("describe-configs-broker-1", "[\"background.threads\"].read_only", "threads are not configured"),
    ("describe-configs-broker-1", "[\"node.id\"].synonyms", "node.id has a default here"),
    ("fetch-session-errs", "", "partitions are answered in the order of the session"),
    ("incremental-alter-broker-default", "", "log.cleaner.backoff.ms takes effect at the next start"),
    ("incremental-alter-broker-unknown", "", "a name that nobody knows is refused"),
    ("incremental-alter-group", "", "settings of groups belong to protocols that are not served"),
    ("incremental-alter-metrics", "", "clients push no metrics"),
    ("incremental-alter-local-larger", "", "every topic is archived"),
    ("list-groups", "[\"g\"]", "a refused member leaves no group behind"),
    ("share-find-coordinators", "", "share groups are not served"),
    ("text-no-utf8", "", "text that is no UTF-8 is refused, not mended"),
];

/// Kafka collects these answers in hash maps: their order means nothing.
const UNORDERED: &[&str] =
    &["create-", "join-", "delete-", "metadata-", "produce-", "describe-", "alter-", "incremental-", "list-", "fetch-"];

type Script = fn(&mut Pair) -> Result<()>;

#[test]
fn varve_answers_as_apache_kafka_does() -> Result<()> {
    let (kafkas, varves) = (tempfile::tempdir()?, tempfile::tempdir()?);
    let kafka = Kafka::start(kafkas.path(), &BOTH)?;
    let varve = Node::start(varves.path(), &[&BOTH[..], &["node.id=1"]].concat())?;
    let mut pair = Pair::new(kafka.address, varve.address);
    let only = std::env::var("VARVE_CONFORMANCE_ONLY").unwrap_or_default();
    let scripts: [(&str, Script); 7] = [
        ("frames", frames::script),
        ("topics", topics::script),
        ("data", data::script),
        ("configs", configs::script),
        ("groups", groups::script),
        ("members", members::script),
        ("newest", newest::script),
    ];
    for (name, script) in scripts {
        if name.contains(&only) {
            let asked = pair.asked;
            if let Err(error) = script(&mut pair) {
                let lines = vec![format!("the script ended after {} requests: {error:?}", pair.asked - asked)];
                pair.differences.push(Difference { name: name.to_owned(), version: None, lines });
            }
        }
    }
    let mut found = pair.differences;
    let idle = take_allowed(&mut found);
    eprintln!("{} requests", pair.asked);
    ensure!(found.is_empty(), "{} answers differ\n{}", found.len(), listed(&found));
    // An entry that nothing needs would hide the next bug of that name.
    ensure!(idle.is_empty() || !only.is_empty(), "differences that are allowed, but are none: {idle:#?}");
    Ok(())
}

/// Removes what [`ALLOWED`] names; returns the entries that removed nothing.
fn take_allowed(found: &mut Vec<Difference>) -> Vec<(&'static str, &'static str)> {
    let mut used = vec![false; ALLOWED.len()];
    for difference in found.iter_mut() {
        let name = &difference.name;
        difference.lines.retain(|line| {
            if line.starts_with("in another order") && UNORDERED.iter().any(|part| name.starts_with(part)) {
                return false;
            }
            let mut is_allowed = false;
            for ((start, part, _), used) in ALLOWED.iter().zip(&mut used) {
                let fits = name.starts_with(start) && line.contains(part);
                *used |= fits;
                is_allowed |= fits;
            }
            !is_allowed
        });
    }
    found.retain(|difference| !difference.lines.is_empty());
    ALLOWED.iter().zip(used).filter(|(_, used)| !used).map(|((start, part, _), _)| (*start, *part)).collect()
}

/// The differences, one paragraph for all versions in which they are the same.
fn listed(found: &[Difference]) -> String {
    let mut versions: BTreeMap<(&str, &[String]), Vec<i16>> = BTreeMap::new();
    for difference in found {
        versions.entry((&difference.name, &difference.lines)).or_default().extend(difference.version);
    }
    let paragraphs = versions.iter().map(|((name, lines), versions)| {
        let lines = lines.iter().map(|line| line.chars().take(700).collect::<String>());
        format!("{name} {versions:?}\n    {}", lines.collect::<Vec<_>>().join("\n    "))
    });
    paragraphs.collect::<Vec<_>>().join("\n")
}

#[test]
fn a_java_producer_with_a_transactional_id_is_told_at_once_what_is_missing() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let varve = Node::start(folder.path(), &[])?;
    let mut produce = tools::program("kafka-producer-perf-test.sh")?;
    produce.args(["--topic", "t", "--num-records", "1", "--record-size", "1", "--throughput", "1"]);
    produce.args(["--transactional-id", "t", "--transaction-duration-ms", "1000"]);
    produce.args(["--command-property", &format!("bootstrap.servers={}", varve.address)]);
    // A client that retried would end too, but with a timeout.
    let failure = tools::output_of(&mut produce).err().map(|error| error.to_string()).unwrap_or_default();
    ensure!(failure.contains("transactions are not served by this version of Varve"), "{failure}");
    varve.stop()
}
