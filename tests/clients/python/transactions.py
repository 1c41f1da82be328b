"""Transactions with one library, checked by itself: LIBRARY HOST:PORT PREFIX; see ../README.md.

Libraries: librdkafka (confluent-kafka), kafka-python, aiokafka.
"""

import asyncio
import sys
import time

import access

INPUT = 40
LIMIT_SECONDS = 240


def expect(found, expected, what):
    if found != expected:
        sys.exit(f"{library}: {what}: expected {expected}, found {found}")


class Librdkafka:
    def __init__(self, bootstrap):
        self.settings = {"bootstrap.servers": bootstrap, **access.librdkafka(access.given())}

    def create(self, topics):
        from confluent_kafka.admin import AdminClient, NewTopic

        admin = AdminClient(self.settings)
        futures = admin.create_topics([NewTopic(topic, 1, 1) for topic in topics])
        for future in futures.values():
            future.result(LIMIT_SECONDS)

    def producer(self, transactional_id):
        from confluent_kafka import Producer

        producer = Producer({**self.settings, "transactional.id": transactional_id, "linger.ms": 1})
        producer.init_transactions(LIMIT_SECONDS)
        return producer

    def begin(self, producer):
        producer.begin_transaction()

    def send(self, producer, topic, value):
        producer.produce(topic, value, partition=0)

    def commit(self, producer):
        producer.commit_transaction(LIMIT_SECONDS)

    def abort(self, producer):
        producer.abort_transaction(LIMIT_SECONDS)

    def flush(self, producer):
        producer.flush(LIMIT_SECONDS)

    def close(self, producer):
        del producer

    def consumer(self, topic, group):
        from confluent_kafka import Consumer

        consumer = Consumer({
            **self.settings, "group.id": group, "isolation.level": "read_committed", "enable.auto.commit": False,
            "auto.offset.reset": "earliest", "session.timeout.ms": 30000,
        })
        consumer.subscribe([topic])
        return consumer

    def poll(self, consumer):
        found = [message for message in consumer.consume(7, 0.5) if message.error() is None]
        return [(message.value(), message.offset()) for message in found]

    def send_offset(self, producer, consumer, topic, group, offset):
        from confluent_kafka import TopicPartition

        place = [TopicPartition(topic, 0, offset)]
        producer.send_offsets_to_transaction(place, consumer.consumer_group_metadata(), LIMIT_SECONDS)

    def rewind(self, consumer, topic):
        from confluent_kafka import TopicPartition

        place = consumer.committed([TopicPartition(topic, 0)], LIMIT_SECONDS)[0]
        consumer.seek(TopicPartition(topic, 0, max(place.offset, 0)))

    def committed(self, consumer, topic):
        from confluent_kafka import TopicPartition

        return max(consumer.committed([TopicPartition(topic, 0)], LIMIT_SECONDS)[0].offset, 0)

    def leave(self, consumer):
        consumer.close()

    def fenced(self, work):
        from confluent_kafka import KafkaException

        try:
            work()
        except KafkaException as error:
            return error.args[0].fatal()
        return False


class KafkaPython:
    def __init__(self, bootstrap):
        self.access = {"bootstrap_servers": bootstrap, **access.kafka_python(access.given())}

    def create(self, topics):
        from kafka.admin import KafkaAdminClient, NewTopic

        admin = KafkaAdminClient(**self.access)
        admin.create_topics([NewTopic(topic, 1, 1) for topic in topics])
        admin.close()

    def producer(self, transactional_id):
        from kafka import KafkaProducer

        producer = KafkaProducer(**self.access, transactional_id=transactional_id, linger_ms=1)
        producer.init_transactions()
        return producer

    def begin(self, producer):
        producer.begin_transaction()

    def send(self, producer, topic, value):
        producer.send(topic, value, partition=0)

    def commit(self, producer):
        producer.commit_transaction()

    def abort(self, producer):
        producer.abort_transaction()

    def flush(self, producer):
        producer.flush()

    def close(self, producer):
        producer.close(timeout=0)

    def consumer(self, topic, group):
        from kafka import KafkaConsumer

        return KafkaConsumer(
            topic, **self.access, group_id=group, isolation_level="read_committed",
            enable_auto_commit=False, auto_offset_reset="earliest", session_timeout_ms=30000, max_poll_records=7,
        )

    def poll(self, consumer):
        found = consumer.poll(500)
        return [(record.value, record.offset) for records in found.values() for record in records]

    def send_offset(self, producer, consumer, topic, group, offset):
        from kafka import TopicPartition
        from kafka.structs import OffsetAndMetadata

        place = {TopicPartition(topic, 0): OffsetAndMetadata(offset, "", -1)}
        producer.send_offsets_to_transaction(place, group)

    def rewind(self, consumer, topic):
        from kafka import TopicPartition

        consumer.seek(TopicPartition(topic, 0), self.committed(consumer, topic))

    def committed(self, consumer, topic):
        from kafka import TopicPartition

        return consumer.committed(TopicPartition(topic, 0)) or 0

    def leave(self, consumer):
        consumer.close()

    def fenced(self, work):
        from kafka import errors

        try:
            work()
        except errors.KafkaError:
            return True
        return False


