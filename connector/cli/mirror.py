"""`salesforce-sync mirror`: keeps a copy of a replica on another node, from the mesh alone."""

import asyncio

import click

from connector.app.mirror import run_mirror
from connector.app.supervise import Stop
from connector.cli.project import open_settings
from connector.settings import Settings


@click.command
@click.pass_obj
def mirror(settings_path: str | None) -> None:
    """Keep a copy of the replica of the connector at `mqtt.root`, without Salesforce; until SIGTERM or Ctrl-C.

    Of the settings it takes node, mqtt, storage, health.interval, sync.backoff_max and log, and MQTT_USERNAME and
    MQTT_PASSWORD of the secrets.
    """
    asyncio.run(_run(open_settings(settings_path, quiet=False)))


async def _run(settings: Settings) -> None:
    stop = Stop()
    stop.on_signals()
    await run_mirror(settings, stop)
