"""How a client of each library gets in where not everybody may, as settings of its own.

The options are those of secure.py: protocol; ca, certificate and key (files); mechanism, user, password, token. The suites are
given them in CLIENT_ACCESS; without it everybody may get in.
"""

import json
import os
import time


def given():
    return json.loads(os.environ.get("CLIENT_ACCESS", "{}"))


def renamed(options, names):
    return {name: options[option] for option, name in names.items() if option in options}


def librdkafka(options):
    names = {
        "protocol": "security.protocol",
        "ca": "ssl.ca.location",
        "certificate": "ssl.certificate.location",
        "key": "ssl.key.location",
        "mechanism": "sasl.mechanism",
        "user": "sasl.username",
        "password": "sasl.password",
    }
    config = renamed(options, names)
    if "token" in options:
        config["oauth_cb"] = lambda _: (options["token"], time.time() + 600)
    return config


def kafka_python(options):
    names = {
        "protocol": "security_protocol",
        "ca": "ssl_cafile",
        "certificate": "ssl_certfile",
        "key": "ssl_keyfile",
        "mechanism": "sasl_mechanism",
        "user": "sasl_plain_username",
        "password": "sasl_plain_password",
    }
    config = renamed(options, names)
    if "token" in options:
        from kafka.net.sasl.oauth import AbstractTokenProvider

        class Provider(AbstractTokenProvider):
            def token(self):
                return options["token"]

        config["sasl_oauth_token_provider"] = Provider()
    return config


def aiokafka(options):
    names = {
        "protocol": "security_protocol",
        "mechanism": "sasl_mechanism",
        "user": "sasl_plain_username",
        "password": "sasl_plain_password",
    }
    config = renamed(options, names)
    if "ca" in options:
        from aiokafka.helpers import create_ssl_context

        config["ssl_context"] = create_ssl_context(
            cafile=options["ca"], certfile=options.get("certificate"), keyfile=options.get("key")
        )
    if "token" in options:
        from aiokafka.abc import AbstractTokenProvider

        class Provider(AbstractTokenProvider):
            async def token(self):
                return options["token"]

        config["sasl_oauth_token_provider"] = Provider()
    return config
