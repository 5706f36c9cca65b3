"""`salesforce-sync status`: how things stand, at a glance."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import click
from rich.console import Console

from connector.cli.project import open_settings
from connector.cli.read import print_json
from connector.cli.screen import status_screen
from connector.mesh.topics import Topics
from connector.mesh.visitor import address_of
from connector.overview.board import Board, BoardRules
from connector.overview.opened import OpenedReplica
from connector.overview.told import DaemonWatch, Told
from connector.settings import Settings

TOLD_WAIT_S = 2.0
PIPE_COLUMNS = 120


@click.command
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def status(settings_path: str | None, as_json: bool) -> None:
    """Show how things stand: the daemon, the stream, every object, what waits, the API budget, what is wrong."""
    board = asyncio.run(_look(open_settings(settings_path)))
    if as_json:
        del board["trend"]
        print_json(board)
        return
    console = Console()
    console.width = console.width if console.is_terminal else PIPE_COLUMNS
    console.print(status_screen(board))


@asynccontextmanager
async def opened_board(settings: Settings, wait_s: float) -> AsyncIterator[Board]:
    """The overview from outside of the daemon: its file, and what it tells on the mesh within the time."""
    topics = Topics(root=settings.mqtt.root)
    with DaemonWatch(address_of(settings.mqtt, settings.secrets), topics) as watch:

        async def told() -> Told:
            return watch.told()

        await asyncio.to_thread(watch.first_told, wait_s)
        async with OpenedReplica(settings.storage.path, 1) as replica:
            yield Board(replica, told, BoardRules.of(settings), now_ms=_now_ms)


async def _look(settings: Settings) -> dict[str, Any]:
    async with opened_board(settings, TOLD_WAIT_S) as board:
        return await board.look()


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
