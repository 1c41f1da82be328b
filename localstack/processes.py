"""Processes that outlive the command which started them, found again by id and start time."""

import os
import pathlib
import signal
import subprocess
import time


class Process:
    def __init__(self, name, pid, started):
        self.name, self.pid, self.started = name, pid, started

    @staticmethod
    def start(name, command, place, environment=None):
        """Starts a command in `place`, where it also writes what it prints (output.log)."""
        with open(place / "output.log", "ab") as log:
            child = subprocess.Popen(
                command, cwd=place, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        return Process(name, child.pid, start_time(child.pid))

    def told(self):
        return {"name": self.name, "pid": self.pid, "started": self.started}

    def runs(self):
        """Whether it is still the same process: ids are used again."""
        return self.started is not None and start_time(self.pid) == self.started

    def signal(self, number):
        if self.runs():
            os.kill(self.pid, number)

    def end(self, patience):
        """Waits until it has ended, and ends it after `patience` seconds."""
        end = time.monotonic() + patience
        while self.runs():
            if time.monotonic() > end:
                self.signal(signal.SIGKILL)
            time.sleep(0.05)


def start_time(pid):
    """In ticks since the machine started; None when it is gone, or waits for its parent only to be told."""
    try:
        fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    if fields[0] == "Z":
        return None
    return int(fields[19])


def descendants(pid):
    """A process and those that it started."""
    found = [pid]
    for tasks in pathlib.Path(f"/proc/{pid}/task").glob("*/children"):
        for child in tasks.read_text().split():
            found += descendants(int(child))
    return found


def listening(pid):
    """Where a process, or one that it started, listens: (address, is it IPv4's loopback) for each socket."""
    inodes = set()
    for one in descendants(pid):
        for descriptor in pathlib.Path(f"/proc/{one}/fd").iterdir():
            try:
                target = os.readlink(descriptor)
            except OSError:
                continue
            if target.startswith("socket:["):
                inodes.add(target[8:-1])
    found = []
    for table in ("tcp", "tcp6"):
        for line in pathlib.Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            local, state, inode = fields[1], fields[3], fields[9]
            # 0A: listening. IPv4 addresses are in the machine's byte order: 127.x.y.z ends in 7F.
            if state == "0A" and inode in inodes:
                found.append((f"{table} {local}", table == "tcp" and local.split(":")[0].endswith("7F")))
    return found
