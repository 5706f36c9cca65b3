"""The screen of `top`: what fits, the most important first, from 80 x 24 up."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.layout import Layout
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from connector.cli.plain import plain
from connector.cli.screen import STATUS_STYLES, attention, changes, commands, headline, objects, vitals

MOST_ATTENTION = 3
MOST_OBJECTS = 6
_WIDE_COLUMNS = 130
_BLOCKS = "▁▂▃▄▅▆▇█"
_SPARK_COLUMNS = 60


def top_screen(board: Mapping[str, Any]) -> RenderableType:
    """The whole screen, to be laid out in the terminal's size as it is when it is drawn."""
    return _TopScreen(board)


class _TopScreen:
    def __init__(self, board: Mapping[str, Any]) -> None:
        self._board = board

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        width, height = options.max_width, options.height or options.size.height
        yield _layout(self._board, width, height)


def _layout(board: Mapping[str, Any], width: int, height: int) -> Layout:
    wanted = list(attention(board, MOST_ATTENTION))
    figures = vitals(board)
    _add_trend(figures, board, min(_SPARK_COLUMNS, width - 20))
    known = len((board["replica"] or {"objects": {}})["objects"])
    table_lines = 1 + min(known, MOST_OBJECTS)
    above = 1 + len(wanted) + figures.row_count + 1 + table_lines
    root = Layout()
    root.split_column(
        Layout(Group(headline(board), *wanted, figures), size=1 + len(wanted) + figures.row_count),
        Layout(Group(_rule("objects"), objects(board, MOST_OBJECTS)), size=1 + table_lines),
        _lists(board, width, height - above - 1),
        Layout(Text(f" q quit   {board['as_of'][11:19]} UTC", style="dim reverse", justify="left"), size=1),
    )
    return root


def _add_trend(figures: Table, board: Mapping[str, Any], width: int) -> None:
    trend = board["trend"]
    figures.add_row("15 min", Text(sparkline(trend["rate"], width), style="cyan"))
    statuses = (board["replica"] or {}).get("commands", {})
    text = Text()
    for name, count in statuses.items():
        text.append(" · " if text else "").append(f"{count:,} {plain(name)}", style=STATUS_STYLES.get(name, ""))
    figures.add_row("commands", text or Text("none", style="dim"))


def _lists(board: Mapping[str, Any], width: int, height: int) -> Layout:
    """Changes, commands and conflicts in what room is left."""
    found = Layout(size=max(1, height))
    if width >= _WIDE_COLUMNS:
        found.split_row(Layout(_changes(board, height)), Layout(_commands(board, height)))
    else:
        lower = max(1, height * 2 // 5)
        found.split_column(
            Layout(_changes(board, height - lower), size=max(1, height - lower)),
            Layout(_commands(board, lower), size=lower),
        )
    return found


def _changes(board: Mapping[str, Any], height: int) -> Group:
    body = changes(board, max(0, height - 2)) if board["changes"] else Text("nothing has changed yet", style="dim")
    return Group(_rule("changes"), body)


def _commands(board: Mapping[str, Any], height: int) -> Group:
    """Half of the room for conflicts, where there are any."""
    lines = max(0, height - 2)
    torn = board["conflicts"][: lines // 2]
    recent = board["commands"][: lines - len(torn)]
    body = commands(board, len(recent)) if recent else Text("no commands", style="dim")
    shown = {one["command_id"] for one in recent}
    return Group(_rule("commands"), body, *(_conflict(one) for one in torn if one["command_id"] not in shown))


def _conflict(one: Mapping[str, Any]) -> Text:
    what = f"{one['operation']} {one['object']} {one['id'] or ''}: {', '.join(one['conflict'] or {})}"
    return Text.assemble(("conflict ", "yellow"), plain(what), no_wrap=True, overflow="ellipsis")


def _rule(title: str) -> Rule:
    return Rule(title, align="left", style="dim")


def sparkline(values: Sequence[float], width: int) -> str:
    """The newest values as blocks, the greatest of each stretch; no block where nothing was."""
    width = max(1, min(width, len(values)))
    stretch = len(values) // width
    greatest = [max(values[i : i + stretch]) for i in range(len(values) % width, len(values), stretch)]
    most = max(greatest) or 1.0
    return "".join(_BLOCKS[min(7, int(8 * one / most))] if one else " " for one in greatest)
