"""`salesforce-sync demo`: shows the product doing its job, and says what it found."""

import asyncio
import signal
import sys
import time

import click
from rich.console import Console
from rich.table import Table

from connector.cli.outcome import FAILED
from connector.demo.show import COMMAND_PAUSE_S, EDITS_PER_S, Figures, Scene, curtain, play, stage

REPORT_EVERY_S = 5.0


@click.command
@click.option("--seconds", default=25.0, show_default=True, help="How long people work; 0: until interrupted.")
def demo(seconds: float) -> None:
    """Show it: a local org, a broker, people who edit, a service that sends commands; then a summary."""
    console = Console(width=None if sys.stdout.isatty() else 100)
    figures = asyncio.run(_run(console, seconds))
    console.print(_summary(figures))
    if not figures.good:
        console.print("The demo did not end as it should: see the figures above.", style="bold red")
        sys.exit(FAILED)
    console.print(
        "Every edit arrived, every command was answered, and the replica is equal to the org.", soft_wrap=True
    )


async def _run(console: Console, seconds: float) -> Figures:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    main = asyncio.current_task()
    assert main is not None  # noqa: S101 - we are in it

    def interrupted() -> None:
        # The first one ends the show with its summary, the second one ends the program.
        main.cancel() if stop.is_set() else stop.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, interrupted)
    async with stage(lambda text: console.print(f"==> {text}", soft_wrap=True)) as scene:
        _where(console, scene, seconds)
        if seconds > 0:
            loop.call_later(seconds, stop.set)
        report = asyncio.create_task(_report(console, scene), name="demo.report")
        try:
            await play(scene, stop)
        finally:
            report.cancel()
        console.print("==> waiting until all is quiet, then comparing replica and org record by record")
        return await curtain(scene)


def _where(console: Console, scene: Scene, seconds: float) -> None:
    figures, parts = scene.figures, scene.parts
    console.print(f"==> {figures.records:,} records loaded in {figures.load_s:.1f} s")
    console.print(f"    broker    127.0.0.1:{parts.broker_port}", highlight=False, soft_wrap=True)
    console.print(f"    org       {parts.org['url']}", highlight=False, soft_wrap=True)
    console.print(f"    database  {parts.database}", highlight=False, soft_wrap=True)
    console.print(f"    page      http://127.0.0.1:{parts.web_port}", highlight=False, soft_wrap=True)
    console.print("    join in:", highlight=False)
    for line in (
        f"mosquitto_sub -p {parts.broker_port} -v -t 'blackroad/salesforce/change/#'",
        f"sqlite3 {parts.database} 'SELECT * FROM contact_live LIMIT 5'",  # noqa: S608 - a line to copy
        f"salesforce-sync --settings {parts.settings} top",
        f"salesforce-sync devorg --url {parts.org['url']} info",
    ):
        console.print(f"      {line}", highlight=False, soft_wrap=True)
    how_long = f"for {seconds:.0f} s" if seconds > 0 else "until interrupted (Ctrl-C)"
    console.print(
        f"==> people make {EDITS_PER_S:.0f} edits a second, a service sends commands every {COMMAND_PAUSE_S:.0f} s, "
        f"{how_long}",
        soft_wrap=True,
    )


async def _report(console: Console, scene: Scene) -> None:
    began = time.monotonic()
    while True:
        await asyncio.sleep(REPORT_EVERY_S)
        watcher = scene.watcher
        console.print(
            f"    {time.monotonic() - began:4.0f} s  {scene.people.edits:5d} edits  "
            f"{sum(watcher.changes.values()):5d} changes on the mesh  "
            f"{scene.service.statuses['succeeded']:3d} commands done  last: {watcher.last_change}",
            highlight=False,
            soft_wrap=True,
        )


def _summary(figures: Figures) -> Table:
    table = Table(title="salesforce-sync demo", show_header=False, title_justify="left")
    table.add_column(no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    changes = ", ".join(f"{count} {name}" for name, count in sorted(figures.changes.items()))
    commands = ", ".join(f"{count} {name}" for name, count in sorted(figures.commands.items()))
    for name, value in (
        ("records loaded", f"{figures.records:,} in {figures.load_s:.1f} s"),
        ("edits by people", f"{figures.edits:,}"),
        ("changes on the mesh", changes),
        ("versions missed by the subscriber", str(figures.missed)),
        ("commit in the org to message, p50", f"{figures.p50_ms:.0f} ms"),
        ("commit in the org to message, p99", f"{figures.p99_ms:.0f} ms"),
        ("commands", commands),
        ("command to final result, p50", f"{figures.command_p50_ms:.0f} ms"),
        ("API calls used", f"{figures.api_calls:,} of 15,000 a day"),
        ("records that differ", str(figures.differing)),
    ):
        table.add_row(name, value)
    return table
