// How kafkajs gets in where not everybody may: the options of ../python/secure.py, as settings of the library.
'use strict';

const fs = require('fs');

const read = (file) => (file === undefined ? undefined : fs.readFileSync(file, 'utf8'));

exports.settings = ({ protocol = 'PLAINTEXT', ca, certificate, key, mechanism, user: username, password, token: value }) => {
  const settings = {};
  if (protocol.endsWith('SSL')) settings.ssl = { ca: [read(ca)], cert: read(certificate), key: read(key) };
  if (mechanism !== undefined) settings.sasl = { mechanism: mechanism.toLowerCase(), username, password };
  if (value !== undefined) settings.sasl = { mechanism: 'oauthbearer', oauthBearerProvider: async () => ({ value }) };
  return settings;
};

// The options that the suites are given; without any, everybody may get in.
exports.given = () => exports.settings(JSON.parse(process.env.CLIENT_ACCESS || '{}'));
