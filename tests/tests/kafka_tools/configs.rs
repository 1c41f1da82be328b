//! `kafka-configs.sh`.

use anyhow::{Result, ensure};
use varve_tests::{client::Client, kafka_tools::KafkaTools, node::Node};

/// The settings in what `--describe` printed: `name=value` each.
fn settings(described: &str) -> Vec<&str> {
    described
        .lines()
        .filter_map(|line| line.strip_prefix("  "))
        .map(|line| line.split(" sensitive=").next().unwrap_or(line))
        .collect()
}

#[test]
fn settings_of_a_topic_are_described_set_and_taken_back() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let node = Node::start(folder.path(), &["log.segment.bytes=3145728"])?;
    let kafka = KafkaTools::of(&node);
    Client::connect(node.address)?.create_topic("orders", 1, &[("segment.bytes", "2097152")])?;
    let of_topic = "--entity-type topics --entity-name orders";

    let described = kafka.run(&format!("kafka-configs.sh --describe {of_topic}"))?;
    ensure!(described.starts_with("Dynamic configs for topic orders are:\n"), "{described}");
    ensure!(settings(&described) == ["segment.bytes=2097152"], "{described}");
    let layers = "synonyms={DYNAMIC_TOPIC_CONFIG:segment.bytes=2097152, \
                  STATIC_BROKER_CONFIG:log.segment.bytes=3145728, DEFAULT_CONFIG:log.segment.bytes=1073741824}";
    ensure!(described.contains(layers), "{described}");

    let altered = kafka.run(&format!(
        "kafka-configs.sh --alter {of_topic} --add-config retention.ms=1000000,cleanup.policy=[compact,delete]"
    ))?;
    ensure!(altered == "Completed updating config for topic orders.\n", "{altered}");
    kafka.run(&format!("kafka-configs.sh --alter {of_topic} --delete-config segment.bytes"))?;
    let described = kafka.run(&format!("kafka-configs.sh --describe {of_topic}"))?;
    let mut found = settings(&described);
    found.sort_unstable();
    ensure!(found == ["cleanup.policy=compact,delete", "retention.ms=1000000"], "{described}");

    let all = kafka.run(&format!("kafka-configs.sh --describe --all {of_topic}"))?;
    let names = settings(&all);
    for wanted in ["max.message.bytes=1048588", "segment.bytes=3145728", "varve.archive.format=parquet"] {
        ensure!(names.contains(&wanted), "{wanted} is missing:\n{all}");
    }
    node.stop()
}

#[test]
fn settings_that_do_not_exist_or_cannot_be_are_refused() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let node = Node::start(folder.path(), &[])?;
    let kafka = KafkaTools::of(&node);
    Client::connect(node.address)?.create_topic("orders", 1, &[])?;
    let topic = "--entity-type topics --entity-name orders --add-config";
    let cases = [
        (
            format!("{topic} retention.millis=5"),
            "InvalidConfigurationException: Unknown topic config name: retention.millis (did you mean retention.ms?)",
        ),
        (
            format!("{topic} min.insync.replicas=0"),
            "InvalidConfigurationException: Invalid value 0 for configuration min.insync.replicas: Value must be",
        ),
        (
            format!("{topic} compression.type=brotli"),
            "InvalidConfigurationException: Invalid value brotli for configuration compression.type: ",
        ),
        (
            "--entity-type topics --entity-name gone --add-config retention.ms=5".to_owned(),
            "UnknownTopicOrPartitionException: The topic 'gone' does not exist.",
        ),
        (
            "--entity-type brokers --entity-name 1 --add-config log.dirs=/elsewhere".to_owned(),
            "InvalidRequestException: Cannot update these configs dynamically: [log.dirs]",
        ),
    ];
    for (arguments, wanted) in cases {
        let printed = kafka.refused(&format!("kafka-configs.sh --alter {arguments}"))?;
        ensure!(printed.contains(wanted), "{arguments}: wanted {wanted:?}, found\n{printed}");
    }
    node.stop()
}

#[test]
fn a_brokers_settings_are_described_and_the_dynamic_ones_changed_for_every_topic() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let node = Node::start(folder.path(), &["num.partitions=7"])?;
    let kafka = KafkaTools::of(&node);
    Client::connect(node.address)?.create_topic("orders", 1, &[])?;

    let all = kafka.run("kafka-configs.sh --describe --all --entity-type brokers --entity-name 1")?;
    let partitions = "num.partitions=7 sensitive=false \
                      synonyms={STATIC_BROKER_CONFIG:num.partitions=7, DEFAULT_CONFIG:num.partitions=1}";
    ensure!(all.contains(partitions), "{all}");
    for wanted in ["log.segment.bytes=1073741824", "node.id=1", "varve.roles=broker,tiering,compactor"] {
        ensure!(settings(&all).contains(&wanted), "{wanted} is missing:\n{all}");
    }

    let altered = kafka
        .run("kafka-configs.sh --alter --entity-type brokers --entity-default --add-config log.retention.ms=500000")?;
    ensure!(altered == "Completed updating default config for brokers in the cluster.\n", "{altered}");
    let described = kafka.run("kafka-configs.sh --describe --entity-type brokers --entity-default")?;
    ensure!(settings(&described) == ["log.retention.ms=500000"], "{described}");
    let topic = kafka.run("kafka-configs.sh --describe --all --entity-type topics --entity-name orders")?;
    ensure!(settings(&topic).contains(&"retention.ms=500000"), "{topic}");

    kafka.run(
        "kafka-configs.sh --alter --entity-type broker-loggers --entity-name 1 --add-config varve_tiering=DEBUG",
    )?;
    let loggers = kafka.run("kafka-configs.sh --describe --entity-type broker-loggers --entity-name 1")?;
    ensure!(settings(&loggers).contains(&"varve_tiering=DEBUG"), "{loggers}");
    node.stop()
}
