"""`salesforce-sync web`: the page, from a process beside the daemon."""

import asyncio

import click

from connector.app.page import run_page_beside
from connector.app.supervise import Stop
from connector.cli.project import open_settings
from connector.settings import Settings


@click.command
@click.pass_obj
def web(settings_path: str | None) -> None:
    """Serve the page on `web.listen`, until SIGTERM or Ctrl-C; the daemon serves it itself with `web.enabled`."""
    asyncio.run(_run(open_settings(settings_path, quiet=False)))


async def _run(settings: Settings) -> None:
    stop = Stop()
    stop.on_signals()
    await run_page_beside(settings, stop)