class Aiokafka:
    """The same verbs, each run to its end on one loop."""

    def __init__(self, bootstrap):
        self.access = {"bootstrap_servers": bootstrap, **access.aiokafka(access.given())}
        self.loop = asyncio.new_event_loop()
        asyncio.set_event_loop(self.loop)

    def run(self, work):
        return self.loop.run_until_complete(work)

    def create(self, topics):
        from aiokafka.admin import AIOKafkaAdminClient, NewTopic

        async def work():
            admin = AIOKafkaAdminClient(**self.access)
            await admin.start()
            await admin.create_topics([NewTopic(topic, 1, 1) for topic in topics])
            await admin.close()

        self.run(work())

    def producer(self, transactional_id):
        from aiokafka import AIOKafkaProducer

        async def work():
            producer = AIOKafkaProducer(**self.access, transactional_id=transactional_id)
            await producer.start()
            return producer

        return self.run(work())

    def begin(self, producer):
        self.run(producer.begin_transaction())

    def send(self, producer, topic, value):
        self.run(producer.send(topic, value, partition=0))

    def commit(self, producer):
        self.run(producer.commit_transaction())

    def abort(self, producer):
        self.run(producer.abort_transaction())

    def flush(self, producer):
        self.run(producer.flush())

    def close(self, producer):
        self.run(asyncio.wait([self.loop.create_task(producer.stop())], timeout=1))

    def consumer(self, topic, group):
        from aiokafka import AIOKafkaConsumer

        async def work():
            consumer = AIOKafkaConsumer(
                topic, **self.access, group_id=group, isolation_level="read_committed",
                enable_auto_commit=False, auto_offset_reset="earliest", session_timeout_ms=30000,
            )
            await consumer.start()
            return consumer

        return self.run(work())

    def poll(self, consumer):
        found = self.run(consumer.getmany(timeout_ms=500, max_records=7))
        return [(record.value, record.offset) for records in found.values() for record in records]

    def send_offset(self, producer, consumer, topic, group, offset):
        from aiokafka import TopicPartition

        self.run(producer.send_offsets_to_transaction({TopicPartition(topic, 0): offset}, group))

    def rewind(self, consumer, topic):
        from aiokafka import TopicPartition

        consumer.seek(TopicPartition(topic, 0), self.committed(consumer, topic))

    def committed(self, consumer, topic):
        from aiokafka import TopicPartition

        return self.run(consumer.committed(TopicPartition(topic, 0))) or 0

    def leave(self, consumer):
        self.run(consumer.stop())

    def fenced(self, work):
        from aiokafka import errors

        try:
            work()
        except errors.KafkaError:
            return True
        return False


def read(kafka, topic, group, count):
    """That many committed records from the start, and whether others came with them."""
    consumer = kafka.consumer(topic, group)
    values = []
    limit = time.monotonic() + LIMIT_SECONDS
    while time.monotonic() < limit and len(values) < count:
        values += [value for value, _ in kafka.poll(consumer)]
    values += [value for value, _ in kafka.poll(consumer)]
    kafka.leave(consumer)
    return values


def commit_and_abort(kafka, topic, prefix):
    expected = []
    producer = kafka.producer(f"{prefix}-commit")
    for transaction in range(6):
        values = [f"{transaction}-{record}".encode() for record in range(3)]
        kafka.begin(producer)
        for value in values:
            kafka.send(producer, topic, value)
        if transaction % 3 == 1:
            kafka.flush(producer)
            kafka.abort(producer)
        else:
            kafka.commit(producer)
            expected += values
    kafka.close(producer)
    expect(read(kafka, topic, f"{prefix}-readers", len(expected)), expected, "what was committed, in order")
    return expected


def fence(kafka, topic, prefix, before):
    first = kafka.producer(f"{prefix}-fence")
    kafka.begin(first)
    kafka.send(first, topic, b"fenced")
    kafka.flush(first)
    second = kafka.producer(f"{prefix}-fence")
    expect(kafka.fenced(lambda: kafka.commit(first)), True, "the older producer is fenced")
    kafka.begin(second)
    kafka.send(second, topic, b"after")
    kafka.commit(second)
    kafka.close(second)
    expect(read(kafka, topic, f"{prefix}-later", len(before) + 1), before + [b"after"], "nothing of the fenced one")


def transform(kafka, source, target, prefix):
    writer = kafka.producer(f"{prefix}-writer")
    kafka.begin(writer)
    for number in range(INPUT):
        kafka.send(writer, source, str(number).encode())
    kafka.commit(writer)
    kafka.close(writer)
    group = f"{prefix}-group"
    consumer = kafka.consumer(source, group)
    producer = kafka.producer(f"{prefix}-transform")
    limit = time.monotonic() + LIMIT_SECONDS
    rounds = 0
    while kafka.committed(consumer, source) < INPUT and time.monotonic() < limit:
        found = kafka.poll(consumer)
        if not found:
            continue
        kafka.begin(producer)
        for value, _ in found:
            kafka.send(producer, target, b"<" + value + b">")
        kafka.send_offset(producer, consumer, source, group, found[-1][1] + 1)
        if rounds == 1:
            kafka.flush(producer)
            kafka.abort(producer)
            kafka.rewind(consumer, source)
        else:
            kafka.commit(producer)
        rounds += 1
    kafka.leave(consumer)
    kafka.close(producer)
    expected = [f"<{number}>".encode() for number in range(INPUT)]
    expect(read(kafka, target, f"{prefix}-after", INPUT), expected, "each once, in order")


def main():
    global library
    library, bootstrap, prefix = sys.argv[1:]
    kafka = {"librdkafka": Librdkafka, "kafka-python": KafkaPython, "aiokafka": Aiokafka}[library](bootstrap)
    main_topic, source, target = f"{prefix}-txn", f"{prefix}-txn-in", f"{prefix}-txn-out"
    kafka.create([main_topic, source, target])
    before = commit_and_abort(kafka, main_topic, prefix)
    fence(kafka, main_topic, prefix, before)
    transform(kafka, source, target, prefix)


main()
