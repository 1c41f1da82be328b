"""What one library does with a broker, checked by itself: LIBRARY HOST:PORT PREFIX; see ../README.md.

Libraries: librdkafka (confluent-kafka), kafka-python, aiokafka.
"""

import sys
import time

import access

BASE = int(time.time() * 1000) - 3_600_000
LIMIT_BYTES = 1_048_588
LIMIT_SECONDS = 240


def expect(condition, what):
    if not condition:
        sys.exit(f"{library}: {what}")


def records(codec, acks, first, no_value):
    """Key, value, headers and timestamp of some records of all kinds."""
    name = f"{codec}-{acks}".encode()
    return [
        (b"key", name + b" plain", [("host", b"web-1"), ("level", b"WARN")], first),
        (None, name + b" without a key", [], first + 1),
        (b"tombstone", None, [("reason", no_value)], first + 2),
        (b"", b"", [], first + 3),
        ("kÿ€".encode(), bytes(range(256)) * 20, [("same", b"1"), ("same", b"2"), ("same", b"")], first + 4),
    ]


class Librdkafka:
    codecs = ["none", "gzip", "snappy", "lz4", "zstd"]

    def __init__(self, bootstrap):
        from confluent_kafka.admin import AdminClient

        self.access = {"bootstrap.servers": bootstrap, **access.librdkafka(access.given())}
        self.admin = AdminClient(self.access)

    @staticmethod
    def name_of(error):
        return error.args[0].name() if error.args and hasattr(error.args[0], "name") else repr(error)

    def attempt(self, futures):
        from confluent_kafka import KafkaException

        try:
            for future in futures.values():
                future.result(LIMIT_SECONDS)
        except KafkaException as error:
            return self.name_of(error)

    def create(self, topic, partitions, configs):
        from confluent_kafka.admin import NewTopic

        return self.attempt(self.admin.create_topics([NewTopic(topic, partitions, 1, config=configs)]))

    def delete(self, topic):
        return self.attempt(self.admin.delete_topics([topic]))

    def partitions(self, topic):
        found = self.admin.list_topics(timeout=LIMIT_SECONDS).topics.get(topic)
        return len(found.partitions) if found else None

    def set_config(self, topic, name, value):
        from confluent_kafka.admin import AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType

        entry = ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET)
        resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[entry])
        return self.attempt(self.admin.incremental_alter_configs([resource]))

    def config(self, topic, name):
        from confluent_kafka.admin import ConfigResource, ResourceType

        resource = ConfigResource(ResourceType.TOPIC, topic)
        return self.admin.describe_configs([resource])[resource].result(LIMIT_SECONDS)[name].value

    def produce(self, topic, batch, codec, acks):
        from confluent_kafka import Producer

        config = {"compression.type": codec, "linger.ms": 5, "message.max.bytes": 10_000_000}
        config |= {"enable.idempotence": True} if acks == "idempotent" else {"acks": acks}
        producer = Producer(self.access | config)
        errors = []
        for key, value, headers, timestamp in batch:
            producer.produce(
                topic, value=value, key=key, headers=headers, timestamp=timestamp, partition=0,
                on_delivery=lambda error, _: errors.append(error.name()) if error else None,
            )
        expect(producer.flush(LIMIT_SECONDS) == 0, "everything is delivered")
        return errors[0] if errors else None

    def read(self, topic, offset, count):
        from confluent_kafka import Consumer, TopicPartition

        consumer = Consumer(self.access | {"group.id": "suite", "enable.auto.commit": False, "check.crcs": True})
        place = TopicPartition(topic, 0, offset)
        consumer.assign([place])
        consumer.pause([place])
        expect(consumer.poll(0.5) is None, "a paused partition gives nothing")
        consumer.resume([place])
        found = []
        while len(found) < count:
            message = consumer.poll(LIMIT_SECONDS)
            expect(message is not None and message.error() is None, f"{topic}: {len(found)} of {count} came: {message}")
            found.append((message.key(), message.value(), message.headers() or [], message.timestamp()[1]))
        consumer.close()
        return found

    def offset_at(self, topic, timestamp):
        from confluent_kafka import Consumer, TopicPartition

        consumer = Consumer(self.access | {"group.id": "suite"})
        found = consumer.offsets_for_times([TopicPartition(topic, 0, timestamp)], LIMIT_SECONDS)[0].offset
        consumer.close()
        return None if found < 0 else found

    no_value = None
    too_large = "MSG_SIZE_TOO_LARGE"
    exists = "TOPIC_ALREADY_EXISTS"
    unknown = "UNKNOWN_TOPIC_OR_PART"
    bad_config = "INVALID_CONFIG"
    no_key = "INVALID_RECORD"


