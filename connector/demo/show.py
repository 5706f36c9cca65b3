"""The show: starts the parts, lets people and a service work, then waits until all is quiet and compares."""

import asyncio
import random
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp

from connector.demo.compare import differing_records
from connector.demo.mesh import Service, Watcher
from connector.demo.parts import Parts, broker, daemon, free_port, local_org
from connector.demo.people import People
from connector.errors import ConnectorError
from connector.mesh.visitor import BrokerAddress, Visitor

SEED = {"accounts": 200, "contacts": 2000, "leads": 600, "opportunities": 400}
# To the millisecond, so that latency can be measured; and no daily allocation that ends a long show.
ORG_SETTINGS = {"whole_second_commits": False, "delivered_event_limit": 10_000_000}
EDITS_PER_S = 20.0
COMMAND_PAUSE_S = 1.0
LOAD_TIMEOUT_S = 60.0
QUIET_TIMEOUT_S = 30.0
LAST_WORDS = 8


@dataclass(slots=True, kw_only=True)
class Figures:
    """What the summary shows."""

    records: int = 0
    load_s: float = 0.0
    edits: int = 0
    changes: Mapping[str, int] = field(default_factory=dict)
    missed: int = 0
    p50_ms: float = 0.0
    p99_ms: float = 0.0
    commands: Mapping[str, int] = field(default_factory=dict)
    command_p50_ms: float = 0.0
    api_calls: int = 0
    differing: int = -1

    @property
    def good(self) -> bool:
        """Everything arrived, every command succeeded, and the replica is equal to the org."""
        return self.differing == 0 and not self.missed and set(self.commands) <= {"succeeded"} and self.edits > 0


@dataclass(slots=True, kw_only=True)
class Scene:
    """What the show is made of, while it runs."""

    parts: Parts
    watcher: Watcher
    people: People
    service: Service
    session: aiohttp.ClientSession
    figures: Figures


@asynccontextmanager
async def stage(say: Callable[[str], None]) -> AsyncIterator[Scene]:
    """Start everything, load the replica, and take it all down again at the end.

    Raises:
        ConnectorError: A part did not start or the first load did not end.
    """
    async with AsyncExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="salesforce-sync-demo-")))
        say("starting a Mosquitto broker and a local Salesforce org")
        port = await stack.enter_async_context(broker(directory))
        org = await stack.enter_async_context(local_org(directory))
        parts = Parts(directory=directory, broker_port=port, web_port=free_port(), org=org)
        session = await stack.enter_async_context(aiohttp.ClientSession())
        async with session.patch(f"{org['url']}/devorg/settings", json=ORG_SETTINGS) as answer:
            answer.raise_for_status()
        say("seeding the org: " + ", ".join(f"{count:,} {name}" for name, count in SEED.items()))
        async with session.post(f"{org['url']}/devorg/seed", json=SEED) as answer:
            answer.raise_for_status()
        client = stack.enter_context(Visitor(BrokerAddress(host="127.0.0.1", port=port)).connected())
        watcher = Watcher(client, asyncio.get_running_loop())
        watcher.watch()
        say("starting the daemon: it subscribes to the stream, then loads the records into SQLite")
        began = time.perf_counter()
        process = await stack.enter_async_context(daemon(parts))
        figures = Figures(records=await _loaded(watcher, parts, process), load_s=time.perf_counter() - began)
        people = People(org["url"], session, random.Random(7))  # noqa: S311 - the same show every time
        await people.arrive()
        yield Scene(
            parts=parts,
            watcher=watcher,
            people=people,
            service=Service(client, watcher),
            session=session,
            figures=figures,
        )


async def play(scene: Scene, stop: asyncio.Event) -> None:
    """People edit and the service sends commands until `stop` is set."""
    async with asyncio.TaskGroup() as group:
        group.create_task(scene.people.work(EDITS_PER_S, stop), name="demo.people")
        group.create_task(scene.service.work(COMMAND_PAUSE_S, stop), name="demo.service")


async def curtain(scene: Scene) -> Figures:
    """Wait until every edit has arrived, compare replica and org, and draw up the figures."""
    figures, watcher = scene.figures, scene.watcher
    deadline = time.monotonic() + QUIET_TIMEOUT_S
    figures.differing = await differing_records(scene.session, scene.parts)
    while figures.differing and time.monotonic() < deadline:
        await asyncio.sleep(0.2)
        figures.differing = await differing_records(scene.session, scene.parts)
    async with scene.session.get(f"{scene.parts.org['url']}/devorg/usage") as answer:
        figures.api_calls = (await answer.json())["api"]
    figures.edits = scene.people.edits
    figures.changes, figures.missed = dict(watcher.changes), watcher.missed
    figures.p50_ms, figures.p99_ms = percentile(watcher.latencies_ms, 50), percentile(watcher.latencies_ms, 99)
    figures.commands = dict(scene.service.statuses)
    figures.command_p50_ms = percentile(scene.service.round_trip_ms, 50)
    return figures


def percentile(values: "list[int] | list[float]", percent: int) -> float:
    """The value that `percent` of the values do not exceed; 0 of none."""
    if len(values) < 2:  # noqa: PLR2004 - quantiles need two
        return float(values[0]) if values else 0.0
    return statistics.quantiles(values, n=100, method="inclusive")[percent - 1]


async def _loaded(watcher: Watcher, parts: Parts, process: asyncio.subprocess.Process) -> int:
    ended = asyncio.create_task(process.wait(), name="demo.daemon")
    loaded = asyncio.create_task(watcher.all_loaded(), name="demo.loaded")
    try:
        await asyncio.wait((ended, loaded), timeout=LOAD_TIMEOUT_S, return_when=asyncio.FIRST_COMPLETED)
        if loaded.done():
            return loaded.result()
    finally:
        ended.cancel()
        loaded.cancel()
    log = parts.daemon_log.read_text(encoding="utf-8", errors="replace").splitlines()
    raise ConnectorError("the first load did not end; the daemon's last words:\n" + "\n".join(log[-LAST_WORDS:]))
