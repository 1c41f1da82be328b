//! Quotas, set and shown by `kafka-configs.sh`, and kept.

use anyhow::{Result, ensure};
use varve_tests::{client::Client, kafka_tools::KafkaTools, node::Node};

#[test]
fn quotas_of_users_clients_and_addresses_are_set_shown_and_taken_back() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let node = Node::start(folder.path(), &[])?;
    let kafka = KafkaTools::of(&node);
    let cases = [
        (
            "--entity-type clients --entity-name app",
            "producer_byte_rate=1048576,consumer_byte_rate=2097152",
            "Completed updating config for client app.\n",
            "Quota configs for client-id 'app' are consumer_byte_rate=2097152.0, producer_byte_rate=1048576.0\n",
        ),
        (
            "--entity-type clients --entity-default",
            "request_percentage=150.5",
            "Completed updating default config for clients in the cluster.\n",
            "Quota configs for the default client-id are request_percentage=150.5\n",
        ),
        (
            "--entity-type users --entity-default",
            "controller_mutation_rate=10",
            "Completed updating default config for users in the cluster.\n",
            "Quota configs for the default user-principal are controller_mutation_rate=10.0\n",
        ),
        (
            "--entity-type users --entity-name clerk --entity-type clients --entity-name app",
            "producer_byte_rate=1024",
            "Completed updating config for user clerk.\n",
            "Quota configs for user-principal 'clerk', client-id 'app' are producer_byte_rate=1024.0\n",
        ),
        (
            "--entity-type ips --entity-name 10.1.2.3",
            "connection_creation_rate=20",
            "Completed updating config for ip 10.1.2.3.\n",
            "Quota configs for ip '10.1.2.3' are connection_creation_rate=20.0\n",
        ),
    ];
    for (entity, quotas, completed, shown) in cases {
        let altered = kafka.run(&format!("kafka-configs.sh --alter {entity} --add-config {quotas}"))?;
        ensure!(altered == completed, "{entity}: {altered}");
        let described = kafka.run(&format!("kafka-configs.sh --describe {entity}"))?;
        ensure!(described == shown, "{entity}: {described}");
    }
    kafka.run("kafka-configs.sh --alter --entity-type clients --entity-name app --delete-config producer_byte_rate")?;
    let described = kafka.run("kafka-configs.sh --describe --entity-type clients --entity-name app")?;
    ensure!(described == "Quota configs for client-id 'app' are consumer_byte_rate=2097152.0\n", "{described}");

    let refused = kafka.refused(
        "kafka-configs.sh --alter --entity-type ips --entity-name 10.1.2.3 --add-config connection_creation_rate=-1",
    )?;
    ensure!(refused.contains("Quota connection_creation_rate must be greater than 0"), "{refused}");
    node.stop()
}

#[test]
fn a_producer_that_kafkas_own_tool_limits_is_slowed_down() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let node = Node::start(folder.path(), &[])?;
    let kafka = KafkaTools::of(&node);
    Client::connect(node.address)?.create_topic("orders", 1, &[])?;
    kafka.run(
        "kafka-configs.sh --alter --entity-type clients --entity-name perf-producer-client \
         --add-config producer_byte_rate=2000",
    )?;
    // The window of ten seconds gives 20 000 bytes at once; this is more than twice that, and would have to take 25 seconds to be
    // slow enough by itself.
    kafka.run(
        "kafka-producer-perf-test.sh --bootstrap-server NODE --topic orders --num-records 50 --record-size 1000 \
         --throughput -1 --command-property batch.size=1000",
    )?;
    let metrics = node.http_get("/metrics")?;
    ensure!(metrics.contains("varve_client_throttled_seconds{client_id=\"perf-producer-client\""), "{metrics}");
    node.stop()
}