class KafkaPython:
    codecs = ["none", "gzip", "snappy", "lz4", "zstd"]

    def __init__(self, bootstrap):
        from kafka import KafkaAdminClient

        self.access = {"bootstrap_servers": bootstrap, **access.kafka_python(access.given())}
        self.admin = KafkaAdminClient(**self.access)

    @staticmethod
    def attempt(work):
        from kafka.errors import KafkaError

        try:
            work()
        except KafkaError as error:
            return type(error).__name__

    def create(self, topic, partitions, configs):
        from kafka.admin import NewTopic

        wanted = NewTopic(topic, partitions, 1, topic_configs=configs)
        return self.attempt(lambda: self.admin.create_topics([wanted]))

    def delete(self, topic):
        return self.attempt(lambda: self.admin.delete_topics([topic]))

    def partitions(self, topic):
        if topic not in self.admin.list_topics():
            return None
        return len(self.admin.describe_topics([topic])[0]["partitions"])

    def resource(self, topic, configs=None):
        from kafka.admin import ConfigResource, ConfigResourceType

        return ConfigResource(ConfigResourceType.TOPIC, topic, configs)

    def set_config(self, topic, name, value):
        return self.attempt(lambda: self.admin.alter_configs([self.resource(topic, {name: value})]))

    def config(self, topic, name):
        return config_in(self.admin.describe_configs([self.resource(topic)]), name)

    def produce(self, topic, batch, codec, acks):
        from kafka import KafkaProducer

        idempotent = acks == "idempotent"
        producer = KafkaProducer(
            **self.access, compression_type=None if codec == "none" else codec, linger_ms=5,
            acks="all" if idempotent or acks == -1 else acks, enable_idempotence=idempotent,
            max_request_size=10_000_000,
        )
        futures = [
            producer.send(topic, key=key, value=value, headers=headers, timestamp_ms=timestamp, partition=0)
            for key, value, headers, timestamp in batch
        ]
        producer.flush(LIMIT_SECONDS)
        producer.close()
        errors = [type(future.exception).__name__ for future in futures if future.failed()]
        return errors[0] if errors else None

    def read(self, topic, offset, count):
        from kafka import KafkaConsumer, TopicPartition

        consumer = KafkaConsumer(**self.access, enable_auto_commit=False, consumer_timeout_ms=LIMIT_SECONDS * 1000)
        place = TopicPartition(topic, 0)
        consumer.assign([place])
        consumer.seek(place, offset)
        consumer.pause(place)
        expect(not consumer.poll(500), "a paused partition gives nothing")
        consumer.resume(place)
        found = []
        for message in consumer:
            found.append((message.key, message.value, list(message.headers), message.timestamp))
            if len(found) == count:
                break
        consumer.close()
        return found

    def offset_at(self, topic, timestamp):
        from kafka import KafkaConsumer, TopicPartition

        consumer = KafkaConsumer(**self.access)
        place = TopicPartition(topic, 0)
        found = consumer.offsets_for_times({place: timestamp})[place]
        consumer.close()
        return found.offset if found else None

    # The library refuses null values of headers.
    no_value = b""
    too_large = "MessageSizeTooLargeError"
    exists = "TopicAlreadyExistsError"
    unknown = "UnknownTopicOrPartitionError"
    bad_config = "InvalidConfigurationError"
    no_key = "InvalidRecordError"


