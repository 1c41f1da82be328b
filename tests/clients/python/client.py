"""Test client on librdkafka (confluent-kafka) or kafka-python; see ../README.md. First argument: the library."""

import argparse
import base64
import json
import sys
import threading
import time

IDLE_SECONDS = 300


def decode(text):
    return None if text is None else base64.b64decode(text)


def encode(data):
    return None if data is None else base64.b64encode(data).decode()


def lines(path):
    with open(path) as file:
        for line in file:
            record = json.loads(line)
            headers = [(name, decode(value)) for name, value in record["headers"]]
            yield decode(record["key"]), decode(record["value"]), headers, record["timestamp"]


def produce_librdkafka(options):
    from confluent_kafka import Producer

    errors = []
    acknowledged = 0

    def delivered(error, _message):
        nonlocal acknowledged
        if error is not None:
            errors.append(error)
        else:
            acknowledged += 1

    producer = Producer(
        {
            "bootstrap.servers": options.bootstrap,
            "enable.idempotence": True,
            "compression.type": options.codec,
            "linger.ms": 5,
        }
    )
    sent = 0
    for key, value, headers, timestamp in lines(options.input):
        while True:
            try:
                producer.produce(
                    options.topic, value=value, key=key, headers=headers, timestamp=timestamp, on_delivery=delivered
                )
                break
            except BufferError:
                producer.poll(0.1)
        sent += 1
        producer.poll(0)
    producer.flush(IDLE_SECONDS)
    return sent, acknowledged, errors


def produce_kafka_python(options):
    from kafka import KafkaProducer

    producer = KafkaProducer(
        bootstrap_servers=options.bootstrap,
        bootstrap_timeout_ms=IDLE_SECONDS * 1000,
        acks="all",
        compression_type=None if options.codec == "none" else options.codec,
        linger_ms=5,
    )
    futures = [
        producer.send(options.topic, key=key, value=value, headers=headers, timestamp_ms=timestamp)
        for key, value, headers, timestamp in lines(options.input)
    ]
    producer.flush(IDLE_SECONDS)
    errors = [future.exception for future in futures if future.failed()]
    acknowledged = sum(1 for future in futures if future.succeeded())
    producer.close()
    return len(futures), acknowledged, errors


def consume_librdkafka(options, write):
    from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition

    consumer = Consumer(
        {
            "bootstrap.servers": options.bootstrap,
            "group.id": "test-client",
            "enable.auto.commit": False,
            "isolation.level": options.isolation,
            "check.crcs": True,
            "auto.offset.reset": "error",
        }
    )
    partitions = consumer.list_topics(options.topic, timeout=IDLE_SECONDS).topics[options.topic].partitions
    consumer.assign([TopicPartition(options.topic, index, OFFSET_BEGINNING) for index in partitions])
    found = 0
    idle_since = time.monotonic()
    while found < options.count and time.monotonic() - idle_since < IDLE_SECONDS:
        message = consumer.poll(1.0)
        if message is None:
            continue
        if message.error():
            raise SystemExit(f"consume: {message.error()}")
        idle_since = time.monotonic()
        write(
            message.partition(), message.offset(), message.timestamp()[1], message.key(), message.value(),
            message.headers() or [],
        )
        found += 1
    consumer.close()
    return found


def consume_kafka_python(options, write):
    from kafka import KafkaConsumer, TopicPartition

    consumer = KafkaConsumer(
        bootstrap_servers=options.bootstrap,
        bootstrap_timeout_ms=IDLE_SECONDS * 1000,
        enable_auto_commit=False,
        auto_offset_reset="none",
        isolation_level=options.isolation,
        consumer_timeout_ms=IDLE_SECONDS * 1000,
    )
    partitions = [TopicPartition(options.topic, index) for index in consumer.partitions_for_topic(options.topic)]
    consumer.assign(partitions)
    consumer.seek_to_beginning(*partitions)
    found = 0
    for message in consumer:
        write(message.partition, message.offset, message.timestamp, message.key, message.value, message.headers)
        found += 1
        if found >= options.count:
            break
    consumer.close()
    return found


def input_ended():
    ended = threading.Event()

    def wait():
        sys.stdin.read()
        ended.set()

    threading.Thread(target=wait, daemon=True).start()
    return ended


