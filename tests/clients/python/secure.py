"""One record to a protected listener and back, by librdkafka (confluent-kafka), kafka-python or aiokafka.

Argument: a JSON object with library, bootstrap, topic, value and protocol; ca, certificate and key (files); mechanism, user,
password, token. Ends with 3, and what the library says, where the node does not let it in.
"""

import asyncio
import json
import logging
import sys

import access

LIMIT_SECONDS = 120


def librdkafka(options):
    from confluent_kafka import Consumer, Producer, TopicPartition

    said = []
    config = {
        "bootstrap.servers": options["bootstrap"],
        "error_cb": lambda error: said.append(str(error)),
        **access.librdkafka(options),
    }
    producer = Producer({**config, "message.timeout.ms": LIMIT_SECONDS * 1000})
    failed = []
    producer.produce(options["topic"], options["value"], on_delivery=lambda error, _: failed.append(error))
    # It tries for as long as the record lives; what it says first is enough where nobody is to be let in.
    for _ in range(LIMIT_SECONDS * 10):
        if producer.flush(0.1) == 0 or (options.get("fails") and said):
            break
    if failed != [None]:
        raise PermissionError(f"{failed} {said}")
    consumer = Consumer({**config, "group.id": "none", "enable.auto.commit": False})
    consumer.assign([TopicPartition(options["topic"], 0, 0)])
    for _ in range(LIMIT_SECONDS * 10):
        message = consumer.poll(0.1)
        if message is not None and message.error() is None and message.value().decode() == options["value"]:
            consumer.close()
            return
    raise TimeoutError(f"the record does not come back: {said}")


def kafka_python(options):
    from kafka import KafkaConsumer, KafkaProducer, TopicPartition

    config = {"bootstrap_servers": [options["bootstrap"]], **access.kafka_python(options)}
    limit = 20 if options.get("fails") else LIMIT_SECONDS
    producer = KafkaProducer(**config, max_block_ms=limit * 1000, bootstrap_timeout_ms=limit * 1000)
    producer.send(options["topic"], options["value"].encode()).get(limit)
    producer.close()
    consumer = KafkaConsumer(**config, consumer_timeout_ms=LIMIT_SECONDS * 1000)
    partition = TopicPartition(options["topic"], 0)
    consumer.assign([partition])
    consumer.seek(partition, 0)
    for record in consumer:
        if record.value.decode() == options["value"]:
            consumer.close()
            return
    raise TimeoutError("the record does not come back")


async def aiokafka(options):
    from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

    config = {"bootstrap_servers": options["bootstrap"], **access.aiokafka(options)}
    producer = AIOKafkaProducer(**config)
    try:
        await producer.start()
        await producer.send_and_wait(options["topic"], options["value"].encode())
    finally:
        await producer.stop()
    consumer = AIOKafkaConsumer(**config)
    await consumer.start()
    try:
        partition = TopicPartition(options["topic"], 0)
        consumer.assign([partition])
        consumer.seek(partition, 0)
        while (await asyncio.wait_for(consumer.getone(), LIMIT_SECONDS)).value.decode() != options["value"]:
            pass
    finally:
        await consumer.stop()


def main():
    options = json.loads(sys.argv[1])
    logging.basicConfig(level=logging.WARNING, stream=sys.stdout)
    try:
        match options["library"]:
            case "librdkafka":
                librdkafka(options)
            case "kafka-python":
                kafka_python(options)
            case "aiokafka":
                asyncio.run(aiokafka(options))
    except Exception as error:  # noqa: BLE001: whatever a library says is what its user sees
        print(f"{type(error).__name__}: {error}")
        sys.exit(3)


main()
