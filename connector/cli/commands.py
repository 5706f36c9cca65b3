"""`create`, `update`, `delete` and `commands`: writes to the org, queued on disk; nothing here asks the org."""

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import click
import orjson
from rich.table import Table

from connector.app.queueing import CommandQueue
from connector.cli.outcome import FAILED, WRONG_USAGE
from connector.cli.plain import table_console
from connector.cli.project import open_settings
from connector.errors import CommandRejected
from connector.model.change import Operation
from connector.model.command import Command, CommandStatus
from connector.model.objects import FieldSpec, ObjectSpec
from connector.model.times import to_iso

_TRUTH = {"true": True, "false": False}

fields_argument = click.argument("assignments", metavar="FIELD=VALUE...", nargs=-1, required=True)
id_option = click.option("--id", "command_id", help="The idempotency key; one is made without it.")
conflict_option = click.option(
    "--on-conflict", type=click.Choice(["reject", "merge", "overwrite"]), help="Where the org changed the record, too."
)
dry_option = click.option("--dry-run", is_flag=True, help="Tell what would be sent, and do nothing.")
wait_option = click.option("--wait", "wait_s", type=click.FloatRange(0), help="Wait so many seconds for the result.")
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.command("create")
@click.argument("object_name", metavar="OBJECT")
@fields_argument
@id_option
@dry_option
@wait_option
@json_option
@click.pass_obj
def create_record(
    settings_path: str | None,
    object_name: str,
    assignments: Sequence[str],
    command_id: str | None,
    dry_run: bool,
    wait_s: float | None,
    as_json: bool,
) -> None:
    """Make a record of OBJECT in the org: queued on disk, sent by the daemon at once or by `push`."""
    with _queue(settings_path) as queue:
        spec = _spec(queue, object_name)
        data = _data(command_id=command_id, fields=_fields(spec, assignments))
        _run(queue, spec, Operation.CREATE, data, (dry_run, wait_s, as_json))


@click.command("update")
@click.argument("object_name", metavar="OBJECT")
@click.argument("record_id", metavar="ID")
@fields_argument
@id_option
@conflict_option
@dry_option
@wait_option
@json_option
@click.pass_obj
def update_record(
    settings_path: str | None,
    object_name: str,
    record_id: str,
    assignments: Sequence[str],
    command_id: str | None,
    on_conflict: str | None,
    dry_run: bool,
    wait_s: float | None,
    as_json: bool,
) -> None:
    """Change fields of a record of OBJECT in the org; FIELD= empties a field."""
    with _queue(settings_path) as queue:
        spec = _spec(queue, object_name)
        fields = _fields(spec, assignments)
        data = _data(command_id=command_id, id=record_id, fields=fields, on_conflict=on_conflict)
        _run(queue, spec, Operation.UPDATE, data, (dry_run, wait_s, as_json))


@click.command("delete")
@click.argument("object_name", metavar="OBJECT")
@click.argument("record_id", metavar="ID")
@id_option
@conflict_option
@dry_option
@wait_option
@json_option
@click.pass_obj
def delete_record(
    settings_path: str | None,
    object_name: str,
    record_id: str,
    command_id: str | None,
    on_conflict: str | None,
    dry_run: bool,
    wait_s: float | None,
    as_json: bool,
) -> None:
    """Delete a record of OBJECT in the org."""
    with _queue(settings_path) as queue:
        spec = _spec(queue, object_name)
        data = _data(command_id=command_id, id=record_id, on_conflict=on_conflict)
        _run(queue, spec, Operation.DELETE, data, (dry_run, wait_s, as_json))


@click.group("commands", invoke_without_command=True)
@click.option("--status", type=click.Choice([s.value for s in CommandStatus]), help="Only those of one status.")
@click.option("--limit", default=50, show_default=True, type=click.IntRange(1, 100_000), help="At most so many.")
@json_option
@click.pass_context
def commands(ctx: click.Context, status: str | None, limit: int, as_json: bool) -> None:
    """List commands, newest first; `retry` and `cancel` take one by its id."""
    if ctx.invoked_subcommand is not None:
        return
    with _queue(ctx.obj) as queue:
        found = queue.commands(CommandStatus(status) if status else None, limit)
    if as_json:
        click.echo(orjson.dumps([_document(c) for c in found]))
    else:
        _print(found)


@commands.command("retry")
@click.argument("command_id", metavar="ID")
@click.pass_obj
def retry(settings_path: str | None, command_id: str) -> None:
    """Try a command again that has failed, expired, met a conflict or has an unknown end."""
    with _queue(settings_path) as queue:
        again = queue.retry(command_id)
    click.echo(f"{again.command_id} is queued again")


