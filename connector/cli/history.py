"""`salesforce-sync history`: who changed what of a record when, and the record as it stood at a time."""

import sys
from collections.abc import Mapping
from typing import Any

import click
import orjson
from rich.markup import escape
from rich.table import Table

from connector.cli.outcome import FAILED
from connector.cli.plain import plain, table_console
from connector.cli.read import columns_of, json_option, opened_replica, print_json, print_record
from connector.mesh.envelope import change_data
from connector.model.change import Change
from connector.model.history import History, changed_ms
from connector.model.ids import to_record_id
from connector.model.times import to_iso, to_ms

_WIDEST_VALUE = 30


@click.command("history")
@click.argument("object_name", metavar="OBJECT")
@click.argument("record_id", metavar="ID")
@click.option("--at", "moment", metavar="TIME", help="Show the record as it stood then (2026-11-22T17:26:39Z).")
@click.option("--limit", default=100, show_default=True, type=click.IntRange(1), help="The newest changes, so many.")
@json_option
@click.pass_obj
def record_history(
    settings_path: str | None, object_name: str, record_id: str, moment: str | None, limit: int, as_json: bool
) -> None:
    """Show what happened to one record of OBJECT, newest first; exit 1 if nothing is known of it."""
    with opened_replica(settings_path) as replica:
        full = to_record_id(record_id)
        columns = columns_of(replica, object_name)
        history = replica.history(columns.name, full, sys.maxsize // 2 if moment is not None else limit)
        if moment is not None:
            _print_state(full, history.at(to_ms(moment)), as_json=as_json)
            return
    if as_json:
        # Read again: what the log holds as JSON would stand in one line of what is indented.
        changes = orjson.loads(orjson.dumps([change_data(change) for change in reversed(history.changes)]))
        print_json({"object": columns.name, "id": full, "changes": changes})
    else:
        _print_changes(history)
    if not history.changes and history.now is None:
        click.echo(f"salesforce-sync: nothing is known of {columns.name} {record_id}", err=True)
        sys.exit(FAILED)


def _print_state(record_id: str, values: Mapping[str, Any] | None, *, as_json: bool) -> None:
    if values is None:
        click.echo(f"salesforce-sync: {record_id} was not there then", err=True)
        sys.exit(FAILED)
    print_record({"Id": record_id, **values}, as_json=as_json)


def _print_changes(history: History) -> None:
    table = Table(box=None, header_style="bold")
    for name in ("version", "when", "what", "who", "origin", "changes"):
        table.add_column(name, no_wrap=name != "changes")
    for change in reversed(history.changes):
        who = change.commit.user if change.commit is not None and change.commit.user else ""
        origin = change.origin.value if change.command_id is None else f"{change.origin.value} {change.command_id}"
        when = to_iso(changed_ms(change))
        table.add_row(
            str(change.version), when, change.operation.value, who, escape(origin), escape(plain(_told(change)))
        )
    table_console().print(table)
    if history.known_since_ms is not None:
        click.echo(f"older changes than {to_iso(history.known_since_ms)} are not in the log, or not shown", err=True)


def _told(change: Change) -> str:
    if change.operation.value != "update":
        return ""
    before, after = change.before or {}, change.after or {}
    return ", ".join(f"{name}: {_short(before.get(name))} → {_short(after.get(name))}" for name in change.changed)


def _short(value: Any) -> str:
    text = orjson.dumps(value).decode()
    return text if len(text) <= _WIDEST_VALUE else text[: _WIDEST_VALUE - 1] + "…"