class Aiokafka:
    codecs = ["none", "gzip", "snappy", "lz4", "zstd"]

    def __init__(self, bootstrap):
        import asyncio

        self.access = {"bootstrap_servers": bootstrap, **access.aiokafka(access.given())}
        self.loop = asyncio.new_event_loop()

    def run(self, work):
        return self.loop.run_until_complete(work)

    def with_admin(self, work):
        from aiokafka.admin import AIOKafkaAdminClient

        async def whole():
            admin = AIOKafkaAdminClient(**self.access)
            await admin.start()
            try:
                return await work(admin)
            finally:
                await admin.close()

        return self.run(whole())

    @staticmethod
    def error_in(answer):
        from aiokafka.errors import for_code

        rows = getattr(answer, "topic_errors", None) or getattr(answer, "topic_error_codes", None)
        codes = [row[1] for row in rows if row[1]]
        return for_code(codes[0]).__name__ if codes else None

    def create(self, topic, partitions, configs):
        from aiokafka.admin import NewTopic

        wanted = NewTopic(topic, partitions, 1, topic_configs=configs)
        return self.error_in(self.with_admin(lambda admin: admin.create_topics([wanted])))

    def delete(self, topic):
        return self.error_in(self.with_admin(lambda admin: admin.delete_topics([topic])))

    def partitions(self, topic):
        if topic not in self.with_admin(lambda admin: admin.list_topics()):
            return None
        return len(self.with_admin(lambda admin: admin.describe_topics([topic]))[0]["partitions"])

    def resource(self, topic, configs=None):
        from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

        return ConfigResource(ConfigResourceType.TOPIC, topic, configs)

    def set_config(self, topic, name, value):
        from aiokafka.errors import for_code

        answers = self.with_admin(lambda admin: admin.alter_configs([self.resource(topic, {name: value})]))
        codes = [row[0] for answer in answers for row in answer.resources if row[0]]
        return for_code(codes[0]).__name__ if codes else None

    def config(self, topic, name):
        answers = self.with_admin(lambda admin: admin.describe_configs([self.resource(topic)]))
        return next(row[1] for answer in answers for one in answer.resources for row in one[4] if row[0] == name)

    def produce(self, topic, batch, codec, acks):
        from aiokafka import AIOKafkaProducer
        from aiokafka.errors import KafkaError

        async def whole():
            idempotent = acks == "idempotent"
            producer = AIOKafkaProducer(
                **self.access, compression_type=None if codec == "none" else codec,
                acks="all" if idempotent or acks == -1 else acks, enable_idempotence=idempotent,
                max_request_size=10_000_000,
            )
            await producer.start()
            try:
                for key, value, headers, timestamp in batch:
                    await producer.send_and_wait(
                        topic, key=key, value=value, headers=headers, timestamp_ms=timestamp, partition=0
                    )
            except KafkaError as error:
                return type(error).__name__
            finally:
                await producer.stop()

        return self.run(whole())

    def read(self, topic, offset, count):
        from aiokafka import AIOKafkaConsumer, TopicPartition

        async def whole():
            consumer = AIOKafkaConsumer(**self.access, enable_auto_commit=False)
            await consumer.start()
            place = TopicPartition(topic, 0)
            consumer.assign([place])
            consumer.seek(place, offset)
            consumer.pause(place)
            expect(not await consumer.getmany(timeout_ms=500), "a paused partition gives nothing")
            consumer.resume(place)
            found = []
            while len(found) < count:
                batches = await consumer.getmany(timeout_ms=LIMIT_SECONDS * 1000, max_records=count - len(found))
                expect(batches, f"{topic}: {len(found)} of {count} came")
                for message in batches[place]:
                    found.append((message.key, message.value, list(message.headers), message.timestamp))
            await consumer.stop()
            return found

        return self.run(whole())

    def offset_at(self, topic, timestamp):
        from aiokafka import AIOKafkaConsumer, TopicPartition

        async def whole():
            consumer = AIOKafkaConsumer(**self.access)
            await consumer.start()
            place = TopicPartition(topic, 0)
            found = (await consumer.offsets_for_times({place: timestamp}))[place]
            await consumer.stop()
            return found.offset if found else None

        return self.run(whole())

    no_value = None
    too_large = "MessageSizeTooLargeError"
    exists = "TopicAlreadyExistsError"
    unknown = "UnknownTopicOrPartitionError"
    bad_config = "InvalidConfigurationError"
    # The library does not know code 87.
    no_key = "UnknownError"


