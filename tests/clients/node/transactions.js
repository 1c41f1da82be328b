// Transactions with kafkajs, checked by itself: HOST:PORT PREFIX; see ../README.md.
'use strict';

const assert = require('assert');
const path = require('path');

const access = require('./access.js');

const tools = process.env.VARVE_TEST_TOOLS;
const { Kafka, logLevel } = require(path.join(tools, 'node/node_modules/kafkajs'));

const [bootstrap, prefix] = process.argv.slice(2);
// Its own limits are those of a machine that has nothing else to do: a second for a connection.
const patient = { connectionTimeout: 30000, authenticationTimeout: 60000, retry: { retries: 10 } };
const kafka = new Kafka({ clientId: 'node', brokers: [bootstrap], logLevel: logLevel.NOTHING, ...patient, ...access.given() });
const admin = kafka.admin();
const INPUT = 30;

async function producerOf(transactionalId) {
  const producer = kafka.producer({ transactionalId, maxInFlightRequests: 1, idempotent: true });
  await producer.connect();
  return producer;
}

// Everything that is committed, in order; `handle` sees each batch first.
async function consume(topic, groupId, count, handle = async () => {}) {
  const consumer = kafka.consumer({ groupId, maxWaitTimeInMs: 200, sessionTimeout: 30000, readUncommitted: false });
  await consumer.connect();
  await consumer.subscribe({ topic, fromBeginning: true });
  const seen = [];
  await new Promise((resolve, reject) => {
    const limit = setTimeout(() => reject(new Error(`${topic}: ${seen.length} of ${count} came: ${seen}`)), 300000);
    const found = (value) => {
      seen.push(value);
      if (seen.length === count) {
        clearTimeout(limit);
        resolve();
      }
    };
    consumer.run({
      autoCommit: false,
      eachBatchAutoResolve: false,
      eachBatch: async ({ batch, resolveOffset }) => {
        const messages = batch.messages.slice(0, 7);
        await handle(messages).then(() => {
          messages.forEach((message) => { found(message.value.toString()); resolveOffset(message.offset); });
        }, (error) => { if (error.message !== 'again') reject(error); throw error; });
      },
    }).catch(reject);
  });
  await consumer.disconnect();
  return seen;
}

async function commitAndAbort(topic) {
  const producer = await producerOf(`${prefix}-commit`);
  const expected = [];
  for (let number = 0; number < 6; number += 1) {
    const values = [0, 1, 2].map((record) => `${number}-${record}`);
    const transaction = await producer.transaction();
    await transaction.send({ topic, messages: values.map((value) => ({ value, partition: 0 })) });
    if (number % 3 === 1) {
      await transaction.abort();
    } else {
      await transaction.commit();
      expected.push(...values);
    }
  }
  await producer.disconnect();
  assert.deepStrictEqual(await consume(topic, `${prefix}-readers`, expected.length), expected);
  return expected;
}

async function fence(topic, before) {
  const first = await producerOf(`${prefix}-fence`);
  const open = await first.transaction();
  await open.send({ topic, messages: [{ value: 'fenced', partition: 0 }] });
  const second = await producerOf(`${prefix}-fence`);
  const next = await second.transaction();
  await assert.rejects(open.commit());
  await next.send({ topic, messages: [{ value: 'after', partition: 0 }] });
  await next.commit();
  await second.disconnect();
  await first.disconnect();
  assert.deepStrictEqual(await consume(topic, `${prefix}-later`, before.length + 1), [...before, 'after']);
}

async function transform(source, target) {
  const writer = kafka.producer();
  await writer.connect();
  const numbers = Array.from({ length: INPUT }, (_, number) => String(number));
  await writer.send({ topic: source, messages: numbers.map((value) => ({ value, partition: 0 })) });
  await writer.disconnect();
  const producer = await producerOf(`${prefix}-transform`);
  const consumerGroupId = `${prefix}-group`;
  let rounds = 0;
  await consume(source, consumerGroupId, INPUT, async (messages) => {
    const transaction = await producer.transaction();
    await transaction.send({ topic: target, messages: messages.map(({ value }) => ({ value: `<${value}>`, partition: 0 })) });
    const offset = String(Number(messages[messages.length - 1].offset) + 1);
    await transaction.sendOffsets({ consumerGroupId, topics: [{ topic: source, partitions: [{ partition: 0, offset }] }] });
    rounds += 1;
    if (rounds === 2) {
      await transaction.abort();
      throw new Error('again');
    }
    await transaction.commit();
  });
  await producer.disconnect();
  const [{ partitions }] = await admin.fetchOffsets({ groupId: consumerGroupId, topics: [source] });
  assert.strictEqual(partitions[0].offset, String(INPUT));
  assert.deepStrictEqual(await consume(target, `${prefix}-after`, INPUT), numbers.map((number) => `<${number}>`));
}

async function main() {
  await admin.connect();
  const topics = ['txn', 'txn-in', 'txn-out'].map((name) => `${prefix}-${name}`);
  await admin.createTopics({ waitForLeaders: true, topics: topics.map((topic) => ({ topic, numPartitions: 1 })) });
  const before = await commitAndAbort(topics[0]);
  await fence(topics[0], before);
  await transform(topics[1], topics[2]);
  await admin.disconnect();
}

main().catch((error) => { console.error(error); process.exit(1); });
