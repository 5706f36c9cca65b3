"""`salesforce-sync doctor`: what is wrong, and what to do."""

import asyncio
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path

import click
import orjson
from rich.console import Console
from rich.table import Table
from rich.text import Text

from connector.app.clock import wall_clock_ms
from connector.cli.outcome import FAILED, NO_BROKER, NO_ORG, WRONG_USAGE
from connector.doctor.examine import examine
from connector.doctor.findings import Finding, Report, State
from connector.logs import configure_logs

_MARKS: Mapping[State, tuple[str, str]] = {"ok": ("✔", "green"), "warn": ("⚠", "yellow"), "fail": ("✖", "bold red")}
_WIDEST_CHECK = len("selection")
# The first of these with a failure tells the exit code: what stands further down may follow from it.
EXIT_CODES: Mapping[str, int] = {
    "settings": WRONG_USAGE,
    "replica": WRONG_USAGE,
    "org": NO_ORG,
    "login": NO_ORG,
    "broker": NO_BROKER,
}


@click.command
@click.option("--fix", is_flag=True, help="Select the objects for Change Data Capture; close files with secrets.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def doctor(settings_path: str | None, fix: bool, as_json: bool) -> None:
    """Check settings, secrets, time, disk, replica, backups, broker, login, API budget, objects; say what to do.

    Works beside a running daemon. Costs two API calls and one for each object.
    """
    # The findings say all that the log would.
    configure_logs("auto", "critical")
    tell: Callable[[Finding], None] = (lambda _finding: None) if as_json else _Printer().show
    report = asyncio.run(
        examine(
            Path(settings_path) if settings_path else None,
            directory=Path.cwd(),
            fix=fix,
            tell=tell,
            now_ms=wall_clock_ms,
        )
    )
    if as_json:
        click.echo(_json(report))
    else:
        _sum_up(report)
    sys.exit(_exit_code(report))


class _Printer:
    """Shows findings as they come: in columns on a terminal, in whole lines in a pipe."""

    def __init__(self) -> None:
        self._console = Console(highlight=False)

    def show(self, finding: Finding) -> None:
        mark, style = _MARKS[finding.state]
        text = Text(finding.message)
        if finding.mend:
            text.append("\n→ ", style="bold").append(finding.mend)
        if not self._console.is_terminal:
            for number, line in enumerate(text.plain.splitlines()):
                click.echo(
                    f"{mark if number == 0 else ' '} {finding.check if number == 0 else '':{_WIDEST_CHECK}} {line}"
                )
            return
        table = Table.grid(padding=(0, 1))
        table.add_column(width=1)
        table.add_column(width=_WIDEST_CHECK)
        table.add_column(overflow="fold")
        table.add_row(Text(mark, style=style), Text(finding.check, style="bold"), text)
        self._console.print(table)


def _sum_up(report: Report) -> None:
    counts = {state: sum(finding.state == state for finding in report.findings) for state in _MARKS}
    if report.skipped:
        click.echo(f"not looked at, because of the above: {', '.join(report.skipped)}")
    click.echo(f"{counts['ok']} fine, {counts['warn']} to watch, {counts['fail']} to mend")


def _json(report: Report) -> bytes:
    document = {
        "ok": not report.failed,
        "findings": [asdict(finding) for finding in report.findings],
        "skipped": report.skipped,
    }
    return orjson.dumps(document, option=orjson.OPT_INDENT_2 if sys.stdout.isatty() else 0)


def _exit_code(report: Report) -> int:
    return next((code for check, code in EXIT_CODES.items() if check in report.failed), FAILED if report.failed else 0)
