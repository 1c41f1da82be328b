// What kafkajs does with a broker, checked by itself: HOST:PORT PREFIX; see ../README.md. It brings gzip only.
'use strict';

const assert = require('assert');
const path = require('path');

const access = require('./access.js');

const tools = process.env.VARVE_TEST_TOOLS;
const { CompressionTypes, ConfigResourceTypes, Kafka, logLevel } = require(path.join(tools, 'node/node_modules/kafkajs'));

const [bootstrap, prefix] = process.argv.slice(2);
// Its own limits are those of a machine that has nothing else to do: a second for a connection.
const patient = { connectionTimeout: 30000, authenticationTimeout: 60000, retry: { retries: 10 } };
const client = { clientId: 'node', brokers: [bootstrap], logLevel: logLevel.NOTHING, ...patient, ...access.given() };
const kafka = new Kafka(client);
const admin = kafka.admin();
// Who is to be refused need not ask again and again.
const hasty = new Kafka({ ...client, retry: { retries: 2 } });
const base = Date.now() - 3600000;
const limitBytes = 1048588;
const topicOf = (topic, numPartitions, configEntries = []) => ({ topics: [{ topic, numPartitions, configEntries }] });
const kindOf = (error) => (error.errors ? error.errors[0].type : (error.cause && error.cause.type) || error.type);
const refusal = (work) => work.then(() => null, kindOf);

async function produce(topic, messages, compression = CompressionTypes.None, acks = -1, idempotent = false, by = kafka) {
  const producer = by.producer({ idempotent, allowAutoTopicCreation: true });
  await producer.connect();
  try {
    await producer.send({ topic, acks, compression, messages: messages.map((one) => ({ partition: 0, ...one })) });
  } finally {
    await producer.disconnect();
  }
}

// Reads from a group's committed offset, which is set beforehand; pauses first.
async function read(topic, offset, count) {
  const groupId = `${prefix}-${topic}-${offset}-${count}`;
  await admin.setOffsets({ groupId, topic, partitions: [{ partition: 0, offset: String(offset) }] });
  const consumer = kafka.consumer({ groupId, maxWaitTimeInMs: 200 });
  await consumer.connect();
  await consumer.subscribe({ topic });
  const found = [];
  let paused = 0;
  await new Promise((resolve, reject) => {
    const limit = setTimeout(() => reject(new Error(`${topic}: ${found.length} of ${count} came`)), 600000);
    consumer.run({
      eachMessage: async ({ message, pause }) => {
        if (paused === 0) {
          paused = 1;
          const resume = pause();
          setTimeout(() => { paused = 2; resume(); }, 100);
          throw new Error('this one comes again after the pause');
        }
        if (paused === 1) reject(new Error('a paused partition gives nothing'));
        found.push(message);
        if (found.length === count) {
          clearTimeout(limit);
          resolve();
        }
      },
    }).catch(reject);
  });
  await consumer.disconnect();
  return found.slice(0, count);
}

async function suite() {
  const [main, compacted, gone, made] = ['main', 'compacted', 'gone', 'made'].map((name) => `${prefix}-${name}`);
  await admin.connect();
  assert.strictEqual(await admin.createTopics(topicOf(main, 2, [{ name: 'retention.ms', value: '-1' }])), true);
  assert.strictEqual(await admin.createTopics(topicOf(main, 2)), false, 'it is there already');
  const soon = [{ name: 'retention.ms', value: 'soon' }];
  assert.strictEqual(await refusal(admin.createTopics(topicOf(gone, 1, soon))), 'INVALID_CONFIG');
  const { topics } = await admin.fetchTopicMetadata({ topics: [main] });
  assert.strictEqual(topics[0].partitions.length, 2);
  const resource = { type: ConfigResourceTypes.TOPIC, name: main };
  const configEntries = [{ name: 'segment.bytes', value: '2097152' }];
  await admin.alterConfigs({ validateOnly: false, resources: [{ ...resource, configEntries }] });
  const { resources } = await admin.describeConfigs({ resources: [{ ...resource, configNames: ['segment.bytes'] }] });
  assert.strictEqual(resources[0].configEntries[0].configValue, '2097152');
  // That replaced all settings: these records are older than the default retention of nobody, so nothing is lost.
  await admin.createTopics(topicOf(gone, 1));
  await admin.deleteTopics({ topics: [gone] });
  const refused = hasty.admin();
  await refused.connect();
  assert.strictEqual(await refusal(refused.deleteTopics({ topics: [gone] })), 'UNKNOWN_TOPIC_OR_PARTITION');
  await refused.disconnect();

  const expected = [];
  for (const compression of [CompressionTypes.None, CompressionTypes.GZIP]) {
    for (const [acks, idempotent] of [[0, false], [1, false], [-1, false], [-1, true]]) {
      const at = (number) => String(base + expected.length + number);
      const messages = [
        { key: 'key', value: 'plain', headers: { host: 'web-1', level: 'WARN' }, timestamp: at(0) },
        { key: null, value: 'without a key', headers: {}, timestamp: at(1) },
        { key: 'tombstone', value: null, headers: { reason: 'none' }, timestamp: at(2) },
        { key: '', value: '', headers: { same: ['1', '2'] }, timestamp: at(3) },
      ];
      await produce(main, messages, compression, acks, idempotent);
      // Without an answer what the next connection brings could come first.
      if (acks === 0) await read(main, expected.length, messages.length);
      expected.push(...messages);
    }
  }
  const found = await read(main, 0, expected.length);
  const plain = (value) => (value === null || value === undefined ? null : value.toString());
  const heads = (headers) => Object.entries(headers).map(([name, value]) => [name, [].concat(value).map(plain)]);
  expected.forEach((ours, number) => {
    const theirs = found[number];
    const shape = (one) => [plain(one.key), plain(one.value), heads(one.headers), one.timestamp];
    assert.deepStrictEqual(shape(theirs), shape(ours), `record ${number}`);
  });
  for (const number of [0, 7, expected.length - 1]) {
    const offsets = await admin.fetchTopicOffsetsByTimestamp(main, base + number);
    assert.strictEqual(offsets.find(({ partition }) => partition === 0).offset, String(number), `time ${number}`);
  }
  assert.strictEqual((await read(main, 7, 1))[0].timestamp, String(base + 7), 'reading starts where it is told to');

  const most = Buffer.alloc(limitBytes - 200);
  await produce(main, [{ key: 'large', value: most }]);
  const none = CompressionTypes.None;
  const beyond = produce(main, [{ key: 'large', value: Buffer.alloc(limitBytes) }], none, -1, false, hasty);
  assert.strictEqual(await refusal(beyond), 'MESSAGE_TOO_LARGE');
  assert.strictEqual(Buffer.compare((await read(main, expected.length, 1))[0].value, most), 0);

  await admin.createTopics(topicOf(compacted, 1, [{ name: 'cleanup.policy', value: 'compact' }]));
  const keyless = produce(compacted, [{ value: 'no key' }], none, -1, false, hasty);
  assert.notStrictEqual(await refusal(keyless), null, 'compacted topics want keys');
  await produce(compacted, [{ key: 'key', value: 'value' }], CompressionTypes.GZIP);
  await produce(made, [{ key: 'key', value: 'value' }]);
  assert.strictEqual(plain((await read(made, 0, 1))[0].value), 'value', 'the first record makes its topic');
  await admin.disconnect();
}

suite().catch((error) => {
  console.error(error);
  process.exit(1);
});
