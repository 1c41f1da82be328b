// Test client on kafkajs; see ../README.md. kafkajs brings gzip only.
'use strict';

const fs = require('fs');
const path = require('path');
const readline = require('readline');

const tools = process.env.VARVE_TEST_TOOLS;
const { CompressionTypes, Kafka, logLevel } = require(path.join(tools, 'node/node_modules/kafkajs'));

const [verb, ...rest] = process.argv.slice(2);
const options = {};
for (let at = 0; at + 1 < rest.length; at += 2) options[rest[at].replace(/^--/, '')] = rest[at + 1];
// Its own limits are those of a machine that has nothing else to do: a second for a connection.
const patient = { connectionTimeout: 30000, authenticationTimeout: 60000, retry: { retries: 10 } };
const kafka = new Kafka({ clientId: 'node', brokers: [options.bootstrap], logLevel: logLevel.ERROR, ...patient });
const decode = (text) => (text === null ? null : Buffer.from(text, 'base64'));
const encode = (data) => (data === null || data === undefined ? null : Buffer.from(data).toString('base64'));

async function produce() {
  const producer = kafka.producer({ idempotent: true });
  await producer.connect();
  const compression = options.codec === 'gzip' ? CompressionTypes.GZIP : CompressionTypes.None;
  let messages = [];
  const send = () => producer.send({ topic: options.topic, acks: -1, compression, messages });
  for await (const line of readline.createInterface({ input: fs.createReadStream(options.input) })) {
    const record = JSON.parse(line);
    const headers = {};
    for (const [name, value] of record.headers) headers[name] = decode(value);
    const timestamp = String(record.timestamp);
    messages.push({ key: decode(record.key), value: decode(record.value), headers, timestamp });
    if (messages.length === 1000) {
      await send();
      messages = [];
    }
  }
  if (messages.length > 0) await send();
  await producer.disconnect();
}

async function consume() {
  const consumer = kafka.consumer({
    groupId: `node-${process.pid}`,
    readUncommitted: options.isolation !== 'read_committed',
  });
  await consumer.connect();
  await consumer.subscribe({ topic: options.topic, fromBeginning: true });
  const wanted = Number(options.count);
  const output = fs.createWriteStream(options.output);
  let found = 0;
  await new Promise((resolve, reject) => {
    const limit = setTimeout(() => reject(new Error(`consume: ${found} of ${wanted} records came`)), 600000);
    consumer.run({
      eachMessage: async ({ partition, message }) => {
        output.write(`${line(partition, message)}\n`);
        found += 1;
        if (found === wanted) {
          clearTimeout(limit);
          resolve();
        }
      },
    }).catch(reject);
  });
  await consumer.disconnect();
  await new Promise((resolve) => output.end(resolve));
}

async function group() {
  const consumer = kafka.consumer({ groupId: options.group, sessionTimeout: 12000, heartbeatInterval: 500 });
  await consumer.connect();
  await consumer.subscribe({ topic: options.topic, fromBeginning: true });
  const output = fs.openSync(options.output, 'w');
  await consumer.run({
    autoCommitThreshold: 1,
    eachMessage: async ({ partition, message }) => fs.writeSync(output, `${line(partition, message)}\n`),
  });
  await new Promise((resolve) => process.stdin.resume().on('end', resolve));
  await consumer.disconnect();
}

function line(partition, message) {
  const headers = [];
  for (const [name, values] of Object.entries(message.headers)) {
    for (const value of Array.isArray(values) ? values : [values]) headers.push([name, encode(value)]);
  }
  const { offset, timestamp, key, value } = message;
  return JSON.stringify({
    partition, offset: Number(offset), timestamp: Number(timestamp), key: encode(key), value: encode(value), headers,
  });
}

({ produce, consume, group })[verb]().catch((error) => {
  console.error(error);
  process.exit(1);
});
