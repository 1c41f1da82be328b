"""The cluster of deploy/terraform on this machine; see README.md beside this file.

    rig.py --tools TOOLS --folder FOLDER --binary VARVE [--free-ports] up [--brokers N] | smoke | down

`cargo xtask rig` installs the tools, builds varve and calls this.
"""

import argparse
import contextlib
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request

from processes import Process, listening

CHECKOUT = pathlib.Path(__file__).resolve().parent.parent
MODULE = CHECKOUT / "deploy/terraform"
REGION = "us-east-1"
# Longest wait for one thing to come up, in seconds.
PATIENCE = 600
OWNER = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}
MOTO = "import sys; from moto.server import main; main(['-H', '127.0.0.1', '-p', sys.argv[1]])"


def say(text):
    print(f"rig: {text}", flush=True)


def eventually(what, condition, patience=PATIENCE):
    """Waits until `condition` gives something, and returns it."""
    end = time.monotonic() + patience
    while time.monotonic() < end:
        value = condition()
        if value:
            return value
        time.sleep(0.2)
    raise SystemExit(f"rig: not within {patience} seconds: {what}")


def free_ports(count):
    """Ports that stay free until somebody listens there, minutes later: the system takes those of outgoing connections from
    above them, and the tests of varve theirs from below."""
    first, ports = 30_000, 2_768
    found = []
    for turn in range(ports):
        port = first + (os.getpid() * 97 + turn) % ports
        with socket.socket() as one, contextlib.suppress(OSError):
            one.bind(("127.0.0.1", port))
            found.append(port)
            if len(found) == count:
                return found
    raise SystemExit(f"rig: no {count} free ports from {first} on")