def config_in(answer, name):
    """The value of a setting in an answer of nested dicts and lists."""
    if isinstance(answer, dict):
        if name in answer:
            value = answer[name]
            return value["value"] if isinstance(value, dict) else value
        if answer.get("name") == name:
            return answer["value"]
        answer = list(answer.values())
    if isinstance(answer, (list, tuple)):
        return next((found for found in (config_in(one, name) for one in answer) if found is not None), None)


def suite(client, prefix):
    main, compacted, gone, made = (f"{prefix}-{name}" for name in ("main", "compacted", "gone", "made"))
    expect(client.create(main, 2, {"retention.ms": "-1"}) is None, "a topic is created")
    expect(client.create(main, 2, {}) == client.exists, "and not twice")
    expect(client.create(gone, 1, {"retention.ms": "soon"}) == client.bad_config, "nor with a value that cannot be")
    expect(client.partitions(main) == 2, "it has two partitions")
    expect(client.set_config(main, "segment.bytes", "2097152") is None, "a setting is changed")
    expect(client.config(main, "segment.bytes") == "2097152", "and read back")
    expect(client.create(gone, 1, {}) is None and client.delete(gone) is None, "a topic is deleted")
    expect(client.delete(gone) == client.unknown, "and not twice")

    expected = []
    for codec in client.codecs:
        for acks in (0, 1, -1, "idempotent"):
            batch = records(codec, acks, BASE + len(expected), client.no_value)
            refused = client.produce(main, batch, codec, acks)
            expect(refused is None, f"{codec} with acks={acks}: {refused}")
            if acks == 0:
                # Without an answer what the next connection brings could come first.
                client.read(main, len(expected), len(batch))
            expected += batch
    found = client.read(main, 0, len(expected))
    for number, (ours, theirs) in enumerate(zip(expected, found)):
        expect(ours == theirs, f"record {number}: {theirs} is not {ours}")
    for number in (0, 7, len(expected) - 1):
        expect(client.offset_at(main, BASE + number) == number, f"the time of record {number} is found")
    expect(client.offset_at(main, BASE + len(expected)) is None, "no record is younger")
    expect(client.read(main, 7, 3) == expected[7:10], "reading starts where it is told to")

    most = bytes(LIMIT_BYTES - 200)
    expect(client.produce(main, [(b"large", most, [], BASE)], "none", -1) is None, "a record up to the limit is taken")
    refused = client.produce(main, [(b"large", bytes(LIMIT_BYTES), [], BASE)], "none", -1)
    expect(refused == client.too_large, f"a record beyond the limit: {refused}")
    expect(client.read(main, len(expected), 1)[0][1] == most, "the large one comes back, and nothing after it")

    expect(client.create(compacted, 1, {"cleanup.policy": "compact"}) is None, "a compacted topic is created")
    refused = client.produce(compacted, [(None, b"no key", [], BASE)], "none", -1)
    expect(refused == client.no_key, f"a compacted topic wants keys: {refused}")
    expect(client.produce(compacted, [(b"key", b"value", [], BASE)], "zstd", -1) is None, "and takes them")
    expect(client.partitions(made) is None, "nobody made this one")
    expect(client.produce(made, [(b"key", b"value", [], BASE)], "none", -1) is None, "the first record makes its topic")
    expect(client.read(made, 0, 1)[0][:2] == (b"key", b"value"), "and is there")


library, bootstrap, prefix = sys.argv[1:]
suite({"librdkafka": Librdkafka, "kafka-python": KafkaPython, "aiokafka": Aiokafka}[library](bootstrap), prefix)
