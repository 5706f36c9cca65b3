"""`list`, `get` and `search`: records from the replica, at no API call."""

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import click
import orjson
from rich.markup import escape
from rich.table import Table

from connector.cli.outcome import FAILED, WRONG_USAGE
from connector.cli.plain import plain, table_console
from connector.cli.project import open_settings
from connector.model.ids import to_record_id
from connector.model.objects import ObjectColumns
from connector.model.query import AllOf, Filter, FilterOperator, Value, containing
from connector.model.record import StoredRecord
from connector.store.reader import ReadOnlyReplica

WIDEST_CELL = 40
COLUMNS_ON_A_TERMINAL = 8

limit_option = click.option("--limit", default=50, show_default=True, type=click.IntRange(1), help="At most so many.")
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.command("list")
@click.argument("object_name", metavar="OBJECT")
@limit_option
@click.option("--after", help="Go on behind a page: its `next`.")
@click.option("--order-by", metavar="FIELD [desc]", help="Sort by a field; by Id without it.")
@json_option
@click.pass_obj
def list_records(
    settings_path: str | None, object_name: str, limit: int, after: str | None, order_by: str | None, as_json: bool
) -> None:
    """List the records of OBJECT."""
    with opened_replica(settings_path) as replica:
        columns = columns_of(replica, object_name)
        page = replica.list(columns.name, limit=limit, after=after, order_by=order_by)
    _print(columns, page.records, page.next, as_json=as_json)


@click.command("get")
@click.argument("object_name", metavar="OBJECT")
@click.argument("record_id", metavar="ID")
@json_option
@click.pass_obj
def get_record(settings_path: str | None, object_name: str, record_id: str, as_json: bool) -> None:
    """Show one record of OBJECT; exit 1 if it is not there."""
    with opened_replica(settings_path) as replica:
        columns = columns_of(replica, object_name)
        record = replica.get(columns.name, to_record_id(record_id))
    if record is None:
        click.echo(f"salesforce-sync: no {columns.name} {record_id} in the replica", err=True)
        sys.exit(FAILED)
    print_record(record.document(), as_json=as_json)


@click.command("search")
@click.argument("object_name", metavar="OBJECT")
@click.argument("terms", metavar="TERM | FIELD=VALUE...", nargs=-1, required=True)
@limit_option
@click.option("--after", help="Go on behind a page: its `next`.")
@json_option
@click.pass_obj
def search_records(
    settings_path: str | None, object_name: str, terms: Sequence[str], limit: int, after: str | None, as_json: bool
) -> None:
    """Find records of OBJECT by words, or by fields.

    TERM is a word, or the beginning of one, in any text field. FIELD=VALUE finds VALUE anywhere in a text field,
    without regard to case; other fields by equality.
    """
    with opened_replica(settings_path) as replica:
        columns = columns_of(replica, object_name)
        where = AllOf(tuple(_filter(columns, term) for term in terms if _names_field(columns, term)))
        text = " ".join(term for term in terms if not _names_field(columns, term)) or None
        page = replica.search(columns.name, text, where=where, limit=limit, after=after)
    _print(columns, page.records, page.next, as_json=as_json)


@contextmanager
def opened_replica(settings_path: str | None) -> Iterator[ReadOnlyReplica]:
    """The replica of the settings; what is asked for wrongly ends the process as wrong usage."""
    with ReadOnlyReplica(open_settings(settings_path).storage.path) as replica:
        try:
            yield replica
        except ValueError as error:
            click.echo(f"salesforce-sync: {error}", err=True)
            sys.exit(WRONG_USAGE)


def columns_of(replica: ReadOnlyReplica, name: str) -> ObjectColumns:
    """The object, its name in any spelling."""
    objects = replica.objects()
    for known, columns in objects.items():
        if known.lower() == name.lower():
            return columns
    raise ValueError(f"{name} is not a synced object; these are: {', '.join(sorted(objects))}")


def _names_field(columns: ObjectColumns, term: str) -> bool:
    field, equals, _ = term.partition("=")
    return bool(equals) and (field == "Id" or field in columns.fields)


def _filter(columns: ObjectColumns, term: str) -> Filter:
    field, _, text = term.partition("=")
    kind = "text" if field == "Id" else columns.fields[field]
    if text == "":
        return Filter(field, FilterOperator.EQ, None)
    if kind == "text":
        return Filter(field, FilterOperator.LIKE, containing(text))
    return Filter(field, FilterOperator.EQ, _value(field, kind, text))


def _value(field: str, kind: str, text: str) -> Value:
    try:
        match kind:
            case "boolean":
                return {"true": True, "false": False, "1": True, "0": False}[text.lower()]
            case "integer":
                return int(text)
            case "number":
                return float(text)
            case _:
                return text
    except (KeyError, ValueError):
        raise ValueError(f"{field}: expected a {kind}") from None


def _print(columns: ObjectColumns, records: Sequence[StoredRecord], following: str | None, *, as_json: bool) -> None:
    if as_json:
        print_json({"object": columns.name, "records": [record.document() for record in records], "next": following})
        return
    names = ["Id", *columns.fields][:COLUMNS_ON_A_TERMINAL]
    table = Table(box=None, header_style="bold")
    for name in names:
        table.add_column(name, no_wrap=True)
    for record in records:
        values = {"Id": record.id, **record.values}
        table.add_row(*(_cell(values[name], WIDEST_CELL) for name in names))
    table_console().print(table)
    if following is not None:
        click.echo(f"more: --after {following}", err=True)


def _cell(value: Any, widest: int | None) -> str:
    return escape("" if value is None else plain(str(value).replace("\n", " "), widest))


def print_record(record: Mapping[str, Any], *, as_json: bool) -> None:
    """One record, a line per field."""
    if as_json:
        print_json(record)
        return
    table = Table(show_header=False, box=None)
    for name, value in record.items():
        table.add_row(f"[bold]{name}[/bold]", _cell(value, None))
    table_console().print(table)


def print_json(value: object) -> None:
    """JSON, indented on a terminal."""
    click.echo(orjson.dumps(value, option=orjson.OPT_INDENT_2 if sys.stdout.isatty() else 0).decode())
