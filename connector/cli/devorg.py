"""`salesforce-sync devorg`: run a local org, and edit or upset one that runs."""

import asyncio
import json
import re
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import IO, Any

import click
import requests

from connector.devorg.admin.interface import description
from connector.devorg.server import DevOrg, serve

DEFAULT_PORT = 8620
DEFAULT_URL = f"http://127.0.0.1:{DEFAULT_PORT}"
DEFAULT_DIRECTORY = Path("data/devorg")
REQUEST_TIMEOUT_S = 600  # of a seed of two million records
EFFECTS = (
    "html",
    "close",
    "drop_response",
    "truncate",
    "half_open",
    "unknown_client",
    "invalid_replay_id",
    "disconnect",
    "duplicate",
)
_UNITS_S = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86_400}

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


class Org:
    """A running local org, as its admin interface shows it."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")

    def ask(self, method: str, path: str, order: Mapping[str, Any] | None = None) -> Any:
        """The answer of one admin resource; ends the program where there is none or it refuses."""
        try:
            answer = requests.request(
                method,
                f"{self.url}/devorg{path}",
                data=None if method == "GET" else json.dumps(order or {}),
                headers={} if method == "GET" else {"Content-Type": "application/json"},
                timeout=REQUEST_TIMEOUT_S,
            )
        except requests.RequestException as error:
            message = f"no local org answers at {self.url}: start one with `salesforce-sync devorg`"
            raise Unreachable(message) from error
        if not answer.ok:
            raise click.ClickException(_reason(answer))
        return answer.json() if answer.content else None


class Unreachable(click.ClickException):
    """No local org answers."""

    exit_code = 3


def _reason(answer: requests.Response) -> str:
    try:
        return "; ".join(f"{error['errorCode']}: {error['message']}" for error in answer.json())
    except (ValueError, KeyError, TypeError):
        return f"{answer.request.url} answered {answer.status_code}: is this a local org?"


def _show(answer: Any) -> None:
    click.echo(json.dumps(answer, indent=2 if sys.stdout.isatty() else None))


def seconds(text: str) -> float:
    """Seconds of a duration such as `90s`, `15m`, `72h` or `-1h`.

    Raises:
        click.BadParameter: It is none.
    """
    found = re.fullmatch(r"(-?\d+(?:\.\d+)?)(ms|s|m|h|d)", text)
    if found is None:
        raise click.BadParameter(f"{text}: expected a duration such as 90s, 15m or 72h")
    return float(found.group(1)) * _UNITS_S[found.group(2)]


def values(pairs: Iterable[str]) -> dict[str, Any]:
    """Field values of `Name=text` (an empty text is null) and `Name:=json`.

    Raises:
        click.BadParameter: A pair is neither.
    """
    found: dict[str, Any] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        try:
            value = json.loads(text) if name.endswith(":") else text or None
        except ValueError as error:
            raise click.BadParameter(f"{pair}: no JSON behind :=") from error
        if not equals or not name.rstrip(":"):
            raise click.BadParameter(f"{pair}: expected Field=value")
        found[name.rstrip(":")] = value
    return found


@click.group(invoke_without_command=True)
@click.option("--url", default=DEFAULT_URL, envvar="SALESFORCE_SYNC_DEVORG_URL", show_default=True)
@click.pass_context
def devorg(context: click.Context, url: str) -> None:
    """Run a local Salesforce org for development; edit and upset one that runs."""
    context.obj = Org(url)
    if context.invoked_subcommand is None:
        context.invoke(serve_command)


@devorg.command("serve")
@click.option("--port", default=DEFAULT_PORT, show_default=True, help="0 takes any free port.")
@click.option("--pubsub-port", type=int, help="Serve the Pub/Sub API too; 0 takes any free port.")
@click.option("--directory", type=click.Path(path_type=Path), default=DEFAULT_DIRECTORY, show_default=True)
@json_option
def serve_command(port: int, pubsub_port: int | None, directory: Path, as_json: bool) -> None:
    """Run a local org until interrupted."""
    try:
        asyncio.run(serve(directory, port, _announce_json if as_json else _announce, pubsub_port=pubsub_port))
    except (OSError, ImportError) as error:
        raise click.ClickException(str(error)) from error


def _announce_json(org: DevOrg) -> None:
    click.echo(json.dumps(description(org.ctx, org.keys)))


def _announce(org: DevOrg) -> None:
    for name, value in description(org.ctx, org.keys).items():
        click.echo(f"{name:18} {value}")
    click.echo("Interrupt with Ctrl-C.")


@devorg.command()
@json_option
@click.pass_obj
def info(org: Org, as_json: bool) -> None:
    """Show where the org is and how to log in to it."""
    about = org.ask("GET", "/")
    if as_json:
        return _show(about)
    for name, value in about.items():
        click.echo(f"{name:18} {value}")
    return None


@devorg.command()
@click.option("--accounts", default=0)
@click.option("--contacts", default=0)
@click.option("--leads", default=0)
@click.option("--opportunities", default=0)
@click.option("--number", default=1, show_default=True, help="Another number, other records.")
@click.option("--live", is_flag=True, help="Make them now, with change events, not as records of the last year.")
@click.pass_obj
def seed(org: Org, /, live: bool, **counts: int) -> None:
    """Fill the org with made-up records."""
    for name, made in org.ask("POST", "/seed", {**counts, "historic": not live}).items():
        click.echo(f"{name:18} {made}")


def _write(org: Org, changes: list[dict[str, Any]], user: str) -> None:
    """Make the changes in one transaction of the org, and print the ids."""
    order = {"changes": changes} | ({"user": user} if user else {})
    for result in org.ask("POST", "/changes", order)["results"]:
        click.echo(result["id"])


object_argument = click.argument("name", metavar="OBJECT")
id_arguments = click.argument("ids", nargs=-1, required=True, metavar="ID...")
pair_arguments = click.argument("pairs", nargs=-1, required=True, metavar="FIELD=VALUE...")
user_option = click.option("--user", default="", help="Id of the user who writes; an editor of the org if empty.")


@devorg.command()
@object_argument
@pair_arguments
@user_option
@click.pass_obj
def create(org: Org, name: str, pairs: tuple[str, ...], user: str) -> None:
    """Create a record, as a person in the org's pages would."""
    _write(org, [{"op": "create", "object": name, "values": values(pairs)}], user)


