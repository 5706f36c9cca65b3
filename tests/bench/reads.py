"""Reading a replica of a million contacts while events come in: beside the daemon, and over MQTT from it.

The rows are put into the replica's file by the store itself: loading them from a local org would measure that org.
Everything that is asked is answered by the product as it runs, which applies and publishes a hundred events a second
meanwhile; who asks is a process of its own, as a user's program is.
"""

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tests.bench.contacts import fill
from tests.bench.harness import Figure, cpu_s, percentile
from tests.e2e.org import OrgAdmin
from tests.e2e.stack import Stack

EVENTS_PER_S = 100
_TRANSACTIONS_PER_S = 10
_TARGETS_MS: Mapping[str, Mapping[str, float]] = {
    "in process": {"get": 2.0, "where": 50.0, "text": 50.0},
    "over MQTT": {"get": 10.0, "where": 50.0, "text": 50.0},
}


def reads(stack: Stack) -> list[Figure]:
    """Times of single reads, one after the other."""
    fill(stack.replica.path)
    stack.start()
    askers = {"in process": str(stack.daemon.settings), "over MQTT": f"{stack.broker.host}:{stack.broker.port}"}
    with edits(stack) as made:
        before, began_s, used_s = stack.replica.last_version(), time.monotonic(), cpu_s(stack.daemon.pid)
        figures = [figure for where, asked in askers.items() for figure in _figures(where, _asked(stack, asked))]
        took_s = time.monotonic() - began_s
        rate = (stack.replica.last_version() - before) / took_s
        load = (cpu_s(stack.daemon.pid) - used_s) / took_s
    assert made, "nothing was edited"
    return [
        *figures,
        Figure(name="changes a second meanwhile", value=rate, unit="/s", target=EVENTS_PER_S * 0.9),
        Figure(name="the daemon's processor time meanwhile", value=load * 100, unit="%", better="less"),
    ]


@contextmanager
def edits(stack: Stack) -> Iterator[list[int]]:
    """So many events a second, in transactions of ten records; yields how many there were."""
    stop, made = threading.Event(), [0]
    ids = sorted(stack.org.records("Contact"))
    thread = threading.Thread(target=_edit, args=(stack.told["url"], ids, stop, made))
    thread.start()
    try:
        yield made
    finally:
        stop.set()
        thread.join()


def _edit(url: str, ids: list[str], stop: threading.Event, made: list[int]) -> None:
    size, due_s = EVENTS_PER_S // _TRANSACTIONS_PER_S, time.monotonic()
    with OrgAdmin(url) as org:
        while not stop.wait(max(0.0, due_s - time.monotonic())):
            due_s += 1 / _TRANSACTIONS_PER_S
            chosen = [ids[(made[0] + at) % len(ids)] for at in range(size)]
            org.change(
                *({"op": "update", "object": "Contact", "id": i, "values": {"Phone": str(made[0])}} for i in chosen)
            )
            made[0] += size


def _asked(stack: Stack, where: str) -> Mapping[str, Mapping[str, list[float]]]:
    command = [sys.executable, "-m", "tests.bench.asker", str(stack.replica.path), where]
    told = subprocess.run(  # noqa: S603 - our own program
        command, capture_output=True, text=True, check=True, env=stack.daemon.env, cwd=Path(__file__).parents[2]
    )
    times: Mapping[str, Mapping[str, list[float]]] = json.loads(told.stdout)
    return times


def _figures(where: str, times: Mapping[str, Mapping[str, list[float]]]) -> Iterator[Figure]:
    for name, taken in times.items():
        for part, target in ((0.5, None), (0.99, _TARGETS_MS[where][name])):
            yield Figure(
                name=f"{name} {where}, p{part * 100:.0f}",
                value=percentile(taken["asked"], part),
                unit="ms",
                better="less",
                target=target,
                ceiling=percentile(taken["bare"], part),
            )
