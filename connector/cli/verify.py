"""`salesforce-sync verify`: is the replica equal to the org?"""

import asyncio
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import click
import orjson

from connector.app.once import verify_once
from connector.cli.asking import ask_daemon, chosen_objects, progress_bars
from connector.cli.outcome import FAILED
from connector.cli.project import org_settings
from connector.errors import StoreLocked
from connector.settings import Settings

Found = Mapping[str, Mapping[str, int]]


@click.command
@click.option("--objects", metavar="NAME,...", help="Only these objects.")
@click.option("--repair", is_flag=True, help="Put right what differs.")
@click.option(
    "--allow-deletions",
    metavar="OBJECT",
    multiple=True,
    help="Delete what the org no longer shows of OBJECT, however much it is; implies --repair. May be repeated.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def verify(
    settings_path: str | None, objects: str | None, repair: bool, allow_deletions: Sequence[str], as_json: bool
) -> None:
    """Compare the replica with the org, record by record; beside a running daemon the daemon does.

    One API call per 2,000 records. Exits 1 if it found a difference that was not repaired.
    """
    settings = org_settings(settings_path)
    allowed = chosen_objects(settings, ",".join(allow_deletions) or None, "--allow-deletions") or []
    # Who names what may be deleted, and nothing else, means just that.
    named = chosen_objects(settings, objects, "--objects") or (allowed if allowed and not repair else settings.synced())
    names = list(dict.fromkeys((*named, *allowed)))
    found = _verified(settings, names, repair=repair or bool(allowed), allowed=allowed, as_json=as_json)
    if as_json:
        click.echo(orjson.dumps({"objects": found}))
    else:
        for name, figures in found.items():
            click.echo(_line(name, figures))
    if any(figures["drift"] > figures["repaired"] for figures in found.values()):
        sys.exit(FAILED)


def _verified(
    settings: Settings, names: Sequence[str], *, repair: bool, allowed: Sequence[str], as_json: bool
) -> Found:
    with progress_bars() as advance:
        try:
            done = asyncio.run(verify_once(settings, names, advance, repair=repair, allow_deletions=allowed))
        except StoreLocked:
            done = None
    if done is not None:
        return {r.object: _figures(asdict(r)) for r in done}
    request = {"objects": list(names), "repair": repair, "allow_deletions": list(allowed)}
    reply = ask_daemon(settings, "verify", request, as_json=as_json)
    found: Found = reply["data"]["objects"]
    return found


def _figures(outcome: Mapping[str, Any]) -> Mapping[str, int]:
    return {name: outcome[name] for name in ("compared", "drift", "repaired", "held")}


def _line(name: str, figures: Mapping[str, int]) -> str:
    compared, drift, repaired, held = (figures[key] for key in ("compared", "drift", "repaired", "held"))
    text = f"{name}: {compared:,} records compared, " + (f"{drift:,} differ" if drift else "equal")
    if repaired:
        text += f", {repaired:,} repaired"
    if held:
        text += f"; {held:,} are gone in the org, too many at once: `verify --allow-deletions {name}` deletes them"
    elif drift > repaired:
        text += "; `verify --repair` puts that right"
    return text
