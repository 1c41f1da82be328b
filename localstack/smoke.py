"""Produces, waits until it is in the bucket, kills a broker, produces on, reads everything back, looks at the alarms."""

import os
import signal
import time

import boto3
from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

import alarms
from rig import OWNER, REGION, eventually, say

PARTITIONS = 3
BEFORE, AFTER = 20_000, 2_000
# What the topic has that makes things happen within seconds.
QUICK = {"varve.archive.lag.ms": "1000", "local.retention.ms": "1000", "file.delete.delay.ms": "0", "retention.ms": "-1"}


def smoke(rig):
    started = time.monotonic()
    topic = f"smoke-{int(time.time())}"
    client = settings(rig)
    admin = AdminClient(client)
    copies = min(3, rig.state["brokers"])
    for made in admin.create_topics([NewTopic(topic, PARTITIONS, copies, config=QUICK)]).values():
        made.result(300)
    say(f"producing {BEFORE} records to {topic}, acks=all, over TLS, as admin")
    wanted = produce(client, topic, 0, BEFORE)
    archived(rig, topic)
    killed = kill_a_leader(rig, admin, topic) if copies > 1 else None
    wanted |= produce(client, topic, BEFORE, AFTER)
    before = rig.metric("varve_cold_fetched_bytes_total")
    found = consume(client, topic, len(wanted))
    if found != wanted:
        missing = {place: value for place, value in wanted.items() if found.get(place) != value}
        raise SystemExit(f"rig: {len(missing)} of {len(wanted)} records did not come back: {list(missing.items())[:5]}")
    cold = rig.metric("varve_cold_fetched_bytes_total") - before
    if cold <= 0:
        raise SystemExit("rig: nothing was read from the bucket")
    say(f"all {len(wanted)} records came back as they were, by partition and offset; {cold:.0f} bytes of them from the bucket")
    refused(rig)
    if killed is not None:
        rig.start_broker(killed)
        rig.await_broker(killed)
        eventually("all replicas are in sync again", lambda: (found := described(admin, topic)) and all(
            len(partition.isrs) == copies for partition in found.values()
        ))
        say(f"broker {killed} is back, and everything in sync")
    alarms.check(rig)
    print(f"rig: smoke passed in {time.monotonic() - started:.0f} s", flush=True)


def settings(rig):
    return {
        "bootstrap.servers": rig.bootstrap(),
        "security.protocol": "SASL_SSL",
        "sasl.mechanism": "SCRAM-SHA-512",
        "sasl.username": "admin",
        "sasl.password": rig.password(),
        "ssl.ca.location": str(rig.folder / "authority/ca.pem"),
        "log_level": 0,
    }


def produce(client, topic, first, count):
    """Every record is acknowledged; their places and values."""
    places, errors = {}, []

    def delivered(error, message):
        if error is not None:
            errors.append(error)
        else:
            places[(message.partition(), message.offset())] = message.value()

    producer = Producer(client | {"enable.idempotence": True, "linger.ms": 5, "compression.type": "zstd"})
    for number in range(first, first + count):
        text = f"2026-11-22T10:00:00Z INFO service=web request={number}".encode()
        while True:
            try:
                producer.produce(topic, text, str(number).encode(), partition=number % PARTITIONS, on_delivery=delivered)
                break
            except BufferError:
                producer.poll(0.1)
        producer.poll(0)
    left = producer.flush(300)
    if errors or left or len(places) != count:
        raise SystemExit(f"rig: {len(places)} of {count} records acknowledged, {left} left, errors {errors[:3]}")
    return places


def archived(rig, topic):
    """Waits until Parquet of the topic is in the module's bucket, and the local log has given its part up."""
    owner = {name.lower(): value for name, value in OWNER.items()}
    bucket = rig.outputs["varve"]["value"]["bucket"]
    s3 = boto3.client("s3", endpoint_url=rig.url("aws"), region_name=REGION, **owner)

    def tables():
        listed = s3.list_objects_v2(Bucket=bucket, Prefix=f"varve/tables/{topic}/").get("Contents", [])
        rows = [one["Key"] for one in listed if one["Key"].endswith(".parquet")]
        return rows if len({key.rsplit("/", 2)[1] for key in rows}) == PARTITIONS else None

    files = eventually(f"each partition of {topic} has Parquet in s3://{bucket}", tables)
    head = s3.head_object(Bucket=bucket, Key=files[0])
    if head.get("ServerSideEncryption") != "aws:kms":
        raise SystemExit(f"rig: {files[0]} is not encrypted by the module's key: {head.get('ServerSideEncryption')}")
    say(f"{len(files)} Parquet files in s3://{bucket}/varve/tables/{topic}, encrypted by the module's key")
    eventually("brokers have given up what is archived", lambda: (
        rig.metric("varve_archive_deleted_local_segments_total") >= PARTITIONS
    ))
    log = rig.folder / "aws/output.log"
    eventually("every broker has taken the module's role", lambda: (
        log.read_text().count("sts.AssumeRole => 200") >= rig.state["brokers"]
    ))


def described(admin, topic):
    """The topic's partitions; none if nobody tells."""
    try:
        return admin.list_topics(topic, timeout=30).topics[topic].partitions
    except KafkaException:
        return {}


def leader_of(admin, topic):
    """Who leads the topic's first partition, if somebody does: brokers count from 1."""
    first = described(admin, topic).get(0)
    return first.leader if first is not None and first.leader > 0 else None


def kill_a_leader(rig, admin, topic):
    leader = eventually(f"{topic}-0 is led", lambda: leader_of(admin, topic))
    process = next(one for one in rig.processes() if one.name == f"broker-{leader}")
    os.kill(process.pid, signal.SIGKILL)
    process.end(patience=60)
    say(f"broker {leader}, which led {topic}-0, was killed")
    eventually("another leads", lambda: leader_of(admin, topic) not in (leader, None))
    return leader


def consume(client, topic, count):
    consumer = Consumer(client | {"group.id": f"{topic}-reader", "enable.auto.commit": False})
    consumer.assign([TopicPartition(topic, partition, 0) for partition in range(PARTITIONS)])
    found, said, end = {}, None, time.monotonic() + 300
    while len(found) < count and time.monotonic() < end:
        message = consumer.poll(1)
        if message is None:
            continue
        if message.error():
            # librdkafka goes on by itself, unless it says that it cannot.
            said = message.error()
            if said.fatal():
                break
            continue
        found[(message.partition(), message.offset())] = message.value()
    consumer.close()
    if len(found) < count:
        say(f"{len(found)} of {count} records came; the last error was {said}")
    return found


def refused(rig):
    """Who has no password, or asks for what no rule lets them, gets nothing."""
    wrong = AdminClient(settings(rig) | {"sasl.password": "wrong"})
    try:
        wrong.list_topics(timeout=5)
    except Exception:
        say("a wrong password is refused")
        return
    raise SystemExit("rig: a wrong password was taken")
