//! `kafka-transactions.sh`, and the formatter of `__transaction_state`.

use anyhow::{Result, ensure};
use varve_tests::{
    client::Client,
    kafka_tools::KafkaTools,
    node::{Node, eventually},
    transactions::{Producer, batch},
};

use crate::table;

const QUICK: [&str; 2] = ["transaction.state.log.num.partitions=3", "offsets.topic.num.partitions=3"];

#[test]
fn transactions_are_listed_described_found_hanging_and_aborted() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut settings = QUICK.to_vec();
    // So that a transaction can hang: its first record is written without its coordinator's knowledge.
    settings.push("transaction.partition.verification.enable=false");
    let node = Node::start(folder.path(), &settings)?;
    let kafka = KafkaTools::of(&node);
    let mut client = Client::connect(node.address)?;
    client.create_topic("orders", 2, &[])?;

    let open = client.init_producer("open", 900_000)?;
    client.produce_in_transaction("orders", 0, 12, "open", batch(open, 0, None, "known")?)?;
    let done = client.init_producer("done", 60_000)?;
    client.produce_in_transaction("orders", 1, 12, "done", batch(done, 0, None, "done")?)?;
    client.end_transaction("done", done, true)?;

    let listed = eventually("the transaction that has ended is complete", || {
        let listed = kafka.run("kafka-transactions.sh --bootstrap-server NODE list")?;
        Ok(listed.contains("CompleteCommit").then_some(listed))
    })?;
    let mut rows = table(&listed, "TransactionalId")?;
    rows.sort();
    let id = |producer: Producer| producer.id.to_string();
    let (open_id, done_id) = (id(open), id(done));
    ensure!(rows.len() == 2 && rows[0][0] == "done" && rows[0][3] == "CompleteCommit", "{listed}");
    ensure!(rows[1][0] == "open" && rows[1][2] == open_id && rows[1][3] == "Ongoing", "{listed}");
    let longer = kafka.run("kafka-transactions.sh --bootstrap-server NODE list --duration-filter 3600000")?;
    ensure!(table(&longer, "TransactionalId")?.is_empty(), "nothing has lasted an hour:\n{longer}");
    let matching = kafka.run("kafka-transactions.sh --bootstrap-server NODE list --transactional-id-pattern op.*")?;
    ensure!(table(&matching, "TransactionalId")?.len() == 1, "{matching}");

    let described = kafka.run("kafka-transactions.sh --bootstrap-server NODE describe --transactional-id open")?;
    let row = &table(&described, "CoordinatorId")?[0];
    ensure!(row[1..5] == ["open", &open_id, &open.epoch.to_string(), "Ongoing"], "{described}");
    ensure!(row[5] == "900000" && row.last() == Some(&"orders-0"), "{described}");

    let producers =
        kafka.run("kafka-transactions.sh --bootstrap-server NODE describe-producers --topic orders --partition 0")?;
    let row = &table(&producers, "ProducerId")?[0];
    ensure!(row[..2] == [&open_id, &open.epoch.to_string()] && row.last() == Some(&"0"), "{producers}");

    // A record of an hour ago whose transaction its coordinator does not know.
    let hanging = client.init_producer("hanging", 1000)?;
    client.produce_in_transaction("orders", 1, 9, "hanging", batch(hanging, 0, None, "hangs")?)?;
    let found = eventually("the hanging transaction is found", || {
        let found = kafka.run(
            "kafka-transactions.sh --bootstrap-server NODE find-hanging --topic orders --max-transaction-timeout 0",
        )?;
        let rows = table(&found, "Topic")?;
        let is_found = rows.iter().any(|row| row[0] == "orders" && row[2] == id(hanging));
        Ok(is_found.then(|| found.clone()))
    })?;
    ensure!(!table(&found, "Topic")?.iter().any(|row| row[2] == open_id), "the open one is known:\n{found}");
    kafka.run("kafka-transactions.sh --bootstrap-server NODE abort --topic orders --partition 1 --start-offset 2")?;
    let read = kafka.run(
        "kafka-console-consumer.sh --topic orders --partition 1 --offset earliest --isolation-level read_committed \
         --max-messages 1 --timeout-ms 300000",
    )?;
    ensure!(read == "done\n", "{read}");
    ensure!(done_id != open_id, "each has its own");
    node.stop()
}

#[test]
fn the_log_of_transactions_is_read_by_kafkas_formatter() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let node = Node::start(folder.path(), &["transaction.state.log.num.partitions=1"])?;
    let kafka = KafkaTools::of(&node);
    let mut client = Client::connect(node.address)?;
    client.create_topic("orders", 1, &[])?;
    let producer = client.init_producer("desk", 60_000)?;
    client.produce_in_transaction("orders", 0, 12, "desk", batch(producer, 0, None, "x")?)?;
    client.end_transaction("desk", producer, true)?;
    let printed = kafka.run(
        "kafka-console-consumer.sh --topic __transaction_state --from-beginning --max-messages 4 --timeout-ms 300000 \
         --formatter org.apache.kafka.tools.consumer.TransactionLogMessageFormatter",
    )?;
    // The formatter ends no line.
    let states: Vec<&str> =
        printed.split("{\"key\":").filter(|state| state.contains("\"transactionalId\":\"desk\"")).collect();
    ensure!(states.len() == 4, "{printed}");
    for (line, wanted) in states.iter().zip(["\"transactionStatus\":0", "1", "2", "4"]) {
        ensure!(line.contains(&format!("\"producerId\":{}", producer.id)), "{line}");
        let status = format!("\"transactionStatus\":{}", wanted.trim_start_matches("\"transactionStatus\":"));
        ensure!(line.contains(&status), "{status}: {line}");
    }
    let partitions = "\"transactionPartitions\":[{\"topic\":\"orders\",\"partitionIds\":[0]}]";
    ensure!(states[1].contains(partitions), "{}", states[1]);
    node.stop()
}
