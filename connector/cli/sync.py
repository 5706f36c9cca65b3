"""`salesforce-sync sync`: loads and catches up once, or asks the running daemon to."""

import asyncio
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

import click
import orjson
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from connector.app.once import sync_once
from connector.cli.outcome import FAILED
from connector.cli.project import org_settings
from connector.errors import ConfigError, StoreLocked
from connector.mesh.visitor import Visitor, address_of
from connector.settings import Settings

DAEMON_TIMEOUT_S = 600.0


@click.command
@click.option("--objects", metavar="NAME,...", help="Only these objects.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def sync(settings_path: str | None, objects: str | None, as_json: bool) -> None:
    """Load what is not loaded, and catch up on the rest, once.

    Beside a running daemon it asks the daemon to catch up.
    """
    settings = org_settings(settings_path)
    chosen = _chosen(settings, objects)
    with _bars() as advance:
        try:
            rounds = asyncio.run(sync_once(settings, chosen, advance))
        except StoreLocked:
            rounds = None
    if rounds is None:
        _ask_daemon(settings, chosen, as_json=as_json)
        return
    done = [asdict(r) for r in rounds]
    if as_json:
        click.echo(orjson.dumps({"rounds": done}))
    else:
        for r in done:
            click.echo(_line(r["kind"], r["objects"], r["records"], r["duration_s"], r["api_calls"], r["error"]))
    if any(r["error"] for r in done):
        sys.exit(FAILED)


def _chosen(settings: Settings, objects: str | None) -> Sequence[str] | None:
    if objects is None:
        return None
    names = [name for part in objects.split(",") if (name := part.strip())]
    unknown = [name for name in names if name not in settings.synced()]
    if unknown or not names:
        synced = ", ".join(settings.synced())
        raise ConfigError(f"--objects {', '.join(unknown) or objects!r}: not synced; these are: {synced}")
    return names


def _ask_daemon(settings: Settings, objects: Sequence[str] | None, *, as_json: bool) -> None:
    visitor = Visitor(address_of(settings.mqtt, settings.secrets))
    root = settings.mqtt.root
    with visitor.connected():
        click.echo("the daemon is running: asking it to catch up", err=True)
        request: Mapping[str, Any] = {"objects": list(objects)} if objects else {}
        replies = visitor.request(f"{root}/control/sync", request, f"{root}/reply/{visitor.client_id}")
        reply = replies.next(DAEMON_TIMEOUT_S)
        while reply.get("state") == "started":
            reply = replies.next(DAEMON_TIMEOUT_S)
    if as_json:
        click.echo(orjson.dumps(reply))
    elif reply.get("ok"):
        data = reply["data"]
        click.echo(_line("sync", data["objects"], data["records"], data["duration_s"], data["api_calls"], None))
    else:
        click.echo(f"salesforce-sync: {reply.get('error', {}).get('message', 'the daemon refused')}", err=True)
    if not reply.get("ok"):
        sys.exit(FAILED)


def _line(kind: str, objects: Sequence[str], records: int, duration_s: float, api_calls: int, error: str | None) -> str:
    if error is not None:
        return f"{kind} of {', '.join(objects)} failed: {error}"
    what = "records" if kind == "load" else "changes"
    return f"{kind} of {', '.join(objects)}: {records:,} {what} in {duration_s:.1f} s, {api_calls} API calls"


@contextmanager
def _bars() -> Iterator[Callable[[str, int, int], None]]:
    """A bar per object on a terminal, nothing in a pipe; yields what takes object, rows done and rows in total."""
    if not sys.stderr.isatty():
        yield lambda _name, _done, _total: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    tasks: dict[str, TaskID] = {}
    with Progress(*columns, console=Console(stderr=True)) as progress:

        def show(name: str, done: int, total: int) -> None:
            if name not in tasks:
                tasks[name] = progress.add_task(name, total=total)
            progress.update(tasks[name], completed=done, total=max(total, done))

        yield show