@devorg.command()
@object_argument
@click.argument("record_id", metavar="ID")
@pair_arguments
@user_option
@click.pass_obj
def change(org: Org, name: str, record_id: str, pairs: tuple[str, ...], user: str) -> None:
    """Change fields of a record, as a person in the org's pages would."""
    _write(org, [{"op": "update", "object": name, "id": record_id, "values": values(pairs)}], user)


devorg.add_command(change, "update")


@devorg.command()
@object_argument
@id_arguments
@user_option
@click.pass_obj
def delete(org: Org, name: str, ids: tuple[str, ...], user: str) -> None:
    """Delete records, in one transaction."""
    _write(org, [{"op": "delete", "object": name, "id": one} for one in ids], user)


@devorg.command()
@object_argument
@id_arguments
@user_option
@click.pass_obj
def undelete(org: Org, name: str, ids: tuple[str, ...], user: str) -> None:
    """Take records back out of the recycle bin, in one transaction."""
    _write(org, [{"op": "undelete", "object": name, "id": one} for one in ids], user)


@devorg.command()
@object_argument
@id_arguments
@user_option
@click.pass_obj
def purge(org: Org, name: str, ids: tuple[str, ...], user: str) -> None:
    """Delete records for good; no change event tells of it."""
    _write(org, [{"op": "purge", "object": name, "id": one} for one in ids], user)


@devorg.command()
@click.argument("file", type=click.File())
@click.option("--hold", is_flag=True, help="Leave the transaction open; see `commit` and `rollback`.")
@user_option
@click.pass_obj
def apply(org: Org, file: IO[str], hold: bool, user: str) -> None:
    """Make the changes of a JSON file (`-` for standard input) in one transaction.

    The file holds a list such as [{"op": "update", "object": "Lead", "id": "00Q...", "values": {"Company": "X"}}].
    """
    try:
        changes = json.load(file)
    except ValueError as error:
        raise click.BadParameter(f"{file.name}: no JSON: {error}") from error
    _show(org.ask("POST", "/changes", {"changes": changes, "hold": hold} | ({"user": user} if user else {})))


@devorg.command()
@click.argument("key")
@click.pass_obj
def commit(org: Org, key: str) -> None:
    """Commit a transaction that was left open."""
    org.ask("POST", f"/transactions/{key}/commit")


