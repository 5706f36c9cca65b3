"""`salesforce-sync top`: how things stand, followed on a terminal until told to stop."""

import asyncio
import contextlib
import os
import signal
import sys
import termios
import tty
from collections.abc import Iterator
from contextlib import contextmanager

import click
from rich.console import Console
from rich.live import Live

from connector.cli.outcome import WRONG_USAGE
from connector.cli.project import open_settings
from connector.cli.status import opened_board
from connector.cli.topscreen import top_screen
from connector.settings import Settings

LOOK_EVERY_S = 1.0
# The first screen need not wait for the broker.
_TOLD_WAIT_S = 0.5
_QUIT_KEYS = frozenset(b"qQ\x03\x04")  # also Ctrl-C and Ctrl-D, where the terminal hands them on as keys


@click.command
@click.pass_obj
def top(settings_path: str | None) -> None:
    """Follow how things stand, once a second: rates, lag, queues, API budget, changes, commands. Ends on q."""
    settings = open_settings(settings_path)
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        click.echo(
            "salesforce-sync: top needs a terminal; `salesforce-sync status` prints how things stand, with --json for "
            "programs",
            err=True,
        )
        sys.exit(WRONG_USAGE)
    with _keys_at_once(sys.stdin.fileno()):
        asyncio.run(_follow(settings))


async def _follow(settings: Settings) -> None:
    quit_asked, redraw = asyncio.Event(), asyncio.Event()
    _listen(quit_asked, redraw)
    console = Console()
    async with opened_board(settings, _TOLD_WAIT_S) as board:
        with Live(console=console, screen=True, auto_refresh=False) as live:
            while not quit_asked.is_set():
                seen = await board.look()
                redraw.clear()
                live.update(top_screen(seen), refresh=True)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(LOOK_EVERY_S):
                        await redraw.wait()


def _listen(quit_asked: asyncio.Event, redraw: asyncio.Event) -> None:
    """Keys and signals; quitting wakes whoever waits to draw."""
    loop, keyboard = asyncio.get_running_loop(), sys.stdin.fileno()

    def leave() -> None:
        quit_asked.set()
        redraw.set()

    def pressed() -> None:
        keys = os.read(keyboard, 64)
        if not keys or _QUIT_KEYS & set(keys):  # nothing to read: the terminal is gone
            loop.remove_reader(keyboard)
            leave()

    loop.add_reader(keyboard, pressed)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, leave)
    loop.add_signal_handler(signal.SIGWINCH, redraw.set)


@contextmanager
def _keys_at_once(keyboard: int) -> Iterator[None]:
    """Keys come without Return and are not shown; the terminal is put back as it was."""
    before = termios.tcgetattr(keyboard)
    # Stopped by Ctrl-Z it would leave the shell in our screen.
    stopped_by = signal.signal(signal.SIGTSTP, signal.SIG_IGN)
    try:
        tty.setcbreak(keyboard)
        yield
    finally:
        signal.signal(signal.SIGTSTP, stopped_by)
        termios.tcsetattr(keyboard, termios.TCSADRAIN, before)
