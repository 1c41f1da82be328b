// One record to a protected listener and back, by kafkajs; as ../python/secure.py.
'use strict';

const path = require('path');

const access = require('./access.js');

const tools = process.env.VARVE_TEST_TOOLS;
const { Kafka, logLevel } = require(path.join(tools, 'node/node_modules/kafkajs'));

const options = JSON.parse(process.argv[2]);
const config = {
  clientId: 'node',
  brokers: [options.bootstrap],
  logLevel: logLevel.NOTHING,
  connectionTimeout: 30000,
  authenticationTimeout: 60000,
  retry: { retries: options.fails ? 0 : 5 },
  ...access.settings(options),
};
const kafka = new Kafka(config);

async function main() {
  const producer = kafka.producer();
  await producer.connect();
  await producer.send({ topic: options.topic, messages: [{ value: options.value }] });
  await producer.disconnect();
  const consumer = kafka.consumer({ groupId: `node-${options.value}` });
  await consumer.connect();
  await consumer.subscribe({ topic: options.topic, fromBeginning: true });
  await new Promise((found, lost) => {
    setTimeout(() => lost(new Error('the record does not come back')), 120000).unref();
    consumer.run({
      eachMessage: async ({ message }) => {
        if (message.value.toString() === options.value) found();
      },
    });
  });
  await consumer.disconnect();
}

main().then(
  () => process.exit(0),
  (error) => {
    console.log(`${error.name}: ${error.message}`);
    process.exit(3);
  }
);
