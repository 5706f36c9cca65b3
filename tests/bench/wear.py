"""`make wear`: what a day of 100,000 changes writes to the disk, and the memory that the daemon then takes.

The real daemon between the local org and Mosquitto, told changes faster than on a day: as people make them, one by one,
and as jobs do, 200 records in a transaction. The kernel counts what each process caused to be written, in pages of 4 KB
(`write_bytes` in proc(5)); divided by the changes, that is what one change costs, whenever it comes. What the WAL holds
is copied back before and after, and counts: no change pays for another's. An idle while afterwards tells what a day
costs without any.
"""

import argparse
import os
import random
import sys
import tempfile
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import apsw

from tests.broker import ProcessBroker
from tests.e2e.stack import OBJECTS, Stack
from tests.e2e.waiting import until

DAY_CHANGES = 100_000
DAY_S = 86_400
# Of a day's changes so many are made one by one, the others by jobs.
SINGLE_SHARE = 0.2
JOB_RECORDS = 200
CEILING_BYTES = 2 * 10**9
SEED = {"accounts": 2_000, "contacts": 20_000, "leads": 2_000, "opportunities": 2_000}
IDLE_S = 60.0
# As on a node: the stack's own defaults hurry for the tests.
SETTINGS = {
    "salesforce": {"timeout": "30s"},
    "sync": {"backoff_max": "60s"},
    "mqtt": {"keepalive": "30s"},
    "signals": {"batch_interval": "5s"},
    "health": {"interval": "30s"},
}


@dataclass(frozen=True, slots=True)
class Wear:
    """What was written, bytes, by the daemon and by the broker."""

    daemon: float
    broker: float

    def __add__(self, other: "Wear") -> "Wear":
        return Wear(self.daemon + other.daemon, self.broker + other.broker)

    def __sub__(self, other: "Wear") -> "Wear":
        return Wear(self.daemon - other.daemon, self.broker - other.broker)

    def __truediv__(self, by: float) -> "Wear":
        return Wear(self.daemon / by, self.broker / by)

    @property
    def total(self) -> float:
        return self.daemon + self.broker


class Day:
    """A stack at work, measured."""

    def __init__(self, stack: Stack, broker: ProcessBroker) -> None:
        self._stack = stack
        self._broker = broker
        self._rng = random.Random(1)
        self._ids = list(stack.org.records("Contact"))

    def written(self) -> Wear:
        return Wear(_written(self._stack.daemon.pid), _written(self._broker.pid))

    def cost(self, changes: int, records: int, pause_s: float = 0) -> Wear:
        """Of one change, when they come `records` at a time, and so long after each other."""
        self._copied_back()
        before, version = self.written(), self._stack.replica.last_version()
        for number in range(1, changes // records + 1):
            self._edit(records)
            # Each transaction by itself, as on a day: those that wait together are written together.
            self._until_applied(version + number * records)
            time.sleep(pause_s)  # what is measured is that little happens
        until(self._published, 30.0)
        rest = Wear(self._copied_back(), 0)
        return (self.written() + rest - before) / (self._stack.replica.last_version() - version)

    def idle(self) -> Wear:
        """Of a day on which nothing changes."""
        before = self.written()
        time.sleep(IDLE_S)
        return (self.written() - before) / (IDLE_S / DAY_S)

    def _edit(self, records: int) -> None:
        stamp = str(self._rng.random())
        ids = self._rng.sample(self._ids, records)
        self._stack.org.change(
            *({"op": "update", "object": "Contact", "id": i, "values": {"Phone": stamp}} for i in ids)
        )

    def _until_applied(self, version: int) -> None:
        until(
            lambda: self._stack.replica.last_version() >= version, 30.0, say=lambda: f"version {version} did not come"
        )

    def _copied_back(self) -> int:
        """Empty the WAL into the file; the bytes that it took, which are ours to the kernel."""
        before = _written(os.getpid())
        with closing(apsw.Connection(str(self._stack.replica.path))) as connection:
            connection.set_busy_timeout(10_000)
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        return _written(os.getpid()) - before

    def _published(self) -> bool:
        return self._stack.replica.published_version() == self._stack.replica.last_version()


def _written(pid: int) -> int:
    lines = Path(f"/proc/{pid}/io").read_text(encoding="ascii").splitlines()
    return int(dict(line.split(": ") for line in lines)["write_bytes"])


def _resident_mb(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    return int(next(line for line in lines if line.startswith("VmRSS")).split()[1]) / 1000


def measure(directory: Path, singles: int, jobs: int, pause_s: float) -> int:
    """Print the figures; 1 if a day writes more than it may."""
    broker = ProcessBroker(directory / "broker")
    with Stack(directory, broker, SETTINGS, OBJECTS) as stack:
        stack.org.seed(**SEED)
        stack.start()
        stack.watcher.unsubscribe()
        day = Day(stack, broker)
        day.cost(JOB_RECORDS, JOB_RECORDS)
        print(f"resident at the start      {_resident_mb(stack.daemon.pid):8.1f} MB")
        single = day.cost(singles, 1, pause_s)
        print(f"a change alone             {single.total / 1000:8.1f} KB (broker {single.broker / 1000:.1f} KB)")
        job = day.cost(jobs * JOB_RECORDS, JOB_RECORDS)
        print(f"a change of {JOB_RECORDS} in a job    {job.total / 1000:8.1f} KB (broker {job.broker / 1000:.1f} KB)")
        resident_mb = _resident_mb(stack.daemon.pid)
        idle = day.idle()
        print(f"a day without a change     {idle.total / 1e6:8.1f} MB")
        print(f"resident after {singles + jobs * JOB_RECORDS:,} changes {resident_mb:8.1f} MB")
    mixed = DAY_CHANGES * (SINGLE_SHARE * single.total + (1 - SINGLE_SHARE) * job.total) + idle.total
    alone = DAY_CHANGES * single.total + idle.total
    print(f"a day of {DAY_CHANGES:,} changes, {SINGLE_SHARE:.0%} of them alone: {mixed / 1e9:.2f} GB (at most 2)")
    print(f"the worst such day, every one of them alone: {alone / 1e9:.2f} GB (at most 2)")
    return int(max(mixed, alone) > CEILING_BYTES)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--singles", type=int, default=4_000, help="changes made one by one")
    parser.add_argument("--jobs", type=int, default=100, help=f"transactions of {JOB_RECORDS} records")
    parser.add_argument(
        "--pause", type=float, default=0, help="seconds between those; 0.86: spread evenly over the day"
    )
    given = parser.parse_args()
    # Not in /tmp, which is memory on many systems: nothing would be written.
    with tempfile.TemporaryDirectory(dir="/var/tmp") as directory:
        return measure(Path(directory), given.singles, given.jobs, given.pause)


if __name__ == "__main__":
    sys.exit(main())
