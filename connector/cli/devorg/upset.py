"""What an org's world does to its clients: faults, gaps, expiries, rules, fields that come and go."""

import json
from typing import Any

import click

from connector.cli.devorg.running import Org
from connector.cli.devorg.words import json_option, object_argument, seconds, show, values

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


@click.command()
@click.argument("duration")
@click.pass_obj
def advance(org: Org, duration: str) -> None:
    """Move the org's clock on, for instance by 72h."""
    click.echo(org.ask("POST", "/time", {"advance_s": seconds(duration)})["now"])


@click.command()
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


@click.command()
@json_option
@click.pass_obj
def faults(org: Org, as_json: bool) -> None:
    """List the faults in force."""
    listed = org.ask("GET", "/faults")
    if as_json:
        return show(listed)
    for item in listed:
        click.echo(" ".join(f"{name}={value}" for name, value in item.items()))
    return None


@click.command("clear-faults")
@click.argument("number", type=int, required=False)
@click.pass_obj
def clear_faults(org: Org, number: int | None) -> None:
    """Take one fault, or all of them, back."""
    org.ask("DELETE", "/faults" if number is None else f"/faults/{number}")


@click.command()
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


@click.command()
@click.argument("kind", type=click.Choice(["validation", "duplicate", "update", "lock"]))
@click.argument("pairs", nargs=-1, metavar="MEMBER=VALUE...")
@click.pass_obj
def rule(org: Org, kind: str, pairs: tuple[str, ...]) -> None:
    """Order a rule of the org's administrator: refuse records, detect duplicates, set fields, lock a record.

    For instance: rule lock id=0035f..., or
    rule validation object=Lead 'when:={"field": "Company", "value": "X"}' message="not X"
    """
    org.ask("POST", "/rules", {"kind": kind, "members": values(pairs)})


@click.command("clear-rules")
@click.pass_obj
def clear_rules(org: Org) -> None:
    """Take all rules back."""
    org.ask("DELETE", "/rules")


@click.command()
@click.argument("action", type=click.Choice(["add", "change", "remove"]))
@object_argument
@click.argument("field_name", metavar="FIELD")
@click.argument("pairs", nargs=-1, metavar="[MEMBER=VALUE...]")
@click.pass_obj
def field(org: Org, action: str, name: str, field_name: str, pairs: tuple[str, ...]) -> None:
    """Add, change or remove a field; members are those of a describe, for instance type=double or length:=80."""
    method = {"add": "POST", "change": "PATCH", "remove": "DELETE"}[action]
    org.ask(method, "/fields", {"object": name, "field": {**values(pairs), "name": field_name}})


@click.command("expire-tokens")
@click.option("--refresh", is_flag=True, help="Refresh tokens as well.")
@click.pass_obj
def expire_tokens(org: Org, refresh: bool) -> None:
    """Kill every access token."""
    for kind, expired in org.ask("POST", "/tokens/expire", {"refresh": refresh}).items():
        click.echo(f"{kind:18} {expired}")


@click.command("expire-replay")
@click.option("--reset", is_flag=True, help="Start a new stream with other ids.")
@click.pass_obj
def expire_replay(org: Org, reset: bool) -> None:
    """Make every replay id given so far invalid."""
    org.ask("POST", "/replay/reset" if reset else "/replay/expire")


@click.command("drop-connections")
@click.option("--path", default="", help="Only those with a request below this path, for instance /cometd/.")
@click.pass_obj
def drop_connections(org: Org, path: str) -> None:
    """Cut the connections to the org."""
    click.echo(org.ask("POST", "/connections/drop", {"path": path})["dropped"])
