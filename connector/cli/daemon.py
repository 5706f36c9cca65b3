"""`salesforce-sync daemon`: keeps the replica current until told to stop."""

import asyncio
import faulthandler
import gc

import click

from connector.app.daemon import run_daemon
from connector.app.supervise import Stop
from connector.cli.project import org_settings
from connector.settings import Settings

# Cycles are looked for after so many more objects were made than freed (objects, such passes, passes over those). A
# batch of changes is some 20,000 objects without a cycle: with the usual 700 a sixth of the processor went into looking
# at them, and at everything that has been imported, while they lived.
_CYCLE_PASSES = (20_000, 20, 10)


@click.command
@click.pass_obj
def daemon(settings_path: str | None) -> None:
    """Keep the replica current, publish every change, take commands; until SIGTERM or Ctrl-C."""
    # The watchdog ends a daemon that hangs by SIGABRT: then the log shows where each thread stood.
    faulthandler.enable()
    gc.set_threshold(*_CYCLE_PASSES)
    asyncio.run(_run(org_settings(settings_path, quiet=False)))


async def _run(settings: Settings) -> None:
    stop = Stop()
    stop.on_signals()
    await run_daemon(settings, stop)