@commands.command("cancel")
@click.argument("command_id", metavar="ID")
@click.pass_obj
def cancel(settings_path: str | None, command_id: str) -> None:
    """Take back a command that waits."""
    with _queue(settings_path) as queue:
        ended = queue.cancel(command_id)
    click.echo(f"{ended.command_id} is {ended.status}")


@contextmanager
def _queue(settings_path: str | None) -> Iterator[CommandQueue]:
    try:
        with CommandQueue(open_settings(settings_path)) as queue:
            yield queue
    except CommandRejected as error:
        for problem in error.problems:
            click.echo(f"salesforce-sync: {problem}", err=True)
        sys.exit(WRONG_USAGE)


def _spec(queue: CommandQueue, object_name: str) -> ObjectSpec:
    spec = queue.spec(object_name)
    if spec is None:
        raise CommandRejected(f"{object_name}: not a synced object, or never described yet: run `salesforce-sync sync`")
    return spec


def _data(**members: Any) -> dict[str, Any]:
    return {"sender": "salesforce-sync"} | {name: value for name, value in members.items() if value is not None}


def _fields(spec: ObjectSpec, assignments: Sequence[str]) -> dict[str, Any]:
    """FIELD=VALUE as JSON values of the fields' kinds; what does not fit stays text and is told by the checks."""
    names = {name.lower(): name for name in spec.described}
    fields = {}
    for assignment in assignments:
        name, equals, text = assignment.partition("=")
        if not equals or not name:
            raise CommandRejected(f"{assignment[:80]}: expected FIELD=VALUE")
        spelled = names.get(name.lower(), name)
        fields[spelled] = _value(spec.described.get(spelled), text)
    return fields


def _value(field: FieldSpec | None, text: str) -> Any:
    if field is None or text == "":
        return text or None
    try:
        match field.kind:
            case "boolean":
                return _TRUTH.get(text.lower(), text)
            case "integer":
                return int(text)
            case "number":
                return float(text)
            case _:
                return text
    except ValueError:
        return text


def _run(
    queue: CommandQueue,
    spec: ObjectSpec,
    operation: Operation,
    data: Mapping[str, Any],
    how: tuple[bool, float | None, bool],
) -> None:
    dry_run, wait_s, as_json = how
    if dry_run:
        status, told = queue.rehearse(spec.name, operation, data)
        click.echo(orjson.dumps({"status": status, "dry_run": told}, option=orjson.OPT_INDENT_2))
        return
    command = queue.add(spec.name, operation, data)
    if wait_s is not None:
        command = queue.wait(command.command_id, wait_s)
    if as_json:
        click.echo(orjson.dumps(_document(command)))
    else:
        click.echo(_line(command))
    if wait_s is not None and command.status is not CommandStatus.SUCCEEDED:
        sys.exit(FAILED)


def _line(command: Command) -> str:
    if not command.status.final:
        return f"{command.command_id} is queued: a running daemon sends it at once, `salesforce-sync push` without one"
    said = "; ".join(f"{problem['code']} {problem['message']}" for problem in command.errors)
    record = f" {command.record_id}" if command.record_id else ""
    return f"{command.command_id} {command.status}{record}" + (f": {said}" if said else "")


def _document(command: Command) -> dict[str, Any]:
    return {
        "command_id": command.command_id,
        "status": command.status,
        "object": command.object,
        "operation": command.operation,
        "id": command.record_id,
        "attempts": command.attempts,
        "errors": list(command.errors),
        "conflict": command.conflict,
        "sender": command.sender,
        "accepted_at": to_iso(command.accepted_ms),
        "retry_at": None if command.retry_ms is None else to_iso(command.retry_ms),
        "completed_at": None if command.completed_ms is None else to_iso(command.completed_ms),
    }


def _print(found: Sequence[Command]) -> None:
    table = Table(box=None, header_style="bold")
    for name in ("command", "status", "object", "operation", "record", "tries", "accepted", "said"):
        table.add_column(name, overflow="fold")
    for c in found:
        said = ", ".join(sorted({problem["code"] for problem in c.errors}))
        said = said or ", ".join(c.conflict or {})
        row = (c.command_id, c.status, c.object, c.operation, c.record_id or "", str(c.attempts))
        table.add_row(*row, to_iso(c.accepted_ms)[:19], said)
    table_console().print(table)