@devorg.command()
@click.argument("key")
@click.pass_obj
def rollback(org: Org, key: str) -> None:
    """Undo a transaction that was left open."""
    org.ask("POST", f"/transactions/{key}/rollback")


@devorg.command()
@click.argument("duration")
@click.pass_obj
def advance(org: Org, duration: str) -> None:
    """Move the org's clock on, for instance by 72h."""
    click.echo(org.ask("POST", "/time", {"advance_s": seconds(duration)})["now"])


@devorg.command()
@click.argument("kind")
@click.option("--count", default=1, show_default=True, help="How often; 0 until it is cleared.")
@click.option("--skip", default=0, help="Let so many pass first.")
@click.option("--method", default="", help="HTTP method, empty for any.")
@click.option("--path", default="", help="Regular expression, searched in the request's path.")
@click.option("--delay", default="0s", help="Wait so long first.")
@click.option("--status", default=0, help="HTTP status of the answer.")
@click.option("--code", default="", help="errorCode of the answer.")
@click.option("--message", default="", help="Its message.")
@click.option("--error", default="", help="Error of a refused CometD message, for instance 403::Unknown client.")
@click.option("--failure-reason", default="", help="Its ext.sfdc.failureReason.")
@click.option("--effect", multiple=True, type=click.Choice(EFFECTS))
@click.pass_obj
def fault(org: Org, /, kind: str, count: int, delay: str, effect: tuple[str, ...], **members: str | int) -> None:
    """Order something to go wrong.

    KIND is where: rest, bulk, oauth, cometd, cometd:handshake, cometd:connect, cometd:subscribe, cometd:deliver,
    pubsub, pubsub:topic, pubsub:schema, pubsub:subscribe, pubsub:fetch or pubsub:deliver.
    """
    order: dict[str, Any] = {name: value for name, value in members.items() if value}
    order |= {"kind": kind, "count": count or None, "delay_s": seconds(delay), **dict.fromkeys(effect, True)}
    click.echo(org.ask("POST", "/faults", order)["number"])


@devorg.command()
@json_option
@click.pass_obj
def faults(org: Org, as_json: bool) -> None:
    """List the faults in force."""
    listed = org.ask("GET", "/faults")
    if as_json:
        return _show(listed)
    for item in listed:
        click.echo(" ".join(f"{name}={value}" for name, value in item.items()))
    return None


@devorg.command("clear-faults")
@click.argument("number", type=int, required=False)
@click.pass_obj
def clear_faults(org: Org, number: int | None) -> None:
    """Take one fault, or all of them, back."""
    org.ask("DELETE", "/faults" if number is None else f"/faults/{number}")


@devorg.command()
@click.argument("kind", type=click.Choice(["gap", "overflow", "wildcard", "raw"]))
@object_argument
@click.argument("rest", nargs=-1, metavar="[ID...|JSON]")
@click.option("--operation", type=click.Choice(["CREATE", "UPDATE", "DELETE", "UNDELETE"]), default="UPDATE")
@click.pass_obj
def emit(org: Org, kind: str, name: str, rest: tuple[str, ...], operation: str) -> None:
    """Put an event on the stream: a gap for records, an overflow, a wildcard such as 003*, or raw JSON."""
    order: dict[str, Any] = {"object": name}
    match kind:
        case "overflow":
            order |= {"kind": "GAP_OVERFLOW"}
        case "raw":
            try:
                order |= {"payload": json.loads(" ".join(rest))}
            except ValueError as error:
                raise click.BadParameter(f"no JSON: {error}") from error
        case _:
            order |= {"kind": f"GAP_{operation}" if kind == "gap" else operation, "ids": list(rest)}
    click.echo(org.ask("POST", "/events", order)["replay_id"])


@devorg.command()
@click.argument("kind", type=click.Choice(["validation", "duplicate", "update", "lock"]))
@click.argument("pairs", nargs=-1, metavar="MEMBER=VALUE...")
@click.pass_obj
def rule(org: Org, kind: str, pairs: tuple[str, ...]) -> None:
    """Order a rule of the org's administrator: refuse records, detect duplicates, set fields, lock a record.

    For instance: rule lock id=0035f..., or
    rule validation object=Lead 'when:={"field": "Company", "value": "X"}' message="not X"
    """
    org.ask("POST", "/rules", {"kind": kind, "members": values(pairs)})


@devorg.command("clear-rules")
@click.pass_obj
def clear_rules(org: Org) -> None:
    """Take all rules back."""
    org.ask("DELETE", "/rules")