class Rig:
    def __init__(self, options):
        self.tools = options.tools.resolve()
        self.folder = options.folder.resolve()
        self.binary = options.binary.resolve()
        self.free_ports = options.free_ports
        self.state_file = self.folder / "rig.json"

    # Up

    def up(self, brokers):
        if self.state_file.exists():
            raise SystemExit(f"rig: there is one in {self.folder} already: take it down first")
        if not self.binary.exists():
            raise SystemExit(f"rig: {self.binary} is not built")
        self.folder.mkdir(parents=True, exist_ok=True)
        self.state = {"processes": [], "ports": self.ports(brokers), "brokers": brokers}
        try:
            self.start_emulators()
            self.apply()
            self.fill_secrets()
            self.start_etcd()
            for broker in range(1, brokers + 1):
                self.prepare_broker(broker)
                self.start_broker(broker)
            self.await_ready()
            self.write_client_properties()
            self.check_addresses()
        except BaseException:
            self.stop_all()
            self.state_file.unlink(missing_ok=True)
            raise
        say(f"bootstrap.servers={self.bootstrap()}")
        say(f"clients' settings are in {self.folder / 'client.properties'}, logs in {self.folder}/*/output.log")

    def ports(self, brokers):
        """The first broker of a rig is on 9192, the emulators where LocalStack's usually are; or all where it is free."""
        names = ["aws", "compute"]
        names += [f"etcd-{at}-{what}" for at in (1, 2, 3) for what in ("client", "peer", "metrics")]
        for broker in range(1, brokers + 1):
            names += [f"{what}-{broker}" for what in ("client", "external", "internal", "http")]
        if self.free_ports:
            return dict(zip(names, free_ports(len(names))))
        fixed = {"aws": 4566, "compute": 4567}
        for at in (1, 2, 3):
            fixed |= {f"etcd-{at}-client": 23790 + 2 * at, f"etcd-{at}-peer": 23791 + 2 * at}
            fixed |= {f"etcd-{at}-metrics": 23800 + at}
        for broker in range(1, brokers + 1):
            fixed |= {f"client-{broker}": 9191 + broker, f"external-{broker}": 9200 + broker}
            fixed |= {f"internal-{broker}": 9391 + broker, f"http-{broker}": 9691 + broker}
        return fixed

    def url(self, emulator):
        return f"http://127.0.0.1:{self.state['ports'][emulator]}"

    def start_emulators(self):
        say("starting emulators of AWS: LocalStack, and moto for networks, instances and load balancers")
        ports = self.state["ports"]
        localstack = [self.tools / "bin/localstack-python", CHECKOUT / "localstack/emulator.py"]
        self.start("aws", [*localstack, self.folder / "aws/data", ports["aws"]])
        self.start("compute", [self.tools / "venv/bin/python", "-c", MOTO, ports["compute"]])
        self.await_page("aws", "/_localstack/health")
        self.await_page("compute", "/moto-api/data.json")
        self.check_addresses()

    def await_page(self, emulator, path):
        def answers():
            self.all_run()
            with contextlib.suppress(OSError):
                return urllib.request.urlopen(self.url(emulator) + path, timeout=5).status == 200

        eventually(f"{emulator} answers", answers)

    def apply(self):
        say("applying the module of deploy/terraform (two minutes or so, most of it waiting)")
        addresses = [f"-var={name}={self.url(name)}" for name in ("aws", "compute")]
        state = f"-state={self.folder / 'terraform.tfstate'}"
        self.terraform("init", "-input=false")
        self.terraform("apply", "-auto-approve", "-input=false", "-parallelism=40", state, *addresses)
        told = self.terraform("output", "-json", state)
        (self.folder / "outputs.json").write_text(told)
        self.outputs = json.loads(told)

    def terraform(self, *arguments):
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("TF_", "AWS_"))}
        environment["TF_DATA_DIR"] = str(self.folder / "terraform")
        command = [self.tools / "bin/terraform", f"-chdir={CHECKOUT / 'localstack/terraform'}", *arguments, "-no-color"]
        return self.run(command, environment)

    def fill_secrets(self):
        script = [MODULE / "fill-secrets.sh", self.folder / "authority", "localhost", "127.0.0.1"]
        self.run(script, self.aws_environment(OWNER), (self.folder / "outputs.json").read_text())

    def aws_environment(self, credentials):
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "VARVE_"))}
        environment["PATH"] = f"{self.tools / 'bin'}:{environment['PATH']}"
        return environment | credentials | {
            "AWS_ENDPOINT_URL": self.url("aws"),
            "AWS_DEFAULT_REGION": REGION,
            "AWS_REGION": REGION,
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        }

    def start_etcd(self):
        say("starting etcd, three members")
        ports, tls = self.state["ports"], self.folder / "authority"
        own = ["--cert-file", tls / "etcd.pem", "--key-file", tls / "etcd.pem", "--trusted-ca-file", tls / "ca.pem"]
        peers = [f"--peer-{flag.removeprefix('--')}" if str(flag).startswith("--") else flag for flag in own]
        address = {at: f"https://127.0.0.1:{ports[f'etcd-{at}-peer']}" for at in (1, 2, 3)}
        for at in (1, 2, 3):
            client = f"https://127.0.0.1:{ports[f'etcd-{at}-client']}"
            command = [self.tools / "bin/etcd", "--name", f"etcd-{at}", "--data-dir", self.folder / f"etcd-{at}/data"]
            command += ["--listen-client-urls", client, "--advertise-client-urls", client, "--logger", "zap"]
            command += ["--listen-peer-urls", address[at], "--initial-advertise-peer-urls", address[at]]
            command += ["--listen-metrics-urls", self.etcd_page(at)]
            command += ["--initial-cluster", ",".join(f"etcd-{other}={url}" for other, url in address.items())]
            command += ["--client-cert-auth", "--peer-client-cert-auth", "--auto-compaction-retention", "1h", *own, *peers]
            self.start(f"etcd-{at}", command)

    def etcd_page(self, at):
        """Where a member shows its numbers: without TLS or a login, as on an instance's loopback."""
        return f"http://127.0.0.1:{self.state['ports'][f'etcd-{at}-metrics']}"

    # Brokers: what an instance does (deploy/terraform/instance/broker.sh), without its volume and its name.

    def prepare_broker(self, broker):
        etc = self.folder / f"broker-{broker}/etc"
        etc.mkdir(parents=True, exist_ok=True)
        told = self.outputs["varve"]["value"]
        (etc / "server.properties.in").write_text(told["server_properties"])
        (etc / "instance.env").write_text(
            f"AWS_DEFAULT_REGION='{REGION}'\nCLUSTER='rig'\nROLE='broker'\nSECRETS='rig'\nWITH_SCRAM='1'\n"
            "EXTERNAL_PORTS='9200'\nEXTERNAL_TARGETS=''\nVARVE_URL=''\nVARVE_SHA256=''\n"
        )
        zone = f"{REGION}{'abc'[(broker - 1) % 3]}"
        script = f". {MODULE}/instance/broker.sh; refresh_tls \"$(id -gn)\"; write_environment; "
        script += f"render_properties {broker} {zone} >\"$ETC/server.properties\""
        environment = self.aws_environment(OWNER) | {"LIB": str(MODULE / "instance"), "ETC": str(etc)}
        self.run(["bash", "-c", script], environment)
        (etc / "aws").write_text(
            "# Brokers take the module's role, as instances do.\n"
            f"[default]\nrole_arn = {told['broker_role_arn']}\nsource_profile = owner\nregion = {REGION}\n"
            "[profile owner]\naws_access_key_id = test\naws_secret_access_key = test\n"
        )

    def start_broker(self, broker):
        ports, place = self.state["ports"], self.folder / f"broker-{broker}"
        etc = place / "etc"
        at = {name: f"127.0.0.1:{ports[f'{name}-{broker}']}" for name in ("client", "external", "internal", "http")}
        listeners = ",".join(f"{name.upper()}://{at[name]}" for name in ("internal", "client", "external"))
        members = ",".join(f"127.0.0.1:{ports[f'etcd-{member}-client']}" for member in (1, 2, 3))
        copies = min(3, self.state["brokers"])
        command = [self.binary, "--config", etc / "server.properties"]
        # What is elsewhere on a laptop; everything else is as the module says.
        for setting in [
            f"listeners={listeners}",
            f"advertised.listeners={listeners}",
            f"varve.http.listener={at['http']}",
            f"varve.data.dir={place / 'data'}",
            f"varve.metadata.url=etcd://{members}/rig",
            f"varve.metadata.etcd.ca.file={etc / 'tls/ca.pem'}",
            f"varve.metadata.etcd.certificate.file={etc / 'tls/node.pem'}",
            f"varve.metadata.etcd.key.file={etc / 'tls/node.pem'}",
            f"ssl.keystore.location={etc / 'tls/node.pem'}",
            f"ssl.truststore.location={etc / 'tls/ca.pem'}",
            f"default.replication.factor={copies}",
            f"min.insync.replicas={min(2, copies)}",
            f"offsets.topic.replication.factor={copies}",
            f"transaction.state.log.replication.factor={copies}",
            f"transaction.state.log.min.isr={min(2, copies)}",
            "varve.log.format=text",
            "varve.compactor.interval.ms=1000",
            "log.retention.check.interval.ms=500",
        ]:
            command += ["--override", setting]
        name, _, value = (etc / "environment").read_text().strip().partition("=")
        environment = self.aws_environment({"AWS_PROFILE": "default", name: value})
        environment["AWS_CONFIG_FILE"] = str(etc / "aws")
        # As the unit does (deploy/terraform/instance/certificate-at-start.conf).
        shutil.copyfile(etc / "tls/node.pem", etc / "tls/started.pem")
        self.start(f"broker-{broker}", command, environment)

    def await_ready(self):
        say("starting brokers")
        for broker in range(1, self.state["brokers"] + 1):
            self.await_broker(broker)

    def await_broker(self, broker):
        page = self.page(broker, "/readyz")

        def ready():
            self.all_run()
            with contextlib.suppress(OSError):
                return urllib.request.urlopen(page, timeout=5).status == 200

        eventually(f"broker {broker} is ready", ready)

    def page(self, broker, path):
        return f"http://127.0.0.1:{self.state['ports'][f'http-{broker}']}{path}"

    def metric(self, name):
        """Its sum over all labels and brokers that run."""
        total = 0.0
        for broker in range(1, self.state["brokers"] + 1):
            with contextlib.suppress(OSError):
                for line in urllib.request.urlopen(self.page(broker, "/metrics"), timeout=5).read().decode().splitlines():
                    if line.startswith((f"{name} ", f"{name}{{")):
                        total += float(line.rsplit(" ", 1)[1])
        return total

    def bootstrap(self):
        ports = self.state["ports"]
        return ",".join(f"127.0.0.1:{ports[f'client-{broker}']}" for broker in range(1, self.state["brokers"] + 1))

    def password(self):
        secret = ["secretsmanager", "get-secret-value", "--secret-id", "rig/admin-password"]
        command = [self.tools / "bin/aws", *secret, "--query", "SecretString", "--output", "text"]
        return self.run(command, self.aws_environment(OWNER)).strip()

    def write_client_properties(self):
        """For Kafka's tools: --bootstrap-server and --command-config."""
        text = self.outputs["varve"]["value"]["client_properties"]
        text = text.replace("PASSWORD", self.password()).replace("ca.pem", str(self.folder / "authority/ca.pem"))
        path = self.folder / "client.properties"
        path.touch(mode=0o600)
        path.write_text(text)

    def check_addresses(self):
        """Whoever reaches an emulator may do everything: nobody but this machine does."""
        for process in self.processes():
            addresses = listening(process.pid)
            beyond = [address for address, is_loopback in addresses if not is_loopback]
            if beyond or not addresses:
                raise SystemExit(f"rig: {process.name} listens on {beyond or 'nothing'}, and not on loopback alone")

    # Down

    def down(self):
        if not self.state_file.exists():
            say(f"there is none in {self.folder}")
            return
        self.load()
        self.stop_all()
        for path in [*self.folder.glob("etcd-*"), *self.folder.glob("broker-*"), *(self.folder / name for name in (
            "aws", "compute", "authority", "terraform", "terraform.tfstate", "terraform.tfstate.backup", "outputs.json",
            "client.properties",
        ))]:
            self.run(["rm", "-rf", path], dict(os.environ))
        self.state_file.unlink()
        say("everything has ended")

    def stop_all(self):
        """Brokers first, in order: they hand over, close their logs and say good-bye in etcd."""
        brokers = [process for process in self.processes() if process.name.startswith("broker-")]
        for group in (brokers, [process for process in self.processes() if process not in brokers]):
            for process in group:
                process.signal(signal.SIGTERM)
            for process in group:
                process.end(patience=60)

    # What runs

    def start(self, name, command, environment=None):
        place = self.folder / name
        place.mkdir(parents=True, exist_ok=True)
        process = Process.start(name, [str(word) for word in command], place, environment)
        self.state["processes"] = [one for one in self.state["processes"] if one["name"] != name] + [process.told()]
        self.save()

    def processes(self):
        return [Process(**told) for told in self.state["processes"]]

    def all_run(self):
        for process in self.processes():
            if not process.runs():
                log = self.folder / process.name / "output.log"
                raise SystemExit(f"rig: {process.name} has ended:\n{''.join(log.read_text().splitlines(True)[-20:])}")

    def run(self, command, environment, given=None):
        """A command to its end; what it printed."""
        done = subprocess.run([str(word) for word in command], env=environment, input=given, text=True, capture_output=True)
        if done.returncode != 0:
            raise SystemExit(f"rig: {command[0]} ended with {done.returncode}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}")
        return done.stdout

    def save(self):
        self.state_file.write_text(json.dumps(self.state, indent=2))

    def load(self):
        if not self.state_file.exists():
            raise SystemExit(f"rig: there is none in {self.folder}: start it with up")
        self.state = json.loads(self.state_file.read_text())
        outputs = self.folder / "outputs.json"
        self.outputs = json.loads(outputs.read_text()) if outputs.exists() else None


def main():
    parser = argparse.ArgumentParser(description="The cluster of deploy/terraform on this machine.")
    for name in ("tools", "folder", "binary"):
        parser.add_argument(f"--{name}", type=pathlib.Path, required=True)
    parser.add_argument("--free-ports", action="store_true")
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("up").add_argument("--brokers", type=int, default=3, choices=range(1, 8))
    verbs.add_parser("smoke")
    verbs.add_parser("down")
    options = parser.parse_args()
    rig = Rig(options)
    if options.verb == "up":
        rig.up(options.brokers)
    elif options.verb == "down":
        rig.down()
    else:
        from smoke import smoke

        rig.load()
        smoke(rig)


if __name__ == "__main__":
    sys.exit(main())
