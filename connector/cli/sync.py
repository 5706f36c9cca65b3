"""`salesforce-sync sync`: loads and catches up once, or asks the running daemon to."""

import asyncio
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import click
import orjson

from connector.app.once import sync_once
from connector.cli.asking import ask_daemon, chosen_objects, progress_bars
from connector.cli.outcome import FAILED
from connector.cli.project import org_settings
from connector.errors import StoreLocked


@click.command
@click.option("--objects", metavar="NAME,...", help="Only these objects.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def sync(settings_path: str | None, objects: str | None, as_json: bool) -> None:
    """Load what is not loaded, and catch up on the rest, once.

    Beside a running daemon it asks the daemon to catch up.
    """
    settings = org_settings(settings_path)
    chosen = chosen_objects(settings, objects, "--objects")
    with progress_bars() as advance:
        try:
            rounds = asyncio.run(sync_once(settings, chosen, advance))
        except StoreLocked:
            rounds = None
    if rounds is None:
        _tell_reply(
            ask_daemon(settings, "sync", {"objects": chosen} if chosen else {}, as_json=as_json), as_json=as_json
        )
        return
    done = [asdict(r) for r in rounds]
    if as_json:
        click.echo(orjson.dumps({"rounds": done}))
    else:
        for r in done:
            click.echo(_line(r["kind"], r["objects"], r["records"], r["duration_s"], r["api_calls"], r["error"]))
    if any(r["error"] for r in done):
        sys.exit(FAILED)


def _tell_reply(reply: Mapping[str, Any], *, as_json: bool) -> None:
    if as_json:
        click.echo(orjson.dumps(reply))
        return
    data = reply["data"]
    click.echo(_line("sync", data["objects"], data["records"], data["duration_s"], data["api_calls"], None))


def _line(kind: str, objects: Sequence[str], records: int, duration_s: float, api_calls: int, error: str | None) -> str:
    if error is not None:
        return f"{kind} of {', '.join(objects)} failed: {error}"
    what = "records" if kind == "load" else "changes"
    return f"{kind} of {', '.join(objects)}: {records:,} {what} in {duration_s:.1f} s, {api_calls} API calls"
