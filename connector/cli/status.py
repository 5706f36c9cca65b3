"""`salesforce-sync status`: the replica in figures, and what the daemon says of itself."""

import queue
import sys
import time
from collections.abc import Mapping
from typing import Any

import click
import orjson
from rich.console import Console
from rich.table import Table

from connector.cli.project import open_settings
from connector.errors import BrokerDown, BrokerRefused, StoreUnusable
from connector.mesh.topics import Topics
from connector.mesh.visitor import Visitor, address_of
from connector.model.times import to_iso
from connector.settings import Settings
from connector.store.figures import ReplicaFigures
from connector.store.reader import ReadOnlyReplica

RETAINED_WAIT_S = 2.0
_DAY_MS = 24 * 3600 * 1000


@click.command
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def status(settings_path: str | None, as_json: bool) -> None:
    """Show the replica in figures, and the daemon's state and health."""
    settings = open_settings(settings_path)
    replica, problem = _replica(settings)
    daemon = _daemon(settings)
    if as_json:
        click.echo(orjson.dumps({"replica": replica, "problem": problem, "daemon": daemon}, option=_indent()))
        return
    _print(Console(), replica, problem, daemon)


def _replica(settings: Settings) -> tuple[Mapping[str, Any] | None, str | None]:
    since = to_iso(time.time_ns() // 1_000_000 - _DAY_MS)[: len("2026-11-22T17")]
    try:
        with ReadOnlyReplica(settings.storage.path) as replica:
            return _document(replica.figures(since)), None
    except StoreUnusable as error:
        return None, str(error)


def _document(figures: ReplicaFigures) -> dict[str, Any]:
    return {
        "version": figures.version,
        "published": figures.published,
        "objects": {name: {"records": o.records, "deleted": o.deleted} for name, o in figures.objects.items()},
        "queues": dict(figures.queues),
        "api_calls_24h": dict(figures.calls),
        "holes": [
            {"object": hole.object, "from": to_iso(hole.from_ms), "reason": hole.reason} for hole in figures.holes
        ],
    }


def _daemon(settings: Settings) -> dict[str, Any]:
    """The retained status and health documents; `state` unknown where the broker or the documents are not there."""
    topics = Topics(root=settings.mqtt.root)
    found: queue.SimpleQueue[tuple[str, bytes]] = queue.SimpleQueue()
    documents: dict[str, Any] = {}
    visitor = Visitor(address_of(settings.mqtt, settings.secrets))
    try:
        with visitor.connected():
            for topic in (topics.status, topics.health):
                visitor.subscribe(topic, lambda name, payload: found.put((name, payload)))
            deadline = time.monotonic() + RETAINED_WAIT_S
            while len(documents) < 2 and (left_s := deadline - time.monotonic()) > 0:  # noqa: PLR2004 - both topics
                name, payload = found.get(timeout=left_s)
                documents[name] = orjson.loads(payload)
    except queue.Empty:
        pass
    except (BrokerDown, BrokerRefused, orjson.JSONDecodeError) as error:
        return {"state": "unknown", "reason": str(error), "health": None}
    told = documents.get(topics.status) or {"state": "unknown", "reason": "the daemon has never told its state here"}
    return {**told, "health": documents.get(topics.health)}


def _print(console: Console, replica: Mapping[str, Any] | None, problem: str | None, daemon: Mapping[str, Any]) -> None:
    health = daemon["health"]
    console.print(f"daemon   [bold]{daemon['state']}[/bold]" + _because(daemon), highlight=False)
    if health is not None and daemon["state"] == "online":
        stream, api = health["stream"], health["api"]
        console.print(f"health   [bold]{health['state']}[/bold]  as of {health['as_of']}", highlight=False)
        console.print(f"stream   {stream['state']} ({stream['transport']})", highlight=False)
        console.print(f"API      {api['used']} of {api['max']} calls in 24 h", highlight=False)
        if health["last_error"] is not None:
            console.print(f"error    {health['last_error']['error']}", highlight=False, markup=False)
    if replica is None:
        console.print(f"replica  {problem}", highlight=False, markup=False)
        return
    console.print(f"replica  version {replica['version']}, published up to {replica['published']}", highlight=False)
    table = Table(box=None, header_style="bold")
    table.add_column("object")
    for name in ("records", "deleted", "open holes"):
        table.add_column(name, justify="right")
    for name, figures in replica["objects"].items():
        holes = sum(hole["object"] == name for hole in replica["holes"])
        table.add_row(name, f"{figures['records']:,}", f"{figures['deleted']:,}", str(holes))
    console.print(table)
    console.print(
        "waiting  " + ", ".join(f"{count} {name}" for name, count in replica["queues"].items()), highlight=False
    )


def _because(daemon: Mapping[str, Any]) -> str:
    if "reason" in daemon:
        return f": {daemon['reason']}"
    return f" since {daemon['since']}" if daemon.get("since") else ""


def _indent() -> int:
    return orjson.OPT_INDENT_2 if sys.stdout.isatty() else 0
