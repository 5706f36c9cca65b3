"""`salesforce-sync daemon`: keeps the replica current until told to stop."""

import asyncio
import faulthandler

import click

from connector.app.opening import run_daemon
from connector.app.supervise import Stop
from connector.cli.project import org_settings
from connector.settings import Settings


@click.command
@click.pass_obj
def daemon(settings_path: str | None) -> None:
    """Keep the replica current, publish every change, take commands; until SIGTERM or Ctrl-C."""
    # The watchdog ends a daemon that hangs by SIGABRT: then the log shows where each thread stood.
    faulthandler.enable()
    asyncio.run(_run(org_settings(settings_path, quiet=False)))


async def _run(settings: Settings) -> None:
    stop = Stop()
    stop.on_signals()
    await run_daemon(settings, stop)
