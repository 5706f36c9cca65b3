"""What an org holds and what it has done: switches, selection, usage, ledger, records."""

import json

import click

from connector.cli.devorg.running import Org
from connector.cli.devorg.words import json_option, object_argument, show, values


@click.command()
@json_option
@click.pass_obj
def info(org: Org, as_json: bool) -> None:
    """Show where the org is and how to log in to it."""
    about = org.ask("GET", "/")
    if as_json:
        return show(about)
    for name, value in about.items():
        click.echo(f"{name:18} {value}")
    return None


@click.command("settings")
@click.argument("pairs", nargs=-1, metavar="[NAME=JSON...]")
@json_option
@click.pass_obj
def show_settings(org: Org, pairs: tuple[str, ...], as_json: bool) -> None:
    """Show the org's switches and scales, or set some."""
    order = values(pair.replace("=", ":=", 1) for pair in pairs)
    now = org.ask("PATCH", "/settings", order) if pairs else org.ask("GET", "/settings")
    if as_json:
        return show(now)
    for name, value in now.items():
        click.echo(f"{name:26} {json.dumps(value)}")
    return None


@click.command()
@click.argument("names", nargs=-1, metavar="[OBJECT...]")
@json_option
@click.pass_obj
def select(org: Org, names: tuple[str, ...], as_json: bool) -> None:
    """Show the objects selected for Change Data Capture, or select exactly those named."""
    order = {"selected": list(names)}
    selected = (org.ask("PUT", "/selected", order) if names else org.ask("GET", "/selected"))["selected"]
    if as_json:
        return show(selected)
    for name in selected:
        click.echo(name)
    return None


@click.command()
@json_option
@click.pass_obj
def stats(org: Org, as_json: bool) -> None:
    """Show API calls by path, logins and delivered events."""
    usage = org.ask("GET", "/usage")
    if as_json:
        return show(usage)
    for name in ("api", "delivered", "streaming_clients"):
        click.echo(f"{name:18} {usage[name]}")
    for name, calls in sorted((usage["calls"] | usage["logins"]).items()):
        click.echo(f"{calls:8}  {name}")
    return None


@click.command()
@click.option("--after", default=0, help="Number of the entry behind which to begin.")
@click.option("--limit", default=100, show_default=True)
@json_option
@click.pass_obj
def ledger(org: Org, after: int, limit: int, as_json: bool) -> None:
    """List what was committed in the org."""
    entries = org.ask("GET", f"/ledger?after={after}&limit={limit}")["entries"]
    if as_json:
        return show(entries)
    for entry in entries:
        click.echo(f"{entry['commit_number']} {entry['kind']:8} {entry['object']} {entry['id']} {entry['origin']}")
    return None


@click.command()
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