@devorg.command()
@click.argument("action", type=click.Choice(["add", "change", "remove"]))
@object_argument
@click.argument("field_name", metavar="FIELD")
@click.argument("pairs", nargs=-1, metavar="[MEMBER=VALUE...]")
@click.pass_obj
def field(org: Org, action: str, name: str, field_name: str, pairs: tuple[str, ...]) -> None:
    """Add, change or remove a field; members are those of a describe, for instance type=double or length:=80."""
    method = {"add": "POST", "change": "PATCH", "remove": "DELETE"}[action]
    org.ask(method, "/fields", {"object": name, "field": {**values(pairs), "name": field_name}})


@devorg.command("expire-tokens")
@click.option("--refresh", is_flag=True, help="Refresh tokens as well.")
@click.pass_obj
def expire_tokens(org: Org, refresh: bool) -> None:
    """Kill every access token."""
    for kind, expired in org.ask("POST", "/tokens/expire", {"refresh": refresh}).items():
        click.echo(f"{kind:18} {expired}")


@devorg.command("expire-replay")
@click.option("--reset", is_flag=True, help="Start a new stream with other ids.")
@click.pass_obj
def expire_replay(org: Org, reset: bool) -> None:
    """Make every replay id given so far invalid."""
    org.ask("POST", "/replay/reset" if reset else "/replay/expire")


@devorg.command("drop-connections")
@click.option("--path", default="", help="Only those with a request below this path, for instance /cometd/.")
@click.pass_obj
def drop_connections(org: Org, path: str) -> None:
    """Cut the connections to the org."""
    click.echo(org.ask("POST", "/connections/drop", {"path": path})["dropped"])


@devorg.command("settings")
@click.argument("pairs", nargs=-1, metavar="[NAME=JSON...]")
@json_option
@click.pass_obj
def show_settings(org: Org, pairs: tuple[str, ...], as_json: bool) -> None:
    """Show the org's switches and scales, or set some."""
    order = values(pair.replace("=", ":=", 1) for pair in pairs)
    now = org.ask("PATCH", "/settings", order) if pairs else org.ask("GET", "/settings")
    if as_json:
        return _show(now)
    for name, value in now.items():
        click.echo(f"{name:26} {json.dumps(value)}")
    return None


@devorg.command()
@click.argument("names", nargs=-1, metavar="[OBJECT...]")
@json_option
@click.pass_obj
def select(org: Org, names: tuple[str, ...], as_json: bool) -> None:
    """Show the objects selected for Change Data Capture, or select exactly those named."""
    order = {"selected": list(names)}
    selected = (org.ask("PUT", "/selected", order) if names else org.ask("GET", "/selected"))["selected"]
    if as_json:
        return _show(selected)
    for name in selected:
        click.echo(name)
    return None


@devorg.command()
@json_option
@click.pass_obj
def stats(org: Org, as_json: bool) -> None:
    """Show API calls by path, logins and delivered events."""
    usage = org.ask("GET", "/usage")
    if as_json:
        return _show(usage)
    for name in ("api", "delivered", "streaming_clients"):
        click.echo(f"{name:18} {usage[name]}")
    for name, calls in sorted((usage["calls"] | usage["logins"]).items()):
        click.echo(f"{calls:8}  {name}")
    return None


@devorg.command()
@click.option("--after", default=0, help="Number of the entry behind which to begin.")
@click.option("--limit", default=100, show_default=True)
@json_option
@click.pass_obj
def ledger(org: Org, after: int, limit: int, as_json: bool) -> None:
    """List what was committed in the org."""
    entries = org.ask("GET", f"/ledger?after={after}&limit={limit}")["entries"]
    if as_json:
        return _show(entries)
    for entry in entries:
        click.echo(f"{entry['commit_number']} {entry['kind']:8} {entry['object']} {entry['id']} {entry['origin']}")
    return None


@devorg.command()
@object_argument
@click.option("--deleted", is_flag=True, help="Those in the recycle bin as well.")
@click.pass_obj
def records(org: Org, name: str, deleted: bool) -> None:
    """Print every record of an object, one line of JSON each."""
    after = ""
    while True:
        page = org.ask("GET", f"/records/{name}?after={after}&deleted={int(deleted)}")
        for record in page["records"]:
            click.echo(json.dumps(record))
        after = page["next"]
        if after is None:
            return
