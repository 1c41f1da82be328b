// What @platformatic/kafka, a client in plain JavaScript, does with a broker, checked by itself: HOST:PORT
// PREFIX; see ../README.md. Its zstd wants a newer Node.
'use strict';

const assert = require('assert');
const path = require('path');
const { pathToFileURL } = require('url');

const entry = path.join(process.env.VARVE_TEST_TOOLS, 'node/node_modules/@platformatic/kafka/dist/index.js');
const [bootstrap, prefix] = process.argv.slice(2);
const base = Date.now() - 3600000;
const topic = `${prefix}-main`;
const gone = `${prefix}-gone`;
const TOPIC = 2; // Kafka's number for topics among things that have settings

// The identifier of the error that a refused request brings.
async function refusal(work) {
  try {
    await work;
  } catch (error) {
    const found = error.findBy && error.findBy('code', 'PLT_KFK_PROTOCOL');
    return found ? found.apiId : error;
  }
  return null;
}

async function topics(admin) {
  const retention = (value) => [{ name: 'retention.ms', value }];
  const [made] = await admin.createTopics({ topics: [topic], partitions: 1, replicas: 1, configs: retention('-1') });
  assert.strictEqual(made.name, topic);
  assert.strictEqual(await refusal(admin.createTopics({ topics: [topic] })), 'TOPIC_ALREADY_EXISTS');
  const bad = admin.createTopics({ topics: [gone], partitions: 1, replicas: 1, configs: retention('soon') });
  assert.strictEqual(await refusal(bad), 'INVALID_CONFIG');
  await admin.createPartitions({ topics: [{ name: topic, count: 2, assignments: null }] });
  const configs = [{ name: 'segment.bytes', configOperation: 0, value: '2097152' }];
  await admin.incrementalAlterConfigs({ resources: [{ resourceType: TOPIC, resourceName: topic, configs }] });
  const resources = [{ resourceType: TOPIC, resourceName: topic, configurationKeys: ['segment.bytes'] }];
  const [described] = await admin.describeConfigs({ resources });
  assert.deepStrictEqual(described.configs.map(({ name, value }) => [name, value]), [['segment.bytes', '2097152']]);
  await admin.createTopics({ topics: [gone], partitions: 1, replicas: 1 });
  while (!(await admin.listTopics()).includes(gone)); // brokers learn of it in their own time
  await admin.deleteTopics({ topics: [gone] });
  assert.strictEqual(await refusal(admin.deleteTopics({ topics: [gone] })), 'UNKNOWN_TOPIC_OR_PARTITION');
}

async function produce(kafka) {
  const written = [];
  for (const compression of ['none', 'gzip', 'snappy', 'lz4']) {
    for (const [acks, idempotent] of [[1, false], [-1, false], [-1, true]]) {
      const producer = new kafka.Producer({ clientId: 'writer', bootstrapBrokers: [bootstrap], compression, idempotent });
      const at = (number) => BigInt(base + written.length + number);
      const bytes = (text) => Buffer.from(text);
      const messages = [
        { key: bytes('key'), value: bytes(`${compression} ${acks}`), headers: { host: 'web-1' }, timestamp: at(0) },
        { value: bytes('without a key'), timestamp: at(1) },
        { key: bytes('tombstone'), value: null, timestamp: at(2) },
        { key: bytes(''), value: bytes(''), headers: { level: 'WARN' }, timestamp: at(3) },
      ].map((message) => ({
        topic,
        partition: 0,
        ...message,
        headers: new Map(Object.entries(message.headers || {}).map(([name, value]) => [bytes(name), bytes(value)])),
      }));
      const { offsets } = await producer.send({ messages, acks });
      assert.strictEqual(offsets[0].offset, BigInt(written.length), `${compression} ${acks}`);
      written.push(...messages);
      await producer.close();
    }
  }
  return written;
}

// Reads `count` records with a group, which commits them and leaves.
async function consume(kafka, groupId, count) {
  const consumer = new kafka.Consumer({ clientId: 'reader', bootstrapBrokers: [bootstrap], groupId });
  const stream = await consumer.consume({
    topics: [topic], mode: 'committed', fallbackMode: 'earliest', autocommit: false, maxWaitTime: 200, sessionTimeout: 30000,
    heartbeatInterval: 500,
  });
  const found = [];
  const limit = setTimeout(() => { throw new Error(`${found.length} of ${count} came`); }, 300000);
  for await (const message of stream) {
    found.push(message);
    if (found.length === count) break;
  }
  clearTimeout(limit);
  const { partition, offset } = found[count - 1];
  await consumer.commit({ offsets: [{ topic, partition, offset: offset + 1n, leaderEpoch: 0 }] });
  await consumer.close(true);
  return found;
}

async function suite() {
  const kafka = await import(pathToFileURL(entry));
  const admin = new kafka.Admin({ clientId: 'admin', bootstrapBrokers: [bootstrap], retries: 2 });
  await topics(admin);
  const written = await produce(kafka);
  const groupId = `${prefix}-group`;
  const first = await consume(kafka, groupId, 20);
  const found = first.concat(await consume(kafka, groupId, written.length - 20));
  const plain = (value) => (value === null || value === undefined ? null : value.toString());
  const heads = (headers) => [...headers].map(([name, value]) => [plain(name), plain(value)]);
  written.forEach((ours, number) => {
    const theirs = found[number];
    const shape = (one) => [plain(one.key), plain(one.value), heads(one.headers), one.timestamp];
    assert.deepStrictEqual([theirs.offset, ...shape(theirs)], [BigInt(number), ...shape(ours)], `record ${number}`);
  });
  const asked = async (timestamp) => {
    const [listed] = await admin.listOffsets({ topics: [{ name: topic, partitions: [{ partitionIndex: 0, timestamp }] }] });
    return listed.partitions[0].offset;
  };
  assert.strictEqual(await asked(-2n), 0n, 'the start is found');
  assert.strictEqual(await asked(-1n), BigInt(written.length), 'so is the end');
  assert.strictEqual(await asked(BigInt(base + 7)), 7n, 'and a time');
  const groups = await admin.listGroups();
  assert.ok(groups.has(groupId), 'the group is listed');
  const described = (await admin.describeGroups({ groups: [groupId] })).get(groupId);
  assert.strictEqual(described.state, 'EMPTY');
  await admin.deleteGroups({ groups: [groupId] });
  assert.ok(!(await admin.listGroups()).has(groupId), 'and gone once it is deleted');
  await admin.close();
}

suite().catch((error) => {
  console.error(error);
  process.exit(1);
});