def group_librdkafka(options, write, flush):
    from confluent_kafka import Consumer, KafkaError, KafkaException

    config = {
        "bootstrap.servers": options.bootstrap,
        "group.id": options.group,
        "enable.auto.commit": False,
        "auto.offset.reset": "earliest",
    }
    if options.protocol == "consumer":
        config["group.protocol"] = "consumer"
        if options.assignor:
            config["group.remote.assignor"] = options.assignor
    else:
        config |= {
            "partition.assignment.strategy": "range",
            "session.timeout.ms": 12000,
            "heartbeat.interval.ms": 500,
        }
    if options.instance:
        config["group.instance.id"] = options.instance
    consumer = Consumer(config)
    # A name that begins with ^ is a pattern.
    consumer.subscribe(["^" + options.pattern] if options.pattern else [options.topic])
    lost = (
        KafkaError.REBALANCE_IN_PROGRESS, KafkaError.ILLEGAL_GENERATION, KafkaError.UNKNOWN_MEMBER_ID,
        KafkaError.STALE_MEMBER_EPOCH, KafkaError.FENCED_MEMBER_EPOCH,
    )
    # What clients answer by asking again; librdkafka leaves that to whoever commits.
    for_now = (
        KafkaError._TRANSPORT, KafkaError._TIMED_OUT, KafkaError._WAIT_COORD, KafkaError.NOT_COORDINATOR,
        KafkaError.COORDINATOR_NOT_AVAILABLE, KafkaError.COORDINATOR_LOAD_IN_PROGRESS, KafkaError.REQUEST_TIMED_OUT,
    )
    ended = input_ended()
    while not ended.is_set():
        messages = consumer.consume(100, 0.2)
        for message in messages:
            # librdkafka joins again by itself, and tells of it: a group that takes up the other protocol (KIP-848) turns
            # away whoever waits to join it, and every group whoever was silent for longer than its session.
            if message.error() and message.error().code() in lost:
                continue
            if message.error():
                raise SystemExit(f"group: {message.error()}")
            write(
                message.partition(), message.offset(), message.timestamp()[1], message.key(), message.value(),
                message.headers() or [],
            )
        if messages:
            flush()
            while True:
                try:
                    consumer.commit(asynchronous=False)
                except KafkaException as error:
                    if error.args[0].code() in for_now and not ended.is_set():
                        continue
                    # A rebalance came in between: whoever has the partition now reads these records again.
                    if error.args[0].code() not in (*lost, *for_now, KafkaError._NO_OFFSET):
                        raise
                break
    consumer.close()


def group_kafka_python(options, write, flush):
    from kafka import KafkaConsumer
    from kafka.errors import CommitFailedError, RebalanceInProgressError

    consumer = KafkaConsumer(
        options.topic,
        bootstrap_servers=options.bootstrap,
        bootstrap_timeout_ms=IDLE_SECONDS * 1000,
        group_id=options.group,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        session_timeout_ms=12000,
        heartbeat_interval_ms=500,
    )
    ended = input_ended()
    while not ended.is_set():
        batches = consumer.poll(timeout_ms=200, max_records=100)
        for messages in batches.values():
            for message in messages:
                write(
                    message.partition, message.offset, message.timestamp, message.key, message.value, message.headers,
                )
        if batches:
            flush()
            try:
                consumer.commit()
            except (CommitFailedError, RebalanceInProgressError):
                # A rebalance came in between: whoever has the partition now reads these records again.
                pass
    consumer.close()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("library", choices=["librdkafka", "kafka-python"])
    parser.add_argument("verb", choices=["produce", "consume", "group"])
    parser.add_argument("--bootstrap", required=True)
    parser.add_argument("--topic", required=True)
    parser.add_argument("--codec", default="none")
    parser.add_argument("--input")
    parser.add_argument("--output")
    parser.add_argument("--group")
    parser.add_argument("--count", type=int)
    parser.add_argument("--isolation", default="read_uncommitted")
    parser.add_argument("--protocol", default="classic")
    parser.add_argument("--assignor")
    parser.add_argument("--instance")
    parser.add_argument("--pattern")
    options = parser.parse_args()
    if options.verb == "produce":
        run = produce_librdkafka if options.library == "librdkafka" else produce_kafka_python
        sent, acknowledged, errors = run(options)
        if errors or sent != acknowledged:
            sys.exit(f"produce: {acknowledged} of {sent} acknowledged, errors {errors[:3]}")
        return
    with open(options.output, "w") as output:

        def write(partition, offset, timestamp, key, value, headers):
            record = {
                "partition": partition,
                "offset": offset,
                "timestamp": timestamp,
                "key": encode(key),
                "value": encode(value),
                "headers": [[name, encode(content)] for name, content in headers],
            }
            output.write(json.dumps(record) + "\n")

        if options.verb == "group":
            run = group_librdkafka if options.library == "librdkafka" else group_kafka_python
            run(options, write, output.flush)
            return
        run = consume_librdkafka if options.library == "librdkafka" else consume_kafka_python
        found = run(options, write)
    if found != options.count:
        sys.exit(f"consume: {found} of {options.count} records came")


if __name__ == "__main__":
    main()
