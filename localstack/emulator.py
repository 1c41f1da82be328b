"""LocalStack on loopback: the emulator of AWS's bucket, roles, keys, secrets and alarms.

    localstack-python localstack/emulator.py FOLDER PORT

LocalStack takes the port of GATEWAY_LISTEN and ignores its IPv4 address: it would listen on all of them, and whoever reaches it
may do everything. So every IPv4 server of this process is bound to 127.0.0.1, whatever it asks for.
"""

import os
import sys

LOOPBACK = "127.0.0.1"


def on_loopback_only():
    """Binds each IPv4 server that twisted makes in this process to loopback."""
    from twisted.internet import endpoints, reactor

    make = endpoints.TCP4ServerEndpoint.__init__

    def bound(self, reactor_, port, backlog=50, interface=""):
        make(self, reactor_, port, backlog, LOOPBACK)

    endpoints.TCP4ServerEndpoint.__init__ = bound

    def no_ipv6(self, *arguments, **names):
        raise RuntimeError("this emulator listens on IPv4's loopback only")

    endpoints.TCP6ServerEndpoint.__init__ = no_ipv6
    listen = reactor.listenTCP
    reactor.listenTCP = lambda port, factory, backlog=50, interface="": listen(port, factory, backlog, LOOPBACK)


def main():
    folder, port = sys.argv[1], sys.argv[2]
    os.makedirs(folder, exist_ok=True)
    os.environ.update(
        {
            "GATEWAY_LISTEN": f"{LOOPBACK}:{port}",
            "LOCALSTACK_HOST": f"{LOOPBACK}:{port}",
            # Nothing is looked up, downloaded or reported.
            "DNS_ADDRESS": "0",
            "DISABLE_EVENTS": "1",
            "SKIP_SSL_CERT_DOWNLOAD": "1",
            "FILESYSTEM_ROOT": os.path.abspath(folder),
        }
    )
    on_loopback_only()
    from localstack.runtime import main as localstack

    localstack.main()


if __name__ == "__main__":
    main()
