"""What `sync` and `verify` share: which objects, progress on a terminal, and a daemon that is asked instead."""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import click
import orjson
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from connector.cli.outcome import FAILED
from connector.errors import ConfigError
from connector.mesh.visitor import Visitor, address_of
from connector.settings import Settings

DAEMON_TIMEOUT_S = 600.0


def chosen_objects(settings: Settings, objects: str | None, option: str) -> Sequence[str] | None:
    """The objects of a list with commas; None: none was given.

    Raises:
        ConfigError: One is not synced.
    """
    if objects is None:
        return None
    names = [name for part in objects.split(",") if (name := part.strip())]
    unknown = [name for name in names if name not in settings.synced()]
    if unknown or not names:
        synced = ", ".join(settings.synced())
        raise ConfigError(f"{option} {', '.join(unknown) or objects!r}: not synced; these are: {synced}")
    return names


def ask_daemon(
    settings: Settings, verb: str, request: Mapping[str, Any], *, as_json: bool = False
) -> Mapping[str, Any]:
    """Have the running daemon do it; its last reply. A refusal is told, and ends the command.

    Args:
        settings: Name the broker.
        verb: Of the control message.
        request: Its members.
        as_json: Print a refusal as it came, too.

    Raises:
        BrokerDown, BrokerRefused: It cannot be asked, or does not answer.
    """
    visitor = Visitor(address_of(settings.mqtt, settings.secrets))
    root = settings.mqtt.root
    with visitor.connected():
        click.echo(f"the daemon is running: asking it to {verb}", err=True)
        replies = visitor.request(f"{root}/control/{verb}", request, f"{root}/reply/{visitor.client_id}")
        reply = replies.next(DAEMON_TIMEOUT_S)
        while reply.get("state") == "started":
            reply = replies.next(DAEMON_TIMEOUT_S)
    if reply.get("ok"):
        return reply
    if as_json:
        click.echo(orjson.dumps(reply))
    else:
        click.echo(f"salesforce-sync: {reply.get('error', {}).get('message', 'the daemon refused')}", err=True)
    sys.exit(FAILED)


@contextmanager
def progress_bars() -> Iterator[Callable[[str, int, int], None]]:
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
