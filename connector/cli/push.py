"""`push`: sends what is queued."""

import asyncio
import sys
from functools import partial

import click

from connector.app.push import push as push_queue
from connector.cli.asking import progress_bars
from connector.cli.outcome import FAILED
from connector.cli.project import org_settings

PUSH_TIMEOUT_S = 60.0


@click.command("push")
@click.option("--timeout", "timeout_s", default=PUSH_TIMEOUT_S, show_default=True, help="Seconds to wait at most.")
@click.pass_obj
def push(settings_path: str | None, timeout_s: float) -> None:
    """Send queued commands now; exit 1 if some are left."""
    with progress_bars() as advance:
        done = asyncio.run(push_queue(org_settings(settings_path), timeout_s, partial(advance, "commands")))
    who = "the daemon" if done.by_daemon else "this process"
    click.echo(
        f"{done.sent} commands sent by {who}, {done.left} left" if done.sent or done.left else "nothing is queued"
    )
    if done.left:
        sys.exit(FAILED)
