"""A first load, by Bulk API 2.0 and by REST: what of its time and memory is ours.

The rows come from `feed_rows.py`, which has them ready; everything behind it is the product as it ships. Our own time
is the daemon's processor time, which no org and no link can hide. Beside it, in the same run: the same pages parsed and
inserted with nothing around it, and the script that people write today.
"""

import csv
import io
import json
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests

from tests.bench.feed_rows import ROWS_PER_PAGE, csv_pages
from tests.bench.front import ROOT, FrontProcess
from tests.bench.harness import SHIPPED, Figure, cpu_s, resident_mb, shipped_broker
from tests.broker import ProcessBroker
from tests.e2e.stack import Stack
from tests.e2e.waiting import until

_TIMEOUT_S = 300.0
_BARE = ("Id", "LastModifiedDate", "SystemModstamp", "IsDeleted", "FirstName", "LastName", "Name", "Email", "Phone")


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """How much of everything.

    Attributes:
        bulk, rest: Contacts.
        page_ms: How long the org works on a page of 2,000; few do it faster.
    """

    bulk: int = 1_000_000
    rest: int = 100_000
    page_ms: int = 200


FULL = Scale()


def load(directory: Path, scale: Scale = FULL) -> list[Figure]:
    """All figures."""
    return [*_bulk(directory / "bulk", scale), *_rest(directory / "rest", scale)]


def _bulk(directory: Path, scale: Scale) -> Iterator[Figure]:
    with loading(directory) as stack, RowsProcess(stack.told["url"], scale.bulk) as rows:
        done = loaded(stack, rows, scale.bulk)
        yield Figure(
            name=f"first load by Bulk, {scale.bulk:,} contacts: rows a second of our own time",
            value=scale.bulk / done.used_s,
            unit="/s",
            target=60_000,
            ceiling=_bare_rows_per_s(directory / "bare.db", min(scale.bulk, 200_000)),
        )
        yield Figure(name="rows a second, waiting included", value=scale.bulk / done.took_s, unit="/s")
        yield Figure(name="peak memory of the daemon", value=done.peak_mb, unit="MB", better="less")
        growth_mb = done.peak_mb - done.half_mb
        yield Figure(name="its growth in the second half", value=growth_mb, unit="MB", better="less", target=5)
        script = plain(stack, rows, directory / "plain.db")
        yield Figure(
            name="simple-salesforce and sqlite3: rows a second of its own time",
            value=scale.bulk / script["processor_s"],
            unit="/s",
        )
        yield Figure(name="its rows a second", value=scale.bulk / script["seconds"], unit="/s")
        yield Figure(name="its peak memory", value=script["peak_mb"], unit="MB", better="less")


def _rest(directory: Path, scale: Scale) -> Iterator[Figure]:
    with loading(directory) as stack, RowsProcess(stack.told["url"], scale.rest, scale.page_ms) as rows:
        done = loaded(stack, rows, scale.rest, bulk_threshold=10**9)
        org_s = sum(sent - asked for asked, sent in rows.pages())
        yield Figure(
            name=f"REST pages, {scale.rest:,} contacts, {scale.page_ms} ms each: not the org's of the time",
            value=(1 - org_s / done.took_s) * 100,
            unit="%",
            better="less",
            target=20,
        )
        yield Figure(name="rows a second of our own time, by REST", value=scale.rest / done.used_s, unit="/s")


class RowsProcess(FrontProcess):
    """The rows before a local org; use with `with`."""

    def __init__(self, org_url: str, count: int, page_ms: int = 0) -> None:
        words = ["--count", str(count), "--hold-ms", str(page_ms)]
        super().__init__("feed_rows", org_url, words, asked="/feed/pages")

    def make(self, names: Sequence[str]) -> None:
        """Have the result ready that selects these fields by the first Bulk API."""
        requests.post(f"{self.url}/feed/make", json={"names": list(names)}, timeout=_TIMEOUT_S).raise_for_status()

    def pages(self) -> list[tuple[float, float]]:
        """When each page was asked for and sent, by the machine's monotonic clock."""
        told: list[tuple[float, float]] = requests.get(f"{self.url}/feed/pages", timeout=_TIMEOUT_S).json()
        return told


@contextmanager
def loading(directory: Path) -> Iterator[Stack]:
    """The product with the settings that ship, its daemon not started, and an org with one contact."""
    directory.mkdir(exist_ok=True)
    broker = ProcessBroker(directory / "broker", shipped_broker())
    settings = {**SHIPPED, "sync": {"objects": ["Contact"], "verify_interval": "30d", "backoff_max": "60s"}}
    with Stack(directory, broker, settings, ("Contact",)) as stack:
        stack.org.set(api_limit=10**9, delivered_event_limit=10**9)
        stack.org.seed(contacts=1)
        yield stack


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """What a load took of the daemon.

    Attributes:
        used_s: Processor time.
        took_s: From the first page asked for.
        half_mb, peak_mb: The most memory until half of the pages had been asked for, and until the end.
    """

    used_s: float
    took_s: float
    half_mb: float
    peak_mb: float


def loaded(stack: Stack, rows: RowsProcess, count: int, **sync: Any) -> Loaded:
    """Start the daemon and let it load all."""
    stack.configure({"salesforce": rows.settings, "sync": sync})
    stack.daemon.launch()
    stack.daemon.until_logged("load.started", 60)
    used_s = cpu_s(stack.daemon.pid)
    until(lambda: len(rows.pages()) >= count / ROWS_PER_PAGE / 2, _TIMEOUT_S, say=lambda: "no page was asked for")
    _, half_mb = resident_mb(stack.daemon.pid)
    stack.daemon.until_logged("load.finished", _TIMEOUT_S)
    used_s, took_s = cpu_s(stack.daemon.pid) - used_s, time.monotonic() - rows.pages()[0][0]
    _, peak_mb = resident_mb(stack.daemon.pid)
    found = stack.replica.rows("SELECT count(*) AS count FROM contact")[0]["count"]
    assert found == count, f"{found} of {count} rows are in the replica"
    return Loaded(used_s=used_s, took_s=took_s, half_mb=half_mb, peak_mb=peak_mb)


def _bare_rows_per_s(path: Path, count: int) -> float:
    """The same pages through csv and sqlite3, in the same transactions, and nothing else."""
    pages = csv_pages(count, list(_BARE))
    with sqlite3.connect(path) as database:
        database.execute("PRAGMA journal_mode = WAL")
        database.execute(f"CREATE TABLE contact ({', '.join(_BARE)}, PRIMARY KEY (Id))")
        marks = ", ".join("?" * len(_BARE))
        used_s = time.process_time()
        for page in pages:
            rows = list(csv.reader(io.StringIO(page.decode())))[1:]
            for at in range(0, len(rows), 2000):
                database.executemany(f"INSERT INTO contact VALUES ({marks})", rows[at : at + 2000])  # noqa: S608 - marks
                database.commit()
        return count / (time.process_time() - used_s)


def plain(stack: Stack, rows: RowsProcess, path: Path) -> dict[str, Any]:
    """What the script that people write today tells of itself."""
    words = ["--url", rows.url, "--token", stack.told["access_token"], "--file", str(path)]
    run = subprocess.run(  # noqa: S603 - our own program
        [sys.executable, "-m", "tests.bench.plain_load", *words], cwd=ROOT, capture_output=True, text=True, check=True
    )
    told: dict[str, Any] = json.loads(run.stdout)
    return told
