// One record to a protected listener and back, by kafkajs; as ../python/secure.py.
'use strict';

const fs = require('fs');
const path = require('path');

const tools = process.env.VARVE_TEST_TOOLS;
const { Kafka, logLevel } = require(path.join(tools, 'node/node_modules/kafkajs'));

const options = JSON.parse(process.argv[2]);
const read = (file) => (file === undefined ? undefined : fs.readFileSync(file, 'utf8'));
const config = {
  clientId: 'node',
  brokers: [options.bootstrap],
  logLevel: logLevel.NOTHING,
  retry: { retries: options.fails ? 0 : 5 },
};
if (options.protocol.endsWith('SSL')) {
  config.ssl = { ca: [read(options.ca)], cert: read(options.certificate), key: read(options.key) };
}
if (options.mechanism !== undefined) {
  const { user: username, password, token: value } = options;
  config.sasl = { mechanism: options.mechanism.toLowerCase(), username, password };
  if (value !== undefined) config.sasl = { mechanism: 'oauthbearer', oauthBearerProvider: async () => ({ value }) };
}
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
    setTimeout(() => lost(new Error('the record does not come back')), 30000).unref();
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
