"""What the instances' scripts send to CloudWatch, and whether the module's alarms look at it, and its dashboard shows it."""

import datetime
import json

import boto3

from rig import MODULE, OWNER, REGION, eventually, say

NAMESPACE = "Varve"
# This machine's disk, and not a volume of the module's.
ELSEWHERE = {"DataVolumeUsedPercent"}
BREACHES = {
    "LessThanThreshold": lambda value, threshold: value < threshold,
    "GreaterThanThreshold": lambda value, threshold: value > threshold,
}


def check(rig):
    """Every alarm over a node that runs has numbers, and in a cluster that is well none of them is over its threshold."""
    owner = {name.lower(): value for name, value in OWNER.items()}
    cloudwatch = boto3.client("cloudwatch", endpoint_url=rig.url("aws"), region_name=REGION, **owner)
    pages = cloudwatch.get_paginator("describe_alarms").paginate(AlarmNamePrefix="rig-")
    alarms = [alarm for page in pages for alarm in page["MetricAlarms"] if alarm["Namespace"] == NAMESPACE]
    running = {f"broker-{broker}" for broker in range(1, rig.state["brokers"] + 1)} | {f"etcd-{at}" for at in (1, 2, 3)}
    # The module has three brokers; a rig may have fewer, or more.
    alarms = [alarm for alarm in alarms if node(alarm) is None or node(alarm) in running]
    names = {alarm["AlarmName"] for alarm in alarms}
    wanted = ("no-controller", "etcd-majority", "leaderless", "under-min-isr", "broker-1-hot", "etcd-1-not-ready", "etcd-1-database")
    for name in (f"rig-{what}" for what in wanted):
        if name not in names:
            raise SystemExit(f"rig: the module has made no alarm {name}: {sorted(names)}")
    dashboard(cloudwatch, rig.outputs["varve"]["value"]["dashboard"], alarms)
    for at in (1, 2, 3):
        member(rig, at, "backup")

    def is_well():
        for broker in range(1, rig.state["brokers"] + 1):
            script(rig, f"broker-{broker}", "broker.sh", "metrics", {"HTTP": rig.page(broker, "")})
        for at in (1, 2, 3):
            member(rig, at, "metrics")
        found = {alarm["AlarmName"]: values(cloudwatch, alarm) for alarm in alarms}
        silent = [name for name, numbers in found.items() if not numbers]
        if silent:
            raise SystemExit(f"rig: nobody sends what these alarms look at: {silent}")
        breaching = [alarm["AlarmName"] for alarm in alarms if breaches(alarm, found[alarm["AlarmName"]])]
        if breaching:
            say(f"not well yet: {', '.join(breaching)}")
        return not breaching

    eventually("no alarm of a cluster that is well is over its threshold", is_well)
    say(f"{len(alarms)} alarms look at what nodes and members send, and all is well")


def dashboard(cloudwatch, name, alarms):
    """The dashboard has every alarm, and what it looks at."""
    body = json.loads(cloudwatch.get_dashboard(DashboardName=name)["DashboardBody"])
    shown = {kind: [one["properties"] for one in body["widgets"] if one["type"] == kind] for kind in ("alarm", "metric")}
    states = {arn for place in shown["alarm"] for arn in place["alarms"]}
    lines = {tuple(word for word in line if isinstance(word, str)) for place in shown["metric"] for line in place["metrics"]}
    for alarm in alarms:
        dimensions = sorted((one["Name"], one["Value"]) for one in alarm["Dimensions"])
        line = (NAMESPACE, alarm["MetricName"], *(word for pair in dimensions for word in pair))
        if alarm["AlarmArn"] not in states or line not in lines:
            raise SystemExit(f"rig: the dashboard {name} does not show {alarm['AlarmName']}: {body}")


def node(alarm):
    return next((one["Value"] for one in alarm["Dimensions"] if one["Name"] == "Node"), None)


def values(cloudwatch, alarm):
    """What was sent of the alarm's metric, minute by minute."""
    now = datetime.datetime.now(datetime.timezone.utc)
    told = cloudwatch.get_metric_statistics(
        Namespace=NAMESPACE, MetricName=alarm["MetricName"], Dimensions=alarm["Dimensions"], Period=60,
        StartTime=now - datetime.timedelta(hours=1), EndTime=now + datetime.timedelta(minutes=2), Statistics=[alarm["Statistic"]],
    )
    numbers = sorted(told["Datapoints"], key=lambda number: number["Timestamp"])
    return [number[alarm["Statistic"]] for number in numbers]


def breaches(alarm, numbers):
    """Whether the last minute is over the alarm's threshold."""
    if alarm["MetricName"] in ELSEWHERE:
        return False
    return BREACHES[alarm["ComparisonOperator"]](numbers[-1], alarm["Threshold"])


def member(rig, at, verb):
    """A command of a member's instance; members are on loopback, and have no names."""
    tls = rig.folder / f"etcd-{at}/etc/tls"
    tls.mkdir(parents=True, exist_ok=True)
    for name, source in (("ca.pem", "ca.pem"), ("node.pem", "etcd.pem")):
        (tls / name).write_bytes((rig.folder / "authority" / source).read_bytes())
        (tls / name).chmod(0o600)
    address = f"https://127.0.0.1:{rig.state['ports'][f'etcd-{at}-client']}"
    told = rig.outputs["varve"]["value"]
    (tls.parent / "instance.env").write_text(
        f"AWS_DEFAULT_REGION='{REGION}'\nCLUSTER='rig'\nROLE='etcd'\nDOMAIN='rig.internal'\nBUCKET='{told['bucket']}'\n"
        "ETCD_MEMBERS='etcd-1 etcd-2 etcd-3'\n"
    )
    stamps = rig.folder / f"etcd-{at}/stamps"
    environment = {"STAMPS": str(stamps), "HTTP": rig.etcd_page(at)}
    script(rig, f"etcd-{at}", "etcd.sh", f"url() {{ echo {address}; }}; {verb}", environment)


def script(rig, name, file, lines, environment):
    """Lines with the functions of an instance's script."""
    place = rig.folder / name
    (place / "etc/number").write_text(name.rsplit("-", 1)[1] + "\n")
    environment = rig.aws_environment(OWNER) | environment
    environment |= {"LIB": str(MODULE / "instance"), "ETC": str(place / "etc"), "DATA": str(place / "data")}
    rig.run(["bash", "-c", f". {MODULE}/instance/{file}; {lines}"], environment)
